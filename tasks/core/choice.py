"""Choices from validation labels: which plan, which method; ties called by a paired interval."""

from typing import Any

import numpy as np

from tasks.core.intervals import Interval, paired_gain


def choose_plan(right: dict[str, np.ndarray], default: str, confidence: float) -> tuple[str, list[dict[str, Any]], str]:
    """The plan, each plan's accuracy and paired difference to the default, and the reason in words.

    A plan whose interval of the difference covers 0 is tied with the default, and then the default is taken.
    `right`: per plan, which validation images (N,) it gets right. Without images the default is taken.
    """
    entries, better = [], []
    for name, right_N in right.items():
        same = Interval(0.0, 0.0, 0.0, len(right_N))
        gap = same if name == default else paired_gain(right_N, right[default], confidence)
        entries.append({
            "plan": name, "val_accuracy": float(right_N.mean()) if len(right_N) else None, "n": len(right_N),
            "minus_default": gap.value, "low": gap.low, "high": gap.high,
        })  # fmt: skip
        if gap.low > 0:
            better.append(name)
    if not len(right[default]):
        return default, entries, f"there are no validation labels, so the default plan {default} is taken"
    if better:
        chosen = max(better, key=lambda name: float(right[name].mean()))
        return chosen, entries, f"{chosen} is better than the default plan {default} beyond the paired interval"
    return default, entries, f"no plan is better than the default plan {default} beyond the paired interval"


def choose_method(right: dict[str, np.ndarray]) -> tuple[str, str]:
    """The adapted model that the guard will judge: the best on validation labels, the first named at equality."""
    first = next(iter(right))
    n_labels = len(right[first])
    if not n_labels:
        return first, f"there are no validation labels, so the first method, {first}, goes to the guard"
    shares = {name: float(right_N.mean()) for name, right_N in right.items()}
    chosen = max(shares, key=lambda name: shares[name])
    listed = ", ".join(f"{name} {share:.3f}" for name, share in shares.items())
    return chosen, f"{chosen} has the highest accuracy on {n_labels} validation labels ({listed})"
