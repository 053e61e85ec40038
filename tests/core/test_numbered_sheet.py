"""The sheet: every thumbnail whole, in its place, under a number."""

import io

import numpy as np
import pytest
from PIL import Image

from tasks.core.numbered_sheet import numbered_sheet


def opened(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def squares(n: int) -> list[np.ndarray]:
    """6 px each, of a colour of its own that is not the white of the sheet nor the black of the numbers."""
    return [np.full((6, 6, 3), (100 + number, 50, 200), np.uint8) for number in range(n)]


# 4 px before each square and after the last; 14 px above it for the number
@pytest.mark.parametrize(
    ("n", "height", "width"), [(1, 28, 14), (3, 28, 34), (8, 28, 84), (9, 52, 84), (16, 52, 84), (17, 76, 84)]
)
def test_eight_stand_in_a_row(n: int, height: int, width: int) -> None:
    sheet = opened(numbered_sheet(squares(n)))
    assert sheet.shape == (height, width, 3)
    for number in range(n):
        left, top = 4 + number % 8 * 10, 4 + number // 8 * 24 + 14
        assert (sheet[top : top + 6, left : left + 6] == (100 + number, 50, 200)).all()


def test_each_place_has_a_number_of_its_own_above_it() -> None:
    white = [np.full((30, 30, 3), 255, np.uint8)] * 11
    sheet = opened(numbered_sheet(white))
    heads = [
        sheet[4 + n // 8 * 48 : 4 + n // 8 * 48 + 14, 4 + n % 8 * 34 : 4 + n % 8 * 34 + 30].tobytes() for n in range(11)
    ]
    assert len(set(heads)) == 11
    assert all(min(head) < 100 for head in heads)


def test_no_image_is_one_white_pixel() -> None:
    assert opened(numbered_sheet([])).tolist() == [[[255, 255, 255]]]


def test_the_same_images_give_the_same_bytes() -> None:
    assert numbered_sheet(squares(3)) == numbered_sheet(squares(3))
    assert numbered_sheet(squares(3)) != numbered_sheet(squares(3)[::-1])
