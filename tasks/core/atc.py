"""Accuracy without labels: average thresholded confidence (ATC), with its uncertainty.

Garg et al., "Leveraging unlabeled data to predict out-of-distribution performance", ICLR 2022: the threshold leaves as
large a share of labelled held-out images below it as the model gets wrong; the estimate is the share of new images at or
above it. It holds as long as confidence means on new images what it meant on the held-out ones. The interval knows the
noise of both samples, not whether that is so.

Axes: R labelled held-out images, N new images, B draws, G = R + 1 gaps between sorted images, E = R + 2 ends of gaps.
"""

from dataclasses import dataclass

import numpy as np

from tasks.core.intervals import Interval
from tasks.core.runtime import address_rng

N_DRAWS = 2000


@dataclass(frozen=True)
class Thresholds:
    """The threshold and the held-out accuracy that it stands for, as measured and as drawn (B,)."""

    value: float
    accuracy: float
    n: int
    value_B: np.ndarray
    accuracy_B: np.ndarray


@dataclass(frozen=True)
class Estimate:
    """accuracy: of the new images; drop: the held-out accuracy minus it, below 0 where the new images are easier."""

    accuracy: Interval
    drop: Interval


def threshold(confidence_R: np.ndarray, right_R: np.ndarray) -> float:
    """As many held-out images lie below it as are wrong; infinite where all are."""
    n_wrong = int((~right_R).sum())
    return float(np.sort(confidence_R)[n_wrong]) if n_wrong < len(right_R) else float("inf")


def thresholds_of(confidence_R: np.ndarray, right_R: np.ndarray, *, seed: int, n_draws: int = N_DRAWS) -> Thresholds:
    """The threshold of the held-out images as measured, and as drawn.

    A draw takes the share that is wrong from Jeffreys' posterior, and the confidences' distribution from a Bayesian bootstrap
    (Rubin 1981) whose weights are the gaps between the sorted images, those below the first and above the last included.
    Resampling the images themselves claims too much of a model that seldom errs: 60 of 60 right would be certainly 1, and
    none of its thresholds lies below the least confident image. ValueError without images or with gaps.
    """
    right_R = np.asarray(right_R, bool)
    n, n_wrong, rng = len(right_R), int((~right_R).sum()), address_rng(seed, "atc")
    if not n or not np.isfinite(confidence_R).all():
        raise ValueError(
            f"the accuracy can't be estimated from {n} labelled held-out images, {int((~np.isfinite(confidence_R)).sum())} "
            "of them without a confidence; at least one is needed, and no gaps"
        )
    wrong_B = rng.beta(n_wrong + 0.5, n - n_wrong + 0.5, n_draws)
    gap_BG = rng.standard_exponential((n_draws, n + 1))
    below_BG = gap_BG.cumsum(1) / gap_BG.sum(1, keepdims=True)
    share_BE = np.concatenate([np.zeros((n_draws, 1)), below_BG], axis=1)
    at_E = np.concatenate([[0.0], np.sort(confidence_R), [np.nextafter(1, 2)]])
    value_B = np.array([np.interp(share, share_E, at_E) for share, share_E in zip(wrong_B, share_BE, strict=True)])
    return Thresholds(threshold(confidence_R, right_R), 1 - n_wrong / n, n, value_B, 1 - wrong_B)


def estimated(thresholds: Thresholds, confidence_N: np.ndarray, *, confidence: float, seed: int) -> Estimate:
    """The accuracy of new images by their confidence. ValueError without any.

    Drawing n of n images again and counting those above a threshold is a binomial draw; Jeffreys' prior here, too.
    """
    n = len(confidence_N)
    if not n:
        raise ValueError("the accuracy of 0 images can't be estimated; give at least one")
    sorted_N = np.sort(confidence_N)
    n_above_B = n - np.searchsorted(sorted_N, thresholds.value_B, "left")
    accuracy_B = address_rng(seed, "atc", n).beta(n_above_B + 0.5, n - n_above_B + 0.5)
    value = float((confidence_N >= thresholds.value).mean())
    return Estimate(
        _interval(value, accuracy_B, n, confidence),
        _interval(thresholds.accuracy - value, thresholds.accuracy_B - accuracy_B, n, confidence),
    )


def _interval(value: float, drawn_B: np.ndarray, n: int, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn_B, [tail, 1 - tail])
    return Interval(value, min(float(low), value), max(float(high), value), n)
