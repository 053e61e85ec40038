"""Replicates of metrics without an interval of their own: drawn from counts, never from the images one by one.

Axes: S strata, K kinds of outcome, B replicates.
"""

import numpy as np
from scipy.special import ndtri

from tasks.core.bias.counts import by_bin

N_RELIABLE = 50  # a quantile is read off the replicates where so many lie beyond it, or in any case up to one deviation
ONE_DEVIATION = 0.16


def class_mean_deviations(
    n_SK: np.ndarray, score_K: np.ndarray, n_replicates: int, rng: np.random.Generator
) -> np.ndarray:
    """(B,) sorted deviations of the mean over strata of each stratum's mean score, from a multinomial bootstrap.

    The strata's sizes are kept. The first and the last outcome count half an image more, so that 30 of 30 right leaves doubt,
    and each stratum is moved back onto its own mean, so that many strata don't add up to a bias.
    """
    n_SK = n_SK[n_SK.sum(1) > 0]
    n_S1 = n_SK.sum(1, keepdims=True)
    chance_SK = n_SK.astype(float)
    chance_SK[:, [0, -1]] += 0.5
    chance_SK /= n_S1 + 1
    shape = (len(n_SK), n_replicates)
    if len(score_K) == 2:
        drawn_SB = rng.binomial(n_S1, chance_SK[:, :1], shape)
        mean_SB = (drawn_SB * score_K[0] + (n_S1 - drawn_SB) * score_K[1]) / n_S1
    else:
        mean_SB = rng.multinomial(n_S1, chance_SK[:, None, :], shape) @ score_K / n_S1
    total_B = (mean_SB - (chance_SK @ score_K)[:, None]).sum(0)
    return np.sort(total_B / max(len(n_SK), 1))


def calibration_deviations(n_S: np.ndarray, x_S: np.ndarray, n_replicates: int, rng: np.random.Generator) -> np.ndarray:
    """(2, B) sorted deviations of the calibration error, downwards and upwards, from a bootstrap of the images.

    S: wrong and right images of each bin in turn, with the sum of right minus probability; an image counts as its cell's mean,
    since probabilities within a bin hardly vary beside right and wrong. One image more, half wrong and half right, is shared
    out over the bins as the images are, so that 30 of 30 right leaves doubt; the bins are moved back onto their own sums.
    The error is a sum of absolute values, so chance makes it too large, near 0 by an amount that no replicate tells. What
    holds always: the true error lies below the measured one by no more than the bins' own errors together, and these are drawn.
    Upwards the replicates count from their mean. The interval is rather too wide than too narrow.
    """
    n, sums = int(n_S.sum()), by_bin(x_S)
    size, is_right = by_bin(n_S), np.arange(len(n_S)) % 2
    sure = np.repeat((by_bin(n_S * is_right) - sums) / np.maximum(size, 1), 2)  # mean probability of each cell's bin
    extra_S = np.repeat(size, 2) / (2 * n)
    there = np.flatnonzero(extra_S)
    chance = ((n_S + extra_S) / (n + 1))[there]
    mean = ((x_S + extra_S * (is_right - sure)) / (n_S + extra_S).clip(1e-12))[there]
    expected = by_bin(chance * mean * n)
    drawn = rng.multinomial(n, chance, n_replicates)
    moved = by_bin(drawn * mean) - expected
    down_B, up_B = -np.abs(moved).sum(1) / n, np.abs(sums[size > 0] + moved).sum(1) / n
    return np.sort(np.stack([down_B, up_B - up_B.mean()]), axis=1)


def ends(deviations: np.ndarray, confidence: float) -> tuple[float, float]:
    """The sorted deviations' two-sided quantiles, (B,) or apart for both sides (2, B).

    Beyond what the replicates resolve they go on in proportion to the normal quantile.
    """
    rows = np.atleast_2d(deviations)
    down_B, up_B = rows[0], rows[-1]
    tail = (1 - confidence) / 2
    resolved = max(tail, min(N_RELIABLE / len(down_B), ONE_DEVIATION))
    beyond = float(ndtri(tail) / ndtri(resolved)) if tail < resolved else 1.0
    return float(np.quantile(down_B, resolved)) * beyond, float(np.quantile(up_B, 1 - resolved)) * beyond
