"""Synthetic images: labelled source images moved towards the look of a target image, and the table that tells their origin.

Only source images of the split train are moved, only target images that may be learnt from lend their look, and no target
label is looked at. Each image is drawn by its address (seed, "synthesise", parent, number).

Axes: H height, W width, C colour channels.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from tqdm import tqdm

from tasks.core.features import capped
from tasks.core.files import read_table, text_sha256, write_table
from tasks.core.images import open_upright
from tasks.core.manifest import ID_LENGTH, content_id_of, part
from tasks.core.runtime import address_rng, is_quiet
from tasks.core.store import Store

MADE_BY = "synthesise_images"
TABLE = "images.csv"
ORIGIN = "synthetic"
COLUMNS = ["image_id", "content_id", "path", "label", "origin", "parent_id", "target_id", "method", "mix"]
MIN_STD = 1.0  # of 0..255: what varies less is rounding, and would be stretched into noise
SAMPLING = Image.Resampling.BILINEAR
YCBCR_OF_RGB = np.array(  # ITU-R BT.601, without offsets
    [
        [0.299, 0.587, 0.114],
        [-0.299 / 1.772, -0.587 / 1.772, 0.886 / 1.772],
        [0.701 / 1.402, -0.587 / 1.402, -0.114 / 1.402],
    ]
)

Move = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


@dataclass(frozen=True)
class Recipe:
    """How synthetic images are made: n_per_image of each parent, n_max in all (None = no limit)."""

    method: str  # statistics | fourier
    n_per_image: int
    n_max: int | None
    strength: float  # 0..1, the most that is mixed in
    fourier_share: float  # 0..0.5 of the short side: frequencies below it are low
    short_side_px: int  # larger parents are made smaller first
    seed: int

    @property
    def move(self) -> Move:
        fourier = partial(with_amplitude, share=self.fourier_share)
        moves: dict[str, Move] = {"statistics": with_statistics, "fourier": fourier}
        return moves[self.method]


def with_statistics(image_HWC: np.ndarray, target_HWC: np.ndarray, mix: float) -> np.ndarray:
    """(H, W, C) float64, not clipped: at mix 1 each channel of YCbCr has the target's mean and standard deviation.

    Reinhard et al. 2001, "Color transfer between images", who take lαβ; YCbCr also parts light from colour and is linear, so
    mixes of it are mixes of pixels. A channel that varies less than MIN_STD is moved, but not stretched to the target's.
    """
    own, its = image_HWC @ YCBCR_OF_RGB.T, target_HWC @ YCBCR_OF_RGB.T
    scale_C = its.std((0, 1)) / np.maximum(own.std((0, 1)), MIN_STD)
    moved = (own - own.mean((0, 1))) * scale_C + its.mean((0, 1))
    return np.asarray(image_HWC + mix * (moved @ np.linalg.inv(YCBCR_OF_RGB).T - image_HWC))


def with_amplitude(image_HWC: np.ndarray, target_HWC: np.ndarray, mix: float, share: float) -> np.ndarray:
    """(H, W, C) float64, not clipped: phases as they are, low-frequency amplitudes (1 - mix) own + mix target's; same shape.

    Yang & Soatto 2020, "FDA: Fourier domain adaptation", whose β is `share`: low are frequencies below β min(H, W) cycles on
    both axes. They swap (mix 1); a drawn mix is from Xu et al. 2021, "A Fourier-based framework for domain generalization".
    At share 0 not even the mean is low.
    """
    height, width = image_HWC.shape[:2]
    own, its = (np.fft.rfft2(pixels, axes=(0, 1)) for pixels in (image_HWC, target_HWC))
    cycles_H, cycles_W = np.abs(np.fft.fftfreq(height, 1 / height)), np.fft.rfftfreq(width, 1 / width)
    is_low_HW = np.maximum(cycles_H[:, None], cycles_W[None]) < share * min(height, width)
    amplitude = np.abs(own) + mix * is_low_HW[:, :, None] * (np.abs(its) - np.abs(own))
    return np.fft.irfft2(amplitude * np.exp(1j * np.angle(own)), s=(height, width), axes=(0, 1))


def drawn(manifest: pd.DataFrame, recipe: Recipe) -> pd.DataFrame:
    """A row per image to be made: COLUMNS but content_id, and the paths of parent and target; the same for any row order.

    Beyond n_max, images are drawn by address and evenly over the labels. ValueError where there is nothing to draw from.
    """
    parents = _parents(manifest).sort_values("image_id", kind="stable")
    targets = part(manifest, "target", "train", "unlabelled").sort_values("image_id", kind="stable")
    if not recipe.n_per_image:
        return pd.DataFrame(columns=[*COLUMNS, "parent_path", "target_path"], dtype=str).drop(columns="content_id")
    _check_sources(manifest, parents, targets)
    rows = parents.loc[parents.index.repeat(recipe.n_per_image), ["image_id", "label", "path"]]
    rows = rows.rename(columns={"image_id": "parent_id", "path": "parent_path"}).reset_index(drop=True)
    number = rows.groupby("parent_id").cumcount()
    rows["image_id"] = [synthetic_id(*address) for address in zip(rows["parent_id"], number, strict=True)]
    rows = capped(rows.assign(number=number), recipe.n_max, recipe.seed)
    rngs = [
        address_rng(recipe.seed, "synthesise", *address)
        for address in zip(rows["parent_id"], rows["number"], strict=True)
    ]
    chosen = targets.iloc[[int(rng.integers(len(targets))) for rng in rngs]]
    return rows.drop(columns="number").assign(
        path=[f"images/{image_id}.png" for image_id in rows["image_id"]],
        origin=ORIGIN,
        target_id=chosen["image_id"].to_numpy(),
        target_path=chosen["path"].to_numpy(),
        method=recipe.method,
        mix=[float(rng.uniform(0, recipe.strength)) for rng in rngs],
    )


def synthetic_id(parent_id: str, number: int) -> str:
    """Begins with s, which is no digit of a real image's hash: the two can't be the same."""
    return f"s{text_sha256(f'{parent_id} {number}')[: ID_LENGTH - 1]}"


def write_synthetic(folder: Path, rows: pd.DataFrame, store: Store, recipe: Recipe) -> None:
    """images/<image_id>.png of every drawn row, and images.csv. ValueError names an image that can't be read any more."""

    def write(row: tuple[str, str, str, float]) -> str:
        path, parent_path, target_path, mix = row
        data = _png(_moved(store, parent_path, target_path, mix, recipe))
        (folder / path).write_bytes(data)
        return content_id_of(data)

    if len(rows):
        (folder / "images").mkdir()
    columns = [rows[name] for name in ("path", "parent_path", "target_path", "mix")]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            done = pool.map(write, zip(*columns, strict=True))
            ids = list(tqdm(done, total=len(rows), desc=MADE_BY, unit="image", disable=is_quiet()))
        finally:
            pool.shutdown(cancel_futures=True)
    write_table(folder / TABLE, rows.assign(content_id=ids)[COLUMNS])


def read_synthetic(path: Path) -> pd.DataFrame:
    """The table of synthetic images, `mix` as number; empty where none were made. ValueError lists what is wrong in it."""
    table = read_table(path, made_by=MADE_BY)
    absent = [name for name in COLUMNS if name not in table]
    if absent:
        raise ValueError(f"{path} has no column {', '.join(absent)}; run `dvc repro {MADE_BY}`")
    bad = {
        f"another origin than {ORIGIN!r}": table["origin"] != ORIGIN,
        "an image_id that stands there twice": table["image_id"].duplicated(),
        "an image_id of a real image": ~table["image_id"].str.startswith("s"),
        "no label": table["label"] == "",
    }
    problems = [f"{is_bad.sum()} rows with {what}" for what, is_bad in bad.items() if is_bad.any()]
    if problems:
        raise ValueError(f"{path} has {', '.join(problems)}; don't edit it, run `dvc repro {MADE_BY}`")
    return table.assign(mix=table["mix"].astype(float))


def manifest_rows(synthetic: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """Rows as the manifest's, of the synthetic images: the parents', with id, bytes, path and origin of their own.

    So they carry the parents' group and audit columns. ValueError where a parent is no training image, or its label changed.
    """
    parents = _parents(manifest).set_index("image_id", drop=False)
    label = synthetic["parent_id"].map(parents["label"])
    wrong = synthetic.loc[label != synthetic["label"], "parent_id"]
    if len(wrong):
        raise ValueError(
            f"{len(wrong)} synthetic images have a parent that is no source training image of their label, the first: "
            f"{wrong.iloc[0]}; run `dvc repro {MADE_BY}`"
        )
    rows = parents.loc[synthetic["parent_id"]].reset_index(drop=True)
    own = ["image_id", "content_id", "path", "origin"]
    return rows.assign(**{name: synthetic[name].to_numpy() for name in own})


def _parents(manifest: pd.DataFrame) -> pd.DataFrame:
    rows = part(manifest, "source", "train")
    return rows[rows["label"] != ""]


def _check_sources(manifest: pd.DataFrame, parents: pd.DataFrame, targets: pd.DataFrame) -> None:
    problems = []
    if ORIGIN in set(manifest["origin"]):
        problems.append(f"a domain is called {ORIGIN!r}, the word that marks synthetic images: call it otherwise")
    if not len(parents):
        problems.append("there is no labelled source training image to move")
    if not len(targets):
        problems.append("there is no target image to learn a look from: splits leave none as train or unlabelled")
    if problems:
        raise ValueError(f"{MADE_BY}: {'; '.join(problems)}; or set {MADE_BY}.n_per_image to 0")


def _moved(store: Store, parent_path: str, target_path: str, mix: float, recipe: Recipe) -> np.ndarray:
    """(H, W, 3) uint8 of the parent's aspect; the target is cut and scaled to the same size."""
    parent, target = _picture(store, parent_path), _picture(store, target_path)
    if min(parent.size) > recipe.short_side_px:
        parent = ImageOps.cover(parent, (recipe.short_side_px, recipe.short_side_px), SAMPLING)
    target = ImageOps.fit(target, parent.size, SAMPLING)
    moved = recipe.move(np.asarray(parent, float), np.asarray(target, float), mix)
    return np.clip(np.rint(moved), 0, 255).astype(np.uint8)


def _picture(store: Store, path: str) -> Image.Image:
    try:
        return open_upright(BytesIO(store.read(path)))
    except Exception as error:  # it could be read when it was measured
        raise ValueError(
            f"{path} changed or vanished since build_manifest ({type(error).__name__}); restore it, or run the pipeline again "
            "to take it out"
        ) from None


def _png(image_HWC: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(image_HWC).save(buffer, format="PNG")
    return buffer.getvalue()
