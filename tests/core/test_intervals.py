"""Intervals: against published tables, scipy and direct resampling."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from tasks.core.intervals import Interval, clopper_pearson, newcombe, paired_bootstrap, wilson

CASES = [(81, 263), (15, 148), (0, 20), (1, 29), (30, 30), (1, 1), (0, 1)]


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(("n_right", "n"), CASES)
def test_intervals_of_a_share_equal_scipy(n_right: int, n: int, confidence: float) -> None:
    for ours, method in [(wilson, "wilson"), (clopper_pearson, "exact")]:
        theirs = binomtest(n_right, n).proportion_ci(confidence, method=method)
        found = ours(n_right, n, confidence)
        assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
        assert (found.value, found.n) == (n_right / n, n)


@pytest.mark.parametrize(
    ("n_right", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_equals_newcombes_first_table_of_1998(n_right: int, n: int, low: float, high: float) -> None:
    found = wilson(n_right, n, 0.95)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("a", "m", "b", "n", "low", "high"),
    [
        (56, 70, 48, 80, 0.0524, 0.3339),
        (9, 10, 3, 10, 0.1705, 0.8090),
        (6, 7, 2, 7, 0.0582, 0.8062),
        (5, 56, 0, 29, -0.0381, 0.1926),
        (0, 10, 0, 20, -0.1611, 0.2775),
        (0, 10, 0, 10, -0.2775, 0.2775),
        (10, 10, 0, 20, 0.6791, 1.0),
        (10, 10, 0, 10, 0.6075, 1.0),
    ],
)
def test_newcombe_equals_method_10_of_his_second_table(a: int, m: int, b: int, n: int, low: float, high: float) -> None:
    found = newcombe(wilson(a, m, 0.95), wilson(b, n, 0.95))
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    assert found.value == pytest.approx(a / m - b / n)


def test_nothing_measured_is_not_zero() -> None:
    empty = [wilson(0, 0, 0.95), newcombe(wilson(0, 0, 0.95), wilson(3, 4, 0.95)), clopper_pearson(0, 0, 0.95)]
    empty.append(paired_bootstrap(np.array([], bool), np.array([], bool), confidence=0.95, n_draws=10, seed=0))
    for interval in empty:
        assert math.isnan(interval.value)
        assert interval.n == 0


def test_paired_bootstrap_agrees_with_resampling_the_images() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.random(80) < 0.8, rng.random(80) < 0.65
    rows = rng.integers(0, 80, size=(20000, 80))
    gaps = one[rows].mean(1) - other[rows].mean(1)
    found = paired_bootstrap(one, other, confidence=0.9, n_draws=20000, seed=1)
    assert found.value == pytest.approx(one.mean() - other.mean())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(gaps, [0.05, 0.95])), abs=0.0126)  # one image
    assert found.n == 80


def test_paired_bootstrap_is_antisymmetric_addressed_and_sees_the_pairs() -> None:
    one, other = np.arange(50) % 2 == 0, np.arange(50) % 2 == 1
    first = paired_bootstrap(one, other, confidence=0.95, n_draws=500, seed=3)
    assert first == paired_bootstrap(one, other, confidence=0.95, n_draws=500, seed=3)
    assert paired_bootstrap(one, one, confidence=0.95, n_draws=500, seed=3) == Interval(0.0, 0.0, 0.0, 50)
    half = 1.96 / math.sqrt(50)  # differences are ±1, so their deviation is 1
    assert (first.low, first.high) == pytest.approx((-half, half), abs=0.05)
