"""Intervals: against published tables, scipy and sums over all outcomes."""

import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from tasks.core.intervals import Interval, clopper_pearson, newcombe, paired_gain, wilson

CASES = [(81, 263), (15, 148), (0, 20), (1, 29), (30, 30), (1, 1), (0, 1)]


def gain(wins: int, losses: int, both_right: int = 0, both_wrong: int = 0, confidence: float = 0.95) -> Interval:
    """Of two models; so many images are won, lost, right by both, wrong by both."""
    counts = [wins, losses, both_right, both_wrong]
    one_N, other_N = (np.repeat(np.array(right, bool), counts) for right in ([1, 0, 1, 0], [0, 1, 1, 0]))
    return paired_gain(one_N, other_N, confidence)


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
    empty.append(paired_gain(np.array([], bool), np.array([], bool), 0.95))
    for interval in empty:
        assert math.isnan(interval.value)
        assert interval.n == 0


def test_paired_gain_by_hand() -> None:
    # tables of Clopper and Pearson: 10 of 40 is .1269 to .4120, 8 of 10 is .4439 to .9748
    # 2 · .4439 - 1 = -.1122 and 2 · .9748 - 1 = .9496: the sign is open, so both ends lie farther out at .4120
    found = gain(8, 2, 20, 10)
    assert (found.value, found.n) == (pytest.approx(0.15), 40)
    assert (found.low, found.high) == pytest.approx((-0.1122 * 0.4120, 0.9496 * 0.4120), abs=1e-4)
    # 30 of 32 is .7919 to .9923 and 32 of 120 is .1901 to .3551: proven, so the low end lies farther out at .1901
    found = gain(30, 2, 88)
    assert (found.low, found.high) == pytest.approx((0.5838 * 0.1901, 0.9846 * 0.3551), abs=2e-4)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_paired_gain_has_the_sign_of_the_exact_sign_test(confidence: float) -> None:
    for differ in range(1, 26):
        for wins in range(differ + 1):
            found, test = gain(wins, differ - wins, 20, 10, confidence), binomtest(wins, differ)
            proven = test.pvalue < 1 - confidence
            assert (found.low > 0) == (proven and 2 * wins > differ), (wins, differ)
            assert (found.high < 0) == (proven and 2 * wins < differ), (wins, differ)


@pytest.mark.parametrize("n", [20, 50])
def test_paired_gain_covers_the_true_gain_on_either_side(n: int) -> None:
    # summed over every outcome instead of drawn: m of n images differ (share d), w of these are won (share q)
    m, w = (values.ravel() for values in np.mgrid[: n + 1, : n + 1])
    m, w = m[w <= m], w[w <= m]
    found = [gain(won, differ - won, n - differ) for differ, won in zip(m.tolist(), w.tolist(), strict=True)]
    low, high = np.array([one.low for one in found]), np.array([one.high for one in found])
    for d, q in [(0.02, 1), (0.1, 0.5), (0.1, 0.9), (0.3, 0.3), (0.6, 0), (0.6, 0.6), (1, 0.5), (1, 0.8)]:
        true, chance = d * (2 * q - 1), binom.pmf(m, n, d) * binom.pmf(w, m, q)
        assert chance.sum() == pytest.approx(1)
        assert chance[low > true + 1e-12].sum() <= 0.025, (d, q)
        assert chance[high < true - 1e-12].sum() <= 0.025, (d, q)


@pytest.mark.parametrize(("n", "u"), [(20, 0.1684), (100, 0.0362), (1, 0.975)])  # 1 - .025^(1/n)
def test_models_that_never_differ_keep_an_interval_with_width(n: int, u: float) -> None:
    assert gain(0, 0, n) == gain(0, 0, 0, n)
    found = gain(0, 0, n)
    assert (found.low, found.value, found.high) == pytest.approx((-u, 0, u), abs=5e-5)


def test_the_gain_of_the_other_is_the_gain_turned_around() -> None:
    for wins, losses in [(0, 3), (8, 2), (30, 2), (5, 5)]:
        there, back = gain(wins, losses, 10), gain(losses, wins, 10)
        assert (there.low, there.value, there.high) == pytest.approx((-back.high, -back.value, -back.low))
