"""The audit on labels that came later: the bundle's rules, asked again where they can be, and what changed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flows.reaudit import asked_again, reaudited

RULE = {
    "name": "accuracy by site", "metric": "accuracy", "column": "site", "comparison": "difference", "reference": "overall",
    "limit": 0.05, "required": True, "verdict": "pass",
}  # fmt: skip


def bundle(folder: Path, *changes: dict[str, Any]) -> Path:
    settings = {"confidence": 0.95, "min_group_size": 20, "n_bootstrap": 100}
    verdict = {"verdict": "pass", "reason": "as told", "rules": [RULE | {"reason": "r"} | change for change in changes]}
    (folder / "verdict.json").write_text(json.dumps(verdict | settings))
    (folder / "model.json").write_text(json.dumps({"ask_below": 0.5}))
    return folder


def labelled(n_right: dict[str, int], n: int = 1000) -> pd.DataFrame:
    """Two classes in turn; of each site's n images the first n_right are right."""
    true = np.array(["cat", "dog"] * (n // 2))
    wrong = np.where(true == "cat", "dog", "cat")
    parts = [
        pd.DataFrame({"y_true": true, "y_pred": np.where(np.arange(n) < right, true, wrong), "site": site})
        for site, right in n_right.items()
    ]
    return pd.concat(parts, ignore_index=True).assign(age="30")


@pytest.mark.parametrize(
    ("n_right", "now", "is_worse"),
    [({"a": 900, "b": 900}, "pass", False), ({"a": 900, "b": 500}, "fail", True)],
)
def test_a_verdict_that_turns_to_fail_is_worse(
    tmp_path: Path, n_right: dict[str, int], now: str, is_worse: bool
) -> None:
    """.9 and .9 are equal; .9 and .5 put b .2 below overall, where .05 is allowed."""
    told, verdict = reaudited(labelled(n_right), ("site",), bundle(tmp_path, {}))
    assert (told["was"], told["is"], told["is_worse"], told["n_required"], told["n"]) == (
        "pass",
        now,
        is_worse,
        1,
        2000,
    )
    assert verdict["verdict"] == now
    assert (
        told["changed"]
        == [{"name": "accuracy by site", "column": "site", "required": True, "was": "pass", "is": "fail"}] * is_worse
    )


def test_a_fail_that_stays_one_is_not_worse(tmp_path: Path) -> None:
    told, _ = reaudited(labelled({"a": 900, "b": 500}), ("site",), bundle(tmp_path, {"verdict": "fail"}))
    assert (told["was"], told["is"], told["is_worse"], told["changed"]) == ("fail", "fail", False, [])


def test_few_labels_decide_nothing(tmp_path: Path) -> None:
    told, _ = reaudited(labelled({"a": 18, "b": 16}, n=20), ("site",), bundle(tmp_path, {}))
    assert (told["was"], told["is"], told["is_worse"]) == ("pass", "inconclusive", False)


def test_rules_that_cannot_be_asked_again_have_no_say(tmp_path: Path) -> None:
    """A failed change, a slice and an absent column are left out with the reason: the verdict before is taken without them."""
    folder = bundle(
        tmp_path,
        {},
        {"name": "loses", "comparison": "change", "reference": "source_only", "verdict": "fail"},
        {"name": "slice", "column": "brightness (thirds)", "verdict": "fail"},
        {"name": "absent", "column": "site × skin", "verdict": "fail"},
        {"name": "floor", "column": "", "comparison": "floor", "reference": "", "limit": 0.5},
    )
    told, verdict = reaudited(labelled({"a": 900, "b": 900}), ("site",), folder)
    assert (told["was"], told["is"]) == ("pass", "pass")
    assert [rule["name"] for rule in verdict["rules"]] == ["accuracy by site", "floor"]
    assert told["left_out"] == [
        "loses (site): no predictions of source_only are known for these images",
        "slice (brightness (thirds)): slices of this set would be cut at other values",
        "absent (site × skin): no column skin was given",
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            [{"required": False}],
            "the registered audit has no required rule, so it gave no verdict that these labels could change",
        ),
        (
            [{"required": False}, {"column": "skin"}],
            "none of the 1 required rule(s) of the registered audit can be asked again, so its verdict is not confirmed",
        ),
    ],
)
def test_without_a_required_rule_there_is_no_verdict_to_compare(
    tmp_path: Path, changes: list[dict[str, Any]], reason: str
) -> None:
    told, _ = reaudited(labelled({"a": 900, "b": 500}), ("site",), bundle(tmp_path, *changes))
    assert (told["n_required"], told["is_worse"], told["reason"]) == (0, False, reason)


def test_intersections_are_made_again(tmp_path: Path) -> None:
    folder = bundle(tmp_path, {"column": "site × age", "verdict": "fail"})
    told, _ = reaudited(labelled({"a": 900, "b": 900}), ("site", "age"), folder)
    assert (told["was"], told["is"], told["left_out"]) == ("fail", "pass", [])


def test_a_bundle_without_rules_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"verdict\.json holds no rules"):
        asked_again({"verdict": "pass", "reason": "as told"}, ())
