"""Folders and archives that the tests of stores make."""

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

from tasks.core.store import Store

FILES = {"cat/1.jpg": b"one", "cat/2.PNG": b"two" * 999, "dog/ä b,\"c'.jpeg": b"three", "top.webp": b""}
TARS = {"x.tar": "w", "x.tar.gz": "w:gz", "x.tgz": "w:gz", "x.tar.bz2": "w:bz2", "x.tar.xz": "w:xz"}
Members = list[tuple[str, bytes]]
NOISE = hashlib.shake_256(b"noise").digest(50_000)


def put(root: Path, files: dict[str, bytes]) -> Path:
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


def put_zip(file: Path, members: Members, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return file


def put_tar(file: Path, members: Members, mode: str = "w", form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(file, mode, format=form, errors="surrogateescape") as archive:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file


def put_any(file: Path, members: Members) -> Path:
    return put_tar(file, members, TARS[file.name]) if file.name in TARS else put_zip(file, members)


def paths_of(store: Store) -> list[str]:
    return [entry.path for entry in store.entries()]


def problems_of(store: Store) -> dict[str, str]:
    return {entry.path: entry.problem for entry in store.entries() if entry.problem}


def all_bytes(store: Store) -> dict[str, bytes]:
    return {path: store.read(path) for path in paths_of(store)}
