"""Transferability scores: against dense formulas, other libraries and brute force."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from tasks.core.transferability import (
    balanced,
    h_score,
    h_score_of,
    knn_correct,
    knn_score,
    linear_probe_correct,
    linear_probe_score,
    logme,
    logme_of,
    rotated,
    shrinkage,
    spectrum,
    spectrum_of_gram,
)


def labelled_cloud(n_images: int, n_features: int, shift: float, n_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n_images * 1000 + n_features)
    y_N = np.arange(n_images) % n_classes
    x_ND = rng.normal(size=(n_images, n_features)) + rng.normal(size=(n_classes, n_features))[y_N] * shift
    return x_ND, y_N


def dense_evidence(f_ND: np.ndarray, y_N: np.ndarray) -> float:
    """Maximal log evidence of y = F w + noise, w ~ N(0, 1/alpha), noise ~ N(0, 1/beta), from D x D matrices."""
    n_images, n_features = f_ND.shape
    gram = f_ND.T @ f_ND

    def minus_evidence(log_ab: np.ndarray) -> float:
        alpha, beta = np.exp(log_ab)
        a = alpha * np.eye(n_features) + beta * gram
        m = beta * np.linalg.solve(a, f_ND.T @ y_N)
        misfit = beta / 2 * ((y_N - f_ND @ m) ** 2).sum() + alpha / 2 * (m @ m)
        log_dets = n_features / 2 * log_ab[0] + n_images / 2 * log_ab[1] - np.linalg.slogdet(a)[1] / 2
        return -float(log_dets - misfit - n_images / 2 * np.log(2 * np.pi))

    starts = [(a, b) for a in (-3.0, 0.0, 3.0, 8.0) for b in (0.0, 3.0)]
    search = {"method": "Nelder-Mead", "bounds": [(-20, 25)] * 2, "options": {"xatol": 1e-9, "fatol": 1e-11}}
    best = min(minimize(minus_evidence, start, **search).fun for start in starts)
    return -best / n_images


@pytest.mark.parametrize(("n_images", "n_features", "shift"), [(40, 6, 1.0), (40, 6, 0.2), (12, 30, 1), (20, 20, 0.5)])
def test_logme_equals_the_dense_evidence(n_images: int, n_features: int, shift: float) -> None:
    x_ND, y_N = labelled_cloud(n_images, n_features, shift)
    centred = x_ND - x_ND.mean(0)
    expected = np.mean([dense_evidence(centred, (y_N == c).astype(float)) for c in range(3)])
    assert logme(x_ND, y_N) == pytest.approx(expected, rel=1e-6)


def test_logme_of_useless_features_is_the_evidence_of_no_features_at_all() -> None:
    # x is orthogonal to the centred labels, so w = 0 is best: y ~ N(0, 1/beta) with 1/beta = |y|²/N = 1/2
    x_ND, y_N = np.array([[1.0], [-1.0], [1.0], [-1.0]]), np.array([0, 0, 1, 1])
    assert logme(x_ND, y_N) == pytest.approx(-0.5 * np.log(2 * np.pi * 0.5) - 0.5, abs=1e-9)


def test_logme_does_not_see_shift_scale_or_rotation() -> None:
    x_ND, y_N = labelled_cloud(30, 8, 1.0)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0]
    for changed in (x_ND + 1000, x_ND * 1e-4, x_ND * 1e5, x_ND @ turn, np.hstack([x_ND, np.zeros((30, 5))])):
        assert logme(changed, y_N) == pytest.approx(logme(x_ND, y_N), rel=1e-6)


def test_random_2048_features_lose_against_informative_512() -> None:
    rng = np.random.default_rng(3)
    y_N = np.arange(100) % 5
    random_ND = rng.normal(size=(100, 2048))
    informative_ND = rng.normal(size=(100, 512)) + 0.5 * rng.normal(size=(5, 512))[y_N]
    for score in (logme, h_score, lambda x, y: knn_score(x, y, 5), lambda x, y: linear_probe_score(x, y, 0.01)):
        assert score(informative_ND, y_N) > score(random_ND, y_N)


@pytest.mark.parametrize(("n_images", "n_features"), [(50, 7), (20, 60)])
def test_h_score_equals_the_dense_inverse(n_images: int, n_features: int) -> None:
    x_ND, y_N = labelled_cloud(n_images, n_features, 1.0)
    fit = LedoitWolf().fit(x_ND)
    means_ND = np.stack([x_ND[y_N == c].mean(0) for c in y_N]) - x_ND.mean(0)
    between_DD = means_ND.T @ means_ND / n_images
    expected = (1 - fit.shrinkage_) * np.trace(np.linalg.inv(fit.covariance_) @ between_DD) / 2
    assert h_score(x_ND, y_N) == pytest.approx(expected, rel=1e-9)
    assert shrinkage(x_ND) == pytest.approx(fit.shrinkage_)


def test_h_score_lies_between_0_and_1() -> None:
    y_N = np.arange(40) % 4
    separated = np.eye(4)[y_N] * 1e3 + np.random.default_rng(0).normal(size=(40, 4))
    assert 0.8 < h_score(separated, y_N) <= 1  # shrinkage keeps it below 1
    assert 0 <= h_score(np.random.default_rng(1).normal(size=(40, 4)), y_N) < 0.3


def test_scores_from_inner_products_equal_those_from_features() -> None:
    x_ND, y_N = labelled_cloud(24, 50, 0.7)
    parts = spectrum_of_gram(x_ND @ x_ND.T, 50)
    assert logme_of(parts, y_N) == pytest.approx(logme(x_ND, y_N), rel=1e-6)
    assert h_score_of(parts, y_N, 0.3) == pytest.approx(h_score_of(spectrum(x_ND), y_N, 0.3), rel=1e-6)


def test_rotation_keeps_distances_in_fewer_columns() -> None:
    x_ND, _ = labelled_cloud(10, 40, 1.0)
    less = rotated(x_ND)
    assert less.shape == (10, 9)  # ten centred points span nine directions
    assert np.linalg.norm(less[2] - less[7]) == pytest.approx(np.linalg.norm(x_ND[2] - x_ND[7]))


@pytest.mark.parametrize("k", [1, 3, 5, 100])
def test_knn_equals_a_brute_force_loop(k: int) -> None:
    x_ND, y_N = labelled_cloud(25, 4, 0.6)
    expected = []
    for i in range(25):
        others = [j for j in range(25) if j != i]
        cosine = {j: x_ND[i] @ x_ND[j] / np.sqrt((x_ND[i] @ x_ND[i]) * (x_ND[j] @ x_ND[j])) for j in others}
        nearest = sorted(others, key=lambda j: -cosine[j])[:k]
        votes = [sum(np.exp(cosine[j] / 0.07) for j in nearest if y_N[j] == c) for c in range(3)]
        expected.append(int(np.argmax(votes)) == y_N[i])
    assert knn_correct(x_ND, y_N, k).tolist() == expected


def test_knn_ignores_length_and_bears_zero_vectors() -> None:
    x_ND = np.array([[1.0, 0], [9, 0.1], [0, 2], [0.1, 7], [0, 0]])
    assert knn_correct(x_ND, np.array([0, 0, 1, 1, 1]), 1)[:4].tolist() == [True] * 4


def test_probe_equals_scikit_learn_on_the_unrotated_features() -> None:
    x_ND, y_N = labelled_cloud(40, 90, 0.5)
    x = StandardScaler().fit_transform(x_ND)
    expected = np.zeros(40, bool)
    for fit, left_out in StratifiedKFold(5, shuffle=True, random_state=0).split(x, y_N):
        guessed = LogisticRegression(C=0.01, max_iter=1000).fit(x[fit], y_N[fit]).predict(x[left_out])
        expected[left_out] = guessed == y_N[left_out]
    assert linear_probe_correct(x_ND, y_N, 0.01).tolist() == expected.tolist()


def test_probe_refuses_a_class_with_one_image() -> None:
    with pytest.raises(ValueError, match="at least two labelled images of every class"):
        linear_probe_score(np.eye(5), np.array([0, 0, 1, 1, 2]), 1.0)


def test_balanced_accuracy_by_hand() -> None:
    # class 0: 3 of 4, class 7: 0 of 1
    assert balanced(np.array([1, 1, 1, 0, 0], bool), np.array([0, 0, 0, 0, 7])) == pytest.approx(0.375)


@pytest.mark.parametrize("score", [logme, h_score])
def test_dead_features_get_a_score_worse_than_live_ones(score) -> None:
    x_ND, y_N = labelled_cloud(30, 8, 1.0)
    assert score(np.zeros((30, 8)), y_N) < score(x_ND, y_N)
