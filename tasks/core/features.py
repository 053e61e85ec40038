"""Features: per candidate one row per (image, view), kept on disk so that nothing passes the backbone twice.

A folder holds x.npy (N, D), index.csv (image_id and view of each row) and, where the candidate has a head of its own,
theta.npy (T, Z) with theta_index.csv. Arrays are written row by row and read through a memory map: neither needs room for all.

Axes: N rows, D features, T labelled target images, Z classes of the pretraining.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.core.files import read_table, require_file, write_table
from tasks.core.runtime import address_seed

PLAIN = 0  # view 0 is the image itself; view v shows it as augmented in epoch v - 1
MADE_BY = "extract_features"
CHUNK_ROWS = 1024


@dataclass(frozen=True)
class Features:
    """image_id (N,) str, view (N,) int, x (N, D) float; theta (T, Z) of the images theta_id (T,), None without a head."""

    image_id: np.ndarray
    view: np.ndarray
    x_ND: np.ndarray
    theta_id: np.ndarray | None = None
    theta_TZ: np.ndarray | None = None

    def plain_rows(self, image_ids: list[str]) -> np.ndarray:
        """(len(image_ids), D) float32: each image's plain view, joined by id. ValueError names images that are absent."""
        return np.asarray(self.x_ND[_places(self._plain_row_of, image_ids, "features")], np.float32)

    def among(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Those rows of a manifest whose image has features: extraction may be capped."""
        return rows[rows["image_id"].isin(self._plain_row_of.index)].reset_index(drop=True)

    def rows_of(self, image_ids: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """x, as float32, of all views of these images, and for each row the position of its image in `image_ids`."""
        position = pd.Series(range(len(image_ids)), index=image_ids)
        wanted = np.flatnonzero(np.isin(self.image_id, image_ids))
        return np.asarray(self.x_ND[wanted], np.float32), position.loc[self.image_id[wanted]].to_numpy()

    def theta_rows(self, image_ids: list[str]) -> np.ndarray | None:
        """(len(image_ids), Z) float32: what the source head makes of each; None where the candidate has no such head."""
        if self.theta_TZ is None:
            return None
        return np.asarray(self.theta_TZ[_places(self._theta_row_of, image_ids, "source probabilities")], np.float32)

    @cached_property
    def _plain_row_of(self) -> pd.Series:
        plain = self.view == PLAIN
        return pd.Series(np.flatnonzero(plain), index=self.image_id[plain])

    @cached_property
    def _theta_row_of(self) -> pd.Series:
        ids = np.array([], str) if self.theta_id is None else self.theta_id
        return pd.Series(np.arange(len(ids)), index=ids)


def _places(row_of: pd.Series, image_ids: list[str], what: str) -> np.ndarray:
    places = row_of.index.get_indexer(pd.Index(image_ids, dtype=object))
    if (places < 0).any():
        first = image_ids[int(np.argmax(places < 0))]
        raise ValueError(f"{(places < 0).sum()} images have no {what}, the first: {first}; run `dvc repro {MADE_BY}`")
    return row_of.to_numpy()[places]


def capped(rows: pd.DataFrame, n_images: int | None, seed: int) -> pd.DataFrame:
    """At most n rows, drawn by address and evenly over the labels (rows without label count as one label)."""
    if n_images is None or len(rows) <= n_images:
        return rows
    order = pd.Series([address_seed(seed, "features", i) for i in rows["image_id"]], index=rows.index)
    turn = order.groupby(rows["label"]).rank(method="first")
    first = pd.DataFrame({"turn": turn, "order": order}).sort_values(["turn", "order"]).index[:n_images]
    return rows.loc[sorted(first)]


class RowFile:
    """An .npy file of known shape whose rows are put in any order, each as often as one likes."""

    def __init__(self, path: Path, n_rows: int, n_columns: int, dtype: str) -> None:
        self.dtype = np.dtype(dtype)
        self._row_bytes = n_columns * self.dtype.itemsize
        self._is_put = np.zeros(n_rows, bool)
        self._file = path.open("wb")
        header = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (n_rows, n_columns),
        }
        np.lib.format.write_array_header_1_0(self._file, header)
        self._file.flush()
        self._begin = self._file.tell()

    def put(self, rows: Sequence[int] | np.ndarray, x_ND: np.ndarray) -> None:
        """Plain writes: pages of a written memory map would count as this process's memory."""
        data = np.ascontiguousarray(x_ND, self.dtype)
        assert data.shape == (len(rows), self._row_bytes // self.dtype.itemsize), "rows of another shape"
        for row, values in zip(rows, data, strict=True):
            _write_at(self._file.fileno(), values.tobytes(), self._begin + int(row) * self._row_bytes)
        self._is_put[np.asarray(rows, int)] = True

    def close(self) -> None:
        """Forces everything to the disk."""
        os.fsync(self._file.fileno())
        self._file.close()


@contextmanager
def row_file(path: Path, n_rows: int, n_columns: int, dtype: str) -> Iterator[RowFile]:
    """A RowFile for the block, at whose end every row must have been put. To be used inside whole_folder."""
    rows = RowFile(path, n_rows, n_columns, dtype)
    try:
        yield rows
        assert rows._is_put.all(), "a row was never put"
    finally:
        rows.close()


def _write_at(handle: int, data: bytes, place: int) -> None:
    while data:
        n_written = os.pwrite(handle, data, place)
        data, place = data[n_written:], place + n_written


def write_index(folder: Path, image_id: Iterable[str], view: Iterable[int]) -> None:
    write_table(folder / "index.csv", pd.DataFrame({"image_id": list(image_id), "view": list(view)}))


def write_theta(folder: Path, image_ids: list[str], theta_of: Callable[[np.ndarray], np.ndarray | None]) -> None:
    """theta.npy and theta_index.csv of these images, from their plain rows in the folder; nothing where theta_of gives None."""
    features = read_features(folder)
    first = theta_of(features.plain_rows(image_ids[:1]))
    if first is None:
        return
    with row_file(folder / "theta.npy", len(image_ids), first.shape[1], "float32") as out:
        for start in range(0, len(image_ids), CHUNK_ROWS):
            theta = theta_of(features.plain_rows(image_ids[start : start + CHUNK_ROWS]))
            assert theta is not None, "a head gives something for all images or for none"
            out.put(range(start, start + len(theta)), theta)
    write_table(folder / "theta_index.csv", pd.DataFrame({"image_id": image_ids}, dtype=str))


def read_features(folder: Path) -> Features:
    """Ids in memory, arrays on disk until rows are asked for. ValueError where a folder's files don't fit each other."""
    index = read_table(folder / "index.csv", made_by=MADE_BY)
    x_ND = _mapped(folder / "x.npy", len(index))
    ids, view = index["image_id"].to_numpy(str), index["view"].to_numpy(int)
    if not (folder / "theta.npy").exists():
        return Features(ids, view, x_ND)
    theta_id = read_table(folder / "theta_index.csv", made_by=MADE_BY)["image_id"].to_numpy(str)
    return Features(ids, view, x_ND, theta_id, _mapped(folder / "theta.npy", len(theta_id)))


def _mapped(path: Path, n_rows: int) -> np.ndarray:
    require_file(path, made_by=MADE_BY)
    try:
        found: np.ndarray = np.load(path, mmap_mode="r" if n_rows else None, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a whole array ({error}); run `dvc repro {MADE_BY}`") from None
    if found.ndim != 2 or len(found) != n_rows:
        raise ValueError(
            f"{path} has the shape {found.shape}, its index has {n_rows} rows; run `dvc repro {MADE_BY}` again"
        )
    return found
