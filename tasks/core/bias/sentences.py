"""Findings in words, for a person who never saw the code: group, value, reference, interval, n and limit."""

import unicodedata

from tasks.core.bias.estimates import Comparison
from tasks.core.bias.rules import Rule

REFERENCES = {
    "others": "all other images together",
    "overall": "all images together",
    "largest": "the largest group",
    "highest": "the group with the best value",
    "pairwise": "the other group",
}
DIRECTION_MARKS = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C])
ISOLATE, END_ISOLATE = "\u2068", "\u2069"


def shown(name: str) -> str:
    """A name within a sentence: on one line, and text from right to left is fenced off so that it turns nothing else around."""
    plain = " ".join(str(name).translate(DIRECTION_MARKS).split()) or "(blank)"
    is_turned = any(unicodedata.bidirectional(sign) in ("R", "AL") for sign in plain)
    return f"{ISOLATE}{plain}{END_ISOLATE}" if is_turned else plain


def metric_words(metric: str) -> str:
    name, _, label = metric.partition(":")
    return name.replace("_", " ") + (f" of class {shown(label)}" if label else "")


def reference_words(reference: str) -> str:
    return REFERENCES.get(reference) or f"group {shown(reference.removeprefix('group:'))}"


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    return f"{100 * value:+.1f}"


def group_words(rule: Rule, group: str) -> str:
    if not rule.column:
        return "All images"
    return ("" if rule.reference == "pairwise" else "group ") + shown(group)


def finding(rule: Rule, seen: Comparison, ends: tuple[float, float]) -> str:
    """Value against reference, interval and limit; without the verdict and without a full stop."""
    start = f"{metric_words(rule.metric)} {percent(seen.value)} (n = {seen.n})"
    against = f"({percent(seen.reference_value)}, n = {seen.n_reference})"
    if rule.comparison == "floor":
        return f"{start}, interval {percent(ends[0])} to {percent(ends[1])}; {limit_words(rule)}"
    if rule.is_ratio:
        return (
            f"{start} is {seen.estimate:.2f} times that of {reference_words(rule.reference)} {against}, "
            f"interval {ends[0]:.2f} to {ends[1]:.2f}; {limit_words(rule)}"
        )
    apart = f"{abs(100 * seen.estimate):.1f} points {'above' if seen.estimate > 0 else 'below'}"
    if rule.comparison == "change":
        apart += f" {shown(rule.reference)} on the same images ({percent(seen.reference_value)})"
    else:
        apart += f" {reference_words(rule.reference)} {against}"
    return f"{start} lies {apart}, interval {points(ends[0])} to {points(ends[1])} points; {limit_words(rule)}"


def limit_words(rule: Rule) -> str:
    """What the rule allows."""
    if rule.comparison == "floor":
        return f"allowed: {'at most' if rule.direction < 0 else 'at least'} {100 * rule.limit:g} %"
    if rule.is_ratio:
        least, most = f"{rule.limit:.2f}", f"{1 / rule.limit:.2f}"
        return f"allowed: {_ratio_words(rule, least, most)}"
    side = {1: "below", -1: "above", 0: "apart"}[rule.direction if not rule.is_two_sided else 0]
    return f"allowed: at most {100 * rule.limit:g} points {side}"


def _ratio_words(rule: Rule, least: str, most: str) -> str:
    if rule.is_two_sided:
        return f"{least} to {most} times"
    return f"at most {most} times" if rule.direction < 0 else f"at least {least} times"


def counted(n: int, thing: str) -> str:
    return f"{n:,} {thing}{'' if n == 1 else 's'}"


def listed(sentences: list[str], most: int = 3) -> str:
    """The first few, and how many there are beside."""
    rest = len(sentences) - most
    return "; ".join(sentences[:most]) + (f"; and {rest:,} more" if rest > 0 else "")
