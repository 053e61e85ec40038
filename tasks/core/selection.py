"""Selection: all scores of all candidates on the same images and the same bootstrap draws.

Axes: N labelled target images, B bootstrap draws, M candidates, D features.
"""

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from tasks.core.ranking import Score, stratified_resamples
from tasks.core.runtime import address_rng, is_quiet
from tasks.core.similarity import (
    domain_errors,
    linear_mmd,
    linear_mmd_weighted,
    pooled_standard,
    proxy_a,
    proxy_a_distance,
)
from tasks.core.transferability import (
    balanced,
    h_score,
    h_score_of,
    knn_correct,
    linear_probe_correct,
    logme,
    logme_of,
    shrinkage,
    spectrum_of_gram,
)

TRANSFERABILITY = ("knn", "linear_probe", "logme", "h_score")
SIMILARITY = ("proxy_a_distance", "linear_mmd")


@dataclass(frozen=True)
class CandidateFeatures:
    """One candidate's plain features: labelled target (N, D), source and target samples without labels."""

    labelled_ND: np.ndarray
    source_SD: np.ndarray
    target_TD: np.ndarray


@dataclass(frozen=True)
class ScoreSettings:
    n_neighbors: int
    probe_inverse_l2: float
    n_bootstrap: int
    seed: int


def transferability_scores(
    candidates: list[CandidateFeatures], y_N: np.ndarray, settings: ScoreSettings, weights: dict[str, float]
) -> list[Score]:
    """knn, linear_probe, logme, h_score. The cross-validated ones resample per-image outcomes, the others refit."""
    resamples_BN = stratified_resamples(y_N, settings.n_bootstrap, address_rng(settings.seed, "transferability"))
    columns: dict[str, list[tuple[float, np.ndarray]]] = {name: [] for name in TRANSFERABILITY}
    for candidate in tqdm(candidates, desc="transferability", disable=is_quiet()):
        x_ND = candidate.labelled_ND
        for name, correct in [
            ("knn", knn_correct(x_ND, y_N, settings.n_neighbors)),
            ("linear_probe", linear_probe_correct(x_ND, y_N, settings.probe_inverse_l2)),
        ]:
            draws = np.array([balanced(correct[rows], y_N[rows]) for rows in resamples_BN])
            columns[name].append((balanced(correct, y_N), draws))
        alpha, centred = shrinkage(x_ND), x_ND - x_ND.mean(0, dtype=np.float64)
        gram_NN = centred @ centred.T
        parts = [spectrum_of_gram(gram_NN[np.ix_(rows, rows)], x_ND.shape[1]) for rows in resamples_BN]
        fits = list(zip(parts, resamples_BN, strict=True))
        columns["logme"].append((logme(x_ND, y_N), np.array([logme_of(p, y_N[rows]) for p, rows in fits])))
        columns["h_score"].append((h_score(x_ND, y_N), np.array([h_score_of(p, y_N[rows], alpha) for p, rows in fits])))
    return [_score(name, column, True, weights[name]) for name, column in columns.items()]


def similarity_scores(
    candidates: list[CandidateFeatures], settings: ScoreSettings, weights: dict[str, float]
) -> tuple[list[Score], dict[str, list[float]]]:
    """proxy_a_distance and linear_mmd (smaller is nearer), and each one's null: one half of the source against the other."""
    n_source, n_target = len(candidates[0].source_SD), len(candidates[0].target_TD)
    is_target = np.arange(n_source + n_target) >= n_source
    resamples = stratified_resamples(is_target, settings.n_bootstrap, address_rng(settings.seed, "similarity"))
    counts_BN = np.stack([np.bincount(rows, minlength=len(is_target)) for rows in resamples])
    half = address_rng(settings.seed, "null").permutation(n_source) < n_source // 2
    columns: dict[str, list[tuple[float, np.ndarray]]] = {name: [] for name in SIMILARITY}
    nulls: dict[str, list[float]] = {name: [] for name in SIMILARITY}
    for candidate in tqdm(candidates, desc="similarity", disable=is_quiet()):
        source, target = candidate.source_SD, candidate.target_TD
        wrong, _ = domain_errors(source, target)
        columns["proxy_a_distance"].append(
            (proxy_a(wrong, is_target), np.array([proxy_a(wrong[rows], is_target) for rows in resamples]))
        )
        both = np.concatenate(pooled_standard(source, target))
        columns["linear_mmd"].append((linear_mmd(source, target), linear_mmd_weighted(both, is_target, counts_BN)))
        nulls["proxy_a_distance"].append(proxy_a_distance(source[half], source[~half]))
        nulls["linear_mmd"].append(linear_mmd(source[half], source[~half]))
    return [_score(name, column, False, weights[name]) for name, column in columns.items()], nulls


def _score(name: str, column: list[tuple[float, np.ndarray]], higher_is_better: bool, weight: float) -> Score:
    values = np.array([value for value, _ in column])
    return Score(name, values, np.stack([draws for _, draws in column], axis=1), higher_is_better, weight)
