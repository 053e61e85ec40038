"""What training costs beside the steps themselves: the loop, JPEG decoding, and a frozen backbone that is run again and again.

    python benchmarks/training_speed.py [--images N]        default: 128; some three minutes on a quiet machine

mobilenet_v2 at 128 px from random weights, batches of 32, AdamW with one cycle, one thread of torch, PACS images.
"loop_per_bare": images a second of fit_phase, whose images are decoded and in memory, against a plain loop of torch over
tensors that are in memory. "decoding_per_slower": images a second of fit_phase that decodes every JPEG, against the slower of
decoding alone and training alone. "head_stage": the time of N_EPOCHS epochs in which a frozen backbone is run for a head that
learns by AdamW, against one pass of features and the closed-form head (`with_features`), and against that head alone.
Ways take turns in one process. CPU seconds of the process, the threads that decode included:
other work on the machine does not count, and what a second core does beside the training is not taken for free.

Needs the testbed (ACCLIMATE_TESTBED, default ../shared/testbed); writes benchmarks/results/training_speed.json.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pipeline import ROOT, machine
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(ROOT))
from tasks.core.batches import ImageList, ahead, plain_batches
from tasks.core.head import fit_head
from tasks.core.images import ImageFiles
from tasks.core.model import ImageModel, network, split_head
from tasks.core.phases import FitSettings, Job, NetPhase
from tasks.core.regularisers import Supervised
from tasks.core.runtime import use_machine
from tasks.core.training import fit_phase

TESTBED = Path(os.environ.get("ACCLIMATE_TESTBED", ROOT / "../shared/testbed")).resolve()
SIDE_PX, BATCH_SIZE, N_CLASSES, N_EPOCHS, N_ROUNDS = 128, 32, 7, 30, 9
PHASE = NetPhase("all", 1, 0.001, 1.0, "train", "one_cycle", 0.3, None)
SETTINGS = FitSettings(
    batch_size=BATCH_SIZE, weight_decay=0.01, evaluate_every=1, seed=0, device="cpu", ema_decay=None, l2_sp=0.0, dropout=0.0,
    precision="float32", compile=False, accumulate=1,
)  # fmt: skip


def main(n_images: int) -> None:
    use_machine("cpu", 1)
    results = {
        "clock": "CPU seconds",
        "machine": machine(),
        "n_images": n_images,
        **loops(n_images),
        "head_stage": head_stage(n_images),
    }
    print(json.dumps(results, indent=1))
    (ROOT / "benchmarks/results/training_speed.json").write_text(json.dumps(results, indent=1) + "\n")


def pacs(n_images: int) -> ImageList:
    """Evenly from all domains and classes; nothing of them is decoded yet."""
    paths = sorted(str(p.relative_to(TESTBED / "pacs")) for p in (TESTBED / "pacs").rglob("*.jpg"))
    chosen = tuple(paths[:: max(len(paths) // n_images, 1)][:n_images])
    labels = tuple(k % N_CLASSES for k in range(len(chosen)))  # what is learnt doesn't matter here
    return ImageList(ImageFiles(TESTBED / "pacs", SIDE_PX), chosen, chosen, labels, (0.5,) * 3, (0.25,) * 3)


def fresh_model() -> ImageModel:
    torch.manual_seed(0)
    return split_head(network("torchvision.mobilenet_v2", N_CLASSES), N_CLASSES)


def loops(n_images: int) -> dict[str, Any]:
    in_memory = pacs(n_images)
    x_NCHW, y_N = in_memory.batch(range(n_images)), torch.tensor(in_memory.labels)
    ways: dict[str, Callable[[], object]] = {
        "bare": lambda: bare_epoch(x_NCHW, y_N),
        "loop": lambda: our_epoch(in_memory),
        "decoding_alone": lambda: decoded(pacs(n_images)),
        "loop_with_decoding": lambda: our_epoch(pacs(n_images)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(N_ROUNDS + 1):  # the first warms up
        for name, way in ways.items():
            taken = seconds_of(way)
            if number:
                seconds[name].append(taken)
    taken = {name: np.array(found) for name, found in seconds.items()}
    slower = np.maximum(taken["decoding_alone"], taken["loop"])
    return {
        "images_per_s": {name: round(n_images / float(np.median(found)), 1) for name, found in taken.items()},
        "loop_per_bare": told(taken["bare"], taken["loop"]),
        "decoding_per_slower": told(slower, taken["loop_with_decoding"]),
    }


def bare_epoch(x_NCHW: torch.Tensor, y_N: torch.Tensor) -> None:
    model = fresh_model().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=PHASE.lr, weight_decay=SETTINGS.weight_decay)
    batches = torch.randperm(len(x_NCHW)).split(BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PHASE.lr, total_steps=len(batches) + 1)
    for batch in batches:
        loss = cross_entropy(model(x_NCHW[batch].contiguous(memory_format=torch.channels_last)), y_N[batch])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()


def our_epoch(images: ImageList) -> None:
    """Its checkpoint at the end is part of it."""
    with tempfile.TemporaryDirectory() as folder:
        nothing = ImageList(images.files, (), (), (), images.mean, images.std)
        job = Job("timed", images, nothing, lambda image, _id, _number: image, Path(folder))
        objective = Supervised(torch.tensor(images.labels), 0.0)
        fit_phase(fresh_model(), PHASE, job=job, settings=SETTINGS, objective=objective)


def decoded(images: ImageList) -> None:
    for _ in plain_batches(images, BATCH_SIZE):
        pass


def head_stage(n_images: int) -> dict[str, Any]:
    images = pacs(n_images)
    y_N, x_ND = np.array(images.labels), features(images)  # the first pass decodes
    once = min(seconds_of(lambda: features(images)) for _ in range(N_ROUNDS))
    head = min(seconds_of(lambda: fit_head(fresh_model(), x_ND, y_N, 0.01)) for _ in range(N_ROUNDS))
    frozen = seconds_of(lambda: frozen_epochs(images))
    return {
        "n_epochs": N_EPOCHS,
        "seconds": {"frozen_epochs": round(frozen, 2), "features": round(once, 2), "head": round(head, 3)},
        "times_as_fast": round(frozen / head, 1),
        "times_as_fast_with_features": round(frozen / (once + head), 1),
    }


def features(images: ImageList) -> np.ndarray:
    backbone = fresh_model().backbone.eval()
    with torch.inference_mode():
        return np.concatenate([backbone(x_NCHW).numpy() for x_NCHW in plain_batches(images, BATCH_SIZE)])


def frozen_epochs(images: ImageList) -> None:
    """Images in memory, one batch made ahead: as much as a plain loop can do without keeping the features."""
    model, labels_N = fresh_model().eval(), torch.tensor(images.labels)
    optimizer = torch.optim.AdamW(model.head.parameters(), lr=PHASE.lr)
    for _ in range(N_EPOCHS):
        batches = [batch.tolist() for batch in torch.randperm(len(images)).split(BATCH_SIZE)]
        for batch, x_NCHW in ahead(lambda batch: (batch, images.batch(batch)), batches):
            with torch.no_grad():
                x_ND = model.features(x_NCHW)
            optimizer.zero_grad(set_to_none=True)
            cross_entropy(model.head(x_ND), labels_N[batch]).backward()
            optimizer.step()


def seconds_of(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def told(others: np.ndarray, ours: np.ndarray) -> dict[str, float]:
    """How many times as fast ours is: by the quickest rounds, which a busy machine disturbs least, and round by round."""
    low, median, high = np.quantile(others / ours, (0, 0.5, 1))
    found = {"of_quickest": others.min() / ours.min(), "median": median, "low": low, "high": high}
    return {name: round(float(value), 3) for name, value in found.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=128)
    main(parser.parse_args().images)
