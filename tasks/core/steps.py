"""The steps of an epoch: which images, as which views, in which parts; made on the CPU, ahead of the network.

Axes: N images, C colour channels, H height, W width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from torch import Tensor

from tasks.core import parallel
from tasks.core.batches import ImageList, ahead, one_at_a_time
from tasks.core.extraction import n_workers
from tasks.core.objective import Batch
from tasks.core.phases import FitSettings, Job
from tasks.core.sampling import Draw, Stream, image_stream, unlabelled_stream

Pair = tuple[list[Draw], list[Draw]]  # of the images, of the unlabelled ones


@dataclass(frozen=True)
class Step:
    """What this process does of one step of the optimiser."""

    number: int
    parts: list[tuple[Batch, float]]  # and their shares of the images that this process holds; none where it holds none
    share: float  # of the step's images that this process holds


class Steps:
    """The steps of a phase. An epoch passes once over the larger of images and unlabelled images, again and again over the other.

    No view repeats in a phase, not even of an image that is in both: where there are two streams, one has the even
    numbers. Several processes divide every step among them. ValueError as the two streams raise it.
    """

    def __init__(self, job: Job, settings: FitSettings, address: tuple[object, ...], *, wants_plain: bool) -> None:
        self.address = address
        self._job, self._settings, self._wants_plain = job, settings, wants_plain
        self._view = one_at_a_time(job.view)
        self._images: Stream = image_stream(job, settings.batch_size, address)
        self._unlabelled: Stream | None = unlabelled_stream(job, settings.batch_size, address)
        streams = [stream for stream in (self._images, self._unlabelled) if stream is not None]
        self._n_streams = len(streams)
        self.n_per_epoch = max(stream.n_batches for stream in streams)

    def of_epoch(self, epoch: int) -> Iterator[Step]:
        drawn = self._images.epoch(epoch, self.n_per_epoch)
        beside: Sequence[list[Draw]] = [[]] * self.n_per_epoch
        if self._unlabelled is not None:
            beside = self._unlabelled.epoch(epoch, self.n_per_epoch)
        numbered = enumerate(zip(drawn, beside, strict=True))
        return ahead(lambda given: self._step(epoch, *given), numbered, n_workers())

    def _step(self, epoch: int, number: int, drawn: Pair) -> Step:
        # too few unlabelled ones for every process: those without look at all of them
        own: Pair = (parallel.own_share(drawn[0]), parallel.own_share(drawn[1]) or drawn[1])
        if not own[0]:
            return Step(number, [], 0.0)
        address = (*self.address, epoch, number)
        fewest = min(len(draws) for draws in own if draws)
        n_parts = max(1, min(self._settings.accumulate, fewest // 2))  # BatchNorm needs two images
        halves = zip(_parts(own[0], n_parts), _parts(own[1], n_parts), strict=True)
        parts = [
            (self._batch(*both, address if n_parts == 1 else (*address, part)), len(both[0]) / len(own[0]))
            for part, both in enumerate(halves)
        ]
        return Step(number, parts, len(own[0]) / len(drawn[0]))

    def _batch(self, draws: list[Draw], beside: list[Draw], address: tuple[object, ...]) -> Batch:
        x_NCHW = self._views(self._job.images, draws, 0)
        batch = Batch(x_NCHW, [draw.image for draw in draws], address)
        unlabelled = self._job.unlabelled
        if unlabelled is None:
            return batch
        u_indices = tuple(draw.image for draw in beside)
        return replace(
            batch,
            u_NCHW=self._views(unlabelled, beside, 1),
            u_plain_NCHW=self._pinned(unlabelled.batch(u_indices)) if self._wants_plain else None,
            u_indices=u_indices,
        )

    def _views(self, images: ImageList, draws: list[Draw], stream: int) -> Tensor:
        numbers = [draw.view * self._n_streams + stream for draw in draws]
        return self._pinned(images.batch([draw.image for draw in draws], self._view, numbers))

    def _pinned(self, x_NCHW: Tensor) -> Tensor:
        """Where a GPU can fetch it while it computes."""
        return x_NCHW.pin_memory() if self._settings.device.startswith("cuda") else x_NCHW


def _parts(draws: list[Draw], n_parts: int) -> list[list[Draw]]:
    """In order, of sizes that differ by one at most."""
    bounds = np.linspace(0, len(draws), n_parts + 1).round().astype(int).tolist()
    return [draws[low:high] for low, high in pairwise(bounds)]


def on_device(batch: Batch, device: str) -> Batch:
    def moved(x_NCHW: Tensor | None) -> Tensor | None:
        return None if x_NCHW is None else x_NCHW.to(device, non_blocking=True)

    return replace(
        batch,
        x_NCHW=batch.x_NCHW.to(device, non_blocking=True),
        u_NCHW=moved(batch.u_NCHW),
        u_plain_NCHW=moved(batch.u_plain_NCHW),
    )
