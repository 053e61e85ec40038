"""The guard against negative transfer: adopt the adapted model only where labels that nothing else read prove it better."""

from dataclasses import dataclass

import numpy as np

from tasks.core.intervals import Interval, gain_of_counts, paired_gain

ADOPT, KEEP, INCONCLUSIVE = "adopt", "keep", "inconclusive"
MOST_TIMES_N, SEARCH_STEP = 100, 1.02


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

    The interval is `intervals.paired_gain`'s: at margin 0 this decides as the exact sign test does.
    """
    n, gain = len(adapted_right_N), paired_gain(adapted_right_N, source_right_N, confidence)
    discordant = int((adapted_right_N != source_right_N).sum())
    if n == 0:
        return GuardDecision(INCONCLUSIVE, "there are no guard labels, so nothing proves a gain", gain, 0, None)
    interval = (
        f"gain {gain.value:+.3f}, {confidence:.0%} interval {gain.low:+.3f} to {gain.high:+.3f}, "
        f"exactly one of the two right on {discordant} of n = {n} guard labels"
    )
    than = "source-only" if margin == 0 else f"source-only {-margin:+.3f}"
    if gain.low > -margin:
        return GuardDecision(ADOPT, f"better than {than} beyond the interval: {interval}", gain, discordant, 0)
    if gain.high < -margin:
        return GuardDecision(KEEP, f"worse than {than} beyond the interval: {interval}", gain, discordant, 0)
    wins = int((adapted_right_N & ~source_right_N).sum())
    more = labels_needed(wins, discordant - wins, n, margin=margin, confidence=confidence)
    advice = (
        f"about {more} more labels would decide"
        if more is not None
        else "no affordable number of labels would decide at this gain"
    )
    return GuardDecision(INCONCLUSIVE, f"not proven either way: {interval}; {advice}", gain, discordant, more)


def labels_needed(wins: int, losses: int, n: int, *, margin: float, confidence: float) -> int | None:
    """More labels until the interval leaves -margin, if wins and losses go on at the same rate; None beyond 100 times n."""
    size = float(n)
    while size < MOST_TIMES_N * n:
        size = max(size * SEARCH_STEP, size + 1)
        whole = round(size)
        gain = gain_of_counts(round(wins * whole / n), round(losses * whole / n), whole, confidence)
        if gain.low > -margin or gain.high < -margin:
            return whole - n
    return None
