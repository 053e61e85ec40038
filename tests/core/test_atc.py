"""Accuracy without labels: the threshold by hand, the interval by simulation, and what it must not claim."""

import numpy as np
import pytest

from tasks.core.atc import estimated, threshold, thresholds_of

SURE = np.array([0.9, 0.5, 0.8, 0.6])
RIGHT = np.array([True, False, True, True])


@pytest.mark.parametrize(
    ("right", "by_hand"),
    [
        ([True, True, True, True], 0.5),  # none wrong: none below
        ([True, False, True, True], 0.6),  # one wrong: .5 below
        ([False, False, True, True], 0.8),  # two wrong, whichever: .5 and .6 below
        ([False, False, False, False], np.inf),
    ],
)
def test_as_many_images_lie_below_the_threshold_as_are_wrong(right: list[bool], by_hand: float) -> None:
    assert threshold(SURE, np.array(right)) == by_hand


def test_the_estimate_is_the_share_at_or_above_the_threshold() -> None:
    """Threshold .6; of .55, .6, .7, .9, .4 three lie at or above it: .6, and .75 of the held-out images were right."""
    new = np.array([0.55, 0.6, 0.7, 0.9, 0.4])
    found = estimated(thresholds_of(SURE, RIGHT, seed=0), new, confidence=0.95, seed=0)
    assert (found.accuracy.value, found.accuracy.n) == (pytest.approx(0.6), 5)
    assert found.drop.value == pytest.approx(0.15)
    assert found.accuracy.low < 0.6 < found.accuracy.high
    assert found.drop.low < 0.15 < found.drop.high


def test_a_model_that_is_always_wrong_is_estimated_so() -> None:
    found = estimated(thresholds_of(SURE, ~RIGHT | False, seed=0), SURE, confidence=0.95, seed=0)
    assert found.accuracy.value == pytest.approx(0.25)  # three wrong: only .9 is at the threshold
    nothing = estimated(thresholds_of(SURE, np.zeros(4, bool), seed=0), SURE, confidence=0.95, seed=0)
    assert nothing.accuracy.value == 0.0


def test_sixty_of_sixty_right_is_not_certainly_all() -> None:
    """Resampling would say 1 to 1; the exact upper bound of 0 of 60 wrong is .06."""
    sure = np.linspace(0.9, 1, 60)
    found = estimated(thresholds_of(sure, np.ones(60, bool), seed=0), sure, confidence=0.95, seed=0).accuracy
    assert found.value == found.high == 1.0
    assert 0.9 < found.low < 0.98


def test_more_images_give_a_narrower_interval() -> None:
    rng = np.random.default_rng(0)

    def width(n: int) -> float:
        sure = rng.beta(8, 1, n)
        right = rng.random(n) < sure
        found = estimated(thresholds_of(sure, right, seed=0), rng.beta(8, 1, n), confidence=0.95, seed=0).accuracy
        return found.high - found.low

    assert width(50) > 1.5 * width(400)


@pytest.mark.parametrize(("a", "n_held_out", "n_new"), [(8, 60, 200), (40, 60, 200), (8, 133, 300)])
def test_the_interval_covers_the_true_accuracy(a: int, n_held_out: int, n_new: int) -> None:
    """Confidence ~ Beta(a, 1), right with just that probability: the accuracy is a / (a + 1). 95 % claimed, 200 trials."""
    rng, n_covered, n_trials = np.random.default_rng(1), 0, 200
    for trial in range(n_trials):
        sure = rng.beta(a, 1, n_held_out)
        drawn = thresholds_of(sure, rng.random(n_held_out) < sure, seed=trial, n_draws=300)
        found = estimated(drawn, rng.beta(a, 1, n_new), confidence=0.95, seed=trial).accuracy
        n_covered += found.low <= a / (a + 1) <= found.high
    assert n_covered >= 0.92 * n_trials


def test_a_drop_is_found_where_the_new_images_are_harder() -> None:
    """Held out: Beta(20, 1), .95 right. New: Beta(3, 1), of which .75 would be right."""
    rng = np.random.default_rng(2)
    sure = rng.beta(20, 1, 400)
    found = estimated(thresholds_of(sure, rng.random(400) < sure, seed=0), rng.beta(3, 1, 400), confidence=0.95, seed=0)
    assert found.drop.low > 0.05
    assert found.accuracy.high < 0.9


def test_the_same_images_give_the_same_figures() -> None:
    one, other = (
        estimated(thresholds_of(SURE, RIGHT, seed=3), SURE[::step], confidence=0.95, seed=3) for step in (1, -1)
    )
    assert one == other


def test_nothing_is_not_estimated() -> None:
    with pytest.raises(ValueError, match="0 labelled held-out images"):
        thresholds_of(np.empty(0), np.empty(0, bool), seed=0)
    with pytest.raises(ValueError, match="1 of them without a confidence"):
        thresholds_of(np.array([0.5, np.nan]), np.ones(2, bool), seed=0)
    with pytest.raises(ValueError, match="of 0 images can't be estimated"):
        estimated(thresholds_of(SURE, RIGHT, seed=0), np.empty(0), confidence=0.95, seed=0)
