"""Batches of images as tensors: addressed views, decoded ahead of the network.

Axes: N images, C colour channels, H height, W width.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from tasks.core.images import ImageFiles

T = TypeVar("T")
U = TypeVar("U")

# image (H, W, 3) uint8, image_id, number → the view of that number, same shape; an image's view is new in each epoch
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

    def batch(self, indices: Sequence[int], view: View | None = None, number: int | Sequence[int] = 0) -> Tensor:
        """(N, 3, H, W) float32 of the images at `indices`, plain or as the view of that number, one for each or for all."""
        images = [self.files[self.paths[i]] for i in indices]
        if view is not None:
            numbers = [number] * len(indices) if isinstance(number, int) else number
            shown = zip(images, indices, numbers, strict=True)
            images = [view(image, self.image_ids[i], own) for image, i, own in shown]
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


def ahead(make: Callable[[T], U], items: Iterable[T], n_threads: int = 1) -> Iterator[U]:
    """make(item) for each item in order, as many next ones as there are threads always under way."""
    with ThreadPoolExecutor(n_threads) as pool:
        waiting: deque[Future[U]] = deque()
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > n_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def one_at_a_time(view: View) -> View:
    """The view for several threads: it may keep a state of its own between its lines, so only one of them makes views."""
    lock = Lock()

    def locked(image_HWC: np.ndarray, image_id: str, number: int) -> np.ndarray:
        with lock:
            return view(image_HWC, image_id, number)

    return locked
