"""A head for the target domain on features that nothing trains: all labelled rows together, then confident pseudo-labels.

Axes: S source rows, L labelled target rows, U unlabelled target rows, N rows, D features, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LogisticRegression

from tasks.core.head import class_rows, of_all_classes, set_head
from tasks.core.model import ImageModel

FLAT_SHARE = 1e-3  # of the mean spread, added to every feature's: one that hardly varies is not blown up


@dataclass(frozen=True)
class Labelled:
    """Rows with their class indices; domain_N: the source domain of each, None where they are of one."""

    x_ND: np.ndarray
    y_N: np.ndarray
    domain_N: np.ndarray | None = None


@dataclass(frozen=True)
class FrozenSettings:
    """How much each kind of row counts; a labelled target image counts as one."""

    n_classes: int
    l2_per_feature: float  # times D: the penalty on the squared weights, beside the mean loss
    source_per_class: float  # all source rows together count as so many target images of each class
    confidence: float  # an unlabelled image is used where its largest probability is above this
    pseudo_weight: float  # all unlabelled images together, were all used, per all labelled ones
    n_rounds: int


@dataclass(frozen=True)
class LinearHead:
    """Acts on raw target features: all scaling is folded in. Classes without any label get no probability."""

    weight_CD: np.ndarray
    bias_C: np.ndarray

    def probabilities(self, x_ND: np.ndarray) -> np.ndarray:
        """(N, C) float64."""
        found: np.ndarray = softmax(np.asarray(x_ND, np.float64) @ self.weight_CD.T + self.bias_C, axis=1)
        return found

    def set_on(self, model: ImageModel) -> None:
        """Changes the model's head in place, on its device."""
        set_head(model, self.weight_CD, self.bias_C)


@dataclass(frozen=True)
class Aligned:
    """All rows as the regression sees them; a raw target row x becomes (x - mean_D) / scale_D."""

    source_SD: np.ndarray
    labelled_LD: np.ndarray
    unlabelled_UD: np.ndarray
    mean_D: np.ndarray
    scale_D: np.ndarray


def fit_adapted_head(
    source: Labelled | None,
    target_labelled: Labelled | None,
    unlabelled_UD: np.ndarray,
    how: str,
    settings: FrozenSettings,
) -> LinearHead:
    """A logistic regression on the source, aligned as `how` says, and the labelled target; then rounds of pseudo-labels.

    how: none (one scaling for all) | standardise (each domain by its own statistics) | coral (Sun et al. 2016, algorithm 1).
    Each round relabels the unlabelled images by the head of the round before and refits on the confident ones too.
    Nothing is random. ValueError where rows don't fit each other or there is too little to learn from.
    """
    source = source or Labelled(unlabelled_UD[:0], np.zeros(0, int))
    target = target_labelled or Labelled(unlabelled_UD[:0], np.zeros(0, int))
    _check(source, target, unlabelled_UD, how, settings)
    rows = ALIGNMENTS[how](source, target, unlabelled_UD)
    n_source, n_target = len(source.y_N), len(target.y_N)
    source_worth = min(float(n_source), settings.source_per_class * settings.n_classes)
    worth_N = np.concatenate([np.full(n_source, source_worth / max(n_source, 1)), np.ones(n_target)])
    x_ND = np.concatenate([rows.source_SD, rows.labelled_LD])
    y_N = np.concatenate([source.y_N, target.y_N])
    head = _fit(x_ND, y_N, worth_N, settings)
    each = settings.pseudo_weight * worth_N.sum() / max(len(unlabelled_UD), 1)
    for _ in range(settings.n_rounds if len(unlabelled_UD) and each > 0 else 0):
        probability_UC = head.probabilities(rows.unlabelled_UD)
        sure_U = probability_UC.max(1) > settings.confidence
        x_with = np.concatenate([x_ND, rows.unlabelled_UD[sure_U]])
        y_with = np.concatenate([y_N, probability_UC[sure_U].argmax(1)])
        head = _fit(x_with, y_with, np.concatenate([worth_N, np.full(sure_U.sum(), each)]), settings)
    return _folded(head, rows)


def as_target(source: Labelled, target_labelled: Labelled | None, unlabelled_UD: np.ndarray, how: str) -> np.ndarray:
    """(S, D) source rows as a head for raw target rows must be shown them: aligned as in training, by their own statistics.

    Shown as they are, they would meet the target's scaling, and a head that learnt from them would seem to have forgotten them.
    """
    target = target_labelled or Labelled(unlabelled_UD[:0], np.zeros(0, int))
    rows = ALIGNMENTS[how](source, target, unlabelled_UD)
    return np.asarray(rows.source_SD * rows.scale_D + rows.mean_D)


def _check(source: Labelled, target: Labelled, unlabelled_UD: np.ndarray, how: str, settings: FrozenSettings) -> None:
    problems = [] if how in ALIGNMENTS else [f"adaptation {how!r} is unknown; allowed are {', '.join(ALIGNMENTS)}"]
    problems += _misfits({"source": source.x_ND, "labelled target": target.x_ND, "unlabelled target": unlabelled_UD})
    for kind, rows in {"source": source, "labelled target": target}.items():
        n_rows, n_labels = len(rows.x_ND), len(rows.y_N)
        if n_rows != n_labels:
            problems.append(f"{kind} has {n_rows} rows of features and {n_labels} labels; give one for each")
    known = np.unique(np.concatenate([source.y_N, target.y_N]))
    if len(known) < 2:
        problems.append(f"the labels hold {len(known)} class(es), at least 2 are needed; label images of another class")
    elif known[0] < 0 or known[-1] >= settings.n_classes:
        allowed = f"0 to {settings.n_classes - 1}"
        problems.append(f"labels run from {known[0]} to {known[-1]}, allowed are {allowed}; mend them")
    if how != "none" and len(source.y_N):
        sizes = {"the target": len(target.x_ND) + len(unlabelled_UD), "a source domain": _smallest_domain(source)}
        few = [f"{what} has {n}" for what, n in sizes.items() if n < 2]
        if few:
            problems.append(f"{how} needs at least 2 images of each domain, {', '.join(few)}; use none or add images")
    if problems:
        raise ValueError("; ".join(problems))


def _misfits(kinds: dict[str, np.ndarray]) -> list[str]:
    problems = [f"{kind} features hold NaN or infinity; extract them anew" for kind in kinds if _is_broken(kinds[kind])]
    if len({x_ND.shape[1] for x_ND in kinds.values()}) > 1:
        sizes = ", ".join(f"{kind} {x_ND.shape[1]}" for kind, x_ND in kinds.items())
        problems.append(f"the domains have different numbers of features ({sizes}); extract them with one network")
    return problems


def _is_broken(x_ND: np.ndarray) -> bool:
    return not np.isfinite(x_ND).all()


def _smallest_domain(source: Labelled) -> int:
    domain_S = _domains(source)
    return int(np.unique(domain_S, return_counts=True)[1].min())


def _domains(source: Labelled) -> np.ndarray:
    return np.zeros(len(source.x_ND), int) if source.domain_N is None else np.asarray(source.domain_N)


def _one_scaling(source: Labelled, target: Labelled, unlabelled_UD: np.ndarray) -> Aligned:
    """Every row by the statistics of the labelled ones."""
    mean_D, scale_D = _statistics(np.concatenate([source.x_ND, target.x_ND]))
    source_SD, labelled_LD = _scaled(source.x_ND, mean_D, scale_D), _scaled(target.x_ND, mean_D, scale_D)
    return Aligned(source_SD, labelled_LD, _scaled(unlabelled_UD, mean_D, scale_D), mean_D, scale_D)


def _each_by_its_own(source: Labelled, target: Labelled, unlabelled_UD: np.ndarray) -> Aligned:
    """Every source domain by its statistics, the target by those of all its images."""
    return _onto_target(source, target, unlabelled_UD, _standardised)


def _recoloured(source: Labelled, target: Labelled, unlabelled_UD: np.ndarray) -> Aligned:
    """Every source domain is whitened and given the target's covariance: x C_s^-1/2 C_t^1/2 of standardised x.

    Both covariances are shrunk by Ledoit and Wolf's share, where the paper adds the identity: its size means nothing here.
    """
    colour_DD = _power(_standardised(np.concatenate([target.x_ND, unlabelled_UD])), 0.5)

    def recolour(x_ND: np.ndarray) -> np.ndarray:
        white_ND = _standardised(x_ND)
        found: np.ndarray = white_ND @ (_power(white_ND, -0.5) @ colour_DD)
        return found.astype(np.float32)

    return _onto_target(source, target, unlabelled_UD, recolour)


# (source, labelled target, unlabelled target) → all of them aligned
ALIGNMENTS: dict[str, Callable[[Labelled, Labelled, np.ndarray], Aligned]] = {
    "none": _one_scaling,
    "standardise": _each_by_its_own,
    "coral": _recoloured,
}


def _onto_target(
    source: Labelled, target: Labelled, unlabelled_UD: np.ndarray, move: Callable[[np.ndarray], np.ndarray]
) -> Aligned:
    """The target by the statistics of all its images, the rows of each source domain moved on their own."""
    mean_D, scale_D = _statistics(np.concatenate([target.x_ND, unlabelled_UD]))
    source_SD = np.zeros(source.x_ND.shape, np.float32)
    domain_S = _domains(source)
    for domain in np.unique(domain_S):
        source_SD[domain_S == domain] = move(source.x_ND[domain_S == domain])
    labelled_LD = _scaled(target.x_ND, mean_D, scale_D)
    return Aligned(source_SD, labelled_LD, _scaled(unlabelled_UD, mean_D, scale_D), mean_D, scale_D)


def _statistics(x_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and spread of each feature; a spread of 1 where nothing varies."""
    x_ND = np.asarray(x_ND, np.float64)
    spread_D = x_ND.std(0)
    return x_ND.mean(0), spread_D + FLAT_SHARE * spread_D.mean() if spread_D.any() else np.ones_like(spread_D)


def _standardised(x_ND: np.ndarray) -> np.ndarray:
    return _scaled(x_ND, *_statistics(x_ND))


def _scaled(x_ND: np.ndarray, mean_D: np.ndarray, scale_D: np.ndarray) -> np.ndarray:
    return ((x_ND - mean_D) / scale_D).astype(np.float32)


def _power(x_ND: np.ndarray, exponent: float) -> np.ndarray:
    """(D, D): the power of the rows' shrunk covariance."""
    covariance_DD, _ = ledoit_wolf(np.asarray(x_ND, np.float64))
    values_D, vectors_DD = np.linalg.eigh(covariance_DD)
    found: np.ndarray = (vectors_DD * np.maximum(values_D, np.finfo(float).eps) ** exponent) @ vectors_DD.T
    return found


def _fit(x_ND: np.ndarray, y_N: np.ndarray, worth_N: np.ndarray, settings: FrozenSettings) -> LinearHead:
    """The minimum of the mean loss, weighted by worth, + l2/2 * |W|², l2 = l2_per_feature * D. Bias is not penalised."""
    classes = np.unique(y_N)
    inverse_l2 = 1 / (settings.l2_per_feature * x_ND.shape[1] * worth_N.sum())
    probe = LogisticRegression(C=inverse_l2, max_iter=1000).fit(x_ND, y_N, worth_N)
    weight, bias = (np.asarray(rows, np.float64) for rows in class_rows(probe))
    return LinearHead(*of_all_classes(weight, bias, classes, x_ND, settings.n_classes))


def _folded(head: LinearHead, rows: Aligned) -> LinearHead:
    weight_CD = head.weight_CD / rows.scale_D
    return LinearHead(weight_CD, head.bias_C - weight_CD @ rows.mean_D)
