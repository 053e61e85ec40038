"""Thresholds per group: whose prediction changes, what is told of it, why it can't be done, and how the page says so."""

import json
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest

from tasks.core.bias.counts import Settings
from tasks.core.bias.mitigation import Binary, Plan, mitigation, post_processed
from tasks.core.bias.verdict import SCHEMA_PATH
from tasks.core.intervals import paired_gain, wilson

SETTINGS = Settings(confidence=0.95, min_group_size=2, n_bootstrap=100, seed=0, ask_below=None)
CAT = Plan("site", "cat", "true_positive_rate_parity", "accuracy")
EACH = Plan("site", "*", "equalized_odds", "balanced_accuracy")


def halves(asked: Binary, plan: Plan, seed: int) -> np.ndarray:
    """Yes from .5 on in group a, from .2 on elsewhere."""
    return asked.score_N >= np.where(asked.group_N == "a", 0.5, 0.2)


def rows(cells: list[tuple[str, str, list[float]]], classes: str = "cat dog") -> pd.DataFrame:
    """(site, true class, probabilities); the guess is the most probable."""
    names = classes.split()
    probs = np.array([probs for _, _, probs in cells]).reshape(len(cells), len(names))
    return pd.DataFrame({
        "image_id": [str(k) for k in range(len(cells))], "site": [site for site, _, _ in cells],
        "y_true": [true for _, true, _ in cells], "y_pred": np.array(names)[probs.argmax(1)],
        **{f"p_{name}": probs[:, c] for c, name in enumerate(names)},
    })  # fmt: skip


KNOWN = rows([(site, true, [0.5, 0.5]) for site in "ab" for true in ("cat", "dog")])
TEST = rows([("a", "cat", [0.3, 0.7]), ("a", "cat", [0.6, 0.4]), ("b", "cat", [0.3, 0.7]), ("b", "dog", [0.1, 0.9])])


def test_a_vote_for_the_class_decides_between_two() -> None:
    found = post_processed(KNOWN, TEST, CAT, halves, 0)
    assert found.y_pred.tolist() == ["dog", "cat", "cat", "dog"]
    assert (found.reason, found.left_out) == ("", ())


def test_the_most_probable_of_the_classes_voted_for_wins_and_where_none_is_all_are_asked() -> None:
    classes = "ant bee cat"
    known = rows([(site, true, [1 / 3] * 3) for site in "ab" for true in classes.split()], classes)
    test = rows(
        [("b", "cat", [0.25, 0.6, 0.15]), ("a", "ant", [0.4, 0.35, 0.25]), ("b", "bee", [0.1, 0.3, 0.6])], classes
    )
    assert post_processed(known, test, EACH, halves, 0).y_pred.tolist() == ["bee", "ant", "cat"]
    # one class alone: where it is voted down the best of the others is taken, where it is voted for it wins
    one = post_processed(known, test, Plan("site", "ant", "equalized_odds", "accuracy"), halves, 0)
    assert one.y_pred.tolist() == ["ant", "bee", "cat"]


def test_groups_without_both_outcomes_keep_the_models_own() -> None:
    known = pd.concat([KNOWN, rows([("c", "dog", [0.5, 0.5])])])
    test = pd.concat([TEST, rows([("c", "cat", [0.3, 0.7]), ("", "cat", [0.3, 0.7])])], ignore_index=True)
    seen: list[set[str]] = []

    def noted(asked: Binary, plan: Plan, seed: int) -> np.ndarray:
        seen.append({*asked.group_V, *asked.group_N})
        return halves(asked, plan, seed)

    found = post_processed(known, test, CAT, noted, 0)
    assert seen == [{"a", "b"}]
    assert found.y_pred.tolist() == ["dog", "cat", "cat", "dog", "dog", "dog"]
    assert found.left_out == ("class cat in (not known)", "class cat in c")


def test_each_class_draws_by_a_seed_of_its_own() -> None:
    seeds: list[int] = []

    def noted(asked: Binary, plan: Plan, seed: int) -> np.ndarray:
        seeds.append(seed)
        return halves(asked, plan, seed)

    post_processed(KNOWN, TEST, EACH, noted, 0)
    post_processed(KNOWN, TEST, EACH, noted, 1)
    assert len(set(seeds)) == 4
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.mark.parametrize(
    ("known", "test", "plan", "reason"),
    [
        (KNOWN.iloc[:0], TEST, CAT, "no target image outside the test carries a label that may be used"),
        (KNOWN[KNOWN["site"] == "a"], TEST, CAT, "both yes and no in fewer than two groups of site"),
        (KNOWN, TEST[TEST["site"] == "a"], CAT, "both yes and no in fewer than two groups of site"),
        (KNOWN, TEST.drop(columns="site"), CAT, "column site is absent from the table"),
        (KNOWN, TEST, Plan("site", "yak", "equalized_odds", "accuracy"), "class yak is absent"),
        (KNOWN, TEST.assign(p_cat=[0.1, np.nan, 0.3, 0.4]), CAT, "1 image have no probabilities"),
    ],
)
def test_what_cannot_be_done_has_its_reason(known: pd.DataFrame, test: pd.DataFrame, plan: Plan, reason: str) -> None:
    y_pred, told = mitigation(known, test, plan, halves, SETTINGS)
    assert reason in told["reason"]
    assert y_pred.tolist() == test["y_pred"].tolist()
    assert (told["rows"], told["n_changed"]) == ([], 0)
    check(told)


def check(told: dict[str, Any]) -> None:
    schema = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    jsonschema.validate(told, {"$ref": "#/$defs/mitigation", "$defs": schema["$defs"]})


def test_values_stand_before_and_after_with_paired_changes() -> None:
    """a: 30 cats, 20 called so, by the thresholds too. b: 40 cats, 10 called so, then 30; 10 dogs, then 2 called cats."""
    cells = [("a", "cat", [0.6, 0.4])] * 20 + [("a", "cat", [0.3, 0.7])] * 10
    cells += [("b", "cat", [0.6, 0.4])] * 10 + [("b", "cat", [0.3, 0.7])] * 20 + [("b", "cat", [0.1, 0.9])] * 10
    cells += [("b", "dog", [0.3, 0.7])] * 2 + [("b", "dog", [0.1, 0.9])] * 8
    told = mitigation(KNOWN, rows(cells), CAT, halves, SETTINGS)[1]
    check(told)
    assert (told["n_changed"], told["n_fitted"], told["reason"]) == (22, 4, "")
    found = {(row["metric"], row["group"]): row for row in told["rows"]}
    assert list(found) == [(m, g) for m in ("accuracy", "recall:cat") for g in ("all images", "a", "b")]
    assert [found["recall:cat", g]["n"] for g in ("all images", "a", "b")] == [70, 30, 40]
    b = found["accuracy", "b"]
    assert (b["before"], b["after"], b["change"]) == pytest.approx((20 / 50, 38 / 50, 18 / 50))
    for side, n_right in (("before", 20), ("after", 38)):
        ends = wilson(n_right, 50, 0.95)
        assert (b[f"{side}_low"], b[f"{side}_high"]) == pytest.approx((ends.low, ends.high))
    after, before = np.arange(50) < 38, np.arange(50) < 20
    after[[38, 39]], after[[0, 1]] = True, False  # 20 gained, 2 lost
    gain = paired_gain(after, before, 0.95)
    assert (b["change_low"], b["change_high"]) == pytest.approx((gain.low, gain.high))


def test_a_small_group_is_told_without_values() -> None:
    settings = Settings(confidence=0.95, min_group_size=3, n_bootstrap=100, seed=0, ask_below=None)
    told = mitigation(KNOWN, TEST, CAT, halves, settings)[1]
    row = next(row for row in told["rows"] if row["group"] == "a")
    assert (row["n"], row["before"], row["after"], row["change"]) == (2, None, None, None)
    check(told)


@pytest.mark.parametrize(
    ("plan", "metrics"),
    [
        (EACH, ["accuracy", "balanced_accuracy"]),
        (Plan("site", "cat", "equalized_odds", "accuracy"), ["accuracy", "recall:cat", "false_positive_rate:cat"]),
        (Plan("site", "cat", "demographic_parity", "accuracy"), ["accuracy", "selection_rate:cat"]),
    ],
)
def test_what_is_made_equal_is_told(plan: Plan, metrics: list[str]) -> None:
    told = mitigation(KNOWN, TEST, plan, halves, SETTINGS)[1]
    assert list(dict.fromkeys(row["metric"] for row in told["rows"])) == metrics
