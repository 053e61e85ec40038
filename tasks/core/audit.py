"""The bias audit: accuracy per group with n and intervals, gaps against all others, and a three-valued verdict."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tasks.core.intervals import Interval, newcombe, paired_gain, wilson
from tasks.core.predictions import right

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"
NOT_KNOWN = "(not known)"


@dataclass(frozen=True)
class AuditRule:
    """No group may be less accurate than all others together by more than max_gap (accuracy, 0..1)."""

    name: str
    metric: str
    column: str
    max_gap: float
    required: bool


@dataclass(frozen=True)
class AuditSettings:
    confidence: float
    min_group_size: int


def groups_of(rows: pd.DataFrame, column: str) -> pd.Series:
    """Each image's group; a missing attribute is a visible group of its own."""
    values = rows[f"audit_{column}"].fillna("")
    return values.where(values != "", NOT_KNOWN)


def by_group(adopted: pd.DataFrame, source_only: pd.DataFrame, column: str, settings: AuditSettings) -> pd.DataFrame:
    """One row per group: n, accuracy, its gap to all others, and its change by adaptation, each with an interval.

    Accuracy: Wilson. Gap: Newcombe, its level divided by the number of judged groups (Bonferroni). Change: paired.
    """
    groups, is_right = groups_of(adopted, column), right(adopted)
    sizes = groups.value_counts()
    judged = max(int((sizes >= settings.min_group_size).sum()), 1)
    family_confidence = 1 - (1 - settings.confidence) / judged
    table = []
    for name in sorted(sizes.index):
        inside = (groups == name).to_numpy()
        change = paired_gain(is_right[inside], right(source_only)[inside], settings.confidence)
        own = _share(is_right[inside], settings.confidence)
        gap = newcombe(_share(is_right[inside], family_confidence), _share(is_right[~inside], family_confidence))
        table.append({
            "column": column, "group": name, "n": own.n,
            "accuracy": own.value, "accuracy_low": own.low, "accuracy_high": own.high,
            "gap": gap.value, "gap_low": gap.low, "gap_high": gap.high,
            "change": change.value, "change_low": change.low, "change_high": change.high,
        })  # fmt: skip
    return pd.DataFrame(table)


def judge(rule: AuditRule, table: pd.DataFrame, settings: AuditSettings) -> dict[str, Any]:
    """pass: every gap's interval stays inside the limit; fail: one lies wholly beyond it; else inconclusive."""
    if len(table) < 2:
        findings, verdict = [], INCONCLUSIVE
        why = f"column {rule.column} holds {len(table)} group(s); at least two are needed to compare"
    else:
        findings = [_judge_group(row, rule.max_gap, settings.min_group_size) for row in table.to_dict("records")]
        verdicts = {finding["verdict"] for finding in findings}
        verdict = FAIL if FAIL in verdicts else INCONCLUSIVE if INCONCLUSIVE in verdicts else PASS
        why = "; ".join(f["reason"] for f in findings if f["verdict"] == verdict and verdict != PASS)
        why = why or f"no group of {rule.column} is more than {rule.max_gap:.3f} below the others"
    return {
        "name": rule.name, "metric": rule.metric, "column": rule.column, "max_gap": rule.max_gap,
        "required": rule.required, "verdict": verdict, "reason": why, "groups": findings,
    }  # fmt: skip


def overall(rules: list[dict[str, Any]]) -> tuple[str, str]:
    """The verdict by required rules only, and the reason. Without a required rule nothing was shown: inconclusive."""
    required = [rule for rule in rules if rule["required"]]
    if not required:
        return INCONCLUSIVE, "no required rule is set in audit_bias.rules, so nothing was judged"
    for verdict in (FAIL, INCONCLUSIVE):
        named = [rule for rule in required if rule["verdict"] == verdict]
        if named:
            return verdict, "; ".join(f"{rule['name']}: {_short(rule)}" for rule in named)
    return PASS, f"no disparity above the limits was found by {len(required)} required rule(s)"


def _short(rule: dict[str, Any]) -> str:
    """The rule's reason in a few words; all groups stand in the rule itself."""
    named = [group for group in rule["groups"] if group["verdict"] == rule["verdict"]]
    if len(rule["groups"]) < 2:
        return str(rule["reason"])
    if rule["verdict"] == FAIL:
        return f"{', '.join(group['group'] for group in named)} beyond the limit of {rule['max_gap']:.3f}"
    most = max((group["n_more"] for group in named if group["n_more"]), default=None)
    needed = f"at most about {most} more images of a group would decide" if most else "no number of images would decide"
    return f"{len(named)} of {len(rule['groups'])} groups are undecided; {needed}"


def _judge_group(row: dict[Any, Any], max_gap: float, min_group_size: int) -> dict[str, Any]:
    group, n = row["group"], row["n"]
    gap = f"gap {row['gap']:+.3f} ({row['gap_low']:+.3f} to {row['gap_high']:+.3f}), n = {n}"
    if n < min_group_size:
        more = min_group_size - n
        return _finding(
            group, INCONCLUSIVE, f"group {group} is too small to judge: {gap}; {more} more images needed", more
        )
    if row["gap_high"] < -max_gap:
        return _finding(group, FAIL, f"group {group} lies wholly beyond the limit: {gap}", 0)
    if row["gap_low"] > -max_gap:
        return _finding(group, PASS, f"group {group} stays inside the limit: {gap}", 0)
    distance = row["gap"] + max_gap
    half = (row["gap"] - row["gap_low"]) if distance > 0 else (row["gap_high"] - row["gap"])
    if distance == 0:
        return _finding(
            group, INCONCLUSIVE, f"group {group} lies on the limit: {gap}; no number of images would decide", None
        )
    more = max(math.ceil(n * ((half / distance) ** 2 - 1)), 1)
    return _finding(group, INCONCLUSIVE, f"group {group}: {gap}; about {more} more images of it would decide", more)


def _finding(group: str, verdict: str, reason: str, n_more: int | None) -> dict[str, Any]:
    return {"group": group, "verdict": verdict, "reason": reason, "n_more": n_more}


def _share(is_right: np.ndarray, confidence: float) -> Interval:
    return wilson(int(is_right.sum()), len(is_right), confidence)
