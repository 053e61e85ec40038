"""Features: per candidate one row per (image, view), kept so that nothing passes the backbone twice.

Axes: N rows, D features.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from tasks.core.batches import ImageList, View, ahead, plain_batches
from tasks.core.files import require_file, whole_file
from tasks.core.runtime import address_seed, is_quiet

PLAIN = 0  # view 0 is the image itself; view v shows it as augmented in epoch v - 1


@dataclass(frozen=True)
class Features:
    """image_id (N,) str, view (N,) int, x (N, D) float32."""

    image_id: np.ndarray
    view: np.ndarray
    x_ND: np.ndarray

    def plain_rows(self, image_ids: list[str]) -> np.ndarray:
        """(len(image_ids), D): the plain view of each image, joined by id. ValueError names images that are absent."""
        plain = self.view == PLAIN
        row_of = pd.Series(np.flatnonzero(plain), index=self.image_id[plain])
        absent = [i for i in image_ids if i not in row_of.index]
        if absent:
            raise ValueError(
                f"{len(absent)} images have no features, the first: {absent[0]}; run `dvc repro extract_features`"
            )
        return self.x_ND[row_of.loc[image_ids].to_numpy()]

    def rows_of(self, image_ids: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """x of all views of these images, and for each row the position of its image in `image_ids`."""
        position = pd.Series(range(len(image_ids)), index=image_ids)
        wanted = np.isin(self.image_id, image_ids)
        return self.x_ND[wanted], position.loc[self.image_id[wanted]].to_numpy()


def capped(rows: pd.DataFrame, n_images: int | None, seed: int) -> pd.DataFrame:
    """At most n rows, drawn by address and evenly over the labels (rows without label count as one label)."""
    if n_images is None or len(rows) <= n_images:
        return rows
    order = pd.Series([address_seed(seed, "features", i) for i in rows["image_id"]], index=rows.index)
    turn = order.groupby(rows["label"]).rank(method="first")
    first = pd.DataFrame({"turn": turn, "order": order}).sort_values(["turn", "order"]).index[:n_images]
    return rows.loc[sorted(first)]


def extract(backbone: nn.Module, images: ImageList, *, batch_size: int, name: str) -> np.ndarray:
    """(N, D) float32 features of the plain images, in their order."""
    return _forward(backbone, plain_batches(images, batch_size), len(images), name)


def extract_views(
    backbone: nn.Module, images: ImageList, view: View, *, n_views: int, batch_size: int, name: str
) -> np.ndarray:
    """(n_views · N, D) float32: all images as seen in epoch 0, then in epoch 1, …"""
    chunks = [
        (epoch, range(i, min(i + batch_size, len(images))))
        for epoch in range(n_views)
        for i in range(0, len(images), batch_size)
    ]
    batches = ahead(lambda chunk: images.batch(chunk[1], view, chunk[0]), chunks)
    return _forward(backbone, batches, n_views * len(images), name)


def _forward(backbone: nn.Module, batches: Iterator[torch.Tensor], n_images: int, name: str) -> np.ndarray:
    backbone.eval()
    device = next(backbone.parameters()).device
    parts = []
    with torch.inference_mode(), tqdm(total=n_images, desc=name, unit="image", disable=is_quiet()) as bar:
        for x_NCHW in batches:
            parts.append(backbone(x_NCHW.to(device)).float().cpu().numpy())
            bar.update(len(x_NCHW))
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def write_features(path: Path, features: Features) -> None:
    with whole_file(path) as part, part.open("wb") as handle:
        np.savez(handle, image_id=features.image_id, view=features.view, x=features.x_ND)


def read_features(path: Path) -> Features:
    require_file(path, made_by="extract_features")
    with np.load(path, allow_pickle=False) as stored:
        return Features(stored["image_id"], stored["view"], stored["x"])
