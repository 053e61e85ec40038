"""Batches of images as tensors: addressed order, addressed views, decoded one batch ahead of the network.

Axes: N images, C colour channels, H height, W width.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from tasks.core.images import ImageFiles
from tasks.core.runtime import address_rng

T = TypeVar("T")
U = TypeVar("U")

# image (H, W, 3) uint8, image_id, epoch → the view of that image in that epoch, same shape
View = Callable[[np.ndarray, str, int], np.ndarray]


@dataclass(frozen=True)
class ImageList:
    """Images by id and path, with class indices (-1 = no label), and the scaling that a network expects."""

    files: ImageFiles
    image_ids: tuple[str, ...]
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, indices: Sequence[int], view: View | None = None, epoch: int = 0) -> Tensor:
        """(N, 3, H, W) float32 of the images at `indices`, plain or as the view of `epoch`."""
        images = [self.files[self.paths[i]] for i in indices]
        if view is not None:
            images = [view(image, self.image_ids[i], epoch) for image, i in zip(images, indices, strict=True)]
        return to_tensor(images, self.mean, self.std)

    def labels_at(self, indices: Sequence[int]) -> Tensor:
        return torch.tensor([self.labels[i] for i in indices])


def to_tensor(images: list[np.ndarray], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(N, 3, H, W) float32: scaled to 0..1, then (x - mean) / std per channel; channels_last in memory."""
    x_NCHW = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div_(255)
    mean_C, std_C = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
    return x_NCHW.sub_(mean_C).div_(std_C).contiguous(memory_format=torch.channels_last)


def plain_batches(images: ImageList, batch_size: int) -> Iterator[Tensor]:
    """All images in order, one batch decoded ahead."""
    chunks = [range(i, min(i + batch_size, len(images))) for i in range(0, len(images), batch_size)]
    return ahead(images.batch, chunks)


def shuffled_indices(n_images: int, batch_size: int, *address: object) -> list[list[int]]:
    """The batches of one epoch. A last batch of one image is left out: BatchNorm can't use it."""
    order = address_rng(*address).permutation(n_images).tolist()
    batches = [order[i : i + batch_size] for i in range(0, n_images, batch_size)]
    return [batch for batch in batches if len(batch) > 1]


def ahead(make: Callable[[T], U], items: Sequence[T]) -> Iterator[U]:
    """make(item) for each item in order, the next one always under way in a thread."""
    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for item in items:
            following = pool.submit(make, item)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()
