"""Decoded images: upright RGB pixels of one file, and a set of files that decodes each one once.

Axes: H height, W width, C colour channels.
"""

from collections import OrderedDict
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from tasks.core.headers import DECODED, REFUSED_MODES, upright
from tasks.core.store import open_store

MADE = "\0made/"  # no image under a root can have such a path
CACHE_BYTES = 2**30  # decoded pixels kept in memory; beyond it the oldest are decoded again


def open_upright(source: Path | BinaryIO) -> Image.Image:
    """RGB image, turned as its EXIF says, transparency laid over white. ValueError where pixels would be misread."""
    with Image.open(source, formats=DECODED) as image:
        if image.mode in REFUSED_MODES:
            raise ValueError(f"pixel mode {image.mode} has more than 8 bits a channel; convert it to 8 bits")
        found = upright(image)
        found.load()  # of an image that needed no change: the file is closed when we leave
        return found


def read_square(
    source: Path | BinaryIO, side_px: int, interpolation: str = "bilinear", crop_share: float = 1.0
) -> np.ndarray:
    """(side, side, 3) uint8: the centre square, `crop_share` of the short side wide, scaled with antialiasing."""
    image = open_upright(source)
    if image.size != (side_px, side_px) or crop_share < 1:
        method = Image.Resampling[interpolation.upper()]
        image = ImageOps.fit(image, (side_px, side_px), method, bleed=(1 - crop_share) / 2)
    return np.asarray(image)


class ImageFiles:
    """Images under one root (a folder, an archive or a pack), by relative path; each is decoded once while the cache has room.

    A path that begins with MADE names an image that a stage made: it is looked for under `made_root`.
    """

    def __init__(
        self,
        root: Path,
        side_px: int,
        interpolation: str = "bilinear",
        crop_share: float = 1.0,
        made_root: Path | None = None,
    ) -> None:
        self.root = root
        self.made_root = made_root
        self.side_px = side_px
        self.interpolation = interpolation
        self.crop_share = crop_share
        self._store = open_store(root)
        self._made = open_store(made_root) if made_root is not None else self._store
        self._cache: OrderedDict[str, np.ndarray] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()  # several threads may decode

    def __getitem__(self, path: str) -> np.ndarray:
        cached = self._cache.get(path)
        if cached is not None:
            return cached
        try:
            store, name = (self._made, path.removeprefix(MADE)) if path.startswith(MADE) else (self._store, path)
            pixels = read_square(BytesIO(store.read(name)), self.side_px, self.interpolation, self.crop_share)
        except Exception as error:  # it could be read when it was measured
            if path.startswith(MADE):
                raise ValueError(
                    f"{self.made_root}/{path.removeprefix(MADE)} changed or vanished ({type(error).__name__}); run the stage "
                    "that made it again"
                ) from None
            raise ValueError(
                f"{self.root / path} changed or vanished since build_manifest ({type(error).__name__}); restore it, or run "
                "the pipeline again to take it out"
            ) from None
        with self._lock:
            if path not in self._cache:
                self._cache[path] = pixels
                self._bytes += pixels.nbytes
            while self._bytes > CACHE_BYTES:
                self._bytes -= self._cache.popitem(last=False)[1].nbytes
        return pixels
