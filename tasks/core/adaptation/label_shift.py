"""Label shift: do the classes make up other shares of the target than of the source, and which?

Shares: BBSE, Lipton, Wang, Smola 2018, "Detecting and Correcting for Label Shift with Black Box Predictors" (eq. 2-3),
by least squares with non-negative weights. BBSE takes it for granted that the network misreads target images as it
misreads source images, and across a real domain gap it does not: on PACS its estimate was farther from the truth than
the source's own shares in all 6 pairs of domains (total variation .15 to .75 against .09 to .20). So shift is suspected
only where misreading cannot explain it. The shares of predictions and of classes lie at most the misread share apart, so
  shift >= TV(predictions, source's classes) - misread share.
On PACS that held for 5 of 18 targets that had been skewed (true shift .27 to .48), whose shares BBSE then found within
.01 to .23, and for none of 9 others; misread share: the larger of the one that average thresholded confidence tells and
1 - mean confidence.
Axes: C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from tasks.core.intervals import Interval
from tasks.core.runtime import address_rng

N_DRAWS = 200
LEAST_SHIFT = 0.1  # of the images: less is nothing to act on
TAILS = (0.025, 0.975)

Counts = tuple[np.ndarray, np.ndarray]  # (C, C) predicted by true class in the source, (C,) predictions in the target


@dataclass(frozen=True)
class LabelShift:
    """`prior_C` is worth using only where shift is suspected."""

    prior_C: np.ndarray  # estimated shares of the target's classes, sum 1
    ratio: Interval  # the largest of prior / share in the source, 95 %
    least_shift: Interval  # total variation of the predictions from the source's classes, less the misread share, 95 %
    suspected: bool
    reason: str


def label_shift(
    confusion_CC: np.ndarray, predictions_C: np.ndarray, misread_share: float, *, classes: Sequence[str], seed: int
) -> LabelShift:
    """What counts of predictions tell of the target's classes.

    confusion_CC: source validation images by predicted (row) and true class (column); predictions_C: target images by
    predicted class; misread_share: of the target images, an estimate without labels or from a few.
    Classes that the source does not show in validation keep share 0. ValueError where there is nothing to count.
    """
    n_source, n_target = int(confusion_CC.sum()), int(predictions_C.sum())
    if n_source == 0 or n_target == 0:
        raise ValueError(
            f"label shift cannot be estimated from {n_source} labelled source validation image(s) and {n_target} target "
            "image(s); give at least one of each"
        )
    prior_C = target_shares(confusion_CC, predictions_C)
    drawn = _redrawn(confusion_CC, predictions_C, seed)
    ratio = largest_ratio(confusion_CC, prior_C, drawn)
    shift = least_shift(confusion_CC, predictions_C, drawn, misread_share)
    suspected = shift.low >= LEAST_SHIFT
    name = classes[_grown_most(confusion_CC, prior_C)]
    reason = _reason(name, ratio, shift, misread_share, suspected)
    return LabelShift(prior_C, ratio, shift, suspected, reason)


def target_shares(confusion_CC: np.ndarray, predictions_C: np.ndarray) -> np.ndarray:
    """(C,) BBSE: w >= 0 that minimises |joint_CC w - predictions|, times the source's shares, scaled to sum 1."""
    joint_CC = confusion_CC / confusion_CC.sum()
    weight_C, _ = nnls(joint_CC, predictions_C / predictions_C.sum())
    shares_C = weight_C * joint_CC.sum(0)
    return np.asarray(shares_C / shares_C.sum())


def largest_ratio(confusion_CC: np.ndarray, prior_C: np.ndarray, drawn: list[Counts]) -> Interval:
    """How much larger a share the class that grew most has in the target, with the same class's spread over the draws."""
    grown = _grown_most(confusion_CC, prior_C)
    share = confusion_CC.sum(0)[grown] / confusion_CC.sum()
    draws = [target_shares(confusion, predictions)[grown] / share for confusion, predictions in drawn]
    low, high = np.quantile(draws, TAILS)
    return Interval(float(prior_C[grown] / share), float(low), float(high), int(confusion_CC.sum()))


def least_shift(
    confusion_CC: np.ndarray, predictions_C: np.ndarray, drawn: list[Counts], misread_share: float
) -> Interval:
    """TV(predictions, source's classes) - misread share. Basic bootstrap: a distance grows by the noise of its draws."""
    found = _distance(confusion_CC, predictions_C)
    low, high = np.quantile([_distance(*counts) for counts in drawn], TAILS)
    value, low, high = (float(end - misread_share) for end in (found, 2 * found - high, 2 * found - low))
    return Interval(value, low, high, int(predictions_C.sum()))


def _distance(confusion_CC: np.ndarray, predictions_C: np.ndarray) -> float:
    source_C, target_C = confusion_CC.sum(0) / confusion_CC.sum(), predictions_C / predictions_C.sum()
    return float(np.abs(source_C - target_C).sum() / 2)


def _grown_most(confusion_CC: np.ndarray, prior_C: np.ndarray) -> int:
    count_C = confusion_CC.sum(0)
    return int(np.argmax(np.divide(prior_C, count_C, out=np.zeros(len(prior_C)), where=count_C > 0)))


def _redrawn(confusion_CC: np.ndarray, predictions_C: np.ndarray, seed: int) -> list[Counts]:
    """Both tables as other samples of the same size might have shown them."""
    rng = address_rng(seed, "label_shift")
    n_source, n_target = int(confusion_CC.sum()), int(predictions_C.sum())
    p_source, p_target = confusion_CC.ravel() / n_source, predictions_C / n_target
    return [
        (rng.multinomial(n_source, p_source).reshape(confusion_CC.shape), rng.multinomial(n_target, p_target))
        for _ in range(N_DRAWS)
    ]


def _reason(name: str, ratio: Interval, shift: Interval, misread_share: float, suspected: bool) -> str:
    if suspected:
        return (
            f"the classes' shares differ between source and target for at least {shift.low:.0%} of the images, whatever is "
            f"misread; class {name} seems to be {ratio.value:.1f} times as common ({ratio.low:.1f} to {ratio.high:.1f})"
        )
    return (
        f"no label shift can be told from the predictions: about {misread_share:.0%} of the target images are misread, "
        f"which explains all but {max(shift.value, 0):.0%} (at the least {max(shift.low, 0):.0%}) of the difference"
    )
