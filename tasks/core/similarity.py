"""How far the target lies from the source in one network's features: distances that need no labels.

Axes: S source images, T target images, D features. Each distance is read beside its null: source against source.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

N_FOLDS = 5
PROBE_INVERSE_L2 = 0.01


def pooled_standard(source_SD: np.ndarray, target_TD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both, standardised by the mean and deviation of the two together; constant features become 0."""
    both = np.concatenate([source_SD, target_TD]).astype(np.float64)
    deviation = both.std(0)
    deviation[deviation == 0] = 1
    return (source_SD - both.mean(0)) / deviation, (target_TD - both.mean(0)) / deviation


def proxy_a_distance(source_SD: np.ndarray, target_TD: np.ndarray) -> float:
    """2 (1 - 2 err), clipped to 0..2; err is cross-validated and balanced (Ben-David et al. 2007). 0 = can't be told apart."""
    wrong, is_target = domain_errors(source_SD, target_TD)
    return proxy_a(wrong, is_target)


def domain_errors(source_SD: np.ndarray, target_TD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(S+T,) bool: is the domain of each image guessed wrong when its fold was left out?; and which are target."""
    x = np.concatenate([source_SD, target_TD])
    is_target = np.arange(len(x)) >= len(source_SD)
    probe = make_pipeline(
        StandardScaler(), LogisticRegression(C=PROBE_INVERSE_L2, tol=1e-3, max_iter=1000, class_weight="balanced")
    )
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=0)
    return np.asarray(cross_val_predict(probe, x, is_target, cv=folds) != is_target), is_target


def proxy_a(wrong: np.ndarray, is_target: np.ndarray) -> float:
    error = (wrong[is_target].mean() + wrong[~is_target].mean()) / 2
    return float(np.clip(2 * (1 - 2 * error), 0, 2))


def linear_mmd(source_SD: np.ndarray, target_TD: np.ndarray) -> float:
    """Unbiased squared distance of the means, per feature: (|μs - μt|² - tr Cs/S - tr Ct/T) / D.

    Gretton et al. 2012 with a linear kernel. Features standardised together; may be slightly negative at true 0.
    """
    both, ones = np.concatenate(pooled_standard(source_SD, target_TD)), np.ones((1, len(source_SD) + len(target_TD)))
    return float(linear_mmd_weighted(both, np.arange(len(both)) >= len(source_SD), ones)[0])


def linear_mmd_weighted(x_ND: np.ndarray, is_target: np.ndarray, counts_BN: np.ndarray) -> np.ndarray:
    """(B,) linear MMD of B resamples; counts (B, N) say how often each of the standardised images stands in one."""
    gap_BD, noise_B = np.zeros((len(counts_BN), x_ND.shape[1])), np.zeros(len(counts_BN))
    for sign, members in [(1, ~is_target), (-1, is_target)]:
        x, share = x_ND[members], counts_BN[:, members] / members.sum()
        mean_BD = share @ x
        n = int(members.sum())
        noise_B += ((share @ x**2).sum(1) - (mean_BD**2).sum(1)) / (n - 1)
        gap_BD += sign * mean_BD
    unbiased: np.ndarray = ((gap_BD**2).sum(1) - noise_B) / x_ND.shape[1]
    return unbiased
