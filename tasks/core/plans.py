"""Plans: an ordered list of phases run on one network, each finished run kept for resume.

Axes: N images, D features.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from tasks.core import parallel
from tasks.core.averaging import copied
from tasks.core.features import Features
from tasks.core.files import write_json
from tasks.core.head import fit_head
from tasks.core.model import ImageModel, load_weights, save_weights
from tasks.core.objective import Objective
from tasks.core.phases import FitSettings, HeadPhase, Job, NetPhase
from tasks.core.training import fit_phase, validation

Phase = HeadPhase | NetPhase
History = list[dict[str, Any]]


@dataclass(frozen=True)
class Trained:
    model: ImageModel
    history: History


def within_budget(
    plans: dict[str, list[Phase]], default: str, max_epochs: int | None
) -> tuple[list[str], dict[str, str]]:
    """The plans to run, the default first, and those whose epochs go beyond what is left, as plan_<name> with the reason."""
    left = math.inf if max_epochs is None else max_epochs
    taken, beyond = [], {}
    for name in [default, *(name for name in plans if name != default)]:
        n_epochs = sum(phase.n_epochs for phase in plans[name] if isinstance(phase, NetPhase))
        if name == default or n_epochs <= left:
            taken.append(name)
            left = max(left - n_epochs, 0)  # a plan without epochs costs nothing
        else:
            beyond[f"plan_{name}"] = f"its {n_epochs} epochs go beyond max_plan_epochs ({max_epochs})"
    return taken, beyond


def run_plan(
    model: ImageModel,
    phases: Sequence[Phase],
    *,
    job: Job,
    settings: FitSettings,
    features: Features,
    objective: Objective,
) -> History:
    """Trains in place, phase by phase. `features` are the untouched backbone's, so a head phase can only come first.

    L2-SP pulls to the weights that the plan starts with. The objective goes through the phases as it is.
    """
    if settings.l2_sp and job.anchor is None:
        job = replace(job, anchor=copied(model))
    history: History = []
    for number, phase in enumerate(phases):
        if isinstance(phase, HeadPhase):
            history.append(_head_phase(model, phase, job, settings, features))
        else:
            history += fit_phase(model, phase, job=job, settings=settings, objective=objective, phase_number=number)
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
        row |= validation(model, job.validation, settings).row()
    return row


def run_once(
    folder: Path, name: str, start: Callable[[], ImageModel], train: Callable[[ImageModel], History]
) -> Trained:
    """The trained network and its history; a run that an earlier, killed process finished is read back.

    Of several processes the first one writes.
    """
    weights_path, history_path = folder / f"{name}.safetensors", folder / f"{name}.json"
    model = start()
    if history_path.exists():
        load_weights(model, weights_path)
        return Trained(model, json.loads(history_path.read_text(encoding="utf-8")))
    history = train(model)
    if parallel.is_first():
        save_weights(model, weights_path)
        write_json(history_path, history)  # last: its presence says that the run is whole
    return Trained(model, history)
