"""How far the target lies from the source in one network's features: distances that need no labels.

Axes: S source images, T target images, N = S + T, D features, R ≤ min(N, D) principal components, B pairs of samples.
Every distance standardises the features of both together and is divided by their number where it would grow with it,
so that networks of different width compare. Each is read beside its null: source against source.

The functions on `pairs` compute B distances at once between reweighted samples of the same images: `a` (B, N) and `b`
(B, N) say how often each image stands on the source's and on the target's side. With ones that is the plain distance,
with counts a bootstrap draw, with halves of the source a null. They see inner products only, so rotated features do.
Memory: a few arrays of the size of the features or of the weights; Gram matrices are made 512 rows at a time.
"""

from collections.abc import Callable

import numpy as np
from sklearn.linear_model import LogisticRegression

from tasks.core.feature_space import check_features, rotated, standardised
from tasks.core.folds import out_of_fold
from tasks.core.transferability import balanced

PROBE_INVERSE_L2 = 0.01
MAX_FRECHET_DIMENSIONS = 64  # a covariance of more needs more images than a sample has
N_BLOCK = 512

PairDistance = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]


def pooled_standard(source_SD: np.ndarray, target_TD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both, standardised by the mean and deviation of the two together; constant features become 0."""
    both = standardised(np.concatenate([source_SD, target_TD]))
    return both[: len(source_SD)], both[len(source_SD) :]


def proxy_a_distance(
    source_SD: np.ndarray,
    target_TD: np.ndarray,
    groups_S: np.ndarray | None = None,
    groups_T: np.ndarray | None = None,
) -> float:
    """2 (1 - 2 err), clipped to 0..2; err is cross-validated and balanced. 0 = can't be told apart.

    Ben-David et al. 2007. Groups stay whole in the folds; one id in both domains is one group. ValueError for other
    shapes than (S, D) and (T, D), gaps, fewer than 2 images, or groups for one domain alone.
    """
    check_features(source=source_SD, target=target_TD)
    if (groups_S is None) != (groups_T is None):
        raise ValueError("groups are given for one domain alone: give them for both or for none")
    groups_N = None if groups_S is None or groups_T is None else np.concatenate([groups_S, groups_T])
    x = np.concatenate(pooled_standard(source_SD, target_TD))
    is_target = np.arange(len(x)) >= len(source_SD)
    return float(np.clip(proxy_a(domain_errors(rotated(x), is_target, groups_N), is_target), 0, 2))


def domain_errors(x_NR: np.ndarray, is_target: np.ndarray, groups_N: np.ndarray | None) -> np.ndarray:
    """(N,) bool: is the domain of each image guessed wrong when its fold was left out? Features are standardised."""
    probe = LogisticRegression(C=PROBE_INVERSE_L2, tol=1e-3, max_iter=1000, class_weight="balanced")
    return np.asarray(out_of_fold(probe, x_NR, is_target, groups_N) != is_target)


def proxy_a(wrong: np.ndarray, is_target: np.ndarray) -> float:
    """2 (1 - 2 err) with both domains weighed alike; below 0 where guesses are worse than chance."""
    return 2 - 4 * balanced(wrong, is_target)


def linear_mmd(source_SD: np.ndarray, target_TD: np.ndarray) -> float:
    """Unbiased squared distance of the means, per feature: (|μs - μt|² - tr Cs/S - tr Ct/T) / D.

    Gretton et al. 2012 with a linear kernel. May be slightly negative at true 0. ValueError for other shapes than
    (S, D) and (T, D), gaps, or fewer than 2 images.
    """
    return _plain(linear_mmd_pairs, source_SD, target_TD)


def kid(source_SD: np.ndarray, target_TD: np.ndarray) -> float:
    """Unbiased squared MMD with the kernel (x·y/D + 1)³: sees differences of means, covariances and third moments.

    Binkowski et al. 2018, "kernel inception distance", on any network's features. May be slightly negative at true 0.
    ValueError as `linear_mmd`.
    """
    return _plain(kid_pairs, source_SD, target_TD)


def coral_distance(source_SD: np.ndarray, target_TD: np.ndarray) -> float:
    """|Cs - Ct|² (Frobenius) / 4D² of the covariances (Sun and Saenko 2016). Above 0 at true 0: read beside its null.

    ValueError as `linear_mmd`.
    """
    return _plain(coral_pairs, source_SD, target_TD)


def frechet_distance(source_SD: np.ndarray, target_TD: np.ndarray) -> float:
    """(|μs - μt|² + tr(Cs + Ct - 2 (Cs^½ Ct Cs^½)^½)) / D in at most 64 principal components of both together.

    Dowson and Landau 1982; per feature (ours). Above 0 at true 0: read beside its null. ValueError as `linear_mmd`.
    """
    return _plain(frechet_pairs, source_SD, target_TD)


def linear_mmd_pairs(x_NR: np.ndarray, a_BN: np.ndarray, b_BN: np.ndarray, n_features: int) -> np.ndarray:
    """(B,) `linear_mmd` of pairs of samples of standardised images."""
    gap_BR, noise_B = np.zeros((len(a_BN), x_NR.shape[1])), np.zeros(len(a_BN))
    square_N = (x_NR**2).sum(1)
    for sign, weights in [(1, a_BN), (-1, b_BN)]:
        n_B = weights.sum(1)
        mean_BR = weights @ x_NR / n_B[:, None]
        noise_B += (weights @ square_N / n_B - (mean_BR**2).sum(1)) / (n_B - 1)
        gap_BR += sign * mean_BR
    unbiased: np.ndarray = ((gap_BR**2).sum(1) - noise_B) / n_features
    return unbiased


def kid_pairs(x_NR: np.ndarray, a_BN: np.ndarray, b_BN: np.ndarray, n_features: int) -> np.ndarray:
    """(B,) `kid` of pairs of samples of standardised images; copies of an image in a sample count as images."""
    n_B, m_B = a_BN.sum(1), b_BN.sum(1)
    within_a, within_b, across = np.zeros((3, len(a_BN)))
    for rows in _blocks(len(x_NR)):
        kernel_rN = (x_NR[rows] @ x_NR.T / n_features + 1) ** 3
        self_r = ((x_NR[rows] ** 2).sum(1) / n_features + 1) ** 3
        of_b_BN = b_BN[:, rows] @ kernel_rN
        within_a += ((a_BN[:, rows] @ kernel_rN) * a_BN).sum(1) - a_BN[:, rows] @ self_r
        within_b += (of_b_BN * b_BN).sum(1) - b_BN[:, rows] @ self_r
        across += (of_b_BN * a_BN).sum(1)
    unbiased: np.ndarray = within_a / (n_B * (n_B - 1)) + within_b / (m_B * (m_B - 1)) - 2 * across / (n_B * m_B)
    return unbiased


def coral_pairs(x_NR: np.ndarray, a_BN: np.ndarray, b_BN: np.ndarray, n_features: int) -> np.ndarray:
    """(B,) `coral_distance` of pairs of samples, as tr Cs² + tr Ct² - 2 tr Cs Ct from inner products g of the images.

    (n-1)(m-1) tr Ca Cb = sum a_i b_j (g_ij - mean_b g_i - mean_a g_j + mean_ab g)², multiplied out: the cost grows
    with N² where a D x D covariance per draw would take minutes.
    """
    n_BN = {"a": a_BN, "b": b_BN}
    to_mean = {name: np.empty((len(a_BN), len(x_NR))) for name in n_BN}  # inner products with the sample's mean
    squares = {pair: np.zeros(len(a_BN)) for pair in ("aa", "bb", "ab")}
    for rows in _blocks(len(x_NR)):
        gram_rN = x_NR[rows] @ x_NR.T
        for name, weights in n_BN.items():
            to_mean[name][:, rows] = weights @ gram_rN.T / weights.sum(1, keepdims=True)
        gram_rN **= 2
        for pair, sums in squares.items():
            sums += ((n_BN[pair[0]][:, rows] @ gram_rN) * n_BN[pair[1]]).sum(1)
    traces = {}
    for pair in squares:
        one, other = n_BN[pair[0]], n_BN[pair[1]]
        n, m, to_one, to_other = one.sum(1), other.sum(1), to_mean[pair[0]], to_mean[pair[1]]
        mean_product = (one * to_other).sum(1) / n
        centring = m * (one * to_other**2).sum(1) + n * (other * to_one**2).sum(1) - n * m * mean_product**2
        traces[pair] = (squares[pair] - centring) / ((n - 1) * (m - 1))
    found: np.ndarray = (traces["aa"] + traces["bb"] - 2 * traces["ab"]) / (4 * n_features**2)
    return found


def frechet_pairs(x_NR: np.ndarray, a_BN: np.ndarray, b_BN: np.ndarray, n_features: int) -> np.ndarray:
    """(B,) `frechet_distance` of pairs of samples; the columns are principal components, largest first."""
    p_Nk = x_NR[:, :MAX_FRECHET_DIMENSIONS]
    found = np.empty(len(a_BN))
    for draw, (a_N, b_N) in enumerate(zip(a_BN, b_BN, strict=True)):
        (mean_a, cov_a), (mean_b, cov_b) = _mean_and_covariance(p_Nk, a_N), _mean_and_covariance(p_Nk, b_N)
        power, v = np.linalg.eigh(cov_a)
        root_a = v * np.sqrt(np.maximum(power, 0)) @ v.T
        shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root_a @ cov_b @ root_a), 0)).sum()
        found[draw] = ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * shared
    return found / n_features


PAIR_DISTANCES: dict[str, PairDistance] = {
    "linear_mmd": linear_mmd_pairs,
    "kid": kid_pairs,
    "coral_distance": coral_pairs,
    "frechet_distance": frechet_pairs,
}


def _plain(pairs: PairDistance, source_SD: np.ndarray, target_TD: np.ndarray) -> float:
    check_features(source=source_SD, target=target_TD)
    x = np.concatenate(pooled_standard(source_SD, target_TD))
    is_target_1N = (np.arange(len(x)) >= len(source_SD)).astype(float)[None]
    shown = rotated(x) if pairs is frechet_pairs else x
    return float(pairs(shown, 1 - is_target_1N, is_target_1N, x.shape[1])[0])


def _blocks(n_images: int) -> list[slice]:
    return [slice(start, start + N_BLOCK) for start in range(0, n_images, N_BLOCK)]


def _mean_and_covariance(p_Nk: np.ndarray, weight_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    seen = weight_N > 0
    p, weight = p_Nk[seen], weight_N[seen]
    mean_k = weight @ p / weight.sum()
    centred = p - mean_k
    return mean_k, (centred * weight[:, None]).T @ centred / (weight.sum() - 1)
