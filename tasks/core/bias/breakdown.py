"""The audit's tables: a row per group, per group and class, and per group and baseline. NaN = not measured or masked.

Intervals hold one by one. What is marked as better or worse holds together: Holm's level over all groups of one table.

Axes: G groups of a column, C classes, M cells of cluster × group.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd

from tasks.core.bias.asking import images_per_group
from tasks.core.bias.clusters import Pairs, pairs_of, sampling_unit, share_designs
from tasks.core.bias.counts import ClassCounts, Settings, class_counts, class_rates, point
from tasks.core.bias.estimates import Comparison, compare, own_intervals
from tasks.core.bias.judging import holm_levels
from tasks.core.bias.score import cluster_quantiles, quantile, score_interval
from tasks.core.bias.table import THIRDS, TIMES, AuditTable, grouping_of

MAX_GROUPS_BY_CLASS = 200
WORSE, BETTER = "worse", "better"
WITH_INTERVAL = ("accuracy", "balanced_accuracy", "worst_class_recall", "calibration_error")
RATES_WITH_INTERVAL = ("recall", "precision", "false_positive_rate", "selection_rate")
RATES = (*RATES_WITH_INTERVAL, "false_negative_rate", "base_rate")
EndsOf = Callable[
    [str, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]
]  # of a rate, its shares and their numbers
CHANGES = [
    "baseline", "column", "group", "n", "is_masked", "accuracy", "baseline_accuracy", "change", "change_low", "change_high",
    "change_mark", "is_hidden_loss",
]  # fmt: skip


def by_group(table: AuditTable, settings: Settings) -> pd.DataFrame:
    """One row per column and group: n, share, own values, gap in accuracy to all others, change against each baseline.

    Groups under min_group_size keep n and share only (is_masked). gap_mark: "worse" or "better" where the gap isn't 0 at Holm's
    level over the groups of all plain columns, of all intersections or of all slices, "" where nothing is shown.
    """
    parts = [_groups_of(table, name, settings) for name, grouping in table.columns.items() if grouping.names]
    if not parts:
        return pd.DataFrame(columns=["column", "group", "n"])
    for kind in {_kind(name) for name in table.columns}:
        alike = [(rows, gaps) for rows, gaps in parts if _kind(rows["column"].iloc[0]) == kind]
        found = iter(marks([gap for _, gaps in alike for gap in gaps], settings))
        for rows, gaps in alike:
            mark = {gap.group: next(found) for gap in gaps}
            rows["gap_mark"] = [mark.get(group, "") for group in rows["group"]]
    return pd.concat([rows for rows, _ in parts], ignore_index=True)


def marks(found: Sequence[Comparison], settings: Settings) -> list[str]:
    """Per difference from 0 "worse", "better" or "", at Holm's level over all of them that can be judged."""
    judged = [seen for seen in found if seen.n >= settings.min_group_size and np.isfinite(seen.estimate)]
    levels = holm_levels([partial(_is_apart, seen) for seen in judged], 1 - settings.confidence)
    told = {
        id(seen): (WORSE if seen.estimate < 0 else BETTER) if _is_apart(seen, 1 - level) else ""
        for seen, level in zip(judged, levels, strict=True)
    }
    return [told.get(id(seen), "") for seen in found]


def _is_apart(seen: Comparison, confidence: float) -> bool:
    low, high = seen.interval(confidence)
    return low > 0 or high < 0


def _kind(column: str) -> str:
    """Plain columns, intersections and slices stand in tables of their own."""
    return "slice" if column.endswith(THIRDS) else "intersection" if TIMES in column else "plain"


def by_class(table: AuditTable, settings: Settings) -> pd.DataFrame:
    """One row per column, group and class, one-vs-rest; a rate over fewer than min_group_size images is masked.

    Intervals: Wilson, by clusters where those of the column's groups are. Columns of more than 200 groups are left out.
    """
    parts = [_classes_of(table, name, settings) for name in table.columns if has_classes(table, name)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["column", "group", "class"])


def has_classes(table: AuditTable, column: str) -> bool:
    return len(table.columns[column].names) <= MAX_GROUPS_BY_CLASS


def worst_by_column(table: AuditTable, settings: Settings) -> list[dict[str, object]]:
    """Accuracy of all images, and per column the least accurate group that is large enough; a column without one has no row."""
    (whole,) = own_intervals(table, "", "accuracy", settings)
    low, high = whole.interval(settings.confidence)
    first = {"n": whole.n, "accuracy": whole.value, "accuracy_low": low, "accuracy_high": high}
    rows: list[dict[str, object]] = []
    for column in table.columns:
        seen = [g for g in own_intervals(table, column, "accuracy", settings) if g.n >= settings.min_group_size]
        if seen:
            worst = min(seen, key=lambda group: group.value)
            low, high = worst.interval(settings.confidence)
            told = {"worst_group": worst.group, "worst_n": worst.n, "worst": worst.value}
            rows.append(first | {"column": column} | told | {"worst_low": low, "worst_high": high})
    return rows


def changes(table: AuditTable, settings: Settings) -> pd.DataFrame:
    """One row per baseline, column and group, the first of each baseline (column "") on all images.

    change_mark: "worse" or "better", at Holm's level over all groups of the baseline; all images together are asked by
    themselves. is_hidden_loss: all images together gain, this group loses.
    """
    rows = [row for name in table.baselines for row in _changes_of(table, name, settings)]
    return pd.DataFrame(rows, columns=CHANGES)


def _changes_of(table: AuditTable, baseline: str, settings: Settings) -> list[dict[str, object]]:
    (whole,) = compare(table, "", "accuracy", "change", baseline, settings)
    groups = [
        (column, seen)
        for column in table.columns
        for seen in compare(table, column, "accuracy", "change", baseline, settings)
    ]
    mark = [*marks([whole], settings), *marks([seen for _, seen in groups], settings)]
    rows: list[dict[str, object]] = []
    for (column, seen), told in zip([("", whole), *groups], mark, strict=True):
        is_masked = seen.n < settings.min_group_size
        low, high = (np.nan, np.nan) if is_masked else seen.interval(settings.confidence)
        rows.append({
            "baseline": baseline, "column": column, "group": seen.group, "n": seen.n, "is_masked": is_masked,
            "accuracy": np.nan if is_masked else seen.value,
            "baseline_accuracy": np.nan if is_masked else seen.reference_value,
            "change": np.nan if is_masked else seen.estimate, "change_low": low, "change_high": high, "change_mark": told,
            "is_hidden_loss": not is_masked and whole.estimate > 0 > seen.estimate,
        })  # fmt: skip
    return rows


def _groups_of(table: AuditTable, column: str, settings: Settings) -> tuple[pd.DataFrame, list[Comparison]]:
    """The groups' rows, and their gaps in accuracy to all others."""
    grouping = grouping_of(table, column)
    names, n_G = list(grouping.names), images_per_group(grouping)
    masked_G = n_G < settings.min_group_size
    values: dict[str, np.ndarray] = {}
    for metric in WITH_INTERVAL:
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
    return pd.DataFrame(first | values).astype({"n_clusters": "Int64"}), gaps


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
    ends_of = _ends_by_class(table, column, settings)
    for name, (k_GC, n_GC) in class_rates(counts).items():
        if name not in RATES:
            continue
        n_GC = np.broadcast_to(n_GC, k_GC.shape)
        with np.errstate(invalid="ignore", divide="ignore"):
            share_GC = np.where(n_GC >= max(settings.min_group_size, 1), k_GC / n_GC, np.nan)
        rows[name] = share_GC.ravel()
        if name in RATES_WITH_INTERVAL:
            low_GC, high_GC = ends_of(name, share_GC, n_GC)
            rows |= {f"{name}_low": np.ravel(low_GC), f"{name}_high": np.ravel(high_GC)}
    return pd.DataFrame(rows)


def _ends_by_class(table: AuditTable, column: str, settings: Settings) -> EndsOf:
    """The intervals of a rate in all groups and classes: images as draws, or clusters where the column has enough of them."""
    if table.clusters_N is None or sampling_unit(table, column, settings).unit == "image":
        z = quantile(settings.confidence)
        return lambda name, share_GC, n_GC: score_interval(share_GC, n_GC, z)
    pairs = pairs_of(grouping_of(table, column), table.clusters_N)
    designs = [_designs_of_class(table, c, pairs) for c in range(len(table.classes))]

    def ends(name: str, share_GC: np.ndarray, n_GC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        effect_GC, n_clusters_GC = (np.stack([of[name][part] for of in designs], 1) for part in (0, 1))
        return score_interval(share_GC, n_GC / effect_GC, cluster_quantiles(settings.confidence, n_clusters_GC))

    return ends


def _designs_of_class(table: AuditTable, c: int, pairs: Pairs) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Per rate with an interval: design effect and clusters of each group."""
    true_N, pred_N = table.y_true_N == c, table.y_pred_N == c
    size = len(pairs.group_M)
    right_M1, true_M1, pred_M1 = (
        np.bincount(pairs.cell_N[inside], minlength=size)[:, None] for inside in (true_N & pred_N, true_N, pred_N)
    )
    of_class = ClassCounts(np.bincount(pairs.cell_N, minlength=size), right_M1, true_M1, pred_M1)
    found = {}
    for name, (hits_M1, n_M1) in class_rates(of_class).items():
        if name in RATES_WITH_INTERVAL:
            found[name] = share_designs(hits_M1[:, 0], n_M1[:, 0], pairs)
    return found
