"""Values of groups and their comparisons, each with an interval at any confidence.

Axes: N images, G groups.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from tasks.core.bias.counts import (
    LOWER_IS_BETTER,
    ON_PROBABILITIES,
    Settings,
    Strata,
    base_name,
    strata_of,
    values_of,
)
from tasks.core.bias.part import NOWHERE, Estimate
from tasks.core.bias.samples import Parts, parts_of
from tasks.core.bias.score import Ends, difference_ends, ratio_ends, share_of_whole
from tasks.core.bias.table import NOT_KNOWN, AuditTable

MAX_PAIRED_GROUPS = 100
REFERENCES = ("others", "overall", "largest", "highest", "pairwise")


@dataclass(frozen=True)
class Comparison:
    """One group's value against its reference's. interval: the estimate's two-sided interval at a confidence.

    n counts the images that the metric is taken over (recall: those of the class); n_clusters is None where no two images share
    a cluster, whether or not the interval takes clusters as draws (`clusters.sampling_unit` says). NaN: not measured.
    """

    group: str
    n: int
    n_clusters: int | None
    n_reference: int
    value: float
    reference_value: float
    estimate: float
    interval: Callable[[float], Ends]


def own_intervals(table: AuditTable, column: str, metric: str, settings: Settings) -> list[Comparison]:
    """Each group's value by itself, in the order of the column's names. ValueError: unknown column or metric."""
    parts = _parts(table, column, metric, settings)
    found = []
    for g, name in enumerate(parts.names):
        own = parts.group(g)
        found.append(Comparison(name, own.n, parts.n_clusters(g), 0, own.value, math.nan, own.value, own.limits))
    return found


def compare(
    table: AuditTable, column: str, metric: str, comparison: str, reference: str, settings: Settings
) -> list[Comparison]:  # fmt: skip
    """Each group against the reference; a reference group isn't compared with itself.

    comparison: "difference", "ratio" (NaN where the reference value is 0; the high end may be infinite), "floor" (the value
    itself) or "change" (against the baseline `reference`; NaN for metrics on probabilities, which a baseline doesn't bring).
    reference: "others", "overall", "largest", "highest", "pairwise" (the worse one of a pair first) or "group:<name>".
    Empty where there is nothing to compare with: one group only, no such group or baseline, none large enough for "highest".
    ValueError: unknown column, metric or word; "pairwise" over more than MAX_PAIRED_GROUPS groups.
    """
    if comparison == "floor":
        return own_intervals(table, column, metric, settings)
    if comparison == "change":
        return _changes(table, column, metric, reference, settings)
    if comparison not in ("difference", "ratio"):
        raise ValueError(f"comparison {comparison!r} isn't known; allowed are difference, ratio, floor and change")
    if reference not in REFERENCES and not reference.startswith("group:"):
        raise ValueError(f"reference {reference!r} isn't known; allowed are {', '.join(REFERENCES)} and group:<name>")
    parts = _parts(table, column, metric, settings)
    if len(parts.names) < 2:
        return []
    everyone = range(len(parts.names))
    if reference in ("others", "overall"):
        return [_with_rest(parts, g, comparison, reference) for g in everyone]
    if reference == "pairwise":
        return _pairs(parts, comparison, metric)
    chosen, n_choices = _chosen(parts, reference, metric, settings)
    if chosen is None:
        return []
    there = parts.group(chosen)
    return [_against(parts, g, there, comparison, n_choices=n_choices) for g in everyone if g != chosen]


def _parts(table: AuditTable, column: str, metric: str, settings: Settings) -> Parts:
    return parts_of(table, column, metric, settings, strata_of(table, metric, settings, table.y_pred_N))


def _against(parts: Parts, g: int, there: Estimate, comparison: str, *, n_choices: int = 1) -> Comparison:
    """A group against a sample that shares no image with it.

    n_choices: among how many the reference was chosen after looking at the values; the level is divided by it (Bonferroni).
    """
    own = parts.group(g)

    def interval(confidence: float) -> Ends:
        if math.isnan(own.value) or math.isnan(there.value):
            return NOWHERE
        family = 1 - (1 - confidence) / n_choices
        ends = difference_ends if comparison == "difference" else ratio_ends
        return ends(own.at(family), there.at(family), _correlation(own, there))

    estimate = own.value - there.value if comparison == "difference" else _ratio(own.value, there.value)
    return Comparison(parts.names[g], own.n, parts.n_clusters(g), there.n, own.value, there.value, estimate, interval)


def _with_rest(parts: Parts, g: int, comparison: str, reference: str) -> Comparison:
    """A group against all images outside it, or against all images.

    A rate of all images is the mean of the group's and the rest's by their numbers of images, so a difference from it is the
    difference from the rest, shrunk by the rest's share, and a ratio follows from the ratio to the rest likewise. A metric
    that isn't a rate keeps its own estimate; the interval is shrunk in the same way around it.
    """
    to_rest = _against(parts, g, parts.rest(g), comparison)
    if reference == "others" or to_rest.n == 0 or to_rest.n_reference == 0:
        return to_rest
    value, n = parts.whole
    share = to_rest.n / n
    if comparison == "difference":
        estimate = to_rest.value - value

        def interval(confidence: float) -> Ends:
            low, high = (estimate + (1 - share) * (end - to_rest.estimate) for end in to_rest.interval(confidence))
            return low, high
    else:
        estimate = _ratio(to_rest.value, value)

        def interval(confidence: float) -> Ends:
            low, high = (share_of_whole(end, share) for end in to_rest.interval(confidence))
            moved = estimate / share_of_whole(to_rest.estimate, share) if to_rest.estimate > 0 else 1.0
            return low * moved, high * moved

    return replace(to_rest, n_reference=n, reference_value=value, estimate=estimate, interval=interval)


def _pairs(parts: Parts, comparison: str, metric: str) -> list[Comparison]:
    """Every two groups once, the worse one first."""
    if len(parts.names) > MAX_PAIRED_GROUPS:
        raise ValueError(
            f"{len(parts.names)} groups make too many pairs; at most {MAX_PAIRED_GROUPS} groups can be compared "
            "pairwise, choose overall or others as the reference"
        )
    own = [parts.group(g) for g in range(len(parts.names))]
    better = -1 if base_name(metric) in LOWER_IS_BETTER else 1
    found = []
    for g, h in combinations(range(len(parts.names)), 2):
        worse, other = (h, g) if better * (own[h].value - own[g].value) < 0 else (g, h)
        pair = _against(parts, worse, own[other], comparison)
        found.append(replace(pair, group=f"{parts.names[worse]} against {parts.names[other]}"))
    return found


def _chosen(parts: Parts, reference: str, metric: str, settings: Settings) -> tuple[int | None, int]:
    """The reference group's place, None where there is none, and among how many it was chosen by its value.

    Images whose attribute isn't known are no reference unless they are named.
    """
    if reference.startswith("group:"):
        name = reference.removeprefix("group:")
        return (parts.names.index(name) if name in parts.names else None), 1
    known = [g for g, name in enumerate(parts.names) if name != NOT_KNOWN]
    if reference == "largest":
        sizes = parts.sums.n_GS.sum(1)
        return max(known, key=lambda g: sizes[g], default=None), 1
    value_G, n_G = values_of(parts.kind, parts.sums.n_GS, parts.sums.x_GS)
    large = [g for g in known if n_G[g] >= max(settings.min_group_size, 1)]
    better = -1 if base_name(metric) in LOWER_IS_BETTER else 1
    return max(large, key=lambda g: better * value_G[g], default=None), max(len(large) - 1, 1)


def _changes(
    table: AuditTable, column: str, metric: str, baseline: str, settings: Settings
) -> list[Comparison]:  # fmt: skip
    """Each group's change against the baseline on the same images.

    Paired where both are rates over the same images or mean recalls; a precision and a worst class are over other images
    under another model, so theirs are compared as if independent, which is rather too wide than too narrow.
    """
    if baseline not in table.baselines:
        return []
    one = _parts(table, column, metric, settings)
    if base_name(metric) in ON_PROBABILITIES:
        nothing = Estimate(math.nan, 0, lambda _: NOWHERE)
        return [_change(one, g, nothing, math.nan, nothing.limits) for g in range(len(one.names))]
    strata = [strata_of(table, metric, settings, y) for y in (table.y_pred_N, table.baselines[baseline])]
    other = parts_of(table, column, metric, settings, strata[1])
    gains = None
    if one.kind in GAINS and (strata[0].stratum_N == strata[1].stratum_N).all():
        gain = Strata(GAINS[one.kind], strata[0].stratum_N, strata[0].x_N - strata[1].x_N, strata[0].n_strata)
        gains = parts_of(table, column, f"change of {metric} from {baseline}", settings, gain)
    found = []
    for g in range(len(one.names)):
        own, there = one.group(g), other.group(g)
        limits = _apart(own, there) if gains is None else gains.group(g).limits
        found.append(_change(one, g, there, own.value - there.value, limits))
    return found


GAINS = {"share": "gain", "balanced": "balanced_gain"}


def _apart(own: Estimate, there: Estimate) -> Callable[[float], Ends]:
    return lambda confidence: difference_ends(own.at(confidence), there.at(confidence))


def _change(parts: Parts, g: int, there: Estimate, estimate: float, limits: Callable[[float], Ends]) -> Comparison:
    own = parts.group(g)
    return Comparison(parts.names[g], own.n, parts.n_clusters(g), there.n, own.value, there.value, estimate, limits)


def _ratio(value: float, reference: float) -> float:
    return value / reference if reference != 0 else math.nan


def _correlation(own: Estimate, there: Estimate) -> float:
    """How far clusters that hold images on both sides move both alike."""
    if own.told_J is None or there.told_J is None:
        return 0.0
    one_J, other_J = own.told_J(), there.told_J()
    size = float(np.linalg.norm(one_J) * np.linalg.norm(other_J))
    return float(one_J @ other_J) / size if size > 0 else 0.0
