"""Splits of the source in two: a distance between its parts is what the same distance shows where nothing differs.

Axes: K splits, S source images, G groups.
"""

import numpy as np

from tasks.core.runtime import address_rng

N_NULL_SPLITS = 20  # of the source, for the mean and the upper 95 % of each distance at true 0


def null_splits(codes_S: np.ndarray, n_target: int, seed: int) -> np.ndarray:
    """(K, S) of 1 (first part), 2 (second part) and 0 (left out): the source's whole groups, split in two K times.

    The parts are halves as far as whole groups allow; the second one ends with the group that brings it to the
    target's size. ValueError where a part would have fewer than two images.
    """
    size_G = np.bincount(codes_S)
    splits_KS = np.zeros((N_NULL_SPLITS, len(codes_S)), dtype=np.int64)
    for number in range(N_NULL_SPLITS if len(size_G) > 1 else 0):
        order = address_rng(seed, "null", number).permutation(len(size_G))
        reached = size_G[order].cumsum()
        cut = 1 + int(np.abs(reached[:-1] - len(codes_S) / 2).argmin())
        before = reached[cut:] - size_G[order[cut:]] - reached[cut - 1]
        part_G = np.zeros(len(size_G), dtype=np.int64)
        part_G[order[:cut]] = 1
        part_G[order[cut:][before < n_target]] = 2
        splits_KS[number] = part_G[codes_S]
    if min((splits_KS == 1).sum(1).min(), (splits_KS == 2).sum(1).min()) < 2:
        raise ValueError(
            f"the source's {len(codes_S)} images in {len(size_G)} groups can't be split into two parts of at least two "
            "images and whole groups each, which the distances' null needs: give more source images or groups"
        )
    return splits_KS
