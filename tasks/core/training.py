"""Training: phases of a plan, on labelled images, resumable at every epoch with the same bytes.

Axes: N images, C classes, D features, H height, W width.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from tasks.core.batches import ImageList, View, ahead, plain_batches, shuffled_indices
from tasks.core.files import whole_file
from tasks.core.model import ImageModel, blocks
from tasks.core.runtime import address_seed, is_quiet

SECONDS_BETWEEN_CHECKPOINTS = 5.0
ABSENT_CLASS_GAP = 20.0  # logits below the smallest one seen: a share of e^-20


@dataclass(frozen=True)
class HeadPhase:
    """Sets the head to a logistic regression on cached features; inverse_l2 is its C."""

    inverse_l2: float


@dataclass(frozen=True)
class NetPhase:
    """One phase that trains the network itself: which part, how long, how fast."""

    trains: str  # last_block | all, both with the head; backbone: all without the head
    n_epochs: int
    lr: float  # of the head and the last block
    block_decay: float  # each block below learns at this share of the rate of the block above it
    batch_norm: str  # train: statistics of the batches | frozen: those it came with


@dataclass(frozen=True)
class FitSettings:
    batch_size: int
    label_smoothing: float
    weight_decay: float
    evaluate_every: int
    seed: int
    device: str


@dataclass(frozen=True)
class Job:
    """One network being trained: its name (an address), its images, their views, and where it checkpoints."""

    name: str
    images: ImageList
    validation: ImageList
    view: View
    checkpoint_folder: Path


# (model, batch of images, indices of the batch) → loss
LossOf = Callable[[ImageModel, Tensor, list[int]], Tensor]


@dataclass
class Loop:
    """The state of one phase that a checkpoint holds."""

    model: ImageModel
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    next_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


def fit_head(model: ImageModel, x_ND: np.ndarray, y_N: np.ndarray, inverse_l2: float) -> None:
    """Sets the head to the logistic regression on standardised cached features; the scaling is folded into the weights.

    Classes that do not occur get no probability. ValueError where only one class occurs.
    """
    classes = np.unique(y_N)
    if len(classes) < 2:
        raise ValueError("the head phase needs labelled images of at least two classes")
    scaler = StandardScaler().fit(x_ND)
    probe = LogisticRegression(C=inverse_l2, max_iter=1000).fit(scaler.transform(x_ND), y_N)
    weight_CD, bias_C = probe.coef_, probe.intercept_
    if len(classes) == 2:  # scikit-learn gives one row for two classes: the log odds
        weight_CD, bias_C = np.concatenate([-weight_CD, weight_CD]) / 2, np.concatenate([-bias_C, bias_C]) / 2
    weight_CD = weight_CD / scaler.scale_
    bias_C = bias_C - weight_CD @ scaler.mean_
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.fill_(float((x_ND @ weight_CD.T + bias_C).min()) - ABSENT_CLASS_GAP)
        device = model.head.weight.device
        model.head.weight[classes] = torch.from_numpy(weight_CD).float().to(device)
        model.head.bias[classes] = torch.from_numpy(bias_C).float().to(device)


def smoothed_cross_entropy(images: ImageList, label_smoothing: float) -> LossOf:
    def loss(model: ImageModel, x_NCHW: Tensor, indices: list[int]) -> Tensor:
        labels = images.labels_at(indices).to(x_NCHW.device)
        return cross_entropy(model(x_NCHW), labels, label_smoothing=label_smoothing)

    return loss


def fit_phase(  # noqa: PLR0913  the last two are only SHOT's and a plan's
    model: ImageModel,
    phase: NetPhase,
    *,
    job: Job,
    settings: FitSettings,
    loss_of: LossOf,
    phase_number: int = 0,
    before_epoch: Callable[[ImageModel, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Trains in place and returns the history: one row per epoch. A killed run continues after the last checkpoint.

    ValueError where the loss stops being a number. Only steps and seeds addressed by (job, phase, epoch) are random.
    """
    if len(job.images) < 2:
        raise ValueError(f"{job.name}: {len(job.images)} training image(s); at least 2 are needed")
    address = (settings.seed, job.name, phase_number)
    n_steps = len(shuffled_indices(len(job.images), settings.batch_size, *address, 0))
    optimizer = torch.optim.AdamW(parameter_groups(model, phase, settings.weight_decay))
    rates = [group["lr"] for group in optimizer.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=n_steps * phase.n_epochs + 1)
    loop = Loop(model, optimizer, schedule)
    checkpoint = Checkpoint(job.checkpoint_folder / f"{job.name}.{phase_number}.pt", settings.device)
    checkpoint.restore(loop)
    epochs = range(loop.next_epoch, phase.n_epochs)
    label = f"{job.name}: {phase.trains}"
    for epoch in tqdm(
        epochs, desc=label, unit="epoch", initial=loop.next_epoch, total=phase.n_epochs, disable=is_quiet()
    ):
        if before_epoch is not None:
            before_epoch(model, epoch)
        torch.manual_seed(address_seed(*address, epoch))
        batches = shuffled_indices(len(job.images), settings.batch_size, *address, epoch)
        set_training(model, phase)
        loss = _epoch(loop, job, settings, loss_of, batches, epoch)
        if not math.isfinite(loss):
            raise ValueError(
                f"{job.name}: the loss is {loss} in phase {phase.trains}, epoch {epoch}; lower lr in params.yaml"
            )
        row = {"model": job.name, "phase": f"{phase_number}-{phase.trains}", "epoch": epoch + 1, "loss": round(loss, 6)}
        last = epoch + 1 == phase.n_epochs
        if len(job.validation) and (last or (epoch + 1) % settings.evaluate_every == 0):
            row["val_accuracy"] = round(accuracy(model, job.validation, settings), 6)
        loop.history.append(row)
        loop.next_epoch = epoch + 1
        checkpoint.save(loop, at_once=last)
    return loop.history


def _epoch(loop: Loop, job: Job, settings: FitSettings, loss_of: LossOf, batches: list[list[int]], epoch: int) -> float:
    losses = []
    decoded = ahead(lambda indices: (indices, job.images.batch(indices, job.view, epoch)), batches)
    for indices, x_NCHW in decoded:
        loss = loss_of(loop.model, x_NCHW.to(settings.device), indices)
        loop.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        loop.optimizer.step()
        loop.schedule.step()
        losses.append(float(loss.detach()))
    return float(np.mean(losses))


def set_training(model: ImageModel, phase: NetPhase) -> None:
    """Train mode; parts that don't learn, and BatchNorm where its statistics are frozen, stay in eval mode."""
    model.train()
    if phase.trains == "last_block":
        for _, block in blocks(model.backbone)[:-1]:
            block.eval()
    if phase.batch_norm == "frozen":
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def parameter_groups(model: ImageModel, phase: NetPhase, weight_decay: float) -> list[dict[str, Any]]:
    """Optimizer groups of what the phase trains; rates fall with depth, norms and biases are not decayed."""
    parts = blocks(model.backbone)
    learning = parts[-1:] if phase.trains == "last_block" else parts
    depths = [(list(block.parameters()), depth) for depth, (_, block) in enumerate(reversed(learning))]
    if phase.trains != "last_block":  # parameters that stand outside every block, e.g. a class token
        inside = {id(p) for _, block in learning for p in block.parameters()}
        depths.append(([p for p in model.backbone.parameters() if id(p) not in inside], len(learning)))
    if phase.trains != "backbone":
        depths.append((list(model.head.parameters()), 0))
    # not norms, biases, layer scales, position embeddings or bias tables
    weights = {id(p) for name, p in model.named_parameters() if p.ndim > 1 and name.endswith("weight")}
    groups: list[dict[str, Any]] = []
    for parameters, depth in depths:
        for decays in (True, False):
            chosen = [p for p in parameters if (id(p) in weights) == decays]
            if chosen:
                rate = phase.lr * phase.block_decay**depth
                groups.append({"params": chosen, "lr": rate, "weight_decay": weight_decay if decays else 0.0})
    trained = {id(p) for parameters, _ in depths for p in parameters}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in trained)
    return groups


class Checkpoint:
    """One file that holds a Loop. Saved at most every few seconds: an epoch may be a single step."""

    def __init__(self, path: Path, device: str) -> None:
        self.path = path
        self.device = device
        self._saved_at = time.monotonic()

    def restore(self, loop: Loop) -> None:
        if not self.path.exists():
            return
        stored = torch.load(self.path, map_location=self.device, weights_only=True)
        loop.model.load_state_dict(stored["model"])
        loop.optimizer.load_state_dict(stored["optimizer"])
        loop.schedule.load_state_dict(stored["schedule"])
        loop.next_epoch, loop.history = stored["next_epoch"], stored["history"]

    def save(self, loop: Loop, *, at_once: bool) -> None:
        if not at_once and time.monotonic() - self._saved_at < SECONDS_BETWEEN_CHECKPOINTS:
            return
        schedule = {k: v for k, v in loop.schedule.state_dict().items() if isinstance(v, int | float | bool | list)}
        content = {
            "model": loop.model.state_dict(),
            "optimizer": loop.optimizer.state_dict(),
            "schedule": schedule,
            "next_epoch": loop.next_epoch,
            "history": loop.history,
        }
        with whole_file(self.path) as part:
            torch.save(content, part)
        self._saved_at = time.monotonic()


def probabilities(model: ImageModel, images: ImageList, batch_size: int, device: str) -> np.ndarray:
    """(N, C) float64 softmax probabilities of the plain images; every part keeps its mode."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    parts = []
    with torch.inference_mode():
        for x_NCHW in plain_batches(images, batch_size):
            parts.append(model(x_NCHW.to(device)).double().softmax(1).cpu().numpy())
    for part, was_training in modes:
        part.training = was_training
    return np.concatenate(parts) if parts else np.zeros((0, model.head.out_features))


def accuracy(model: ImageModel, images: ImageList, settings: FitSettings) -> float:
    guessed = probabilities(model, images, settings.batch_size, settings.device).argmax(1)
    return float((guessed == np.array(images.labels)).mean())
