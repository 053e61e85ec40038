"""Gaps between groups: by hand, on the same images for every candidate, and no verdict on few."""

import numpy as np
import pytest

from tasks.core.group_gaps import group_gap
from tasks.core.ranking import resample_counts


def draws(n: int, n_draws: int = 400) -> np.ndarray:
    return resample_counts(np.zeros(n, int), None, n_draws, np.random.default_rng(0))


def test_the_gap_is_others_minus_the_worst_group() -> None:
    groups = np.array(["a"] * 4 + ["b"] * 4)
    correct = np.array([[1, 1, 1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 1, 1, 0, 0]], bool)
    found = group_gap("site", correct, groups, draws(8), min_images=2)
    assert found is not None
    assert found.value_M.tolist() == [0.75, 0.0]
    assert found.worst_M[0] == "b"
    assert found.n_worst_M == [4, 4]


def test_small_groups_and_images_without_a_group_are_not_judged() -> None:
    groups = np.array(["a"] * 6 + ["b"] * 6 + ["c"] + [""] * 3)
    correct = np.array([[1] * 12 + [0] * 4], bool)
    found = group_gap("site", correct, groups, draws(16), min_images=2)
    assert found is not None
    # a: own 1, the other ten images hold 6 right ones
    assert found.value_M[0] == pytest.approx(6 / 10 - 1)
    assert group_gap("site", correct, np.array(["a"] * 15 + ["b"]), draws(16), min_images=2) is None


def test_a_wider_gap_is_marked_only_beyond_the_interval() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(["a", "b"], 200)
    even = rng.random(400) < 0.8
    uneven = np.where(groups == "a", rng.random(400) < 0.95, rng.random(400) < 0.5)
    hardly = even.copy()
    hardly[np.flatnonzero(hardly & (groups == "b"))[:2]] = False
    found = group_gap("site", np.stack([even, uneven, hardly]), groups, draws(400), min_images=20)
    assert found is not None
    assert found.wider_than_narrowest(0.95).tolist() == [False, True, False]
    low, high = found.interval(0.95)
    assert low[1] < 0.45 < high[1]


def test_one_draw_without_a_group_is_no_crash() -> None:
    groups = np.array(["a"] * 10 + ["b"] * 2)
    found = group_gap("site", np.ones((1, 12), bool), groups, draws(12), min_images=2)
    assert found is not None
    assert np.isfinite(found.draws_BM).all()
