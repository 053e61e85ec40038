"""select_model: which candidate to start from, how sure that is, and what can't be told apart.

reads   data/manifest_valid.csv, data/gate.json, data/features, the zoo's zoo.json
writes  data/selection.json, data/ranking.csv

Label-based scores use the target's train and val labels; guard and test labels are not there to be seen.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.core.features import Features, capped, read_features
from tasks.core.files import write_json, write_table
from tasks.core.manifest import classes_of, part, read_valid_manifest
from tasks.core.model import count_parameters
from tasks.core.ranking import Score, choose, mean_ranks, p_best
from tasks.core.runtime import run_stage, use_machine
from tasks.core.selection import CandidateFeatures, ScoreSettings, similarity_scores, transferability_scores
from tasks.core.zoo_file import Candidate, read_zoo
from tasks.params import Params, SelectModel, read_params

NEAREST_ONLY = "no target labels, so this says which network sees the domains as most alike, not which is best: "


def main() -> None:
    params = read_params()
    use_machine(params.runtime.device, params.runtime.n_threads)
    settings = params.select_model
    manifest = read_valid_manifest(Path("data/manifest_valid.csv"), Path("data/gate.json"))
    candidates = read_zoo(Path(params.zoo.folder), params.zoo.candidates)
    scores, nulls, left_out = all_scores(manifest, candidates, params)
    ranks, best = mean_ranks(scores), p_best(scores)
    n_classes = len(classes_of(manifest))  # the size it will have: a head for many source classes is no cost here
    sizes = np.array([count_parameters(c.architecture, n_classes) for c in candidates])
    chosen, tied = choose(best, ranks, sizes, settings.tie_p_best)
    order = np.lexsort((ranks, -best))
    ranking = [
        candidate_entry(candidates[m], m, scores, nulls, settings)
        | {"p_best": best[m], "mean_rank": ranks[m], "n_parameters": sizes[m], "tied": m in tied, "chosen": m == chosen}
        for m in order
    ]
    selection = {
        "chosen": candidates[chosen].name,
        "tied": [candidates[m].name for m in tied],
        "reason": ("" if not left_out else NEAREST_ONLY) + reason(candidates, best, chosen, tied),
        "rule": (
            "Candidates are ranked by the weighted mean of their ranks over all scores; P(best) is the share of bootstrap "
            f"draws in which a candidate comes first; all with P(best) of at least {settings.tie_p_best} are tied with the "
            "leader, and of tied candidates the one with the fewest parameters is taken, then the better mean rank."
        ),
        "left_out": left_out,
        "n_labels": len(labelled_rows(manifest)),
        "confidence": settings.confidence,
        "candidates": ranking,
    }
    write_json(Path("data/selection.json"), selection)
    write_table(Path("data/ranking.csv"), flat_ranking(ranking))


def labelled_rows(manifest: pd.DataFrame) -> pd.DataFrame:
    """Labelled target train and val images, of classes with at least two of them."""
    rows = part(manifest, "target", "train", "val")
    return rows[rows.groupby("label")["label"].transform("size") > 1]


def all_scores(
    manifest: pd.DataFrame, candidates: list[Candidate], params: Params
) -> tuple[list[Score], dict[str, list[float]], list[str]]:
    """The scores that can be computed, the nulls of the distances, and a sentence for what was left out."""
    settings = params.select_model
    labelled = labelled_rows(manifest)
    every_target = part(manifest, "target", "train", "val", "unlabelled")
    source = part(manifest, "source", "train", "val")
    found = []
    for candidate in candidates:
        features = read_features(Path("data/features") / f"{candidate.name}.npz")
        ids_source, ids_target = (seen(rows, features, settings, params.seed) for rows in (source, every_target))
        found.append(
            CandidateFeatures(
                features.plain_rows(list(labelled["image_id"])),
                features.plain_rows(ids_source),
                features.plain_rows(ids_target),
            )
        )
    how = ScoreSettings(settings.n_neighbors, settings.probe_inverse_l2, settings.n_bootstrap, params.seed)
    weights = settings.weights.model_dump()
    distances, nulls = similarity_scores(found, how, weights)
    if len(labelled) < settings.min_labels or labelled["label"].nunique() < 2:
        left_out = (
            f"label-based scores are left out: {len(labelled)} labelled target images, {settings.min_labels} of at least "
            "two classes are needed; the ranking rests on similarity alone"
        )
        return distances, nulls, [left_out]
    y_N = np.unique(labelled["label"], return_inverse=True)[1]
    return transferability_scores(found, y_N, how, weights) + distances, nulls, []


def seen(rows: pd.DataFrame, features: Features, settings: SelectModel, seed: int) -> list[str]:
    """Ids of at most max_per_domain images that have features, drawn by address."""
    with_features = rows[rows["image_id"].isin(features.image_id)]
    return list(capped(with_features, settings.max_per_domain, seed)["image_id"])


def reason(candidates: list[Candidate], p_best_M: np.ndarray, chosen: int, tied: list[int]) -> str:
    share = f"it comes first in {p_best_M[chosen]:.0%} of the bootstrap draws"
    if len(tied) == 1:
        return f"{candidates[chosen].name} is ahead: {share}"
    others = ", ".join(candidates[m].name for m in tied if m != chosen)
    return f"{candidates[chosen].name} can't be told apart from {others}: {share}; the tie rule takes it"


def candidate_entry(
    candidate: Candidate, m: int, scores: list[Score], nulls: dict[str, list[float]], settings: SelectModel
) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": candidate.name,
        "architecture": candidate.architecture,
        "source_domain": candidate.source_domain,
        "licence": candidate.licence,
        "sha256": candidate.sha256,
        "scores": {},
    }
    for score in scores:
        low, high = score.interval(settings.confidence)
        entry["scores"][score.name] = {
            "value": score.value_M[m],
            "low": low[m],
            "high": high[m],
            "higher_is_better": score.higher_is_better,
            "weight": score.weight,
            **({"null": nulls[score.name][m]} if score.name in nulls else {}),
        }
    return entry


def flat_ranking(ranking: list[dict[str, Any]]) -> pd.DataFrame:
    own = ["name", "p_best", "mean_rank", "n_parameters", "tied", "chosen", "licence"]
    rows = [
        {key: entry[key] for key in own}
        | {f"{name}_{end}": score[end] for name, score in entry["scores"].items() for end in ("value", "low", "high")}
        for entry in ranking
    ]
    return pd.DataFrame(rows)


if __name__ == "__main__":
    run_stage(main)
