"""Folds: groups stay whole, and what happens where there are few of them."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from tasks.core.folds import folds, group_codes, out_of_fold


def test_every_image_is_left_out_once_and_groups_stay_whole() -> None:
    rng = np.random.default_rng(0)
    y, groups = rng.integers(3, size=90), rng.integers(17, size=90)
    found = folds(y, groups)
    assert len(found) == 5
    assert sorted(np.concatenate([left_out for _, left_out in found])) == list(range(90))
    for fit, left_out in found:
        assert not set(groups[fit]) & set(groups[left_out])
        assert len(fit) + len(left_out) == 90


def test_images_that_are_their_own_groups_fold_as_without_groups() -> None:
    y = np.arange(30) % 3
    for (fit, _), (fit_grouped, _) in zip(folds(y, None), folds(y, np.arange(30)[::-1]), strict=True):
        assert fit.tolist() == fit_grouped.tolist()


def test_fewer_groups_than_folds_make_a_fold_of_each_group() -> None:
    groups = np.repeat([4, 8, 6], 10)
    left_out = {frozenset(groups[rows]) for _, rows in folds(np.arange(30) % 2, groups)}
    assert left_out == {frozenset([4]), frozenset([6]), frozenset([8])}


def test_a_class_that_one_fold_swallows_is_never_guessed() -> None:
    y = np.array([0, 0, 1, 1])  # one group a class: the other class is all that is known
    guessed = out_of_fold(KNeighborsClassifier(1), np.arange(4.0)[:, None], y, np.array([7, 7, 9, 9]))
    assert guessed.tolist() == [1, 1, 0, 0]


def test_group_ids_may_be_words_or_numbers() -> None:
    assert group_codes(np.array(["b", "a", "b"]), 3).tolist() == [1, 0, 1]
    assert group_codes(np.array(["b", "a", "b"], dtype=object), 3).tolist() == [1, 0, 1]
    assert group_codes(np.array([30, 10, 30]), 3).tolist() == [1, 0, 1]
    assert group_codes(None, 3).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (np.array([1, 2]), "there are 3 images: give one id per image"),
        (np.array([1, np.nan, 2]), "1 images have no group"),
        (np.array(["a", None, None], dtype=object), "2 images have no group"),
    ],
)
def test_groups_with_gaps_or_another_length_are_refused(groups: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        group_codes(groups, 3)


def test_one_group_or_a_class_with_one_image_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two groups, but all images are of one"):
        folds(np.array([0, 0, 1, 1]), np.zeros(4))
    with pytest.raises(ValueError, match="at least two labelled images of every class"):
        folds(np.array([0, 0, 1]), None)
