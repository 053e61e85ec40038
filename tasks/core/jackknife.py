"""LogME and H-score without each image, or each whole group of images: how much of a score hangs on which of them.

Refits on bootstrap draws mislead here: copies of an image share its label, so noise looks like a signal, and a draw's
rank is .63 N. What is left out has no copies. Measured with N = 35 and 140 PACS labels against the spread over fresh
draws of the labels, as a ratio of deviations: refits LogME 1.2 to 6.3, H-score .24 to .67; this LogME 1.0 to 1.9,
H-score .7 to 1.1.

Axes: N images, G groups, g images of one group, D features, C classes, k rank, B bootstrap draws.
"""

from dataclasses import dataclass

import numpy as np

from tasks.core.feature_space import Spectrum
from tasks.core.transferability import evidence_peak, moments, one_hot

SMALLEST_RIDGE = 1e-12  # share of the largest power: directions that a group takes with it don't count


@dataclass(frozen=True)
class Whole:
    """What all images have in common: centred components, their power, class sums and sizes, LogME's alpha/beta."""

    p_Nk: np.ndarray
    power_k: np.ndarray
    y_NC: np.ndarray
    sum_Ck: np.ndarray
    ratio_C: np.ndarray
    pull_k: np.ndarray  # sum of |x|² x
    fourth: float  # sum of |x|⁴
    n_features: int


@dataclass(frozen=True)
class Rest:
    """What is left without a group: its scatter is the whole's less uᵀu; its mean; class sums about that mean; sizes."""

    u_gk: np.ndarray  # the group's images, and √n times the mean of the n that are left
    mean_k: np.ndarray
    sum_Ck: np.ndarray
    size_C: np.ndarray


def left_out(parts: Spectrum, y_N: np.ndarray, codes_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(G,) LogME and (G,) H-score without each group 0..G-1, of which there are two or more.

    H-score is exact, its shrinkage estimated anew; LogME keeps the whole's alpha/beta, at which its slope is 0.
    A class that leaves with a group plays no part; H-score is 0 where only one is left.
    """
    whole = _whole(parts, y_N)
    rests = (_rest(whole, np.flatnonzero(codes_N == group)) for group in range(int(codes_N.max()) + 1))
    logme_G, h_score_G = np.array([(_logme(whole, rest), _h_score(whole, rest)) for rest in rests]).T
    return logme_G, h_score_G


def drawn(value: float, without_G: np.ndarray, counts_BG: np.ndarray) -> np.ndarray:
    """(B,) a score's bootstrap draws to first order: each further copy of a group adds what its absence takes away."""
    draws: np.ndarray = value + (counts_BG - 1) @ (value - without_G)
    return draws


def _whole(parts: Spectrum, y_N: np.ndarray) -> Whole:
    p_Nk, y_NC = parts.u_Nk * parts.s_k, one_hot(y_N)
    ratio_C, square_N = np.exp(evidence_peak(moments(parts, y_N))[0]), (p_Nk**2).sum(1)
    fourth = float((square_N**2).sum())
    return Whole(p_Nk, parts.s_k**2, y_NC, y_NC.T @ p_Nk, ratio_C, square_N @ p_Nk, fourth, parts.n_features)


def _rest(whole: Whole, rows: np.ndarray) -> Rest:
    x_gk, n_left = whole.p_Nk[rows], len(whole.p_Nk) - len(rows)
    mean_k = -x_gk.sum(0) / n_left
    size_C = whole.y_NC.sum(0) - whole.y_NC[rows].sum(0)
    sum_Ck = whole.sum_Ck - whole.y_NC[rows].T @ x_gk - np.outer(size_C, mean_k)
    return Rest(np.vstack([x_gk, np.sqrt(n_left) * mean_k]), mean_k, sum_Ck, size_C)


def _logme(whole: Whole, rest: Rest) -> float:
    """As `logme_of`, the determinant and the error with uᵀu taken away (Sylvester and Woodbury)."""
    present = rest.size_C > 0
    size_C, n_left, t_C1 = rest.size_C[present], rest.size_C.sum(), whole.ratio_C[present, None]
    inverse_Ck = 1 / (whole.power_k + t_C1)
    weighed_Cgk = rest.u_gk * inverse_Ck[:, None]
    kept_Cgg = np.eye(len(rest.u_gk)) - weighed_Cgk @ rest.u_gk.T
    seen_Cg1 = weighed_Cgk @ rest.sum_Ck[present, :, None]
    explained_C = (rest.sum_Ck[present] ** 2 * inverse_Ck).sum(1)
    explained_C += (seen_Cg1 * np.linalg.solve(kept_Cgg, seen_Cg1)).sum((1, 2))
    log_det_C = np.log(t_C1 * inverse_Ck).sum(1) - np.linalg.slogdet(kept_Cgg)[1]
    fit_C = n_left * (np.log(n_left / (size_C - explained_C)) - 1 - np.log(2 * np.pi))
    return float(((log_det_C + fit_C) / (2 * n_left)).mean())


def _h_score(whole: Whole, rest: Rest) -> float:
    total = float(whole.power_k.sum() - (rest.u_gk**2).sum())
    alpha, present = _shrinkage(whole, rest, total), rest.size_C > 0
    if alpha >= 1 or present.sum() < 2 or not len(whole.power_k):
        return 0.0
    ridge = max(alpha / (1 - alpha) * total / whole.n_features, SMALLEST_RIDGE * whole.power_k.max())
    weighed_gk = rest.u_gk / (whole.power_k + ridge)
    seen_gC = weighed_gk @ rest.sum_Ck.T
    kept_gg = np.eye(len(rest.u_gk)) - weighed_gk @ rest.u_gk.T
    between_C = (rest.sum_Ck**2 / (whole.power_k + ridge)).sum(1) + (seen_gC * np.linalg.solve(kept_gg, seen_gC)).sum(0)
    return float((between_C[present] / rest.size_C[present]).sum() / (present.sum() - 1))


def _shrinkage(whole: Whole, rest: Rest, total: float) -> float:
    """Ledoit-Wolf's weight for the n images that are left, from their total power and their fourth moment about the mean.

    sum |x - m|⁴ = sum |x|⁴ + 4 mᵀ(sum x xᵀ)m - 4 mᵀ(sum |x|² x) + 2 |m|² sum |x|² - 3 n |m|⁴,  sum x = n m
    """
    if whole.n_features == 1:
        return 0.0  # as scikit-learn has it
    x_gk, m_k, n_left = rest.u_gk[:-1], rest.mean_k, rest.size_C.sum()
    square_g, along_g, m2 = (x_gk**2).sum(1), x_gk @ m_k, m_k @ m_k
    fourth = whole.fourth - (square_g**2).sum() + 4 * (whole.power_k @ m_k**2 - (along_g**2).sum())
    fourth += 2 * m2 * (whole.power_k.sum() - square_g.sum()) - 3 * n_left * m2**2
    fourth -= 4 * (whole.pull_k @ m_k - square_g @ along_g)
    inner_gg = rest.u_gk @ rest.u_gk.T
    scatter2 = (whole.power_k**2).sum() - 2 * (rest.u_gk**2 @ whole.power_k).sum() + (inner_gg**2).sum()
    noise, spread = fourth - scatter2 / n_left, scatter2 - total**2 / whole.n_features
    return float(np.clip(noise / spread, 0, 1)) if noise > 0 and spread > 0 else 0.0
