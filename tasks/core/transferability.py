"""How well frozen features fit the target's labels: scores that need labels, but no training of the network.

Axes: N images, D features, C classes, k rank. Labels are integers; classes that don't occur play no part.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.preprocessing import StandardScaler

RANK_TOLERANCE = 1e-10  # singular values below this share of the largest are numerical noise
GRAM_TOLERANCE = 1e-12
DEAD = np.finfo(float).tiny  # features without any variation have rank 0: evidence of the noise alone, H-score 0
N_FOLDS = 5
LOG_RATIO_REACH, N_GRID, N_ZOOMS = 30.0, 33, 6  # log(alpha/beta) around the mean power, to 30/16^6 = 2e-6


@dataclass(frozen=True)
class Spectrum:
    """Centred features as a thin SVD: u (N, k), s (k,), and the number of columns D they came from."""

    u_Nk: np.ndarray
    s_k: np.ndarray
    n_features: int


def spectrum(x_ND: np.ndarray, n_features: int | None = None) -> Spectrum:
    centred = np.asarray(x_ND, dtype=np.float64)
    centred = centred - centred.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    kept = s > max(RANK_TOLERANCE * s[0], DEAD)
    return Spectrum(u[:, kept], s[kept], n_features or centred.shape[1])


def spectrum_of_gram(gram_NN: np.ndarray, n_features: int) -> Spectrum:
    """The same from inner products of the rows, centred here: cheaper, but blind to s below 1e-6 of the largest.

    Good enough for the spread of bootstrap draws; point values come from `spectrum`.
    """
    row_mean = gram_NN.mean(0)
    centred = gram_NN - row_mean - row_mean[:, None] + row_mean.mean()
    power, u = np.linalg.eigh(centred)
    kept = power > max(GRAM_TOLERANCE * power[-1], DEAD)
    return Spectrum(u[:, kept], np.sqrt(power[kept]), n_features)


def rotated(x_ND: np.ndarray) -> np.ndarray:
    """(N, min(N, D)): the same points in fewer columns, all inner products of centred rows kept."""
    parts = spectrum(x_ND)
    return parts.u_Nk * parts.s_k if len(parts.s_k) else np.zeros((len(x_ND), 1))


def logme(x_ND: np.ndarray, y_N: np.ndarray) -> float:
    """Mean over classes of the maximal log evidence per image of a Bayesian linear model on one-hot labels.

    You et al. 2021, "LogME", with k = rank in place of D: the D - k null directions cancel in the exact evidence, so
    the published code's D is wrong for N < D. Features are centred (ours). Unbounded and unitless: compare, don't read.
    """
    return logme_of(spectrum(x_ND), y_N)


def logme_of(parts: Spectrum, y_N: np.ndarray) -> float:
    """LogME of features given as their spectrum.

    Per class, the maximum over t = alpha/beta of the evidence with beta solved in closed form:
    (1/2N) [k ln t - sum ln(t + s²) + N ln(N/E) - N - N ln 2π],  E(t) = sum z² t/(t + s²) + |y|² - |z|²,  z = Uᵀy
    """
    y_NC = (y_N[:, None] == np.unique(y_N)).astype(float)
    power_k = parts.s_k**2
    z2_Ck = ((parts.u_Nk.T @ y_NC) ** 2).T
    rest_C = np.maximum((y_NC**2).sum(0) - z2_Ck.sum(1), 0)
    mean_power = power_k.mean() if len(power_k) else 1.0
    centre_C, reach, best_C = np.full(len(rest_C), np.log(mean_power)), LOG_RATIO_REACH, rest_C
    for _ in range(N_ZOOMS):
        log_t_CT = centre_C[:, None] + np.linspace(-reach, reach, N_GRID)
        evidence_CT = _evidence(log_t_CT, power_k, z2_Ck, rest_C, len(y_N))
        peak_C = evidence_CT.argmax(1)
        centre_C, best_C = (np.take_along_axis(table, peak_C[:, None], 1)[:, 0] for table in (log_t_CT, evidence_CT))
        reach *= 2 / (N_GRID - 1)
    return float(best_C.mean())


def _evidence(
    log_t_CT: np.ndarray, power_k: np.ndarray, z2_Ck: np.ndarray, rest_C: np.ndarray, n_images: int
) -> np.ndarray:
    t_CTk = np.exp(log_t_CT)[:, :, None]
    error_CT = np.einsum("ck,ctk->ct", z2_Ck, t_CTk / (t_CTk + power_k)) + rest_C[:, None]
    log_det_CT = len(power_k) * log_t_CT - np.log(t_CTk + power_k).sum(2)
    fit_CT = n_images * (np.log(n_images / error_CT) - 1 - np.log(2 * np.pi))
    evidence_CT: np.ndarray = (log_det_CT + fit_CT) / (2 * n_images)
    return evidence_CT


def h_score(x_ND: np.ndarray, y_N: np.ndarray) -> float:
    """Shrinkage H-score divided by C - 1, so 0..1: between-class over total variance in whitened feature space.

    Bao et al. 2019; Ledoit-Wolf shrinkage after Ibrahim et al. 2021 (arXiv 2110.06893): without it, N < D saturates.
    """
    return h_score_of(spectrum(x_ND), y_N, shrinkage(x_ND))


def shrinkage(x_ND: np.ndarray) -> float:
    """Ledoit-Wolf's weight of the scaled identity, 0..1."""
    return float(ledoit_wolf_shrinkage(np.asarray(x_ND, dtype=np.float64)))


def h_score_of(parts: Spectrum, y_N: np.ndarray, alpha: float) -> float:
    classes = np.unique(y_N)
    variances_k = parts.s_k**2 / len(y_N)
    shrunk_k = (1 - alpha) * variances_k + alpha * variances_k.sum() / parts.n_features
    total = 0.0
    for c in classes:
        members = y_N == c
        mean_k = parts.s_k * parts.u_Nk[members].mean(0)
        total += members.mean() * float((mean_k**2 / shrunk_k).sum())
    return (1 - alpha) * total / (len(classes) - 1)


def knn_score(x_ND: np.ndarray, y_N: np.ndarray, n_neighbors: int) -> float:
    """Balanced accuracy of the leave-one-out nearest-neighbour vote, 0..1."""
    return balanced(knn_correct(x_ND, y_N, n_neighbors), y_N)


def knn_correct(x_ND: np.ndarray, y_N: np.ndarray, n_neighbors: int) -> np.ndarray:
    """(N,) bool: is the vote of the k most cosine-similar other images right? Each votes with exp(cos / 0.07)."""
    x = np.asarray(x_ND, dtype=np.float64)
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(float).tiny)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    k = min(n_neighbors, len(x) - 1)
    nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    weight = np.exp((np.take_along_axis(cosine, nearest, 1) - 1) / 0.07)
    classes = np.unique(y_N)
    votes = np.stack([(weight * (y_N[nearest] == c)).sum(1) for c in classes], axis=1)
    return classes[votes.argmax(1)] == y_N


def linear_probe_score(x_ND: np.ndarray, y_N: np.ndarray, inverse_l2: float) -> float:
    """Balanced accuracy of a cross-validated logistic regression on standardised features, 0..1."""
    return balanced(linear_probe_correct(x_ND, y_N, inverse_l2), y_N)


def linear_probe_correct(x_ND: np.ndarray, y_N: np.ndarray, inverse_l2: float) -> np.ndarray:
    """(N,) bool: is each image right when its fold was left out? At most 5 folds, at least one image per class each."""
    n_folds = min(N_FOLDS, int(np.unique(y_N, return_counts=True)[1].min()))
    if n_folds < 2:
        raise ValueError("a cross-validated probe needs at least two labelled images of every class")
    probe = LogisticRegression(C=inverse_l2, max_iter=1000)
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=0)
    # an L2-penalised probe sees inner products only, so the rotation changes nothing but the time it takes
    x = rotated(StandardScaler().fit_transform(x_ND))
    return np.asarray(cross_val_predict(probe, x, y_N, cv=folds) == y_N)


def balanced(correct_N: np.ndarray, y_N: np.ndarray) -> float:
    """Mean over classes of the share that is right."""
    return float(np.mean([correct_N[y_N == c].mean() for c in np.unique(y_N)]))
