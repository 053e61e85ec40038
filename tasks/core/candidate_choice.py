"""Which candidate to start from: all that its features say, how sure that is, what can't be told apart, what is only known.

Axes: M candidates, N labelled target images, S and T source and target samples, B bootstrap draws, D features.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tasks.core.choice_reason import RULE, Standing, reason_of, taken
from tasks.core.domain_map import domain_map
from tasks.core.group_gaps import group_gap
from tasks.core.intervals import paired_gain
from tasks.core.ranking import Score, choose, mean_ranks, p_best, resample_counts
from tasks.core.runtime import address_rng
from tasks.core.selection import (
    SIMILARITY,
    CandidateFeatures,
    ScoreSettings,
    similarity_scores,
    source_probe_score,
    transferability_scores,
)
from tasks.core.zoo_file import Candidate

MAX_MAP_IMAGES = 200  # of each domain: more only blacken the map
NO_DISTANCES = "the distances between the domains are left out: "


@dataclass(frozen=True)
class Evidence:
    """The same images seen by every candidate. Labels and groups are text; None where the data names no groups.

    An empty label is none. S = 0: there is no source, and what needs one is left out.
    """

    features: list[CandidateFeatures]
    labels_N: np.ndarray
    source_labels_S: np.ndarray
    groups_N: np.ndarray | None
    groups_S: np.ndarray | None
    groups_T: np.ndarray | None
    audit: dict[str, np.ndarray]
    origins_S: np.ndarray
    target_name: str


@dataclass(frozen=True)
class ChoiceSettings:
    """`weights` of the scores with target labels, `weights_without` without them; a score without weight is not computed.

    `take` names the candidate that a person wants, whatever the scores say; None = the scores choose.
    """

    how: ScoreSettings
    weights: dict[str, float]
    weights_without: dict[str, float]
    min_labels: int
    gap_min_images: int
    tie_p_best: float
    confidence: float
    take: str | None = None


@dataclass(frozen=True)
class Costs:
    """Per candidate, in the order of the candidates: what one forward pass takes, and what must be stored."""

    n_parameters: np.ndarray
    n_multiply_adds: np.ndarray


def choice_of(
    candidates: list[Candidate], evidence: Evidence, costs: Costs, settings: ChoiceSettings
) -> dict[str, Any]:
    """The selection as people and later stages read it. A candidate from scratch is scored, but never chosen.

    ValueError where no candidate is pretrained, or none of those is the one to be taken.
    """
    by_name = sorted(range(len(candidates)), key=lambda m: candidates[m].name)
    real = np.array([m for m in by_name if not candidates[m].is_scratch], dtype=int)
    if not len(real):
        raise ValueError("every candidate of the zoo starts from scratch, so there is nothing to choose from; add one")
    evidence, left_out = _with_groups(evidence)
    scores, nulls, correct_MN, why = _scores(candidates, evidence, costs, settings)
    left_out += why
    ranked = [_of(score, real) for score in scores]
    ranks, best = mean_ranks(ranked), p_best(ranked)
    cost_M = _cost_order(costs, real)
    preferred, tied = choose(best, ranks, cost_M, settings.tie_p_best)
    chosen = preferred if settings.take is None else taken([candidates[m].name for m in real], settings.take)
    standing = Standing([candidates[m].name for m in real], best, ranks, cost_M, preferred, tied)
    entries = []
    for place, m in enumerate(real):
        own = {"p_best": best[place], "mean_rank": ranks[place], "tied": place in tied, "chosen": place == chosen}
        entries.append((place, _entry(candidates[m], m, scores, nulls, costs, settings.confidence) | own))
    gaps = _gaps(evidence, None if correct_MN is None else correct_MN[real], settings)
    random = next((m for m in by_name if candidates[m].is_scratch), None)
    for place, entry in entries:
        entry["gaps"] = [
            {key: value[place] if isinstance(value, list) else value for key, value in gap.items()} for gap in gaps
        ]
        entry["against_random"] = _against_random(correct_MN, real[place], random, settings.confidence)
    order = np.lexsort((ranks, -best))
    by_labels, n_labels = correct_MN is not None, len(evidence.labels_N)
    return {
        "chosen": standing.names[chosen],
        "preferred": standing.names[preferred],
        "tied": [standing.names[place] for place in tied],
        "reason": reason_of(standing, scores, None if by_labels else n_labels, named=settings.take),
        "by_labels": by_labels,
        "rule": RULE.format(tie=settings.tie_p_best),
        "left_out": left_out,
        "n_labels": n_labels,
        "confidence": settings.confidence,
        "candidates": [dict(entries)[place] for place in order],
        "random": None
        if random is None
        else _entry(candidates[random], random, scores, nulls, costs, settings.confidence),
        "map": _map(evidence, int(real[chosen])),
    }


def _with_groups(evidence: Evidence) -> tuple[Evidence, list[str]]:
    """Groups that are only one, or each image its own, are no groups; the former is told."""
    told: list[str] = []
    kept: dict[str, Any] = {}
    for name, images in (("groups_N", "labelled target"), ("groups_S", "source"), ("groups_T", "target")):
        groups = getattr(evidence, name)
        n_groups = 0 if groups is None else len(np.unique(groups))
        if n_groups == 1 < len(groups):
            told.append(
                f"all {len(groups)} {images} images are of one group: their intervals take images as independent"
            )
        kept[name] = groups if groups is not None and 1 < n_groups < len(groups) else None
    return replace(evidence, **kept), told


def _scores(
    candidates: list[Candidate], evidence: Evidence, costs: Costs, settings: ChoiceSettings
) -> tuple[list[Score], dict[str, list[dict[str, float]]], np.ndarray | None, list[str]]:
    """Scores, nulls of the distances, which labelled images each probe guesses right (None without labels), what is absent."""
    labels, counts = np.unique(evidence.labels_N, return_counts=True)
    has_labels = len(evidence.labels_N) >= settings.min_labels and len(labels) > 1 and counts.min() > 1
    weights = settings.weights if has_labels else settings.weights_without
    distances: list[Score] = []
    nulls: dict[str, list[dict[str, float]]] = {}
    without = _no_distances(evidence)
    if not without:
        of = evidence.features, settings.how, weights, evidence.groups_S, evidence.groups_T
        distances, nulls = similarity_scores(*of)
    absent = [NO_DISTANCES + without] if without and set(SIMILARITY) & set(weights) else []
    if has_labels:
        y_N = np.unique(evidence.labels_N, return_inverse=True)[1]
        features = [_with_theta(*pair) for pair in zip(candidates, evidence.features, strict=True)]
        y_S = source_codes(evidence)
        found = transferability_scores(features, y_N, settings.how, weights, evidence.groups_N, y_S)
        return _counting(found.scores + distances), nulls, found.probe_correct_MN, found.left_out + absent
    left_out = (
        f"scores on target labels are left out: {len(evidence.labels_N)} labelled target images of {len(labels)} classes"
        f"{f', of which the rarest has {counts.min()}' if len(counts) else ''}; {settings.min_labels} of at least two "
        "classes are needed, and two of each class"
    )
    probe, why = source_probe_score(
        evidence.features, evidence.source_labels_S, settings.how, weights, evidence.groups_S
    )
    prior = _static_prior(candidates, costs, settings.how.n_bootstrap, weights)
    return _counting([*probe, *prior, *distances]), nulls, None, [left_out, *absent, *why]


def _no_distances(evidence: Evidence) -> str:
    """Why none can be measured; "" where they can."""
    sizes = {"source": len(evidence.origins_S), "target": len(evidence.features[0].target_TD)}
    if not sizes["source"]:
        return "there is no source to measure them from"
    return next((f"the {name} has one image alone, and they take two" for name, n in sizes.items() if n < 2), "")


def source_codes(evidence: Evidence) -> np.ndarray:
    """(S,) the number of each source image's class among the labelled target's; -1: of another class, or of a group in both."""
    labels = np.unique(evidence.labels_N)
    code_S = np.where(np.isin(evidence.source_labels_S, labels), np.searchsorted(labels, evidence.source_labels_S), -1)
    if evidence.groups_S is not None and evidence.groups_N is not None:
        code_S[np.isin(evidence.groups_S, evidence.groups_N)] = -1
    return code_S


def _counting(scores: list[Score]) -> list[Score]:
    """The same. ValueError where none of them has a say."""
    if not any(score.weight > 0 for score in scores):
        computed = ", ".join(score.name for score in scores) or "none"
        raise ValueError(
            f"no score that counts could be computed (computed: {computed}); give weights above 0 to scores that this data "
            "allows (select_model.weights, or weights_without_labels where the target has too few labels)"
        )
    return scores


def _with_theta(candidate: Candidate, seen: CandidateFeatures) -> CandidateFeatures:
    """From scratch there is no head: one class for every image, which says nothing, so that LEEP can rank the others."""
    return replace(seen, theta_NZ=np.ones((len(seen.labelled_ND), 1))) if candidate.is_scratch else seen


def _static_prior(candidates: list[Candidate], costs: Costs, n_draws: int, weights: dict[str, float]) -> list[Score]:
    """Published accuracy where every pretrained candidate has one (random weights: NaN), else the number of parameters.

    Both are known before any image is seen.
    """
    if "static_prior" not in weights:
        return []
    published = [np.nan if c.is_scratch else c.published_accuracy for c in candidates]
    values = np.array(costs.n_parameters if None in published else published, dtype=float)
    return [Score("static_prior", values, np.tile(values, (n_draws, 1)), True, weights["static_prior"])]


def _gaps(evidence: Evidence, correct_MN: np.ndarray | None, settings: ChoiceSettings) -> list[dict[str, Any]]:
    """Per audit column: each candidate's widest gap, and whether it is wider than the narrowest candidate's."""
    if correct_MN is None:
        return []
    y_N = np.unique(evidence.labels_N, return_inverse=True)[1]
    rng = address_rng(settings.how.seed, "gaps")
    counts_BN = resample_counts(y_N, evidence.groups_N, settings.how.n_bootstrap, rng)
    found = []
    for column, group_N in evidence.audit.items():
        gap = group_gap(column, correct_MN, group_N, counts_BN, settings.gap_min_images)
        if gap is not None:
            low, high = gap.interval(settings.confidence)
            wider = gap.wider_than_narrowest(settings.confidence)
            ends = {"gap": gap.value_M.tolist(), "low": low.tolist(), "high": high.tolist()}
            found.append(
                {"column": column, **ends, "worst": gap.worst_M, "n_worst": gap.n_worst_M, "wider": wider.tolist()}
            )
    return found


def _against_random(
    correct_MN: np.ndarray | None, m: int, random: int | None, confidence: float
) -> dict[str, Any] | None:
    """Is the frozen-feature probe better than one on random features? None where that was not measured."""
    if correct_MN is None or random is None:
        return None
    gain = paired_gain(correct_MN[m], correct_MN[random], confidence)
    return {"gain": gain.value, "low": gain.low, "high": gain.high, "n": gain.n, "is_better": bool(gain.low > 0)}


def _entry(
    candidate: Candidate,
    m: int,
    scores: list[Score],
    nulls: dict[str, list[dict[str, float]]],
    costs: Costs,
    confidence: float,
) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": candidate.name,
        "architecture": candidate.architecture,
        "source_domain": candidate.source_domain,
        "pretraining": vars(candidate.pretraining) if candidate.pretraining else None,
        "published_accuracy": candidate.published_accuracy,
        "licence": candidate.licence,
        "sha256": candidate.sha256,
        "n_parameters": int(costs.n_parameters[m]),
        "n_multiply_adds": int(costs.n_multiply_adds[m]),
        "scores": {},
    }
    for score in scores:
        if np.isnan(score.value_M[m]):
            continue
        low, high = score.interval(confidence)
        null = nulls[score.name][m] if score.name in nulls else None
        entry["scores"][score.name] = {
            "value": score.value_M[m],
            "low": low[m],
            "high": high[m],
            "higher_is_better": score.higher_is_better,
            "weight": score.weight,
            **({"null": null["mean"], "null_high": null["high"]} if null else {}),
        }
    return entry


def _of(score: Score, members: np.ndarray) -> Score:
    return Score(score.name, score.value_M[members], score.draws_BM[:, members], score.higher_is_better, score.weight)


def _cost_order(costs: Costs, members: np.ndarray) -> np.ndarray:
    """(M,) 0 for the cheapest: multiply-adds, then parameters; equal costs share a place."""
    both_M2 = np.stack([costs.n_multiply_adds[members], costs.n_parameters[members]], axis=1)
    return np.unique(both_M2, axis=0, return_inverse=True)[1].ravel()


def _map(evidence: Evidence, m: int) -> dict[str, Any]:
    """The domains as the chosen candidate sees them."""
    seen = evidence.features[m]
    domains = {
        str(origin): seen.source_SD[evidence.origins_S == origin][:MAX_MAP_IMAGES]
        for origin in np.unique(evidence.origins_S)
    }
    return domain_map({**domains, evidence.target_name: seen.target_TD[:MAX_MAP_IMAGES]})
