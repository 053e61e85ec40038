"""A part of the images as an independent sample: a value with an interval at any confidence, one way per kind of metric.

Axes: S strata, J clusters.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from tasks.core.bias.clusters import Form
from tasks.core.bias.counts import by_bin, values_of
from tasks.core.bias.resample import calibration_deviations, class_mean_deviations, ends
from tasks.core.bias.score import Ends, Measured, exact_high, quantile, score_interval
from tasks.core.intervals import gain_of_counts
from tasks.core.runtime import address_rng

NOWHERE = (math.nan, math.nan)


@dataclass(frozen=True)
class Estimate:
    """limits: the interval at a confidence. told_J: what each cluster tells of the value, None where images are the draws."""

    value: float
    n: int
    limits: Callable[[float], Ends]
    told_J: Callable[[], np.ndarray] | None = None

    def at(self, confidence: float) -> Measured:
        return Measured(self.value, *self.limits(confidence))


@dataclass(frozen=True)
class Part:
    """The sums over some images. told: what each cluster tells under a form, (J,); address: that of the replicates."""

    kind: str
    n_S: np.ndarray
    x_S: np.ndarray
    xx_S: np.ndarray
    told: Callable[[Form], np.ndarray] | None
    address: tuple[object, ...]
    n_replicates: int

    @cached_property
    def value(self) -> float:
        return float(values_of(self.kind, self.n_S[None], self.x_S[None])[0][0])

    @property
    def n(self) -> int:
        return int(self.n_S.sum())

    @property
    def form(self) -> Form:
        """The value made linear: how it moves with each image."""
        mean_S = self.x_S / np.maximum(self.n_S, 1)
        same = np.ones(len(self.n_S))
        if self.kind in ("share", "mean", "gain"):
            return Form(same / self.n, same, same * self.value)
        if self.kind == "calibration":
            bins = np.sign(by_bin(self.x_S))
            return Form(same / self.n, np.repeat(bins, len(same) // len(bins)), same * self.value)
        weight_S = (self.n_S > 0) / np.maximum(self.n_S, 1)
        if self.kind == "worst":
            worst = np.argmin(np.where(self.n_S > 0, mean_S, np.inf))
            return Form(weight_S * (np.arange(len(same)) == worst), same, mean_S)
        return Form(weight_S / (self.n_S > 0).sum(), same, mean_S)

    @cached_property
    def effect(self) -> float:
        """Variance of the value with clusters as draws over that with images as draws, at least 1; NaN where no image differs."""
        assert self.told is not None
        told_J = self.told(self.form)
        w, sign, a = self.form.weight_S, self.form.sign_S, self.form.centre_S
        by_images = float((w**2 * (self.xx_S - 2 * a * sign * self.x_S + a**2 * self.n_S)).sum())
        if by_images <= 1e-12 * float((w**2 * self.n_S).sum()) or self.n_clusters < 2:
            return math.nan
        return max(float((told_J**2).sum()) * self.n_clusters / (self.n_clusters - 1) / by_images, 1.0)

    @cached_property
    def cluster_sizes(self) -> np.ndarray:
        """Images of each cluster that holds any."""
        assert self.told is not None
        sizes_J = self.told(Form(np.ones(len(self.n_S)), np.zeros(len(self.n_S)), -np.ones(len(self.n_S))))
        return sizes_J[sizes_J > 0]

    @property
    def n_clusters(self) -> int:
        return len(self.cluster_sizes)

    @property
    def effect_if_alike(self) -> float:
        """The design effect where all images of a cluster are alike."""
        return float((self.cluster_sizes**2).sum() / self.cluster_sizes.sum())


Limits = Callable[[float, float, int | None], Ends]  # confidence, design effect, clusters


def _share(part: Part) -> Limits:
    """Wilson's score interval with as many images as the clusters are worth (Dean and Pagano 2015)."""

    def limits(confidence: float, effect: float, n_clusters: int | None) -> Ends:
        low, high = score_interval(part.value, part.n / effect, quantile(confidence, n_clusters))
        return float(low), float(high)

    return limits


def _worst(part: Part) -> Limits:
    """From the classes' own intervals; no bootstrap: that of a minimum lies too low (2 % coverage of 95, ten equal classes).

    The lowest of the low ends lies below the low end of the class that is truly worst, so it needs no correction. Any class
    may pull the high end down: theirs are exact, at Bonferroni's level.
    """
    n_S = part.n_S[part.n_S > 0]
    share_S = part.x_S[part.n_S > 0] / n_S

    def limits(confidence: float, effect: float, n_clusters: int | None) -> Ends:
        family = 1 - (1 - confidence) / len(n_S)
        low_S, _ = score_interval(share_S, n_S / effect, quantile(confidence, n_clusters))
        high_S = exact_high(share_S, n_S / effect, quantile(family, n_clusters))
        return float(low_S.min()), float(high_S.min())

    return limits


def _mean(part: Part) -> Limits:
    """Student's t interval; one image says nothing about the spread."""
    spread = max(part.xx_S[0] - part.n * part.value**2, 0.0) / max(part.n - 1, 1)

    def limits(confidence: float, effect: float, n_clusters: int | None) -> Ends:
        if part.n < 2:
            return 0.0, 1.0
        half = quantile(confidence, part.n if n_clusters is None else n_clusters) * math.sqrt(spread * effect / part.n)
        return max(part.value - half, 0.0), min(part.value + half, 1.0)

    return limits


def _gain(part: Part) -> Limits:
    """Paired on the same images: one where only this model hits, minus one where only the baseline does."""
    wins, losses = round((part.xx_S[0] + part.x_S[0]) / 2), round((part.xx_S[0] - part.x_S[0]) / 2)

    def limits(confidence: float, effect: float, n_clusters: int | None) -> Ends:
        gain = gain_of_counts(wins, losses, part.n, confidence)
        return _stretched(part, (gain.low - gain.value, gain.high - gain.value), confidence, effect, n_clusters)

    return limits


def _replicated(draw: Callable[[Part, np.random.Generator], np.ndarray]) -> Callable[[Part], Limits]:
    def of_part(part: Part) -> Limits:
        @cache
        def deviations() -> np.ndarray:
            return draw(part, address_rng(*part.address)).astype(np.float32)

        def limits(confidence: float, effect: float, n_clusters: int | None) -> Ends:
            return _stretched(part, ends(deviations(), confidence), confidence, effect, n_clusters)

        return limits

    return of_part


def _stretched(part: Part, reach: Ends, confidence: float, effect: float, n_clusters: int | None) -> Ends:
    """The interval with its reach on both sides made as much wider as clusters tell less than images."""
    factor = math.sqrt(effect)
    if n_clusters is not None:
        factor *= quantile(confidence, n_clusters) / quantile(confidence)
    lowest = -1.0 if part.kind in ("gain", "balanced_gain") else 0.0
    low, high = (min(max(part.value + factor * end, lowest), 1.0) for end in reach)
    return low, high


def _balanced(part: Part, rng: np.random.Generator) -> np.ndarray:
    outcomes = np.stack([part.x_S, part.n_S - part.x_S], 1)
    return class_mean_deviations(np.rint(outcomes).astype(int), np.array([1.0, 0.0]), part.n_replicates, rng)


def _balanced_gain(part: Part, rng: np.random.Generator) -> np.ndarray:
    wins_S, losses_S = (part.xx_S + part.x_S) / 2, (part.xx_S - part.x_S) / 2
    outcomes = np.rint(np.stack([wins_S, part.n_S - wins_S - losses_S, losses_S], 1)).astype(int)
    return class_mean_deviations(outcomes, np.array([1.0, 0.0, -1.0]), part.n_replicates, rng)


def _calibration(part: Part, rng: np.random.Generator) -> np.ndarray:
    return calibration_deviations(part.n_S, part.x_S, part.n_replicates, rng)


LIMITS: dict[str, Callable[[Part], Limits]] = {
    "share": _share, "worst": _worst, "mean": _mean, "gain": _gain,
    "balanced": _replicated(_balanced), "balanced_gain": _replicated(_balanced_gain), "calibration": _replicated(_calibration),
}  # fmt: skip
