"""The champion: the registered model that a flow pinned into the data, and what it says of images.

Axes: N images, C classes.
"""

from pathlib import Path
from typing import Any

import numpy as np

from tasks.core.batches import ImageList
from tasks.core.bundle import MANIFEST, WEIGHTS, check_bundle
from tasks.core.files import read_json
from tasks.core.trained import calibrated_probabilities, load_network, shown_to

CHAMPION_PATH = Path("data/given/champion")


def champion_description(folder: Path, classes: list[str]) -> dict[str, Any] | None:
    """Its model.json; None where none is pinned. ValueError where its bytes were changed or it knows other classes."""
    if not (folder / MANIFEST).exists():
        return None
    check_bundle(folder)
    description: dict[str, Any] = read_json(folder / "model.json", made_by="register_model")
    if description["classes"] != classes:
        raise ValueError(
            f"the champion in {folder} knows the classes {', '.join(description['classes'])}, the data has "
            f"{', '.join(classes)}: they can't be compared; empty the folder to go on without a champion"
        )
    return description


def champion_probabilities(
    folder: Path, images: ImageList, classes: list[str], *, batch_size: int, device: str
) -> np.ndarray | None:
    """(N, C) calibrated as it was registered, of images seen as it was trained to; None where none is pinned.

    ValueError where its bytes were changed or it knows other classes.
    """
    description = champion_description(folder, classes)
    if description is None:
        return None
    model = load_network(folder / WEIGHTS, description, device)
    temperature = description.get("temperature", 1.0)
    seen = shown_to(images, description)
    return calibrated_probabilities(model, seen, temperature, batch_size=batch_size, device=device)
