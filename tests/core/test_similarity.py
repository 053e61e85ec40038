"""Distances between domains: against loops and known extremes."""

import numpy as np
import pytest

from tasks.core.similarity import (
    domain_errors,
    linear_mmd,
    linear_mmd_weighted,
    pooled_standard,
    proxy_a,
    proxy_a_distance,
)


def u_statistic(source_SD: np.ndarray, target_TD: np.ndarray) -> float:
    both = np.concatenate([source_SD, target_TD])
    s, t = ((x - both.mean(0)) / both.std(0) for x in (source_SD, target_TD))
    within_s = [s[i] @ s[j] for i in range(len(s)) for j in range(len(s)) if i != j]
    within_t = [t[i] @ t[j] for i in range(len(t)) for j in range(len(t)) if i != j]
    across = [a @ b for a in s for b in t]
    return float((np.mean(within_s) + np.mean(within_t) - 2 * np.mean(across)) / source_SD.shape[1])


@pytest.mark.parametrize(("n_source", "n_target", "shift"), [(9, 5, 0.0), (6, 11, 2.0)])
def test_linear_mmd_equals_the_double_loop(n_source: int, n_target: int, shift: float) -> None:
    rng = np.random.default_rng(n_source)
    source, target = rng.normal(3, 2, (n_source, 4)), rng.normal(3 + shift, 2, (n_target, 4))
    assert linear_mmd(source, target) == pytest.approx(u_statistic(source, target), rel=1e-9)


def test_linear_mmd_of_one_distribution_scatters_around_zero() -> None:
    rng = np.random.default_rng(0)
    found = [linear_mmd(*np.split(rng.normal(size=(60, 5)), 2)) for _ in range(300)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(300)
    assert min(found) < 0


def test_weighted_resamples_equal_the_plain_estimate_with_biased_noise() -> None:
    # counts [2, 0, 1 | 1, 2]: means 2/3·1 + 1/3·4 = 2 and 1/3·0 + 2/3·3 = 2; variances 2 and 2; 0 - 2/2 - 2/2
    x = np.array([[1.0], [9.0], [4.0], [0.0], [3.0], [8.0]])
    is_target = np.array([False, False, False, True, True, True])
    counts = np.array([[2, 0, 1, 1, 2, 0]])
    assert linear_mmd_weighted(x, is_target, counts)[0] == pytest.approx(0 - 2 / 2 - 2 / 2)


def test_constant_features_count_as_no_distance() -> None:
    source, target = pooled_standard(np.array([[5.0, 0], [5, 2]]), np.array([[5.0, 4], [5, 6]]))
    assert source[:, 0].tolist() == target[:, 0].tolist() == [0, 0]
    assert np.concatenate([source, target])[:, 1].std() == pytest.approx(1)


def test_proxy_a_is_near_0_for_one_distribution_and_2_for_separated_ones() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 6))
    assert proxy_a_distance(x[:200], x[200:]) < 0.25
    assert proxy_a_distance(x[:200], x[200:] + 20) == pytest.approx(2)


def test_proxy_a_weighs_both_domains_alike() -> None:
    # errors 1/4 and 0/2: mean 1/8, distance 2 (1 - 2/8)
    wrong = np.array([True, False, False, False, False, False])
    assert proxy_a(wrong, np.array([0, 0, 0, 0, 1, 1], bool)) == pytest.approx(1.5)
    assert proxy_a(np.ones(4, bool), np.array([0, 0, 1, 1], bool)) == 0


def test_a_small_target_is_not_hidden_by_a_large_source() -> None:
    rng = np.random.default_rng(2)
    wrong, is_target = domain_errors(rng.normal(size=(300, 3)), rng.normal(size=(20, 3)))
    assert is_target.sum() == 20
    assert proxy_a(wrong, is_target) < 0.8  # unweighted, "always source" would look like error 20/320
