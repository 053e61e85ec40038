"""audit_bias: what it puts before the audit and the page; the audit itself is tested in tests/core/bias."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks import audit_bias
from tasks.core.bias.counts import Settings
from tasks.core.bias.table import AuditTable, table_of
from tasks.core.files import write_json, write_table
from tasks.params import read_params

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


def test_a_value_that_differs_from_fairlearns_stops_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = audit_bias.own_intervals

    def off(*asked: Any) -> Any:
        return [replace(group, value=group.value - 0.01) for group in ours(*asked)]

    monkeypatch.setattr(audit_bias, "own_intervals", off)
    with pytest.raises(AssertionError, match="accuracy by site differs from fairlearn's MetricFrame"):
        audit_bias.check_against_fairlearn(table(), SETTINGS)


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
