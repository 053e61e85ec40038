"""Metrics of one model on the test images, each with its n and interval."""

from typing import Any

import numpy as np
import pandas as pd

from tasks.core.intervals import paired_gain, wilson
from tasks.core.predictions import right

N_CALIBRATION_BINS = 15


def model_metrics(rows: pd.DataFrame, confidence: float) -> dict[str, Any]:
    """n, accuracy with Wilson interval, balanced accuracy, worst class recall, expected calibration error."""
    is_right = right(rows)
    share = wilson(int(is_right.sum()), len(rows), confidence)
    recall = pd.Series(is_right).groupby(rows["y_true"].to_numpy()).mean()
    return {
        "n": len(rows),
        "accuracy": share.value,
        "accuracy_low": share.low,
        "accuracy_high": share.high,
        "balanced_accuracy": float(recall.mean()),
        "worst_class_recall": float(recall.min()),
        "worst_class": str(recall.idxmin()),
        "calibration_error": calibration_error(rows[[c for c in rows if str(c).startswith("p_")]].to_numpy(), is_right),
    }


def calibration_error(probs_NC: np.ndarray, is_right: np.ndarray) -> float:
    """Expected calibration error over 15 equal bins of the highest probability (Guo et al. 2017), 0..1."""
    confidence_N = probs_NC.max(1)
    bins = np.minimum((confidence_N * N_CALIBRATION_BINS).astype(int), N_CALIBRATION_BINS - 1)
    gaps = [abs(is_right[bins == b].sum() - confidence_N[bins == b].sum()) for b in range(N_CALIBRATION_BINS)]
    return float(sum(gaps) / len(is_right))


def gain_over(one: pd.DataFrame, other: pd.DataFrame, confidence: float) -> dict[str, Any]:
    """Accuracy of one minus the other's on the same images, with its interval."""
    if list(one["image_id"]) != list(other["image_id"]):
        raise ValueError("the two models were not evaluated on the same images in the same order")
    gap = paired_gain(right(one), right(other), confidence)
    return {"value": gap.value, "low": gap.low, "high": gap.high, "n": gap.n}
