"""The guard against negative transfer: adopt an adapted model only where labels that nothing else read prove it better.

Where the adapted and the source-only model guess the same, no label tells them apart: the gain on the held-out target
images is the share of disagreements d, known without labels, times the mean of won (+1), lost (-1) and neither (0) among
them. So labels are spent on disagreements: about 1/d times fewer than at random. Every labelled disagreement counts,
asked for or among guard labels that were drawn at random: both are uniform draws of the disagreements. Labels asked for
one pair of models are no uniform draw of another pair's.

Axes: N held-out target images, P parts (classes or groups) of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tasks.core.intervals import Interval, gain_of_counts
from tasks.core.method_choice import Gate
from tasks.core.runtime import address_seed

ADOPT, KEEP, INCONCLUSIVE = "adopt", "keep", "inconclusive"
UNLABELLED = -1
SEARCH_STEP = 1.02
# distances to stated class shares, in total variation: benchmarks/guard_simulation.py
MIN_NEARER = 0.05  # than source-only
MAX_BEYOND_CHANCE = 0.03  # beyond what chance alone makes in so many images
MAX_CHANCE = 0.1  # more than that can't be told from a shift


@dataclass(frozen=True)
class Evidence:
    """What is known of two models on the same held-out images; all counts are of images."""

    n_images: int
    n_disagreements: int
    wins: int  # labelled disagreements that only the adapted model gets right
    losses: int  # that only source-only gets right
    both_wrong: int

    @property
    def n_labels(self) -> int:
        """Labels that tell anything: those on disagreements."""
        return self.wins + self.losses + self.both_wrong

    def gain(self, confidence: float) -> Interval:
        """Accuracy of adapted minus source-only on the held-out images, with its two-sided interval; n counts labels.

        The share of disagreements is known; wins and losses among them take `gain_of_counts`' exact interval, so the
        interval leaves 0 exactly where the sign test says so.
        """
        if not self.n_disagreements:
            return Interval(0.0, 0.0, 0.0, 0)
        share, found = (
            self.n_disagreements / self.n_images,
            gain_of_counts(self.wins, self.losses, self.n_labels, confidence),
        )
        if not found.n:
            return Interval(found.value, -share, share, 0)
        return Interval(share * found.value, share * found.low, share * found.high, found.n)


@dataclass(frozen=True)
class GuardSettings:
    """How sure an adoption must be, one-sided and over all rounds of labelling, and what happens without labels.

    With 20 labels on disagreements, .9 and .6 (with gates) adopted models of which 1.1 % (.6 to 1.8) were worse than
    source-only by more than a point, and kept 61 % (50 to 72) of a perfect gate's gain; .95 and .95 .4 and 38 %, the point
    estimate 9 and 87 % (benchmarks/guard_simulation.py, models chosen by label-free ranks, 2,000 draws of labels).
    """

    confidence: float  # of the two-sided interval that is shown
    adopt_confidence: float
    adopt_confidence_with_gates: float  # where every label-free gate agrees with the adoption
    margin: float  # accuracy that adaptation may cost; below 0: the gain that is asked for
    without_labels: str  # keep | gates: may gates alone adopt, unproven?

    def error(self, do_gates_agree: bool, n_rounds: int) -> float:
        """The one-sided error that the latest round of labels may have: half of the last round's, all rounds within 1 - c.

        So labels may be asked for and looked at as often as one likes (alpha spending).
        """
        assert n_rounds >= 1, "the first look at labels is round 1"
        return (1 - (self.adopt_confidence_with_gates if do_gates_agree else self.adopt_confidence)) / 2**n_rounds


@dataclass(frozen=True)
class GuardDecision:
    """decision: adopt | keep | inconclusive (source-only stays). `is_proven`: labels decided, not gates alone."""

    decision: str
    is_proven: bool
    reason: str
    gain: Interval
    evidence: Evidence
    n_more_labels: int | None  # about so many, on disagreements, would decide if wins and losses go on as they did


def evidence_of(adapted_N: np.ndarray, source_N: np.ndarray, label_N: np.ndarray) -> Evidence:
    """From both models' guesses and the labels, as class numbers; -1 where an image has no label."""
    differ = adapted_N != source_N
    known = differ & (label_N != UNLABELLED)
    wins, losses = int((known & (adapted_N == label_N)).sum()), int((known & (source_N == label_N)).sum())
    return Evidence(len(adapted_N), int(differ.sum()), wins, losses, int(known.sum()) - wins - losses)


def decide(
    evidence: Evidence,
    settings: GuardSettings,
    *,
    gates: Sequence[Gate] = (),
    n_rounds: int = 1,
    baseline: str = "source-only",
    n_askable: int | None = None,
) -> GuardDecision:
    """Adopt where the gain's one-sided bound lies above -margin, keep where it lies below, else inconclusive.

    At margin 0 that is the exact sign test. Gates that all agree lower the evidence that is asked for; without labels
    they decide alone, if `without_labels` allows it. `n_rounds`: how often labels were looked at, this time included.
    `baseline`: whose guesses the evidence calls source-only's, e.g. the champion's. `n_askable`: how many disagreements may
    ever have a label that counts; None: all. Those that chose the method don't.
    """
    if not evidence.n_disagreements:
        return _decision(KEEP, evidence, settings, f"both models guess the same on all {evidence.n_images} images")
    do_agree = bool(gates) and all(gate.is_passed for gate in gates)
    if not evidence.n_labels:
        return _without_labels(evidence, settings, gates)
    decision, bounds = by_labels(evidence, settings, do_agree, n_rounds)
    than = baseline if settings.margin == 0 else f"{baseline} {-settings.margin:+.3f}"
    bound = f"{1 - settings.error(do_agree, n_rounds):.1%} one-sided bound"
    if decision == ADOPT:
        return _decision(ADOPT, evidence, settings, f"better than {than}: {bound} {bounds.low:+.3f}", is_proven=True)
    if decision == KEEP:
        return _decision(KEEP, evidence, settings, f"worse than {than}: {bound} {bounds.high:+.3f}", is_proven=True)
    more = labels_needed(evidence, settings, do_agree, n_rounds, n_askable)
    words = f"not proven either way: {bound}s {bounds.low:+.3f} and {bounds.high:+.3f}"
    return _decision(INCONCLUSIVE, evidence, settings, words, n_more=more)


def by_labels(evidence: Evidence, settings: GuardSettings, do_gates_agree: bool, n_rounds: int) -> tuple[str, Interval]:
    """What the labels alone say, and the gain between its two one-sided bounds."""
    bounds = evidence.gain(1 - 2 * settings.error(do_gates_agree, n_rounds))
    if bounds.low > -settings.margin:
        return ADOPT, bounds
    return KEEP if bounds.high < -settings.margin else INCONCLUSIVE, bounds


def labels_needed(
    evidence: Evidence, settings: GuardSettings, do_gates_agree: bool, n_rounds: int, most: int | None = None
) -> int | None:
    """More labelled disagreements until the next round decides, if wins and losses go on at the same rate.

    None where that would be more than `most` labels in all, or than there are disagreements.
    """
    n, most = evidence.n_labels, evidence.n_disagreements if most is None else most
    size = float(n)
    while size < most:
        size = min(max(size * SEARCH_STEP, size + 1), most)
        whole = round(size)
        wins, losses = round(evidence.wins * whole / n), round(evidence.losses * whole / n)
        grown = replace(evidence, wins=wins, losses=losses, both_wrong=max(whole - wins - losses, 0))
        if by_labels(grown, settings, do_gates_agree, n_rounds + 1)[0] != INCONCLUSIVE:
            return whole - n
    return None


def to_label(image_ids: Sequence[str], adapted_N: np.ndarray, source_N: np.ndarray, *, n: int, seed: int) -> list[str]:
    """At most n ids of disagreements in addressed order: asking for more keeps the first. Give unlabelled images only."""
    differing = [name for name, differs in zip(image_ids, adapted_N != source_N, strict=True) if differs]
    return sorted(differing, key=lambda name: address_seed(seed, "to_label", name))[:n]


def shares_gate(adapted_NC: np.ndarray, base_NC: np.ndarray, stated_C: np.ndarray) -> Gate:
    """Do the adapted model's probabilities add up to the stated shares, as near as chance lets them or nearer than source-only's?

    Mean probabilities estimate how frequent classes are (Bella et al., Quantification via Probability Estimators, ICDM 2010);
    distance: total variation, half the sum of absolute differences, 0..1. By chance alone the classes of N images lie about
    the sum of √(p (1 - p) / (2 π N)) away (the mean absolute deviation of a normal variable is √(2 / π) of its standard one):
    .03 more is let pass, or .05 less than source-only's. Can't be told where chance makes more than .1.
    """
    n, spread = len(base_NC), float(np.sqrt(stated_C * (1 - stated_C) / (2 * np.pi)).sum())
    if not n or spread / np.sqrt(n) > MAX_CHANCE:
        needed = max(int(np.ceil((spread / MAX_CHANCE) ** 2)), 1)
        why = (
            f"{n} held-out images that came without a label are too few to see how frequent classes are: {needed} are needed "
            "(validate_data.splits.target_holdout_share)"
        )
        return Gate("class_shares", None, MAX_CHANCE, None, why)
    adapted, base = (float(0.5 * np.abs(p_NC.mean(0) - stated_C).sum()) for p_NC in (adapted_NC, base_NC))
    limit = max(base - MIN_NEARER, spread / float(np.sqrt(n)) + MAX_BEYOND_CHANCE)
    return Gate(
        "class_shares", adapted, limit, adapted <= limit,
        f"over {n} held-out images that came without a label the adapted model's class shares lie {adapted:.3f} from the "
        f"stated ones, source-only's {base:.3f}: at most {limit:.3f} is asked",
    )  # fmt: skip


def by_part(
    adapted_N: np.ndarray, source_N: np.ndarray, label_N: np.ndarray, part_N: np.ndarray, confidence: float
) -> list[dict[str, Any]]:
    """One row per part: images, disagreements, labels among them, gain with interval, and whether it is proven worse.

    Shown beside the decision, never deciding alone. `part_N`: e.g. the class that source-only guesses, or a group. The
    intervals hold for all parts together (Bonferroni), so a part that is named worse is not one of many chances.
    """
    names = np.unique(part_N)
    family = 1 - (1 - confidence) / max(len(names), 1)
    rows = []
    for name in names:
        inside = part_N == name
        evidence = evidence_of(adapted_N[inside], source_N[inside], label_N[inside])
        gain = evidence.gain(family)
        rows.append({
            "part": str(name), "n": evidence.n_images, "n_disagreements": evidence.n_disagreements,
            "n_labels": evidence.n_labels, "gain": gain.value, "low": gain.low, "high": gain.high,
            "is_worse": gain.high < 0,
        })  # fmt: skip
    return rows


def _without_labels(evidence: Evidence, settings: GuardSettings, gates: Sequence[Gate]) -> GuardDecision:
    none = "there are no labels on disagreements"
    if settings.without_labels == "keep" or not gates:
        return _decision(INCONCLUSIVE, evidence, settings, f"{none}, so nothing proves a gain")
    failed = [gate.reason for gate in gates if not gate.is_passed]
    if failed:
        return _decision(
            KEEP,
            evidence,
            settings,
            f"{none}, and label-free gates speak against it or can't tell: {'; '.join(failed)}; labels could still prove it",
        )
    stated = (
        ", one of them on class shares that a person stated" if any(g.name == "class_shares" for g in gates) else ""
    )
    passed = f"all {len(gates)} label-free gates agree{stated}, which proves nothing"
    return _decision(ADOPT, evidence, settings, f"{none}; {passed}")


def _decision(
    decision: str,
    evidence: Evidence,
    settings: GuardSettings,
    why: str,
    *,
    is_proven: bool = False,
    n_more: int | None = None,
) -> GuardDecision:
    gain, share = evidence.gain(settings.confidence), evidence.n_disagreements / max(evidence.n_images, 1)
    reason = f"{why}; the models disagree on {evidence.n_disagreements} of {evidence.n_images} images ({share:.1%})"
    if evidence.n_labels:
        reason += (
            f", of {evidence.n_labels} labelled ones adapted won {evidence.wins} and lost {evidence.losses}: gain "
            f"{gain.value:+.3f}, {settings.confidence:.0%} interval {gain.low:+.3f} to {gain.high:+.3f}"
        )
    if decision == INCONCLUSIVE and evidence.n_labels and not evidence.wins + evidence.losses:
        reason += "; so far they tell nothing of how many would decide: label more of these images"
    elif decision == INCONCLUSIVE and evidence.n_labels:
        more = f"about {n_more} more labels" if n_more else "not even labels on all"
        reason += f"; {more} of these images would decide at this rate"
    elif decision == INCONCLUSIVE:
        reason += "; label some of these images"
    return GuardDecision(decision, is_proven, reason, gain, evidence, n_more)
