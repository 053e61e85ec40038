"""Temperatures against a grid and a known truth; the threshold against exact intervals."""

import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import beta

from tasks.core.calibration import COLDEST, HOTTEST, THRESHOLDS, ask_below, calibrated, fit_temperature, recalibrated


def drawn(n: int, true_temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels drawn from the softmax of logits / temperature."""
    rng = np.random.default_rng(seed)
    logits_NC = rng.normal(0, 3, (n, 4))
    p_NC = np.exp(log_softmax(logits_NC / true_temperature, axis=1))
    return logits_NC, (p_NC.cumsum(1) > rng.random((n, 1))).argmax(1)


@pytest.mark.parametrize("truth", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(truth: float) -> None:
    found = fit_temperature(*drawn(4000, truth))
    assert found.value == pytest.approx(truth, rel=0.1)
    assert not found.is_at_limit


def test_the_loss_is_least_there() -> None:
    logits_NC, y_N = drawn(300, 2.0)
    grid = np.geomspace(0.5, 8, 2000)
    losses = [-np.take_along_axis(log_softmax(logits_NC / t, axis=1), y_N[:, None], 1).mean() for t in grid]
    assert fit_temperature(logits_NC, y_N).value == pytest.approx(grid[int(np.argmin(losses))], rel=2e-3)


def test_too_sure_a_model_has_a_smaller_error_afterwards() -> None:
    found = fit_temperature(*drawn(2000, 3.0))
    assert found.error_before > 0.15
    assert found.error_after < 0.06
    assert found.n == 2000


def test_log_probabilities_and_logits_are_the_same() -> None:
    logits_NC, y_N = drawn(200, 2.0)
    shifted = fit_temperature(log_softmax(logits_NC, axis=1), y_N)
    assert shifted.value == pytest.approx(fit_temperature(logits_NC, y_N).value, rel=1e-6)


def test_two_classes_by_hand() -> None:
    # logits (2, 0), right 3 times of 4: the softmax must give 3/4, so 2 / T = ln 3
    logits_NC, y_N = np.tile([2.0, 0.0], (20, 1)), np.array([0, 0, 0, 1] * 5)
    found = fit_temperature(logits_NC, y_N)
    assert found.value == pytest.approx(2 / np.log(3))
    assert calibrated(logits_NC, found.value)[0] == pytest.approx([0.75, 0.25])
    # before: confidence e² / (e² + 1) = .8808 against .75
    assert found.error_before == pytest.approx(0.1308, abs=1e-4)


@pytest.mark.parametrize(("label", "limit"), [(0, COLDEST), (1, HOTTEST)])
def test_all_right_or_all_wrong_has_no_temperature_and_says_so(label: int, limit: float) -> None:
    found = fit_temperature(np.tile([2.0, 0.0], (20, 1)), np.full(20, label))
    assert (found.value, found.is_at_limit) == (limit, True)


def test_too_few_images_and_infinite_outputs_are_refused() -> None:
    with pytest.raises(
        ValueError, match="a temperature needs at least 10 labelled validation images, there are 9; label more"
    ):
        fit_temperature(np.zeros((9, 2)), np.zeros(9, int))
    broken = np.zeros((12, 2))
    broken[3, 1] = -np.inf
    with pytest.raises(ValueError, match="1 of 12 images have outputs that are not finite; give logits or clip"):
        fit_temperature(broken, np.zeros(12, int))


def lower(n_right: int, n: int, tail: float) -> float:
    return float(beta.ppf(tail, n_right, n - n_right + 1))


def test_the_lowest_threshold_that_is_shown_to_do() -> None:
    confidence_N = np.array([0.97] * 60 + [0.85] * 60 + [0.55] * 60)
    right_N = np.array([True] * 60 + [True] * 57 + [False] * 3 + [True] * 30 + [False] * 30)
    found = ask_below(confidence_N, right_N, accuracy=0.9, confidence=0.95)
    # at or above .6: 117 of 120; at or above .5: 147 of 180 can't reach .9
    assert lower(117, 120, 0.05 / 8) > 0.9
    assert found.threshold == 0.6
    assert (found.accuracy.n, found.share_above) == (120, pytest.approx(2 / 3))
    assert found.accuracy.low == pytest.approx(lower(117, 120, 0.05 / 8))
    assert found.reason == (
        f"of 120 images at or above 0.60 the model gets 0.975 right, at least {found.accuracy.low:.3f} with 95% confidence"
    )


def test_no_threshold_where_nothing_is_shown() -> None:
    # 43 of 43: .00625^(1/43) = .889
    found = ask_below(np.full(43, 0.99), np.ones(43, bool), accuracy=0.9, confidence=0.95)
    assert (found.threshold, found.share_above) == (None, 0.0)
    assert found.reason == (
        "no confidence of 43 labelled images is shown to mean an accuracy of 0.900: ask a person always"
    )
    # 49 of 49: .00625^(1/49) = .9016
    assert ask_below(np.full(49, 0.99), np.ones(49, bool), accuracy=0.9, confidence=0.95).threshold == 0.0
    assert ask_below(np.empty(0), np.empty(0, bool), accuracy=0.9, confidence=0.95).threshold is None


def test_the_promise_is_kept_as_often_as_it_says() -> None:
    # the model is .85 right at every confidence: a threshold for .9 would be a false promise
    rng, n_false, n_runs = np.random.default_rng(0), 0, 800
    for _ in range(n_runs):
        confidence_N = rng.uniform(0.3, 1, 150)
        n_false += ask_below(confidence_N, rng.random(150) < 0.85, accuracy=0.9, confidence=0.9).threshold is not None
    assert n_false / n_runs <= 0.1
    assert len(THRESHOLDS) == 8


def test_probabilities_are_recalibrated_as_their_logits() -> None:
    """Odds 9 : 1 at temperature 2 are 3 : 1; what has no chance gets none."""
    found = recalibrated(np.array([[0.9, 0.1, 0.0]]), 2.0)
    assert found[0] == pytest.approx([0.75, 0.25, 0.0])
