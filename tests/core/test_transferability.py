"""Transferability scores: against dense formulas, other libraries and brute force."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from tasks.core.feature_space import rotated
from tasks.core.transferability import (
    balanced,
    balanced_drawn,
    h_score,
    knn_correct,
    knn_score,
    leep,
    linear_probe_correct,
    linear_probe_score,
    logme,
    shrinkage,
    transfer_probe_correct,
    transfer_probe_score,
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


def test_a_draw_without_a_class_scores_the_others() -> None:
    _, y_N = labelled_cloud(30, 4, 1.0)
    counts = (y_N != 1).astype(float)[None]
    assert balanced_drawn(y_N == 0, y_N, counts)[0] == 0.5  # class 0 right, class 2 wrong


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


def two_domains(
    n_source: int, n_target: int, n_features: int, signal: float = 0.33
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Source and target of three classes, the target shifted."""
    rng = np.random.default_rng(n_source + n_features)
    y_S, y_N, centres = np.arange(n_source) % 3, np.arange(n_target) % 3, signal * rng.normal(size=(3, n_features))
    source, target = (rng.normal(size=(len(y), n_features)) + centres[y] for y in (y_S, y_N))
    return source, y_S, target + 0.5, y_N


@pytest.mark.parametrize("n_features", [8, 120])
def test_transfer_probe_equals_scikit_learn_on_both_domains_weighed_alike(n_features: int) -> None:
    source, y_S, x_ND, y_N = two_domains(60, 21, n_features)
    x = StandardScaler().fit_transform(np.concatenate([source, x_ND]))
    expected = np.zeros(21, bool)
    for fit, left_out in StratifiedKFold(5, shuffle=True, random_state=0).split(x_ND, y_N):
        weight = np.concatenate([np.full(60, 1 / 60), np.full(len(fit), 1 / len(fit))]) * (60 + len(fit)) / 2
        probe = LogisticRegression(C=0.01, max_iter=1000)
        probe.fit(np.concatenate([x[:60], x[60:][fit]]), np.concatenate([y_S, y_N[fit]]), weight)
        expected[left_out] = probe.predict(x[60:][left_out]) == y_N[left_out]
    assert transfer_probe_correct(source, y_S, x_ND, y_N, 0.01).tolist() == expected.tolist()
    assert 0 < transfer_probe_score(source, y_S, x_ND, y_N, 0.01) == balanced(expected, y_N) < 1


def test_a_source_that_knows_the_classes_helps_where_target_labels_are_few() -> None:
    source, y_S, x_ND, y_N = two_domains(300, 12, 60, 0.25)
    assert transfer_probe_score(source, y_S, x_ND, y_N, 0.01) > linear_probe_score(x_ND, y_N, 0.01) + 0.2
    misled = (y_S + 1) % 3
    assert transfer_probe_score(source, misled, x_ND, y_N, 0.01) < linear_probe_score(x_ND, y_N, 0.01)


def test_source_images_of_other_classes_play_no_part() -> None:
    source, y_S, x_ND, y_N = two_domains(60, 21, 8)
    more = np.concatenate([source, 100 + source]), np.concatenate([y_S, y_S - 9])
    assert (
        transfer_probe_correct(*more, x_ND, y_N, 0.01).tolist()
        == transfer_probe_correct(source, y_S, x_ND, y_N, 0.01).tolist()
    )


def test_transfer_probe_keeps_patients_whole() -> None:
    x_ND, y_N, groups = patients(20, np.arange(20) % 2)
    source = np.random.default_rng(0).normal(size=(40, 200))  # knows nothing
    assert transfer_probe_score(source, np.arange(40) % 2, x_ND, y_N, 1.0) == 1.0
    assert transfer_probe_score(source, np.arange(40) % 2, x_ND, y_N, 1.0, groups) < 0.8


def test_transfer_probe_refuses_a_class_without_source_images() -> None:
    source, y_S, x_ND, y_N = two_domains(60, 21, 8)
    with pytest.raises(ValueError, match="1 classes have no source image, the first: 2; leave their images out"):
        transfer_probe_score(source[y_S < 2], y_S[y_S < 2], x_ND, y_N, 0.01)
    with pytest.raises(ValueError, match="source and target have different numbers of columns"):
        transfer_probe_score(source[:, :5], y_S, x_ND, y_N, 0.01)


def test_balanced_accuracy_by_hand() -> None:
    # class 0: 3 of 4, class 7: 0 of 1
    assert balanced(np.array([1, 1, 1, 0, 0], bool), np.array([0, 0, 0, 0, 7])) == pytest.approx(0.375)


@pytest.mark.parametrize("score", [logme, h_score])
def test_dead_features_get_a_score_worse_than_live_ones(score) -> None:
    x_ND, y_N = labelled_cloud(30, 8, 1.0)
    assert score(np.zeros((30, 8)), y_N) < score(x_ND, y_N)


def patients(n_groups: int, label_of_group: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Six nearly equal images of each of several patients who have nothing in common: features, labels, groups."""
    rng, groups = np.random.default_rng(n_groups), np.repeat(np.arange(n_groups), 6)
    x_ND = rng.normal(size=(n_groups, 200))[groups] + 0.01 * rng.normal(size=(6 * n_groups, 200))
    return x_ND, label_of_group[groups], groups


def test_recognised_patients_are_no_skill_once_groups_are_known() -> None:
    x_ND, y_N, groups = patients(60, np.arange(60) % 2)
    assert knn_score(x_ND, y_N, 5) == 1.0
    assert linear_probe_score(x_ND, y_N, 1.0) == 1.0
    assert 0.3 < knn_score(x_ND, y_N, 5, groups) < 0.7
    assert 0.3 < linear_probe_score(x_ND, y_N, 1.0, groups) < 0.7


def test_labels_that_are_the_groups_can_not_be_known_from_other_groups() -> None:
    x_ND, y_N, groups = patients(5, np.arange(5))
    assert knn_score(x_ND, y_N, 5) == linear_probe_score(x_ND, y_N, 1.0) == 1.0
    assert knn_score(x_ND, y_N, 5, groups) == linear_probe_score(x_ND, y_N, 1.0, groups) == 0.0


def test_an_image_without_neighbours_counts_as_wrong() -> None:
    assert knn_score(np.eye(4), np.array([0, 0, 1, 1]), 3, np.zeros(4)) == 0


def test_neighbours_in_blocks_equal_those_at_once() -> None:
    x_ND, y_N = labelled_cloud(700, 5, 0.4)
    unit = x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)
    cosine = unit @ unit.T - 9 * np.eye(700)
    assert knn_correct(x_ND, y_N, 1).tolist() == (y_N[cosine.argmax(1)] == y_N).tolist()


def test_neighbours_of_tiny_and_huge_features() -> None:
    x_ND, y_N = labelled_cloud(30, 4, 0.6)
    for scale in (1e-200, 1e200):
        assert knn_correct(x_ND * scale, y_N, 3).tolist() == knn_correct(x_ND, y_N, 3).tolist()


SCORES = {
    "logme": logme,
    "h_score": h_score,
    "knn": lambda x, y: knn_score(x, y, 3),
    "linear_probe": lambda x, y: linear_probe_score(x, y, 1.0),
    "transfer_probe": lambda x, y: transfer_probe_score(np.eye(90)[:, : np.shape(x)[-1]], np.arange(90) % 5, x, y, 1.0),
    "leep": leep,
}


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize(
    ("x_ND", "y_N", "message"),
    [
        (np.full((4, 2), np.nan), [0, 1, 0, 1], "8 values that are not finite numbers"),
        (np.array([[np.inf, 0], [0, 1]]), [0, 1], "1 values that are not finite numbers"),
        (np.ones(4), [0, 1, 0, 1], r"have the shape \(4,\), not \(images, features\)"),
        (np.ones((4, 0)), [0, 1, 0, 1], r"have the shape \(4, 0\)"),
        (np.ones((1, 2)), [0], "hold 1 images, at least 2 are needed"),
        (np.full((4, 2), "a"), [0, 1, 0, 1], "not numbers"),
        (np.ones((4, 2)), [0, 1, 0], "there are 4 images: give one label per image"),
        (np.ones((4, 2)), [0.0, 1.0, np.nan, 1.0], "labels are of type float64: give integers"),
        (np.ones((4, 2)), [3, 3, 3, 3], "all 4 labels are 3: a score needs at least two classes"),
    ],
)
def test_scores_say_what_is_wrong_with_their_input(name: str, x_ND: np.ndarray, y_N: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SCORES[name](x_ND, np.array(y_N))


def test_scores_leave_their_input_alone() -> None:
    x_ND, y_N = labelled_cloud(20, 30, 1.0)
    theta = np.exp(x_ND) / np.exp(x_ND).sum(1, keepdims=True)
    for name, score in SCORES.items():
        given = (theta if name == "leep" else x_ND).copy()
        given.flags.writeable = False  # as a memory-mapped file
        score(given, y_N)


def test_no_neighbours_are_refused() -> None:
    with pytest.raises(ValueError, match="n_neighbors is 0, at least 1 is needed"):
        knn_score(np.eye(4), np.array([0, 0, 1, 1]), 0)
