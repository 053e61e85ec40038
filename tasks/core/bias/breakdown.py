"""The audit's tables: a row per group, per group and class, and per group and baseline. NaN = not measured or masked.

Axes: G groups of a column, C classes.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from tasks.core.bias.asking import images_per_group
from tasks.core.bias.clusters import sampling_unit
from tasks.core.bias.counts import ClassCounts, Settings, class_counts, class_rates, point
from tasks.core.bias.estimates import Comparison, compare, own_intervals
from tasks.core.bias.score import quantile, score_interval
from tasks.core.bias.table import AuditTable, grouping_of

MAX_GROUPS_BY_CLASS = 200
RESAMPLED = ("balanced_accuracy", "calibration_error")  # minutes for thousands of groups
WITH_INTERVAL = ("accuracy", "balanced_accuracy", "worst_class_recall", "calibration_error")
RATES_WITH_INTERVAL = ("recall", "precision", "false_positive_rate", "selection_rate")
RATES = (*RATES_WITH_INTERVAL, "false_negative_rate", "base_rate")
CHANGES = [
    "baseline", "column", "group", "n", "is_masked", "accuracy", "baseline_accuracy", "change", "change_low", "change_high",
    "is_hidden_loss",
]  # fmt: skip


def by_group(table: AuditTable, settings: Settings) -> pd.DataFrame:
    """One row per column and group: n, share, own values, gap in accuracy to all others, change against each baseline.

    Groups under min_group_size keep n and share only (is_masked). Columns of more than 200 groups have no intervals of the
    metrics that are resampled.
    """
    parts = [_groups_of(table, name, settings) for name, grouping in table.columns.items() if grouping.names]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["column", "group", "n"])


def by_class(table: AuditTable, settings: Settings) -> pd.DataFrame:
    """One row per column, group and class, one-vs-rest; a rate over fewer than min_group_size images is masked.

    Intervals: Wilson, images taken as independent. Columns of more than 200 groups are left out.
    """
    parts = [_classes_of(table, name, settings) for name in table.columns if has_classes(table, name)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["column", "group", "class"])


def has_classes(table: AuditTable, column: str) -> bool:
    return len(table.columns[column].names) <= MAX_GROUPS_BY_CLASS


def changes(table: AuditTable, settings: Settings) -> pd.DataFrame:
    """One row per baseline, column and group, the first of each baseline (column "") on all images.

    is_hidden_loss: all images together gain, this group loses.
    """
    rows = [row for name in table.baselines for row in _changes_of(table, name, settings)]
    return pd.DataFrame(rows, columns=CHANGES)


def _changes_of(table: AuditTable, baseline: str, settings: Settings) -> Iterator[dict[str, object]]:
    gain = 0.0
    for column in ["", *table.columns]:
        for seen in compare(table, column, "accuracy", "change", baseline, settings):
            if column == "":
                gain = seen.estimate
            is_masked = seen.n < settings.min_group_size
            low, high = (np.nan, np.nan) if is_masked else seen.interval(settings.confidence)
            yield {
                "baseline": baseline, "column": column, "group": seen.group, "n": seen.n, "is_masked": is_masked,
                "accuracy": np.nan if is_masked else seen.value,
                "baseline_accuracy": np.nan if is_masked else seen.reference_value,
                "change": np.nan if is_masked else seen.estimate, "change_low": low, "change_high": high,
                "is_hidden_loss": not is_masked and gain > 0 > seen.estimate,
            }  # fmt: skip


def _groups_of(table: AuditTable, column: str, settings: Settings) -> pd.DataFrame:
    grouping = grouping_of(table, column)
    names, n_G = list(grouping.names), images_per_group(grouping)
    masked_G = n_G < settings.min_group_size
    values: dict[str, np.ndarray] = {}
    for metric in WITH_INTERVAL:
        if metric in RESAMPLED and not has_classes(table, column):
            values[metric] = np.where(masked_G, np.nan, point(table, column, metric, settings)[0])
            values |= {f"{metric}_{end}": np.full(len(names), np.nan) for end in ("low", "high")}
        else:
            values |= _columns(metric, own_intervals(table, column, metric, settings), names, masked_G, settings)
        if metric == "worst_class_recall":
            counts = class_counts(table, column)
            worst_G = _worst_class(counts)
            values["worst_class"] = np.where(masked_G, "", np.asarray(table.classes, object)[worst_G])
            values["worst_class_n"] = np.where(masked_G, np.nan, counts.true_GC[np.arange(len(names)), worst_G])
    for metric in ("mean_confidence", "abstention"):
        values[metric] = np.where(masked_G, np.nan, point(table, column, metric, settings)[0])
    gaps = compare(table, column, "accuracy", "difference", "others", settings)
    values |= _columns("gap", gaps, names, masked_G, settings)
    for name in table.baselines:
        found = compare(table, column, "accuracy", "change", name, settings)
        values |= _columns(f"change_{name}", found, names, masked_G, settings)
    n_clusters_G = sampling_unit(table, column, settings).n_clusters_G
    first = {
        "column": column, "group": names, "n": n_G, "n_clusters": [pd.NA] * len(names) if n_clusters_G is None else n_clusters_G,
        "share": n_G / max(n_G.sum(), 1), "is_masked": masked_G,
    }  # fmt: skip
    return pd.DataFrame(first | values).astype({"n_clusters": "Int64"})


def _columns(
    name: str, found: Sequence[Comparison], names: list[str], masked_G: np.ndarray, settings: Settings
) -> dict[str, np.ndarray]:
    """name, name_low, name_high (G,): groups that weren't compared or are masked stay NaN."""
    place = {group: g for g, group in enumerate(names)}
    table_3G = np.full((3, len(names)), np.nan)
    for seen in found:
        g = place[seen.group]
        if not masked_G[g]:
            table_3G[:, g] = seen.estimate, *seen.interval(settings.confidence)
    return {name: table_3G[0], f"{name}_low": table_3G[1], f"{name}_high": table_3G[2]}


def _worst_class(counts: ClassCounts) -> np.ndarray:
    """(G,) the place of the class of lowest recall among those that the group holds, the first of equal ones."""
    with np.errstate(invalid="ignore", divide="ignore"):
        recall_GC = np.where(counts.true_GC > 0, counts.right_GC / counts.true_GC, np.inf)
    worst_G: np.ndarray = recall_GC.argmin(1)
    return worst_G


def _classes_of(table: AuditTable, column: str, settings: Settings) -> pd.DataFrame:
    names, classes = table.columns[column].names, table.classes
    counts = class_counts(table, column)
    rows = {
        "column": column,
        "group": np.repeat(np.asarray(names, object), len(classes)),
        "class": np.tile(np.asarray(classes, object), len(names)),
        "n": np.repeat(counts.n_G, len(classes)),
        "n_true": counts.true_GC.ravel(),
        "n_pred": counts.pred_GC.ravel(),
    }
    z = quantile(settings.confidence)
    for name, (k_GC, n_GC) in class_rates(counts).items():
        if name not in RATES:
            continue
        n_GC = np.broadcast_to(n_GC, k_GC.shape)
        with np.errstate(invalid="ignore", divide="ignore"):
            share_GC = np.where(n_GC >= max(settings.min_group_size, 1), k_GC / n_GC, np.nan)
        rows[name] = share_GC.ravel()
        if name in RATES_WITH_INTERVAL:
            low_GC, high_GC = score_interval(share_GC, n_GC, z)
            rows |= {f"{name}_low": np.ravel(low_GC), f"{name}_high": np.ravel(high_GC)}
    return pd.DataFrame(rows)
