"""A trained network from its description: weights loaded, images shown as it was trained to see them.

The description is `model.json`, of the folder that training writes or of a bundle. Axes: N images, C classes.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.core.batches import ImageList
from tasks.core.calibration import recalibrated
from tasks.core.images import ImageFiles
from tasks.core.model import ImageModel, load_weights, network, split_head
from tasks.core.training import probabilities


def load_network(weights: Path, description: dict[str, Any], device: str) -> ImageModel:
    n_classes = len(description["classes"])
    model = split_head(network(description["architecture"], n_classes), n_classes)
    load_weights(model, weights)
    return model.to(device).eval()


def sight(description: dict[str, Any]) -> tuple[int, str, float]:
    """Side, interpolation and crop share; bundles of the first days name the side alone: bilinear and whole was the only way."""
    interpolation, crop_share = description.get("interpolation", "bilinear"), description.get("crop_share", 1.0)
    return int(description["image_px"]), str(interpolation), float(crop_share)


def images_of(rows: pd.DataFrame, description: dict[str, Any], root: Path) -> ImageList:
    """The images of the rows (image_id, path), without labels."""
    return _shown(ImageFiles(root, *sight(description)), rows["image_id"], rows["path"], description)


def shown_to(images: ImageList, description: dict[str, Any]) -> ImageList:
    """The same images as another network is shown them, without labels."""
    return _shown(ImageFiles(images.files.root, *sight(description)), images.image_ids, images.paths, description)


def _shown(files: ImageFiles, image_ids: Any, paths: Any, description: dict[str, Any]) -> ImageList:
    scaling = (tuple(description["mean"]), tuple(description["std"]))
    return ImageList(files, tuple(image_ids), tuple(paths), (-1,) * len(paths), *scaling)


def calibrated_probabilities(
    model: ImageModel, images: ImageList, temperature: float, *, batch_size: int, device: str
) -> np.ndarray:
    """(N, C) at the temperature that validation gave."""
    return recalibrated(probabilities(model, images, batch_size, device), temperature)
