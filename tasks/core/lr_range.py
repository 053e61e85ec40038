"""The learning-rate range test (Smith 2017): the rate grows from step to step until the loss explodes.

It suggests where to look, on a handful of steps; a validation score still has the last word.
"""

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter1d

from tasks.core import parallel
from tasks.core.loop import new_loop
from tasks.core.model import ImageModel
from tasks.core.objective import Objective
from tasks.core.phases import FitSettings, Job, NetPhase, set_training
from tasks.core.runtime import address_seed
from tasks.core.training import take_step

MIN_STEPS = 40  # of curves that are noise alone, 10 in 100 fall clearly with 40 steps, 3 in 100 with 100
SMOOTHING_SHARE = 0.03  # width of the Gaussian over the steps; centred, so that no minimum moves to a later rate
CLEAR_FALL = 2.0  # standard deviations of a step's loss
NORMAL_STEP = 0.954  # the median difference of two normal numbers, in standard deviations
DIVERGED_NATS = 1.0  # a loss has exploded when it is above the first one by that one's size, and at least by this


@dataclass(frozen=True)
class Sweep:
    """Rates from lowest to highest, growing by the same factor at each step. ValueError where they make no sweep."""

    lowest: float
    highest: float
    n_steps: int

    def __post_init__(self) -> None:
        problems = []
        if not 0 < self.lowest < self.highest < math.inf:
            problems.append(f"the rates go from {self.lowest} to {self.highest}; the first must be above 0 and smaller")
        if self.n_steps < MIN_STEPS:
            problems.append(f"{self.n_steps} steps are too few for a range test; take at least {MIN_STEPS}")
        if problems:
            raise ValueError("; ".join(problems))

    def rates(self) -> np.ndarray:
        return np.geomspace(self.lowest, self.highest, self.n_steps)


@dataclass(frozen=True)
class LrRange:
    """What a sweep found. Rates are those of the fastest part; the parts below keep their proportion to it."""

    table: pd.DataFrame  # lr, loss, smoothed_loss: one row per step, the last one where it diverged
    steepest: (
        float | None
    )  # the rate at which the smoothed loss falls fastest per factor of rate; None: it falls nowhere clearly
    diverging: float | None  # the rate at which the loss exploded; None: it did not
    reason: str

    @property
    def suggested(self) -> float | None:
        """The smaller of the steepest rate and a tenth of the diverging one; None without a clear fall."""
        if self.steepest is None or self.diverging is None:
            return self.steepest
        return min(self.steepest, self.diverging / 10)


def lr_range(
    model: ImageModel, phase: NetPhase, *, job: Job, settings: FitSettings, objective: Objective, sweep: Sweep
) -> LrRange:
    """Trains a copy of the model as the phase would, one step for each rate; model and objective stay as they are.

    Without dropout before the head. ValueError where the first loss is no number.
    """
    tried, extra = copy.deepcopy(model), objective.extra()
    kept = copy.deepcopy(extra.state_dict()) if extra is not None else {}
    device = torch.device(settings.device)
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            return found(sweep.rates(), _losses(tried, phase, job, settings, objective, sweep))
    finally:
        if extra is not None:
            extra.load_state_dict(kept)
            extra.zero_grad()
        objective.figures()


def found(rates: np.ndarray, losses: Iterable[float]) -> LrRange:
    """The table and its two rates. Losses are read until one explodes. ValueError where the first one is no number."""
    seen: list[float] = []
    diverging = None
    for rate, loss in zip(rates, losses, strict=False):
        seen.append(loss)
        ceiling = seen[0] + max(abs(seen[0]), DIVERGED_NATS)
        if not loss <= ceiling:
            diverging = float(rate)
            break
    if not math.isfinite(seen[0]):
        raise ValueError(f"the loss is {seen[0]} before the first step; look at the images and labels")
    capped = np.fmin(seen, ceiling)  # an explosion's size would drown the slope before it
    smoothed = gaussian_filter1d(capped, SMOOTHING_SHARE * len(rates), mode="nearest")
    table = pd.DataFrame({"lr": rates[: len(seen)], "loss": seen, "smoothed_loss": smoothed})
    fall, noise = smoothed[0] - smoothed.min(), np.median(np.abs(np.diff(capped))) / NORMAL_STEP
    figures = f"the loss fell by {fall:.3g}, its noise is {noise:.3g}"
    if not fall > CLEAR_FALL * noise:
        swept = f"from {rates[0]:g} to {table['lr'].iloc[-1]:g}"
        return LrRange(table, None, diverging, f"no clear fall at any learning rate {swept}: {figures}")
    slopes = np.gradient(smoothed, np.log(table["lr"]))[: smoothed.argmin() + 1]
    steepest = float(table["lr"].iloc[int(slopes.argmin())])
    return LrRange(table, steepest, diverging, f"the loss falls fastest at the learning rate {steepest:.3g}: {figures}")


def _losses(
    model: ImageModel, phase: NetPhase, job: Job, settings: FitSettings, objective: Objective, sweep: Sweep
) -> Iterator[float]:
    """The loss before each step, while the model learns."""
    steady = replace(phase, schedule="constant", warmup_share=0.0)
    loop = new_loop(model, objective, steady, job, settings, (settings.seed, job.name, "range test"))
    loop.phase = replace(steady, n_epochs=math.ceil(sweep.n_steps / loop.steps.n_per_epoch))
    shares = [group["lr"] / phase.lr for group in loop.optimizer.param_groups]
    torch.manual_seed(address_seed(*loop.steps.address))
    for epoch in count():
        loop.next_epoch = epoch
        objective.before_epoch(model, epoch)
        set_training(model, phase)
        for step in loop.steps.of_epoch(epoch):
            rate = sweep.rates()[epoch * loop.steps.n_per_epoch + step.number]
            for group, share in zip(loop.optimizer.param_groups, shares, strict=True):
                group["lr"] = rate * share
            yield float(parallel.summed(take_step(loop, step)))
