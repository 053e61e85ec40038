"""What a training run is told: its phases, its settings and its job; and which parts of a network a phase trains."""

import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from tasks.core.batches import ImageList, View
from tasks.core.model import ImageModel, blocks

BLOCKS = "blocks:"
TRAINS = ("last_block", "all", "backbone")
BATCH_NORM = ("train", "frozen", "adapted")
SCHEDULES = ("one_cycle", "cosine", "constant")


@dataclass(frozen=True)
class HeadPhase:
    """Sets the head to a logistic regression on cached features; inverse_l2 is its C."""

    inverse_l2: float


@dataclass(frozen=True)
class NetPhase:
    """One phase that trains the network itself: which part, how long, how fast. ValueError names all that is wrong.

    patience: validations without a better one before the phase stops; they happen every `evaluate_every` epochs. Better
    is the higher accuracy, then the lower log-loss. Where a patience is given, the phase ends with the weights of its
    best validation. Without validation images it runs to its end, and its history says so.
    """

    trains: str  # last_block | all | blocks:<regex> on the blocks' names, these with the head; backbone: all without it
    n_epochs: int
    lr: float  # of the head and the last block
    block_decay: float  # each block below learns at this share of the rate of the block above it
    batch_norm: str  # train: the batches' statistics | frozen: as they are | adapted: those of the target, then frozen
    schedule: str  # one_cycle: up and down | cosine: down to 0 | constant
    warmup_share: float  # of the steps, in which rates rise evenly from 0 (one_cycle: by its own curve)
    patience: int | None

    def __post_init__(self) -> None:
        rules = {
            f"trains is {self.trains!r}; allowed are {', '.join(TRAINS)} and blocks:<regex>": self.trains in TRAINS
            or (self.trains.startswith(BLOCKS) and _is_regex(self.trains.removeprefix(BLOCKS))),
            f"n_epochs is {self.n_epochs}; at least 1 is needed": self.n_epochs >= 1,
            f"batch_norm is {self.batch_norm!r}; allowed are {', '.join(BATCH_NORM)}": self.batch_norm in BATCH_NORM,
            f"schedule is {self.schedule!r}; allowed are {', '.join(SCHEDULES)}": self.schedule in SCHEDULES,
            f"warmup_share is {self.warmup_share}; a share from 0 to 1 is allowed": 0 <= self.warmup_share <= 1,
            f"patience is {self.patience}; null (off) or 1 and more is allowed": self.patience is None
            or self.patience >= 1,
        }
        _refuse("a phase", rules)


@dataclass(frozen=True)
class FitSettings:
    """What holds for every phase of a run. ValueError names all that is wrong."""

    batch_size: int
    weight_decay: float  # of weights; not of norms and biases
    evaluate_every: int  # epochs
    seed: int
    device: str
    ema_decay: float | None  # averaged weights are measured, and are what a phase ends with; null = off
    l2_sp: float  # the loss gets l2_sp · |w - w_start|² of the backbone's weights; 0 = off
    dropout: float  # share of the features that are dropped before the head, in training
    precision: str  # float32 | bfloat16 | float16
    compile: bool
    accumulate: int  # parts in which a batch is run, to hold fewer images at once; 1 = whole

    def __post_init__(self) -> None:
        rules = {
            f"batch_size is {self.batch_size}; at least 2 are needed": self.batch_size >= 2,
            f"evaluate_every is {self.evaluate_every}; at least 1 is needed": self.evaluate_every >= 1,
            f"ema_decay is {self.ema_decay}; null (off) or above 0 and below 1 is allowed": self.ema_decay is None
            or 0 < self.ema_decay < 1,
            f"l2_sp is {self.l2_sp}; 0 (off) or more is allowed": self.l2_sp >= 0,
            f"dropout is {self.dropout}; a share from 0 to below 1 is allowed": 0 <= self.dropout < 1,
            f"accumulate is {self.accumulate}; 1 (off) or more is allowed": self.accumulate >= 1,
        }
        _refuse("the settings of training", rules)


@dataclass(frozen=True)
class Job:
    """One network being trained: its name (an address), its images, their views, and where it checkpoints."""

    name: str
    images: ImageList
    validation: ImageList
    view: View
    checkpoint_folder: Path
    unlabelled: ImageList | None = None  # a second stream of images, beside the first in every step
    adapts_to: ImageList | None = (
        None  # whose statistics BatchNorm takes where a phase says adapted; None: those of `unlabelled`
    )
    sampling: str = "shuffled"  # | class_balanced | group_balanced, of `images`
    groups: tuple[object, ...] = ()  # of each of `images`
    anchor: dict[str, Tensor] | None = None  # where L2-SP pulls to, by name; None: where the phase starts


def _refuse(where: str, rules: dict[str, bool]) -> None:
    if problems := [problem for problem, holds in rules.items() if not holds]:
        raise ValueError(f"{where}: {'; '.join(problems)}")


def _is_regex(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return bool(text)


def learning_blocks(model: ImageModel, trains: str) -> list[tuple[int, nn.Module]]:
    """(depth, block), from the top (depth 0) down: those that learn. ValueError where a regex matches no block."""
    parts = blocks(model.backbone)
    if trains == "last_block":
        return [(0, parts[-1][1])]
    pattern = trains.removeprefix(BLOCKS) if trains.startswith(BLOCKS) else ""
    found = [
        (depth, block) for depth, (name, block) in enumerate(reversed(parts)) if not pattern or re.search(pattern, name)
    ]
    if not found:
        names = ", ".join(name for name, _ in parts)
        raise ValueError(f"trains is {trains!r}, which matches no block; this network's blocks are {names}")
    return found


def set_training(model: ImageModel, phase: NetPhase) -> None:
    """Train mode; parts that don't learn, and BatchNorm where its statistics are frozen, stay in eval mode."""
    model.train()
    learning = {depth for depth, _ in learning_blocks(model, phase.trains)}
    for depth, (_, block) in enumerate(reversed(blocks(model.backbone))):
        if depth not in learning:
            block.eval()
    if phase.batch_norm != "train":
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
