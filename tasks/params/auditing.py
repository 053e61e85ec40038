"""The section of params.yaml on the bias audit; the same keys make a rules file for tables of predictions."""

import difflib
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from tasks.params.rules import Confidence, Section
from tasks.params.training import Name

PLAIN_METRICS = (
    "accuracy", "balanced_accuracy", "worst_class_recall", "abstention", "calibration_error", "mean_confidence",
)  # fmt: skip
ON_PROBABILITIES = ("abstention", "calibration_error", "mean_confidence")
CLASS_METRICS = ("recall", "precision", "false_positive_rate", "false_negative_rate", "selection_rate", "base_rate")
REFERENCES = ("others", "overall", "largest", "highest", "pairwise")
ONE_GROUP = "group:"
ALL_IMAGES = ""
CLUSTER = "group_id"
FOUR_FIFTHS = 0.8
Comparison = Literal["difference", "ratio", "four_fifths", "floor", "change"]


def refused(sentence: str) -> PydanticCustomError:
    """An error that `reading` prints behind the key and its value, word for word."""
    return PydanticCustomError("audit_rule", "{sentence}", {"sentence": sentence})


def known_metric(metric: str) -> str:
    name, has_class, label = metric.partition(":")
    if metric in PLAIN_METRICS or (name in CLASS_METRICS and label):
        return metric
    if name in CLASS_METRICS:
        raise refused(f"it is counted class by class: write '{name}:<class>'")
    if name in PLAIN_METRICS and has_class:
        raise refused(f"it is counted over all classes: write {name!r}")
    near = difflib.get_close_matches(name, [*PLAIN_METRICS, *CLASS_METRICS], n=1, cutoff=0.5)
    allowed = [*PLAIN_METRICS, *(f"{known}:<class>" for known in CLASS_METRICS)]
    raise refused(f"did you mean {near[0]!r}?" if near else f"allowed are {', '.join(allowed)}")


def check_group_reference(reference: str) -> None:
    is_named_group = reference.startswith(ONE_GROUP) and reference != ONE_GROUP
    if reference not in REFERENCES and not is_named_group:
        raise refused(f"allowed are {', '.join(REFERENCES)}, or '{ONE_GROUP}<name>'")


def check_no_reference(reference: str) -> None:
    if reference:
        raise refused("a floor is asked of each group by itself: write ''")


def check_highest(reference: str) -> None:
    if reference != "highest":
        raise refused("four_fifths compares with the group that has the best value: write 'highest', or use ratio")


def check_baseline(reference: str) -> None:
    if not reference or reference in REFERENCES or reference.startswith(ONE_GROUP):
        raise refused("a change is measured against another model: name it, such as source_only or baseline")


CHECKS_OF_REFERENCE: dict[str, Callable[[str], None]] = {
    "difference": check_group_reference,
    "ratio": check_group_reference,
    "four_fifths": check_highest,
    "floor": check_no_reference,
    "change": check_baseline,
}


class AuditRule(Section):
    """What no group may be: worse than its reference by more than `limit`; tasks.core.bias.rules has the comparisons.

    column: an audit column, "*" = each of them, "" = all images as one group, "a × b" = an intersection.
    """

    name: Annotated[str, Field(min_length=1)]
    metric: Annotated[str, AfterValidator(known_metric)]
    column: str
    comparison: Comparison
    reference: str
    limit: Annotated[float, Field(ge=0, le=1)]
    required: bool

    @field_validator("comparison")
    @classmethod
    def comparison_fits(cls, comparison: str, info: ValidationInfo) -> str:
        if comparison == "change" and info.data.get("metric") in ON_PROBABILITIES:
            raise refused(
                "of the other model only predictions are known, no probabilities: ask for a difference or a floor"
            )
        if info.data.get("column") == ALL_IMAGES and comparison not in ("floor", "change"):
            raise refused("column '' is all images as one group: only a floor or a change can be asked of it")
        return comparison

    @field_validator("reference")
    @classmethod
    def reference_fits(cls, reference: str, info: ValidationInfo) -> str:
        if comparison := info.data.get("comparison"):
            CHECKS_OF_REFERENCE[comparison](reference)
        return reference

    @field_validator("limit")
    @classmethod
    def limit_fits(cls, limit: float, info: ValidationInfo) -> float:
        comparison = info.data.get("comparison")
        if comparison == "four_fifths" and limit != FOUR_FIFTHS:
            raise refused(f"four_fifths means {FOUR_FIFTHS}; use ratio for another limit")
        if comparison == "ratio" and limit == 0:
            raise refused("every ratio is above 0, so nothing could fail")
        if comparison in ("difference", "change") and limit == 1:
            raise refused("no two values differ by more than 1, so nothing could fail")
        return limit


class Thresholds(Section):
    """fairlearn's ThresholdOptimizer: a threshold per group of the column for the class `positive`, "*" = for each class.

    constraint: what the groups then have alike; objective: what is best under it. Measured on the test, never shipped.
    """

    column: Name
    positive: Annotated[str, Field(min_length=1)]
    constraint: Literal[
        "true_positive_rate_parity", "false_positive_rate_parity", "demographic_parity", "equalized_odds"
    ]
    objective: Literal["accuracy", "balanced_accuracy"]


class AuditRules(Section):
    """The section `audit_bias`; slices are cut from facts of images, so a table of predictions has none.

    columns_explained: what a column, a slice or group_id stands for and where it comes from, in a sentence for the page.
    """

    confidence: Confidence
    min_group_size: Annotated[int, Field(ge=2)]
    n_bootstrap: Annotated[int, Field(ge=100)]
    max_intersection_order: Annotated[int, Field(ge=1)]
    slices: list[Name]
    threshold_optimizer: Thresholds | None
    columns_explained: dict[str, Annotated[str, Field(min_length=1)]]
    rules: list[AuditRule]


def problems_between_audit_rules(content: Any, section: str) -> list[str]:
    """Sentences on rules that share a name: the verdict names them, so each needs its own."""
    rules = content.get("rules") if isinstance(content, dict) else None
    names = [rule.get("name") for rule in rules if isinstance(rule, dict)] if isinstance(rules, list) else []
    told = [name for name in names if isinstance(name, str)]
    return [
        f"{section}rules names {name!r} more than once; give each rule a name of its own"
        for name in dict.fromkeys(told)
        if told.count(name) > 1
    ]


def problems_of_explanations(explained: Mapping[str, Any], columns: Collection[str], section: str) -> list[str]:
    """Sentences on explanations of what is no column of groups, slice or group_id."""
    known = [*columns, CLUSTER]
    problems = []
    for name in explained:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
            advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(map(repr, known))}"
            problems.append(f"{section}columns_explained names {name!r}, which is no column of groups; {advice}")
    return problems
