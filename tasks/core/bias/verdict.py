"""The audit's result: the verdict by required rules, the tables, and what was not tested.

verdict.schema.json beside this file describes the verdict.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.core.bias import breakdown
from tasks.core.bias.asking import images_per_group, plain_columns, sampling_of
from tasks.core.bias.counts import ON_PROBABILITIES, Settings
from tasks.core.bias.estimates import own_intervals
from tasks.core.bias.judging import CORRECTION, FAIL, INCONCLUSIVE, PASS, judge_rules
from tasks.core.bias.rules import EVERY_COLUMN, Rule
from tasks.core.bias.sentences import counted, listed, shown
from tasks.core.bias.table import TIMES, AuditTable, is_not_known
from tasks.core.files import text_sha256

SCHEMA_NAME = "acclimate-audit-1"
SCHEMA_PATH = Path(__file__).with_name("verdict.schema.json")
OVERALL = (*breakdown.WITH_INTERVAL, "mean_confidence", "abstention")


@dataclass(frozen=True)
class AuditResult:
    """The verdict as plain data (`verdict.schema.json`), and the tables of `breakdown`."""

    verdict: dict[str, Any]
    by_group: pd.DataFrame
    by_class: pd.DataFrame
    changes: pd.DataFrame


def audit(
    table: AuditTable,
    rules: Sequence[Rule],
    settings: Settings,
    known_groups: Mapping[str, Sequence[str]] | None = None,
) -> AuditResult:
    """All rules judged and all tables made.

    known_groups: names of groups by column from elsewhere, such as the training images; one that has no image here can't pass.
    ValueError: a rule's metric or comparison is unknown.
    """
    judged = judge_rules(rules, table, settings, known_groups)
    verdict, reason = overall(judged)
    asked = {rule.column for rule in rules if rule.column not in ("", EVERY_COLUMN)} | set(known_groups or {})
    absent = sorted(name for name in asked if name not in table.columns)
    result = {
        "schema": SCHEMA_NAME, "verdict": verdict, "reason": reason, "rules_sha256": rules_sha256(rules, settings),
        "confidence": settings.confidence, "min_group_size": settings.min_group_size, "n_bootstrap": settings.n_bootstrap,
        "correction": CORRECTION, "n": len(table.y_true_N), "classes": list(table.classes), "columns": list(table.columns),
        "absent_columns": absent, "baselines": list(table.baselines), "unknown_share": _unknown_share(table),
        "sampling": {column: sampling_of(table, column, settings) for column in table.columns},
        "overall": _overall_values(table, settings), "rules": judged, "mitigation": None,
        "not_tested": not_tested(table, absent, settings),
    }  # fmt: skip
    return AuditResult(
        result,
        breakdown.by_group(table, settings),
        breakdown.by_class(table, settings),
        breakdown.changes(table, settings),
    )


def overall(rules: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """The verdict by required rules only, and the reason. Without a required rule nothing was shown: inconclusive."""
    required = [rule for rule in rules if rule["required"]]
    if not required:
        return INCONCLUSIVE, "no rule is required, so nothing was judged; mark a rule as required to get a verdict"
    for verdict in (FAIL, INCONCLUSIVE):
        named = [rule for rule in required if rule["verdict"] == verdict]
        if named:
            return verdict, listed([f"{_named(rule)}: {rule['reason']}" for rule in named], 5)
    told = listed([_named(rule) for rule in required], 10)
    return PASS, f"every group stays inside the limit of {counted(len(required), 'required rule')}: {told}"


def rules_sha256(rules: Sequence[Rule], settings: Settings) -> str:
    """Hash of all that was agreed before the results were seen."""
    agreed = {"rules": [asdict(rule) for rule in rules], "settings": asdict(settings)}
    return text_sha256(json.dumps(agreed, sort_keys=True, ensure_ascii=False))


def not_tested(table: AuditTable, absent: Sequence[str], settings: Settings) -> list[str]:
    """Sentences on what this audit says nothing about."""
    said = [f"Column {shown(name)} is absent, so its groups were not compared." for name in absent]
    if not table.columns:
        said.append("No audit column was given, so no groups were compared.")
    for column, grouping in table.columns.items():
        n_G = images_per_group(grouping)
        small = [grouping.names[g] for g in range(len(n_G)) if n_G[g] < settings.min_group_size]
        if int((n_G > 0).sum()) == 1:
            said.append(f"Column {shown(column)} holds one group only, so nothing was compared in it.")
        if small:
            named = listed([shown(name) for name in small])
            said.append(
                f"{counted(len(small), 'group')} of {shown(column)} with fewer than {settings.min_group_size} images: {named}."
            )
        if not breakdown.has_classes(table, column):
            most = breakdown.MAX_GROUPS_BY_CLASS
            said.append(f"Classes within the {len(n_G):,} groups of {shown(column)}: for up to {most} groups only.")
    if len(plain_columns(table)) > 1 and not any(TIMES in name for name in table.columns):
        said.append("Intersections of audit columns.")
    if table.probs_NC is None:
        said.append("Calibration, confidence and abstention: no probabilities were given.")
    if not table.baselines:
        said.append("Whether any group gains or loses against another model: no predictions of one were given.")
    return [
        *said,
        "Attributes that are not among the columns, errors in the columns themselves, and errors in the true classes.",
        "Images unlike those in this table: other times, places, cameras or shares of groups.",
        "What a wrong answer costs the people concerned, and what is done with the answers.",
    ]


def _named(rule: Mapping[str, Any]) -> str:
    return f"{rule['name']} ({shown(rule['column'])})" if rule["column"] else str(rule["name"])


def _unknown_share(table: AuditTable) -> dict[str, float]:
    """Of each column the share of images of which it isn't known; of an intersection, any part of it."""
    n = max(len(table.y_true_N), 1)
    shares = {}
    for column, grouping in table.columns.items():
        is_missing = np.array([is_not_known(name) for name in grouping.names], bool)
        shares[column] = float(images_per_group(grouping)[is_missing].sum()) / n
    return shares


def _overall_values(table: AuditTable, settings: Settings) -> dict[str, dict[str, float | int | None]]:
    """Each metric on all images; None = not measured."""
    values: dict[str, dict[str, float | int | None]] = {}
    for metric in OVERALL:
        is_possible = metric not in ON_PROBABILITIES or table.probs_NC is not None
        if not is_possible or (metric == "abstention" and settings.ask_below is None) or not len(table.y_true_N):
            values[metric] = {"value": None, "low": None, "high": None, "n": 0}
            continue
        (seen,) = own_intervals(table, "", metric, settings)
        low, high = seen.interval(settings.confidence)
        values[metric] = {"value": _number(seen.value), "low": _number(low), "high": _number(high), "n": int(seen.n)}
    return values


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
