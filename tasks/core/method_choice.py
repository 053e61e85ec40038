"""Which plan, which method: by validation labels where there are some, else by gates and ranks that need no labels.

Every figure that a choice rests on stands in what it returns, so that the choice can be made again from it.

Axes: M models, N unlabelled target images, C classes, V held-out source images, L labelled target validation images.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from tasks.core.intervals import Interval, paired_gain
from tasks.core.validators import (
    effective_classes,
    ensemble_agreement,
    information_maximisation,
    nuclear_norm,
    softmax_correlation,
)

SOURCE_ONLY = "source_only"
MAX_SOURCE_LOSS = 0.05  # accuracy on held-out source images that adaptation may cost
MIN_CLASSES_SHARE = 0.5  # of the source's effective number of classes
MAX_CLASS_RATIO = 3.0  # mean probability of a class over its share of the source's labels
MIN_COMPETENCE = 0.75  # of source-only on held-out source images: 0 at chance, 1 without error
MIN_VAL_LABELS = 10  # fewer choose no method: the most accurate on two images is mostly luck
MIN_CERTAINTY = 0.5  # information maximisation over its largest value, the logarithm of the number of classes
# scores of one family share one vote
FAMILIES = {
    "agreement": ("ensemble_agreement",),
    "mixed images": ("mixval_intra", "mixval_inter"),
    "certain and spread": ("information_maximisation", "nuclear_norm"),
}


@dataclass(frozen=True)
class Seen:
    """What one model says; mixval scores are None where no mixed images were shown to it.

    source_right_V: None where source images can't tell what the model lost on them.
    """

    name: str
    source_right_V: np.ndarray | None
    target_p_NC: np.ndarray
    val_right_L: np.ndarray
    mixval_intra: float | None = None
    mixval_inter: float | None = None


@dataclass(frozen=True)
class Gate:
    """One condition with its value, its limit and a sentence; value and is_passed are None where it can't be told.

    What can't be told keeps no model from being chosen, and is no evidence for its adoption.
    """

    name: str
    value: float | None
    limit: float
    is_passed: bool | None
    reason: str


@dataclass(frozen=True)
class Scored:
    """A candidate's raw figures: all that a choice is made from. The scores: higher is better."""

    name: str
    source_accuracy: float | None
    effective_classes: float
    class_ratio: float
    scores: dict[str, float | None]
    val_right: tuple[int, ...]


def score_models(models: list[Seen], prior_C: np.ndarray) -> list[Scored]:
    """Each model's figures. `prior_C`: share of each class among the source's labels."""
    agreement_M = ensemble_agreement(np.stack([model.target_p_NC for model in models]))
    has_share = prior_C > 0
    found = []
    for model, agreement in zip(models, agreement_M, strict=True):
        p_NC = model.target_p_NC
        scores = {
            "ensemble_agreement": float(agreement),
            "mixval_intra": _known(model.mixval_intra),
            "mixval_inter": _known(model.mixval_inter),
            "information_maximisation": information_maximisation(p_NC),
            "nuclear_norm": nuclear_norm(p_NC),
            "softmax_correlation": softmax_correlation(p_NC),
        }
        ratio = float((p_NC.mean(0)[has_share] / prior_C[has_share]).max())
        right = tuple(int(value) for value in model.val_right_L)
        accuracy = None if model.source_right_V is None else float(model.source_right_V.mean())
        found.append(Scored(model.name, accuracy, effective_classes(p_NC), ratio, scores, right))
    return found


def choose_method(candidates: list[Scored], n_source_classes: float, confidence: float) -> dict[str, Any]:
    """The chosen model with every figure, gate, rank and the reason; `replay` chooses again from it.

    With fewer than 10 validation labels: of the models that pass the gates, the best mean rank over the families of scores.
    With more: the highest accuracy on them, whatever the gates say; of equal ones those that pass, then by mean rank. That
    was better than holding on to ranks among models that labels can't tell apart (benchmarks/guard_simulation.py).
    Source-only is always among the candidates and wins where nothing else passes or ranks higher.
    `n_source_classes`: exp(entropy of the source's class shares).
    """
    _check(candidates)
    base = next(c for c in candidates if c.name == SOURCE_ONLY)
    gates = {c.name: _gates(c, base, n_source_classes) for c in candidates}
    rank_M, ranks = _mean_ranks(candidates)
    n_labels = len(base.val_right)
    entries = []
    for c, mean_rank in zip(candidates, rank_M, strict=True):
        gap = paired_gain(np.array(c.val_right, bool), np.array(base.val_right, bool), confidence)
        entries.append({
            **asdict(c), "val_right": list(c.val_right), "ranks": ranks[c.name], "mean_rank": float(mean_rank),
            "gates": [asdict(gate) for gate in gates[c.name]],
            "passes": c.name == SOURCE_ONLY or all(gate.is_passed is not False for gate in gates[c.name]),
            "val_accuracy": sum(c.val_right) / n_labels if n_labels else None, "minus_source_only": _shown(gap),
        })  # fmt: skip
    chosen, reason = _by_labels(entries, n_labels) if n_labels >= MIN_VAL_LABELS else _by_ranks(entries, n_labels)
    return {
        "chosen": chosen, "reason": reason, "n_val_labels": n_labels, "n_source_classes": n_source_classes,
        "confidence": confidence, "candidates": entries,
    }  # fmt: skip


def adoption_gates(adapted: Scored, base: Scored, n_source_classes: float) -> list[Gate]:
    """What must agree before the guard takes an adapted model on label-free figures: the gates of the choice and four more.

    Of models chosen by ranks, none of 59 that passed was worse than source-only by more than a point where the target's
    class shares were the source's, but 25 % were where they were skewed 5 to 1 (benchmarks/guard_simulation.py): no figure
    here sees that classes have other shares. Features that tell even the source's classes badly apart fail.
    """
    certainty, base_certainty = (_score(c, "information_maximisation") for c in (adapted, base))
    agreement, base_agreement = (_score(c, "ensemble_agreement") for c in (adapted, base))
    chance = 1 / n_source_classes
    competence = (_source_accuracy(base) - chance) / (1 - chance)
    share = certainty / math.log(n_source_classes)
    return [
        *_gates(adapted, base, n_source_classes),
        Gate(
            "agreement", agreement, base_agreement, agreement > base_agreement,
            f"agrees with all models together on {agreement:.1%} of the images, source-only on {base_agreement:.1%}",
        ),
        Gate(
            "more_certain_and_spread", certainty, base_certainty, certainty > base_certainty,
            f"information maximisation {certainty:.2f}, of source-only {base_certainty:.2f}",
        ),
        Gate(
            "certain_and_spread", share, MIN_CERTAINTY, share >= MIN_CERTAINTY,
            f"certain of {share:.2f} of all it could tell of the classes, at least {MIN_CERTAINTY:.2f} is asked",
        ),
        Gate(
            "competence", competence, MIN_COMPETENCE, competence >= MIN_COMPETENCE,
            f"source-only is {competence:.2f} of the way from chance to perfect on held-out source images, at least "
            f"{MIN_COMPETENCE:.2f} is asked",
        ),
    ]  # fmt: skip


def replay(stored: dict[str, Any]) -> str:
    """The method that the stored raw figures lead to: the same as `chosen`, or the file was changed."""
    return str(choose_method(scored_of(stored), stored["n_source_classes"], stored["confidence"])["chosen"])


def scored_of(stored: dict[str, Any]) -> list[Scored]:
    """The candidates of a stored choice, with their raw figures."""
    names = ("name", "source_accuracy", "effective_classes", "class_ratio", "scores")
    return [
        Scored(**{name: entry[name] for name in names}, val_right=tuple(entry["val_right"]))
        for entry in stored["candidates"]
    ]


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


def _gates(c: Scored, base: Scored, n_source_classes: float) -> list[Gate]:
    kept, spread = _source_accuracy(base) - MAX_SOURCE_LOSS, MIN_CLASSES_SHARE * n_source_classes
    accuracy = c.source_accuracy
    right = (
        f"held-out source images can't tell what {c.name} lost on the source"
        if accuracy is None
        else (f"{accuracy:.3f} right on held-out source images, at least {kept:.3f} is asked")
    )
    return [
        Gate("source_validation", accuracy, kept, None if accuracy is None else accuracy >= kept, right),
        Gate(
            "effective_classes", c.effective_classes, spread, c.effective_classes >= spread,
            f"{c.effective_classes:.1f} classes in use on the target, at least {spread:.1f} are asked",
        ),
        Gate(
            "class_ratio", c.class_ratio, MAX_CLASS_RATIO, c.class_ratio <= MAX_CLASS_RATIO,
            f"one class is guessed {c.class_ratio:.1f} times its share of the source, at most {MAX_CLASS_RATIO:.1f} is allowed",
        ),
    ]  # fmt: skip


def _mean_ranks(candidates: list[Scored]) -> tuple[np.ndarray, dict[str, dict[str, float]]]:
    """(M,) mean over families of the mean rank within each, and all ranks.

    A model without a score that others have (a collapsed one has no mixed images of two classes) comes last in it; a
    score that none has ranks nobody.
    """
    families, ranks = [], {c.name: dict[str, float]() for c in candidates}
    for scores in FAMILIES.values():
        own = []
        for score in scores:
            values = [c.scores[score] for c in candidates]
            if all(value is None for value in values):
                continue
            own.append(rankdata([math.inf if value is None else -value for value in values]))
            for c, rank in zip(candidates, own[-1], strict=True):
                ranks[c.name][score] = float(rank)
        if own:
            families.append(np.mean(own, axis=0))
    return np.asarray(np.mean(families, axis=0)), ranks


def _by_labels(entries: list[dict[str, Any]], n_labels: int) -> tuple[str, str]:
    first = min(entries, key=lambda e: (-e["val_accuracy"], not e["passes"], e["mean_rank"], e["name"] != SOURCE_ONLY))
    equal = [e["name"] for e in entries if e["val_accuracy"] == first["val_accuracy"] and e is not first]
    listed = ", ".join(f"{e['name']} {e['val_accuracy']:.3f}" for e in entries)
    how = (
        f"comes first by gates and label-free ranks among those with the highest accuracy ({', '.join(equal)})"
        if equal
        else ""
    )
    return first[
        "name"
    ], f"{first['name']} {how or 'has the highest accuracy'} on {n_labels} validation labels ({listed})"


def _by_ranks(entries: list[dict[str, Any]], n_labels: int) -> tuple[str, str]:
    passing = [e for e in entries if e["passes"]]
    first = min(passing, key=lambda e: (e["mean_rank"], e["name"] != SOURCE_ONLY))
    listed = ", ".join(f"{e['name']} {e['mean_rank']:.2f}" for e in passing)
    why = "there are no validation labels"
    if n_labels:
        why = f"{n_labels} validation labels are too few to choose by ({MIN_VAL_LABELS} are needed)"
    reason = f"{why}; {first['name']} has the best mean rank of label-free scores ({listed})"
    out = [
        f"{e['name']} ({'; '.join(g['reason'] for g in e['gates'] if g['is_passed'] is False)})"
        for e in entries
        if not e["passes"]
    ]
    return first["name"], reason + (f"; kept out by the gates: {', '.join(out)}" if out else "")


def _shown(gap: Interval) -> dict[str, float | None]:
    ends = {"value": gap.value, "low": gap.low, "high": gap.high}
    return {name: None if math.isnan(value) else value for name, value in ends.items()}


def _source_accuracy(base: Scored) -> float:
    assert base.source_accuracy is not None, "source-only is always judged by source images"
    return base.source_accuracy


def _score(c: Scored, name: str) -> float:
    value = c.scores[name]
    assert value is not None, f"{name} is computed for every model"
    return value


def _known(score: float | None) -> float | None:
    return None if score is None or math.isnan(score) else score


def _check(candidates: list[Scored]) -> None:
    names = [c.name for c in candidates]
    assert SOURCE_ONLY in names, "source-only is always a candidate"
    assert len(set(names)) == len(names), "two candidates share a name"
    assert len({len(c.val_right) for c in candidates}) == 1, "all models are judged on the same validation images"
