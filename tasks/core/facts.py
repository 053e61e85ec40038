"""Facts: one row per image *measured*. An image that can't be decoded has its error as the only fact.

Facts depend on the bytes of the file alone: they hold no path, and can be kept by content (tasks/core/facts_cache.py).
"""

import csv
import os
import re
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from threading import Event, Lock
from typing import Any

import cv2
import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from tasks.core.entries import Store
from tasks.core.facts_cache import Facts, FactsCache
from tasks.core.files import read_table, whole_file
from tasks.core.headers import DECODED, REFUSED_MODES, has_alpha, n_bits, n_frames, orientation, upright
from tasks.core.manifest import content_id_of
from tasks.core.measures import MEASURES, measure_pixels
from tasks.core.runtime import is_quiet
from tasks.core.workers import Workers

HEADER_FACTS = ["width_px", "height_px", "mode", "format", "n_bits", "has_alpha", "n_frames", "exif_orientation"]
COLUMNS = ["image_id", *HEADER_FACTS, *MEASURES, "pixel_hash", "perceptual_hash", "error"]
NUMBERS = ["width_px", "height_px", "n_bits", "n_frames", "exif_orientation", *MEASURES]
LARGE_PIXELS = 2**25  # beyond it images are decoded one at a time, whatever the number of threads
CHUNK_IMAGES = 32
MANY_IMAGES = 10_000  # fewer are measured before processes have started
BATCH_BYTES = 2**24  # of files, read before they are measured
MAX_ERROR_LETTERS = 200
DECODERS = r"PIL\."  # modules, as a regular expression
ALONE = Lock()
ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-fA-F]+>")
Measured = tuple[str, Facts]  # content_id and facts; content_id "" = not to be kept


def measure_image(data: bytes) -> Facts:
    """Facts of one file's bytes, None where not measured; whatever goes wrong while decoding becomes the text in `error`.

    Sizes are those in the file, before EXIF turning. More than 8 bits a channel: pixels are not measured, which is no error.
    """
    _ignore_decoders_warnings()
    try:
        return {**_nothing(""), **_facts_of(data)}
    except Exception as error:  # decoders raise anything (OSError, SyntaxError, struct.error…)
        return _nothing(_told(data, error))


def measure_images(store: Store, manifest: pd.DataFrame, cache: FactsCache) -> Iterator[list[Facts]]:
    """Rows of facts in the manifest's order, in chunks; only contents that the cache doesn't hold are read and decoded.

    Few chunks are under way at once, so memory stays flat.
    """
    cv2.setNumThreads(1)  # the images are measured side by side already
    n_cores = os.cpu_count() or 1
    under_way: deque[Future[list[Measured]]] = deque()
    bar = tqdm(total=len(manifest), desc="measure_images", unit="image", disable=is_quiet())
    threads = ThreadPoolExecutor(n_cores + 1)  # one reads while the others measure
    with Workers(measure_image, n_cores if len(manifest) >= MANY_IMAGES else 0) as workers, bar:
        stop = Event()
        try:
            for start in range(0, len(manifest), CHUNK_IMAGES):
                rows = manifest.iloc[start : start + CHUNK_IMAGES].to_dict("records")
                known = cache.get([row["content_id"] for row in rows])
                under_way.append(threads.submit(_measure_rows, store, rows, known, workers, stop))
                if len(under_way) > 2 * n_cores:
                    yield _finished(under_way.popleft().result(), cache, bar)
            while under_way:
                yield _finished(under_way.popleft().result(), cache, bar)
        finally:
            stop.set()  # an interruption does not wait for what is under way
            threads.shutdown(cancel_futures=True)


def write_facts(path: Path, chunks: Iterable[list[Facts]]) -> None:
    """Writes chunk by chunk, so that memory stays flat."""
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for chunk in chunks:
            writer.writerows(chunk)


def read_facts(path: Path) -> pd.DataFrame:
    """Numbers as numbers, has_alpha as True or False; NaN where an image could not be measured."""
    table = read_table(path, made_by="measure_images")
    if absent := [name for name in COLUMNS if name not in table]:
        raise ValueError(
            f"{path} has no column {', '.join(absent)}: it was made by another version; run `dvc repro measure_images`"
        )
    numbers = {name: pd.to_numeric(table[name]) for name in NUMBERS}
    return table.assign(**numbers, has_alpha=table["has_alpha"].astype(object).map({"True": True, "False": False}))


def _measure_rows(
    store: Store, rows: list[dict[Any, Any]], known: dict[str, Facts], workers: Workers[Facts], stop: Event
) -> list[Measured]:
    done: dict[int, Measured] = {}
    read: dict[int, bytes] = {}
    for number, row in enumerate(rows):
        if stop.is_set():
            return []
        found = _known_or_read(store, row, known)
        if isinstance(found, bytes):
            read[number] = found
        else:
            done[number] = "", found
        if read and (number == len(rows) - 1 or sum(map(len, read.values())) > BATCH_BYTES):
            done |= _measured(rows, read, workers)
            read = {}
    return [(keep, {"image_id": rows[number]["image_id"], **facts}) for number, (keep, facts) in sorted(done.items())]


def _known_or_read(store: Store, row: dict[Any, Any], known: dict[str, Facts]) -> Facts | bytes:
    """The facts where they need no decoding, else the file's bytes."""
    content_id, path = row["content_id"], row["path"]
    if row["problem"]:
        return _nothing("")
    if content_id in known and store.has(path):
        return known[content_id]
    try:
        data = store.read(path)
    except FileNotFoundError:
        return _nothing("the file is missing")
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else "") or str(error)
        return _nothing(f"the file could not be read: {_one_line(reason)}")
    if content_id and content_id_of(data) != content_id:
        return _nothing("the file changed while it was read by the pipeline; run again")
    return data


def _measured(rows: list[dict[Any, Any]], read: dict[int, bytes], workers: Workers[Facts]) -> dict[int, Measured]:
    try:
        facts = workers.results(list(read.values()))
    except ChildProcessError as error:
        paths = [rows[number]["path"] for number in read]
        raise ValueError(
            f"{error} on images from {paths[0]} to {paths[-1]}, most likely because memory ran out; free some and run again: "
            "what is measured already is kept"
        ) from None
    lasting = [not str(found["error"]).startswith("MemoryError") for found in facts]  # another run may have more
    return {
        number: (rows[number]["content_id"] if keep else "", found)
        for number, found, keep in zip(read, facts, lasting, strict=True)
    }


def _finished(measured: list[Measured], cache: FactsCache, bar: tqdm) -> list[Facts]:
    """The rows, after their facts were kept."""
    cache.put({key: {k: v for k, v in row.items() if k != "image_id"} for key, row in measured if key})
    bar.update(len(measured))
    return [row for _, row in measured]


def _facts_of(data: bytes) -> Facts:
    with Image.open(BytesIO(data), formats=DECODED) as image:
        facts: Facts = {"width_px": image.width, "height_px": image.height, "mode": image.mode}
        facts |= {"format": (image.format or "").lower(), "n_bits": n_bits(image)}
        is_refused = image.mode in REFUSED_MODES
        with ALONE if image.width * image.height > LARGE_PIXELS else nullcontext():
            if not is_refused:
                image.load()  # what a PNG says behind its pixels belongs to its facts as well
            facts |= {"has_alpha": has_alpha(image), "exif_orientation": orientation(image)}
            if not is_refused:
                facts |= measure_pixels(np.asarray(upright(image)))
        return {**facts, "n_frames": n_frames(image, data)}


def _told(data: bytes, error: Exception) -> str:
    """One line without any path or address, the same on every run."""
    if not data:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or no decoder for this format; convert it to PNG or JPEG"
    if isinstance(error, Image.DecompressionBombError):
        return (
            "not decoded: its header claims more than 178 million pixels, which is a trap or too large to train on; "
            "make it smaller"
        )
    return f"{type(error).__name__}: {_one_line(str(error))}".removesuffix(": ")


def _one_line(text: str) -> str:
    shown = "".join(letter if letter.isprintable() else " " for letter in ADDRESS.sub("the file", text))
    return " ".join(shown.split())[:MAX_ERROR_LETTERS]


def _nothing(error: str) -> Facts:
    return dict.fromkeys(COLUMNS[1:]) | {"error": error}


def _ignore_decoders_warnings() -> None:
    """Pillow warns of large or slightly odd files; warnings.catch_warnings would not be safe in threads."""
    if not any(getattr(entry[3], "pattern", "") == DECODERS for entry in warnings.filters):
        warnings.filterwarnings("ignore", module=DECODERS)
