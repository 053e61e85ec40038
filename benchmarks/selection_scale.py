"""What the selection adds to the forward passes at 10000 images: its computation on made-up features, forward passes timed.

    python benchmarks/selection_scale.py [--images N]        default: 10000; a minute or two

Three candidates of 1280 features: Gaussian classes, read from disk as the stage reads them. The scores look at labels up to
select_model.max_labels and at max_per_domain images of each domain, so what they take does not grow with N beyond that; forward
passes do. Those are timed here as well, by a plain loop over real images (selection_pacs.py), in turn with the
computation; all in CPU seconds, so that other work on the machine does not count.

Needs the testbed (ACCLIMATE_TESTBED, default ../shared/testbed); writes benchmarks/results/selection_scale.json.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pipeline import ROOT, machine
from ruamel.yaml import YAML
from selection_pacs import TESTBED, zoo_with_random

sys.path.insert(0, str(ROOT))
from tasks import select_model
from tasks.core.batches import ImageList, plain_batches
from tasks.core.candidate_choice import Evidence, choice_of
from tasks.core.features import Features, read_features, row_file, write_index
from tasks.core.images import ImageFiles
from tasks.core.runtime import address_rng, use_machine
from tasks.core.selection import CandidateFeatures
from tasks.core.zoo import load_candidate
from tasks.core.zoo_file import Candidate, read_zoo
from tasks.params import SelectModel

N_FEATURES, N_CLASSES, N_TIMED, SIDE_PX, BATCH_SIZE = 1280, 7, 256, 128, 64
SHIFT, CLASS_SPREAD = 0.3, 0.15
LABELS = (35, 140, 2000)
N_REPETITIONS = 2


def main(n_images: int) -> None:
    use_machine("cpu", 1)
    own = YAML(typ="safe").load((ROOT / "docs/examples/pacs_photo_to_art.yaml").read_text(encoding="utf-8"))
    params = SelectModel.model_validate(own["select_model"])
    with tempfile.TemporaryDirectory() as place:
        candidates = read_zoo(zoo_with_random(Path(place) / "zoo"), None)
        y_N = address_rng("classes").integers(0, N_CLASSES, n_images)
        features = [made_up(Path(place) / candidate.name, y_N, n) for n, candidate in enumerate(candidates)]
        found: dict[str, list[float]] = {name: [] for name in ("forward", *map(str, LABELS))}
        for _ in range(N_REPETITIONS):
            found["forward"].append(sum(forward_seconds(candidate) for candidate in candidates) * n_images)
            for n_labels in LABELS:
                start = time.process_time()
                choose(candidates, features, y_N, n_labels, params)
                found[str(n_labels)].append(time.process_time() - start)
            print({name: round(values[-1], 1) for name, values in found.items()}, flush=True)
    pairs = {name: zip(values, found["forward"], strict=True) for name, values in found.items() if name != "forward"}
    shares = {name: [1 + own / forward for own, forward in pair] for name, pair in pairs.items()}
    result: dict[str, Any] = {
        "machine": machine(),
        "n_images": n_images,
        "n_candidates": len(candidates),
        "n_threads": 1,
    }
    result["seconds"] = {name: [round(value, 2) for value in values] for name, values in found.items()}
    result["total_per_forward"] = {name: round(float(np.median(values)), 4) for name, values in shares.items()}
    print(json.dumps(result, indent=1))
    (ROOT / "benchmarks/results/selection_scale.json").write_text(json.dumps(result, indent=1) + "\n")


def made_up(folder: Path, y_N: np.ndarray, number: int) -> Features:
    """The first half is the source, the second the target, somewhat shifted."""
    rng = address_rng("features", number)
    centres = rng.normal(0, CLASS_SPREAD, (N_CLASSES, N_FEATURES))
    x_ND = rng.normal(size=(len(y_N), N_FEATURES)) + centres[y_N]
    x_ND[len(y_N) // 2 :] += SHIFT * rng.normal(size=N_FEATURES)
    folder.mkdir()
    with row_file(folder / "x.npy", len(y_N), N_FEATURES, "float32") as out:
        out.put(np.arange(len(y_N)), x_ND.astype(np.float32))
    write_index(folder, [f"id{n}" for n in range(len(y_N))], np.zeros(len(y_N), int))
    return read_features(folder)


def choose(
    candidates: list[Candidate], features: list[Features], y_N: np.ndarray, n_labels: int, params: SelectModel
) -> None:
    """As select_model does it; the labelled images are the first ones of the target."""
    half, n = len(y_N) // 2, params.max_per_domain
    labelled, source, target = range(half, half + n_labels), range(n), range(len(y_N) - n, len(y_N))
    seen: list[CandidateFeatures] = []
    for of in features:
        x_ND, source_SD, target_TD = [
            of.plain_rows([f"id{place}" for place in places]) for places in (labelled, source, target)
        ]
        theta = np.full((n_labels, 1000), 1e-3) if len(seen) < len(features) - 1 else None
        seen.append(CandidateFeatures(x_ND, source_SD, target_TD, theta))
    evidence = Evidence(
        seen, y_N[list(labelled)].astype(str), y_N[list(source)].astype(str), None, None, None, {},
        np.array(["source"] * n), "target",
    )  # fmt: skip
    costs = select_model.costs_of(candidates, N_CLASSES, SIDE_PX)
    choice_of(candidates, evidence, costs, select_model.settings_of(params, 0))


def forward_seconds(candidate: Candidate) -> float:
    """Per image, decoding included."""
    paths = tuple(sorted(str(p.relative_to(TESTBED / "pacs")) for p in (TESTBED / "pacs/photo").rglob("*.jpg")))
    files = ImageFiles(TESTBED / "pacs", SIDE_PX, candidate.interpolation)
    chosen = paths[:N_TIMED]
    images = ImageList(files, chosen, chosen, (-1,) * N_TIMED, candidate.mean, candidate.std)
    backbone = load_candidate(candidate, 2, 0).model.backbone.eval().to(memory_format=torch.channels_last)
    start = time.process_time()
    with torch.inference_mode():
        for x_NCHW in plain_batches(images, BATCH_SIZE):
            backbone(x_NCHW)
    return (time.process_time() - start) / N_TIMED


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=10_000)
    main(parser.parse_args().images)
