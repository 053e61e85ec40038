"""The audit: three-valued verdicts on small tables, group values against fairlearn."""

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame, count
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score

from tasks.core.audit import (
    FAIL,
    INCONCLUSIVE,
    NOT_KNOWN,
    PASS,
    AuditRule,
    AuditSettings,
    by_group,
    groups_of,
    judge,
    overall,
)
from tasks.core.intervals import newcombe, wilson

SETTINGS = AuditSettings(confidence=0.95, min_group_size=20)
RULE = AuditRule("accuracy by site", "accuracy", "site", 0.1, True)


def predictions(groups: dict[str, tuple[int, int]]) -> pd.DataFrame:
    """Per group (right, n)."""
    rows = [(name, k < n_right) for name, (n_right, n) in groups.items() for k in range(n)]
    return pd.DataFrame({
        "image_id": [f"i{k}" for k in range(len(rows))],
        "audit_site": [name for name, _ in rows],
        "y_true": "cat",
        "y_pred": ["cat" if right else "dog" for _, right in rows],
    })  # fmt: skip


def verdict(groups: dict[str, tuple[int, int]], rule: AuditRule = RULE) -> dict:
    rows = predictions(groups)
    return judge(rule, by_group(rows, rows, "site", SETTINGS), SETTINGS)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ({"a": (950, 1000), "b": (950, 1000)}, PASS),
        ({"a": (950, 1000), "b": (600, 1000)}, FAIL),
        ({"a": (28, 30), "b": (24, 30)}, INCONCLUSIVE),  # the interval straddles the limit
        ({"a": (950, 1000), "b": (19, 19)}, INCONCLUSIVE),  # too small to judge
        ({"a": (950, 1000), "b": (600, 1000), "c": (5, 5)}, FAIL),  # one failure outweighs a doubt
        ({"a": (0, 500), "b": (0, 500)}, PASS),  # equally bad is no disparity
    ],
)
def test_verdict(groups: dict[str, tuple[int, int]], expected: str) -> None:
    assert verdict(groups)["verdict"] == expected


def test_one_group_alone_is_inconclusive() -> None:
    found = verdict({"a": (950, 1000)})
    assert found["verdict"] == INCONCLUSIVE
    assert "at least two are needed to compare" in found["reason"]


def test_an_absent_attribute_everywhere_is_inconclusive() -> None:
    assert verdict({"": (950, 1000)})["verdict"] == INCONCLUSIVE


def test_no_images_at_all_are_inconclusive() -> None:
    rows = predictions({"a": (1, 2)}).iloc[:0]
    assert judge(RULE, by_group(rows, rows, "site", SETTINGS), SETTINGS)["verdict"] == INCONCLUSIVE


def test_a_group_without_name_is_a_group_of_its_own() -> None:
    found = verdict({"a": (950, 1000), "": (100, 500)})
    assert found["verdict"] == FAIL
    assert f"group {NOT_KNOWN} lies wholly beyond the limit" in found["reason"]


@pytest.mark.parametrize("missing", ["", None, np.nan])
def test_missing_values_are_not_dropped(missing: object) -> None:
    rows = predictions({"a": (9, 10), "b": (5, 10)})
    rows["audit_site"] = rows["audit_site"].astype(object).mask(rows["audit_site"] == "b", missing)
    assert groups_of(rows, "site").tolist() == ["a"] * 10 + [NOT_KNOWN] * 10
    assert by_group(rows, rows, "site", SETTINGS)["n"].sum() == 20


def test_a_small_group_says_how_many_images_are_missing() -> None:
    finding = next(g for g in verdict({"a": (950, 1000), "b": (3, 5)})["groups"] if g["group"] == "b")
    assert finding["n_more"] == 15
    assert "15 more images needed" in finding["reason"]


def test_a_doubt_says_how_many_images_would_decide() -> None:
    # half-width shrinks with the root of n: n ((half / distance)² - 1) more
    groups = {"a": (900, 1000), "b": (85, 100)}
    rows = predictions(groups)
    table = by_group(rows, rows, "site", SETTINGS).set_index("group")
    b = table.loc["b"]
    finding = next(g for g in verdict(groups)["groups"] if g["group"] == "b")
    half, distance = b["gap"] - b["gap_low"], b["gap"] + 0.1
    assert finding["verdict"] == INCONCLUSIVE
    assert finding["n_more"] == int(np.ceil(100 * ((half / distance) ** 2 - 1)))


def test_points_equal_fairlearn_and_intervals_their_own_formulas() -> None:
    rows = predictions({"a": (40, 50), "b": (21, 30), "c": (60, 61)})
    table = by_group(rows, rows, "site", SETTINGS).set_index("group")
    metrics = {"accuracy": accuracy_score, "n": count}
    frame = MetricFrame(
        metrics=metrics, y_true=rows["y_true"], y_pred=rows["y_pred"], sensitive_features=rows["audit_site"]
    ).by_group
    assert table["accuracy"].tolist() == pytest.approx(frame["accuracy"].astype(float).tolist())
    assert table["n"].tolist() == frame["n"].astype(int).tolist()
    own, family = wilson(21, 30, 0.95), 1 - 0.05 / 3  # three judged groups: Bonferroni
    gap = newcombe(wilson(21, 30, family), wilson(100, 111, family))
    assert (table.loc["b", "accuracy_low"], table.loc["b", "accuracy_high"]) == pytest.approx((own.low, own.high))
    assert tuple(table.loc["b", ["gap", "gap_low", "gap_high"]]) == pytest.approx((gap.value, gap.low, gap.high))


def test_change_by_adaptation_is_paired_within_the_group() -> None:
    adopted, source = predictions({"a": (45, 50), "b": (20, 40)}), predictions({"a": (30, 50), "b": (30, 40)})
    table = by_group(adopted, source, "site", SETTINGS).set_index("group")
    assert table["change"].tolist() == pytest.approx([0.3, -0.25])
    # all 15 and all 10 that differ go one way: .025^(1/15) = .7820, .025^(1/10) = .6915; the sign is proven
    differ_a, differ_b = binomtest(15, 50).proportion_ci().low, binomtest(10, 40).proportion_ci().low
    assert table.loc["a", "change_low"] == pytest.approx(differ_a * (2 * 0.7820 - 1), abs=1e-4)
    assert table.loc["b", "change_high"] == pytest.approx(-differ_b * (2 * 0.6915 - 1), abs=1e-4)


def test_small_groups_do_not_widen_the_interval_of_judged_ones() -> None:
    rows = predictions({"a": (40, 50), "b": (21, 30), "c": (0, 1)})
    b = by_group(rows, rows, "site", SETTINGS).set_index("group").loc["b"]
    gap = newcombe(wilson(21, 30, 0.975), wilson(40, 51, 0.975))  # two judged groups, though three are shown
    assert (b["gap_low"], b["gap_high"]) == pytest.approx((gap.low, gap.high))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], INCONCLUSIVE),
        ([(FAIL, False), (PASS, False)], INCONCLUSIVE),  # nothing required, nothing shown
        ([(PASS, True)], PASS),
        ([(PASS, True), (FAIL, False)], PASS),
        ([(PASS, True), (INCONCLUSIVE, True)], INCONCLUSIVE),
        ([(INCONCLUSIVE, True), (FAIL, True)], FAIL),
    ],
)
def test_overall_takes_the_worst_required_rule(rules: list[tuple[str, bool]], expected: str) -> None:
    shared = {"reason": "why", "groups": []}
    judged = [{"name": f"r{k}", "verdict": v, "required": r, **shared} for k, (v, r) in enumerate(rules)]
    found, reason = overall(judged)
    assert found == expected
    assert reason
