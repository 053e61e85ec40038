"""Score intervals of shares on whole arrays, and intervals of differences and ratios from those of both sides."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import betaincinv, ndtr, ndtri, stdtrit

Ends = tuple[float, float]


@dataclass(frozen=True)
class Measured:
    """A value with its interval at one confidence."""

    value: float
    low: float
    high: float


def quantile(confidence: float, n_clusters: int | None = None) -> float:
    """The two-sided quantile: normal for images, Student's t with one degree less than clusters for clusters."""
    upper = (1 + confidence) / 2
    return float(ndtri(upper) if n_clusters is None else stdtrit(max(n_clusters - 1, 1), upper))


def cluster_quantiles(confidence: float, n_clusters: np.ndarray) -> np.ndarray:
    """`quantile` for many numbers of clusters at once."""
    return np.asarray(stdtrit(np.maximum(n_clusters - 1, 1), (1 + confidence) / 2))


def score_interval(share: Any, n: Any, z: Any) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of Wilson's score interval (1927) for arrays of shares and (effective) numbers of images; NaN where n is 0."""
    share, n = np.asarray(share, float), np.asarray(n, float)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = z * z / n
        centre = (share + spread / 2) / (1 + spread)
        half = z / (1 + spread) * np.sqrt(share * (1 - share) / n + spread / (4 * n))
        low, high = np.clip(centre - half, 0.0, share), np.clip(centre + half, share, 1.0)
    return np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan)


def exact_high(share: np.ndarray, n: np.ndarray, z: float) -> np.ndarray:
    """High ends of Clopper and Pearson's exact interval (1934): never too low, also for shares near 1. Each n is above 0."""
    hits = share * n
    with np.errstate(invalid="ignore"):
        return np.where(hits < n, betaincinv(hits + 1, np.maximum(n - hits, 1e-9), ndtr(z)), 1.0)


def difference_ends(one: Measured, other: Measured, correlation: float = 0.0) -> Ends:
    """Ends of one - other from both intervals (Newcombe 1998, method 10; with correlation: Zou and Donner 2008)."""

    def reach(here: float, there: float) -> float:
        return math.sqrt(max(here**2 + there**2 - 2 * correlation * here * there, 0.0))

    gap = one.value - other.value
    low = gap - reach(one.value - one.low, other.high - other.value)
    return low, gap + reach(one.high - one.value, other.value - other.low)


def ratio_ends(one: Measured, other: Measured, correlation: float = 0.0) -> Ends:
    """Ends of one / other, both not negative, from both intervals (Donner and Zou 2012, MOVER-R); the high end may be infinite.

    They solve (one - R other)² = (reach of one)² + R² (reach of other)² - 2 R correlation (reach of one)(reach of other).
    """
    if any(math.isnan(v) for v in (one.value, one.low, other.value, other.low)):
        return math.nan, math.nan
    low = _root(one, one.low, other, other.high, correlation)
    high = _root(one, one.high, other, other.low, correlation)
    return min(low), max(high)


def share_of_whole(ratio: float, share: float) -> float:
    """part / whole from part / rest, where the part is this share of the whole."""
    return 1 / share if math.isinf(ratio) else ratio / (share * ratio + 1 - share)


def _root(one: Measured, end: float, other: Measured, other_end: float, correlation: float) -> tuple[float, float]:
    """Both positive solutions R of the equation, one towards `end`, other towards `other_end`."""
    square = other_end * (2 * other.value - other_end)
    constant = end * (2 * one.value - end)
    middle = one.value * other.value - correlation * abs(one.value - end) * abs(other_end - other.value)
    root = math.sqrt(max(middle**2 - square * constant, 0.0))
    smaller = constant / (middle + root) if middle + root > 0 else 0.0
    return smaller, (middle + root) / square if square > 0 else math.inf
