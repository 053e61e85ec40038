"""The bundle: weights, description and evidence of one candidate model, named by the hash of its manifest.

`manifest.json` lists the sha256 of every file and holds no clock and no version: its own sha256 is the candidate id.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from tasks.core.files import file_sha256, read_json, whole_folder, write_json

MANIFEST = "manifest.json"
BATCH_SIZE = 64


def write_bundle(folder: Path, files: dict[str, Path], facts: dict[str, Any]) -> None:
    """Copies each file under its name in the bundle, and writes the manifest last."""
    with whole_folder(folder) as part:
        for name, path in files.items():
            shutil.copyfile(path, part / name)
        hashes = {name: file_sha256(part / name) for name in sorted(files)}
        write_json(part / MANIFEST, {**facts, "files": hashes})


def candidate_id(folder: Path) -> str:
    return file_sha256(folder / MANIFEST)


def check_bundle(folder: Path) -> dict[str, Any]:
    """The manifest. ValueError names every file that is missing or not the one that was registered."""
    manifest: dict[str, Any] = read_json(folder / MANIFEST, made_by="register_model")
    problems = []
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif file_sha256(path) != expected:
            problems.append(f"{name} has sha256 {file_sha256(path)[:16]}, its manifest says {expected[:16]}")
    if problems:
        raise ValueError(f"the bundle {folder} is not as it was registered: {'; '.join(problems)}; register it again")
    return manifest


def predict_images(folder: Path, image_paths: list[Path], *, device: str, n_threads: int) -> pd.DataFrame:
    """path, y_pred, confidence, p_<class> per image; an image that can't be read has its reason in `error` instead."""
    from tasks.core.images import read_square  # torch and Pillow only where images are really read
    from tasks.core.runtime import is_quiet, use_machine

    check_bundle(folder)
    use_machine(device, n_threads)
    description = read_json(folder / "model.json", made_by="register_model")
    model = load_network(folder, description, device)
    # bundles of the first days do not say how they were shown: bilinear and whole was the only way
    sight = (description["image_px"], description.get("interpolation", "bilinear"), description.get("crop_share", 1.0))
    errors: dict[Path, str] = {}
    probs: dict[Path, np.ndarray] = {}
    for start in tqdm(range(0, len(image_paths), BATCH_SIZE), desc="predict", disable=is_quiet()):
        readable: dict[Path, np.ndarray] = {}
        for path in image_paths[start : start + BATCH_SIZE]:
            try:
                readable[path] = read_square(path, *sight)
            except Exception as error:  # decoders raise anything; one bad file must not cost the others
                errors[path] = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if readable:
            probs |= dict(
                zip(readable, _probabilities(model, list(readable.values()), description, device), strict=True)
            )
    return pd.DataFrame(
        [_row(path, probs.get(path), errors.get(path, ""), description["classes"]) for path in image_paths]
    )


def load_network(folder: Path, description: dict[str, Any], device: str) -> Any:
    from tasks.core.model import load_weights, network, split_head

    n_classes = len(description["classes"])
    model = split_head(network(description["architecture"], n_classes), n_classes)
    load_weights(model, folder / "model.safetensors")
    return model.to(device).eval()


def _probabilities(model: Any, images: list[np.ndarray], description: dict[str, Any], device: str) -> np.ndarray:
    import torch

    from tasks.core.batches import to_tensor

    with torch.inference_mode():
        x_NCHW = to_tensor(images, description["mean"], description["std"]).to(device)
        # bundles of the first days have no temperature
        logits_NC = model(x_NCHW).double() / description.get("temperature", 1.0)
        probs: np.ndarray = logits_NC.softmax(1).cpu().numpy()
    return probs


def _row(path: Path, probs_C: np.ndarray | None, error: str, classes: list[str]) -> dict[str, Any]:
    if probs_C is None:
        empty: dict[str, Any] = {"path": str(path), "y_pred": "", "confidence": np.nan}
        return empty | {f"p_{name}": np.nan for name in classes} | {"error": error}
    best = int(probs_C.argmax())
    shares = {f"p_{name}": float(p) for name, p in zip(classes, probs_C, strict=True)}
    return {"path": str(path), "y_pred": classes[best], "confidence": float(probs_C[best]), **shares, "error": error}
