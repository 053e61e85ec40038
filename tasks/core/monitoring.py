"""What new images of a running model show: each measure with its interval, judged by a limit; the estimate by group.

Axes: N readable new images, D features.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.core.atc import Thresholds, estimated, thresholds_of
from tasks.core.drift import PROPERTIES, cliffs_delta
from tasks.core.files import read_json
from tasks.core.intervals import Interval, newcombe, wilson
from tasks.core.predictions import right
from tasks.core.reference import MIN_LABELS, UNLABELLED, Reference, sample_of, told_apart

PAST, WITHIN, OPEN, NOT_MEASURED = "past", "within", "open", "not measured"
CLEAR, FEW = "clear", "few"
MIN_REFERENCE = 2  # images that others can be told apart from
NOTHING = Interval(math.nan, math.nan, math.nan, 0)
SEED = 0  # of the draws: the same images give the same figures
WORDS = {
    PAST: "past its limit",
    FEW: "too few images to say",
    CLEAR: "no limit passed",
}


@dataclass(frozen=True)
class Limits:
    """Past a limit: the whole interval lies beyond it."""

    confidence: float
    min_images: int
    min_group_size: int
    property_shift: float
    embedding_shift: float
    asked_rise: float
    accuracy_drop: float
    unreadable_share: float


@dataclass(frozen=True, eq=False)
class Champion:
    """What a bundle keeps to compare new images with; reference None: it was registered without one."""

    profile: Mapping[str, Any]
    reference: Reference | None
    ask_below: float | None


@dataclass(frozen=True, eq=False)
class NewImages:
    """rows: path, image_id, error ("" = seen by the model), confidence, properties, groups; features of the seen rows."""

    rows: pd.DataFrame
    features_ND: np.ndarray
    columns: tuple[str, ...]

    @property
    def seen(self) -> pd.DataFrame:
        return self.rows[self.rows["error"] == ""]


def findings(new: NewImages, champion: Champion, limits: Limits) -> dict[str, Any]:
    """All measures: n_images, n_seen, checks, estimate, asked, groups, notes and the status past | few | clear."""
    n, seen = len(new.rows), new.seen
    found: dict[str, Any] = {"n_images": n, "n_seen": len(seen), "checks": [], "notes": _notes(champion)}
    found |= {"estimate": None, "asked": None, "groups": []}
    if n < limits.min_images:
        return found | {"status": FEW}
    unreadable = wilson(n - len(seen), n, limits.confidence)
    found["checks"].append(check("images that can't be read", unreadable, limits.unreadable_share))
    if len(seen) >= limits.min_images:
        found["checks"] += _property_checks(seen, champion.profile, limits)
        found["checks"] += _embedding_checks(new, champion.reference, limits)
        found["asked"] = _asked(seen, champion, limits, found["checks"])
        thresholds = _thresholds(champion.reference)
        found["estimate"] = _estimate(seen, champion, thresholds, limits, found["checks"])
        found["groups"] = _groups(seen, new.columns, champion, thresholds, limits)
    found["notes"] += untold(found["checks"])
    return found | {"status": status_of(found["checks"], found["estimate"] is None and len(seen) < limits.min_images)}


def accuracy_check(rows: pd.DataFrame, bundle: Path, limits: Limits) -> tuple[dict[str, Any], dict[str, Any]]:
    """The accuracy of labelled new images, and its drop from the accuracy on the bundle's test images, as a check."""
    test = read_json(bundle / "metrics.json", made_by="evaluate_model")["adopted"]
    now = wilson(int(right(rows).sum()), len(rows), limits.confidence)
    before = wilson(round(test["accuracy"] * test["n"]), test["n"], limits.confidence)
    drop = check("drop of the accuracy on labels", newcombe(before, now), limits.accuracy_drop)
    return {**asdict(now), "test": {"accuracy": before.value, "n": before.n}}, drop


def status_of(checks: list[dict[str, Any]], is_few: bool) -> str:
    if any(one["status"] == PAST for one in checks):
        return PAST
    return FEW if is_few else CLEAR


def check(
    what: str, seen: Interval, limit: float, *, is_two_sided: bool = False, open_because: str = ""
) -> dict[str, Any]:
    """One measure against its limit: past where the whole interval lies beyond, within where it lies inside, else open.

    It is open, too, where a sentence says why it can't be told; the sentence is the row's reason.
    """
    if open_because:
        status = OPEN
    elif not all(map(math.isfinite, (seen.value, seen.low, seen.high))):
        status = NOT_MEASURED
    elif seen.low > limit or (is_two_sided and seen.high < -limit):
        status = PAST
    else:
        status = WITHIN if seen.high <= limit and (not is_two_sided or seen.low >= -limit) else OPEN
    return {"what": what, "status": status, "limit": limit, **asdict(seen), "reason": open_because}


def untold(checks: list[dict[str, Any]]) -> list[str]:
    """A sentence for every check that can't be told."""
    return [f"Can't be told: {one['what']}: {one['reason']}." for one in checks if one["reason"]]


def _property_checks(seen: pd.DataFrame, profile: Mapping[str, Any], limits: Limits) -> list[dict[str, Any]]:
    """Against the target images behind the champion; against all of them where the profile knows no target."""
    origins = list(profile["origins"].values())
    kept = [origin for origin in origins if origin["domain"] == "target"] or origins
    found = []
    for name in PROPERTIES:
        before_N = np.array([value for origin in kept for value in origin["properties"].get(name, [])], float)
        now_N = seen[name].dropna().to_numpy(float)
        effect = cliffs_delta(before_N, now_N, limits.confidence)
        shift = check(f"shift of {name.replace('_', ' ')}", effect, limits.property_shift, is_two_sided=True)
        medians = {"median_before": _median(before_N), "median_now": _median(now_N)}
        found.append(shift | medians)
    return found


def _embedding_checks(new: NewImages, reference: Reference | None, limits: Limits) -> list[dict[str, Any]]:
    """Told apart from the target is judged; from the source it is only told: that far the domains lay apart before.

    Cross-validation needs two reference images. Of few the interval is wide, and not too narrow: see docs/LOG.md.
    """
    if reference is None:
        return []
    drawn = sample_of(list(new.seen["image_id"]))
    found = []
    for name, seen, limit in (
        ("target", reference.target, limits.embedding_shift),
        ("source", reference.source, 1.0),
    ):
        n, apart, why = len(seen.features_ND), NOTHING, ""
        if n < MIN_REFERENCE:
            why = f"the bundle's reference holds {n} {name} image(s), and {MIN_REFERENCE} are needed"
        else:
            apart = told_apart(seen.features_ND, new.features_ND[drawn], limits.confidence)
        found.append(check(f"told apart from held-out {name} images", apart, limit, open_because=why))
    return found


def _asked(
    seen: pd.DataFrame, champion: Champion, limits: Limits, checks: list[dict[str, Any]]
) -> dict[str, Any] | None:
    """The share below the threshold; its rise over the held-out target images is added to the checks."""
    if champion.ask_below is None:
        return None
    now = _below(seen["confidence"].to_numpy(float), champion.ask_below, limits.confidence)
    if champion.reference is not None:
        before_R = champion.reference.target.confidence_N
        rise = newcombe(now, _below(before_R, champion.ask_below, limits.confidence))
        why = "" if len(before_R) else "the bundle's reference holds no target images"
        checks.append(check("rise of images for a person", rise, limits.asked_rise, open_because=why))
    return {"ask_below": champion.ask_below, **asdict(now)}


def _thresholds(reference: Reference | None) -> Thresholds | None:
    if reference is None:
        return None
    _, confidence_R, right_R = reference.labelled()
    return thresholds_of(confidence_R, right_R, seed=SEED) if len(right_R) else None


def _estimate(
    seen: pd.DataFrame, champion: Champion, thresholds: Thresholds | None, limits: Limits, checks: list[dict[str, Any]]
) -> dict[str, Any] | None:
    """The estimated accuracy beside the held-out one; the drop between them is added to the checks.

    Where the held-out one is the source's, the drop compares two domains: it lay there on the first day, and is no alarm.
    """
    if thresholds is None or champion.reference is None:
        return None
    now = estimated(thresholds, seen["confidence"].to_numpy(float), confidence=limits.confidence, seed=SEED)
    name, why = champion.reference.labelled()[0], ""
    if name == "source":
        n_labels = int((champion.reference.target.right_N != UNLABELLED).sum())
        why = (
            f"{n_labels} held-out target images have a label and {MIN_LABELS} are needed, so the drop is one from the source's "
            "accuracy to the target's"
        )
    checks.append(check("drop of the estimated accuracy", now.drop, limits.accuracy_drop, open_because=why))
    held_out = {"on": name, "n": thresholds.n, "accuracy": thresholds.accuracy}
    return {**asdict(now.accuracy), "held_out": held_out}


def _groups(
    seen: pd.DataFrame, columns: tuple[str, ...], champion: Champion, thresholds: Thresholds | None, limits: Limits
) -> list[dict[str, Any]]:
    """Estimate and share below the threshold per group; of a group that is too small only its name and n."""
    found = []
    for column in columns:
        for group, rows in seen.groupby(column, sort=True):
            told: dict[str, Any] = {"column": column, "group": str(group) or "(not known)", "n": len(rows)}
            told |= {"is_masked": len(rows) < limits.min_group_size, "estimate": None, "asked": None}
            sure_N = rows["confidence"].to_numpy(float)
            if not told["is_masked"] and thresholds is not None:
                own = estimated(thresholds, sure_N, confidence=limits.confidence, seed=SEED)
                told["estimate"] = asdict(own.accuracy)
            if not told["is_masked"] and champion.ask_below is not None:
                told["asked"] = asdict(_below(sure_N, champion.ask_below, limits.confidence))
            found.append(told)
    return found


def _notes(champion: Champion) -> list[str]:
    """Sentences on what can't be told, and on what an estimate stands on."""
    if not champion.profile["origins"]:
        yet = ["The bundle's profile holds no images, so shifts of properties are not measured."]
    else:
        yet = []
    if champion.ask_below is None:
        yet.append("The model has no confidence threshold: a person is to be asked always.")
    if champion.reference is None:
        return [
            *yet,
            "The bundle has no reference.safetensors (an older version registered it), so embeddings and accuracy are not "
            "measured.",
        ]
    name, _, right_R = champion.reference.labelled()
    if not len(right_R):
        return [*yet, "No held-out image has a label, so the accuracy can't be estimated."]
    if name == "source":
        yet.append(
            "Too few target images were labelled: the estimate stands on source images, and is likely too high for a target."
        )
    return [*yet, "The estimate supposes that confidence means on new images what it meant on held-out ones."]


def _below(confidence_N: np.ndarray, threshold: float, confidence: float) -> Interval:
    return wilson(int((confidence_N < threshold).sum()), len(confidence_N), confidence)


def _median(values_N: np.ndarray) -> float:
    return float(np.median(values_N)) if len(values_N) else math.nan
