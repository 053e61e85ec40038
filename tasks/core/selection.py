"""Selection: all scores of all candidates on the same images and the same bootstrap draws.

Axes: N labelled target images, S and T source and target samples, B bootstrap draws, M candidates, D features.
A score is computed where it has a weight. Whole groups are drawn, and kept within folds, where groups are given.
"""

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from tasks.core.feature_space import check_features, check_labelled, rotated, spectrum, standardised
from tasks.core.folds import group_codes
from tasks.core.jackknife import drawn, left_out
from tasks.core.null_splits import null_splits
from tasks.core.ranking import Score, resample_counts
from tasks.core.runtime import address_rng, is_quiet
from tasks.core.similarity import PAIR_DISTANCES, PairDistance, domain_errors, pooled_standard, proxy_a
from tasks.core.transferability import (
    balanced,
    balanced_drawn,
    h_score_of,
    knn_correct,
    leep,
    leep_drawn,
    linear_probe_correct,
    logme_of,
    moments,
    shrinkage,
    transfer_probe_correct,
)

TRANSFERABILITY = ("knn", "linear_probe", "transfer_probe", "logme", "h_score", "leep")
SIMILARITY = ("proxy_a_distance", *PAIR_DISTANCES)
NULL_SHARE = 0.95


@dataclass(frozen=True)
class CandidateFeatures:
    """One candidate's plain features: labelled target (N, D), source and target samples without labels.

    theta (N, Z): softmax outputs of its source head on the labelled target images; None where it has no head.
    """

    labelled_ND: np.ndarray
    source_SD: np.ndarray
    target_TD: np.ndarray
    theta_NZ: np.ndarray | None = None


@dataclass(frozen=True)
class ScoreSettings:
    n_neighbors: int
    probe_inverse_l2: float
    n_bootstrap: int
    seed: int


@dataclass(frozen=True)
class LabelledScores:
    """Label-based scores, which images each candidate's probe guesses right (M, N), and sentences for what is absent."""

    scores: list[Score]
    probe_correct_MN: np.ndarray
    left_out: list[str]


@dataclass(frozen=True)
class Labels:
    """Classes of the labelled target images and of the source's (S; below 0: plays no part), groups, bootstrap counts."""

    y_N: np.ndarray
    groups_N: np.ndarray | None
    y_S: np.ndarray | None
    counts_BN: np.ndarray


Column = tuple[float, np.ndarray]  # a candidate's score and its draws (B,)
Null = dict[str, float]


def transferability_scores(
    candidates: list[CandidateFeatures],
    y_N: np.ndarray,
    settings: ScoreSettings,
    weights: dict[str, float],
    groups_N: np.ndarray | None = None,
    y_S: np.ndarray | None = None,
) -> LabelledScores:
    """knn, linear_probe, logme, h_score; transfer_probe where the source has every class, leep where all have a source head.

    y_S: the source's labels in the numbers of y_N, below 0 for images that play no part. The cross-validated scores
    resample per-image outcomes; logme and h_score what they are without each image or group.
    """
    for candidate in candidates:
        check_labelled(candidate.labelled_ND, y_N)
    draws = address_rng(settings.seed, "transferability")
    labels = Labels(y_N, groups_N, y_S, resample_counts(y_N, groups_N, settings.n_bootstrap, draws))
    absent = {"transfer_probe": _no_transfer_probe(labels), "leep": _no_leep(candidates)}
    names = [name for name in TRANSFERABILITY if name in weights and not absent.get(name)]
    columns: dict[str, list[Column]] = {name: [] for name in names}
    probes = []
    for candidate in tqdm(candidates, desc="transferability", disable=is_quiet()):
        probes.append(linear_probe_correct(candidate.labelled_ND, y_N, settings.probe_inverse_l2, groups_N))
        right = {"linear_probe": probes[-1], **_guessed_right(candidate, labels, settings, names)}
        found = {name: (balanced(ok, y_N), balanced_drawn(ok, y_N, labels.counts_BN)) for name, ok in right.items()}
        found |= _of_the_whole(candidate, labels, names)
        for name in names:
            columns[name].append(found[name])
    told = [f"{name} is left out: {why}" for name, why in absent.items() if why and name in weights]
    return LabelledScores(_scores(columns, True, weights), np.stack(probes), told)


def _guessed_right(
    candidate: CandidateFeatures, labels: Labels, settings: ScoreSettings, names: list[str]
) -> dict[str, np.ndarray]:
    """(N,) bool per score that judges image by image."""
    own, inverse_l2 = (candidate.labelled_ND, labels.y_N), settings.probe_inverse_l2
    found = {}
    if "knn" in names:
        found["knn"] = knn_correct(*own, settings.n_neighbors, labels.groups_N)
    if "transfer_probe" in names and labels.y_S is not None:
        is_used_S = labels.y_S >= 0
        source = candidate.source_SD[is_used_S], labels.y_S[is_used_S]
        found["transfer_probe"] = transfer_probe_correct(*source, *own, inverse_l2, labels.groups_N)
    return found


def _of_the_whole(candidate: CandidateFeatures, labels: Labels, names: list[str]) -> dict[str, Column]:
    """Scores of all images at once: LogME and H-score jackknifed, LEEP refitted."""
    x_ND, y_N, found = candidate.labelled_ND, labels.y_N, {}
    if "logme" in names or "h_score" in names:
        codes_N = group_codes(labels.groups_N, len(y_N))
        counts_BG = labels.counts_BN[:, np.unique(codes_N, return_index=True)[1]]
        parts = spectrum(x_ND)
        exact = moments(parts, y_N)
        values = logme_of(exact), h_score_of(exact, shrinkage(x_ND))
        for name, value, without_G in zip(("logme", "h_score"), values, left_out(parts, y_N, codes_N), strict=True):
            found[name] = value, drawn(value, without_G, counts_BG)
    if "leep" in names and candidate.theta_NZ is not None:
        found["leep"] = leep(candidate.theta_NZ, y_N), leep_drawn(candidate.theta_NZ, y_N, labels.counts_BN)
    return found


def _no_leep(candidates: list[CandidateFeatures]) -> str:
    """Why LEEP can't be computed; "" where it can."""
    n_headless = sum(candidate.theta_NZ is None for candidate in candidates)
    why = f"{n_headless} of {len(candidates)} candidates have no source head, and a score that some lack can't rank them all"
    return why if n_headless else ""


def _no_transfer_probe(labels: Labels) -> str:
    """Why the source can't help to learn the target's classes; "" where it can."""
    classes = np.unique(labels.y_N)
    n_lacking = len(classes) if labels.y_S is None else int((~np.isin(classes, labels.y_S)).sum())
    return f"{n_lacking} of {len(classes)} target classes have no labelled source image" if n_lacking else ""


def similarity_scores(
    candidates: list[CandidateFeatures],
    settings: ScoreSettings,
    weights: dict[str, float],
    groups_S: np.ndarray | None = None,
    groups_T: np.ndarray | None = None,
) -> tuple[list[Score], dict[str, list[Null]]]:
    """The five distances (smaller is nearer), and per candidate each one's null: {"mean", "high"} (95 %).

    The null is the same distance between two parts of the source: halves, the second one not larger than the target.
    At true 0 the distances of means, kernels and covariances fall with 1/n + 1/m, so their null is scaled from the
    parts' sizes to the samples'; proxy-A's null is that of the smaller parts.
    """
    if not (names := [name for name in SIMILARITY if name in weights]):
        return [], {}
    for candidate in candidates:
        check_features(source=candidate.source_SD, target=candidate.target_TD)
    n_source, n_target = len(candidates[0].source_SD), len(candidates[0].target_TD)
    draws_BN = np.hstack(
        [
            resample_counts(np.zeros(n), groups, settings.n_bootstrap, address_rng(settings.seed, "similarity", domain))
            for domain, n, groups in [("source", n_source, groups_S), ("target", n_target, groups_T)]
        ]
    ).astype(float)
    groups_N = _joined(groups_S, groups_T, n_source, n_target)
    halves_KS = null_splits(group_codes(groups_S, n_source), n_target, settings.seed)
    columns: dict[str, list[Column]] = {name: [] for name in names}
    nulls: dict[str, list[Null]] = {name: [] for name in names}
    for candidate in tqdm(candidates, desc="similarity", disable=is_quiet()):
        both = rotated(np.concatenate(pooled_standard(candidate.source_SD, candidate.target_TD)))
        source = rotated(standardised(candidate.source_SD))
        for name in names:
            if name == "proxy_a_distance":
                columns[name].append(_proxy_a_column(both, n_source, draws_BN, groups_N))
                null_K = _proxy_a_null(source, halves_KS, groups_S)
            else:
                pairs, n_features = PAIR_DISTANCES[name], candidate.source_SD.shape[1]
                columns[name].append(_pair_column(pairs, both, n_source, draws_BN, n_features))
                null_K = _pair_null(pairs, source, halves_KS, n_features) * (1 / n_source + 1 / n_target)
            nulls[name].append({"mean": float(null_K.mean()), "high": float(np.quantile(null_K, NULL_SHARE))})
    return _scores(columns, False, weights), nulls


def source_probe_score(
    candidates: list[CandidateFeatures],
    labels_S: np.ndarray,
    settings: ScoreSettings,
    weights: dict[str, float],
    groups_S: np.ndarray | None = None,
) -> tuple[list[Score], list[str]]:
    """How well a linear probe tells the source's classes apart: what is left where the target has no labels.

    Source images without label, or alone in their class, play no part; nothing, and why, where two classes are lacking.
    """
    if "source_probe" not in weights:
        return [], []
    names, code_S, counts = np.unique(labels_S, return_inverse=True, return_counts=True)
    is_used_S = np.isin(code_S, np.flatnonzero((names != "") & (counts > 1)))
    labels, y_S = np.unique(labels_S[is_used_S], return_inverse=True)
    if len(labels) < 2:
        return [], [f"source_probe is left out: the source has {len(labels)} classes of two labelled images or more"]
    groups_S = groups_S[is_used_S] if groups_S is not None and len(np.unique(groups_S[is_used_S])) > 1 else None
    counts_BN = resample_counts(y_S, groups_S, settings.n_bootstrap, address_rng(settings.seed, "source_probe"))
    column = []
    for candidate in candidates:
        right = linear_probe_correct(candidate.source_SD[is_used_S], y_S, settings.probe_inverse_l2, groups_S)
        column.append((balanced(right, y_S), balanced_drawn(right, y_S, counts_BN)))
    return _scores({"source_probe": column}, True, weights), []


def _joined(
    groups_S: np.ndarray | None, groups_T: np.ndarray | None, n_source: int, n_target: int
) -> np.ndarray | None:
    """Groups of both domains: an id in both is one group if both have ids."""
    if groups_S is None and groups_T is None:
        return None
    if groups_S is not None and groups_T is not None:
        return np.concatenate([groups_S, groups_T])
    codes_S = group_codes(groups_S, n_source)
    return np.concatenate([codes_S, codes_S.max() + 1 + group_codes(groups_T, n_target)])


def _proxy_a_column(both_NR: np.ndarray, n_source: int, draws_BN: np.ndarray, groups_N: np.ndarray | None) -> Column:
    """Draws aren't clipped: at true 0 half of their spread would be lost."""
    is_target = np.arange(len(both_NR)) >= n_source
    wrong = domain_errors(both_NR, is_target, groups_N)
    return float(np.clip(proxy_a(wrong, is_target), 0, 2)), 2 - 4 * balanced_drawn(wrong, is_target, draws_BN)


def _proxy_a_null(source_SR: np.ndarray, halves_KS: np.ndarray, groups_S: np.ndarray | None) -> np.ndarray:
    found = []
    for half_S in halves_KS:
        rows = half_S > 0
        wrong = domain_errors(source_SR[rows], half_S[rows] == 2, None if groups_S is None else groups_S[rows])
        found.append(proxy_a(wrong, half_S[rows] == 2))
    return np.clip(found, 0, 2)


def _pair_null(pairs: PairDistance, source_SR: np.ndarray, halves_KS: np.ndarray, n_features: int) -> np.ndarray:
    """(K,) distances between the source's parts, per 1/n + 1/m of the parts' sizes."""
    one_KS, other_KS = ((halves_KS == part).astype(float) for part in (1, 2))
    null_K: np.ndarray = pairs(source_SR, one_KS, other_KS, n_features) / (1 / one_KS.sum(1) + 1 / other_KS.sum(1))
    return null_K


def _pair_column(
    pairs: PairDistance, both_NR: np.ndarray, n_source: int, draws_BN: np.ndarray, n_features: int
) -> Column:
    is_target = np.arange(len(both_NR)) >= n_source
    weights = np.vstack([np.ones(len(both_NR)), draws_BN])
    found = pairs(both_NR, weights * ~is_target, weights * is_target, n_features)
    return float(found[0]), found[1:]


def _scores(columns: dict[str, list[Column]], higher_is_better: bool, weights: dict[str, float]) -> list[Score]:
    return [
        Score(
            name,
            np.array([value for value, _ in column]),
            np.stack([draws for _, draws in column], axis=1),
            higher_is_better,
            weights[name],
        )
        for name, column in columns.items()
    ]
