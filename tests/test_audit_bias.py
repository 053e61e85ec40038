"""audit_bias: what it puts before the audit and the page; the audit itself is tested in tests/core/bias."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest

from tasks import audit_bias
from tasks.core.bias.agreement import differences
from tasks.core.bias.counts import Settings
from tasks.core.bias.mitigation import CONSTRAINED, Binary, Plan
from tasks.core.bias.table import AuditTable, table_of
from tasks.core.files import write_json, write_table
from tasks.params import read_params
from tasks.params.auditing import Thresholds

SETTINGS = Settings(confidence=0.95, min_group_size=2, n_bootstrap=100, seed=0, ask_below=None)


def predictions() -> pd.DataFrame:
    """Two models on six images: adopted is right on 5 (all of site x, 2 of 3 of y), source_only on 3 (1 of x, 2 of y)."""
    images = {
        "image_id": list("abcdef"), "group_id": list("abcdef"), "split": "test", "y_true": ["cat", "dog"] * 3,
        "audit_site": ["x", "x", "x", "y", "y", "y"],
    }  # fmt: skip
    guesses = {
        "adopted": ["cat", "dog", "cat", "dog", "cat", "cat"],
        "source_only": ["cat", "cat", "dog", "dog", "cat", "cat"],
    }
    rows = [
        pd.DataFrame({"model": name, **images, "y_pred": guess, "p_cat": 0.6, "p_dog": 0.4})
        for name, guess in guesses.items()
    ]
    return pd.concat(rows, ignore_index=True)


def table() -> AuditTable:
    return table_of(audit_bias.audited_rows(predictions(), "adopted"), columns=["site"])


@pytest.fixture
def here(shipped: dict[str, Any], go_with: Callable[[dict[str, Any]], Path]) -> Path:
    folder = go_with(shipped)
    write_table(Path("data/facts.csv"), pd.DataFrame({
        "image_id": list("zfedcba"), "brightness": [9, 6, 5, 4, 3, 2, 1], "sharpness": ["", "", "", "", "", "", "8"],
        "format": "PNG", "problem": "",
    }))  # fmt: skip
    return folder


def test_facts_follow_the_tables_order_and_hold_numbers_alone(here: Path) -> None:
    found = audit_bias.facts_of(table())
    assert sorted(found) == ["brightness", "sharpness"]
    assert found["brightness"].tolist() == [1, 2, 3, 4, 5, 6]
    assert found["sharpness"][0] == 8
    assert np.isnan(found["sharpness"][1:]).all()


def test_an_image_without_facts_is_an_error(here: Path) -> None:
    with pytest.raises(KeyError, match="unknown"):
        audit_bias.facts_of(replace(table(), image_ids_N=np.array(["unknown", *"bcdef"], object)))


def test_groups_of_the_target_that_the_test_lacks_are_known() -> None:
    manifest = pd.DataFrame({
        "domain": [*["target"] * 6, "source"], "audit_site": ["y", "y", "z", "z", "", "w", "lab"],
        "group_id": ["1", "2", "3", "4", "5", "6", "7"],
    })  # fmt: skip
    assert audit_bias.known_groups(manifest, ["site"]) == {"site": ["y", "z"]}


def test_the_composition_sees_the_tests_labels() -> None:
    manifest = pd.DataFrame(
        {"image_id": ["a", "q"], "label": ["", "dog"], "split": ["test", "train"], "audit_site": ["x", "y"]}
    )
    found = audit_bias.composed_rows(manifest, predictions(), ["site"])
    assert found["label"].tolist() == ["cat", "dog"]
    assert found["site"].tolist() == ["x", "y"]


def test_each_model_has_its_worst_group() -> None:
    found = audit_bias.worst_groups(predictions(), ["site", "absent"], SETTINGS)
    assert found[["model", "n", "column", "worst_group", "worst_n"]].to_numpy().tolist() == [
        ["adopted", 6, "site", "y", 3],
        ["source_only", 6, "site", "x", 3],
    ]
    assert found["accuracy"].tolist() == pytest.approx([5 / 6, 3 / 6])
    assert found["worst"].tolist() == pytest.approx([2 / 3, 1 / 3])


def test_a_group_that_is_too_small_is_nobodys_worst() -> None:
    assert audit_bias.worst_groups(predictions(), ["site"], replace(SETTINGS, min_group_size=4)).empty


def test_metrics_to_compare_name_verdict_rules_and_worst_groups() -> None:
    verdict = {"verdict": "fail", "rules": [{"name": "r", "verdict": "fail"}]}
    found = audit_bias.short_metrics(verdict, audit_bias.worst_groups(predictions(), ["site"], SETTINGS))
    assert found == {
        "verdict": "fail", "worst_group": {"site": {"group": "y", "accuracy": pytest.approx(2 / 3)}}, "rules": {"r": "fail"},
    }  # fmt: skip


def test_point_values_equal_fairlearns() -> None:
    audit_bias.check_against_fairlearn(table(), SETTINGS)


@pytest.mark.parametrize("metric", ["balanced_accuracy", "precision", "selection_rate"])
def test_a_value_that_differs_from_fairlearns_stops_the_stage(monkeypatch: pytest.MonkeyPatch, metric: str) -> None:
    monkeypatch.setattr(audit_bias, "differences", lambda *asked: [m for m in asked[3] if m == metric])
    with pytest.raises(AssertionError, match=f"{metric} by site: ours differ from fairlearn's MetricFrame"):
        audit_bias.check_against_fairlearn(table(), SETTINGS)


def test_a_count_that_is_off_stops_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """One image's prediction changes after fairlearn has counted."""

    def off(given: AuditTable, *asked: Any) -> list[str]:
        return differences(replace(given, y_pred_N=np.where(np.arange(6) == 5, 1, given.y_pred_N)), *asked)

    monkeypatch.setattr(audit_bias, "differences", off)
    told = "accuracy, balanced_accuracy, recall, precision, false_positive_rate, false_negative_rate, selection_rate by site"
    with pytest.raises(AssertionError, match=told):
        audit_bias.check_against_fairlearn(table(), SETTINGS)


def test_large_tables_are_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_bias, "MAX_CHECKED", 5)
    monkeypatch.setattr(audit_bias, "differences", lambda *asked: ["accuracy"])
    audit_bias.check_against_fairlearn(table(), SETTINGS)


def binary(constraint: str) -> np.ndarray:
    """Votes on two groups of the test; in group b all scores lie .3 lower for the same share of yes."""
    score_V = np.concatenate([np.arange(40) / 40, np.arange(40) / 40 * 0.7])
    is_yes_V = np.tile((np.arange(40) >= 20).astype(int), 2)
    group_V = np.repeat(["a", "b"], 40).astype(object)
    asked = Binary(score_V, is_yes_V, group_V, np.array([0.55, 0.4, 0.55, 0.4, 0.3]), np.array(list("aabbb"), object))
    return audit_bias.votes(asked, Plan("site", "x", constraint, "accuracy"), 0)


@pytest.mark.parametrize("constraint", get_args(Thresholds.model_fields["constraint"].annotation))
def test_fairlearn_gives_each_group_its_own_threshold(constraint: str) -> None:
    """Yes begins at .5 in group a, at .35 in group b: no lot is needed, since both groups can be wholly right."""
    assert binary(constraint).tolist() == [True, False, True, True, False]


def test_every_constraint_has_the_metrics_that_it_makes_equal() -> None:
    assert set(CONSTRAINED) == set(get_args(Thresholds.model_fields["constraint"].annotation))


@pytest.fixture
def trained(here: Path) -> pd.DataFrame:
    """held_out.csv of two models and the manifest: val has labels of a and b, not of c; guard and test none that may be seen."""
    Path("data/model").mkdir()
    write_json(Path("data/adoption.json"), {"adopted": "shot", "calibration": {}})
    write_json(Path("data/model/model.json"), {"temperature": {"shot": 2.0, "adabn": 1.0}})
    held_out = pd.DataFrame(
        {"image_id": list("abcg"), "split": ["val"] * 3 + ["guard"], "y_pred": "cat", "p_cat": 0.8, "p_dog": 0.2}
    )
    write_table(Path("data/model/held_out.csv"), pd.concat([
        held_out.assign(model="shot"), held_out.assign(model="adabn", p_cat=0.5, p_dog=0.5),
    ]))  # fmt: skip
    return pd.DataFrame({
        "image_id": list("abcgt"), "domain": "target", "split": ["val"] * 3 + ["guard", "test"], "group_id": list("abcgt"),
        "label": ["cat", "dog", "", "", ""], "audit_site": ["x", "y", "y", "y", "x"],
    })  # fmt: skip


def test_thresholds_see_labelled_validation_images_of_the_adopted_model(trained: pd.DataFrame) -> None:
    found = audit_bias.labelled_validation(trained)
    assert found[["image_id", "y_true", "site"]].to_numpy().tolist() == [["a", "cat", "x"], ["b", "dog", "y"]]
    # at temperature 2: .8 and .2 become sqrt(.8) : sqrt(.2) = 2 : 1
    assert found[["p_cat", "p_dog"]].to_numpy() == pytest.approx(np.array([[2 / 3, 1 / 3]] * 2))


def test_thresholds_that_cannot_be_had_leave_a_reason_and_no_variant(
    trained: pd.DataFrame, shipped: dict[str, Any], go_with: Callable[[dict[str, Any]], Path]
) -> None:
    own = shipped["audit_bias"]["threshold_optimizer"]
    shipped["build_manifest"]["audit_columns"], own["column"] = ["site"], "site"
    shipped["audit_bias"] |= {"rules": [], "columns_explained": {}}
    go_with(shipped)
    rows, told = audit_bias.mitigated(predictions(), trained, read_params(), SETTINGS)
    assert rows is None
    assert told is not None
    assert told["reason"].startswith(
        "labelled images outside the test hold both yes and no in fewer than two groups of site"
    )
    shipped["audit_bias"]["threshold_optimizer"] = None
    go_with(shipped)
    assert audit_bias.mitigated(predictions(), trained, read_params(), SETTINGS) == (None, None)


def test_a_variant_by_thresholds_stands_beside_the_models(
    trained: pd.DataFrame, shipped: dict[str, Any], go_with: Callable[[dict[str, Any]], Path]
) -> None:
    own = shipped["audit_bias"]["threshold_optimizer"]
    shipped["build_manifest"]["audit_columns"], own["column"] = ["site"], "site"
    shipped["audit_bias"] |= {"rules": [], "columns_explained": {}}
    go_with(shipped)
    both = pd.concat(
        [trained, trained.assign(image_id=["a2", "b2", "c2", "g2", "t2"], audit_site=["y", "x", "y", "y", "x"])]
    )
    held_out = pd.read_csv("data/model/held_out.csv")
    write_table(
        Path("data/model/held_out.csv"), pd.concat([held_out, held_out.assign(image_id=held_out["image_id"] + "2")])
    )
    rows, told = audit_bias.mitigated(predictions(), both, read_params(), SETTINGS)
    assert rows is not None
    assert told is not None
    assert (told["n_fitted"], told["reason"], told["left_out"]) == (4, "", [])
    assert rows["model"].unique().tolist() == ["adopted, thresholds by site"]
    found = audit_bias.worst_groups(pd.concat([predictions(), rows]), ["site"], SETTINGS)
    assert found["model"].tolist() == ["adopted", "source_only", "adopted, thresholds by site"]


def test_a_sheet_tells_its_lines(here: Path) -> None:
    Path("data/errors").mkdir()
    lines = {"sheet": "sheet_01.png", "line": ["1", "2"], "column": "site", "group": "y", "y_true": ["cat", "dog"]}
    write_table(
        Path("data/errors/index.csv"), pd.DataFrame(lines | {"y_pred": ["dog", "cat"], "confidence": ["0.987", "0.5"]})
    )
    Path("data/errors/sheet_01.png").write_bytes(b"picture")
    (sheet,) = audit_bias.error_sheets()
    assert (sheet.group, sheet.png) == ("y (site)", b"picture")
    assert sheet.caption == "1: cat taken for dog (0.99 sure); 2: dog taken for cat (0.50 sure)"


@pytest.mark.parametrize(
    ("calibration", "expected"),
    [
        ({"shot": {"ask_below": {"threshold": 0.7}}}, 0.7),
        ({"shot": {"ask_below": {"threshold": None}}}, None),
        ({}, None),
    ],
)
def test_the_threshold_is_the_adopted_models(here: Path, calibration: Any, expected: float | None) -> None:
    write_json(Path("data/adoption.json"), {"adopted": "shot", "calibration": calibration})
    assert audit_bias.ask_below() == expected


def test_who_may_decide_is_no_part_of_the_lineage(
    shipped: dict[str, Any], go_with: Callable[[dict[str, Any]], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_bias, "LINEAGE_FILES", {})
    go_with(shipped)
    Path("requirements.lock").write_text("torch\n")
    before = audit_bias.lineage(read_params())
    shipped["review"]["n_approvals"] = 2
    go_with(shipped)
    assert audit_bias.lineage(read_params()) == before
    shipped["audit_bias"]["n_bootstrap"] += 1
    go_with(shipped)
    assert audit_bias.lineage(read_params()) != before


@pytest.mark.parametrize(
    ("changes", "together"),
    [
        ({}, "Column “group” of images.csv; copies"),
        (
            {"columns": {"path": "path", "label": "label", "domain": "domain", "split": None, "group": None}},
            "No column says",
        ),
        (
            {"table": "data/sample/images", "layout": "domain/group/label"},
            "Name of a folder (the level “group” of domain/group",
        ),
        (
            {"table": "data/sample/images", "layout": "domain/label"},
            "No column says which images belong together; copies",
        ),
    ],
)
def test_the_page_learns_where_the_columns_come_from(
    changes: dict[str, Any], together: str, shipped: dict[str, Any], go_with: Callable[[dict[str, Any]], Path]
) -> None:
    shipped["build_manifest"] |= changes
    go_with(shipped)
    found = audit_bias.origin(read_params(), replace(table(), clusters_N=np.array([0, 1, 1, 2, 2, 2])))
    assert found.together.startswith(together)
    assert found.n_clusters == 3
    assert found.explained["slant"].startswith("How the ink leans")
