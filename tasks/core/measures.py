"""Measures of an image's pixels, all of them, at full resolution. Grey is 0.299 R + 0.587 G + 0.114 B, rounded.

Sums are kept in integers where they can be, so that the same pixels give the same figures on any machine.
Axes: H height, W width, C colour channels.
"""

import hashlib
import math

import cv2
import numpy as np

from tasks.core.duplicates import perceptual_hash

MEASURES = ["brightness", "contrast", "brightness_p5", "brightness_p99", "sharpness", "entropy", "saturation"]
STRIP_PIXELS = 2**20  # measured at once: memory beyond the decoded pixels stays small


def measure_pixels(pixels_HWC: np.ndarray) -> dict[str, object]:
    """brightness, contrast: mean and standard deviation of grey, 0..1; brightness_p5, _p99: its percentiles, 0..1;
    sharpness: variance of the Laplacian of grey (0..255, 4 neighbours, mirrored border); entropy: Shannon's, of the histogram
    of grey, bits; saturation: mean of (max - min) / max of the channels, 0 for black; and the hashes.
    """
    grey = cv2.cvtColor(pixels_HWC, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    n_rows = max(1, STRIP_PIXELS // width)
    counts, laplacian, laplacian_squares, saturation = np.zeros(256, np.int64), 0, 0, 0.0
    digest = hashlib.sha256(np.array(pixels_HWC.shape, "<i8").tobytes())
    for top in range(0, height, n_rows):
        bottom = min(top + n_rows, height)
        strip = np.ascontiguousarray(pixels_HWC[top:bottom])
        digest.update(strip.data)
        counts += cv2.calcHist([grey[top:bottom]], [0], None, [256], [0, 256]).ravel().astype(np.int64)
        edges = _laplacian(grey, top, bottom)
        laplacian += round(cv2.sumElems(edges)[0])
        laplacian_squares += round(cv2.norm(edges, cv2.NORM_L2SQR))
        saturation += _saturation_sum(strip)
    n_pixels = height * width
    return {
        **_grey_measures(counts),
        "sharpness": round(_variance(laplacian, laplacian_squares, n_pixels), 3),
        "saturation": round(saturation / n_pixels, 6),
        "pixel_hash": digest.hexdigest()[:16],
        "perceptual_hash": perceptual_hash(grey),
    }


def _laplacian(grey_HW: np.ndarray, top: int, bottom: int) -> np.ndarray:
    """Rows top..bottom of the Laplacian of the whole image."""
    first, last = max(top - 1, 0), min(bottom + 1, len(grey_HW))
    return cv2.Laplacian(grey_HW[first:last], cv2.CV_16S)[top - first : bottom - first]


def _saturation_sum(strip_HWC: np.ndarray) -> float:
    red, green, blue = cv2.split(strip_HWC)
    highest = np.maximum(np.maximum(red, green), blue)
    spread = highest - np.minimum(np.minimum(red, green), blue)
    return float(cv2.sumElems(cv2.divide(spread, np.maximum(highest, 1), dtype=cv2.CV_32F))[0])


def _grey_measures(counts_256: np.ndarray) -> dict[str, object]:
    """What the histogram of grey tells. Percentiles lie between neighbours in proportion, as numpy's do."""
    n_pixels = int(counts_256.sum())
    total = int(counts_256 @ np.arange(256))
    squares = int(counts_256 @ np.arange(256) ** 2)
    up_to = counts_256.cumsum()
    low_p5, high_p5, low_p99, high_p99 = np.searchsorted(up_to, _ranks(n_pixels), side="right").tolist()
    shares = counts_256[counts_256 > 0] / n_pixels
    return {
        "brightness": round(total / n_pixels / 255, 6),
        "contrast": round(math.sqrt(_variance(total, squares, n_pixels)) / 255, 6),
        "brightness_p5": round(_between(low_p5, high_p5, (n_pixels - 1) * 5) / 255, 6),
        "brightness_p99": round(_between(low_p99, high_p99, (n_pixels - 1) * 99) / 255, 6),
        "entropy": round(max(0.0, -float(shares @ np.log2(shares))), 6),
    }


def _ranks(n_pixels: int) -> list[int]:
    """The pixels, counted from the darkest, that the 5th and the 99th percentile lie between."""
    ranks = [(n_pixels - 1) * percent // 100 for percent in (5, 5, 99, 99)]
    return [ranks[0], min(ranks[1] + 1, n_pixels - 1), ranks[2], min(ranks[3] + 1, n_pixels - 1)]


def _between(low: int, high: int, hundredths: int) -> float:
    return low + (high - low) * (hundredths % 100) / 100


def _variance(total: int, squares: int, n: int) -> float:
    return (n * squares - total * total) / (n * n)
