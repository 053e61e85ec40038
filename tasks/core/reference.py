"""The reference: what a model makes of held-out images of both domains, kept in its bundle to compare new images with.

`reference.safetensors` holds for `source` and `target` features (N, D) and confidences (N,), both 32-bit floats, and whether
the guess was right (N,): 1, 0, or -1 where there is no label. No image is in it that the model learnt from, and no test label.

Axes: N images, D features, C classes, H height, W width.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from tasks.core.batches import ImageList, plain_batches
from tasks.core.feature_space import check_features, rotated
from tasks.core.files import whole_file
from tasks.core.intervals import Interval, newcombe, wilson
from tasks.core.manifest import HELD_OUT, part
from tasks.core.model import ImageModel
from tasks.core.runtime import address_seed
from tasks.core.similarity import domain_errors, pooled_standard

REFERENCE = "reference.safetensors"
MAX_IMAGES = 500  # per domain: the interval of a share is then at most ± 0.045
MIN_LABELS = 50  # fewer labelled target images: the source's tell more
UNLABELLED = -1


@dataclass(frozen=True, eq=False)
class Seen:
    """What the model makes of held-out images of one domain; right_N: 1, 0, or -1 without a label."""

    features_ND: np.ndarray
    confidence_N: np.ndarray
    right_N: np.ndarray


@dataclass(frozen=True, eq=False)
class Reference:
    source: Seen
    target: Seen

    def labelled(self) -> tuple[str, np.ndarray, np.ndarray]:
        """Which domain's labels tell how confident a right guess is, and those images' confidences and rights (bool).

        The target's from 50 labels on, else the source's; none where neither has any.
        """
        n_target = int((self.target.right_N != UNLABELLED).sum())
        name = "target" if n_target >= MIN_LABELS or not (self.source.right_N != UNLABELLED).any() else "source"
        seen = self.target if name == "target" else self.source
        known_N = seen.right_N != UNLABELLED
        return name, seen.confidence_N[known_N], seen.right_N[known_N] == 1


def reference_rows(manifest: pd.DataFrame, guard_labels: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Per domain at most 500 held-out rows, those with a label first, drawn by address.

    Source: split val. Target: val, guard and holdout; the guard's labels (image_id, label) are filled in. Labels that were
    asked for belong in neither: those images were chosen because two models disagree on them.
    """
    target = part(manifest, "target", *HELD_OUT)
    drawn = target["image_id"].map(guard_labels.set_index("image_id")["label"]).fillna("")
    target = target.assign(label=target["label"].where(target["label"] != "", drawn))
    return {"source": _drawn(part(manifest, "source", "val")), "target": _drawn(target)}


def reference_of(
    model: ImageModel, source: ImageList, target: ImageList, *, temperature: float, batch_size: int
) -> Reference:
    """One pass over both lists, on the device that the model is on. Labels are class numbers, -1 = none."""
    found = {}
    for name, images in (("source", source), ("target", target)):
        features_ND, probs_NC = look(model, plain_batches(images, batch_size), temperature)
        labels_N = np.array(images.labels, int)
        right_N = np.where(labels_N < 0, UNLABELLED, probs_NC.argmax(1) == labels_N)
        found[name] = Seen(features_ND, probs_NC.max(1, initial=0.0), right_N.astype(np.int8))
    return Reference(**found)


def look(model: ImageModel, batches: Iterable[Tensor], temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, D) float32 and probabilities (N, C) float64 at this temperature, of batches (N, 3, H, W)."""
    model.eval()
    device = model.head.weight.device
    features, probs = [np.empty((0, model.head.in_features), np.float32)], [np.empty((0, model.head.out_features))]
    with torch.inference_mode():
        for x_NCHW in batches:
            x_ND = model.features(x_NCHW.to(device))
            features.append(x_ND.float().cpu().numpy())
            probs.append((model.head(x_ND).double() / temperature).softmax(1).cpu().numpy())
    return np.concatenate(features), np.concatenate(probs)


def write_reference(path: Path, reference: Reference) -> None:
    tensors = {}
    for name, seen in (("source", reference.source), ("target", reference.target)):
        tensors[f"{name}.features"] = np.ascontiguousarray(seen.features_ND, np.float32)
        tensors[f"{name}.confidence"] = np.ascontiguousarray(seen.confidence_N, np.float32)
        tensors[f"{name}.right"] = np.ascontiguousarray(seen.right_N, np.int8)
    with whole_file(path) as unfinished:
        save_file(tensors, unfinished)


def read_reference(path: Path) -> Reference:
    """ValueError where the file is damaged or its arrays don't fit each other."""
    try:
        tensors = load_file(path)
        found = {
            name: Seen(*(tensors[f"{name}.{what}"] for what in ("features", "confidence", "right")))
            for name in ("source", "target")
        }
    except (SafetensorError, KeyError) as error:
        raise ValueError(
            f"{path} is no reference of ours ({' '.join(str(error).split())}); register the model again"
        ) from None
    for name, seen in found.items():
        n = len(seen.features_ND)
        fits = seen.features_ND.ndim == 2 and seen.confidence_N.shape == seen.right_N.shape == (n,)
        if not fits or not (np.isfinite(seen.features_ND).all() and np.isfinite(seen.confidence_N).all()):
            raise ValueError(
                f"{path}: the arrays of {name} don't fit each other or have gaps; register the model again"
            )
    return Reference(**found)


def told_apart(reference_RD: np.ndarray, new_ND: np.ndarray, confidence: float) -> Interval:
    """How well a linear classifier tells new images from the reference by their features: 0 not at all, 1 always.

    Share of new images that it takes for new minus share of reference images that it takes for new, cross-validated: half
    the proxy A-distance (Ben-David et al. 2007), with the interval of Newcombe (1998). Slightly below 0 at true 0.
    ValueError for gaps or fewer than 2 images on a side.
    """
    check_features(reference=reference_RD, new=new_ND)
    x = np.concatenate(pooled_standard(reference_RD, new_ND))
    is_new = np.arange(len(x)) >= len(reference_RD)
    said_new = domain_errors(rotated(x), is_new, None) != is_new
    shares = [wilson(int(said_new[side].sum()), int(side.sum()), confidence) for side in (is_new, ~is_new)]
    return newcombe(*shares)


def sample_of(image_ids: list[str]) -> np.ndarray:
    """Places of at most 500 of the images, drawn by address, in their order."""
    order = np.argsort([address_seed("reference", name) for name in image_ids], kind="stable")
    return np.sort(order[:MAX_IMAGES])


def _drawn(rows: pd.DataFrame) -> pd.DataFrame:
    is_bare = (rows["label"] == "").to_numpy()
    address = np.array([address_seed("reference", name) for name in rows["image_id"]], np.uint64)
    return rows.iloc[np.sort(np.lexsort((address, is_bare))[:MAX_IMAGES])].reset_index(drop=True)
