"""How the audit's page and its summary say things: numbers, rules, outcomes, text that comes from data."""

import math
import re
from collections.abc import Hashable, Mapping
from typing import Any

from tasks.core.bias.clusters import MIN_CLUSTERS
from tasks.core.bias.rules import Rule
from tasks.core.bias.sentences import counted, metric_words, reference_words, shown

MINUS = "−"  # a screen reader may skip a hyphen
NOT_MEASURED, NOT_JUDGED = "not measured", "not judged"
MAX_TEXT = 1500
MANY = 1_000_000
CLUSTER = "group_id"
FENCES = "\u2068\u2069"
ORDER = ("fail", "inconclusive", "pass")
OUTCOMES = {"pass": "✓ pass", "fail": "✗ fail", "inconclusive": "? inconclusive"}
VERDICTS = {
    "pass": (
        "Every required rule is met: no disparity above the limits was found.",
        "Are these the rules and groups that matter for this use, and can what was not tested be accepted?",
    ),
    "fail": (
        "At least one required rule is broken, by more than chance explains.",
        "Is the model held back, or is there a reason, given in writing, to use it in spite of that?",
    ),
    "inconclusive": (
        "These images can't settle at least one required rule, in either direction.",
        "Are more images gathered first (see “what would decide”), or is there a reason, given in writing, to go on without?",
    ),
}
MARKUP = re.compile(r"[\\`*_{}\[\]()#+!|~:.-]")  # also the signs that start lists, links and bare addresses
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}
MAX_NAME = 90
DEFINITIONS = {
    "accuracy": "share of the images whose class is predicted right",
    "balanced accuracy": "mean of the recalls of the classes that occur in the group, so that a rare class counts as much as a "
    "common one",
    "worst class": "the class of the group with the lowest recall, and that recall",
    "recall": "of the images that truly are of the class, the share predicted as it; 1 minus the false negative rate",
    "precision": "of the images predicted as the class, the share that truly are of it",
    "false positive rate": "of the images that are of any other class, the share predicted as the class",
    "selection rate": "of all images of the group, the share predicted as the class",
    "base rate": "of all images of the group, the share that truly are of the class",
    "calibration error": "how far the stated confidence lies from the share that is right, on average over 15 bins of confidence",
    "mean confidence": "the probability that the model gives its own prediction, averaged; above the accuracy it is too sure",
    "abstention": "share of the images whose confidence lies below the threshold under which a person is asked",
}


KINDS = {
    "groups": "Groups",
    "crossed": "Intersections",
    "slices": "Slices by facts of the images",
    "classes": "Classes within groups",
}
NOT_GIVEN = {
    "change": (
        "Change against other models",
        "No predictions of another model on these images were given, so it isn't known who gained and who lost.",
    ),
    "crossed": ("Intersections", "No audit columns were crossed."),
    "slices": ("Slices by facts of the images", "No facts of the images were asked for."),
    "data": (
        "What the data hold",
        "No training data were given, so nothing is known about how well each group is represented in them.",
    ),
    "explanations": (
        "Errors looked at",
        "No images of errors were given: what the errors have in common was not looked at.",
    ),
    "trade": (
        "Accuracy against the worst group",
        "No other model was run on these images, so no alternative can be weighed; no thresholds per group were asked for.",
    ),
}  # sections of the page, by anchor, and what is said where there is nothing to show in them
UNIT_NOTE = (
    "It is the unit of sampling, not an attribute: a gap between two of its groups is one between two patients, videos or "
    "cameras, and says nothing about a kind of person or place."
)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(value: Any, digits: int = 2) -> str:
    if not is_number(value):
        return NOT_MEASURED
    text = f"{round(float(value), digits) + 0.0:,.{digits}f}"  # + 0.0: no "-0.0"
    return text.replace("-", MINUS)


def percent(share: Any, digits: int = 1) -> str:
    """As 81.2 % of a share 0..1."""
    return f"{number(100 * share, digits)} %" if is_number(share) else NOT_MEASURED


def signed_points(difference: Any) -> str:
    """A difference of shares in percentage points with its sign: +1.2 or −3.0."""
    text = number(100 * difference, 1) if is_number(difference) else NOT_MEASURED
    return f"+{text}" if text[0].isdigit() else text


def points(difference: Any) -> str:
    return f"{signed_points(difference)} points" if is_number(difference) else NOT_MEASURED


def found_words(row: Mapping[Hashable, Any]) -> str:
    """A group's accuracy beside that of all other images, or the recall of a class in a group: with interval and n."""
    if "recall" in row:
        ends = ends_words(percent(row["recall_low"]), percent(row["recall_high"]))
        return f"recall {percent(row['recall'])} ({ends}), n = {row['n_true']:,}"
    side = "below" if row["gap"] < 0 else "above"
    gap = f"{number(abs(100 * row['gap']), 1)} points {side} all other images"
    ends = ends_words(signed_points(row["gap_low"]), signed_points(row["gap_high"]))
    return f"accuracy {percent(row['accuracy'])}, {gap} ({ends}), n = {row['n']:,}"


def picked_words(finding: Mapping[str, Any]) -> str:
    """Out of how many groups those named were picked, and whether chance may explain them."""
    n, n_worse = finding["n_judged"], finding["n_worse"]
    if finding["kind"] == "classes":
        return f"of {n:,} recalls, {n_worse:,} lie{'s' * (n_worse == 1)} wholly below the accuracy over all, each by itself"
    if n_worse:
        return f"of {n:,}, {n_worse:,} {'is' if n_worse == 1 else 'are'} worse than all other images beyond what chance explains"
    return f"of {n:,}, none is shown to be worse than all other images; the largest gap, which chance may explain"


def interval(value: Any, ends: tuple[Any, Any], say: Any, unit: str = "") -> str:
    """The value with its interval in brackets; a value without one isn't told, since too few images stand behind it."""
    return f"{say(value)}{unit} ({ends_words(*map(say, ends))})" if all(map(is_number, ends)) else NOT_JUDGED


def ends_words(low: str, high: str) -> str:
    """Both ends of an interval behind a value that carries the unit."""
    return f"{low.removesuffix(' %')} to {high.removesuffix(' %')}"


def rule_of(entry: dict[str, Any]) -> Rule:
    """The rule of one entry of the verdict."""
    return Rule(**{name: entry[name] for name in Rule.__dataclass_fields__})


def estimate_words(rule: Rule, value: Any) -> str:
    """An estimate in the rule's own unit: points of a difference or change, a ratio, a share of a floor."""
    if rule.is_ratio:
        return number(value)
    return percent(value) if rule.comparison == "floor" else signed_points(value)


def unit_of(rule: Rule) -> str:
    """ " points" behind a difference or change; a ratio has no unit, a floor's is the percent sign."""
    return "" if rule.is_ratio or rule.comparison == "floor" else " points"


def limit_words(rule: Rule) -> str:
    """What the rule allows of the estimate, in its unit: "at least −5.0 points"."""
    least, most = (estimate_words(rule, end) if is_number(end) else "" for end in rule.allowed)
    if least and most:
        return f"{least} to {most}{unit_of(rule)}"
    return f"at least {least}{unit_of(rule)}" if least else f"at most {most}{unit_of(rule)}"


def rule_words(rule: Rule) -> str:
    """The rule as a sentence for somebody who never saw the code."""
    metric, column, reference = metric_words(rule.metric), shown(rule.column), reference_words(rule.reference)
    each = f"each group of {column}" if rule.column else "all images together"
    if rule.comparison == "floor":
        return f"The {metric} of {each} has to be {limit_words(rule)}."
    if rule.is_ratio:
        return f"The {metric} of {each}, divided by that of {reference}, has to be {limit_words(rule)}."
    gap = f"more than {number(100 * rule.limit, 1)} points"
    if rule.comparison == "change":
        who = f"No group of {column} may" if rule.column else "All images together may not"
        verb = "move by" if rule.is_two_sided else "lose" if rule.direction > 0 else "gain"
        of = f"{gap} {'in' if rule.is_two_sided else 'of'} {metric}"
        return f"{who} {verb} {of} against {shown(rule.reference)}, on the same images."
    if rule.reference == "pairwise":
        return f"The {metric} of no two groups of {column} may lie {gap} apart."
    side = "away from" if rule.is_two_sided else "below" if rule.direction > 0 else "above"
    return f"The {metric} of no group of {column} may lie {gap} {side} that of {reference}."


def by_badness(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The rule's groups: failed ones first, then undecided ones, the worst estimate of each on top."""
    rule = rule_of(entry)
    return sorted(
        entry["groups"], key=lambda g: (ORDER.index(g["verdict"]), -_badness(rule, g["estimate"]), g["group"])
    )


def deciding_group(entry: dict[str, Any]) -> dict[str, Any] | None:
    """The group that makes the rule's outcome what it is: the worst one measured of those with that outcome."""
    groups = by_badness(entry)
    own = [group for group in groups if group["verdict"] == entry["verdict"]] or groups
    return next((group for group in own if is_number(group["low"])), own[0] if own else None)


def deciding_ends(group: dict[str, Any]) -> tuple[Any, Any]:
    """The interval that the outcome rests on: of a failed group the wider one, at Holm's level."""
    name = "adjusted_" if group["verdict"] == "fail" else ""
    return group[f"{name}low"], group[f"{name}high"]


def what_would_decide(entry: dict[str, Any]) -> str:
    """What to gather; "" where the rule is decided."""
    undecided = [g for g in by_badness(entry) if g["verdict"] == "inconclusive"]
    is_limited = entry["required"] and entry["sampling"].get("is_limiting")
    if entry["verdict"] != "inconclusive" or not (undecided or is_limited):
        return ""
    judged = [g for g in undecided if g["low"] is not None]
    told = [f"{n_more_words(g['n_more'])} more of {shown(g['group'])}" for g in judged if g["n_more"]][:2]
    rest = len(judged) - len(told)
    if judged and not told:
        told, rest = (
            ["not more images of these groups alone: it lies on the limit, or too few are there to compare with"],
            0,
        )
    if rest:
        told.append(f"{rest:,} more group{'s are' if rest > 1 else ' is'} open")
    if n_small := len(undecided) - len(judged):
        told.append(f"{n_small:,} group{'s have' if n_small > 1 else ' has'} too few images to be judged at all")
    if is_limited:
        told.append(
            f"images of at least {MIN_CLUSTERS} {CLUSTER}s in every group; the fewest now: {entry['sampling']['n_clusters']}"
        )
    return "; ".join(told)


def unless_words(entry: dict[str, Any], worst: dict[str, Any] | None) -> str:
    """Why a rule stays open although its groups don't; "" where its outcome is that of the group it is told by."""
    if worst is None or worst["verdict"] == entry["verdict"] or not entry["sampling"]["is_limiting"]:
        return ""
    return (
        f"a {worst['verdict']} if each image were drawn by itself, but some group's images come from only "
        f"{counted(entry['sampling']['n_clusters'], CLUSTER)} ({MIN_CLUSTERS} are needed)"
    )


def n_more_words(n: int) -> str:
    return f"about {n:,}" if n <= MANY else "over a million"


def spelled(text: str, limit: int = MAX_TEXT) -> str:
    """The text with hidden characters (controls, marks that turn the direction) spelled out, cut to `limit` characters.

    The pair of marks that fences off a name written from right to left stays.
    """
    found = "".join(
        c if c.isprintable() or c in FENCES else c.encode("unicode_escape").decode() for c in text[: limit + 1]
    )
    return found if len(found) <= limit else f"{found[: limit - 1]}…"


def plain(text: str, limit: int = MAX_NAME) -> str:
    """Text that Markdown shows as it is: on one line, without markup, links or HTML; hidden characters are spelled out."""
    escaped = MARKUP.sub(r"\\\g<0>", spelled(str(text), limit))
    return "".join(ENTITIES.get(sign, sign) for sign in escaped).strip()


def _badness(rule: Rule, estimate: Any) -> float:
    """How far an estimate points to a breach, for sorting: -inf where nothing was measured."""
    if not is_number(estimate):
        return -math.inf
    if not rule.is_two_sided:
        return -rule.direction * float(estimate)
    if rule.is_ratio:
        return abs(math.log(estimate)) if estimate > 0 else math.inf
    return abs(float(estimate))
