"""Batches: scaling by hand, addressed order, and decoding ahead without changing anything."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.core.batches import ImageList, ahead, plain_batches, shuffled_indices, to_tensor
from tasks.core.images import ImageFiles


@pytest.fixture
def images(tmp_path: Path) -> ImageList:
    for k in range(5):
        Image.new("RGB", (4, 4), (k, 10 * k, 255)).save(tmp_path / f"{k}.png")
    ids, paths = tuple("abcde"), tuple(f"{k}.png" for k in range(5))
    return ImageList(ImageFiles(tmp_path, 4), ids, paths, (0, 1, -1, 1, 0), (0.0, 0.0, 0.5), (1.0, 1.0, 0.25))


def test_scaling_by_hand() -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    image[1, 2] = (255, 51, 102)
    x_NCHW = to_tensor([image], (0.5, 0.1, 0.2), (0.5, 0.1, 0.4))
    assert x_NCHW.shape == (1, 3, 2, 3)
    assert x_NCHW[0, :, 0, 0].tolist() == pytest.approx([-1, -1, -0.5])
    assert x_NCHW[0, :, 1, 2].tolist() == pytest.approx([1, 1, 0.5])
    assert x_NCHW.is_contiguous(memory_format=torch.channels_last)


def test_a_batch_holds_the_images_asked_for_in_that_order(images: ImageList) -> None:
    x_NCHW = images.batch([3, 0, 3])
    assert x_NCHW[:, 0, 0, 0].tolist() == pytest.approx([3 / 255, 0, 3 / 255])
    assert x_NCHW[:, 2, 0, 0].tolist() == pytest.approx([2, 2, 2])
    assert images.labels_at([3, 0, 2]).tolist() == [1, 0, -1]
    assert len(images) == 5


def test_the_view_gets_the_image_its_id_and_the_epoch(images: ImageList) -> None:
    seen = []

    def view(image: np.ndarray, image_id: str, epoch: int) -> np.ndarray:
        seen.append((int(image[0, 0, 0]), image_id, epoch))
        return image + 1

    x_NCHW = images.batch([4, 1], view, 7)
    assert seen == [(4, "e", 7), (1, "b", 7)]
    assert x_NCHW[:, 0, 0, 0].tolist() == pytest.approx([5 / 255, 2 / 255])
    assert images.batch([4])[0, 0, 0, 0] == pytest.approx(4 / 255)  # the cached pixels did not change


def test_a_batch_can_be_changed_without_changing_the_images(images: ImageList) -> None:
    images.batch([1]).fill_(9)
    assert images.batch([1])[0, 0, 0, 0] == pytest.approx(1 / 255)


def test_plain_batches_hold_all_images_once_in_order(images: ImageList) -> None:
    sizes = [len(x) for x in plain_batches(images, 2)]
    red = torch.cat([x[:, 0, 0, 0] for x in plain_batches(images, 2)]) * 255
    assert sizes == [2, 2, 1]
    assert red.tolist() == pytest.approx([0, 1, 2, 3, 4])


@pytest.mark.parametrize(
    ("n_images", "batch_size", "sizes"), [(6, 3, [3, 3]), (7, 3, [3, 3]), (8, 3, [3, 3, 2]), (2, 9, [2]), (1, 4, [])]
)
def test_each_image_once_but_no_batch_of_one(n_images: int, batch_size: int, sizes: list[int]) -> None:
    found = shuffled_indices(n_images, batch_size, "address")
    assert [len(batch) for batch in found] == sizes
    indices = [i for batch in found for i in batch]
    assert len(indices) == len(set(indices)) == sum(sizes)
    assert set(indices) <= set(range(n_images))


def test_order_depends_on_its_address_only() -> None:
    np.random.default_rng().random()
    assert shuffled_indices(50, 8, 0, "run", 3) == shuffled_indices(50, 8, 0, "run", 3)
    addresses = [(0, "run", 3), (0, "run", 4), (1, "run", 3), (0, "r", 3)]
    found = [shuffled_indices(50, 8, *address) for address in addresses]
    assert all(a != b for i, a in enumerate(found) for b in found[:i])


def test_the_left_out_image_changes_from_epoch_to_epoch() -> None:
    left_out = {(set(range(7)) - {i for b in shuffled_indices(7, 3, 0, epoch) for i in b}).pop() for epoch in range(60)}
    assert left_out == set(range(7))


def test_ahead_keeps_the_order_and_works_one_item_ahead() -> None:
    started = []

    def make(item: int) -> int:
        started.append(item)
        return item * 10

    stream = ahead(make, [1, 2, 3, 4])
    assert started == []
    assert next(stream) == 10
    assert 3 not in started  # at most one item under way: memory stays bounded
    assert list(stream) == [20, 30, 40]
    assert list(ahead(make, [])) == []


def test_an_error_in_the_thread_reaches_the_caller_after_the_good_items() -> None:
    stream = ahead(lambda x: 1 // x, [1, 1, 0, 1])
    assert [next(stream), next(stream)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(stream)


def test_a_stream_that_is_left_early_leaves_no_thread() -> None:
    before = threading.active_count()
    stream = ahead(lambda x: x, [1, 2, 3])
    next(stream)
    stream.close()
    assert threading.active_count() == before
