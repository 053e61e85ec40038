"""Choices from validation labels: the default wins ties, and few images prove nothing."""

import numpy as np
import pytest

from tasks.core.choice import choose_method, choose_plan


def right(n_right: int, n: int) -> np.ndarray:
    return np.arange(n) < n_right


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


def test_the_most_accurate_method_goes_to_the_guard_and_the_first_at_equality() -> None:
    assert choose_method({"finetuned": right(5, 10), "shot": right(6, 10)})[0] == "shot"
    chosen, reason = choose_method({"finetuned": right(6, 10), "shot": np.arange(10) >= 4})
    assert chosen == "finetuned"
    assert reason == "finetuned has the highest accuracy on 10 validation labels (finetuned 0.600, shot 0.600)"
    assert choose_method({"shot": right(0, 0), "finetuned": right(0, 0)})[0] == "shot"
