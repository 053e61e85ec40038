"""The order in which images are seen: in addressed passes, even over classes or groups where that is asked for.

No draw of a stream repeats a view: an image that is drawn again, in the same pass or a later one, gets another number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.core.phases import Job
from tasks.core.runtime import address_rng


class Draw(NamedTuple):
    image: int  # its place in the list of images
    view: int  # the number of the view


@dataclass(frozen=True)
class Stream:
    """Images in passes; each of the cells (image indices) gives the same number of draws to a pass.

    With one cell a pass holds each image once. With several, a pass has about as many draws as there are images, and
    every image of a cell comes equally often, or once more than the others.
    """

    cells: tuple[NDArray[np.int64], ...]
    batch_size: int
    address: tuple[object, ...]

    @property
    def n_per_cell(self) -> int:
        return -(-sum(len(cell) for cell in self.cells) // len(self.cells))

    @property
    def n_batches(self) -> int:
        """Of a pass. A last batch of one image is left out: BatchNorm can't use it."""
        whole, rest = divmod(self.n_per_cell * len(self.cells), self.batch_size)
        return whole + (rest > 1)

    def one_pass(self, number: int) -> list[list[Draw]]:
        n_views = -(-self.n_per_cell // min(len(cell) for cell in self.cells))  # the most that an image needs in a pass
        draws = [
            Draw(int(index), number * n_views + repeat)
            for place, cell in enumerate(self.cells)
            for repeat, part in enumerate(self._rounds(cell, number, place))
            for index in part
        ]
        order = address_rng(*self.address, number).permutation(len(draws)).tolist()
        starts = range(0, self.n_batches * self.batch_size, self.batch_size)
        return [[draws[place] for place in order[start : start + self.batch_size]] for start in starts]

    def _rounds(self, cell: NDArray[np.int64], number: int, place: int) -> list[NDArray[np.int64]]:
        n_whole, rest = divmod(self.n_per_cell, len(cell))
        drawn = address_rng(*self.address, number, "cell", place).permutation(cell)[:rest]
        return [*[cell] * n_whole, drawn]

    def epoch(self, epoch: int, n_batches: int) -> list[list[Draw]]:
        """The batches of one epoch: as many passes as it takes, the last one cut."""
        n_passes = -(-n_batches // self.n_batches)
        numbers = range(epoch * n_passes, (epoch + 1) * n_passes)
        return list(islice(chain.from_iterable(map(self.one_pass, numbers)), n_batches))


def image_stream(job: Job, batch_size: int, address: tuple[object, ...]) -> Stream:
    """The job's images as its sampling says. ValueError where they are too few or what they are balanced by is missing."""
    n, values = len(job.images), _balanced_values(job)
    if n < 2:
        raise ValueError(f"{job.name}: {n} training image(s); at least 2 are needed")
    cells = [np.arange(n)]
    if values is not None:
        places: dict[object, list[int]] = {}
        for index, value in enumerate(values):
            places.setdefault(value, []).append(index)
        cells = [np.array(places[value]) for value in sorted(places, key=str)]
    return Stream(tuple(cells), batch_size, address)


def unlabelled_stream(job: Job, batch_size: int, address: tuple[object, ...]) -> Stream | None:
    """None where the job has no unlabelled images. ValueError where there are fewer than two."""
    if job.unlabelled is None:
        return None
    if len(job.unlabelled) < 2:
        raise ValueError(f"{job.name}: {len(job.unlabelled)} unlabelled image(s); at least 2 are needed")
    return Stream((np.arange(len(job.unlabelled)),), batch_size, (*address, "unlabelled"))


def _balanced_values(job: Job) -> Sequence[object] | None:
    if job.sampling == "shuffled":
        return None
    if job.sampling == "class_balanced":
        if n_missing := job.images.labels.count(-1):
            raise ValueError(
                f"{job.name}: {n_missing} training images have no label, so the classes can't be balanced; take sampling shuffled"
            )
        return job.images.labels
    if job.sampling == "group_balanced":
        if len(job.groups) != len(job.images):
            raise ValueError(
                f"{job.name}: {len(job.groups)} groups are given for {len(job.images)} training images; sampling group_balanced "
                "needs one for each"
            )
        if n_missing := sum(group in ("", None) for group in job.groups):
            raise ValueError(
                f"{job.name}: {n_missing} training images have no group, so the groups can't be balanced; take sampling shuffled"
            )
        return job.groups
    raise ValueError(
        f"{job.name}: sampling is {job.sampling!r}; allowed are shuffled, class_balanced and group_balanced"
    )
