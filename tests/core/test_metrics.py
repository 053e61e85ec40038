"""Metrics of one model: by hand and against scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score

from tasks.core.metrics import calibration_error, gain_over, model_metrics


def predictions(y_true: list[str], y_pred: list[str], p_cat: list[float]) -> pd.DataFrame:
    return pd.DataFrame({
        "model": "m", "image_id": [f"i{k}" for k in range(len(y_true))], "y_true": y_true, "y_pred": y_pred,
        "audit_p_site": "x", "p_cat": p_cat, "p_dog": [1 - p for p in p_cat],
    })  # fmt: skip


def test_calibration_error_by_hand() -> None:
    # bins of 1/15: .95 and .95 share one (1 right of 2: gap |1 - 1.9| = .9), .6 stands alone (right: .4)
    probs = np.array([[0.95, 0.05], [0.05, 0.95], [0.4, 0.6]])
    assert calibration_error(probs, np.array([True, False, True])) == pytest.approx((0.9 + 0.4) / 3)


def test_sure_and_right_is_perfectly_calibrated_and_sure_and_wrong_is_worst() -> None:
    sure = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert calibration_error(sure, np.array([True, True])) == 0
    assert calibration_error(sure, np.array([False, False])) == 1


def test_too_sure_and_too_modest_in_one_bin_cancel_and_in_two_bins_do_not() -> None:
    one_bin = np.array([[0.81, 0.19], [0.85, 0.15]])
    assert calibration_error(one_bin, np.array([True, True])) == pytest.approx(0.17)
    assert calibration_error(one_bin, np.array([True, False])) == pytest.approx((1.66 - 1) / 2)
    two_bins = np.array([[0.51, 0.49], [0.99, 0.01]])
    assert calibration_error(two_bins, np.array([True, False])) == pytest.approx((0.49 + 0.99) / 2)


def test_metrics_equal_scikit_learn() -> None:
    y_true = ["cat"] * 6 + ["dog"] * 2
    y_pred = ["cat", "cat", "cat", "cat", "cat", "dog", "dog", "cat"]
    found = model_metrics(predictions(y_true, y_pred, [0.9] * 5 + [0.2, 0.3, 0.6]), 0.9)
    interval = binomtest(6, 8).proportion_ci(0.9, method="wilson")
    assert found["n"] == 8
    assert found["accuracy"] == accuracy_score(y_true, y_pred)
    assert (found["accuracy_low"], found["accuracy_high"]) == pytest.approx((interval.low, interval.high))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(y_true, y_pred))
    assert found["worst_class_recall"] == min(recall_score(y_true, y_pred, average=None))
    assert found["worst_class"] == "dog"
    # bins: .9 ×5 all right (.5); .8 wrong (.8); .7 right (.3); .6 wrong (.6)
    assert found["calibration_error"] == pytest.approx((0.5 + 0.8 + 0.3 + 0.6) / 8)


def test_a_class_never_seen_in_truth_has_no_recall() -> None:
    assert model_metrics(predictions(["cat", "cat"], ["cat", "dog"], [0.9, 0.1]), 0.95)["balanced_accuracy"] == 0.5


def test_the_gain_by_hand_and_only_on_the_same_images() -> None:
    one = predictions(["cat"] * 4, ["cat", "cat", "cat", "dog"], [0.5] * 4)
    other = predictions(["cat"] * 4, ["dog", "cat", "dog", "cat"], [0.5] * 4)
    found = gain_over(one, other, 0.95)
    assert (found["value"], found["n"]) == (0.25, 4)
    # 2 of 3 is .0943 to .9916, 3 of 4 at most .9937 (Clopper-Pearson)
    assert (found["low"], found["high"]) == pytest.approx((-0.8114 * 0.9937, 0.9832 * 0.9937), abs=2e-4)
    with pytest.raises(ValueError, match="not evaluated on the same images in the same order"):
        gain_over(one, other.iloc[::-1], 0.95)
