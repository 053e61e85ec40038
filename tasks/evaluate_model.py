"""evaluate_model: the adopted model and the baselines on the same test images.

reads   data/manifest_valid.csv, data/gate.json, data/test_labels.csv, data/model, data/adoption.json, data/given/champion,
        the images
writes  data/predictions.csv, data/metrics.json, data/confusion.csv, data/reference.safetensors
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.core.batches import ImageList
from tasks.core.calibration import calibrated
from tasks.core.champion import CHAMPION, CHAMPION_PATH, champion_probabilities
from tasks.core.files import read_json, read_table, write_json, write_table
from tasks.core.images import ImageFiles
from tasks.core.manifest import part, read_valid_manifest
from tasks.core.metrics import gain_over, model_metrics
from tasks.core.model import ImageModel, load_weights, network, split_head
from tasks.core.predictions import ADOPTED, of_model, prediction_rows
from tasks.core.reference import UNLABELLED, Reference, reference_of, reference_rows, write_reference
from tasks.core.runtime import run_stage, use_machine
from tasks.core.training import probabilities
from tasks.params import Params, read_params

MODEL = Path("data/model")
TINY = 1e-300


def main() -> None:
    params = read_params()
    device = use_machine(params.runtime.device, params.runtime.n_threads)
    manifest = read_valid_manifest(Path("data/manifest_valid.csv"), Path("data/gate.json"))
    labels = read_table(Path("data/test_labels.csv"), made_by="validate_data").rename(columns={"label": "y_true"})
    rows = part(manifest, "target", "test").merge(labels, on="image_id", validate="one_to_one")
    description = read_json(MODEL / "model.json", made_by="finetune_model")
    adopted = read_json(Path("data/adoption.json"), made_by="guard_adaptation")["adopted"]
    tables = [
        prediction_rows(name, rows, predict(name, rows, description, params, device), description["classes"])
        for name in description["models"]
    ]
    tables.insert(0, tables[description["models"].index(adopted)].assign(model=ADOPTED))
    if (champion := of_champion(rows, description["classes"], params, device)) is not None:
        tables.append(champion)
    predictions = pd.concat(tables, ignore_index=True)
    write_table(Path("data/predictions.csv"), predictions)
    write_reference(Path("data/reference.safetensors"), reference(adopted, manifest, description, params, device))
    write_json(Path("data/metrics.json"), all_metrics(predictions, params))
    confusion = of_model(predictions, ADOPTED)[["y_true", "y_pred"]]
    write_table(Path("data/confusion.csv"), confusion.rename(columns={"y_true": "actual", "y_pred": "predicted"}))


def predict(name: str, rows: pd.DataFrame, description: dict[str, Any], params: Params, device: str) -> np.ndarray:
    """(N, C) probabilities of the plain test images, at the temperature that validation gave."""
    images = images_of(rows, params, *shown_as(description))
    model = trained(name, description, device)
    probs_NC = probabilities(model, images, params.evaluate_model.batch_size, device)
    return calibrated(np.log(probs_NC.clip(min=TINY)), description["temperature"][name])


def trained(name: str, description: dict[str, Any], device: str) -> ImageModel:
    n_classes = len(description["classes"])
    model = split_head(network(description["architecture"], n_classes), n_classes)
    load_weights(model, MODEL / f"{name}.safetensors")
    return model.to(device)


def shown_as(description: dict[str, Any]) -> tuple[tuple[int, str, float], tuple[tuple[float, ...], ...]]:
    """Side, interpolation and crop share; mean and deviation: how the networks were trained to see images."""
    sight = (description["image_px"], description["interpolation"], description["crop_share"])
    return sight, (tuple(description["mean"]), tuple(description["std"]))


def reference(name: str, manifest: pd.DataFrame, description: dict[str, Any], params: Params, device: str) -> Reference:
    """What the adopted network makes of held-out images of both domains: new images are compared with it (`acclimate monitor`).

    Validation labels alone say what was right: neither the guard's nor the test's.
    """
    index = {label: number for number, label in enumerate(description["classes"])}
    seen = {}
    for domain, rows in reference_rows(manifest, pd.DataFrame({"image_id": [], "label": []})).items():
        images = images_of(rows, params, *shown_as(description))
        labels = [UNLABELLED if label == "" else index.get(label, len(index)) for label in rows["label"]]
        seen[domain] = replace(images, labels=tuple(labels))
    return reference_of(
        trained(name, description, device), seen["source"], seen["target"],
        temperature=description["temperature"][name], batch_size=params.evaluate_model.batch_size,
    )  # fmt: skip


def of_champion(rows: pd.DataFrame, classes: list[str], params: Params, device: str) -> pd.DataFrame | None:
    """What the registered model says of the same images; None where none is pinned."""
    unseen = images_of(
        rows, params, (1, "bilinear", 1.0), ((0.0,) * 3, (1.0,) * 3)
    )  # shown as the champion's bundle says
    size = params.evaluate_model.batch_size
    probs_NC = champion_probabilities(CHAMPION_PATH, unseen, classes, batch_size=size, device=device)
    return None if probs_NC is None else prediction_rows(CHAMPION, rows, probs_NC, classes)


def images_of(
    rows: pd.DataFrame, params: Params, sight: tuple[int, str, float], scaling: tuple[tuple[float, ...], ...]
) -> ImageList:
    """The rows' images without labels: `sight` is side, interpolation and crop share, `scaling` mean and deviation."""
    files = ImageFiles(Path(params.build_manifest.root), *sight)
    return ImageList(files, tuple(rows["image_id"]), tuple(rows["path"]), (-1,) * len(rows), *scaling)


def all_metrics(predictions: pd.DataFrame, params: Params) -> dict[str, Any]:
    """Per model its metrics; all but source-only also with the paired gain over it."""
    own = params.evaluate_model
    metrics = {}
    for name in predictions["model"].unique():
        rows = of_model(predictions, name)
        metrics[name] = model_metrics(rows, own.confidence)
        if name != "source_only":
            source_only = of_model(predictions, "source_only")
            metrics[name]["gain_over_source_only"] = gain_over(rows, source_only, own.confidence)
    return metrics


if __name__ == "__main__":
    run_stage(main)
