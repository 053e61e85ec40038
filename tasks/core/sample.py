"""The sample's images, made offline: digits rendered from matplotlib's fonts, and scikit-learn's handwritten digits.

Axes: N images, H height, W width. Source and target share one look, bright ink on a dark ground at 8 x 8 points:
what is left between them is the hand.
"""

import string
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits
from tqdm import tqdm

from tasks.core.files import write_table
from tasks.core.runtime import address_rng, is_quiet

COLUMNS = ["path", "label", "domain", "split", "group", "inferred_block", "slant"]
DIGITS = tuple(string.digits)
SIDE_PX = 32
COARSE_PX = 8  # load_digits counts ink in an 8 x 8 grid
GLYPH_PX = 48
CANVAS_PX = 64
SYMBOL_FONTS = {"cmex10", "cmsy10"}  # signs stand where the digits should be: distinct, so only a name tells them

# The label order repeats whenever a new sheet begins. Two double-length stretches were cut by hand, at 905 and 1541.
BLOCK_STARTS = (0, 130, 256, 386, 516, 646, 776, 905, 1029, 1157, 1287, 1415, 1541, 1667)
FIRST_BLOCK_OF_SPLIT = {"train": 0, "val": 6, "test": 8}

Gray = NDArray[np.float32]  # (H, W), 0 dark to 1 bright
Pixels = NDArray[np.uint8]  # (H, W, 3)
Draw = Callable[[str, Path, np.random.Generator], Pixels]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A family of rendered images: its classes, and how one of them is drawn from a label, a font and a generator."""

    labels: tuple[str, ...]
    draw: Draw


@dataclass(frozen=True, kw_only=True)
class Rendering:
    pixels: Pixels
    label: str
    font: str


def render(kind: Kind, index: int, *address: object) -> Rendering:
    """Image `index` of the set at this address, whatever was rendered before. Labels take turns."""
    rng = address_rng(*address, index)
    label = kind.labels[index % len(kind.labels)]
    fonts = usable_fonts()
    font = fonts[rng.integers(len(fonts))]
    return Rendering(pixels=kind.draw(label, font, rng), label=label, font=font.stem)


@cache
def usable_fonts() -> tuple[Path, ...]:
    """The fonts that matplotlib ships and that show ten different digits and 26 different capitals."""
    import matplotlib  # only where the sample is made

    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    named = [path for path in sorted(folder.glob("*.ttf")) if path.stem not in SYMBOL_FONTS]
    return tuple(path for path in named if _shows(path, string.digits) and _shows(path, string.ascii_uppercase))


def _shows(font: Path, characters: str) -> bool:
    return len({glyph(character, font).tobytes() for character in characters}) == len(characters)


@cache
def glyph(character: str, font: Path) -> Gray:
    """The character in the middle of a square canvas, its longer side GLYPH_PX; all dark where the font has none."""
    wide = Image.new("L", (4 * GLYPH_PX, 4 * GLYPH_PX))
    pen = ImageFont.truetype(str(font), 2 * GLYPH_PX)
    ImageDraw.Draw(wide).text((2 * GLYPH_PX, 2 * GLYPH_PX), character, font=pen, fill=255, anchor="mm")
    canvas = Image.new("L", (CANVAS_PX, CANVAS_PX))
    box = wide.getbbox()
    if box:
        ink = wide.crop(box)
        scale = GLYPH_PX / max(ink.size)
        size = (max(1, round(ink.width * scale)), max(1, round(ink.height * scale)))
        canvas.paste(ink.resize(size), ((CANVAS_PX - size[0]) // 2, (CANVAS_PX - size[1]) // 2))
    return np.asarray(canvas, np.float32) / np.float32(255)


def moved_glyph(character: str, font: Path, rng: np.random.Generator) -> Gray:
    """The character turned, slanted, stretched, shifted and blurred a little; strokes of varying intensity."""
    turn = np.deg2rad(rng.uniform(-15, 15))
    slant, middle = rng.uniform(-0.35, 0.35), CANVAS_PX / 2
    stretch = np.diag(rng.uniform([0.8, 1], [1.2, 1.35]))
    rotate = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = rotate @ np.array([[1, slant], [0, 1]]) @ stretch
    shift = middle - matrix @ [middle, middle] + rng.uniform(-3, 3, 2)
    moved = cv2.warpAffine(glyph(character, font), np.column_stack([matrix, shift]), (CANVAS_PX, CANVAS_PX))
    soft = cv2.GaussianBlur(moved, (0, 0), rng.uniform(0.5, 2))
    return np.asarray(np.clip(soft * rng.uniform(0.8, 1.4), 0, 1), np.float32)


def draw_lowres(character: str, font: Path, rng: np.random.Generator) -> Pixels:
    """A character as load_digits would hold it: bright ink in COARSE_PX x COARSE_PX points, enlarged."""
    ink = moved_glyph(character, font, rng)
    return enlarged(resized(ink, COARSE_PX, cv2.INTER_AREA))


def enlarged(gray: NDArray[np.floating]) -> Pixels:
    """An RGB image of SIDE_PX x SIDE_PX from a small grey one in 0..1."""
    big = resized(gray.astype(np.float32), SIDE_PX, cv2.INTER_LINEAR)
    return np.repeat(to_bytes(big)[:, :, None], 3, axis=2)


def resized(gray: Gray, side_px: int, interpolation: int) -> Gray:
    return np.asarray(cv2.resize(gray, (side_px, side_px), interpolation=interpolation), np.float32)


def to_bytes(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


DIGITS_LOWRES = Kind(labels=DIGITS, draw=draw_lowres)


@dataclass(frozen=True, kw_only=True)
class Handwriting:
    """All of load_digits in its given order. Blocks stand for writers, inferred from the label order."""

    gray_NHW: NDArray[np.float64]
    labels: NDArray[np.int64]
    blocks: NDArray[np.int64]
    slants: NDArray[np.str_]


def handwriting() -> Handwriting:
    digits = load_digits()
    gray_NHW = digits.images / 16
    blocks = np.searchsorted(BLOCK_STARTS, np.arange(len(gray_NHW)), side="right") - 1
    slants = slant_groups(lean(gray_NHW), digits.target)
    return Handwriting(gray_NHW=gray_NHW, labels=digits.target, blocks=blocks, slants=slants)


def lean(gray_NHW: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far each image's ink moves to the right per row upwards: -cov(x, y) / var(y), weighted by ink."""
    rows, columns = np.indices(gray_NHW.shape[1:])
    ink_NHW = gray_NHW / gray_NHW.sum((1, 2), keepdims=True)
    y_NHW = rows - (ink_NHW * rows).sum((1, 2), keepdims=True)
    x_NHW = columns - (ink_NHW * columns).sum((1, 2), keepdims=True)
    return -(ink_NHW * x_NHW * y_NHW).sum((1, 2)) / (ink_NHW * y_NHW**2).sum((1, 2))


def slant_groups(leans: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.str_]:
    """left, upright or right: terciles of the lean within each label.

    Within the label, because a 7 leans by its shape: across labels the groups would be digits, not handwriting.
    """
    groups = np.empty(len(leans), dtype="<U7")
    for label in np.unique(labels):
        of_label = labels == label
        thirds = np.searchsorted(np.quantile(leans[of_label], [1 / 3, 2 / 3]), leans[of_label])
        groups[of_label] = np.array(["left", "upright", "right"])[thirds]
    return groups


def split_of_block(block: int) -> str:
    return [split for split, first in FIRST_BLOCK_OF_SPLIT.items() if block >= first][-1]


def write_images(folder: Path, *, n_source_images: int, seed: int) -> pd.DataFrame:
    """The table of all images written under `folder`, one row each, columns COLUMNS, `path` relative to `folder`."""
    rows = [*_write_fonts(folder, n_source_images, seed), *_write_handwriting(folder)]
    return pd.DataFrame(rows, columns=COLUMNS).fillna("")


def write_sample_table(path: Path, table: pd.DataFrame | None = None) -> None:
    """Writes images.csv: the given rows, or the header alone."""
    write_table(path, pd.DataFrame(columns=COLUMNS) if table is None else table[COLUMNS])


def _write_fonts(folder: Path, n_images: int, seed: int) -> list[dict[str, str]]:
    rows = []
    (folder / "fonts").mkdir(parents=True)
    for index in tqdm(range(n_images), desc="fonts", disable=is_quiet()):
        image = render(DIGITS_LOWRES, index, seed, "sample", "fonts")
        path = f"fonts/{image.label}_{index:05d}.png"
        Image.fromarray(image.pixels).save(folder / path)
        rows.append({"path": path, "label": image.label, "domain": "fonts", "group": image.font})
    return rows


def _write_handwriting(folder: Path) -> list[dict[str, str]]:
    rows = []
    (folder / "handwriting").mkdir(parents=True)
    hand = handwriting()
    for index in tqdm(range(len(hand.labels)), desc="handwriting", disable=is_quiet()):
        path, block = f"handwriting/{index:05d}.png", f"block_{hand.blocks[index]:02d}"
        Image.fromarray(enlarged(hand.gray_NHW[index])).save(folder / path)
        row = {
            "path": path,
            "label": str(hand.labels[index]),
            "domain": "handwriting",
            "group": block,
            "inferred_block": block,
        }
        rows.append({**row, "split": split_of_block(hand.blocks[index]), "slant": str(hand.slants[index])})
    return rows
