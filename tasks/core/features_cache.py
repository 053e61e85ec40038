"""Features kept from run to run: `<home>/features/<key>/rows`, outside DVC, safe to delete at any time.

The key says what made the numbers (network, preprocessing, batch size, machine, code); the rows of a key are records of one
size: id, features, check. Records are only appended, under a lock; an append that a killed process left unfinished is cut off,
and a damaged record counts as unknown. Axes: N rows, D features.
"""

import fcntl
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import PIL
import torch

from tasks.core.runtime import acclimate_home

GIB = 2**30
USUAL_GIB = 20.0
ID_BYTES, CHECK_BYTES = 16, 8


def limit_bytes() -> int:
    """What ACCLIMATE_CACHE_GIB allows, 20 GiB where it is not set; 0 switches the cache off. ValueError for other words."""
    text = os.environ.get("ACCLIMATE_CACHE_GIB", str(USUAL_GIB))
    try:
        gib = float(text)
    except ValueError:
        gib = -1.0
    if not 0 <= gib < float("inf"):
        raise ValueError(
            f"the environment variable ACCLIMATE_CACHE_GIB is {text!r}; set it to a number of GiB, 0 = no cache"
        )
    return int(gib * GIB)


def row_id(content_id: str, *shown_as: object) -> bytes:
    """The id of a plain image, or of a view of it: (image_id, view, the policy's key)."""
    text = json.dumps([content_id, *map(str, shown_as)])
    return hashlib.blake2b(text.encode(), digest_size=ID_BYTES).digest()


def cache_key(device: str, *made_from: object) -> str:
    """A hash of what is given, of the code below this folder, and of the libraries and the machine that compute."""
    digest = hashlib.sha256(json.dumps([str(part) for part in made_from]).encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    gpu = torch.cuda.get_device_name() if device == "cuda" else ""
    cpu = [platform.machine(), torch.backends.cpu.get_cpu_capability()]
    digest.update(json.dumps([device, gpu, *cpu, torch.__version__, PIL.__version__, np.__version__]).encode())
    return digest.hexdigest()[:24]


class FeaturesCache:
    """Rows of one key. `problem` says why nothing more is kept, "" = all is well; a problem never makes a run fail."""

    def __init__(self, key: str, n_features: int, dtype: str, kept_keys: frozenset[str] = frozenset()) -> None:
        self.root = acclimate_home() / "features"
        self.folder = self.root / key
        self.problem = ""
        self._kept_keys = kept_keys | {key}
        self._limit = limit_bytes()
        self._record = np.dtype([("id", f"V{ID_BYTES}"), ("x", dtype, (n_features,)), ("check", f"V{CHECK_BYTES}")])
        self._place_of: dict[bytes, int] = {}
        self._handle = -1
        if not self._limit:
            self.problem = "ACCLIMATE_CACHE_GIB is 0"

    def __enter__(self) -> "FeaturesCache":
        if not self.problem:
            with self._troubles_noted():
                self.folder.mkdir(parents=True, exist_ok=True)
                os.utime(self.folder)  # the time of the last use: older ones go first
                make_room(self.root, self._limit, self._kept_keys)
                self._handle = os.open(self.folder / "rows", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
                with self._alone() as size:
                    for place in range(0, size, self._record.itemsize):
                        self._place_of[os.pread(self._handle, ID_BYTES, place)] = place
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle >= 0:
            os.close(self._handle)
        self._handle = -1

    def get(self, ids: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Which of the ids are known (N,) bool, and the rows of those, in their order."""
        is_known, found = np.zeros(len(ids), bool), []
        for number, own in enumerate(ids):
            record = self._read(own)
            if record is not None:
                is_known[number] = True
                found.append(record["x"])
        return is_known, np.stack(found) if found else np.zeros((0, *self._record["x"].shape), self._record["x"].base)

    def put(self, ids: list[bytes], x_ND: np.ndarray) -> None:
        """Appends those that are not known yet, in one write; keeps nothing more once there is no room."""
        new = [number for number, own in enumerate(ids) if own not in self._place_of]
        if self.problem or not new:
            return
        records = np.zeros(len(new), self._record)
        records["x"] = x_ND[new]
        for record, number in zip(records, new, strict=True):
            record["id"] = np.void(ids[number])
            record["check"] = np.void(_check(ids[number], record["x"].tobytes()))
        if make_room(self.root, self._limit, self._kept_keys, records.nbytes) > self._limit:
            self.problem = f"{self.root} has reached {self._limit / GIB:g} GiB, the limit that ACCLIMATE_CACHE_GIB sets"
            return
        with self._troubles_noted(), self._alone() as size:
            _append(self._handle, records.tobytes(), size)
            self._place_of |= {ids[number]: size + place * self._record.itemsize for place, number in enumerate(new)}

    def _read(self, own: bytes) -> np.void | None:
        place = self._place_of.get(own)
        if place is None or self._handle < 0:
            return None
        data = os.pread(self._handle, self._record.itemsize, place)
        if len(data) == self._record.itemsize:
            record: np.void = np.frombuffer(data, self._record)[0]
            if record["id"].tobytes() == own and record["check"].tobytes() == _check(own, record["x"].tobytes()):
                return record
        del self._place_of[own]  # damaged: it will be computed and appended again
        return None

    @contextmanager
    def _alone(self) -> Iterator[int]:
        """The file's size while no other process may append; what a killed one left unfinished is cut off."""
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        try:
            size = os.fstat(self._handle).st_size
            whole = size - size % self._record.itemsize
            if whole < size:
                os.ftruncate(self._handle, whole)
            yield whole
        finally:
            fcntl.flock(self._handle, fcntl.LOCK_UN)

    @contextmanager
    def _troubles_noted(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # no room, not writable
            self.problem = f"{self.folder}: {error.strerror or error}"


def _append(handle: int, data: bytes, size: int) -> None:
    """All of it or nothing."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(handle, view) :]
    except OSError:
        os.ftruncate(handle, size)
        raise


def make_room(root: Path, limit: int, kept_keys: frozenset[str], n_coming: int = 0) -> int:
    """The bytes below root, n_coming included, after other keys were removed, longest unused first, as far as needed."""
    sizes = {folder: _size(folder) for folder in root.iterdir() if folder.is_dir()}
    total = sum(sizes.values()) + n_coming
    for folder in sorted(sizes, key=_last_use):
        if total > limit and folder.name not in kept_keys:
            shutil.rmtree(folder, ignore_errors=True)
            total -= sizes[folder]
    return total


def _size(folder: Path) -> int:
    try:
        return (folder / "rows").stat().st_size
    except FileNotFoundError:
        return 0


def _last_use(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _check(own: bytes, data: bytes) -> bytes:
    return hashlib.blake2b(own + data, digest_size=CHECK_BYTES).digest()
