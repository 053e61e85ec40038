"""Does the selection choose well? The embedded sample over seeds: every candidate is really fine-tuned and measured.

    python benchmarks/selection_seeds.py [n_seeds [first_seed]]      default: 10 0

One to two minutes a seed; writes benchmarks/results/selection_seeds.json after each (from another first seed on:
selection_seeds_<first>.json).

A seed changes the rendering, the zoo's pretraining, the few labels, the splits and all training draws. The budget is one and
the same for every candidate: the plan "full" of params.yaml with N_EPOCHS epochs on the target's few training labels, the same
head's weights and the same batches. Realised accuracy is measured on the target's test labels: this is a benchmark, nothing is
chosen by them. Regret is the best candidate's accuracy less the chosen one's, in points.
"""

import contextlib
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pipeline import ROOT, STAGES, machine, run_stages
from scipy.stats import kendalltau, t

sys.path.insert(0, str(ROOT))
from tasks.augment_images import read_view
from tasks.core.batches import ImageList
from tasks.core.features import read_features
from tasks.core.files import read_json, read_table
from tasks.core.images import ImageFiles
from tasks.core.manifest import classes_of, part, read_valid_manifest
from tasks.core.phases import Job, NetPhase
from tasks.core.plans import run_plan
from tasks.core.regularisers import Supervised
from tasks.core.runtime import address_seed, use_machine
from tasks.core.training import accuracy
from tasks.core.zoo import load_candidate
from tasks.core.zoo_file import Candidate, read_zoo
from tasks.finetune_model import core_phase, fit_settings
from tasks.params import Params, read_params

N_EPOCHS = 40
PLAN = "full"
UNTIL_SELECTED = STAGES[: STAGES.index("select_model") + 1]
JOB = "realised"


def main(n_seeds: int, first_seed: int) -> None:
    path = ROOT / f"benchmarks/results/selection_seeds{f'_{first_seed}' if first_seed else ''}.json"
    path.parent.mkdir(exist_ok=True)
    runs: list[dict[str, Any]] = []
    for seed in range(first_seed, first_seed + n_seeds):
        runs.append(one_seed(seed))
        print(line(runs[-1]), flush=True)
        budget = f"plan {PLAN}, {N_EPOCHS} epochs, the target's training labels"
        result = {"machine": machine(), "budget": budget, "summary": summary(runs), "runs": runs}
        path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(summary(runs), indent=1))


def one_seed(seed: int) -> dict[str, Any]:
    """What was predicted and what was realised, per candidate."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        seconds = run_stages(folder, ROOT / "params.yaml", lambda p: p.update(seed=seed), UNTIL_SELECTED)
        os.environ["ACCLIMATE_HOME"] = str(folder / "home")
        with contextlib.chdir(folder):
            selection = read_json(Path("data/selection.json"), made_by="select_model")
            start = time.perf_counter()
            realised = {entry["name"]: realised_accuracy(entry["name"]) for entry in selection["candidates"]}
            seconds["fine-tuning"] = round(time.perf_counter() - start, 1)
    return {"seed": seed} | compared(selection, realised) | {"seconds": seconds}


def realised_accuracy(name: str) -> float:
    """On the target's test images, of the candidate fine-tuned under the budget. In the folder of a run."""
    params = read_params()
    own = params.finetune_model
    device = use_machine(params.runtime.device, params.runtime.n_threads)
    settings = fit_settings(params, device)
    candidate = next(c for c in read_zoo(Path(params.zoo.folder), None) if c.name == name)
    manifest = read_valid_manifest(Path("data/manifest_valid.csv"), Path("data/gate.json"))
    classes = classes_of(manifest)
    few = images_of(part(manifest, "target", "train"), candidate, classes, params)
    head_seed = address_seed(params.seed, JOB)  # the same fresh head for all
    model = load_candidate(candidate, len(classes), head_seed).model.to(device)
    with tempfile.TemporaryDirectory() as checkpoints:
        nothing = images_of(manifest.iloc[:0], candidate, classes, params)
        job = Job(JOB, few, nothing, read_view(params.seed), Path(checkpoints))
        phases = [core_phase(phase) for phase in own.plans[PLAN].phases]
        budget = [replace(phase, n_epochs=N_EPOCHS) if isinstance(phase, NetPhase) else phase for phase in phases]
        objective = Supervised(torch.tensor(few.labels), own.label_smoothing.target)
        features = read_features(Path("data/features") / name)
        run_plan(model, budget, job=job, settings=settings, features=features, objective=objective)
    labels = read_table(Path("data/test_labels.csv"), made_by="validate_data")
    test = part(manifest, "target", "test").drop(columns="label").merge(labels, on="image_id", validate="one_to_one")
    return accuracy(model, images_of(test, candidate, classes, params), settings)


def images_of(rows: pd.DataFrame, candidate: Candidate, classes: list[str], params: Params) -> ImageList:
    side_px = params.zoo.image_px or candidate.native_px
    files = ImageFiles(Path(params.build_manifest.root), side_px, candidate.interpolation, candidate.crop_share)
    labels = tuple(classes.index(label) for label in rows["label"])
    return ImageList(files, tuple(rows["image_id"]), tuple(rows["path"]), labels, candidate.mean, candidate.std)


def compared(selection: dict[str, Any], realised: dict[str, float]) -> dict[str, Any]:
    """Chosen and realised; for the aggregate, the static prior and each score: Kendall's tau and the regret of its first."""
    entries = selection["candidates"]
    points = np.array([100 * realised[entry["name"]] for entry in entries])
    predictors = {"aggregate": [-entry["mean_rank"] for entry in entries]}
    predictors["static prior (parameters)"] = [float(entry["n_parameters"]) for entry in entries]
    for name, score in entries[0]["scores"].items():
        sign = 1 if score["higher_is_better"] else -1
        predictors[name] = [sign * entry["scores"][name]["value"] for entry in entries]
    chosen = next(place for place, entry in enumerate(entries) if entry["chosen"])
    return {
        "chosen": selection["chosen"],
        "tied": selection["tied"],
        "n_labels": selection["n_labels"],
        "realised": realised,
        "p_best": {entry["name"]: entry["p_best"] for entry in entries},
        "mean_rank": {entry["name"]: entry["mean_rank"] for entry in entries},
        "regret_points": round(float(points.max() - points[chosen]), 3),
        "regret_points_by_chance": round(float(points.max() - points.mean()), 3),
        "tau": {name: tau(values, points) for name, values in predictors.items()},
        "regret_points_of_first": {
            # of equals no one is first: their mean
            name: round(float(points.max() - points[np.array(values) == max(values)].mean()), 3)
            for name, values in predictors.items()
        },
    }


def tau(values: list[float], points: np.ndarray) -> float | None:
    """None where all values are equal: no order is said."""
    found = float(kendalltau(values, points).statistic) if len(set(values)) > 1 else np.nan
    return None if np.isnan(found) else round(found, 4)


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    names = sorted(runs[0]["realised"])
    by_name = {name: np.array([100 * run["realised"][name] for run in runs]) for name in names}
    best = max(names, key=lambda name: float(by_name[name].mean()))
    chosen = np.array([100 * run["realised"][run["chosen"]] for run in runs])
    predictors = runs[0]["tau"]
    return {
        "n_seeds": len(runs),
        "realised_mean_points": {name: round(float(values.mean()), 2) for name, values in by_name.items()},
        "chosen": {name: sum(run["chosen"] == name for run in runs) for name in names},
        "best_by_seed_mean": best,
        "regret_between_seed_means": interval(list(by_name[best] - chosen)),
        "regret_per_seed": interval([run["regret_points"] for run in runs]),
        "regret_per_seed_by_chance": interval([run["regret_points_by_chance"] for run in runs]),
        "tau": {name: interval([run["tau"][name] for run in runs]) for name in predictors},
        "regret_of_first": {
            name: interval([run["regret_points_of_first"][name] for run in runs]) for name in predictors
        },
    }


def interval(values: list[float | None]) -> dict[str, Any]:
    """Mean over seeds with Student's 95 % t interval; seeds that say nothing are left out and counted."""
    said = np.array([value for value in values if value is not None], dtype=float)
    if len(said) < 2:
        return {"n": len(said), "mean": float(said[0]) if len(said) else None, "low": None, "high": None}
    half = float(t.ppf(0.975, len(said) - 1) * said.std(ddof=1) / np.sqrt(len(said)))
    mean = float(said.mean())
    return {"n": len(said), "mean": round(mean, 3), "low": round(mean - half, 3), "high": round(mean + half, 3)}


def line(run: dict[str, Any]) -> str:
    shares = "  ".join(f"{name} {value:.3f}" for name, value in sorted(run["realised"].items()))
    words = f"chosen {run['chosen']}  {shares}  regret {run['regret_points']:.1f}  tau {run['tau']['aggregate']}"
    return f"{run['seed']}  {words}  {sum(run['seconds'].values()):.0f} s"


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    main(given[0] if given else 10, given[1] if len(given) > 1 else 0)
