"""Plans: an ordered list of phases run on one network, each finished run kept for resume.

Axes: N images, D features.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from tasks.core.features import Features
from tasks.core.files import write_json
from tasks.core.model import ImageModel, load_weights, save_weights
from tasks.core.training import (
    FitSettings,
    HeadPhase,
    Job,
    NetPhase,
    accuracy,
    fit_head,
    fit_phase,
    smoothed_cross_entropy,
)

Phase = HeadPhase | NetPhase
History = list[dict[str, Any]]


@dataclass(frozen=True)
class Trained:
    model: ImageModel
    history: History


def run_plan(
    model: ImageModel, phases: Sequence[Phase], *, job: Job, settings: FitSettings, features: Features
) -> History:
    """Trains in place, phase by phase. `features` are the untouched backbone's, so a head phase can only come first."""
    history: History = []
    for number, phase in enumerate(phases):
        if isinstance(phase, HeadPhase):
            history.append(_head_phase(model, phase, job, settings, features))
        else:
            loss_of = smoothed_cross_entropy(job.images, settings.label_smoothing)
            history += fit_phase(model, phase, job=job, settings=settings, loss_of=loss_of, phase_number=number)
    return history


def _head_phase(
    model: ImageModel, phase: HeadPhase, job: Job, settings: FitSettings, features: Features
) -> dict[str, Any]:
    x_ND, image_N = features.rows_of(list(job.images.image_ids))
    y_N = np.array(job.images.labels)[image_N]
    fit_head(model, x_ND, y_N, phase.inverse_l2)
    with torch.inference_mode():
        logits = model.head(torch.from_numpy(x_ND).to(settings.device))
        loss = float(cross_entropy(logits.cpu(), torch.from_numpy(y_N)))
    row = {"model": job.name, "phase": "0-head", "epoch": 1, "loss": round(loss, 6)}
    if len(job.validation):
        row["val_accuracy"] = round(accuracy(model, job.validation, settings), 6)
    return row


def run_once(
    folder: Path, name: str, start: Callable[[], ImageModel], train: Callable[[ImageModel], History]
) -> Trained:
    """The trained network and its history; a run that an earlier, killed process finished is read back."""
    weights_path, history_path = folder / f"{name}.safetensors", folder / f"{name}.json"
    model = start()
    if history_path.exists():
        load_weights(model, weights_path)
        return Trained(model, json.loads(history_path.read_text(encoding="utf-8")))
    history = train(model)
    save_weights(model, weights_path)
    write_json(history_path, history)  # last: its presence says that the run is whole
    return Trained(model, history)
