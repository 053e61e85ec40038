"""One pass of images through a backbone, row by row to disk; rows that an earlier run computed are taken from its cache.

On a CPU the last bits of a row depend on the shape of its batch, not on the other images in it or on its place among them. So
every batch has the same size, the last one filled up, and a row is the same whichever images come with it: cached and computed
rows can be mixed. That is measured for each network before anything is cached; where it does not hold, nothing is.

Axes: N images, D features.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from tasks.core.batches import ImageList, View
from tasks.core.features import CHUNK_ROWS, PLAIN, RowFile
from tasks.core.features_cache import FeaturesCache, row_id
from tasks.core.runtime import is_quiet

NO_MEMORY = ("out of memory", "can't allocate memory", "bad_alloc", "alloc_failed")
OpenCache = Callable[[int], FeaturesCache]  # of a batch size


@dataclass(frozen=True)
class Sight:
    """Row r is image number `position[r]` of `images`, plain (view 0) or as `show` gives it in epoch view[r] - 1."""

    images: ImageList
    content_ids: tuple[str, ...]
    position: np.ndarray
    view: np.ndarray
    show: View | None = None
    show_key: str = ""  # changes with everything that decides what `show` gives

    def __len__(self) -> int:
        return len(self.position)

    def row_ids(self, rows: np.ndarray) -> list[bytes]:
        return [self._row_id(self.position[row], self.view[row]) for row in rows]

    def _row_id(self, place: int, view: int) -> bytes:
        if view == PLAIN:
            return row_id(self.content_ids[place])
        return row_id(self.content_ids[place], self.images.image_ids[place], view, self.show_key)

    def batch(self, rows: np.ndarray, one_at_a_time: threading.Lock) -> Tensor:
        """(N, 3, H, W) of these rows. A view keeps a state of its own between its lines, so only one thread makes views."""
        parts = []
        for view, group in groupby(rows, key=lambda row: int(self.view[row])):
            places = [int(self.position[row]) for row in group]
            if view == PLAIN:
                parts.append(self.images.batch(places))
            else:
                with one_at_a_time:
                    parts.append(self.images.batch(places, self.show, view - 1))
        return torch.cat(parts).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Pass:
    """How a pass went: rows computed and known, the batch size it ended with, and why nothing was kept ("" = it was)."""

    n_computed: int
    n_known: int
    batch_size: int
    problem: str = ""


def n_workers() -> int:
    """Threads that decode: ACCLIMATE_WORKERS, or one less than there are cores. Their number changes no result."""
    text = os.environ.get("ACCLIMATE_WORKERS", str(max((os.cpu_count() or 1) - 1, 1)))
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"the environment variable ACCLIMATE_WORKERS is {text!r}; set it to a whole number from 1 on")
    return int(text)


def extract(
    backbone: nn.Module, sight: Sight, out: RowFile, *, open_cache: OpenCache, batch_size: int, name: str
) -> Pass:
    """Puts every row of the sight. Where memory runs out all is done again with half the batch: one size for all rows."""
    backbone.eval().to(memory_format=torch.channels_last)
    while True:
        try:
            with open_cache(batch_size) as cache:
                return _pass(backbone, sight, out, cache, batch_size=batch_size, name=name)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            problem = " ".join(str(error).split())[:200]
        if batch_size == 1:
            raise ValueError(
                f"{name}: memory runs out for a single image ({problem}); take a smaller zoo.image_px, a smaller candidate or "
                "a larger machine"
            )
        batch_size //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error).lower() for words in NO_MEMORY)


def _pass(backbone: nn.Module, sight: Sight, out: RowFile, cache: FeaturesCache, *, batch_size: int, name: str) -> Pass:
    missing = _take_known(sight, out, cache)
    n_known = len(sight) - len(missing)
    device = next(backbone.parameters()).device
    is_tried = bool(n_known)  # rows are known of networks that passed
    with tqdm(total=len(missing), desc=name, unit="row", disable=is_quiet()) as bar, torch.inference_mode():
        for rows, x_NCHW in _decoded(sight, missing, batch_size):
            filled = _filled(x_NCHW, batch_size).to(device)
            features = backbone(filled)
            if not is_tried and not cache.problem and not is_independent(backbone, filled, features):
                cache.problem = "this network gives an image other last bits beside other images"
            is_tried = True
            x_ND = features[: len(rows)].float().cpu().numpy()
            stored = _as_stored(x_ND, out.dtype, name)
            out.put(rows, stored)
            cache.put(sight.row_ids(rows), stored)
            bar.update(len(rows))
    return Pass(len(missing), n_known, batch_size, cache.problem)


def _take_known(sight: Sight, out: RowFile, cache: FeaturesCache) -> np.ndarray:
    """The rows that are still to be computed, after the known ones were put."""
    missing = []
    for start in range(0, len(sight), CHUNK_ROWS):
        rows = np.arange(start, min(start + CHUNK_ROWS, len(sight)))
        is_known, x_ND = cache.get(sight.row_ids(rows))
        out.put(rows[is_known], x_ND)
        missing.append(rows[~is_known])
    return np.concatenate(missing) if missing else np.zeros(0, int)


def _as_stored(x_ND: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    """The same in the type they are stored in. ValueError where they are no numbers, or too large for it."""
    with np.errstate(over="ignore"):
        stored = x_ND.astype(dtype)
    if not np.isfinite(x_ND).all():
        raise ValueError(f"candidate {name} gives features that are no finite numbers; take it out of zoo.candidates")
    if not np.isfinite(stored).all():
        raise ValueError(
            f"candidate {name} gives features up to {np.abs(x_ND).max():g}, {dtype} ends at {np.finfo(dtype).max:g}; set "
            "extract_features.dtype to float32"
        )
    return stored


def _filled(x_NCHW: Tensor, batch_size: int) -> Tensor:
    """With its last image repeated until there are batch_size."""
    lacking = batch_size - len(x_NCHW)
    if not lacking:
        return x_NCHW
    filled = torch.cat([x_NCHW, x_NCHW[-1:].expand(lacking, -1, -1, -1)])
    return filled.contiguous(memory_format=torch.channels_last)


def is_independent(backbone: nn.Module, x_NCHW: Tensor, features_ND: Tensor) -> bool:
    """True where an image's features have the same bits at another place of the batch and beside other images."""
    other = x_NCHW.flip(0).contiguous(memory_format=torch.channels_last)
    other[::2] = 0
    with torch.inference_mode():
        return torch.equal(features_ND.flip(0)[1::2], backbone(other)[1::2])


def _decoded(sight: Sight, rows: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Batches in order, each decoded by one of the threads, as many ahead as there are threads."""
    one_at_a_time = threading.Lock()
    chunks = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    waiting: deque[tuple[np.ndarray, Future[Tensor]]] = deque()
    with ThreadPoolExecutor(n_workers()) as pool:
        try:
            for chunk in chunks:
                waiting.append((chunk, pool.submit(sight.batch, chunk, one_at_a_time)))
                if len(waiting) > n_workers():
                    first, batch = waiting.popleft()
                    yield first, batch.result()
            while waiting:
                first, batch = waiting.popleft()
                yield first, batch.result()
        finally:
            pool.shutdown(cancel_futures=True)


def sight_of(plain: Sight, shown: np.ndarray, n_views: int) -> Sight:
    """The plain images, then all images at the places `shown` in view 1, then in view 2, …"""
    views = np.repeat(np.arange(1, n_views + 1), len(shown))
    return replace(
        plain,
        position=np.concatenate([plain.position, np.tile(shown, n_views)]).astype(int),
        view=np.concatenate([plain.view, views]).astype(int),
    )
