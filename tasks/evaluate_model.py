"""evaluate_model: the adopted model and the baselines on the same test images.

reads   data/manifest_valid.csv, data/gate.json, data/test_labels.csv, data/model, data/adoption.json, data/given/champion,
        the images
writes  data/predictions.csv, data/metrics.json, data/confusion.csv, data/reference.safetensors
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.core.champion import CHAMPION_PATH, champion_probabilities
from tasks.core.files import read_json, read_table, write_json, write_table
from tasks.core.manifest import part, read_valid_manifest
from tasks.core.metrics import gain_over, model_metrics
from tasks.core.model import ImageModel
from tasks.core.predictions import ADOPTED, CHAMPION, of_model, prediction_rows
from tasks.core.reference import UNLABELLED, Reference, reference_of, reference_rows, write_reference
from tasks.core.runtime import run_stage, use_machine
from tasks.core.trained import calibrated_probabilities, images_of, load_network
from tasks.params import Params, read_params

MODEL = Path("data/model")


def main() -> None:
    params = read_params()
    device = use_machine(params.runtime.device, params.runtime.n_threads)
    manifest = read_valid_manifest(Path("data/manifest_valid.csv"), Path("data/gate.json"))
    labels = read_table(Path("data/test_labels.csv"), made_by="validate_data").rename(columns={"label": "y_true"})
    rows = part(manifest, "target", "test").merge(labels, on="image_id", validate="one_to_one")
    description = read_json(MODEL / "model.json", made_by="finetune_model")
    adopted = read_json(Path("data/adoption.json"), made_by="guard_adaptation")["adopted"]
    images = images_of(rows, description, Path(params.build_manifest.root))
    machine: Any = {"batch_size": params.evaluate_model.batch_size, "device": device}
    probs = {
        name: calibrated_probabilities(
            trained(name, description, device), images, description["temperature"][name], **machine
        )
        for name in description["models"]
    }
    probs = {ADOPTED: probs[adopted], **probs}
    champion = champion_probabilities(CHAMPION_PATH, images, description["classes"], **machine)
    if champion is not None:
        probs[CHAMPION] = champion
    tables = [prediction_rows(name, rows, probs_NC, description["classes"]) for name, probs_NC in probs.items()]
    predictions = pd.concat(tables, ignore_index=True)
    write_table(Path("data/predictions.csv"), predictions)
    write_reference(Path("data/reference.safetensors"), reference(adopted, manifest, description, params, device))
    write_json(Path("data/metrics.json"), all_metrics(predictions, params))
    confusion = of_model(predictions, ADOPTED)[["y_true", "y_pred"]]
    write_table(Path("data/confusion.csv"), confusion.rename(columns={"y_true": "actual", "y_pred": "predicted"}))


def trained(name: str, description: dict[str, Any], device: str) -> ImageModel:
    return load_network(MODEL / f"{name}.safetensors", description, device)


def reference(name: str, manifest: pd.DataFrame, description: dict[str, Any], params: Params, device: str) -> Reference:
    """What the adopted network makes of held-out images of both domains: new images are compared with it (`acclimate monitor`).

    Validation labels alone say what was right: neither the guard's nor the test's.
    """
    index = {label: number for number, label in enumerate(description["classes"])}
    seen = {}
    for domain, rows in reference_rows(manifest, pd.DataFrame({"image_id": [], "label": []})).items():
        images = images_of(rows, description, Path(params.build_manifest.root))
        labels = [UNLABELLED if label == "" else index.get(label, len(index)) for label in rows["label"]]
        seen[domain] = replace(images, labels=tuple(labels))
    return reference_of(
        trained(name, description, device), seen["source"], seen["target"],
        temperature=description["temperature"][name], batch_size=params.evaluate_model.batch_size,
    )  # fmt: skip


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
