"""Distances between domains: against loops and known extremes."""

import numpy as np
import pytest
from scipy.linalg import sqrtm
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import polynomial_kernel

from tasks.core.similarity import (
    PAIR_DISTANCES,
    coral_distance,
    domain_errors,
    frechet_distance,
    kid,
    linear_mmd,
    linear_mmd_pairs,
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
    a, b = np.array([[2, 0, 1, 0, 0, 0]]), np.array([[0, 0, 0, 1, 2, 0]])
    assert linear_mmd_pairs(x, a, b, 1)[0] == pytest.approx(0 - 2 / 2 - 2 / 2)


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
    assert proxy_a(np.ones(4, bool), np.array([0, 0, 1, 1], bool)) == -2  # always wrong: not clipped here


def test_a_small_target_is_not_hidden_by_a_large_source() -> None:
    rng = np.random.default_rng(2)
    is_target = np.arange(320) >= 300
    wrong = domain_errors(rng.normal(size=(320, 3)), is_target, None)
    assert proxy_a(wrong, is_target) < 0.8  # unweighted, "always source" would look like error 20/320


def exact_sample(n_images: int, mean: list[float], covariance: list[list[float]], seed: int) -> np.ndarray:
    """Points whose sample mean and covariance (n - 1) are exactly these."""
    rng = np.random.default_rng(seed)
    white = rng.normal(size=(n_images, len(mean)))
    white = white - white.mean(0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white.T).reshape(len(mean), -1))).T
    return white @ np.linalg.cholesky(np.array(covariance)).T + mean


def two_clouds(n_source: int, n_target: int, n_features: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n_features)
    mixed = rng.normal(size=(n_features, n_features))
    return rng.normal(size=(n_source, n_features)), 0.5 + rng.normal(size=(n_target, n_features)) @ mixed


def test_distances_between_gaussians_of_known_moments() -> None:
    # one feature, means 0 and 2, variances 1 and 9, 50 images each: pooled variance (49·1 + 49·9)/100 + (2/2)² = 5.9
    source, target = exact_sample(50, [0.0], [[1.0]], 0), exact_sample(50, [2.0], [[9.0]], 1)
    assert frechet_distance(source, target) == pytest.approx((2**2 + (3 - 1) ** 2) / 5.9, rel=1e-9)
    assert coral_distance(source, target) == pytest.approx((9 - 1) ** 2 / 5.9**2 / 4, rel=1e-9)
    assert linear_mmd(source, target) == pytest.approx((2**2 - 1 / 50 - 9 / 50) / 5.9, rel=1e-9)


def test_distances_between_correlations_of_opposite_sign() -> None:
    # both variances 1 and means 0, correlations ±0.6, eigenvalues 1.6 and 0.4 swapped; pooled variance 49·2/100
    source = exact_sample(50, [0.0, 0.0], [[1, 0.6], [0.6, 1]], 0)
    target = exact_sample(50, [0.0, 0.0], [[1, -0.6], [-0.6, 1]], 1)
    assert coral_distance(source, target) == pytest.approx(2 * 1.2**2 / 0.98**2 / (4 * 2**2), rel=1e-9)
    expected = 2 * (np.sqrt(1.6) - np.sqrt(0.4)) ** 2 / 0.98 / 2
    assert frechet_distance(source, target) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n_source", "n_target", "n_features"), [(40, 30, 5), (200, 150, 90), (300, 700, 20)])
def test_distances_equal_those_of_other_libraries(n_source: int, n_target: int, n_features: int) -> None:
    given = two_clouds(n_source, n_target, n_features)
    source, target = pooled_standard(*given)
    within = [polynomial_kernel(x, degree=3, gamma=1 / n_features, coef0=1) for x in (source, target)]
    across = polynomial_kernel(source, target, degree=3, gamma=1 / n_features, coef0=1)
    u = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in within]
    assert kid(*given) == pytest.approx(u[0] + u[1] - 2 * across.mean(), rel=1e-9)
    gap = np.cov(source.T) - np.cov(target.T)
    assert coral_distance(*given) == pytest.approx((gap**2).sum() / (4 * n_features**2), rel=1e-9)
    less = PCA(min(64, n_features), svd_solver="full").fit(np.concatenate([source, target]))
    s, t = less.transform(source), less.transform(target)
    cov_s, cov_t = np.cov(s.T), np.cov(t.T)
    frechet = ((s.mean(0) - t.mean(0)) ** 2).sum() + np.trace(cov_s + cov_t - 2 * sqrtm(cov_s @ cov_t).real)
    assert frechet_distance(*given) == pytest.approx(frechet / n_features, rel=1e-6)


def test_kid_equals_the_double_loop() -> None:
    given = two_clouds(6, 4, 3)
    s, t = pooled_standard(*given)

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 3 + 1) ** 3)

    within_s = np.mean([kernel(s[i], s[j]) for i in range(6) for j in range(6) if i != j])
    within_t = np.mean([kernel(t[i], t[j]) for i in range(4) for j in range(4) if i != j])
    assert kid(*given) == pytest.approx(within_s + within_t - 2 * np.mean([kernel(x, y) for x in s for y in t]))


def test_kid_of_one_distribution_scatters_around_zero() -> None:
    rng = np.random.default_rng(0)
    found = [kid(*np.split(rng.normal(size=(80, 5)), 2)) for _ in range(300)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(300)
    assert min(found) < 0


def test_kid_sees_what_the_means_do_not() -> None:
    rng = np.random.default_rng(4)
    source, target = rng.normal(size=(400, 4)), 3 * rng.normal(size=(400, 4))
    assert abs(linear_mmd(source, target)) < 0.02
    assert kid(source, target) > 0.2


@pytest.mark.parametrize("name", PAIR_DISTANCES)
def test_pairs_with_counts_equal_the_rows_written_out(name: str) -> None:
    rng, n_features = np.random.default_rng(5), 7
    x = rng.normal(size=(600, n_features)) + (np.arange(600) >= 250)[:, None] * 0.3  # more than one block
    a, b = (
        rng.integers(3, size=(2, 600)) * (np.arange(600) < 250),
        rng.integers(3, size=(2, 600)) * (np.arange(600) >= 250),
    )
    found = PAIR_DISTANCES[name](x, a, b, n_features)
    for draw in range(2):
        rows = np.concatenate([np.repeat(np.arange(600), a[draw]), np.repeat(np.arange(600), b[draw])])
        is_b = (np.arange(len(rows)) >= a[draw].sum())[None].astype(float)
        assert found[draw] == pytest.approx(PAIR_DISTANCES[name](x[rows], 1 - is_b, is_b, n_features)[0], rel=1e-9)


DISTANCES = [proxy_a_distance, linear_mmd, kid, coral_distance, frechet_distance]


@pytest.mark.parametrize("distance", DISTANCES)
def test_distances_do_not_see_scale_shift_or_dead_features(distance) -> None:
    source, target = two_clouds(40, 30, 4)
    scale, shift = np.array([1e-6, 1, 5, 1e4]), np.array([0, -3, 100, 1])
    expected = distance(source, target)
    assert distance(source * scale + shift, target * scale + shift) == pytest.approx(expected, rel=1e-6)
    assert np.isfinite(distance(np.hstack([source, np.ones((40, 3))]), np.hstack([target, np.ones((30, 3))])))
    assert distance(np.zeros((40, 4)), np.zeros((30, 4))) == 0


@pytest.mark.parametrize("distance", DISTANCES)
def test_fewer_images_than_features_are_borne(distance) -> None:
    rng = np.random.default_rng(6)
    source, target = rng.normal(size=(6, 200)), rng.normal(size=(5, 200))
    assert np.isfinite(distance(source, target))
    assert distance(source.astype(np.float16), target.astype(np.float16)) == pytest.approx(
        distance(source, target), rel=0.1
    )


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (np.ones((3, 2)), np.ones((3, 4)), "source and target have different numbers of columns: use one network"),
        (np.full((3, 2), np.nan), np.ones(3), "source hold 6 values that are not finite.*; target have the shape"),
        (np.ones((1, 2)), np.ones((3, 2)), "source hold 1 images, at least 2 are needed"),
        (np.ones((3, 2)), np.full((3, 2), -np.inf), "target hold 6 values that are not finite numbers"),
    ],
)
def test_distances_say_what_is_wrong_with_their_input(distance, source, target, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        distance(source, target)


def test_recognised_videos_are_no_distance_once_groups_are_known() -> None:
    rng, groups = np.random.default_rng(7), np.repeat(np.arange(60), 6)
    x = rng.normal(size=(60, 200))[groups] + 0.01 * rng.normal(size=(360, 200))
    assert proxy_a_distance(x[:180], x[180:]) > 1.9
    assert proxy_a_distance(x[:180], x[180:], groups[:180], groups[180:]) < 0.8
    with pytest.raises(ValueError, match="groups are given for one domain alone"):
        proxy_a_distance(x[:180], x[180:], groups[:180])
