"""select_model: which candidate to start from, how sure that is, and what can't be told apart.

reads   data/manifest_valid.csv, data/gate.json, data/features, the zoo's zoo.json
writes  data/selection.json, data/ranking.csv

Label-based scores use the target's train and val labels; guard and test labels are not there to be seen.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.core.candidate_choice import ChoiceSettings, Costs, Evidence, choice_of
from tasks.core.features import Features, capped, read_features
from tasks.core.files import write_json, write_table
from tasks.core.manifest import classes_of, part, read_valid_manifest
from tasks.core.model import multiply_adds, network, parameter_count, split_head
from tasks.core.runtime import run_stage, use_machine
from tasks.core.selection import CandidateFeatures, ScoreSettings
from tasks.core.zoo_file import Candidate, allowed, read_zoo
from tasks.params import Params, SelectModel, read_params


def main() -> None:
    params = read_params()
    use_machine(params.runtime.device, params.runtime.n_threads)
    manifest = read_valid_manifest(Path("data/manifest_valid.csv"), Path("data/gate.json"))
    candidates, refused = allowed(read_zoo(Path(params.zoo.folder), params.zoo.candidates), params.zoo.licences)
    features = [read_features(Path("data/features") / candidate.name) for candidate in candidates]
    evidence = evidence_of(manifest, features, params)
    costs = costs_of(candidates, len(classes_of(manifest)), params.zoo.image_px)
    selection = choice_of(candidates, evidence, costs, settings_of(params.select_model, params.seed))
    selection["left_out"] += [f"candidate {name} is left out: {why}" for name, why in refused.items()]
    write_json(Path("data/selection.json"), selection)
    write_table(Path("data/ranking.csv"), flat_ranking(selection["candidates"]))
    print(f"selection: {selection['reason']}")  # noqa: T201  news


def settings_of(settings: SelectModel, seed: int) -> ChoiceSettings:
    """A score whose weight is null is not computed; one of weight 0 is shown and has no say."""
    return ChoiceSettings(
        how=ScoreSettings(settings.n_neighbors, settings.probe_inverse_l2, settings.n_bootstrap, seed),
        weights={name: weight for name, weight in settings.weights.model_dump().items() if weight is not None},
        weights_without={
            name: weight for name, weight in settings.weights_without_labels.model_dump().items() if weight is not None
        },
        min_labels=settings.min_labels,
        gap_min_images=settings.gap_min_images,
        tie_p_best=settings.tie_p_best,
        confidence=settings.confidence,
        take=settings.take,
    )


def evidence_of(manifest: pd.DataFrame, features: list[Features], params: Params) -> Evidence:
    """The same images for every candidate: labelled target (capped), source and target samples; drawn by address."""
    settings, seed = params.select_model, params.seed
    labelled = in_company(capped(labelled_rows(manifest), settings.max_labels, seed))
    source = sample(part(manifest, "source", "train", "val"), features[0], settings, seed)
    target = sample(part(manifest, "target", "train", "val", "unlabelled"), features[0], settings, seed)
    ids = list(labelled["image_id"])
    found = [
        CandidateFeatures(
            of.plain_rows(ids),
            of.plain_rows(list(source["image_id"])),
            of.plain_rows(list(target["image_id"])),
            of.theta_rows(ids),
        )
        for of in features
    ]
    return evidence_of_tables(found, labelled, source, target, params.build_manifest.target_domain)


def evidence_of_tables(
    found: list[CandidateFeatures], labelled: pd.DataFrame, source: pd.DataFrame, target: pd.DataFrame, target_name: str
) -> Evidence:
    """Features beside what the manifest says of the same rows, in the same order."""
    audit = [name for name in labelled.columns if name.startswith("audit_")]
    return Evidence(
        features=found,
        labels_N=labelled["label"].to_numpy(str),
        source_labels_S=source["label"].to_numpy(str),
        groups_N=labelled["group_id"].to_numpy(str),
        groups_S=source["group_id"].to_numpy(str),
        groups_T=target["group_id"].to_numpy(str),
        audit={name.removeprefix("audit_"): labelled[name].to_numpy(str) for name in audit},
        origins_S=source["origin"].to_numpy(str),
        target_name=target_name,
    )


def labelled_rows(manifest: pd.DataFrame) -> pd.DataFrame:
    """Labelled target train and val images, of classes with at least two of them."""
    return in_company(part(manifest, "target", "train", "val"))


def in_company(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the classes that have at least two: one image alone can't be both learnt from and tried."""
    return rows[rows.groupby("label")["label"].transform("size") > 1]


def sample(rows: pd.DataFrame, features: Features, settings: SelectModel, seed: int) -> pd.DataFrame:
    """At most max_per_domain images that have features, drawn by address."""
    return capped(rows[rows["image_id"].isin(features.image_id)], settings.max_per_domain, seed)


def costs_of(candidates: list[Candidate], n_classes: int, image_px: int | None) -> Costs:
    """At the size that the network sees, with a head for the target's classes: the source's head is replaced."""
    backbones = [split_head(network(c.architecture, n_classes), n_classes) for c in candidates]
    sizes = zip(backbones, candidates, strict=True)
    return Costs(
        n_parameters=np.array([parameter_count(model) for model in backbones]),
        n_multiply_adds=np.array([multiply_adds(model.backbone, image_px or c.native_px) for model, c in sizes]),
    )


def flat_ranking(ranking: list[dict[str, Any]]) -> pd.DataFrame:
    own = ["name", "p_best", "mean_rank", "n_parameters", "n_multiply_adds", "tied", "chosen", "licence"]
    rows = [
        {key: entry[key] for key in own}
        | {f"{name}_{end}": score[end] for name, score in entry["scores"].items() for end in ("value", "low", "high")}
        for entry in ranking
    ]
    return pd.DataFrame(rows)


if __name__ == "__main__":
    run_stage(main)
