"""The audit's words: numbers, rules as sentences, the group that decides."""

from typing import Any

import pytest

from tasks.core.bias.rules import Rule
from tasks.core.bias_words import (
    by_badness,
    deciding_ends,
    deciding_group,
    interval,
    limit_words,
    n_more_words,
    number,
    percent,
    points,
    rule_words,
    signed_points,
    spelled,
    what_would_decide,
)


def group(name: str, estimate: float | None, verdict: str, **more: Any) -> dict[str, Any]:
    ends = {"low": None, "high": None, "adjusted_low": None, "adjusted_high": None}
    if estimate is not None:
        ends = {
            "low": estimate - 0.1,
            "high": estimate + 0.1,
            "adjusted_low": estimate - 0.2,
            "adjusted_high": estimate + 0.2,
        }
    return {"group": name, "n": 50, "estimate": estimate, "verdict": verdict, "n_more": None, **ends, **more}


def entry(
    verdict: str, *groups: dict[str, Any], metric: str = "accuracy", comparison: str = "difference"
) -> dict[str, Any]:
    return {
        "name": "r", "metric": metric, "column": "site", "comparison": comparison, "reference": "others", "limit": 0.05,
        "required": True, "verdict": verdict, "groups": list(groups), "sampling": {"is_limiting": False, "n_clusters": None},
    }  # fmt: skip


def test_numbers_carry_their_unit_and_a_minus_that_is_read_aloud() -> None:
    assert percent(0.8125) == "81.2 %"
    assert percent(0.95, 0) == "95 %"
    assert points(-0.03) == "−3.0 points"
    assert signed_points(0.012) == "+1.2"
    assert signed_points(-0.0001) == "+0.0"
    assert number(1234.5) == "1,234.50"


@pytest.mark.parametrize("absent", [None, float("nan"), float("inf")])
def test_what_was_not_measured_is_said_so(absent: float | None) -> None:
    assert {percent(absent), points(absent), signed_points(absent), number(absent)} == {"not measured"}


def test_a_value_without_an_interval_is_not_told() -> None:
    assert interval(0.5, (0.4, 0.6), percent) == "50.0 % (40.0 to 60.0)"
    assert interval(0.5, (None, None), percent) == "not judged"


@pytest.mark.parametrize(
    ("rule", "words", "limit"),
    [
        (
            ("accuracy", "site", "difference", "others", 0.05),
            "The accuracy of no group of site may lie more than 5.0 points below that of all other images together.",
            "at least −5.0 points",
        ),
        (
            ("false_positive_rate:cat", "site", "difference", "group:A", 0.05),
            "The false positive rate of class cat of no group of site may lie more than 5.0 points above that of group A.",
            "at most +5.0 points",
        ),
        (
            ("selection_rate:cat", "site", "difference", "overall", 0.1),
            "The selection rate of class cat of no group of site may lie more than 10.0 points away from that of all images "
            "together.",
            "−10.0 to +10.0 points",
        ),
        (
            ("accuracy", "site", "difference", "pairwise", 0.1),
            "The accuracy of no two groups of site may lie more than 10.0 points apart.",
            "−10.0 to +10.0 points",
        ),
        (
            ("selection_rate:cat", "site", "four_fifths", "highest", 0.8),
            "The selection rate of class cat of each group of site, divided by that of the group with the best value, has to be "
            "at least 0.80.",
            "at least 0.80",
        ),
        (
            ("calibration_error", "site", "ratio", "others", 0.8),
            "The calibration error of each group of site, divided by that of all other images together, has to be at most 1.25.",
            "at most 1.25",
        ),
        (
            ("accuracy", "", "floor", "", 0.8),
            "The accuracy of all images together has to be at least 80.0 %.",
            "at least 80.0 %",
        ),
        (
            ("abstention", "site", "floor", "", 0.1),
            "The abstention of each group of site has to be at most 10.0 %.",
            "at most 10.0 %",
        ),
        (
            ("accuracy", "site", "change", "source_only", 0.02),
            "No group of site may lose more than 2.0 points of accuracy against source_only, on the same images.",
            "at least −2.0 points",
        ),
        (
            ("calibration_error", "", "change", "old", 0.02),
            "All images together may not gain more than 2.0 points of calibration error against old, on the same images.",
            "at most +2.0 points",
        ),
    ],
)
def test_a_rule_reads_as_a_sentence(rule: tuple[str, str, str, str, float], words: str, limit: str) -> None:
    stated = Rule("r", *rule, True)
    assert rule_words(stated) == words
    assert limit_words(stated) == limit


def test_failed_groups_come_first_then_the_worst() -> None:
    groups = (
        group("a", -0.3, "inconclusive"),
        group("b", -0.1, "fail"),
        group("c", -0.2, "fail"),
        group("d", None, "pass"),
    )
    assert [g["group"] for g in by_badness(entry("fail", *groups))] == ["c", "b", "a", "d"]
    assert deciding_group(entry("fail", *groups)) == groups[2]
    lower = entry("fail", *groups, metric="calibration_error")
    assert [g["group"] for g in by_badness(lower)] == ["b", "c", "a", "d"]


def test_either_side_is_bad_where_neither_is_better() -> None:
    groups = (group("a", 0.1, "pass"), group("b", -0.2, "pass"), group("c", 0.3, "pass"))
    assert [g["group"] for g in by_badness(entry("pass", *groups, metric="selection_rate:x"))] == ["c", "b", "a"]
    ratios = (group("a", 1.5, "pass"), group("b", 0.5, "pass"), group("c", 0.0, "pass"))
    assert [g["group"] for g in by_badness(entry("pass", *ratios, metric="selection_rate:x", comparison="ratio"))] == [
        "c",
        "b",
        "a",
    ]


def test_a_group_that_was_judged_stands_for_the_rule_before_one_that_was_not() -> None:
    unjudged = group("tiny", None, "inconclusive") | {"estimate": -0.9}
    assert deciding_group(entry("inconclusive", unjudged, group("b", -0.1, "inconclusive")))["group"] == "b"  # type: ignore[index]
    assert deciding_group(entry("inconclusive", unjudged)) == unjudged
    assert deciding_group(entry("inconclusive")) is None


def test_the_interval_of_a_fail_is_the_one_it_was_decided_by() -> None:
    assert deciding_ends(group("a", 0.5, "fail")) == (0.3, 0.7)
    assert deciding_ends(group("a", 0.5, "pass")) == (0.4, 0.6)


def test_what_would_decide_names_groups_and_images() -> None:
    groups = [group(name, -0.1, "inconclusive", n_more=n) for name, n in (("a", 1200), ("b", 3), ("c", 5))]
    assert (
        what_would_decide(entry("inconclusive", *groups))
        == "about 1,200 more of a; about 3 more of b; 1 more group is open"
    )
    assert what_would_decide(entry("inconclusive", group("a", 0.0, "inconclusive"))).startswith(
        "not more images of these groups alone"
    )
    assert what_would_decide(entry("pass", group("a", 0.0, "pass"))) == ""
    few = {"sampling": {"is_limiting": True, "n_clusters": 6}}
    assert what_would_decide(entry("inconclusive", group("a", 0.0, "pass")) | few) == (
        "images of at least 10 group_ids in every group; the fewest now: 6"
    )
    assert what_would_decide(entry("inconclusive", group("a", 0.0, "inconclusive", n_more=7)) | few) == (
        "about 7 more of a; images of at least 10 group_ids in every group; the fewest now: 6"
    )
    assert n_more_words(12_976_305) == "over a million"


def test_hidden_characters_are_spelled_out_and_text_is_cut() -> None:
    assert spelled("a\u202eb\n\x00") == "a\\u202eb\\n\\x00"
    assert spelled("\u2068שלום\u2069") == "\u2068שלום\u2069"
    assert spelled("abcdef", 4) == "abc…"
