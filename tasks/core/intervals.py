"""Intervals for shares, differences of shares, and paired comparisons on the same images."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta, norm


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval; NaN where nothing was measured."""

    value: float
    low: float
    high: float
    n: int


def wilson(n_right: int, n: int, confidence: float) -> Interval:
    """Wilson's score interval of a share (1927): 30 of 30 right is not [1, 1]."""
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    z = float(norm.ppf((1 + confidence) / 2))
    share, spread = n_right / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return Interval(share, max(centre - half, 0.0), min(centre + half, 1.0), n)


def newcombe(one: Interval, other: Interval) -> Interval:
    """Difference one - other of two independent shares from their Wilson intervals (Newcombe 1998, method 10)."""
    gap = one.value - other.value
    low = gap - math.hypot(one.value - one.low, other.high - other.value)
    high = gap + math.hypot(one.high - one.value, other.value - other.low)
    return Interval(gap, low, high, min(one.n, other.n))


def clopper_pearson(n_right: int, n: int, confidence: float) -> Interval:
    """Exact interval of a share (Clopper and Pearson 1934)."""
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, 0)
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, n_right, n - n_right + 1)) if n_right else 0.0
    high = float(beta.ppf(1 - tail, n_right + 1, n - n_right)) if n_right < n else 1.0
    return Interval(n_right / n, low, high, n)


def paired_bootstrap(one_N: np.ndarray, other_N: np.ndarray, *, confidence: float, n_draws: int, seed: int) -> Interval:
    """Difference of two accuracies on the same images; per-image outcomes are resampled together.

    The differences are -1, 0 or 1, so a multinomial draw of their counts equals resampling the images.
    """
    n = len(one_N)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    gap_N = one_N.astype(int) - other_N.astype(int)
    shares = np.array([(gap_N == value).mean() for value in (-1, 0, 1)])
    counts = np.random.default_rng(seed).multinomial(n, shares / shares.sum(), size=n_draws)
    draws = (counts[:, 2] - counts[:, 0]) / n
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(float(gap_N.mean()), float(low), float(high), n)
