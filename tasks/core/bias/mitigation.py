"""Thresholds per group, chosen on labelled images outside the test: who would gain by them, and who would lose.

A mitigation that needs no training. It is measured beside the model's own predictions and changes none that is shipped: it would
need everybody's group at the time of each prediction.

Axes: N test images, V images that thresholds are chosen on, C classes.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from tasks.core.bias.counts import Settings
from tasks.core.bias.estimates import Comparison, compare, own_intervals
from tasks.core.bias.sentences import counted, shown
from tasks.core.bias.table import NOT_KNOWN, table_of
from tasks.core.runtime import address_seed

EVERY_CLASS = "*"
METHOD, BEFORE = "threshold_optimizer", "before"
CONSTRAINED = {
    "true_positive_rate_parity": ("recall",),
    "false_positive_rate_parity": ("false_positive_rate",),
    "demographic_parity": ("selection_rate",),
    "equalized_odds": ("recall", "false_positive_rate"),
}


@dataclass(frozen=True)
class Plan:
    """positive: the class whose "yes" gets a threshold per group of the column, "*" = each class against the rest.

    constraint: what the thresholds make equal between groups; objective: what is best among those ("accuracy" or
    "balanced_accuracy" of yes against no).
    """

    column: str
    positive: str
    constraint: str
    objective: str


@dataclass(frozen=True)
class Binary:
    """Yes or no on the images that thresholds are chosen on, and the scores (0..1) and groups of both sides."""

    score_V: np.ndarray
    is_yes_V: np.ndarray
    group_V: np.ndarray
    score_N: np.ndarray
    group_N: np.ndarray


Vote = Callable[[Binary, Plan, int], np.ndarray]  # with a seed; (N,) bool: yes


@dataclass(frozen=True)
class Processed:
    """The test's predictions with thresholds. reason: why there are none, "" where there are."""

    y_pred: pd.Series
    left_out: tuple[str, ...]
    reason: str


def mitigation(
    known: pd.DataFrame, test: pd.DataFrame, plan: Plan, vote: Vote, settings: Settings
) -> tuple[pd.Series, dict[str, Any]]:
    """The predictions with thresholds, and the entry `mitigation` of the verdict: each value before and after.

    known, test: y_true, y_pred, p_<class>, group_id, image_id and the column; known: labelled images outside the test.
    Intervals take the thresholds as given; the changes are paired on the same images where the metric is.
    """
    processed = post_processed(known, test, plan, vote, settings.seed)
    n_changed = int((processed.y_pred != test["y_pred"]).sum())
    rows = [] if processed.reason else _rows(test, processed.y_pred, plan, settings)
    told = {
        "method": METHOD, **asdict(plan), "n_fitted": len(known), "n_changed": n_changed, "reason": processed.reason,
        "left_out": list(processed.left_out), "rows": rows,
    }  # fmt: skip
    return processed.y_pred, told


def post_processed(known: pd.DataFrame, test: pd.DataFrame, plan: Plan, vote: Vote, seed: int) -> Processed:
    """The most probable of the classes whose threshold says yes; of those without a threshold where none does, else of all.

    A group whose labelled images lack the class, or hold nothing else, keeps the model's own yes or no for it.
    """
    classes = [name.removeprefix("p_") for name in test.columns if name.startswith("p_")]
    positives = classes if plan.positive == EVERY_CLASS else [plan.positive]
    if problem := _problem(known, test, plan, classes):
        return Processed(test["y_pred"], (), problem)
    probs_NC = test[[f"p_{name}" for name in classes]].to_numpy(float)
    tier_NC = np.tile(np.where(np.isin(classes, positives), 0, 1), (len(test), 1))
    left_out, n_fitted = [], 0
    for name in positives:
        both = _groups_with_both(known, plan.column, name)
        groups = sorted(set(_groups(test[plan.column])))
        absent = [group for group in groups if group not in both]
        yes_N = (test["y_pred"] == name).to_numpy(copy=True)
        if len(groups) - len(absent) >= 2:
            inside_N = _groups(test[plan.column]).isin(both).to_numpy()
            asked = _binary(known[_groups(known[plan.column]).isin(both)], test[inside_N], plan.column, name)
            yes_N[inside_N] = vote(asked, plan, address_seed(seed, METHOD, name) % 2**32)
            n_fitted += 1
        left_out += [f"class {shown(name)} in {shown(group)}" for group in absent]
        tier_NC[yes_N, classes.index(name)] = 2
    if not n_fitted:
        why = "labelled images outside the test hold both yes and no in fewer than two groups"
        return Processed(test["y_pred"], (), f"{why} of {shown(plan.column)}, so there is nothing to make equal")
    guess = np.asarray(classes, object)[(2 * tier_NC + probs_NC).argmax(1)]
    return Processed(pd.Series(guess, test.index), tuple(left_out), "")


def _problem(known: pd.DataFrame, test: pd.DataFrame, plan: Plan, classes: list[str]) -> str:
    probs = [f"p_{name}" for name in classes]
    if plan.column not in test:
        return f"column {shown(plan.column)} is absent from the table"
    if plan.positive not in (EVERY_CLASS, *classes):
        return f"class {shown(plan.positive)} is absent: the model knows no such class"
    if known.empty:
        return (
            "no target image outside the test carries a label that may be used, and the test's own labels only measure"
        )
    if test[probs].isna().to_numpy().any():
        return (
            f"{counted(int(test[probs].isna().any(axis=1).sum()), 'image')} have no probabilities to put a threshold on"
        )
    return ""


def _groups(values: pd.Series) -> pd.Series:
    return values.where(values.notna() & (values != ""), NOT_KNOWN)


def _groups_with_both(known: pd.DataFrame, column: str, name: str) -> list[str]:
    """The groups that hold images of the class and others."""
    n_kinds = (known["y_true"] == name).groupby(_groups(known[column])).nunique()
    return [str(group) for group in n_kinds.index[n_kinds == 2]]


def _binary(known: pd.DataFrame, test: pd.DataFrame, column: str, name: str) -> Binary:
    (score_V, score_N), (group_V, group_N) = (
        [of[f"p_{name}"].to_numpy(float) for of in (known, test)],
        [_groups(of[column]).to_numpy(object) for of in (known, test)],
    )
    return Binary(score_V, (known["y_true"] == name).to_numpy(int), group_V, score_N, group_N)


def _metrics(plan: Plan) -> list[str]:
    if plan.positive == EVERY_CLASS:
        return ["accuracy", "balanced_accuracy"]
    return ["accuracy", *(f"{name}:{plan.positive}" for name in CONSTRAINED[plan.constraint])]


def _rows(test: pd.DataFrame, y_pred: pd.Series, plan: Plan, settings: Settings) -> list[dict[str, Any]]:
    """One per metric and group, the first of each metric on all images; a group that is too small has its n alone."""
    columns = [plan.column]
    after = table_of(test.assign(y_pred=y_pred), columns=columns, baselines={BEFORE: test})
    before = table_of(test, columns=columns)
    rows: list[dict[str, Any]] = []
    for metric in _metrics(plan):
        for column in ("", plan.column):
            sides = [own_intervals(table, column, metric, settings) for table in (before, after)]
            changes = compare(after, column, metric, "change", BEFORE, settings)
            rows += [
                {"metric": metric, "column": column, "group": change.group, "n": int(change.n)}
                | _ends("before", before_one, settings) | _ends("after", after_one, settings) | _ends("change", change, settings)
                for before_one, after_one, change in zip(*sides, changes, strict=True)
            ]  # fmt: skip
    return rows


def _ends(name: str, seen: Comparison, settings: Settings) -> dict[str, float | None]:
    """name, name_low, name_high; None where the group is too small or nothing was measured."""
    is_judged = seen.n >= settings.min_group_size
    ends = (seen.estimate, *seen.interval(settings.confidence)) if is_judged else (math.nan,) * 3
    return {
        f"{name}{end}": float(value) if math.isfinite(value) else None
        for end, value in zip(("", "_low", "_high"), ends, strict=True)
    }
