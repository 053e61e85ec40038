"""The tables and charts of the audit's page as data: what is shown of many rows, and how many more there are.

Of too many rows the worst ones are shown; those that weren't measured come last.
"""

import base64
from typing import Any

import pandas as pd
from markupsafe import Markup

from tasks.core.bias.breakdown import WORSE
from tasks.core.bias.table import THIRDS, TIMES
from tasks.core.bias_words import is_number, spelled
from tasks.core.charts import interval_chart, trade_chart

MAX_ROWS, MAX_DRAWN, MAX_FINDINGS = 60, 40, 3
OF_GROUPS = (
    "column", "group", "n", "share", "is_masked", "accuracy", "accuracy_low", "accuracy_high", "gap", "gap_low", "gap_high",
    "gap_mark",
    "balanced_accuracy", "balanced_accuracy_low", "balanced_accuracy_high", "worst_class", "worst_class_n", "worst_class_recall",
    "calibration_error", "mean_confidence", "abstention",
)  # fmt: skip


def data_uri(content: bytes, kind: str) -> Markup:
    return Markup(f"data:{kind};base64,{base64.b64encode(content).decode()}")


def picture(svg: str) -> Markup:
    """A chart as the address of a picture, which can't run or load anything; "" where there is none."""
    return data_uri(svg.encode(), "image/svg+xml") if svg else Markup()


def change_tables(changes: pd.DataFrame) -> list[dict[str, Any]]:
    """Per baseline its rows, all images first, and a chart of the groups."""
    found = []
    for baseline, rows in changes.groupby("baseline", sort=False):
        whole, groups = rows[rows["column"] == ""], rows[rows["column"] != ""]
        drawn = pd.concat([whole, _worst_rows(groups, "change", MAX_DRAWN)])
        found.append({
            "baseline": baseline,
            "rows": [*whole.to_dict("records"), *_worst_rows(groups, "change", MAX_ROWS).to_dict("records")],
            "n_more": max(len(groups) - MAX_ROWS, 0),
            "chart": picture(interval_chart(_drawn(drawn, "change"), _names(drawn), "change, points")),
        })  # fmt: skip
    return found


def _drawn(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    columns = {name: "value", f"{name}_low": "low", f"{name}_high": "high"}
    return rows[list(columns)].rename(columns=columns).astype(float).assign(is_worse=rows[f"{name}_mark"] == WORSE)


def _names(rows: pd.DataFrame) -> list[str]:
    return [
        spelled(f"{column}: {group} (n = {n:,})" if column else f"all images (n = {n:,})", 60)
        for column, group, n in rows[["column", "group", "n"]].itertuples(index=False)
    ]


def _worst_rows(rows: pd.DataFrame, by: str, most: int) -> pd.DataFrame:
    """All rows in their order, or the `most` with the lowest values where they are more: column by column, the worst first.

    Unmeasured ones come last.
    """
    if len(rows) <= most:
        return rows
    return rows.sort_values(by, kind="stable", na_position="last").head(most).sort_values("column", kind="stable")


def group_tables(by_group: pd.DataFrame, rules: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The groups' rows by the section they stand in, each with a chart of its gaps."""
    limits = {
        rule["column"]: rule["limit"]
        for rule in rules
        if (rule["metric"], rule["comparison"], rule["reference"]) == ("accuracy", "difference", "others")
    }
    found = {}
    for name, rows in _by_kind(by_group).items():
        drawn = _worst_rows(rows, "gap", MAX_DRAWN)
        values = _drawn(drawn, "gap").assign(limit=drawn["column"].map(limits).astype(float))
        found[name] = {
            "rows": _worst_rows(rows, "gap", MAX_ROWS).to_dict("records"),
            "n_more": max(len(rows) - MAX_ROWS, 0),
            "chart": picture(interval_chart(values, _names(drawn), "gap, points")),
        }
    return found


def _by_kind(by_group: pd.DataFrame) -> dict[str, pd.DataFrame]:
    groups = by_group.reindex(columns=list(OF_GROUPS))
    column = groups["column"].astype(str)
    is_slice, is_crossed = column.str.endswith(THIRDS), column.str.contains(TIMES, regex=False)
    kinds = {"groups": ~is_slice & ~is_crossed & (column != ""), "crossed": is_crossed & ~is_slice, "slices": is_slice}
    return {name: groups[own] for name, own in kinds.items()}


def worst_findings(by_group: pd.DataFrame, by_class: pd.DataFrame, accuracy: Any) -> list[dict[str, Any]]:
    """Per kind (groups, crossed, slices, classes) the rows that are most surely worse than others, the worst first.

    Most surely: the upper end of the interval is lowest, so that a tiny group with a wide one doesn't come first. Groups are
    those marked as worse than all other images; where none is, the one with the largest gap. Classes within plain groups are
    those whose recall lies wholly below the accuracy over all images. n_judged: out of how many they were picked; n_worse.
    """
    found = []
    for kind, rows in _by_kind(by_group).items():
        judged = rows[rows["gap_high"].notna()]
        worse = judged[judged["gap_mark"] == WORSE].sort_values("gap_high", kind="stable")
        told = judged.sort_values("gap", kind="stable").head(1) if worse.empty else worse.head(MAX_FINDINGS)
        found.append(_finding(kind, judged, worse, told))
    judged = _plain_cells(by_class) if is_number(accuracy) and len(by_class) else by_class.head(0)
    if len(judged):
        worse = judged[judged["recall_high"] < accuracy].sort_values("recall_high", kind="stable")
        found.append(_finding("classes", judged, worse, worse.head(MAX_FINDINGS)))
    return [finding for finding in found if finding["n_judged"]]


def _finding(kind: str, judged: pd.DataFrame, worse: pd.DataFrame, told: pd.DataFrame) -> dict[str, Any]:
    return {"kind": kind, "n_judged": len(judged), "n_worse": len(worse), "rows": told.to_dict("records")}


def _plain_cells(by_class: pd.DataFrame) -> pd.DataFrame:
    column = by_class["column"].astype(str)
    is_plain = ~column.str.endswith(THIRDS) & ~column.str.contains(TIMES, regex=False)
    return by_class[is_plain & by_class["recall_high"].notna()]


def class_tables(by_class: pd.DataFrame) -> list[dict[str, Any]]:
    """Per audit column its cells group × class; intersections and slices stand in by_class.csv only.

    Cells with too few images for recall and for precision are counted (n_small) and left out.
    """
    found = []
    for column, cells in by_class.groupby("column", sort=False):
        if TIMES in str(column) or str(column).endswith(THIRDS):
            continue
        told = cells[cells["recall"].notna() | cells["precision"].notna()]
        rows = _worst_rows(told, "recall", MAX_ROWS).to_dict("records")
        found.append({
            "column": column, "rows": rows, "n_more": len(told) - len(rows), "n_small": len(cells) - len(told),
        })  # fmt: skip
    return found


def composition_tables(composition: pd.DataFrame) -> list[dict[str, Any]]:
    """Per audit column the images of each group by domain and split, and of each group and class by split."""
    found = []
    for column, rows in composition.groupby("column", sort=False):
        places = sorted({(str(row.domain), str(row.split)) for row in rows.itertuples()})
        n_of = rows.groupby(["group", "domain", "split"])["n"].sum().to_dict()
        groups = list(dict.fromkeys(rows["group"]))
        by_label = rows.groupby(["group", "label", "split"])["n"].sum()
        cells = by_label.to_dict()
        splits = sorted({split for _, split in places})
        labels = sorted({(str(row.group), str(row.label)) for row in rows.itertuples()})
        found.append({
            "column": column, "places": places, "splits": splits,
            "rows": [(group, [n_of.get((group, *place), 0) for place in places]) for group in groups[:MAX_ROWS]],
            "n_more": max(len(groups) - MAX_ROWS, 0),
            "cells": [(*key, [cells.get((*key, split), 0) for split in splits]) for key in labels[: 2 * MAX_ROWS]],
            "n_more_cells": max(len(labels) - 2 * MAX_ROWS, 0),
        })  # fmt: skip
    return found


def gap_table(gaps: pd.DataFrame | None) -> dict[str, Any] | None:
    """The groups' rows, or those whose labels lie farthest from the rest's where they are too many."""
    if gaps is None:
        return None
    rows = _worst_rows(gaps.assign(nearness=-gaps["label_distance"]), "nearness", MAX_ROWS)
    return {"rows": rows.to_dict("records"), "n_more": len(gaps) - len(rows)}


def model_tables(models: pd.DataFrame | None) -> list[dict[str, Any]]:
    if models is None or models.empty:
        return []
    return [
        {"column": column, "rows": rows.to_dict("records"), "chart": picture(trade_chart(rows))}
        for column, rows in models.groupby("column", sort=False)
    ]
