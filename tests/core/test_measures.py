"""Measures of pixels against arithmetic by hand, numpy, scipy and colorsys."""

import colorsys

import numpy as np
import pytest
from scipy import ndimage, stats

from tasks.core import measures
from tasks.core.measures import MEASURES, measure_pixels

NOISE = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)


def flat(*colour: int) -> np.ndarray:
    return np.full((8, 8, 3), colour, np.uint8)


def test_a_flat_image_has_neither_contrast_nor_sharpness_nor_information() -> None:
    facts = measure_pixels(flat(51, 51, 51))
    assert [facts[name] for name in MEASURES] == [0.2, 0, 0.2, 0.2, 0, 0, 0]
    assert str(facts["entropy"]) == "0.0", "not -0.0"


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 0, 0), (255, 255, 255), (200, 100, 50), (1, 0, 0), (7, 7, 6)])
def test_saturation_is_that_of_hsv(colour: tuple[int, int, int]) -> None:
    expected = colorsys.rgb_to_hsv(*(part / 255 for part in colour))[1]
    assert measure_pixels(flat(*colour))["saturation"] == pytest.approx(expected, abs=1e-6)


def test_saturation_is_the_mean_over_pixels() -> None:
    pixels = np.concatenate([flat(255, 0, 0), flat(0, 0, 0), flat(200, 100, 200), flat(9, 9, 9)])
    assert measure_pixels(pixels)["saturation"] == pytest.approx((1 + 0 + 0.5 + 0) / 4)


SHAPES = [(1, 1), (1, 9), (9, 1), (2, 2), (4, 1), (1, 4), (4, 4), (3, 5), (64, 47), (300, 7)]


@pytest.mark.parametrize("shape", SHAPES)
def test_measures_agree_with_other_libraries(shape: tuple[int, int]) -> None:
    grey = np.random.default_rng(shape[0]).integers(0, 256, shape, np.uint8)
    facts = measure_pixels(np.repeat(grey[..., None], 3, axis=2))
    laplacian = ndimage.laplace(grey.astype(float), mode="mirror")
    expected = {
        "brightness": grey.mean() / 255,
        "contrast": grey.std() / 255,
        "brightness_p5": np.percentile(grey, 5) / 255,
        "brightness_p99": np.percentile(grey, 99) / 255,
        "entropy": stats.entropy(np.bincount(grey.ravel()), base=2),
        "saturation": 0,
    }
    assert {name: facts[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert facts["sharpness"] == pytest.approx(laplacian.var(), abs=1e-3)


def test_grey_is_that_of_the_standard() -> None:
    expected = (0.299 * NOISE[..., 0] + 0.587 * NOISE[..., 1] + 0.114 * NOISE[..., 2]).mean() / 255
    assert measure_pixels(NOISE)["brightness"] == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("strip_pixels", [1, 53, 53 * 5, 53 * 36, 53 * 37])
def test_strips_change_nothing(strip_pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure_pixels(NOISE)
    monkeypatch.setattr(measures, "STRIP_PIXELS", strip_pixels)
    assert measure_pixels(NOISE) == whole


def test_measuring_leaves_the_pixels_as_they_are() -> None:
    pixels = NOISE.copy()
    measure_pixels(pixels)
    assert (pixels == NOISE).all()
    assert measure_pixels(NOISE[:, ::-1]) == measure_pixels(NOISE[:, ::-1].copy()), "a view is measured as its copy"


def test_one_pixel_changes_the_pixel_hash() -> None:
    other = NOISE.copy()
    other[20, 20, 1] ^= 1
    assert measure_pixels(NOISE)["pixel_hash"] != measure_pixels(other)["pixel_hash"]
