"""The order in which images are seen: addressed, even where asked for, and no view twice."""

from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from tasks.core.batches import ImageList
from tasks.core.images import ImageFiles
from tasks.core.phases import Job
from tasks.core.runtime import address_rng
from tasks.core.sampling import Draw, Stream, image_stream, unlabelled_stream


def shuffled(n_images: int, batch_size: int, *address: object) -> Stream:
    return Stream((np.arange(n_images),), batch_size, address)


def images_of(labels: tuple[int, ...], folder: Path) -> ImageList:
    names = tuple(str(k) for k in range(len(labels)))
    return ImageList(ImageFiles(folder, 4), names, names, labels, (0.5,) * 3, (0.5,) * 3)


def job_of(folder: Path, labels: tuple[int, ...], **changed) -> Job:
    images = images_of(labels, folder)
    return Job("run", images, images, lambda image, _id, _number: image, folder, **changed)


def drawn(batches: list[list[Draw]]) -> list[Draw]:
    return list(chain.from_iterable(batches))


@pytest.mark.parametrize(
    ("n_images", "batch_size", "sizes"), [(6, 3, [3, 3]), (7, 3, [3, 3]), (8, 3, [3, 3, 2]), (2, 9, [2]), (3, 9, [3])]
)
def test_each_image_once_but_no_batch_of_one(n_images: int, batch_size: int, sizes: list[int]) -> None:
    stream = shuffled(n_images, batch_size, "address")
    found = stream.one_pass(0)
    assert [len(batch) for batch in found] == sizes
    assert stream.n_batches == len(sizes)
    images = [draw.image for draw in drawn(found)]
    assert len(images) == len(set(images)) == sum(sizes)
    assert set(images) <= set(range(n_images))


def test_the_order_is_the_permutation_of_its_address() -> None:
    order = address_rng(5, "run", 3).permutation(10).tolist()
    found = shuffled(10, 4, 5, "run").one_pass(3)
    assert found == [[Draw(i, 3) for i in part] for part in (order[:4], order[4:8], order[8:])]


def test_order_depends_on_its_address_only() -> None:
    np.random.default_rng().random()
    assert shuffled(50, 8, 0, "run").one_pass(3) == shuffled(50, 8, 0, "run").one_pass(3)
    addresses = [(0, "run", 3), (0, "run", 4), (1, "run", 3), (0, "r", 3)]
    found = [[d.image for d in drawn(shuffled(50, 8, *address).one_pass(n))] for *address, n in addresses]
    assert all(a != b for i, a in enumerate(found) for b in found[:i])


def test_the_left_out_image_changes_from_pass_to_pass() -> None:
    stream = shuffled(7, 3, 0)
    left_out = {(set(range(7)) - {d.image for d in drawn(stream.one_pass(number))}).pop() for number in range(60)}
    assert left_out == set(range(7))


def test_an_epoch_of_the_longer_stream_is_one_pass() -> None:
    stream = shuffled(10, 4, 0)
    assert stream.epoch(2, 3) == stream.one_pass(2)


def test_an_epoch_of_the_shorter_stream_goes_on_in_the_next_pass_and_is_cut() -> None:
    stream = shuffled(10, 4, 0)  # three batches a pass
    assert stream.epoch(0, 7) == [*stream.one_pass(0), *stream.one_pass(1), stream.one_pass(2)[0]]
    assert stream.epoch(2, 7) == [*stream.one_pass(6), *stream.one_pass(7), stream.one_pass(8)[0]]


@pytest.mark.parametrize(
    ("cells", "n_batches"),
    [
        ([range(10)], 3),
        ([range(10)], 7),  # the shorter of two streams
        ([range(2), range(2, 13)], 4),  # balanced: 7 draws of each cell
        ([range(2), range(2, 13)], 11),
        ([[0], range(1, 40)], 5),
    ],
)
def test_no_view_of_an_image_comes_twice_in_many_epochs(cells: list, n_batches: int) -> None:
    stream = Stream(tuple(np.array(cell) for cell in cells), 4, (0,))
    seen = Counter(chain.from_iterable(drawn(stream.epoch(epoch, n_batches)) for epoch in range(12)))
    assert max(seen.values()) == 1
    assert len(seen) == 12 * sum(len(batch) for batch in stream.epoch(0, n_batches))


def test_balanced_passes_draw_every_class_as_often_and_every_image_of_it(tmp_path: Path) -> None:
    labels = (2,) * 3 + (0,) * 8 + (1,) * 13
    stream = image_stream(job_of(tmp_path, labels, sampling="class_balanced"), 24, (0,))
    images = Counter(draw.image for draw in drawn(stream.one_pass(4)))
    assert [sum(images[i] for i in range(24) if labels[i] == label) for label in (0, 1, 2)] == [8, 8, 8]
    assert sorted(images[i] for i in range(3)) == [2, 3, 3]  # 8 draws of 3 images
    assert [images[i] for i in range(3, 11)] == [1] * 8
    assert sum(images[i] for i in range(11, 24)) == 8
    assert max(images[i] for i in range(11, 24)) == 1


def test_over_the_passes_every_image_of_a_large_class_has_its_turn(tmp_path: Path) -> None:
    stream = image_stream(job_of(tmp_path, (0,) * 2 + (1,) * 12, sampling="class_balanced"), 14, (0,))
    seen = Counter(draw.image for number in range(120) for draw in drawn(stream.one_pass(number)))
    assert all(0.4 < seen[i] / 120 < 0.8 for i in range(2, 14))  # 7 of 12 in each pass: 0.58


def test_groups_are_balanced_where_that_is_asked_for(tmp_path: Path) -> None:
    groups = ("a",) * 2 + ("b",) * 10
    job = job_of(tmp_path, (0, 1) * 6, sampling="group_balanced", groups=groups)
    images = Counter(draw.image for draw in drawn(image_stream(job, 12, (0,)).one_pass(0)))
    assert [sum(images[i] for i in range(12) if groups[i] == group) for group in "ab"] == [6, 6]


def test_what_can_not_be_sampled_is_refused(tmp_path: Path) -> None:
    refused = {
        r"run: 1 training image\(s\); at least 2 are needed": job_of(tmp_path, (0,)),
        "run: 2 training images have no label, so the classes can't be balanced; take sampling shuffled": job_of(
            tmp_path, (0, -1, -1, 1), sampling="class_balanced"
        ),
        "run: 3 groups are given for 4 training images; sampling group_balanced needs one for each": job_of(
            tmp_path, (0, 1, 0, 1), sampling="group_balanced", groups=("a", "b", "a")
        ),
        "run: 2 training images have no group, so the groups can't be balanced; take sampling shuffled": job_of(
            tmp_path, (0, 1, 0, 1), sampling="group_balanced", groups=("a", "", "b", None)
        ),
        "run: sampling is 'even'; allowed are shuffled, class_balanced and group_balanced": job_of(
            tmp_path, (0, 1), sampling="even"
        ),
    }
    for told, job in refused.items():
        with pytest.raises(ValueError, match=told):
            image_stream(job, 4, (0,))
    with pytest.raises(ValueError, match=r"run: 1 unlabelled image\(s\); at least 2 are needed"):
        unlabelled_stream(job_of(tmp_path, (0, 1), unlabelled=images_of((-1,), tmp_path)), 4, (0,))
    assert unlabelled_stream(job_of(tmp_path, (0, 1)), 4, (0,)) is None


def test_the_two_streams_of_a_job_have_orders_of_their_own(tmp_path: Path) -> None:
    job = job_of(tmp_path, (0, 1) * 20, unlabelled=images_of((-1,) * 40, tmp_path))
    beside = unlabelled_stream(job, 8, (0,))
    assert beside is not None
    assert image_stream(job, 8, (0,)).one_pass(0) != beside.one_pass(0)
