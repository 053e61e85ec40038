"""Rules judged on a table: pass, fail or inconclusive, for each group and for the rule.

A rule passes when the interval of every group lies inside the limit: each has to, so no correction is needed
(intersection-union test, Berger 1982). A group fails when its interval lies wholly beyond the limit at Holm's level (1979):
α over the number of judged groups that haven't failed yet. The groups of all required rules are one family, since any of
them decides the verdict; the groups of an advisory rule are a family of their own.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from tasks.core.bias import power
from tasks.core.bias.asking import Asked, ask
from tasks.core.bias.counts import CLASS_SHARES, SHARES, Settings, base_name
from tasks.core.bias.estimates import Comparison
from tasks.core.bias.rules import Rule
from tasks.core.bias.score import Ends
from tasks.core.bias.sentences import counted, finding, group_words, listed, points, shown
from tasks.core.bias.table import AuditTable

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"
CORRECTION = "holm"


def judge_rules(
    rules: Sequence[Rule],
    table: AuditTable,
    settings: Settings,
    known_groups: Mapping[str, Sequence[str]] | None = None,
) -> list[dict[str, Any]]:
    """One entry of the verdict per rule and column; a rule on "*" has one for each plain audit column.

    known_groups: names of groups by column from elsewhere (such as the training images): one without an image here is
    inconclusive, not passed over. ValueError: unknown metric or comparison.
    """
    return conclude([one for rule in rules for one in ask(rule, table, settings, known_groups or {})], settings)


def conclude(asked: Sequence[Asked], settings: Settings) -> list[dict[str, Any]]:
    """One entry of the verdict per rule, in their order."""
    required = [one for one in asked if one.rule.required]
    families = [required, *([one] for one in asked if not one.rule.required)]
    levels: dict[int, list[float]] = {}
    for family in families:
        judged = [(one, seen) for one in family for seen in _judged(one, settings)]
        found = iter(holm_levels([partial(_falls, one.rule, seen) for one, seen in judged], 1 - settings.confidence))
        for one in family:
            levels[id(one)] = [next(found) for _ in _judged(one, settings)]
    return [_entry(one, levels[id(one)], settings) for one in asked]


def holm_levels(is_beyond: Sequence[Callable[[float], bool]], alpha: float) -> list[float]:
    """The level at which Holm's procedure decides each case; is_beyond(confidence) says whether an interval lies wholly beyond.

    Those that don't fall at alpha alone never do, so that only the others are asked again as the number of open cases shrinks.
    """
    m = len(is_beyond)
    levels: dict[int, float] = {}
    candidates = {k for k, beyond in enumerate(is_beyond) if beyond(1 - alpha)}
    while candidates:
        level = alpha / (m - len(levels))
        fallen = {k for k in candidates if is_beyond[k](1 - level)}
        if not fallen:
            break
        levels |= dict.fromkeys(fallen, level)
        candidates -= fallen
    last = alpha / max(m - len(levels), 1)
    return [levels.get(k, last) for k in range(m)]


def hindrance(rule: Rule, seen: Comparison, min_group_size: int) -> tuple[str, int | None]:
    """Why the group can't be judged at all, and how many more images it needs for that; "" where it can."""
    short = min_group_size - seen.n
    if short > 0:
        return f"has {counted(seen.n, 'image')} that count here, too few to judge ({short:,} more needed)", short
    if rule.is_relative and seen.n_reference < min_group_size:
        return f"is compared with {counted(seen.n_reference, 'image')} only, too few to judge", None
    if not (math.isfinite(seen.estimate) and math.isfinite(seen.value)):
        return "could not be measured", None
    return "", 0


def _judged(asked: Asked, settings: Settings) -> list[Comparison]:
    return [seen for seen in asked.comparisons if not hindrance(asked.rule, seen, settings.min_group_size)[0]]


def _falls(rule: Rule, seen: Comparison, confidence: float) -> bool:
    return _is_beyond(rule, seen.interval(confidence))


def _is_beyond(rule: Rule, ends: Ends) -> bool:
    least, most = rule.allowed
    return bool(ends[1] < least or ends[0] > most)


def _is_inside(rule: Rule, ends: Ends) -> bool:
    least, most = rule.allowed
    return bool(least <= ends[0] and ends[1] <= most)


def _entry(asked: Asked, levels: list[float], settings: Settings) -> dict[str, Any]:
    rule, level_of = asked.rule, iter(levels)
    groups = []
    for seen in asked.comparisons:
        why, n_more = hindrance(rule, seen, settings.min_group_size)
        groups.append(_unjudged(rule, seen, why, n_more) if why else _judge(asked, seen, next(level_of), settings))
    groups += [_without_images(rule, name, settings.min_group_size) for name in asked.absent]
    verdict, reason = (INCONCLUSIVE, asked.problem) if asked.problem else _of_rule(asked, groups)
    return {
        "name": rule.name, "metric": rule.metric, "column": rule.column, "comparison": rule.comparison,
        "reference": rule.reference, "limit": rule.limit, "required": rule.required, "verdict": verdict, "reason": reason,
        "correction": CORRECTION, "sampling": asked.sampling, "overall_change": _number(asked.overall),
        "n_for_limit": _n_for_limit(asked, settings), "groups": groups,
    }  # fmt: skip


def _judge(asked: Asked, seen: Comparison, level: float, settings: Settings) -> dict[str, Any]:
    rule = asked.rule
    ends, adjusted = seen.interval(settings.confidence), seen.interval(1 - level)
    plain, strict = _measured(rule, seen, ends, settings.confidence), _measured(rule, seen, adjusted, 1 - level)
    n_more, n_for_power = _n_to_decide(rule, plain, strict)
    if asked.sampling["unit"] == "image" and _is_of_two_rates(rule):
        n_more = _n_more_of_rates(rule, seen, plain, strict)
    said = f"{group_words(rule, seen.group)}: {finding(rule, seen, ends)}"
    if _is_beyond(rule, adjusted):
        verdict, n_more, said = FAIL, 0, f"{said}: wholly beyond it"
    elif _is_inside(rule, ends):
        verdict, n_more, said = PASS, 0, f"{said}: wholly inside"
    else:
        verdict, said = INCONCLUSIVE, f"{said}: undecided, {_decided_by(n_more)}"
        if _is_beyond(rule, ends):
            said += ", since among so many groups one such interval can come by chance"
    return _numbers(seen, ends, adjusted) | {
        "verdict": verdict, "reason": said, "n_more": n_more, "n_for_power": n_for_power,
    }  # fmt: skip


def _n_to_decide(rule: Rule, plain: power.Measured, strict: power.Measured) -> tuple[int | None, int | None]:
    """Images to add, to pass or to fail as the estimate stands, and images for 80 % power to fail (None inside the limit)."""
    least, most = (_scaled(rule, end) for end in rule.allowed)
    if least <= plain.estimate <= most:
        return power.n_more_to_pass(plain, least, most), None
    limit = least if plain.estimate < least else most
    return power.n_more_to_fail(strict, limit), power.n_for_power(strict, limit)


def _is_of_two_rates(rule: Rule) -> bool:
    """Is a group's rate compared with one that doesn't change with the group?"""
    is_fixed = rule.reference in ("others", "largest") or rule.reference.startswith("group:")
    return rule.comparison == "difference" and is_fixed and base_name(rule.metric) in (*SHARES, *CLASS_SHARES)


def _n_more_of_rates(rule: Rule, seen: Comparison, plain: power.Measured, strict: power.Measured) -> int | None:
    least, most = rule.allowed
    is_inside = least <= seen.estimate <= most
    return power.n_more_of_rates(
        (seen.value, seen.reference_value), (seen.n, seen.n_reference), plain.z if is_inside else strict.z,
        (lambda low, high: least <= low and high <= most) if is_inside else (lambda low, high: high < least or low > most),
    )  # fmt: skip


def _decided_by(n_more: int | None) -> str:
    if n_more is None:
        return "and more images of this group alone wouldn't decide"
    return f"about {counted(n_more, 'more image')} of it would decide"


def _unjudged(rule: Rule, seen: Comparison, why: str, n_more: int | None) -> dict[str, Any]:
    nothing = (math.nan, math.nan)
    return _numbers(seen, nothing, nothing) | {
        "verdict": INCONCLUSIVE, "reason": f"{group_words(rule, seen.group)} {why}", "n_more": n_more, "n_for_power": None,
    }  # fmt: skip


def _without_images(rule: Rule, name: str, min_group_size: int) -> dict[str, Any]:
    nothing = Comparison(name, 0, None, 0, math.nan, math.nan, math.nan, lambda _: (math.nan, math.nan))
    why = f"has no image in this table ({min_group_size:,} needed)"
    return _unjudged(rule, nothing, why, min_group_size)


def _numbers(seen: Comparison, ends: Ends, adjusted: Ends) -> dict[str, Any]:
    numbers = {
        "value": seen.value, "reference_value": seen.reference_value, "estimate": seen.estimate,
        "low": ends[0], "high": ends[1], "adjusted_low": adjusted[0], "adjusted_high": adjusted[1],
    }  # fmt: skip
    return {
        "group": seen.group, "n": int(seen.n), "n_clusters": seen.n_clusters, "n_reference": int(seen.n_reference),
        **{name: _number(value) for name, value in numbers.items()},
    }  # fmt: skip


def _of_rule(asked: Asked, groups: list[dict[str, Any]]) -> tuple[str, str]:
    """The rule's verdict by its groups; one without any judged group is inconclusive."""
    rule, verdicts = asked.rule, {group["verdict"] for group in groups}
    verdict = FAIL if FAIL in verdicts else INCONCLUSIVE if INCONCLUSIVE in verdicts or not groups else PASS
    named = sorted((g for g in groups if g["verdict"] == verdict), key=lambda g: _badness(rule, g), reverse=True)
    what = {FAIL: "beyond the limit", PASS: "inside the limit", INCONCLUSIVE: "undecided"}[verdict]
    of = f"group{'' if len(groups) == 1 else 's'} of {shown(rule.column)}"
    start = f"{len(named):,} of {len(groups):,} {of} {what}: " if rule.column else ""
    reason = _change_words(asked, groups) + start + listed([g["reason"] for g in named], 1 if verdict == PASS else 3)
    if rule.required and asked.sampling["is_limiting"] and verdict != INCONCLUSIVE:
        return (
            INCONCLUSIVE,
            f"{asked.sampling['sentence']}; taken as independent images the rule would be a {verdict}: {reason}",
        )
    return verdict, reason


def _change_words(asked: Asked, groups: list[dict[str, Any]]) -> str:
    """The loss of one group that the gain of the whole hides, first of all."""
    rule = asked.rule
    measured = [group for group in groups if group["low"] is not None]
    if rule.comparison != "change" or rule.is_two_sided or not rule.column or not measured:
        return ""
    worst = max(measured, key=lambda group: _badness(rule, group))
    gain, loss = rule.direction * asked.overall, -rule.direction * worst["estimate"]
    if not (gain > 0 and loss > 0):
        return ""
    return (
        f"overall {points(asked.overall)} points, {group_words(rule, worst['group'])} {points(worst['estimate'])} points "
        f"({points(worst['low'])} to {points(worst['high'])}) against {shown(rule.reference)}; "
    )


def _badness(rule: Rule, group: dict[str, Any]) -> float:
    """The higher the worse; groups that were not measured come last."""
    if group["estimate"] is None:
        return -math.inf
    estimate = _scaled(rule, group["estimate"])
    return abs(estimate) if rule.is_two_sided else -rule.direction * estimate


def _n_for_limit(asked: Asked, settings: Settings) -> int | None:
    """`power.n_for_limit`: without any gap a difference and a change are 0, a ratio 1, and every group's value the whole's."""
    rule, judged = asked.rule, _judged(asked, settings)
    distance = -math.log(rule.limit) if rule.is_ratio else rule.limit
    if rule.comparison == "floor" and judged:
        whole = sum(seen.n * seen.value for seen in judged) / sum(seen.n for seen in judged)
        distance = rule.direction * (whole - rule.limit)
    rest = {"others": len(judged) - 1, "overall": len(judged) - 1}.get(rule.reference, 1)
    return power.n_for_limit(
        [_measured(rule, seen, seen.interval(settings.confidence), settings.confidence) for seen in judged],
        distance,
        others_per_group=max(rest, 1) if rule.is_relative else math.inf,
        is_two_sided=rule.is_two_sided,
    )


def _measured(rule: Rule, seen: Comparison, ends: Ends, confidence: float) -> power.Measured:
    n_other = math.inf
    if rule.is_relative:
        n_other = seen.n_reference - (seen.n if rule.reference == "overall" else 0) or math.inf
    estimate, low, high = (_scaled(rule, value) for value in (seen.estimate, *ends))
    return power.Measured(seen.n, n_other, estimate, low, high, confidence, _own_share(rule, seen, n_other))


def _own_share(rule: Rule, seen: Comparison, n_other: float) -> float | None:
    """None where the two sides aren't rates of their own."""
    if not rule.is_relative or base_name(rule.metric) not in (*SHARES, *CLASS_SHARES):
        return None
    other = seen.reference_value
    if rule.reference == "overall":
        other = (other * seen.n_reference - seen.value * seen.n) / n_other
    return power.share_of_rates(seen.value, seen.n, other, n_other, is_ratio=rule.is_ratio)


def _scaled(rule: Rule, value: float) -> float:
    """The scale on which intervals are about symmetric: the logarithm for ratios."""
    if not rule.is_ratio:
        return float(value)
    return math.log(value) if 0 < value < math.inf else (-math.inf if value <= 0 else value)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
