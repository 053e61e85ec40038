"""LEEP: by hand, against a plain loop, and at its ends."""

import numpy as np
import pytest

from tasks.core.ranking import resample_counts
from tasks.core.transferability import leep, leep_drawn


def leep_loop(theta_NZ: np.ndarray, y_N: np.ndarray) -> float:
    n_images, n_source = theta_NZ.shape
    joint = {(c, z): sum(theta_NZ[i, z] for i in range(n_images) if y_N[i] == c) for c in y_N for z in range(n_source)}
    total = 0.0
    for i in range(n_images):
        seen = [z for z in range(n_source) if sum(theta_NZ[:, z]) > 0]
        total += np.log(sum(theta_NZ[i, z] * joint[y_N[i], z] / sum(theta_NZ[:, z]) for z in seen))
    return total / n_images


def test_leep_of_two_source_classes_by_hand() -> None:
    # P(y=0|z): z=0 (0.8 + 0.6) / (0.8 + 0.6 + 0.2) = 7/8, z=1 (0.2 + 0.4) / (0.2 + 0.4 + 0.8) = 3/7
    theta, y_N = np.array([[0.8, 0.2], [0.6, 0.4], [0.2, 0.8]]), np.array([0, 0, 1])
    likelihoods = [0.8 * 7 / 8 + 0.2 * 3 / 7, 0.6 * 7 / 8 + 0.4 * 3 / 7, 0.2 * 1 / 8 + 0.8 * 4 / 7]
    assert leep(theta, y_N) == pytest.approx(np.log(likelihoods).mean(), rel=1e-12)


def test_leep_is_0_at_best_and_minus_the_entropy_of_the_labels_without_information() -> None:
    y_N = np.array([0, 0, 0, 4])
    assert leep(np.eye(3)[[0, 0, 1, 2]], y_N) == 0  # two source classes for one label are no loss
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert leep(np.full((4, 5), 0.2), y_N) == pytest.approx(-entropy)


def test_leep_equals_a_plain_loop_and_drops_empty_source_classes() -> None:
    rng = np.random.default_rng(0)
    theta, y_N = rng.dirichlet(np.ones(6) / 3, size=20), np.arange(20) % 3
    theta = np.insert(theta, 2, 0, axis=1)
    assert leep(theta, y_N) == pytest.approx(leep_loop(theta, y_N), rel=1e-12)
    assert leep(np.delete(theta, 2, 1), y_N) == pytest.approx(leep(theta, y_N), rel=1e-12)


def test_drawn_leep_equals_that_of_the_drawn_rows() -> None:
    rng = np.random.default_rng(1)
    theta, y_N = np.eye(4)[rng.integers(4, size=12)], np.arange(12) % 2  # hard outputs: draws lose source classes
    theta[:4] = rng.dirichlet(np.ones(4), size=4)
    counts_BN = resample_counts(y_N, None, 30, rng)
    rows = [np.repeat(np.arange(12), counts) for counts in counts_BN]
    expected = [leep_loop(theta[drawn], y_N[drawn]) for drawn in rows]
    assert leep_drawn(theta, y_N, counts_BN) == pytest.approx(expected, rel=1e-12)


def test_leep_bears_half_precision_and_refuses_what_is_no_probability() -> None:
    theta = np.random.default_rng(2).dirichlet(np.ones(1000), size=6)
    assert leep(theta.astype(np.float16), np.arange(6) % 2) == pytest.approx(leep(theta, np.arange(6) % 2), rel=0.01)
    for wrong in (np.log(theta), theta * 2, np.vstack([theta[:5], -theta[5:]])):
        with pytest.raises(ValueError, match="rows of the softmax outputs are not probabilities"):
            leep(wrong, np.arange(6) % 2)
