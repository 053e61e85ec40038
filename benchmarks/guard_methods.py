"""Adaptation methods on frozen features, good and bad ones on purpose: the guard's simulation needs both.

Axes: S source images, U unlabelled target images, N images, D features, C classes, M methods.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

INVERSE_L2 = 0.01
N_DIRECTIONS = 30

Way = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Cell:
    """One source and target, features standardised by the source; `seen` is what the methods predict."""

    source_SD: np.ndarray
    y_S: np.ndarray
    adapt_UD: np.ndarray
    seen: dict[str, np.ndarray]  # source_val and images of the target


def unchanged(cell: Cell) -> tuple[Way, Way]:
    return _as_it_is, _as_it_is


def standardised(cell: Cell) -> tuple[Way, Way]:
    """The target with the source's mean and deviation in each feature."""
    (own_mean, own), (its_mean, its) = _moments(cell.source_SD), _moments(cell.adapt_UD)
    return _as_it_is, lambda x: (x - its_mean) / its * own + own_mean


def coral(cell: Cell) -> tuple[Way, Way]:
    """The source whitened and recoloured as the target (Sun et al. 2016), covariances shrunk by a tenth."""
    turn = _power(cell.source_SD, -0.5, 0.1) @ _power(cell.adapt_UD, 0.5, 0.1)
    own_mean, its_mean = cell.source_SD.mean(0), cell.adapt_UD.mean(0)
    return lambda x: (x - own_mean) @ turn + its_mean, _as_it_is


def whitened(cell: Cell) -> tuple[Way, Way]:
    """Both whitened all but without shrinkage: directions of noise count as much as others."""
    own, its = _power(cell.source_SD, -0.5, 0.001), _power(cell.adapt_UD, -0.5, 0.001)
    own_mean, its_mean = cell.source_SD.mean(0), cell.adapt_UD.mean(0)
    return lambda x: (x - own_mean) @ own, lambda x: (x - its_mean) @ its


def subspace(cell: Cell) -> tuple[Way, Way]:
    """The source's leading directions turned into the target's (Fernando et al. 2013)."""
    own_mean, its_mean = cell.source_SD.mean(0), cell.adapt_UD.mean(0)
    own = np.linalg.svd(cell.source_SD - own_mean, full_matrices=False)[2][:N_DIRECTIONS].T
    its = np.linalg.svd(cell.adapt_UD - its_mean, full_matrices=False)[2][:N_DIRECTIONS].T
    return lambda x: (x - own_mean) @ own @ own.T @ its, lambda x: (x - its_mean) @ its


def plain(source_SD: np.ndarray, y_S: np.ndarray, adapt_UD: np.ndarray) -> LogisticRegression:
    return _classifier(source_SD, y_S)


def pseudo(source_SD: np.ndarray, y_S: np.ndarray, adapt_UD: np.ndarray) -> LogisticRegression:
    """Three rounds: the surer half of the target joins the source with the labels it is guessed to have."""
    model = _classifier(source_SD, y_S)
    for _ in range(3):
        p_UC = model.predict_proba(adapt_UD)
        sure = p_UC.max(1) >= np.median(p_UC.max(1))
        guess = model.classes_[p_UC[sure].argmax(1)]
        model = _classifier(np.concatenate([source_SD, adapt_UD[sure]]), np.concatenate([y_S, guess]))
    return model


def balanced(source_SD: np.ndarray, y_S: np.ndarray, adapt_UD: np.ndarray) -> LogisticRegression:
    """Three rounds in which guesses are pressed into equal class shares: harmful where the shares are not equal."""
    model = _classifier(source_SD, y_S)
    for _ in range(3):
        p_UC = model.predict_proba(adapt_UD)
        for _ in range(20):
            p_UC = p_UC / p_UC.sum(0)
            p_UC = p_UC / p_UC.sum(1, keepdims=True)
        guess = model.classes_[p_UC.argmax(1)]
        model = _classifier(np.concatenate([source_SD, adapt_UD]), np.concatenate([y_S, guess]))
    return model


def target_alone(source_SD: np.ndarray, y_S: np.ndarray, adapt_UD: np.ndarray) -> LogisticRegression:
    """Five rounds on the target's guesses, the source forgotten: errors feed themselves."""
    model = _classifier(source_SD, y_S)
    for _ in range(5):
        guess = model.predict(adapt_UD)
        if len(np.unique(guess)) > 1:
            model = _classifier(adapt_UD, guess)
    return model


METHODS = {
    "source_only": (unchanged, plain),
    "standardised": (standardised, plain),
    "coral": (coral, plain),
    "whitened": (whitened, plain),
    "subspace": (subspace, plain),
    "pseudo": (unchanged, pseudo),
    "standardised_pseudo": (standardised, pseudo),
    "coral_pseudo": (coral, pseudo),
    "standardised_balanced": (standardised, balanced),
    "target_alone": (standardised, target_alone),
}


def predicted(cell: Cell, n_classes: int) -> dict[str, np.ndarray]:
    """(M, N, C) of each set of images; source images go the source's way."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in cell.seen}
    for align, learn in METHODS.values():
        source_way, target_way = align(cell)
        model = learn(source_way(cell.source_SD), cell.y_S, target_way(cell.adapt_UD))
        for name, x_ND in cell.seen.items():
            p_NC = np.zeros((len(x_ND), n_classes))
            p_NC[:, model.classes_] = model.predict_proba((source_way if name == "source_val" else target_way)(x_ND))
            found[name].append(p_NC)
    return {name: np.stack(parts) for name, parts in found.items()}


def _as_it_is(x_ND: np.ndarray) -> np.ndarray:
    return x_ND


def _moments(x_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x_ND.mean(0), x_ND.std(0) + 1e-6


def _power(x_ND: np.ndarray, exponent: float, share: float) -> np.ndarray:
    """(D, D) a power of the covariance, shrunk by `share` towards its mean variance."""
    cov = np.cov(x_ND.T)
    values, v = np.linalg.eigh((1 - share) * cov + share * np.eye(len(cov)) * np.trace(cov) / len(cov))
    return np.asarray(v * np.maximum(values, 1e-9) ** exponent @ v.T)


def _classifier(x_ND: np.ndarray, y_N: np.ndarray) -> LogisticRegression:
    return LogisticRegression(C=INVERSE_L2, max_iter=1000, tol=1e-3).fit(x_ND, y_N)
