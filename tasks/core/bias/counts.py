"""Metrics as sums over images: each metric sorts the images into strata and gives each image a number.

A share (accuracy, recall, …) has one stratum, the images that it is taken over, and the number 1 or 0. Balanced accuracy and
the worst class have a stratum per true class. Calibration has two per bin of the highest probability, wrong and right images;
its number is right minus probability. Of a group only the sums per stratum are needed, so time and memory grow neither with
the replicates nor with C².

Axes: N images, G groups, C classes, S strata.
"""

from dataclasses import dataclass

import numpy as np

from tasks.core.bias.table import AuditTable, grouping_of
from tasks.core.metrics import N_CALIBRATION_BINS

SHARES = ("accuracy", "abstention")
CLASS_SHARES = (
    "recall", "precision", "false_positive_rate", "false_negative_rate", "selection_rate", "base_rate",
)  # fmt: skip
OTHERS = ("balanced_accuracy", "worst_class_recall", "calibration_error", "mean_confidence")
LOWER_IS_BETTER = ("false_positive_rate", "false_negative_rate", "calibration_error", "abstention")
NEITHER = ("selection_rate", "base_rate", "mean_confidence")
ON_PROBABILITIES = ("calibration_error", "mean_confidence", "abstention")
KINDS = {
    "balanced_accuracy": "balanced",
    "worst_class_recall": "worst",
    "calibration_error": "calibration",
    "mean_confidence": "mean",
}
N_CELLS = (
    2 * N_CALIBRATION_BINS
)  # wrong and right images of each bin; those of a cell differ by at most 1/15 in probability


@dataclass(frozen=True)
class Settings:
    """ask_below: the probability below which the model hands an image to a person, None where it never does."""

    confidence: float
    min_group_size: int
    n_bootstrap: int
    seed: int
    ask_below: float | None


@dataclass(frozen=True)
class Strata:
    """Each image's stratum (-1: the metric isn't taken over it) and number."""

    kind: str
    stratum_N: np.ndarray
    x_N: np.ndarray
    n_strata: int


@dataclass(frozen=True)
class Sums:
    """Images, the sum of their numbers and of the numbers' squares, per group and stratum."""

    n_GS: np.ndarray
    x_GS: np.ndarray
    xx_GS: np.ndarray


@dataclass(frozen=True)
class ClassCounts:
    """Images per group; images per group and class: rightly predicted, truly of it, predicted as it."""

    n_G: np.ndarray
    right_GC: np.ndarray
    true_GC: np.ndarray
    pred_GC: np.ndarray


def base_name(metric: str) -> str:
    """The metric without its class: "recall" of "recall:cat"."""
    return metric.split(":", 1)[0]


def point(table: AuditTable, column: str, metric: str, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """(value_G, n_G): NaN where not measured; n counts the images that the metric is taken over (recall: those of the class).

    ValueError: the table has no such column, or the metric has no such name.
    """
    grouping = grouping_of(table, column)
    strata = strata_of(table, metric, settings, table.y_pred_N)
    sums = sums_of(strata, grouping.codes_N, len(grouping.names))
    return values_of(strata.kind, sums.n_GS, sums.x_GS)


def strata_of(table: AuditTable, metric: str, settings: Settings, y_pred_N: np.ndarray) -> Strata:
    """The metric's strata under these predictions. ValueError: unknown metric."""
    name = base_name(metric)
    if not ((metric in SHARES + OTHERS) or (name in CLASS_SHARES and ":" in metric)):
        raise ValueError(
            f"metric {metric!r} isn't known; allowed are {', '.join(SHARES + OTHERS)}, and with :<class> after it "
            f"{', '.join(CLASS_SHARES)}"
        )
    kind = KINDS.get(name, "share")
    if name in ON_PROBABILITIES:
        return _on_probabilities(table, name, settings)
    right_N = table.y_true_N == y_pred_N
    if kind in ("balanced", "worst"):
        return Strata(kind, table.y_true_N, right_N.astype(float), len(table.classes))
    over_N, hit_N = (right_N | True, right_N) if name == "accuracy" else _one_against_rest(table, metric, y_pred_N)
    return Strata("share", np.where(over_N, 0, -1), hit_N.astype(float), 1)


def sums_of(strata: Strata, codes_N: np.ndarray, n_groups: int) -> Sums:
    """The sums per group and stratum."""
    inside = strata.stratum_N >= 0
    cell = codes_N[inside] * strata.n_strata + strata.stratum_N[inside]
    x, size, shape = strata.x_N[inside], n_groups * strata.n_strata, (n_groups, strata.n_strata)
    n_GS = np.bincount(cell, minlength=size).reshape(shape)
    return Sums(n_GS, *(np.bincount(cell, weights=w, minlength=size).reshape(shape) for w in (x, x * x)))


def values_of(kind: str, n_GS: np.ndarray, x_GS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(value_G, n_G) from the sums; NaN where n is 0.

    Balanced accuracy is the mean recall over the classes that the group has, as scikit-learn defines it.
    """
    n_G = n_GS.sum(1)
    with np.errstate(invalid="ignore"):
        if kind == "calibration":
            return np.abs(by_bin(x_GS)).sum(1) / n_G, n_G
        if kind in ("share", "mean", "gain"):
            return x_GS[:, 0] / n_G, n_G
        present = n_GS > 0
        mean_GS = x_GS / n_GS
    if kind == "worst":
        worst_G = np.where(present, mean_GS, np.inf).min(1, initial=np.inf)
        return np.where(n_G > 0, worst_G, np.nan), n_G
    with np.errstate(invalid="ignore"):
        return np.where(present, mean_GS, 0.0).sum(1) / present.sum(1), n_G


def by_bin(cells: np.ndarray) -> np.ndarray:
    """The last axis, wrong and right ones of each calibration bin in turn, summed by bin."""
    return cells[..., ::2] + cells[..., 1::2]


def class_counts(table: AuditTable, column: str) -> ClassCounts:
    """The counts from which every one-against-rest rate of every class follows."""
    grouping = grouping_of(table, column)
    n_groups, n_classes = len(grouping.names), len(table.classes)

    def tally(class_N: np.ndarray, inside: np.ndarray | slice) -> np.ndarray:
        cell = (grouping.codes_N * n_classes + class_N)[inside]
        return np.bincount(cell, minlength=n_groups * n_classes).reshape(n_groups, n_classes)

    every = slice(None)
    return ClassCounts(
        n_G=np.bincount(grouping.codes_N, minlength=n_groups),
        right_GC=tally(table.y_true_N, table.y_true_N == table.y_pred_N),
        true_GC=tally(table.y_true_N, every),
        pred_GC=tally(table.y_pred_N, every),
    )


def class_rates(counts: ClassCounts) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Per rate (recall, precision, …): (hits_GC, n_GC), each class against the rest."""
    n_GC = np.broadcast_to(counts.n_G[:, None], counts.true_GC.shape)
    return {
        "recall": (counts.right_GC, counts.true_GC),
        "precision": (counts.right_GC, counts.pred_GC),
        "false_positive_rate": (counts.pred_GC - counts.right_GC, n_GC - counts.true_GC),
        "false_negative_rate": (counts.true_GC - counts.right_GC, counts.true_GC),
        "selection_rate": (counts.pred_GC, n_GC),
        "base_rate": (counts.true_GC, n_GC),
    }


def _one_against_rest(table: AuditTable, metric: str, y_pred_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which images the rate is taken over and which of them are hits; none where the class isn't in the table."""
    name, label = metric.split(":", 1)
    if label not in table.classes:
        nobody = np.zeros(len(y_pred_N), bool)
        return nobody, nobody
    code = table.classes.index(label)
    true_N, pred_N = table.y_true_N == code, y_pred_N == code
    return {
        "recall": (true_N, pred_N),
        "precision": (pred_N, true_N),
        "false_positive_rate": (~true_N, pred_N),
        "false_negative_rate": (true_N, ~pred_N),
        "selection_rate": (true_N | True, pred_N),
        "base_rate": (true_N | True, true_N),
    }[name]


def _on_probabilities(table: AuditTable, name: str, settings: Settings) -> Strata:
    """Images without probabilities are left out; abstention is not measured without a threshold."""
    if table.probs_NC is None or (name == "abstention" and settings.ask_below is None):
        nobody = np.full(len(table.y_true_N), -1)
        return Strata(
            KINDS.get(name, "share"), nobody, np.zeros(len(nobody)), 1 if name != "calibration_error" else N_CELLS
        )
    sure_N = table.probs_NC.max(1, initial=-np.inf)  # NaN where any probability is missing
    known = np.isfinite(sure_N)
    sure_N = np.where(known, sure_N, 0.0)
    if name == "calibration_error":
        bin_N = np.minimum((sure_N * N_CALIBRATION_BINS).astype(int), N_CALIBRATION_BINS - 1)
        right_N = table.y_true_N == table.y_pred_N
        return Strata("calibration", np.where(known, 2 * bin_N + right_N, -1), right_N - sure_N, N_CELLS)
    x_N = (sure_N < settings.ask_below).astype(float) if name == "abstention" else sure_N
    return Strata(KINDS.get(name, "share"), np.where(known, 0, -1), x_N, 1)
