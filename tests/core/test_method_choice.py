"""Choices: labels before ranks, gates before ranks, the default at ties, and all of it again from what is stored."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from tasks.core.guard import ADOPT, Evidence, GuardSettings, decide
from tasks.core.method_choice import (
    SOURCE_ONLY,
    Scored,
    Seen,
    adoption_gates,
    choose_method,
    choose_plan,
    replay,
    score_models,
)


def right(n_right: int, n: int) -> np.ndarray:
    return np.arange(n) < n_right


def scored(name: str, level: float, *, val: tuple[int, ...] = (), **other: float) -> Scored:
    """A candidate that passes every gate, and whose scores all are `level`."""
    names = ("ensemble_agreement", "mixval_intra", "mixval_inter", "information_maximisation", "nuclear_norm")
    figures = {"source_accuracy": 0.9, "effective_classes": 6.5, "class_ratio": 1.2} | other
    return Scored(name, scores=dict.fromkeys(names, level), val_right=val, **figures)


def choose(*candidates: Scored) -> dict[str, object]:
    return choose_method(list(candidates), 7.0, 0.95)


def test_without_labels_the_best_mean_rank_is_chosen() -> None:
    found = choose(scored(SOURCE_ONLY, 0.5), scored("mcc", 0.8), scored("shot", 0.7))
    assert found["chosen"] == "mcc"
    assert found["reason"] == (
        "there are no validation labels; mcc has the best mean rank of label-free scores (source_only 3.00, mcc 1.00, shot 2.00)"
    )
    assert found["n_val_labels"] == 0


def test_a_family_of_scores_has_one_vote() -> None:
    one = scored("mcc", 0.5)
    one = replace(one, scores=one.scores | {"ensemble_agreement": 0.9, "mixval_intra": 0.9, "mixval_inter": 0.1})
    found = choose(scored(SOURCE_ONLY, 0.4), one, scored("shot", 0.6))
    # mcc: agreement 1, mixed images (1 + 3) / 2, certain and spread 2; shot: 2, (2 + 1) / 2, 1
    assert [entry["mean_rank"] for entry in found["candidates"]] == pytest.approx([(3 + 2.5 + 3) / 3, 5 / 3, 4.5 / 3])
    assert found["chosen"] == "shot"


def test_source_only_wins_at_equality() -> None:
    assert choose(scored("mcc", 0.5), scored(SOURCE_ONLY, 0.5))["chosen"] == SOURCE_ONLY


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ({"source_accuracy": 0.84}, "0.840 right on held-out source images, at least 0.850 is asked"),
        ({"effective_classes": 3.4}, "3.4 classes in use on the target, at least 3.5 are asked"),
        ({"class_ratio": 3.1}, "one class is guessed 3.1 times its share of the source, at most 3.0 is allowed"),
    ],
)
def test_each_gate_keeps_a_model_out_and_says_why(broken: dict[str, float], sentence: str) -> None:
    found = choose(scored(SOURCE_ONLY, 0.5), scored("mcc", 0.8, **broken), scored("shot", 0.6))
    assert found["chosen"] == "shot"
    assert str(found["reason"]).endswith(f"; kept out by the gates: mcc ({sentence})")
    only = choose(scored(SOURCE_ONLY, 0.5), scored("mcc", 0.8, **broken))
    assert only["chosen"] == SOURCE_ONLY
    limits = {"source_accuracy": 0.85, "effective_classes": 3.5, "class_ratio": 3.0}
    at_limit = scored("mcc", 0.8, **{name: limits[name] for name in broken})
    assert choose(scored(SOURCE_ONLY, 0.5), at_limit)["chosen"] == "mcc"


def test_a_model_that_source_images_cannot_judge_may_be_chosen_but_has_no_proof() -> None:
    base, adabn = scored(SOURCE_ONLY, 0.5), replace(scored("adabn", 0.8), source_accuracy=None)
    found = choose(base, adabn)
    assert found["chosen"] == "adabn"
    gate = adoption_gates(adabn, base, 7.0)[0]
    assert (gate.name, gate.value, gate.is_passed) == ("source_validation", None, None)
    assert gate.reason == "held-out source images can't tell what adabn lost on the source"
    stored = json.loads(json.dumps(found, allow_nan=False))
    assert replay(stored) == "adabn"
    collapsed = choose(base, replace(adabn, class_ratio=3.1))
    assert collapsed["chosen"] == SOURCE_ONLY
    assert str(collapsed["reason"]).endswith(
        "kept out by the gates: adabn (one class is guessed 3.1 times its share of the source, at most 3.0 is allowed)"
    )


def test_without_the_source_gate_the_gates_do_not_agree() -> None:
    """All others pass; what can't be told is neither a pass nor a reason for less evidence."""
    base = scored(SOURCE_ONLY, 1.0, source_accuracy=0.9)
    one = replace(scored("adabn", 1.5), source_accuracy=None)
    gates = adoption_gates(one, base, 7.0)
    assert [gate.name for gate in gates if not gate.is_passed] == ["source_validation"]
    evidence = Evidence(n_images=100, n_disagreements=20, wins=0, losses=0, both_wrong=0)
    found = decide(evidence, GuardSettings(0.95, 0.9, 0.6, 0.0, "gates"), gates=gates)
    assert found.decision != ADOPT
    sure = [replace(gate, is_passed=True) for gate in gates]
    assert decide(evidence, GuardSettings(0.95, 0.9, 0.6, 0.0, "gates"), gates=sure).decision == ADOPT


def test_labels_decide_before_ranks_and_gates() -> None:
    best, base = (
        scored("shot", 0.1, val=(1, 1, 1, 0) * 3, class_ratio=9.0),
        scored(SOURCE_ONLY, 0.5, val=(1, 0, 0, 0) * 3),
    )
    found = choose(base, scored("mcc", 0.8, val=(1, 1, 0, 0) * 3), best)
    assert found["chosen"] == "shot"
    assert found["reason"] == (
        "shot has the highest accuracy on 12 validation labels (source_only 0.250, mcc 0.500, shot 0.750)"
    )
    shown = {entry["name"]: entry["minus_source_only"] for entry in found["candidates"]}
    assert shown["shot"]["value"] == 0.5
    assert shown["shot"]["low"] > 0  # 6 of 6: two-sided sign test .03


def test_few_labels_choose_nothing() -> None:
    """The most accurate on nine labels fails a gate; the gates and ranks choose, as without labels."""
    worse = scored("shot", 0.9, val=(1,) * 9, class_ratio=9.0)
    found = choose(scored(SOURCE_ONLY, 0.5, val=(0,) * 9), scored("mcc", 0.8, val=(0,) * 9), worse)
    assert found["chosen"] == "mcc"
    assert found["reason"].startswith("9 validation labels are too few to choose by (10 are needed); mcc has the best")
    assert found["candidates"][2]["val_accuracy"] == 1.0  # shown all the same
    ten = [replace(each, val_right=(*each.val_right, 0)) for each in (scored(SOURCE_ONLY, 0.5, val=(0,) * 9), worse)]
    assert choose(*ten)["chosen"] == "shot"


def test_equal_labels_are_decided_by_gates_and_then_by_ranks() -> None:
    one, other = (0, 1) * 5, (1, 0) * 5
    found = choose(scored(SOURCE_ONLY, 0.5, val=one), scored("mcc", 0.6, val=other), scored("shot", 0.8, val=other))
    assert found["chosen"] == "shot"
    assert found["reason"] == (
        "shot comes first by gates and label-free ranks among those with the highest accuracy (source_only, mcc) on 10 "
        "validation labels (source_only 0.500, mcc 0.500, shot 0.500)"
    )
    failing = scored("shot", 0.8, val=other, class_ratio=9.0)
    assert choose(scored(SOURCE_ONLY, 0.5, val=one), scored("mcc", 0.6, val=other), failing)["chosen"] == "mcc"


@pytest.mark.parametrize("val", [(), (1, 0, 1), (1, 0) * 5])
def test_a_choice_is_made_again_from_what_is_stored(val: tuple[int, ...]) -> None:
    found = choose(scored(SOURCE_ONLY, 0.5, val=val), scored("mcc", 0.8, val=val), scored("shot", 0.9, val=val))
    stored = json.loads(json.dumps(found, allow_nan=False))
    assert replay(stored) == found["chosen"] == "shot"
    stored["candidates"][2]["scores"] = dict.fromkeys(stored["candidates"][2]["scores"], 0.0)
    assert replay(stored) == "mcc"


def test_a_model_without_pairs_of_two_classes_comes_last_in_that_score() -> None:
    collapsed = scored("mcc", 0.9)
    collapsed = replace(collapsed, scores=collapsed.scores | {"mixval_inter": None})
    found = choose(scored(SOURCE_ONLY, 0.5), collapsed)
    ranks = {entry["name"]: entry["ranks"] for entry in found["candidates"]}
    assert (ranks["mcc"]["mixval_inter"], ranks[SOURCE_ONLY]["mixval_inter"]) == (2.0, 1.0)


def test_a_score_that_nobody_has_ranks_nobody() -> None:
    def without(candidate: Scored) -> Scored:
        return replace(candidate, scores=candidate.scores | {"mixval_intra": None, "mixval_inter": None})

    found = choose(without(scored(SOURCE_ONLY, 0.5)), without(scored("mcc", 0.8)))
    assert found["candidates"][0]["mean_rank"] == 2.0
    assert "mixval_intra" not in found["candidates"][0]["ranks"]


def test_figures_of_models_by_hand() -> None:
    sure = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    even = np.array([[0.6, 0.4], [0.6, 0.4], [0.4, 0.6], [0.4, 0.6]])
    models = [
        Seen(SOURCE_ONLY, right(3, 4), even, right(0, 0)),
        Seen("mcc", right(2, 4), sure, right(0, 0), mixval_intra=0.75, mixval_inter=math.nan),
    ]
    base, mcc = score_models(models, np.array([0.5, 0.5]))
    # the mean of the two guesses 0, 1, 1, 1
    assert (base.scores["ensemble_agreement"], mcc.scores["ensemble_agreement"]) == (0.75, 1.0)
    assert (base.source_accuracy, mcc.source_accuracy) == (0.75, 0.5)
    assert (base.class_ratio, mcc.class_ratio) == (1.0, 1.5)
    assert mcc.effective_classes == pytest.approx(math.exp(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75))))
    assert (mcc.scores["mixval_intra"], mcc.scores["mixval_inter"], base.scores["mixval_intra"]) == (0.75, None, None)


def test_a_clearly_better_plan_is_taken() -> None:
    chosen, entries, reason = choose_plan({"full": right(60, 100), "staged": right(90, 100)}, "full", 0.95)
    assert chosen == "staged"
    assert reason == "staged is better than the default plan full beyond the paired interval"
    assert [(e["plan"], e["val_accuracy"], e["n"]) for e in entries] == [("full", 0.6, 100), ("staged", 0.9, 100)]
    assert entries[1]["minus_default"] == pytest.approx(0.3)
    # 30 of 30 is at least .8843, 30 of 100 is .2124 to .3998 (Clopper-Pearson)
    assert (entries[1]["low"], entries[1]["high"]) == pytest.approx((0.2124 * 0.7686, 0.3998), abs=2e-4)
    assert entries[0]["minus_default"] == 0


def test_ties_take_the_default_even_when_another_looks_better() -> None:
    plans = {"staged": right(62, 100), "full": np.arange(100) >= 40, "worse": right(10, 100)}
    assert choose_plan(plans, "full", 0.95)[0] == "full"
    assert choose_plan({"a": right(5, 9), "b": right(5, 9)}, "b", 0.95)[0] == "b"


def test_the_fewest_images_that_prove_a_plan_better() -> None:
    # sign test of n wins of n: 2 · (1/2)^n, so .0625 and .03125
    assert choose_plan({"full": right(0, 5), "staged": right(5, 5)}, "full", 0.95)[0] == "full"
    assert choose_plan({"full": right(0, 6), "staged": right(6, 6)}, "full", 0.95)[0] == "staged"


def test_of_several_better_plans_the_most_accurate_is_taken() -> None:
    plans = {"full": right(40, 100), "good": right(80, 100), "best": right(95, 100)}
    assert choose_plan(plans, "full", 0.95)[0] == "best"


def test_without_validation_labels_the_default_is_taken() -> None:
    chosen, entries, reason = choose_plan({"a": right(0, 0), "b": right(0, 0)}, "b", 0.95)
    assert chosen == "b"
    assert "no validation labels" in reason
    assert [e["val_accuracy"] for e in entries] == [None, None]


@pytest.mark.parametrize(
    ("adapted", "base", "failing"),
    [
        ({}, {}, []),
        ({"source_accuracy": 0.84}, {}, ["source_validation"]),
        ({"effective_classes": 3.0}, {}, ["effective_classes"]),
        ({"class_ratio": 4.0}, {}, ["class_ratio"]),
        ({"agreement": 0.6}, {}, ["agreement"]),  # not above source-only
        ({"certainty": 1.2}, {"certainty": 1.2}, ["more_certain_and_spread"]),
        # half of ln 7 is .973
        ({"certainty": 0.97}, {}, ["certain_and_spread"]),
        ({"certainty": 0.98}, {}, []),
        # (a - 1/7) / (6/7) = .75 at a = 11/14 = .7857
        ({"source_accuracy": 0.78}, {"source_accuracy": 0.78}, ["competence"]),
        ({"source_accuracy": 0.79}, {"source_accuracy": 0.79}, []),
    ],
)
def test_each_gate_of_an_unproven_adoption_trips(
    adapted: dict[str, float], base: dict[str, float], failing: list[str]
) -> None:
    def made(name: str, figures: dict[str, float]) -> Scored:
        plain = {key: value for key, value in figures.items() if key not in ("agreement", "certainty")}
        found = scored(name, 0.5, **plain)
        shown = {"ensemble_agreement": figures["agreement"], "information_maximisation": figures["certainty"]}
        return replace(found, scores=found.scores | shown)

    one = made("mcc", {"agreement": 0.8, "certainty": 1.3} | adapted)
    gates = adoption_gates(one, made(SOURCE_ONLY, {"agreement": 0.6, "certainty": 0.9} | base), 7.0)
    assert [gate.name for gate in gates if not gate.is_passed] == failing
    assert len(gates) == 7
