"""What scores are without each image or group: against the scores themselves of the images that are left."""

from collections.abc import Iterator

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from tasks.core.feature_space import spectrum
from tasks.core.jackknife import drawn, left_out
from tasks.core.ranking import resample_counts
from tasks.core.transferability import h_score, logme


@pytest.fixture(autouse=True)
def one_thread_of_blas() -> Iterator[None]:
    with threadpool_limits(1, user_api="blas"):
        yield


def cloud(n_images: int, n_features: int, signal: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of uneven power, away from 0, whose three classes lie `signal` apart, in the same places for each seed."""
    rng, y_N = np.random.default_rng(seed), np.arange(n_images) % 3
    centres_CD = np.random.default_rng(99).normal(size=(3, n_features))
    x_ND = (rng.normal(size=(n_images, n_features)) + signal * centres_CD[y_N]) * np.arange(1, n_features + 1) ** -0.5
    return x_ND + 3, y_N


def recomputed(x_ND: np.ndarray, y_N: np.ndarray, codes_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kept = [codes_N != group for group in range(codes_N.max() + 1)]
    return tuple(np.array([score(x_ND[rows], y_N[rows]) for rows in kept]) for score in (logme, h_score))


@pytest.mark.parametrize(
    ("n_images", "n_features", "group_size"),
    [(40, 6, 1), (40, 60, 1), (40, 1, 1), (40, 200, 2), (60, 5, 3), (42, 60, 7)],
)
@pytest.mark.parametrize("signal", [0.2, 1.0])
def test_scores_equal_those_of_the_images_that_are_left(
    n_images: int, n_features: int, group_size: int, signal: float
) -> None:
    x_ND, y_N = cloud(n_images, n_features, signal)
    codes_N = np.random.default_rng(1).permutation(n_images) // group_size
    logme_G, h_score_G = left_out(spectrum(x_ND), y_N, codes_N)
    expected_logme, expected_h_score = recomputed(x_ND, y_N, codes_N)
    assert h_score_G == pytest.approx(expected_h_score, abs=1e-9)
    off_G = logme_G - expected_logme  # alpha/beta is the whole's
    assert np.abs(off_G).mean() < 0.3 * expected_logme.std()
    assert logme_G.std() == pytest.approx(expected_logme.std(), rel=0.3)


def test_a_class_that_leaves_with_its_group_plays_no_part() -> None:
    x_ND, y_N = cloud(30, 50, 1.0)
    logme_G, h_score_G = left_out(spectrum(x_ND), y_N, y_N)
    expected_logme, expected_h_score = recomputed(x_ND, y_N, y_N)
    assert h_score_G == pytest.approx(expected_h_score)
    assert logme_G == pytest.approx(expected_logme, abs=0.02)
    rows = y_N < 2
    logme_G, h_score_G = left_out(spectrum(x_ND[rows]), y_N[rows], y_N[rows])
    assert h_score_G.tolist() == [0, 0]  # one class is left, which nothing can be told from
    assert np.isfinite(logme_G).all()


def test_draws_add_what_each_copy_is_worth_by_hand() -> None:
    # without a group 0.5 -> 0.4 (worth 0.1) and 0.5 -> 0.7 (worth -0.2); drawn as 2 + 0, 1 + 1, 0 + 2 copies
    draws = drawn(0.5, np.array([0.4, 0.7]), np.array([[2, 0], [1, 1], [0, 2]]))
    assert draws == pytest.approx([0.5 + 0.1 + 0.2, 0.5, 0.5 - 0.1 - 0.2])


@pytest.mark.parametrize(("n_images", "n_features"), [(60, 100), (90, 12)])
@pytest.mark.parametrize("signal", [0.3, 1.0])
def test_draws_scatter_as_fresh_samples_do(n_images: int, n_features: int, signal: float) -> None:
    fresh, spread = [], []
    for seed in range(40):
        x_ND, y_N = cloud(n_images, n_features, signal, seed)
        values = logme(x_ND, y_N), h_score(x_ND, y_N)
        counts = resample_counts(y_N, None, 40, np.random.default_rng(seed))
        without = left_out(spectrum(x_ND), y_N, np.arange(n_images))
        fresh.append(values)
        spread.append([drawn(*pair, counts).std() for pair in zip(values, without, strict=True)])
    ratio = np.mean(spread, axis=0) / np.std(fresh, axis=0)
    assert ((ratio > 0.75) & (ratio < 1.6)).all(), ratio


def test_whole_groups_scatter_as_their_number_does() -> None:
    x_ND, y_N = cloud(24, 10, 1.0)
    four, labels, groups = np.repeat(x_ND, 4, axis=0), np.repeat(y_N, 4), np.repeat(np.arange(24), 4)
    alone, grouped = (left_out(spectrum(four), labels, codes) for codes in (np.arange(96), groups))
    for one, whole in zip(alone, grouped, strict=True):
        value = whole.mean()
        assert np.abs(whole - value).sum() > 1.5 * np.abs(one - one.mean()).sum() / 2 > 0


def test_dead_features_hang_on_no_image() -> None:
    logme_G, h_score_G = left_out(spectrum(np.ones((10, 4))), np.arange(10) % 2, np.arange(10))
    assert h_score_G.tolist() == [0] * 10
    assert np.ptp(logme_G) == pytest.approx(0, abs=1e-12)
