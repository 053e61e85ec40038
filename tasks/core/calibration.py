"""Calibration: one temperature that makes confidence mean accuracy, and the confidence below which a person is asked.

Both are fitted on labelled validation images of the target where it has some, else of the source: then they hold for
images like the source's, and a model is usually too sure of itself on others.

Axes: N images, C classes.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax
from sklearn.model_selection import KFold

from tasks.core.intervals import Interval, clopper_pearson
from tasks.core.metrics import calibration_error

COLDEST, HOTTEST = 0.05, 20.0
N_FOLDS = 5
THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Temperature:
    """value: what the logits are divided by; calibration errors (0..1) before, and after as left-out folds have it."""

    value: float
    error_before: float
    error_after: float
    n: int
    is_at_limit: bool  # all labels are as the model says, or none is: more images are needed


@dataclass(frozen=True)
class AskBelow:
    """Predictions under `threshold` go to a person; None: even the surest are not shown to be accurate enough."""

    threshold: float | None
    accuracy: Interval  # at or above the threshold, on the labelled images; of all of them where there is no threshold
    share_above: float  # of the labelled images
    reason: str


def fit_temperature(log_probs_NC: np.ndarray, y_N: np.ndarray) -> Temperature:
    """The temperature of the least negative log likelihood (Guo et al. 2017), from logits or log-probabilities.

    The loss is convex in 1/T, so its slope's only root is sought, between the temperatures .05 and 20. The error after is
    measured on the left-out fifths, each with the temperature of the others: the same images would flatter it.
    ValueError for fewer than 10 images or for values that are not finite.
    """
    _check(log_probs_NC, y_N)
    after_NC = np.empty(log_probs_NC.shape)
    for fit, left_out in KFold(N_FOLDS, shuffle=True, random_state=0).split(y_N):
        after_NC[left_out] = calibrated(log_probs_NC[left_out], _best(log_probs_NC[fit], y_N[fit]))
    value, is_right = _best(log_probs_NC, y_N), log_probs_NC.argmax(1) == y_N
    return Temperature(
        value,
        calibration_error(softmax(log_probs_NC, axis=1), is_right),
        calibration_error(after_NC, is_right),
        len(y_N),
        value in (COLDEST, HOTTEST),
    )


def calibrated(log_probs_NC: np.ndarray, temperature: float) -> np.ndarray:
    """(N, C) probabilities at this temperature; the guesses stay as they are."""
    return np.asarray(softmax(log_probs_NC / temperature, axis=1))


def recalibrated(probs_NC: np.ndarray, temperature: float) -> np.ndarray:
    """(N, C) the same of probabilities, whose logarithms are logits; one of 0 stays 0."""
    return calibrated(np.log(probs_NC.clip(min=np.finfo(float).tiny)), temperature)


def ask_below(confidence_N: np.ndarray, right_N: np.ndarray, *, accuracy: float, confidence: float) -> AskBelow:
    """The lowest of eight fixed thresholds at and above which the accuracy is shown to reach `accuracy`.

    Shown: the exact one-sided lower bound of each threshold, the error shared evenly over all eight (Bonferroni), so the
    search for the lowest costs nothing of the confidence.
    """
    level = 1 - 2 * (1 - confidence) / len(THRESHOLDS)  # two-sided, of which the lower end is used
    for threshold in THRESHOLDS:
        above = confidence_N >= threshold
        shown = clopper_pearson(int(right_N[above].sum()), int(above.sum()), level)
        if shown.n and shown.low >= accuracy:
            reason = (
                f"of {shown.n} images at or above {threshold:.2f} the model gets {shown.value:.3f} right, at least "
                f"{shown.low:.3f} with {confidence:.0%} confidence"
            )
            return AskBelow(threshold, shown, float(above.mean()), reason)
    every = clopper_pearson(int(right_N.sum()), len(right_N), level)
    reason = f"no confidence of {len(right_N)} labelled images is shown to mean an accuracy of {accuracy:.3f}"
    return AskBelow(None, every, 0.0, f"{reason}: ask a person always")


def _best(log_probs_NC: np.ndarray, y_N: np.ndarray) -> float:
    z_NC = log_softmax(log_probs_NC, axis=1)
    of_label_N = np.take_along_axis(z_NC, y_N[:, None], axis=1)[:, 0]

    def slope(inverse: float) -> float:
        """Of the mean loss in 1/T: what the model expects of its log-probability minus what it gets."""
        return float(((softmax(inverse * z_NC, axis=1) * z_NC).sum(1) - of_label_N).mean())

    if slope(1 / COLDEST) <= 0:
        return COLDEST
    if slope(1 / HOTTEST) >= 0:
        return HOTTEST
    return 1 / float(brentq(slope, 1 / HOTTEST, 1 / COLDEST, xtol=1e-10))


def _check(log_probs_NC: np.ndarray, y_N: np.ndarray) -> None:
    if len(y_N) < 2 * N_FOLDS:
        raise ValueError(
            f"a temperature needs at least {2 * N_FOLDS} labelled validation images, there are {len(y_N)}; label more"
        )
    if not np.isfinite(log_probs_NC).all():
        n_bad = int((~np.isfinite(log_probs_NC).all(1)).sum())
        raise ValueError(
            f"{n_bad} of {len(y_N)} images have outputs that are not finite; give logits or clip probabilities above 0"
        )
