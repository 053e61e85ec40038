"""The champion: the registered model that a flow pinned into the data, and what it says of images.

Axes: N images, C classes.
"""

from pathlib import Path

import numpy as np

from tasks.core.batches import ImageList
from tasks.core.bundle import MANIFEST, check_bundle, load_network
from tasks.core.calibration import calibrated
from tasks.core.files import read_json
from tasks.core.images import ImageFiles
from tasks.core.training import probabilities

CHAMPION = "champion"
CHAMPION_PATH = Path("data/given/champion")
TINY = 1e-300


def champion_probabilities(
    folder: Path, images: ImageList, classes: list[str], *, batch_size: int, device: str
) -> np.ndarray | None:
    """(N, C) calibrated as it was registered, of images seen as it was trained to; None where none is pinned.

    ValueError where its bytes were changed or it knows other classes.
    """
    if not (folder / MANIFEST).exists():
        return None
    check_bundle(folder)
    description = read_json(folder / "model.json", made_by="register_model")
    if description["classes"] != classes:
        raise ValueError(
            f"the champion in {folder} knows the classes {', '.join(description['classes'])}, the data has "
            f"{', '.join(classes)}: they can't be compared; empty the folder to go on without a champion"
        )
    sight = (description["image_px"], description.get("interpolation", "bilinear"), description.get("crop_share", 1.0))
    files = ImageFiles(images.files.root, *sight)
    scaling = (tuple(description["mean"]), tuple(description["std"]))
    shown = ImageList(files, images.image_ids, images.paths, images.labels, *scaling)
    model = load_network(folder, description, device)
    probs_NC = probabilities(model, shown, batch_size, device)
    return calibrated(np.log(probs_NC.clip(min=TINY)), description.get("temperature", 1.0))
