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


def paired_gain(one_N: np.ndarray, other_N: np.ndarray, confidence: float) -> Interval:
    """Accuracy of one minus the other's on the same images; which ones each gets right, as bool.

    Only images on which exactly one is right tell anything. With m of them among n, w of these won by `one`, the gain is
    (m/n)(2 w/m - 1). Both shares take their exact (Clopper-Pearson) interval, and the end of m/n that lies farther out is
    used: the sign is that of the exact sign test, the ends are rather too far apart than too near.
    """
    return gain_of_counts(int((one_N & ~other_N).sum()), int((~one_N & other_N).sum()), len(one_N), confidence)


def gain_of_counts(wins: int, losses: int, n: int, confidence: float) -> Interval:
    """`paired_gain` from the number of images that only one, or only the other, gets right."""
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    differ = clopper_pearson(wins + losses, n, confidence)
    won = clopper_pearson(wins, wins + losses, confidence)
    low = (differ.low if won.low > 0.5 else differ.high) * (2 * won.low - 1)
    high = (differ.high if won.high > 0.5 else differ.low) * (2 * won.high - 1)
    return Interval((wins - losses) / n, low, high, n)
