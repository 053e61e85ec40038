"""The audit of whole tables: verdicts, tables against fairlearn and our elementary intervals, hostile input, schema."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame
from sklearn.metrics import accuracy_score, balanced_accuracy_score, precision_score, recall_score

from tasks.core.bias.counts import Settings
from tasks.core.bias.judging import FAIL, INCONCLUSIVE, PASS
from tasks.core.bias.rules import Rule
from tasks.core.bias.table import NOT_KNOWN, table_of, with_intersections, with_slices
from tasks.core.bias.verdict import SCHEMA_PATH, AuditResult, audit, overall, rules_sha256
from tasks.core.files import write_json
from tasks.core.intervals import newcombe, paired_gain, wilson

SETTINGS = Settings(confidence=0.95, min_group_size=20, n_bootstrap=200, seed=0, ask_below=None)
RULE = Rule("accuracy", "accuracy", "site", "difference", "others", 0.1, True)


def predictions(groups: Mapping[str, tuple[int, int]], column: str = "site") -> pd.DataFrame:
    """Per group (right, n): cats, the wrong ones taken for dogs."""
    rows = [(name, k < n_right) for name, (n_right, n) in groups.items() for k in range(n)]
    return pd.DataFrame({
        column: [name for name, _ in rows], "y_true": "cat", "y_pred": ["cat" if right else "dog" for _, right in rows],
    })  # fmt: skip


def random_rows(n: int = 3000, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    true_N = rng.integers(0, 3, n)
    pred_N = np.where(rng.random(n) < 0.8, true_N, rng.integers(0, 3, n))
    probs_NC = rng.dirichlet([1, 1, 1], n)
    names = np.array(["ant", "bee", "cat"])
    return pd.DataFrame({
        "y_true": names[true_N], "y_pred": names[pred_N], "site": rng.choice(["a", "b", "c"], n),
        "age": rng.choice(["old", "young"], n), **{f"p_{name}": probs_NC[:, k] for k, name in enumerate(names)},
    })  # fmt: skip


def audited(rows: pd.DataFrame, rules: Sequence[Rule] = (RULE,), columns: Sequence[str] = ("site",)) -> AuditResult:
    return checked(audit(table_of(rows, columns=columns), rules, SETTINGS))


def checked(result: AuditResult) -> AuditResult:
    """The same, its verdict held against the schema and strict JSON."""
    jsonschema.validate(result.verdict, json.loads(SCHEMA_PATH.read_text(encoding="utf-8")))
    json.dumps(result.verdict, allow_nan=False)
    return result


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ({"a": (950, 1000), "b": (950, 1000)}, PASS),
        ({"a": (950, 1000), "b": (600, 1000)}, FAIL),
        ({"a": (28, 30), "b": (24, 30)}, INCONCLUSIVE),  # the interval straddles the limit
        ({"a": (950, 1000), "b": (19, 19)}, INCONCLUSIVE),  # too small to judge
        ({"a": (950, 1000), "b": (600, 1000), "c": (5, 5)}, FAIL),  # one failure outweighs a doubt
        ({"a": (0, 500), "b": (0, 500)}, PASS),  # equally bad is no disparity
        ({"a": (950, 1000)}, INCONCLUSIVE),  # nobody to compare with
        ({"": (950, 1000)}, INCONCLUSIVE),  # the attribute is known of nobody
        ({"a": (950, 1000), "": (100, 500)}, FAIL),  # a missing attribute is a group
    ],
)
def test_verdict(groups: dict[str, tuple[int, int]], expected: str) -> None:
    assert audited(predictions(groups)).verdict["verdict"] == expected


def test_group_values_equal_fairlearn_and_scikit_learn() -> None:
    rows = random_rows()
    found = audited(rows).by_group.set_index("group")
    frame = MetricFrame(
        metrics={"accuracy": accuracy_score, "balanced_accuracy": balanced_accuracy_score},
        y_true=rows["y_true"], y_pred=rows["y_pred"], sensitive_features=rows["site"],
    )  # fmt: skip
    for metric in ("accuracy", "balanced_accuracy"):
        assert found[metric].to_numpy() == pytest.approx(frame.by_group[metric].to_numpy(float), abs=1e-12)
    for group, part in rows.groupby("site"):
        recalls = recall_score(part["y_true"], part["y_pred"], average=None)
        assert found.loc[group, "worst_class_recall"] == pytest.approx(recalls.min())
        assert found.loc[group, "worst_class"] == ["ant", "bee", "cat"][recalls.argmin()]


def test_class_values_equal_scikit_learn() -> None:
    rows = random_rows()
    found = audited(rows).by_class.set_index(["group", "class"])
    for group, part in rows.groupby("site"):
        for label in ("ant", "bee", "cat"):
            true, pred = part["y_true"] == label, part["y_pred"] == label
            cell = found.loc[(group, label)]
            assert cell["recall"] == pytest.approx(recall_score(true, pred))
            assert cell["precision"] == pytest.approx(precision_score(true, pred))
            assert cell["false_positive_rate"] == pytest.approx(1 - recall_score(~true, ~pred))
            assert cell["false_negative_rate"] == pytest.approx(1 - recall_score(true, pred))
            assert (cell["selection_rate"], cell["base_rate"]) == pytest.approx((pred.mean(), true.mean()))
            ends = wilson(int((true & pred).sum()), int(true.sum()), 0.95)
            assert (cell["recall_low"], cell["recall_high"]) == pytest.approx((ends.low, ends.high))


def test_gap_is_newcombe_against_all_others() -> None:
    found = audited(predictions({"a": (40, 50), "b": (21, 30), "c": (60, 61)})).by_group.set_index("group")
    gap = newcombe(wilson(21, 30, 0.95), wilson(100, 111, 0.95))
    assert tuple(found.loc["b", ["gap", "gap_low", "gap_high"]]) == pytest.approx((gap.value, gap.low, gap.high))
    assert found["share"].to_list() == pytest.approx([50 / 141, 30 / 141, 61 / 141])


def test_small_groups_keep_n_only() -> None:
    found = audited(predictions({"a": (40, 50), "b": (15, 19)})).by_group.set_index("group")
    assert found["is_masked"].to_dict() == {"a": False, "b": True}
    assert found.loc["b", "n"] == 19
    assert (
        found.loc["b"].drop(["column", "n", "n_clusters", "share", "is_masked", "worst_class", "gap_mark"]).isna().all()
    )


def test_small_cells_of_classes_keep_n_only() -> None:
    rows = pd.concat([predictions({"a": (40, 50)}), predictions({"a": (3, 5)}).assign(y_true="fox", y_pred="fox")])
    found = audited(rows).by_class.set_index("class")
    assert found.loc["fox", "n_true"] == 5
    assert np.isnan(found.loc["fox", "recall"])
    assert found.loc["fox", "base_rate"] == pytest.approx(5 / 55)  # over all 55 images


def test_change_is_paired_and_a_hidden_loss_is_marked() -> None:
    rows, before = predictions({"a": (950, 1000), "b": (20, 40)}), predictions({"a": (900, 1000), "b": (30, 40)})
    rule = Rule("no loss", "accuracy", "site", "change", "source_only", 0.02, True)
    result = checked(audit(table_of(rows, columns=["site"], baselines={"source_only": before}), [rule], SETTINGS))
    found = result.changes.set_index("group")
    assert found["is_hidden_loss"].to_dict() == {"all images": False, "a": False, "b": True}
    assert found.loc["all images", "change"] == pytest.approx(40 / 1040)
    by_hand = paired_gain(np.arange(40) < 20, np.arange(40) < 30, 0.95)
    assert tuple(found.loc["b", ["change", "change_low", "change_high"]]) == pytest.approx(
        (by_hand.value, by_hand.low, by_hand.high)
    )
    (judged,) = result.verdict["rules"]
    assert judged["verdict"] == FAIL
    assert judged["reason"].startswith("overall +3.8 points, group b -25.0 points (")
    assert result.by_group.set_index("group").loc["b", "change_source_only"] == pytest.approx(-0.25)


def test_a_rule_on_every_column_leaves_intersections_and_slices_out() -> None:
    rows = random_rows()
    table = with_intersections(table_of(rows, columns=["site", "age"]), 2)
    table = with_slices(table, {"brightness": np.arange(len(rows)) / len(rows)}, ["brightness"])
    rules = [Rule("all", "accuracy", "*", "difference", "others", 0.1, True)]
    rules.append(Rule("both", "accuracy", "site × age", "difference", "overall", 0.2, False))
    result = checked(audit(table, rules, SETTINGS))
    assert [rule["column"] for rule in result.verdict["rules"]] == ["site", "age", "site × age"]
    assert result.by_group["column"].unique().tolist() == ["site", "age", "site × age", "brightness (thirds)"]
    assert len(result.verdict["rules"][2]["groups"]) == 6


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (Rule("r", "accuracy", "skin", "difference", "others", 0.1, True), "column skin is absent from the table"),
        (Rule("r", "recall:yak", "site", "difference", "others", 0.1, True), "class yak is absent"),
        (Rule("r", "accuracy", "site", "change", "champion", 0.1, True), "no predictions of champion were given"),
        (Rule("r", "accuracy", "site", "difference", "group:z", 0.1, True), "group z, which the others are compared"),
        (Rule("r", "abstention", "site", "difference", "others", 0.1, True), "abstention needs probabilities"),
    ],
)  # fmt: skip
def test_what_is_absent_never_passes(rule: Rule, reason: str) -> None:
    result = audited(predictions({"a": (950, 1000), "b": (950, 1000)}), [rule])
    assert result.verdict["verdict"] == INCONCLUSIVE
    assert reason in result.verdict["reason"]


def test_absent_columns_are_listed_and_not_tested() -> None:
    rule = Rule("r", "accuracy", "skin", "difference", "others", 0.1, False)
    verdict = audited(predictions({"a": (950, 1000), "b": (950, 1000)}), [RULE, rule]).verdict
    assert verdict["verdict"] == PASS
    assert verdict["absent_columns"] == ["skin"]
    assert "Column skin is absent, so its groups were not compared." in verdict["not_tested"]


def test_no_audit_column_at_all_is_inconclusive() -> None:
    rule = Rule("r", "accuracy", "*", "difference", "others", 0.1, True)
    result = audited(predictions({"a": (950, 1000)}), [rule], columns=())
    assert result.verdict["reason"] == "r (*): the table has no audit column, so no group could be judged"
    assert result.by_group.empty
    assert result.by_class.empty


def test_no_image_at_all_is_inconclusive() -> None:
    result = audited(predictions({"a": (950, 1000)}).iloc[:0])
    assert result.verdict["verdict"] == INCONCLUSIVE
    assert result.verdict["overall"]["accuracy"] == {"value": None, "low": None, "high": None, "n": 0}


def test_a_group_known_from_training_without_a_test_image_is_no_pass() -> None:
    table = table_of(predictions({"a": (950, 1000), "b": (950, 1000)}), columns=["site"])
    result = checked(audit(table, [RULE], SETTINGS, {"site": ["a", "c"], "skin": ["x"]}))
    assert result.verdict["verdict"] == INCONCLUSIVE
    assert "group c has no image in this table (20 needed)" in result.verdict["reason"]
    assert result.verdict["absent_columns"] == ["skin"]


def test_a_class_absent_in_a_group_leaves_that_group_open() -> None:
    rows = pd.concat(
        [predictions({"a": (950, 1000), "b": (950, 1000)}), predictions({"a": (0, 500)}).assign(y_true="dog")]
    )
    result = audited(rows, [Rule("r", "recall:dog", "site", "floor", "", 0.1, True)])
    b = next(group for group in result.verdict["rules"][0]["groups"] if group["group"] == "b")
    assert (b["n"], b["value"], b["verdict"], b["n_more"]) == (0, None, INCONCLUSIVE, 20)
    assert result.verdict["verdict"] == INCONCLUSIVE


def test_all_predictions_equal() -> None:
    rows = random_rows().assign(y_pred="ant")
    rules = [RULE, Rule("p", "precision:bee", "site", "difference", "others", 0.1, True)]
    verdict = audited(rows, rules).verdict
    assert verdict["rules"][1]["verdict"] == INCONCLUSIVE
    assert verdict["overall"]["worst_class_recall"]["value"] == 0


def test_unknown_probabilities() -> None:
    rows = random_rows()
    rule = Rule("c", "calibration_error", "site", "difference", "others", 0.2, True)
    assert audited(rows, [rule]).verdict["rules"][0]["groups"][0]["estimate"] is not None
    rows.loc[rows["site"] == "a", ["p_ant", "p_bee", "p_cat"]] = np.nan
    result = audited(rows, [rule])
    assert result.verdict["verdict"] == INCONCLUSIVE
    assert np.isnan(result.by_group.set_index("group").loc["a", "calibration_error"])


def test_names_with_markup_and_right_to_left_text() -> None:
    names = {"<script>alert(1)</script>": (950, 1000), "עברית\u202e": (600, 1000), "": (30, 30)}
    result = audited(predictions(names, column="<b>"), [Rule("<i>", "accuracy", "<b>", "difference", "others", 0.1, True)],
                     columns=["<b>"])  # fmt: skip
    assert result.verdict["verdict"] == FAIL
    assert set(result.by_group["group"]) == {"<script>alert(1)</script>", "עברית\u202e", NOT_KNOWN}


def test_ten_thousand_groups(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 20_000
    rows = pd.DataFrame({
        "y_true": [f"c{k % 3}" for k in range(n)], "y_pred": [f"c{k % 3}" for k in rng.integers(0, 10, n)],
        "site": [f"g{k % 10_000}" if k < 10_000 else "large" for k in range(n)],
    })  # fmt: skip
    result = audit(table_of(rows, columns=["site"]), [RULE], SETTINGS)
    assert result.verdict["verdict"] == INCONCLUSIVE
    assert len(result.verdict["rules"][0]["groups"]) == len(result.by_group) == 10_001
    assert result.by_class.empty
    assert any("for up to 200 groups only" in said for said in result.verdict["not_tested"])
    assert len(result.verdict["reason"]) < 1000
    write_json(tmp_path / "verdict.json", result.verdict)


def test_few_clusters_keep_a_required_rule_open() -> None:
    rows = predictions({"a": (950, 1000), "b": (500, 1000)})
    rows["group_id"] = rows["site"] + (np.arange(2000) % 5).astype(str)
    result = audited(rows)
    assert result.verdict["sampling"]["site"]["unit"] == "image"
    assert result.verdict["verdict"] == INCONCLUSIVE
    assert "holds images of only 5 group_ids (fewer than 10)" in result.verdict["reason"]
    assert "the rule would be a fail: " in result.verdict["reason"]


@pytest.mark.parametrize(("n_right", "expected"), [(950, PASS), (500, FAIL), (790, INCONCLUSIVE)])
def test_a_floor_for_all_images_together(n_right: int, expected: str) -> None:
    (rule,) = audited(predictions({"a": (n_right, 1000)}), [Rule("r", "accuracy", "", "floor", "", 0.8, True)]).verdict[
        "rules"
    ]
    assert rule["verdict"] == expected
    ends = wilson(n_right, 1000, 0.95)
    assert (rule["groups"][0]["low"], rule["groups"][0]["high"]) == pytest.approx((ends.low, ends.high))
    assert rule["reason"].startswith(f"All images: accuracy {n_right / 10:.1f} % (n = 1000), interval ")


def test_pairs_name_both_groups() -> None:
    rows = predictions({"a": (950, 1000), "b": (600, 1000)})
    (rule,) = audited(rows, [Rule("p", "accuracy", "site", "difference", "pairwise", 0.1, True)]).verdict["rules"]
    assert (rule["verdict"], rule["groups"][0]["group"]) == (FAIL, "b against a")
    assert "35.0 points below the other group (95.0 %, n = 1000)" in rule["reason"]


def test_four_fifths_against_the_best_group() -> None:
    rows = predictions({"a": (900, 1000), "b": (500, 1000), "c": (899, 1000)})
    (rule,) = audited(rows, [Rule("f", "selection_rate:cat", "site", "four_fifths", "highest", 0.8, True)]).verdict[
        "rules"
    ]
    outcomes = {group["group"]: (round(group["estimate"], 4), group["verdict"]) for group in rule["groups"]}
    assert outcomes == {"b": (0.5556, FAIL), "c": (0.9989, PASS)}


def test_many_clusters_are_the_draws() -> None:
    rows = predictions({"a": (950, 1000), "b": (500, 1000)})
    rows["group_id"] = rows["site"] + (np.arange(2000) % 50).astype(str)
    result = audited(rows)
    verdict = result.verdict
    assert (verdict["sampling"]["site"]["unit"], verdict["sampling"]["site"]["n_clusters"]) == ("group", 50)
    assert result.by_group["n_clusters"].tolist() == [50, 50]
    assert verdict["verdict"] == FAIL


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
    judged = [
        {"name": f"r{k}", "column": "", "verdict": v, "required": r, "reason": "why"} for k, (v, r) in enumerate(rules)
    ]
    found, reason = overall(judged)
    assert found == expected
    assert reason


def test_the_hash_moves_with_every_limit_and_setting() -> None:
    first = rules_sha256([RULE], SETTINGS)
    assert first == rules_sha256([Rule(**vars(RULE))], SETTINGS)
    assert first != rules_sha256([Rule(**(vars(RULE) | {"limit": 0.11}))], SETTINGS)
    assert first != rules_sha256([RULE], Settings(**(vars(SETTINGS) | {"min_group_size": 21})))


def test_pairs_of_too_many_groups_are_refused_without_a_traceback() -> None:
    rows = predictions({f"g{k}": (20, 20) for k in range(101)})
    result = audited(rows, [Rule("p", "accuracy", "site", "difference", "pairwise", 0.1, True)])
    assert result.verdict["verdict"] == INCONCLUSIVE
    assert "101 groups make too many pairs" in result.verdict["reason"]


def test_an_unknown_metric_is_an_error() -> None:
    with pytest.raises(ValueError, match="acuracy"):
        audited(
            predictions({"a": (9, 10), "b": (9, 10)}), [Rule("r", "acuracy", "site", "difference", "others", 0.1, True)]
        )


def test_the_schema_refuses_what_it_does_not_know() -> None:
    verdict = audited(predictions({"a": (950, 1000), "b": (950, 1000)})).verdict
    schema = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    for broken in ({"verdict": "maybe"}, {"extra": 1}, {"rules": [{"name": "r"}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(verdict | broken, schema)
