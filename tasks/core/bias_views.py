"""Two laws' views of the audit, as data: impact ratios (NYC Local Law 144), the headings of the EU AI Act's Annex IV.

Neither is legal advice. Sources: Rules of the City of New York, title 6, §5-300 to §5-304 (final rule of 2023); Regulation (EU)
2024/1689, Annex IV.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tasks.core.bias.table import THIRDS, is_not_known
from tasks.core.bias_words import is_number

SMALL_SHARE = 0.02  # a category below it may be left out of the ratios, with a justification (§5-301)
MAX_CLASSES, MAX_ROWS = 12, 40


@dataclass(frozen=True)
class Heading:
    """A point of Annex IV: where this page answers it (words, anchor), and what a person has to add."""

    number: int
    title: str
    answered: tuple[tuple[str, str], ...]
    to_add: str


def favourable_classes(rules: list[dict[str, Any]]) -> list[str]:
    """The classes of which a rule judges the selection rate; [] where no rule says which outcome is the favourable one."""
    metrics = dict.fromkeys(rule["metric"] for rule in rules)
    return [metric.partition(":")[2] for metric in metrics if metric.startswith("selection_rate:")]


def impact_ratios(by_group: pd.DataFrame, by_class: pd.DataFrame, rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per audit column or intersection its categories: n, share, and of each class the selection rate and impact ratio.

    Impact ratio = a category's selection rate / that of the most selected category (§5-300). A category under 2 % may be left out
    of the ratios (§5-301 d): here it is never taken as the most selected one, and its own ratio, told all the same, can exceed 1.
    Images whose category isn't known are counted, and have no ratio.
    Columns whose classes weren't counted group by group have no entry; slices of image facts aren't categories of people.
    """
    named = favourable_classes(rules)
    if by_class.empty:
        return []
    found = []
    for column, cells in by_class.groupby("column", sort=False):
        if str(column).endswith(THIRDS) or not column:
            continue
        groups = by_group[by_group["column"] == column]
        rate_GC = cells.pivot(index="group", columns="class", values="selection_rate").reindex(
            index=groups["group"], columns=cells["class"].unique()
        )
        ratio_GC = rate_GC / rate_GC[_is_counted(groups)].max()
        classes = [name for name in named if name in ratio_GC] or _worst_first(ratio_GC)
        rows = [_category(row, rate_GC, ratio_GC, classes[:MAX_CLASSES]) for row in groups.to_dict("records")]
        found.append({
            "column": column, "is_named": bool(named), "classes": classes[:MAX_CLASSES],
            "n_more_classes": max(len(classes) - MAX_CLASSES, 0),
            "n_not_known": sum(row["n"] for row in rows if row["is_not_known"]),
            "rows": rows[:MAX_ROWS], "n_more_rows": max(len(rows) - MAX_ROWS, 0),
        })  # fmt: skip
    return found


def _worst_first(ratio_GC: pd.DataFrame) -> list[str]:
    """All classes as they come, or by their lowest ratio where they are too many to show."""
    is_many = len(ratio_GC.columns) > MAX_CLASSES
    return [*(ratio_GC.min().sort_values(kind="stable").index if is_many else ratio_GC.columns)]


def _is_counted(groups: pd.DataFrame) -> Any:
    return ((groups["share"] >= SMALL_SHARE) & ~groups["group"].map(is_not_known)).to_numpy(bool)


def _category(row: dict[Hashable, Any], rate_GC: Any, ratio_GC: Any, classes: list[str]) -> dict[str, Any]:
    unknown = is_not_known(row["group"])
    cells = []
    for name in classes:
        rate, ratio = float(rate_GC.loc[row["group"], name]), float(ratio_GC.loc[row["group"], name])
        cells.append({"rate": rate, "ratio": ratio if is_number(ratio) and not unknown else None})
    return {
        "group": row["group"], "n": int(row["n"]), "share": row["share"], "is_masked": bool(row["is_masked"]),
        "is_small": row["share"] < SMALL_SHARE and not unknown, "is_not_known": unknown, "cells": cells,
    }  # fmt: skip


def annex_iv(*, has_pipeline: bool) -> list[Heading]:
    """The nine points of Annex IV, which Article 11 asks of high-risk systems, in our words."""

    def page(*always: tuple[str, str], pipeline: tuple[tuple[str, str], ...] = ()) -> tuple[tuple[str, str], ...]:
        return (*always, *(pipeline if has_pipeline else ()))

    return [
        Heading(
            1, "General description of the system",
            page(("version by content hashes", "lineage")),
            "Intended purpose, provider, earlier versions, how it is placed on the market, hardware and software it works with, "
            "user interface, instructions for use.",
        ),
        Heading(
            2, "How it was developed: elements, design choices, data, tests",
            page(
                ("composition of the data by group", "data"), ("accuracy and discriminatory effects, with intervals", "groups"),
                ("rules and their limits", "rules"),
                pipeline=(
                    ("pretrained model and its licence", "selection"), ("training and choice of method", "training"),
                    ("checks of the data", "validation"),
                ),
            ),
            "Architecture and computing resources, where the data come from and how they were selected and labelled, assumptions "
            "behind the design, measures for human oversight, changes planned in advance, robustness, cybersecurity, signed and "
            "dated test reports.",
        ),
        Heading(
            3, "Monitoring, functioning and control",
            page(("accuracy for specific groups of persons", "groups"), ("what was not tested", "limits")),
            "Foreseeable unintended outcomes and risks to health, safety, fundamental rights and of discrimination, measures for "
            "human oversight in use, specifications of the input data.",
        ),
        Heading(
            4, "Why the performance metrics are appropriate",
            page(("how each metric is defined", "classes"), ("the limits of each rule", "rules")),
            "Why these metrics and limits suit the intended purpose.",
        ),
        Heading(5, "Risk management (Article 9)", (), "The risk management system."),
        Heading(
            6, "Changes through the lifecycle",
            page(("change against the earlier models, by group", "change")),
            "The record of the changes made by the provider.",
        ),
        Heading(7, "Harmonised standards and other solutions", (), "Standards applied, or how the requirements are met without."),
        Heading(8, "EU declaration of conformity (Article 47)", (), "A copy of the declaration."),
        Heading(
            9, "Monitoring after placing on the market (Article 72)", (),
            "How performance is watched in use, and the plan for it.",
        ),
    ]  # fmt: skip
