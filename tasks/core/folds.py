"""Cross-validation that keeps groups whole: what a classifier guesses of images whose group it never saw.

A group is what must not lie on both sides: a patient, a video, a cluster of near-duplicates. Axes: N images, G groups.
"""

from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

N_FOLDS = 5


def group_codes(groups_N: np.ndarray | None, n_images: int) -> np.ndarray:
    """(N,) 0..G-1; every image is its own group where none are given. ValueError for gaps or another length."""
    if groups_N is None:
        return np.arange(n_images)
    groups = np.asarray(groups_N)
    if groups.shape != (n_images,):
        raise ValueError(
            f"groups have the shape {groups.shape}, but there are {n_images} images: give one id per image"
        )
    gaps = [value is None or value != value for value in groups.tolist()]
    if any(gaps):
        raise ValueError(f"{sum(gaps)} images have no group: give an image without company an id of its own")
    return np.asarray(np.unique(groups, return_inverse=True)[1])


def out_of_fold(probe: Any, x_ND: np.ndarray, y_N: np.ndarray, groups_N: np.ndarray | None) -> np.ndarray:
    """(N,) the label that `probe` (a scikit-learn classifier) guesses of each image when its fold was left out.

    At most 5 folds, never more than the smallest class has images or than there are groups: so with few groups, folds
    are single groups. A class whose images all lie in the left-out fold is unknown then, and none of them is guessed.
    """
    guessed = np.empty_like(y_N)
    for fit, left_out in folds(y_N, groups_N):
        known = np.unique(y_N[fit])
        if len(known) == 1:
            guessed[left_out] = known[0]
        else:
            guessed[left_out] = clone(probe).fit(x_ND[fit], y_N[fit]).predict(x_ND[left_out])
    return guessed


def folds(y_N: np.ndarray, groups_N: np.ndarray | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """(rows to fit, rows left out) per fold, balanced over labels as far as whole groups allow."""
    codes = group_codes(groups_N, len(y_N))
    n_groups = len(np.unique(codes))
    n_smallest = int(np.unique(y_N, return_counts=True)[1].min())
    n_folds = min(N_FOLDS, n_smallest, n_groups)
    if n_smallest < 2:
        raise ValueError("cross-validation needs at least two labelled images of every class: leave rarer classes out")
    if n_groups < 2:
        raise ValueError("cross-validation needs at least two groups, but all images are of one: give more groups")
    if n_groups == len(y_N):
        return list(StratifiedKFold(n_folds, shuffle=True, random_state=0).split(y_N, y_N))
    found = StratifiedGroupKFold(n_folds, shuffle=True, random_state=0).split(y_N, y_N, codes)
    return [(fit, left_out) for fit, left_out in found if len(left_out)]
