"""Facts: one row per image *measured*. An image that can't be decoded has its error as the only fact."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from tasks.core.files import read_table
from tasks.core.images import open_upright
from tasks.core.runtime import is_quiet

COLUMNS = [
    "image_id", "width_px", "height_px", "mode", "format", "n_frames", "exif_orientation",
    "brightness", "contrast", "sharpness", "pixel_hash", "perceptual_hash", "error",
]  # fmt: skip
NUMBERS = ["width_px", "height_px", "n_frames", "exif_orientation", "brightness", "contrast", "sharpness"]
EXIF_ORIENTATION = 0x0112


def measure_image(path: Path) -> dict[str, object]:
    """Facts of one file; whatever goes wrong while decoding becomes the text in `error`."""
    try:
        with Image.open(path) as image:
            stored = {
                "width_px": image.width,
                "height_px": image.height,
                "mode": image.mode,
                "format": (image.format or "").lower(),
                # a second frame of an MPO file is the camera's own preview or depth, not another picture
                "n_frames": 1 if image.format == "MPO" else getattr(image, "n_frames", 1),
                "exif_orientation": image.getexif().get(EXIF_ORIENTATION, 1),
            }
        return {**stored, **measure_pixels(np.asarray(open_upright(path))), "error": ""}
    except Exception as error:  # decoders raise anything (OSError, SyntaxError, DecompressionBombError…)
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}".replace(str(path), path.name)}


def measure_pixels(pixels_HWC: np.ndarray) -> dict[str, object]:
    """brightness and contrast: mean and standard deviation of grey, 0..1; sharpness: variance of the Laplacian of grey."""
    grey = cv2.cvtColor(pixels_HWC, cv2.COLOR_RGB2GRAY)
    shape = np.array(pixels_HWC.shape, dtype="<i8").tobytes()
    return {
        "brightness": round(float(grey.mean()) / 255, 6),
        "contrast": round(float(grey.std()) / 255, 6),
        "sharpness": round(float(cv2.Laplacian(grey, cv2.CV_64F).var()), 3),
        "pixel_hash": hashlib.sha256(shape + pixels_HWC.tobytes()).hexdigest()[:16],
        "perceptual_hash": difference_hash(grey),
    }


def difference_hash(grey_HW: np.ndarray) -> str:
    """64 bits, as hex: is each cell of an 8x9 thumbnail brighter than its left neighbour (dHash)."""
    small = cv2.resize(grey_HW, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes().hex()


def measure_images(root: Path, image_ids: list[str], paths: list[str]) -> pd.DataFrame:
    """One row per image, in the order given; decoding runs in threads (the decoders release Python's lock)."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = list(
            tqdm(
                pool.map(measure_image, (root / path for path in paths)),
                total=len(paths), desc="measure_images", unit="image", disable=is_quiet(),
            )
        )  # fmt: skip
    return pd.DataFrame([{"image_id": i, **row} for i, row in zip(image_ids, rows, strict=True)], columns=COLUMNS)


def read_facts(path: Path) -> pd.DataFrame:
    """Numbers as numbers; NaN where an image could not be measured."""
    table = read_table(path, made_by="measure_images")
    return table.assign(**{name: pd.to_numeric(table[name]) for name in NUMBERS})
