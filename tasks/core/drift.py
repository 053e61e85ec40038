"""Shift between two sets of images: effect sizes with intervals, and the profile by which accepted data is remembered.

Axes: N values of one set, M of the other.
"""

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from tasks.core.intervals import Interval, newcombe, wilson
from tasks.core.runtime import address_seed

PROPERTIES = ["side_px", "aspect_ratio", "brightness", "contrast", "sharpness", "entropy", "saturation"]
PROFILE_FORMAT = 1
MAX_PROFILE_IMAGES = 500  # per origin: the interval of an effect is then at most ± 0.09


def cliffs_delta(from_N: np.ndarray, to_M: np.ndarray, confidence: float) -> Interval:
    """P(to > from) - P(to < from), -1 to 1, with its interval; NaN where a side has fewer than two values.

    Cliff, "Dominance statistics", 1993; variance from the placements (DeLong et al. 1988); asymmetric interval of Feng and
    Cliff, "Monte Carlo evaluation of ordinal d with improved confidence interval", 2004, which also keeps complete separation
    (where the variance is 0) from looking certain on few images.
    """
    n, m = len(from_N), len(to_M)
    if min(n, m) < 2:
        return Interval(math.nan, math.nan, math.nan, min(n, m))
    placed_M, placed_N = _dominance(to_M, from_N), _dominance(from_N, to_M)
    delta = float(placed_M.mean())
    z = float(norm.ppf((1 + confidence) / 2))
    if abs(delta) == 1:
        bound = (min(n, m) - z * z) / (min(n, m) + z * z)
        low, high = (bound, 1.0) if delta > 0 else (-1.0, -bound)
        return Interval(delta, low, high, min(n, m))
    variance = float(placed_M.var(ddof=1)) / m + float(placed_N.var(ddof=1)) / n
    half = z * math.sqrt(variance) * math.sqrt((1 - delta**2) ** 2 + z * z * variance)
    centre, scale = delta - delta**3, 1 - delta**2 + z * z * variance
    return Interval(delta, max((centre - half) / scale, -1.0), min((centre + half) / scale, 1.0), min(n, m))


def at_least(effect: Interval) -> float:
    """The smallest size of the effect that its interval allows; NaN where nothing was measured."""
    if math.isnan(effect.value):
        return math.nan
    return max(effect.low, -effect.high, 0.0)


def shifts(rows: pd.DataFrame, confidence: float) -> list[dict[str, Any]]:
    """Property shifts of each source origin → the target; without roles: the largest origin → each other one."""
    n_of = rows["origin"].value_counts().sort_index().sort_values(ascending=False, kind="stable")
    target = sorted(rows.loc[rows["domain"] == "target", "origin"].unique())
    source = sorted(rows.loc[rows["domain"] == "source", "origin"].unique())
    if target:
        pairs = [(one, target[0]) for one in source]
    else:
        pairs = [(n_of.index[0], other) for other in n_of.index[1:]] if len(n_of) else []
    found = []
    for one, other in pairs:
        values, others = (rows[rows["origin"] == origin] for origin in (one, other))
        for name in PROPERTIES:
            effect = cliffs_delta(_measured(values[name]), _measured(others[name]), confidence)
            found.append(_shift(str(one), str(other), name, effect, (values[name].median(), others[name].median())))
    return found


def profile_of(rows: pd.DataFrame) -> dict[str, Any]:
    """What is remembered of accepted data: per origin n, classes and measured properties of at most 500 images; groups."""
    origins = {}
    for origin, members in rows.groupby("origin"):
        order = pd.Series([address_seed("profile", i) for i in members["image_id"]], index=members.index)
        drawn = members.loc[order.sort_values().index[:MAX_PROFILE_IMAGES]]
        origins[str(origin)] = {
            "domain": str(members["domain"].iloc[0]),
            "n": len(members),
            "classes": _counts(members["label"]),
            "properties": {name: [float(v) for v in np.sort(_measured(drawn[name]))] for name in PROPERTIES},
        }
    audit = [name for name in rows.columns if name.startswith("audit_")]
    groups = {name.removeprefix("audit_"): _counts(rows.loc[rows["domain"] != "source", name]) for name in audit}
    return {"format": PROFILE_FORMAT, "n_images": len(rows), "origins": origins, "groups": groups}


def read_profile(path: Path) -> dict[str, Any]:
    """The given profile; one without origins means that no data was accepted yet. ValueError where it is damaged."""
    try:
        profile = json.loads(path.read_text(encoding="utf-8"))
        if profile["format"] != PROFILE_FORMAT or not isinstance(profile["origins"], dict):
            raise ValueError(f"format {profile['format']!r} is unknown")
        for entry in profile["origins"].values():
            _require_numbers([entry["n"], *entry["classes"].values()])
            for values in entry["properties"].values():
                _require_numbers(values)
        for n_of in profile.get("groups", {}).values():
            _require_numbers(n_of.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no data profile of ours ({' '.join(str(error).split())}); restore it with git, or copy "
            "data/profile.json of an accepted run there"
        ) from None
    return dict(profile)


def changes(profile: dict[str, Any], now: dict[str, Any], confidence: float) -> Iterator[dict[str, Any]]:
    """How the data differs from the accepted one: properties and class shares (effects), classes and groups (words)."""
    both = [origin for origin in profile["origins"] if origin in now["origins"]]
    for origin in both:
        before, after = profile["origins"][origin], now["origins"][origin]
        place = origin or "all images"
        for name, values in before["properties"].items():
            others = np.array(after["properties"].get(name, []))
            effect = cliffs_delta(np.array(values), others, confidence)
            medians = (
                float(np.median(values)) if values else math.nan,
                float(np.median(others)) if len(others) else math.nan,
            )
            yield _shift(f"{place}, accepted", f"{place}, now", name, effect, medians)
        yield from _class_changes(place, before["classes"], after["classes"], confidence)
    for origin in sorted(set(profile["origins"]) - set(both)):
        yield {"what": f"domain {origin!r} is gone ({profile['origins'][origin]['n']} images before)"}
    for origin in sorted(set(now["origins"]) - set(both)):
        yield {"what": f"domain {origin!r} is new ({now['origins'][origin]['n']} images)"}
    for column, before in profile.get("groups", {}).items():
        if column not in now["groups"]:
            yield {"what": f"the audit column {column} is not given any more"}
            continue
        after = now["groups"][column]
        for group in sorted(set(before) - set(after)):
            yield {"what": f"group {group!r} of {column} is gone ({before[group]} images before)"}
        for group in sorted(set(after) - set(before)):
            yield {"what": f"group {group!r} of {column} is new ({after[group]} images)"}


def _class_changes(
    place: str, before: dict[str, int], after: dict[str, int], confidence: float
) -> Iterator[dict[str, Any]]:
    n_before, n_after = sum(before.values()), sum(after.values())
    for label in sorted({*before, *after}):
        if label not in after and n_after:
            yield {"what": f"class {label!r} of {place} is gone ({before[label]} images before)"}
        elif label not in before and n_before:
            yield {"what": f"class {label!r} of {place} is new ({after[label]} images)"}
        elif n_before and n_after:
            shares = (wilson(n.get(label, 0), total, confidence) for n, total in ((after, n_after), (before, n_before)))
            effect = newcombe(*shares)
            medians = (before[label] / n_before, after[label] / n_after)
            yield _shift(f"{place}, accepted", f"{place}, now", f"share of class {label!r}", effect, medians)


def _shift(one: str, other: str, name: str, effect: Interval, medians: tuple[float, float]) -> dict[str, Any]:
    ends = {"effect": effect.value, "low": effect.low, "high": effect.high, "at_least": at_least(effect)}
    return {
        "from": one,
        "to": other,
        "property": name,
        "value_from": medians[0],
        "value_to": medians[1],
        **ends,
        "n": effect.n,
    }


def _dominance(one_N: np.ndarray, other_M: np.ndarray) -> np.ndarray:
    """Per value of one: share of the other's values below it minus share above it."""
    ordered = np.sort(other_M)
    below, not_above = np.searchsorted(ordered, one_N, "left"), np.searchsorted(ordered, one_N, "right")
    return (below - (len(ordered) - not_above)) / len(ordered)


def _measured(values: pd.Series) -> np.ndarray:
    return values.dropna().to_numpy(float)


def _require_numbers(values: Iterable[Any]) -> None:
    """Nothing. ValueError names the first value that is no number."""
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{value!r} is no number")


def _counts(values: pd.Series) -> dict[str, int]:
    return {str(key): int(n) for key, n in values[values != ""].value_counts().sort_index().items()}
