"""Choices from validation labels: the default wins ties, and few images prove nothing."""

import numpy as np
import pytest

from tasks.core.choice import choose_method, choose_plan

HOW = {"confidence": 0.95, "n_bootstrap": 500, "seed": 0}


def right(n_right: int, n: int) -> np.ndarray:
    return np.arange(n) < n_right


def test_a_clearly_better_plan_is_taken() -> None:
    chosen, entries, reason = choose_plan({"full": right(60, 100), "staged": right(90, 100)}, "full", **HOW)
    assert chosen == "staged"
    assert reason == "staged is better than the default plan full beyond the paired interval"
    assert [(e["plan"], e["val_accuracy"], e["n"]) for e in entries] == [("full", 0.6, 100), ("staged", 0.9, 100)]
    assert entries[1]["minus_default"] == pytest.approx(0.3)
    assert 0.2 < entries[1]["low"] < 0.3 < entries[1]["high"] < 0.4
    assert (entries[0]["minus_default"], entries[0]["low"], entries[0]["high"]) == (0, 0, 0)


def test_ties_take_the_default_even_when_another_looks_better() -> None:
    plans = {"staged": right(62, 100), "full": np.arange(100) >= 40, "worse": right(10, 100)}
    assert choose_plan(plans, "full", **HOW)[0] == "full"
    assert choose_plan({"a": right(5, 9), "b": right(5, 9)}, "b", **HOW)[0] == "b"


def test_of_several_better_plans_the_most_accurate_is_taken() -> None:
    plans = {"full": right(40, 100), "good": right(80, 100), "best": right(95, 100)}
    assert choose_plan(plans, "full", **HOW)[0] == "best"


def test_without_validation_labels_the_default_is_taken() -> None:
    chosen, entries, reason = choose_plan({"a": right(0, 0), "b": right(0, 0)}, "b", **HOW)
    assert chosen == "b"
    assert "no validation labels" in reason
    assert [e["val_accuracy"] for e in entries] == [None, None]


@pytest.mark.parametrize("n", [1, 3])
def test_very_few_images_do_not_make_a_plan_better(n: int) -> None:
    # sign test of n wins of n: 2 · (1/2)^n, so 1.0 and .25
    assert choose_plan({"full": right(0, n), "staged": right(n, n)}, "full", **HOW)[0] == "full"


def test_equal_plans_displace_the_default_no_more_often_than_promised() -> None:
    rng, n_runs = np.random.default_rng(0), 600
    displaced = 0
    for _ in range(n_runs):
        plans = {name: rng.random(15) < 0.9 for name in ("full", "staged")}
        displaced += choose_plan(plans, "full", confidence=0.95, n_bootstrap=200, seed=0)[0] != "full"
    assert displaced / n_runs <= 0.025 + 2.6 * np.sqrt(0.025 * 0.975 / n_runs)


def test_the_most_accurate_method_goes_to_the_guard_and_the_first_at_equality() -> None:
    assert choose_method({"finetuned": right(5, 10), "shot": right(6, 10)})[0] == "shot"
    chosen, reason = choose_method({"finetuned": right(6, 10), "shot": np.arange(10) >= 4})
    assert chosen == "finetuned"
    assert reason == "finetuned has the highest accuracy on 10 validation labels (finetuned 0.600, shot 0.600)"
    assert choose_method({"shot": right(0, 0), "finetuned": right(0, 0)})[0] == "shot"
