"""A workshop made by hand: images of noise, a small network with drawn weights, drawn features."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from tasks.core.features import Features
from tasks.core.files import file_sha256
from tasks.core.images import ImageFiles
from tasks.core.model import SmallResNet, save_weights
from tasks.core.phases import FitSettings
from tasks.core.workshop import Balance, Workshop
from tasks.core.zoo_file import Candidate

NO_BALANCE = Balance("shuffled", None, 0.0, 0.0, 0.0)
SETTINGS = FitSettings(
    batch_size=4, weight_decay=0.01, evaluate_every=1, seed=0, device="cpu", ema_decay=None, l2_sp=0.0, dropout=0.0,
    precision="float32", compile=False, accumulate=1,
)  # fmt: skip
Row = tuple[str, str, str, str, str]  # image_id, domain, split, label, site


def made_workshop(folder: Path, rows: list[Row]) -> Workshop:
    """Classes a and b; one made image, m1, whose parent is the first row."""
    manifest = pd.DataFrame(rows, columns=["image_id", "domain", "split", "label", "audit_site"], dtype=str)
    manifest = manifest.assign(path=manifest["image_id"] + ".png", origin=manifest["domain"])
    for place, names in ((folder / "images", manifest["path"]), (folder / "made", ["m1.png"])):
        place.mkdir()
        for number, name in enumerate(names):
            pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / name)
    torch.manual_seed(0)
    weights = folder / "w.safetensors"
    save_weights(SmallResNet(2), weights)
    candidate = Candidate(
        "first", "acclimate.small_resnet", weights, file_sha256(weights), 2, 128, (0.5,) * 3, (0.5,) * 3, 32, "none", "MIT",
    )  # fmt: skip
    ids = manifest["image_id"].to_numpy(str)
    return Workshop(
        seed=0,
        settings=SETTINGS,
        balance=NO_BALANCE,
        candidate=candidate,
        classes=["a", "b"],
        manifest=manifest,
        synthetic=manifest.iloc[[0]].assign(image_id="m1", path="m1.png"),
        files=ImageFiles(folder / "images", 16, made_root=folder / "made"),
        features=Features(ids, np.zeros(len(ids), int), np.random.default_rng(1).normal(size=(len(ids), 128))),
        view=lambda image, _id, _epoch: image,
        folder=folder / "state",
    )
