"""How well frozen features fit the target's labels: scores that need labels, but no training of the network.

Axes: N images, D features, C classes, Z source classes, k rank, B bootstrap draws. Labels are integers; classes that
don't occur play no part. Each score works in float64 and holds at most five arrays of the size of the features.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.linear_model import LogisticRegression

from tasks.core.feature_space import (
    DEAD,
    Spectrum,
    check_features,
    check_labelled,
    rotated,
    spectrum,
    standardised,
)
from tasks.core.folds import folds, group_codes, out_of_fold

LOG_RATIO_REACH, N_GRID, N_ZOOMS = 30.0, 33, 6  # log(alpha/beta) around the mean power, to 30/16^6 = 2e-6
N_BLOCK = 256  # rows whose neighbours are sought at once
TEMPERATURE = 0.07  # of a neighbour's vote
SHARE_TOLERANCE = 1e-3  # half-precision softmax outputs add up to 1 within this


@dataclass(frozen=True)
class Moments:
    """All that LogME and H-score need: z = Uᵀ(one-hot labels) in the directions of the power s², and class sizes."""

    power_k: np.ndarray
    z_kC: np.ndarray
    size_C: np.ndarray
    n_features: int


def logme(x_ND: np.ndarray, y_N: np.ndarray) -> float:
    """Mean over classes of the maximal log evidence per image of a Bayesian linear model on one-hot labels.

    You et al. 2021, "LogME", with k = rank in place of D: the D - k null directions cancel in the exact evidence, so
    the published code's D is wrong for N < D. Features are centred (ours). Unbounded and unitless: compare, don't read.
    Rare classes weigh as much as common ones. ValueError for wrong shapes, gaps, or a single class.
    """
    check_labelled(x_ND, y_N)
    return logme_of(moments(spectrum(x_ND), y_N))


def h_score(x_ND: np.ndarray, y_N: np.ndarray) -> float:
    """Shrinkage H-score divided by C - 1, so 0..1: between-class over total variance in whitened feature space.

    Bao et al. 2019; Ledoit-Wolf shrinkage after Ibrahim et al. 2021 (arXiv 2110.06893): without it, N < D saturates.
    ValueError for wrong shapes, gaps, or a single class.
    """
    check_labelled(x_ND, y_N)
    return h_score_of(moments(spectrum(x_ND), y_N), shrinkage(x_ND))


def shrinkage(x_ND: np.ndarray) -> float:
    """Ledoit-Wolf's weight of the scaled identity, 0..1."""
    return float(ledoit_wolf_shrinkage(np.asarray(x_ND, dtype=np.float64)))


def one_hot(y_N: np.ndarray) -> np.ndarray:
    return (y_N[:, None] == np.unique(y_N)).astype(float)


def moments(parts: Spectrum, y_N: np.ndarray) -> Moments:
    y_NC = one_hot(y_N)
    return Moments(parts.s_k**2, parts.u_Nk.T @ y_NC, y_NC.sum(0), parts.n_features)


def logme_of(of: Moments) -> float:
    """LogME from moments: the mean over classes of their evidence at its peak."""
    return float(evidence_peak(of)[1].mean())


def evidence_peak(of: Moments) -> tuple[np.ndarray, np.ndarray]:
    """(C,) ln t and (C,) evidence where it is largest over t = alpha/beta, beta solved in closed form.

    (1/2N) [k ln t - sum ln(t + s²) + N ln(N/E) - N - N ln 2π],  E(t) = sum z² t/(t + s²) + |y|² - |z|²
    """
    z2_Ck = (of.z_kC**2).T
    rest_C = np.maximum(of.size_C - z2_Ck.sum(1), 0)
    mean_power = of.power_k.mean() if len(of.power_k) else 1.0
    centre_C, reach, best_C = np.full(len(rest_C), np.log(mean_power)), LOG_RATIO_REACH, rest_C
    for _ in range(N_ZOOMS):
        log_t_CT = centre_C[:, None] + np.linspace(-reach, reach, N_GRID)
        evidence_CT = _evidence(log_t_CT, of.power_k, z2_Ck, rest_C, of.size_C.sum())
        peak_C = evidence_CT.argmax(1)
        centre_C, best_C = (np.take_along_axis(table, peak_C[:, None], 1)[:, 0] for table in (log_t_CT, evidence_CT))
        reach *= 2 / (N_GRID - 1)
    return centre_C, best_C


def _evidence(
    log_t_CT: np.ndarray, power_k: np.ndarray, z2_Ck: np.ndarray, rest_C: np.ndarray, n_images: float
) -> np.ndarray:
    t_CTk = np.exp(log_t_CT)[:, :, None]
    error_CT = np.einsum("ck,ctk->ct", z2_Ck, t_CTk / (t_CTk + power_k)) + rest_C[:, None]
    log_det_CT = len(power_k) * log_t_CT - np.log(t_CTk + power_k).sum(2)
    fit_CT = n_images * (np.log(n_images / error_CT) - 1 - np.log(2 * np.pi))
    evidence_CT: np.ndarray = (log_det_CT + fit_CT) / (2 * n_images)
    return evidence_CT


def h_score_of(of: Moments, alpha: float) -> float:
    """H-score from moments: the mean of class c is s z/n_c in the directions whose shrunk variance is known."""
    n_images = of.size_C.sum()
    shrunk_k = ((1 - alpha) * of.power_k + alpha * of.power_k.sum() / of.n_features) / n_images
    between_k = of.power_k * (of.z_kC**2 / of.size_C).sum(1) / n_images
    return float((1 - alpha) * (between_k / shrunk_k).sum() / (len(of.size_C) - 1))


def leep(theta_NZ: np.ndarray, y_N: np.ndarray) -> float:
    """Mean log likelihood of the labels when guessed through the source classes, ≤ 0; no information: -H(labels).

    Nguyen et al. 2020, "LEEP": P(y|z) from the softmax outputs theta (N, Z) of the source head, then
    mean ln sum_z P(y_i|z) theta_iz. Source classes that get no probability play no part (elsewhere they give NaN).
    ValueError for wrong shapes, gaps, a single class, or rows that are not probabilities.
    """
    check_labelled(theta_NZ, y_N, "softmax outputs")
    theta = np.asarray(theta_NZ)
    wrong = (theta.min(1) < 0) | (np.abs(theta.sum(1, dtype=np.float64) - 1) > SHARE_TOLERANCE)
    if wrong.any():
        raise ValueError(f"{int(wrong.sum())} rows of the softmax outputs are not probabilities that add up to 1")
    return float(leep_drawn(theta, y_N, np.ones((1, len(y_N))))[0])


def leep_drawn(theta_NZ: np.ndarray, y_N: np.ndarray, counts_BN: np.ndarray) -> np.ndarray:
    """(B,) LEEP refitted on bootstrap draws; counts (B, N) say how often each image stands in one."""
    of_class = [(np.asarray(theta_NZ[y_N == c], dtype=np.float64), counts_BN[:, y_N == c]) for c in np.unique(y_N)]
    joint_CBZ = np.stack([counts_BN @ theta_NZ for theta_NZ, counts_BN in of_class])
    total_BZ = joint_CBZ.sum(0)
    sums_B = np.zeros(len(counts_BN))
    for joint_BZ, (theta, counts) in zip(joint_CBZ, of_class, strict=True):
        given_z_BZ = np.divide(joint_BZ, total_BZ, out=np.zeros_like(joint_BZ), where=total_BZ > 0)
        likelihood_Bn = given_z_BZ @ theta.T
        sums_B += (counts * np.log(likelihood_Bn, out=np.zeros_like(likelihood_Bn), where=counts > 0)).sum(1)
    drawn: np.ndarray = sums_B / counts_BN.sum(1)
    return drawn


def knn_score(x_ND: np.ndarray, y_N: np.ndarray, n_neighbors: int, groups_N: np.ndarray | None = None) -> float:
    """Balanced accuracy of the leave-one-out nearest-neighbour vote, 0..1. ValueError as `knn_correct`."""
    return balanced(knn_correct(x_ND, y_N, n_neighbors, groups_N), y_N)


def knn_correct(x_ND: np.ndarray, y_N: np.ndarray, n_neighbors: int, groups_N: np.ndarray | None = None) -> np.ndarray:
    """(N,) bool: is the vote of the k most cosine-similar images of other groups right? Each votes exp(cos / 0.07).

    Wu et al. 2018's weighted vote. Without groups only the image itself is left out; an image without any neighbour
    counts as wrong. ValueError for wrong shapes, gaps, a single class, or fewer than one neighbour.
    """
    check_labelled(x_ND, y_N)
    if n_neighbors < 1:
        raise ValueError(f"n_neighbors is {n_neighbors}, at least 1 is needed")
    x, codes = np.array(x_ND, dtype=np.float64), group_codes(groups_N, len(x_ND))
    x /= np.maximum(np.abs(x).max(1, keepdims=True), DEAD)  # else squares of tiny values vanish, of huge ones overflow
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), DEAD)
    classes, correct = np.unique(y_N), np.zeros(len(x), dtype=bool)
    k = min(n_neighbors, len(x) - 1)
    for start in range(0, len(x), N_BLOCK):
        rows = slice(start, start + N_BLOCK)
        cosine = x[rows] @ x.T
        cosine[codes[rows, None] == codes] = -np.inf
        nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
        weight = np.exp((np.take_along_axis(cosine, nearest, 1) - 1) / TEMPERATURE)
        votes = np.stack([(weight * (y_N[nearest] == c)).sum(1) for c in classes], axis=1)
        correct[rows] = (classes[votes.argmax(1)] == y_N[rows]) & (votes.max(1) > 0)
    return correct


def linear_probe_score(
    x_ND: np.ndarray, y_N: np.ndarray, inverse_l2: float, groups_N: np.ndarray | None = None
) -> float:
    """Balanced accuracy of a cross-validated logistic regression, 0..1. ValueError as `linear_probe_correct`."""
    return balanced(linear_probe_correct(x_ND, y_N, inverse_l2, groups_N), y_N)


def linear_probe_correct(
    x_ND: np.ndarray, y_N: np.ndarray, inverse_l2: float, groups_N: np.ndarray | None = None
) -> np.ndarray:
    """(N,) bool: is each image right when its fold was left out? Logistic regression on standardised features.

    Folds keep groups whole; how many there are, and what becomes of a class that one fold swallows: `out_of_fold`.
    ValueError for wrong shapes, gaps, one class, a class with one image, or one group.
    """
    check_labelled(x_ND, y_N)
    x = standardised(x_ND)
    if len(x) < x.shape[1]:
        x = rotated(x)  # an L2-penalised probe sees inner products only: nothing changes but the time it takes
    return np.asarray(out_of_fold(LogisticRegression(C=inverse_l2, max_iter=1000), x, y_N, groups_N) == y_N)


def transfer_probe_score(
    source_SD: np.ndarray,
    y_S: np.ndarray,
    x_ND: np.ndarray,
    y_N: np.ndarray,
    inverse_l2: float,
    groups_N: np.ndarray | None = None,
) -> float:
    """Balanced accuracy on the target of a probe that learns from both domains, 0..1: see `transfer_probe_correct`."""
    return balanced(transfer_probe_correct(source_SD, y_S, x_ND, y_N, inverse_l2, groups_N), y_N)


def transfer_probe_correct(
    source_SD: np.ndarray,
    y_S: np.ndarray,
    x_ND: np.ndarray,
    y_N: np.ndarray,
    inverse_l2: float,
    groups_N: np.ndarray | None = None,
) -> np.ndarray:
    """(N,) bool: is each target image right when its fold was left out? Fitted on the source and the target's other folds.

    Logistic regression on features that are standardised over both domains, each of which weighs as much as the other:
    the source knows the classes where a few target labels don't. Source images of other classes play no part.
    ValueError as `linear_probe_correct`, or where a class has no source image.
    """
    check_features(source=source_SD, target=x_ND)
    check_labelled(x_ND, y_N)
    if len(lacking := np.setdiff1d(y_N, y_S)):
        raise ValueError(
            f"{len(lacking)} classes have no source image, the first: {lacking[0]}; leave their images out"
        )
    is_used_S = np.isin(y_S, y_N)
    x, y = standardised(np.concatenate([source_SD[is_used_S], x_ND])), np.concatenate([y_S[is_used_S], y_N])
    if len(x) < x.shape[1]:
        x = rotated(x)
    n_source, guessed_N = int(is_used_S.sum()), np.empty_like(y_N)
    for fit, left_out in folds(y_N, groups_N):
        rows = np.concatenate([np.arange(n_source), n_source + fit])
        weight = np.repeat([len(rows) / 2 / n_source, len(rows) / 2 / len(fit)], [n_source, len(fit)])
        probe = LogisticRegression(C=inverse_l2, max_iter=1000).fit(x[rows], y[rows], weight)
        guessed_N[left_out] = probe.predict(x[n_source + left_out])
    return np.asarray(guessed_N == y_N)


def balanced(correct_N: np.ndarray, y_N: np.ndarray) -> float:
    """Mean over classes of the share that is right."""
    return float(np.mean([correct_N[y_N == c].mean() for c in np.unique(y_N)]))


def balanced_drawn(correct_N: np.ndarray, y_N: np.ndarray, counts_BN: np.ndarray) -> np.ndarray:
    """(B,) the same for bootstrap draws of the images; classes that are absent from a draw play no part in it."""
    y_NC = one_hot(y_N)
    size_BC, right_BC = counts_BN @ y_NC, counts_BN @ (y_NC * correct_N[:, None])
    share_BC = np.divide(right_BC, size_BC, out=np.zeros_like(right_BC), where=size_BC > 0)
    drawn: np.ndarray = share_BC.sum(1) / (size_BC > 0).sum(1)
    return drawn
