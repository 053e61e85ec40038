"""A rule put to a table: what was measured for it, or why nothing can be."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tasks.core.bias.clusters import MIN_CLUSTERS, sampling_unit
from tasks.core.bias.counts import ON_PROBABILITIES, Settings
from tasks.core.bias.estimates import MAX_PAIRED_GROUPS, Comparison, compare
from tasks.core.bias.rules import EVERY_COLUMN, Rule
from tasks.core.bias.sentences import counted, shown
from tasks.core.bias.table import THIRDS, TIMES, AuditTable, Grouping, grouping_of


@dataclass(frozen=True)
class Asked:
    """A rule on one column with what was measured for it.

    problem: why nothing can be compared. absent: groups known from elsewhere, without an image here. sampling: `sampling_of`.
    overall: the change of all images together.
    """

    rule: Rule
    comparisons: Sequence[Comparison]
    sampling: dict[str, Any]
    problem: str = ""
    absent: Sequence[str] = ()
    overall: float = math.nan


def ask(rule: Rule, table: AuditTable, settings: Settings, known_groups: Mapping[str, Sequence[str]]) -> list[Asked]:
    """The rule on its column, or on each plain audit column for "*". ValueError: unknown metric or comparison."""
    if rule.column != EVERY_COLUMN:
        return [_ask(rule, table, settings, known_groups)]
    columns = plain_columns(table)
    if not columns:
        return [Asked(rule, [], _no_clusters(), "the table has no audit column, so no group could be judged")]
    return [_ask(replace(rule, column=column), table, settings, known_groups) for column in columns]


def plain_columns(table: AuditTable) -> list[str]:
    """The audit columns themselves, without intersections and slices."""
    return [name for name in table.columns if TIMES not in name and not name.endswith(THIRDS)]


def sampling_of(table: AuditTable, column: str, settings: Settings) -> dict[str, Any]:
    """unit, n_clusters (of the judged group that has fewest), is_limiting, and a sentence on what the intervals take as drawn."""
    sampling, grouping = sampling_unit(table, column, settings), grouping_of(table, column)
    if sampling.n_clusters_G is None:
        return _no_clusters()
    n_clusters_G = np.asarray(sampling.n_clusters_G)
    judged = np.flatnonzero(images_per_group(grouping) >= settings.min_group_size)
    fewest = int(judged[n_clusters_G[judged].argmin()]) if len(judged) else int(n_clusters_G.argmin())
    n_clusters = int(n_clusters_G[fewest])
    whose = f"group {shown(grouping.names[fewest])} of {shown(column)}" if column else "the table"
    is_limiting = sampling.unit == "image"
    if is_limiting:
        sentence = (
            f"{whose} holds images of only {counted(n_clusters, 'group_id')} (fewer than {MIN_CLUSTERS}), so the intervals take "
            "each image as drawn by itself and may be too narrow"
        )
    else:
        fewest_of = " the fewest," if column else ""
        sentence = (
            f"the intervals allow for images of one group_id being alike; {whose} holds{fewest_of} {n_clusters:,}"
        )
    return {"unit": sampling.unit, "n_clusters": n_clusters, "is_limiting": is_limiting, "sentence": sentence}


def images_per_group(grouping: Grouping) -> np.ndarray:
    return np.bincount(grouping.codes_N, minlength=len(grouping.names))


def _no_clusters() -> dict[str, Any]:
    sentence = "no two images share a group_id, so the intervals take each image as drawn by itself"
    return {"unit": "image", "n_clusters": None, "is_limiting": False, "sentence": sentence}


def _ask(rule: Rule, table: AuditTable, settings: Settings, known_groups: Mapping[str, Sequence[str]]) -> Asked:
    known = set(known_groups.get(rule.column, ()))
    if rule.column and rule.column not in table.columns:
        return Asked(rule, [], _no_clusters(), f"column {shown(rule.column)} is absent from the table", sorted(known))
    grouping = grouping_of(table, rule.column)
    n_G = images_per_group(grouping)
    absent = sorted(known.union(grouping.names) - {grouping.names[g] for g in np.flatnonzero(n_G)})
    problem = _problem(rule, table, settings, n_G)
    if problem:
        return Asked(rule, [], _no_clusters(), problem, absent)
    comparison = "ratio" if rule.is_ratio else rule.comparison
    found = compare(table, rule.column, rule.metric, comparison, rule.reference, settings)
    problem = (
        "" if found else f"there is nothing to compare with: no group of {shown(rule.column)} can be the reference"
    )
    return Asked(
        rule,
        [seen for seen in found if seen.group not in absent],
        sampling_of(table, rule.column, settings),
        problem,
        absent,
        _overall_change(rule, table, settings),
    )


def _overall_change(rule: Rule, table: AuditTable, settings: Settings) -> float:
    if rule.comparison != "change":
        return math.nan
    (whole,) = compare(table, "", rule.metric, "change", rule.reference, settings)
    return whole.estimate


def _problem(rule: Rule, table: AuditTable, settings: Settings, n_G: np.ndarray) -> str:
    """Why the rule can't be asked of this table; "" where it can."""
    name, _, label = rule.metric.partition(":")
    n_groups = int((n_G > 0).sum())
    named = rule.reference.removeprefix("group:")
    checks = [
        (n_groups == 0, "the table holds no image"),
        (
            label and label not in table.classes,
            f"class {shown(label)} is absent: no image has it, and none is taken for it",
        ),
        (
            name in ON_PROBABILITIES and table.probs_NC is None,
            f"{name.replace('_', ' ')} needs probabilities; none were given",
        ),
        (name == "abstention" and settings.ask_below is None, "no confidence is set below which the model abstains"),
        (
            rule.comparison == "change" and rule.reference not in table.baselines,
            f"no predictions of {shown(rule.reference)} were given to compare with",
        ),
        (
            rule.is_relative and n_groups < 2,
            f"column {shown(rule.column)} holds {counted(n_groups, 'group')}; at least two are needed to compare",
        ),
        (
            rule.is_relative and named != rule.reference and named not in grouping_of(table, rule.column).names,
            f"group {shown(named)}, which the others are compared with, is absent from column {shown(rule.column)}",
        ),
        (
            rule.reference == "pairwise" and len(n_G) > MAX_PAIRED_GROUPS,
            f"{len(n_G):,} groups make too many pairs to judge (at most {MAX_PAIRED_GROUPS} groups); compare with others",
        ),
    ]
    return next((why for is_so, why in checks if is_so), "")
