"""A bundle's model at work: images in, classes with calibrated probabilities out.

Axes: N images, C classes, H height, W width.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import torch
from torch import nn

from tasks.core.batches import ahead, to_tensor
from tasks.core.bundle import WEIGHTS, check_bundle
from tasks.core.files import read_json
from tasks.core.images import read_square
from tasks.core.trained import load_network, sight

BATCH_SIZE = 64
ADDRESS = re.compile(r" ?<_io\.\w+ object at 0x[0-9a-f]+>")

# An image's name, and what opens it; opening may raise anything
Named = tuple[str, Callable[[], Path | BinaryIO]]


@dataclass(frozen=True)
class Classifier:
    """The network of a bundle, and what its description says of it. Several threads may use it at once."""

    net: nn.Module
    description: dict[str, Any]
    device: str

    @property
    def classes(self) -> list[str]:
        return list(self.description["classes"])

    @property
    def temperature(self) -> float:
        """What logits are divided by; bundles of the first days have none."""
        return float(self.description.get("temperature", 1.0))

    def read(self, source: Path | BinaryIO) -> np.ndarray:
        """(H, W, 3) uint8, as the network is shown it. Decoders raise anything."""
        return read_square(source, *sight(self.description))

    def probabilities(self, images: list[np.ndarray]) -> np.ndarray:
        """(N, C) float64, calibrated by the bundle's temperature."""
        with torch.inference_mode():
            x_NCHW = to_tensor(images, self.description["mean"], self.description["std"]).to(self.device)
            logits_NC = self.net(x_NCHW).double() / self.temperature
            probs: np.ndarray = logits_NC.softmax(1).cpu().numpy()
        return probs

    def asks(self, confidence: float) -> bool:
        """Whether a person is to look. Without a threshold always: no confidence was shown to be enough."""
        threshold = self.description.get("ask_below")
        return threshold is None or confidence < threshold


def load_classifier(folder: Path, device: str) -> Classifier:
    """ValueError where the bundle isn't what was registered, to the byte."""
    check_bundle(folder)
    description = read_json(folder / "model.json", made_by="register_model")
    return Classifier(load_network(folder / WEIGHTS, description, device), description, device)


def predicted(classifier: Classifier, images: Iterable[Named]) -> Iterator[pd.DataFrame]:
    """One table a batch: path, y_pred, confidence, p_<class>, ask_a_person (yes | no), error.

    An image that can't be read has its reason in `error`, and nothing else. The next batch is decoded meanwhile.
    """
    for names, pixels, errors in ahead(lambda batch: _read(classifier, batch), _batches(images)):
        probs = iter(classifier.probabilities(pixels) if pixels else ())
        rows = [
            _row(classifier, name, None if error else next(probs), error)
            for name, error in zip(names, errors, strict=True)
        ]
        yield pd.DataFrame(rows)


def _batches(images: Iterable[Named]) -> Iterator[list[Named]]:
    rest = iter(images)
    return iter(lambda: list(islice(rest, BATCH_SIZE)), [])


def _read(classifier: Classifier, batch: Iterable[Named]) -> tuple[list[str], list[np.ndarray], list[str]]:
    """Names, pixels of those that can be read, and each one's reason why not, "" where it can."""
    names, pixels, errors = [], [], []
    for name, opened in batch:
        names.append(name)
        try:
            pixels.append(classifier.read(opened()))
            errors.append("")
        except Exception as error:  # decoders raise anything; one bad file must not cost the others
            errors.append(reason(error))
    return names, pixels, errors


def reason(error: Exception) -> str:
    """One line on why an image can't be read: the same for the same bytes, wherever they lie in memory."""
    return f"{type(error).__name__}: {ADDRESS.sub('', ' '.join(str(error).split()))}"


def _row(classifier: Classifier, name: str, probs_C: np.ndarray | None, error: str) -> dict[str, Any]:
    if probs_C is None:
        shares = {f"p_{each}": np.nan for each in classifier.classes}
        return {"path": name, "y_pred": "", "confidence": np.nan, **shares, "ask_a_person": "", "error": error}
    best = int(probs_C.argmax())
    confidence = float(probs_C[best])
    shares = {f"p_{each}": float(p) for each, p in zip(classifier.classes, probs_C, strict=True)}
    asks = "yes" if classifier.asks(confidence) else "no"
    told = {"path": name, "y_pred": classifier.classes[best], "confidence": confidence}
    return {**told, **shares, "ask_a_person": asks, "error": error}
