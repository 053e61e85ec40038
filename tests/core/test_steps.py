"""Steps: the right images as the right views, alike for any number of parts, and shares that add up."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tasks.core import parallel
from tasks.core.batches import ImageList
from tasks.core.images import ImageFiles
from tasks.core.phases import FitSettings, Job
from tasks.core.steps import Step, Steps, on_device

N, N_UNLABELLED = 7, 19


def images_of(folder: Path, first: int, n: int) -> ImageList:
    """Image k is evenly k, so that a tensor tells which images are in it."""
    paths = tuple(f"{first + k}.png" for k in range(n))
    for k, path in enumerate(paths):
        Image.new("RGB", (4, 4), (first + k,) * 3).save(folder / path)
    return ImageList(ImageFiles(folder, 4), paths, paths, (-1,) * n, (0.0,) * 3, (1 / 255,) * 3)


def numbered(image: np.ndarray, _image_id: str, number: int) -> np.ndarray:
    seen = image.copy()
    seen[0, 0] = number
    return seen


def told(x_NCHW: Tensor) -> list[tuple[int, int]]:
    """(image, number of its view) of each image."""
    return [(int(x[0, 1, 1].round()), int(x[0, 0, 0].round())) for x in x_NCHW]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    images = images_of(tmp_path, 0, N)
    return Job("run", images, images, numbered, tmp_path, unlabelled=images_of(tmp_path, 100, N_UNLABELLED))


def steps_of(job: Job, accumulate: int = 1, *, wants_plain: bool = False) -> Steps:
    settings = FitSettings(4, 0.0, 1, 0, "cpu", None, 0.0, 0.0, "float32", False, accumulate)
    return Steps(job, settings, (0, "run", 0), wants_plain=wants_plain)


def seen_in(epochs: list[list[Step]], name: str) -> list[tuple[int, int]]:
    return [
        pair for steps in epochs for step in steps for batch, _ in step.parts for pair in told(getattr(batch, name))
    ]


def test_an_epoch_passes_once_over_the_larger_stream_and_again_over_the_smaller(job: Job) -> None:
    steps = steps_of(job)  # two batches of 4 + 3 images; five of 4 + 4 + 4 + 4 + 3 unlabelled ones
    assert steps.n_per_epoch == 5
    epochs = [list(steps.of_epoch(epoch)) for epoch in range(4)]
    assert [[len(step.parts[0][0].x_NCHW) for step in epoch] for epoch in epochs] == [[4, 3, 4, 3, 4]] * 4
    for number, epoch in enumerate(epochs):
        assert sorted(seen_in([epoch], "u_NCHW")) == [(100 + k, 2 * number + 1) for k in range(N_UNLABELLED)]
        seen = [number for _, number in seen_in([epoch], "x_NCHW")]
        assert seen == [6 * number] * 7 + [6 * number + 2] * 7 + [6 * number + 4] * 4  # three passes, even numbers


def test_a_single_streams_views_have_the_numbers_of_the_epochs(job: Job) -> None:
    steps = steps_of(replace(job, unlabelled=None))
    seen = seen_in([list(steps.of_epoch(epoch)) for epoch in range(3)], "x_NCHW")
    assert sorted(seen) == [(k, epoch) for k in range(N) for epoch in range(3)]


def test_no_view_comes_twice_not_even_of_images_that_are_in_both_streams(job: Job) -> None:
    both = replace(job, unlabelled=job.images)
    epochs = [list(steps_of(both).of_epoch(epoch)) for epoch in range(5)]
    seen = seen_in(epochs, "x_NCHW") + seen_in(epochs, "u_NCHW")
    assert len(seen) == len(set(seen)) == 2 * 5 * N
    epochs = [list(steps_of(job).of_epoch(epoch)) for epoch in range(5)]
    for name in ("x_NCHW", "u_NCHW"):
        seen = seen_in(epochs, name)
        assert len(seen) == len(set(seen)) == {"x_NCHW": 5 * 18, "u_NCHW": 5 * 19}[name]


def test_indices_name_the_images_and_the_address_the_step(job: Job) -> None:
    for number, step in enumerate(steps_of(job, wants_plain=True).of_epoch(3)):
        ((batch, share),) = step.parts
        assert (step.number, step.share, share) == (number, 1.0, 1.0)
        assert batch.address == (0, "run", 0, 3, number)
        assert batch.indices == [image for image, _ in told(batch.x_NCHW)]
        assert [100 + index for index in batch.u_indices] == [image for image, _ in told(batch.u_NCHW)]
        assert told(batch.u_plain_NCHW) == [(image, image) for image, _ in told(batch.u_NCHW)]  # no number was drawn in


def test_plain_images_are_made_only_where_they_are_wanted(job: Job) -> None:
    (batch, _), *_ = next(steps_of(job).of_epoch(0)).parts
    assert batch.u_plain_NCHW is None
    alone = Job("run", job.images, job.images, numbered, job.checkpoint_folder)
    (batch, _), *_ = next(steps_of(alone).of_epoch(0)).parts
    assert (batch.u_NCHW, batch.u_plain_NCHW, batch.u_indices) == (None, None, ())


def test_parts_hold_the_images_of_the_whole_batch_and_never_a_single_one(job: Job) -> None:
    whole = [step.parts[0][0] for step in steps_of(job).of_epoch(1)]
    for step, batch in zip(steps_of(job, accumulate=2).of_epoch(1), whole, strict=True):
        parts = [part for part, _ in step.parts]
        sizes = (len(batch.indices), len(batch.u_indices))
        assert len(parts) == (2 if sizes == (4, 4) else 1)  # three images can't be halved
        assert [i for part in parts for i in part.indices] == batch.indices
        assert torch.equal(torch.cat([part.u_NCHW for part in parts]), batch.u_NCHW)
        assert sum(share for _, share in step.parts) == pytest.approx(1)
        assert [share for _, share in step.parts] == [len(part.indices) / len(batch.indices) for part in parts]
        assert len({part.address for part in parts}) == len(parts)


@pytest.mark.parametrize("n_processes", [2, 3, 5])
def test_processes_divide_each_step(job: Job, monkeypatch: pytest.MonkeyPatch, n_processes: int) -> None:
    whole = [step.parts[0][0] for step in steps_of(job).of_epoch(0)]
    monkeypatch.setattr(parallel, "n_processes", lambda: n_processes)
    by_rank = []
    for rank in range(n_processes):
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        by_rank.append(list(steps_of(job).of_epoch(0)))
    for number, batch in enumerate(whole):
        own = [steps[number] for steps in by_rank]
        assert sum(step.share for step in own) == pytest.approx(1)
        held = [i for step in own for part, _ in step.parts for i in part.indices]
        assert sorted(held) == sorted(batch.indices)
        assert all(len(part.u_indices) for step in own for part, _ in step.parts)  # none is left without


def test_a_process_without_images_has_nothing_to_do(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "n_processes", lambda: 5)
    monkeypatch.setattr(parallel, "rank", lambda: 4)
    assert [(step.parts, step.share) for step in steps_of(job).of_epoch(0)] == [([], 0.0)] * 5


def test_a_batch_on_another_device_is_the_same_batch(job: Job) -> None:
    (batch, _), *_ = next(steps_of(job, wants_plain=True).of_epoch(0)).parts
    moved = on_device(batch, "meta")
    assert [x.device.type for x in (moved.x_NCHW, moved.u_NCHW, moved.u_plain_NCHW)] == ["meta"] * 3
    assert (moved.indices, moved.address, moved.u_indices) == (batch.indices, batch.address, batch.u_indices)
