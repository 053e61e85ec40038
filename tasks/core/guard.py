"""The guard against negative transfer: adopt the adapted model only where labels that nothing else read prove it better."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from tasks.core.intervals import Interval, clopper_pearson

ADOPT, KEEP, INCONCLUSIVE = "adopt", "keep", "inconclusive"


@dataclass(frozen=True)
class GuardDecision:
    """decision: adopt | keep | inconclusive (source-only stays); gain: accuracy of adapted minus source-only."""

    decision: str
    reason: str
    gain: Interval
    n_discordant: int
    n_more_labels: int | None  # about so many would decide, if the gain is as measured


def decide(
    adapted_right_N: np.ndarray, source_right_N: np.ndarray, *, margin: float, confidence: float
) -> GuardDecision:
    """Adopt if the gain's interval lies above -margin, keep if it lies below, else inconclusive.

    Only images on which exactly one model is right tell anything. With m of them among n, w of these won, the gain is
    (m/n)(2 w/m - 1). Both shares take their exact (Clopper-Pearson) interval, and the worse end of m/n is used: at margin 0
    this decides as the exact sign test does, and the ends are rather too far apart than too near.
    """
    n = len(adapted_right_N)
    wins = int((adapted_right_N & ~source_right_N).sum())
    losses = int((~adapted_right_N & source_right_N).sum())
    discordant = wins + losses
    if n == 0:
        return GuardDecision(
            INCONCLUSIVE, "there are no guard labels, so nothing proves a gain", _gain(0, 0, 0, confidence), 0, None
        )
    gain = _gain(wins, losses, n, confidence)
    interval = (
        f"gain {gain.value:+.3f}, {confidence:.0%} interval {gain.low:+.3f} to {gain.high:+.3f}, "
        f"exactly one of the two right on {discordant} of n = {n} guard labels"
    )
    if gain.low > -margin:
        return GuardDecision(ADOPT, f"better than source-only beyond the interval: {interval}", gain, discordant, 0)
    if gain.high < -margin:
        return GuardDecision(KEEP, f"worse than source-only beyond the interval: {interval}", gain, discordant, 0)
    more = labels_needed(gain.value + margin, discordant / n, n, confidence)
    advice = (
        f"about {more} more labels would decide"
        if more is not None
        else "no number of labels would decide at this gain"
    )
    return GuardDecision(INCONCLUSIVE, f"not proven either way: {interval}; {advice}", gain, discordant, more)


def labels_needed(gain: float, discordant_share: float, n: int, confidence: float) -> int | None:
    """More labels until a gain of this size leaves the interval, by the normal approximation; None at a gain of 0."""
    if gain == 0 or discordant_share == 0:
        return None
    z = float(norm.ppf((1 + confidence) / 2))
    variance = discordant_share - min(gain**2, discordant_share)
    return max(math.ceil(z * z * variance / gain**2) - n, 1)


def _gain(wins: int, losses: int, n: int, confidence: float) -> Interval:
    discordant = wins + losses
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    share = clopper_pearson(discordant, n, confidence)  # on how many images the two differ in being right
    won = clopper_pearson(wins, discordant, confidence)  # (0, 1) where they never differ
    low = (share.low if won.low > 0.5 else share.high) * (2 * won.low - 1)
    high = (share.high if won.high > 0.5 else share.low) * (2 * won.high - 1)
    value = (wins - losses) / n
    return Interval(value, low, high, n)
