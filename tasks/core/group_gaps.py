"""Gaps between groups before anything is trained: whose images does a candidate's frozen-feature probe get wrong?

Axes: M candidates, N labelled target images, B bootstrap draws, G groups.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GroupGap:
    """Accuracy of all others minus accuracy of the worst group, per candidate: value (M,), draws (B, M), worst group (M,)."""

    column: str
    value_M: np.ndarray
    draws_BM: np.ndarray
    worst_M: list[str]
    n_worst_M: list[int]

    def wider_than_narrowest(self, confidence: float) -> np.ndarray:
        """(M,) bool: is the gap wider than the narrowest candidate's, beyond the interval of the paired difference?"""
        narrowest = int(np.argmin(self.value_M))
        difference_BM = self.draws_BM - self.draws_BM[:, [narrowest]]
        low_M = np.quantile(difference_BM, (1 - confidence) / 2, axis=0)
        return np.asarray((low_M > 0) & (self.value_M > self.value_M[narrowest]))

    def interval(self, confidence: float) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the percentile interval, (M,) each."""
        tail = (1 - confidence) / 2
        low_M, high_M = np.quantile(self.draws_BM, [tail, 1 - tail], axis=0)
        return low_M, high_M


def group_gap(
    column: str, correct_MN: np.ndarray, group_N: np.ndarray, counts_BN: np.ndarray, min_images: int
) -> GroupGap | None:
    """The widest gap of a group to all others, on the same images and draws for every candidate.

    counts (B, N) say how often each image stands in a draw.
    Groups under `min_images` (and images without a group, "") are not judged; None where fewer than two groups are left.
    """
    names, counts = np.unique(group_N[group_N != ""], return_counts=True)
    names = names[counts >= min_images]
    if len(names) < 2:
        return None
    member_GN = (group_N[None, :] == names[:, None]).astype(float)
    gap_MG = _gaps(correct_MN, member_GN, np.ones((1, len(group_N))))[0]
    worst_M = gap_MG.argmax(1)
    return GroupGap(
        column=column,
        value_M=gap_MG.max(1),
        draws_BM=_gaps(correct_MN, member_GN, counts_BN.astype(float)).max(2),
        worst_M=[str(names[g]) for g in worst_M],
        n_worst_M=[int(member_GN[g].sum()) for g in worst_M],
    )


def _gaps(correct_MN: np.ndarray, member_GN: np.ndarray, weight_BN: np.ndarray) -> np.ndarray:
    """(B, M, G): accuracy of all others minus accuracy of each group; a group that a draw left out has no gap (0)."""
    weighted_BMN = weight_BN[:, None, :] * correct_MN[None].astype(float)
    right_BMG, all_BM1 = weighted_BMN @ member_GN.T, weighted_BMN.sum(2, keepdims=True)
    n_BG, n_B1 = weight_BN @ member_GN.T, weight_BN.sum(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        own_BMG = right_BMG / n_BG[:, None, :]
        others_BMG = (all_BM1 - right_BMG) / (n_B1 - n_BG)[:, None, :]
    return np.nan_to_num(others_BMG - own_BMG, nan=0.0)
