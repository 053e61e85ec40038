"""Batches: scaling by hand, addressed views, and decoding ahead without changing anything."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.core.batches import ImageList, ahead, one_at_a_time, plain_batches, to_tensor
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


def test_the_view_gets_the_image_its_id_and_the_number(images: ImageList) -> None:
    seen = []

    def view(image: np.ndarray, image_id: str, number: int) -> np.ndarray:
        seen.append((int(image[0, 0, 0]), image_id, number))
        return image + 1

    x_NCHW = images.batch([4, 1], view, 7)
    assert seen == [(4, "e", 7), (1, "b", 7)]
    assert x_NCHW[:, 0, 0, 0].tolist() == pytest.approx([5 / 255, 2 / 255])
    images.batch([4, 1, 4], view, [0, 8, 9])
    assert seen[2:] == [(4, "e", 0), (1, "b", 8), (4, "e", 9)]
    assert images.batch([4])[0, 0, 0, 0] == pytest.approx(4 / 255)  # the cached pixels did not change


def test_a_batch_can_be_changed_without_changing_the_images(images: ImageList) -> None:
    images.batch([1]).fill_(9)
    assert images.batch([1])[0, 0, 0, 0] == pytest.approx(1 / 255)


def test_plain_batches_hold_all_images_once_in_order(images: ImageList) -> None:
    sizes = [len(x) for x in plain_batches(images, 2)]
    red = torch.cat([x[:, 0, 0, 0] for x in plain_batches(images, 2)]) * 255
    assert sizes == [2, 2, 1]
    assert red.tolist() == pytest.approx([0, 1, 2, 3, 4])


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


def test_several_threads_keep_the_order_too() -> None:
    started = []

    def make(item: int) -> int:
        started.append(item)
        time.sleep(0.02 / item)  # the later, the sooner done
        return item * 10

    stream = ahead(make, range(1, 10), 3)
    assert next(stream) == 10
    assert max(started) <= 4  # one for each thread, and the one that is yielded
    assert list(stream) == [20, 30, 40, 50, 60, 70, 80, 90]
    assert list(ahead(make, [7], 3)) == [70]


def test_a_view_with_a_state_is_made_by_one_thread_at_a_time() -> None:
    state = 0

    def view(image: np.ndarray, _image_id: str, number: int) -> np.ndarray:
        nonlocal state
        state = number
        time.sleep(0.001)
        return image + state

    def made(show) -> list[int]:
        image = np.zeros(1, int)
        return [int(seen[0]) for seen in ahead(lambda number: show(image, "a", number), range(40), 4)]

    assert made(one_at_a_time(view)) == list(range(40))
    assert made(view) != list(range(40))


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
