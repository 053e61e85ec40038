"""Near-duplicates: a perceptual hash of the picture, the pairs of images whose hashes differ in few bits, and clusters.

The hash has 256 bits: signs of the lowest 16 x 16 frequencies of a 64 x 64 thumbnail, against their median (the DCT hash of
Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010, with four times its bits). The first 64 bits
are the lowest 8 x 8 frequencies: they find candidates, all 256 decide. Measured in benchmarks/near_duplicates.py.

Axes: H height, W width; N images, P pairs, L 64-bit words of a hash (4).
"""

from collections.abc import Iterator
from itertools import combinations, pairwise

import cv2
import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

THUMBNAIL_PX, SIDE, LOW_SIDE = 64, 16, 8
N_BITS = SIDE * SIDE
MIN_CONTRAST = 2.0  # grey levels, standard deviation of the thumbnail: below it the bits are noise of the compression
LOW_RADIUS = 7  # bits that may differ among the first 64; 8 of 513 one-pixel crops need more, none more than 11
N_BANDS = 10  # 7 differing bits spoil at most 7 of 10 bands, so 3 whole bands are always equal
CHUNK_PAIRS = 2_000_000
LOW_FIRST = np.argsort((np.indices((SIDE, SIDE)).max(0) >= LOW_SIDE).ravel(), kind="stable")


def perceptual_hash(grey_HW: np.ndarray) -> str:
    """64 hex digits; "" for a picture too flat to be told from others."""
    small = cv2.resize(grey_HW, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    if cv2.meanStdDev(small)[1][0, 0] < MIN_CONTRAST:
        return ""
    frequencies = cv2.dct(small)[:SIDE, :SIDE].ravel()
    middle = (N_BITS - 1) // 2
    bits = frequencies > np.partition(frequencies[1:], middle)[middle]  # their median; the first one is the brightness
    bits[0] = False
    return np.packbits(bits[LOW_FIRST]).tobytes().hex()


def near_pairs(hashes: list[str], max_bits: int) -> np.ndarray:
    """(P, 3) int64: i < j and the bits in which their hashes differ, at most `max_bits` of 256 and 7 of the first 64.

    Better than quadratic: images are compared only where they agree in 3 of 10 bands of the first 64 bits (multi-index
    hashing: Norouzi, Punjani, Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", CVPR 2012). Images without hash
    have no pairs. Of images with the same hash each is paired with the first only, so that thousands of copies stay few pairs.
    """
    known = np.flatnonzero([bool(text) for text in hashes])
    if not len(known):
        return np.empty((0, 3), np.int64)
    words_NL = np.array([list(bytes.fromhex(hashes[i])) for i in known], np.uint8).view(">u8").astype(np.uint64)
    unique_NL, first, which = np.unique(words_NL, axis=0, return_index=True, return_inverse=True)
    which = which.ravel()
    copies = np.flatnonzero(first[which] != np.arange(len(known)))
    same_P3 = np.stack([first[which[copies]], copies, np.zeros_like(copies)], axis=1)
    found = [_within(unique_NL, pairs, max_bits) for pairs in _candidates(unique_NL[:, 0])]
    near_P3 = np.concatenate([np.empty((0, 3), np.int64), *found])
    near_P3[:, :2] = np.sort(first[near_P3[:, :2]], axis=1)
    all_P3 = np.concatenate([same_P3, near_P3])
    all_P3[:, :2] = known[all_P3[:, :2]]
    return all_P3[np.lexsort((all_P3[:, 1], all_P3[:, 0]))]


def clusters(n_images: int, pairs_P2: np.ndarray) -> np.ndarray:
    """(N,) int64: one number per image; images linked by pairs, directly or through others, share it. Alone: -1."""
    links = coo_matrix((np.ones(len(pairs_P2)), (pairs_P2[:, 0], pairs_P2[:, 1])), shape=(n_images, n_images))
    number = connected_components(links, directed=False)[1].astype(np.int64)
    alone = np.bincount(number, minlength=1)[number] == 1
    return np.where(alone, -1, number)


def joined_groups(group_id: pd.Series, *clusters: pd.Series) -> pd.Series:
    """A group per row: rows that share a group or a cluster (NaN = none), directly or through others, share one name."""
    n_rows = len(group_id)
    pairs = [np.empty((0, 2), np.int64)]
    for keys in (group_id, *clusters):
        codes = pd.factorize(keys)[0]
        rows = np.flatnonzero(codes >= 0)
        first = pd.Series(rows).groupby(codes[rows]).transform("first").to_numpy()
        pairs.append(np.stack([first, rows], axis=1).astype(np.int64))
    links = np.concatenate(pairs)
    matrix = coo_matrix((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(n_rows, n_rows))
    family = pd.Series(connected_components(matrix, directed=False)[1], index=group_id.index)
    return group_id.groupby(family).transform("min")


def _candidates(low_N: np.ndarray) -> Iterator[np.ndarray]:
    """(P, 2) chunks of pairs whose first 64 bits differ in at most LOW_RADIUS, each pair once.

    Images with the same first 64 bits are looked up together: of a fixed camera thousands may share them.
    """
    words_U, which = np.unique(low_N, return_inverse=True)
    order, n_U = np.argsort(which, kind="stable"), np.bincount(which, minlength=len(words_U))
    starts_U = np.cumsum(n_U) - n_U
    yield from _pairs_within_runs(order, starts_U, n_U)
    for pairs_P2 in _near_words(words_U):
        one, other = pairs_P2.T
        ends = np.cumsum(n_U[one] * n_U[other])
        for start in range(0, int(ends[-1]) if len(ends) else 0, CHUNK_PAIRS):
            flat = np.arange(start, min(start + CHUNK_PAIRS, int(ends[-1])))
            pair = np.searchsorted(ends, flat, side="right")
            left, right = np.divmod(ends[pair] - 1 - flat, n_U[other[pair]])
            yield np.stack([order[starts_U[one[pair]] + left], order[starts_U[other[pair]] + right]], axis=1)


def _near_words(words_U: np.ndarray) -> Iterator[np.ndarray]:
    """(P, 2) chunks of pairs of different words that differ in at most LOW_RADIUS bits, each pair once.

    Such words agree in 3 of 10 bands. Where bands would compare more pairs than there are, all pairs are compared.
    """
    edges = np.linspace(0, 64, N_BANDS + 1).astype(int)
    masks = [np.uint64(((1 << int(high)) - 1) ^ ((1 << int(low)) - 1)) for low, high in pairwise(edges)]
    kept = list(combinations(range(N_BANDS), N_BANDS - LOW_RADIUS))
    keys_of = {bands: np.bitwise_or.reduce([masks[band] for band in bands]) for bands in kept}
    # an estimate from every tenth choice of bands: it decides which way is taken, not what is found
    n_compared = 10 * sum(_n_pairs(_runs(np.sort(words_U & keys_of[bands]))[1]) for bands in kept[::10])
    if n_compared >= _n_pairs(np.array([len(words_U)])):
        kept, keys_of = [()], {(): np.uint64(0)}
    for bands in kept:
        keys = words_U & keys_of[bands]
        order = np.argsort(keys, kind="stable")
        for pairs_P2 in _pairs_within_runs(order, *_runs(keys[order])):
            differing = words_U[pairs_P2[:, 0]] ^ words_U[pairs_P2[:, 1]]
            near = np.bitwise_count(differing) <= LOW_RADIUS
            # told by the first bands in which they agree, so that no pair comes twice
            for band in set(range(max(bands, default=0))) - set(bands):
                near &= (differing & masks[band]) != 0
            yield pairs_P2[near]


def _runs(sorted_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the runs of equal values start, and how long they are."""
    starts = np.flatnonzero(np.r_[True, np.diff(sorted_N) != 0])
    return starts, np.diff(np.r_[starts, len(sorted_N)])


def _n_pairs(lengths: np.ndarray) -> int:
    return int((lengths * (lengths - 1) // 2).sum())


def _pairs_within_runs(order: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> Iterator[np.ndarray]:
    """All pairs of each run, in chunks: every element with the ones after it in its run."""
    ends = np.repeat(starts + lengths, lengths)
    n_after = ends - np.arange(len(order)) - 1
    done, total = 0, np.cumsum(n_after)
    while done < len(order):
        offset = total[done - 1] if done else 0
        stop = max(int(np.searchsorted(total, offset + CHUNK_PAIRS, side="right")), done + 1)
        here = n_after[done:stop]
        left = np.repeat(np.arange(done, stop), here)
        if len(left):
            within = np.arange(len(left)) - np.repeat(np.cumsum(here) - here, here)
            yield np.stack([order[left], order[left + 1 + within]], axis=1)
        done = stop


def _within(words_NL: np.ndarray, pairs_P2: np.ndarray, max_bits: int) -> np.ndarray:
    """(P, 3): those pairs that are near, with their distance."""
    left, right = np.sort(pairs_P2, axis=1).T
    n_bits = np.bitwise_count(words_NL[left] ^ words_NL[right]).sum(axis=1, dtype=np.int64)
    near = n_bits <= max_bits
    return np.stack([left[near], right[near], n_bits[near]], axis=1)
