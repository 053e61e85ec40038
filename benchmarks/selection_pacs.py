"""Does the selection choose well on real pictures, and what does it cost? ImageNet, iNaturalist birds and random weights on PACS.

    python benchmarks/selection_pacs.py [--all-images]      default: three targets, some ten minutes; --all-images adds one run

For each target domain 5, 20 and 0 labels per class, each with N_DRAWS draws of the labels; those are the only target labels that
the selection sees (no validation labels beside). 128 px, docs/examples/pacs_photo_to_art.yaml with one thread. The zoo is the
testbed's with an added candidate of random weights.

Cost, in CPU seconds of one process (other work on the machine does not count), start-up left out: the forward passes
that are needed at the least (a plain loop over N_TIMED images for each candidate, scaled to all images),
extract_features, select_model (the median over the draws), and fine-tuning every candidate for 10 epochs (one real
epoch timed per candidate, scaled), on the target's labels alone and on the source's too, as the pipeline trains.
"total" is extract_features and select_model together. `--all-images` does the
same with every PACS image, and says what follows for 10000.

Needs the testbed (ACCLIMATE_TESTBED, default ../shared/testbed); writes benchmarks/results/selection_pacs.json.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pipeline import ROOT, STAGES, machine, run_stages

sys.path.insert(0, str(ROOT))
from tasks import extract_features, select_model
from tasks.augment_images import read_view
from tasks.core.batches import ImageList, plain_batches
from tasks.core.candidate_choice import choice_of
from tasks.core.features import read_features
from tasks.core.manifest import classes_of, part, read_valid_manifest
from tasks.core.phases import Job, NetPhase
from tasks.core.regularisers import Supervised
from tasks.core.runtime import address_rng, use_machine
from tasks.core.training import fit_phase
from tasks.core.zoo import load_candidate
from tasks.core.zoo_file import Candidate, read_zoo
from tasks.finetune_model import core_phase, fit_settings
from tasks.params import Params, read_params

TESTBED = Path(os.environ.get("ACCLIMATE_TESTBED", ROOT / "../shared/testbed")).resolve()
SOURCES = {"photo": "art_painting", "art_painting": "photo", "cartoon": "photo"}  # of each target
RIGHT = "imagenet_mobilenet_v2"
RANDOM = {"name": "random", "like": RIGHT, "seed": 0}
Change = Callable[[dict[str, Any]], None]
LABELS_PER_CLASS = (5, 20, 0)
N_DRAWS, N_TIMED, N_EPOCHS = 3, 256, 10
MAX_PER_CLASS: dict[str, int | None] = {"source": 60, "target": 75}
UNTIL_POLICY = STAGES[STAGES.index("build_manifest") : STAGES.index("augment_images") + 1]
NO_DISTANCES = dict.fromkeys(["proxy_a_distance", "linear_mmd", "kid", "coral_distance", "frechet_distance"])


def main(all_images: bool) -> None:
    results: dict[str, Any] = {"clock": "CPU seconds", "machine": machine(), "n_threads": 1, "targets": {}}
    path = ROOT / "benchmarks/results/selection_pacs.json"
    path.parent.mkdir(exist_ok=True)
    for target in SOURCES:
        results["targets"][target] = one_target(target, MAX_PER_CLASS, N_DRAWS)
        path.write_text(json.dumps(results, indent=1) + "\n")
    if all_images:
        everything: dict[str, int | None] = {"source": None, "target": None}
        results["all_images"] = one_target("photo", everything, 1)
        results["all_images"]["cost"] |= at_ten_thousand(results["all_images"]["cost"])
        print(results["all_images"]["cost"])
        path.write_text(json.dumps(results, indent=1) + "\n")


def one_target(target: str, max_per_class: dict[str, int | None], n_draws: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        zoo = zoo_with_random(Path(place) / "zoo")
        sources = [SOURCES[target]] if max_per_class["source"] else [name for name in SOURCES if name != target]
        change = changed(sources, target, zoo, max_per_class)
        run_stages(folder, ROOT / "docs/examples/pacs_photo_to_art.yaml", change, UNTIL_POLICY)
        os.environ["ACCLIMATE_HOME"] = str(folder / "home")
        with contextlib.chdir(folder):
            params = read_params()
            use_machine(params.runtime.device, params.runtime.n_threads)
            candidates = read_zoo(Path(params.zoo.folder), None)
            manifest = read_valid_manifest(Path("data/manifest_valid.csv"), Path("data/gate.json"))
            for candidate in candidates:
                forward_seconds(params, candidate, manifest)  # what comes first in a process is slower
            extraction = seconds_of(extract_features.main)
            rows = selections(params, candidates, n_draws)
            for row in rows:
                print(target, row["n_per_class"], row["draw"], row["p_best"], row["reason"], flush=True)
            return {"sources": sources, "selections": rows, "cost": cost(params, candidates, extraction, rows)}


def zoo_with_random(folder: Path) -> Path:
    folder.mkdir()
    for path in (TESTBED / "zoo").glob("*.safetensors"):
        (folder / path.name).symlink_to(path)
    models = json.loads((TESTBED / "zoo/zoo.json").read_text(encoding="utf-8"))["models"]
    (folder / "zoo.json").write_text(json.dumps({"models": [*models, RANDOM]}), encoding="utf-8")
    return folder


def changed(sources: list[str], target: str, zoo: Path, max_per_class: dict[str, int | None]) -> Change:
    """Every target image but a few test ones is labelled training data here; `labelled` then hides most of the labels."""

    def change(params: dict[str, Any]) -> None:
        params["zoo"]["folder"] = str(zoo)
        params["runtime"]["n_threads"] = 1
        own = params["build_manifest"]
        own.update(root=str(TESTBED / "pacs"), table=str(TESTBED / "pacs/manifest.csv"))
        own.update(source_domains=sources, target_domain=target, max_per_class=max_per_class)
        data = params["validate_data"]
        data.update(target_labels_per_class=None, n_guard_labels=0)
        data["splits"].update(target_val_share=0.0, target_test_share=0.02, target_holdout_share=0.0)
        params["extract_features"].update(n_views=0, max_images={"source": None, "target": None})

    return change


def labelled(manifest: pd.DataFrame, n_per_class: int | None, draw: int) -> pd.DataFrame:
    """The manifest with n labels of each class in the target's training split; all others are hidden. None: all are kept."""
    if n_per_class is None:
        return manifest
    train = manifest[(manifest["domain"] == "target") & (manifest["split"] == "train")]
    order = pd.Series(address_rng(draw, "labels").permutation(len(train)), index=train.index)
    hidden = train.index[order.groupby(train["label"]).rank() > n_per_class]
    found = manifest.copy()
    found.loc[hidden, ["split", "label"]] = ["unlabelled", ""]
    return found


def selections(params: Params, candidates: list[Candidate], n_draws: int) -> list[dict[str, Any]]:
    rows = []
    for n_per_class in LABELS_PER_CLASS:
        for draw in range(n_draws if n_per_class else 1):
            start = time.process_time()
            chosen = select(params, candidates, n_per_class, draw)
            rows.append(told(chosen) | {"n_per_class": n_per_class, "draw": draw})
            rows[-1]["seconds"] = round(time.process_time() - start, 2)
    return rows


def select(params: Params, candidates: list[Candidate], n_per_class: int | None, draw: int) -> dict[str, Any]:
    """select_model's computation, reading included."""
    manifest = labelled(read_valid_manifest(Path("data/manifest_valid.csv"), Path("data/gate.json")), n_per_class, draw)
    features = [read_features(Path("data/features") / candidate.name) for candidate in candidates]
    evidence = select_model.evidence_of(manifest, features, params)
    costs = select_model.costs_of(candidates, len(classes_of(manifest)), params.zoo.image_px)
    return choice_of(candidates, evidence, costs, select_model.settings_of(params.select_model, params.seed))


def told(selection: dict[str, Any]) -> dict[str, Any]:
    first = selection["candidates"]
    return {
        "chosen": selection["chosen"],
        "is_right": selection["chosen"] == RIGHT,
        "reason": selection["reason"],
        "n_labels": selection["n_labels"],
        "p_best": {entry["name"]: round(entry["p_best"], 3) for entry in first},
        "mean_rank": {entry["name"]: entry["mean_rank"] for entry in first},
        "scores": {
            entry["name"]: {name: score["value"] for name, score in entry["scores"].items()}
            for entry in [*first, selection["random"]]
        },
        "against_random": {entry["name"]: entry["against_random"] for entry in first},
        "left_out": selection["left_out"],
    }


def cost(params: Params, candidates: list[Candidate], extraction: float, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """CPU seconds; `total_per_forward` is the whole selection against the forward passes alone."""
    manifest = read_valid_manifest(Path("data/manifest_valid.csv"), Path("data/gate.json"))
    n_images = len(extract_features.images_to_see(manifest, params))
    per_image = [forward_seconds(params, candidate, manifest) for candidate in candidates]
    forward = sum(per_image) * n_images
    found: dict[str, Any] = {"n_images": n_images, "n_candidates": len(candidates)}
    found["forward_seconds"] = round(forward, 1)
    found["forward_images_per_second"] = [round(1 / seconds, 1) for seconds in per_image]
    found["extraction_seconds"] = round(extraction, 1)
    tuning = [epoch_seconds_per_image(params, candidate, manifest) for candidate in candidates]
    found["training_images_per_second"] = [round(1 / seconds, 1) for seconds in tuning]
    everything: tuple[None, int, float] = (None, 0, seconds_of(lambda: select(params, candidates, None, 0)))
    known: list[tuple[int | None, int, float]] = []
    for asked in LABELS_PER_CLASS:
        own = [row for row in rows if row["n_per_class"] == asked]
        known.append((asked, own[0]["n_labels"], float(np.median([row["seconds"] for row in own]))))
    found["by_labels"] = {}
    for n_per_class, n_labels, seconds in [*known, everything]:
        n = len(part(manifest, "target", "train")) if n_per_class is None else n_labels
        found["by_labels"]["all" if n_per_class is None else str(n_per_class)] = {
            "n_labels": n,
            "selection_seconds": round(seconds, 2),
            "total_per_forward": round((extraction + seconds) / forward, 3),
            "total_per_extraction": round((extraction + seconds) / extraction, 3),
        } | against_tuning(params, candidates, n_per_class, n, (sum(per_image), sum(tuning)), extraction + seconds)
    return found


def against_tuning(
    params: Params,
    candidates: list[Candidate],
    n_per_class: int | None,
    n_labels: int,
    seconds_per_image: tuple[float, float],
    total: float,
) -> dict[str, float]:
    """Fine-tuning every candidate on the same labels, against the whole selection and one that looks at the labels alone."""
    forward, tuning = seconds_per_image
    if not n_labels:
        return {}
    content = params.model_dump()
    content["select_model"]["weights"] |= NO_DISTANCES
    alone = seconds_of(lambda: select(Params.model_validate(content), candidates, n_per_class, 0))
    all_epochs = tuning * N_EPOCHS * n_labels
    manifest = read_valid_manifest(Path("data/manifest_valid.csv"), Path("data/gate.json"))
    n_source = len(part(manifest, "source", "train", "val"))
    return {
        "fine_tuning_seconds": round(all_epochs, 1),
        "fine_tuning_per_total": round(all_epochs / total, 2),
        # on all labelled images that the selection looks at, as finetune_model does: the source's, then the few
        "fine_tuning_with_source_per_total": round(tuning * N_EPOCHS * (n_labels + n_source) / total, 2),
        "selection_seconds_without_distances": round(alone, 2),
        "fine_tuning_per_total_without_distances": round(all_epochs / (forward * n_labels + alone), 2),
    }


def seconds_of(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def images_for(params: Params, candidate: Candidate, rows: pd.DataFrame, classes: list[str]) -> ImageList:
    files = extract_features.ImageFiles(
        Path(params.build_manifest.root), params.zoo.image_px or candidate.native_px, candidate.interpolation
    )
    labels = tuple(classes.index(label) for label in rows["label"])
    return ImageList(files, tuple(rows["image_id"]), tuple(rows["path"]), labels, candidate.mean, candidate.std)


def forward_seconds(params: Params, candidate: Candidate, manifest: pd.DataFrame) -> float:
    """Per image, decoding included: a plain loop, one batch decoded ahead."""
    images = images_for(params, candidate, drawn(manifest, N_TIMED), classes_of(manifest))
    backbone = load_candidate(candidate, 2, 0).model.backbone.eval().to(memory_format=torch.channels_last)

    def loop() -> None:
        with torch.inference_mode():
            for x_NCHW in plain_batches(images, params.extract_features.batch_size):
                backbone(x_NCHW)

    loop()  # the first pass is slower: libraries and files are read
    return seconds_of(loop) / len(images)


def epoch_seconds_per_image(params: Params, candidate: Candidate, manifest: pd.DataFrame) -> float:
    """Of one real epoch of the example's plan "full" on N_TIMED / 2 labelled target images, after one that warms up."""
    classes = classes_of(manifest)
    target = drawn(manifest[manifest["domain"] == "target"], N_TIMED // 2)
    images = images_for(params, candidate, target, classes)
    own = params.finetune_model
    settings = fit_settings(params, "cpu")
    phase = core_phase(own.plans["full"].phases[0])
    assert isinstance(phase, NetPhase), "the plan is one phase that trains the network"
    model = load_candidate(candidate, len(classes), 0).model
    objective = Supervised(torch.tensor(images.labels), 0.0)

    def epoch() -> None:
        with tempfile.TemporaryDirectory() as folder:
            job = Job("timed", images, images_for(params, candidate, target[:0], classes), read_view(0), Path(folder))
            fit_phase(model, replace(phase, n_epochs=1), job=job, settings=settings, objective=objective)

    epoch()
    return seconds_of(epoch) / len(images)


def drawn(manifest: pd.DataFrame, n_images: int) -> pd.DataFrame:
    rows = manifest[(manifest["split"] == "train") & (manifest["label"] != "")]
    places = address_rng("timed").permutation(len(rows))[:n_images]
    return rows.iloc[np.sort(places)]


def at_ten_thousand(found: dict[str, Any]) -> dict[str, Any]:
    """Extrapolated: the stage of the features grows with the images; the selection doesn't, its samples are capped."""
    extraction = found["extraction_seconds"] * 10_000 / found["n_images"]
    forward = found["forward_seconds"] * 10_000 / found["n_images"]
    seconds = {name: row["selection_seconds"] for name, row in found["by_labels"].items()}
    return {
        "extrapolated_to_10000_total_per_forward": {
            k: round((extraction + s) / forward, 3) for k, s in seconds.items()
        },
        "extrapolated_to_10000_total_per_extraction": {
            k: round((extraction + s) / extraction, 3) for k, s in seconds.items()
        },
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--all-images", action="store_true")
    main(parser.parse_args().all_images)
