"""Packs: very many images in a few tar files with an index, quick to copy and to read. docs/PACK.md tells the format."""

import csv
import hashlib
import json
import os
import re
import tarfile
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from tasks.core.entries import Entry, Store, is_odd, missing, refuse_odd_path, refuse_size
from tasks.core.files import whole_folder, write_json
from tasks.core.open_files import OpenFiles

PACK_FILE, INDEX_FILE = "pack.json", "index.csv"
FORMAT, VERSION = "acclimate-pack", 1
INDEX_COLUMNS = ["path", "shard", "offset", "n_bytes", "content_id"]
ID_LENGTH = 16
N_TOLD = 10  # problems named in one message

_ROW = re.compile(rf"[^/\0]+,\d{{1,18}},\d{{1,18}},[0-9a-f]{{{ID_LENGTH}}}")


class Shard(NamedTuple):
    """One tar file of a pack."""

    file: str
    n_bytes: int


@dataclass(frozen=True)
class Index:
    """Where each image lies, by rising path: 28 bytes an image and its path."""

    paths: list[str] = field(default_factory=list)
    shard: "array[int]" = field(default_factory=lambda: array("i"))
    offset: "array[int]" = field(default_factory=lambda: array("q"))
    n_bytes: "array[int]" = field(default_factory=lambda: array("q"))
    content_id: "array[int]" = field(default_factory=lambda: array("Q"))


class PackStore:
    """The images of a pack. ValueError where its files don't agree with each other; the bytes are checked when read."""

    def __init__(self, root: Path) -> None:
        self._root = os.path.abspath(root)
        self._files = OpenFiles()
        n_images, self._shards = _read_head(root)
        self._index = _read_index(root, self._shards)
        if len(self._index.paths) != n_images:
            raise ValueError(
                f"the pack {root} is damaged: {INDEX_FILE} has {len(self._index.paths)} rows where {PACK_FILE} counts "
                f"{n_images} images; copy or make the pack again"
            )

    def entries(self) -> list[Entry]:
        return [Entry(path, "") for path in self._index.paths]

    def ignored(self) -> dict[str, int]:
        return {}

    def read(self, path: str) -> bytes:
        refuse_odd_path(path)
        row = self._row(path)
        if row is None:
            raise missing(path)
        index = self._index
        refuse_size(path, index.n_bytes[row])
        shard = self._shards[index.shard[row]].file
        data = self._files.piece(f"{self._root}/{shard}", index.offset[row], index.n_bytes[row])
        if _content_number(data) != index.content_id[row]:
            raise ValueError(f"{path} in {shard} is not what the pack's index tells (content_id); copy the shard again")
        return data

    def has(self, path: str) -> bool:
        return self._row(path) is not None

    def _row(self, path: str) -> int | None:
        row = bisect_left(self._index.paths, path)
        return row if row < len(self._index.paths) and self._index.paths[row] == path else None


def write_pack(store: Store, paths: list[str], out: Path, images_per_shard: int) -> None:
    """Nothing; `out` is the pack, the same bytes whatever the order of `paths`. ValueError lists what can't be packed."""
    if images_per_shard < 1:
        raise ValueError(f"images_per_shard is {images_per_shard}; at least 1 image stands in a shard")
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(f"{out} is not empty; name a folder that does not exist yet")
    paths, out = sorted(paths), out.resolve()
    _refuse_unpackable(store, paths)
    n_shards = -(-len(paths) // images_per_shard)
    with whole_folder(out) as part:
        refused: list[str] = []
        shards = []
        with (part / INDEX_FILE).open("w", encoding="utf-8", newline="") as table:
            csv.writer(table, lineterminator="\n").writerow(INDEX_COLUMNS)
            for k in range(n_shards):
                some = paths[k * images_per_shard : (k + 1) * images_per_shard]
                shards.append(_write_shard(store, some, part / f"shard-{k:05d}.tar", table, refused))
            table.flush()
            os.fsync(table.fileno())
        _refuse(refused)
        head = {"format": FORMAT, "version": VERSION, "n_images": len(paths), "images_per_shard": images_per_shard}
        write_json(part / PACK_FILE, head | {"shards": shards})


def _write_shard(
    store: Store, paths: Sequence[str], file: Path, table: TextIO, refused: list[str]
) -> dict[str, str | int]:
    """The shard's line in pack.json. Rows go to the index's table; what can't be read goes to `refused`."""
    rows = csv.writer(table, lineterminator="\n")
    digest, n_bytes = hashlib.sha256(), 0
    with file.open("wb") as handle:
        for path in paths:
            try:
                data = store.read(path)
            except (OSError, ValueError) as error:
                refused.append(str(error))
                continue
            header = _tar_header(path, len(data))
            rows.writerow([path, file.name, n_bytes + len(header), len(data), f"{_content_number(data):0{ID_LENGTH}x}"])
            for piece in (header, data, bytes(-len(data) % tarfile.BLOCKSIZE)):
                digest.update(piece)
                n_bytes += handle.write(piece)
        end = bytes(2 * tarfile.BLOCKSIZE)
        digest.update(end)
        n_bytes += handle.write(end)
        handle.flush()
        os.fsync(handle.fileno())
    return {"file": file.name, "n_bytes": n_bytes, "sha256": digest.hexdigest()}


def _tar_header(path: str, n_bytes: int) -> bytes:
    """The same for the same image on every machine: no time, no owner."""
    info = tarfile.TarInfo(path)
    info.size, info.mode = n_bytes, 0o644
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _refuse_unpackable(store: Store, paths: Sequence[str]) -> None:
    if not paths:
        raise ValueError("there is no image to pack; name at least one")
    problems = {entry.path: entry.problem for entry in store.entries() if entry.problem}
    refused = []
    for before, path in zip(["", *paths], paths, strict=False):
        if path in problems:
            refused.append(f"{path} {problems[path]}")
        elif is_odd(path):
            refused.append(f"{path!r} is not a plain path below the root")
        elif path == before:
            refused.append(f"{path} is named twice")
        elif not store.has(path):
            refused.append(f"{path} is missing")
    _refuse(refused)


def _refuse(refused: list[str]) -> None:
    if refused:
        more = f"; and {len(refused) - N_TOLD} more" if len(refused) > N_TOLD else ""
        raise ValueError(
            f"{len(refused)} image(s) can't be packed, and no pack was written: {'; '.join(refused[:N_TOLD])}{more}; "
            "mend them or leave them out"
        )


def _content_number(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[: ID_LENGTH // 2], "big")


def _read_head(root: Path) -> tuple[int, list[Shard]]:
    """Number of images, and shards, each of which is there in full length."""
    try:
        head = json.loads((root / PACK_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(root, f"{PACK_FILE} can't be read ({type(error).__name__})") from None
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise ValueError(
            f'{root / PACK_FILE} is not of format "{FORMAT}"; a folder of images must hold no other file of that name'
        )
    if head.get("version") != VERSION:
        raise ValueError(
            f"the pack {root} has version {head.get('version')!r}; this program reads version {VERSION}; "
            "take a newer program, or make the pack again"
        )
    listed = head.get("shards")
    if type(head.get("n_images")) is not int or not isinstance(listed, list) or not all(map(_is_shard, listed)):
        raise _damaged(root, f"{PACK_FILE} must have n_images and shards, each with file, n_bytes and sha256")
    shards = [Shard(item["file"], item["n_bytes"]) for item in listed]
    wrong = [problem for shard in shards if (problem := _shard_problem(root, shard))]
    if wrong:
        raise _damaged(root, "; ".join(wrong[:N_TOLD]))
    return head["n_images"], shards


def _is_shard(item: Any) -> bool:
    if not isinstance(item, dict) or type(item.get("n_bytes")) is not int:
        return False
    texts = [item.get("file"), item.get("sha256")]
    return all(isinstance(text, str) for text in texts) and "/" not in item["file"] and not is_odd(item["file"])


def _shard_problem(root: Path, shard: Shard) -> str:
    place = root / shard.file
    if not place.is_file():
        return f"{shard.file} is missing"
    n_bytes = place.stat().st_size
    return "" if n_bytes == shard.n_bytes else f"{shard.file} has {n_bytes:,} bytes where {shard.n_bytes:,} are told"


def _read_index(root: Path, shards: list[Shard]) -> Index:
    index = Index()
    number = {shard.file: k for k, shard in enumerate(shards)}
    for line, row in _index_rows(root):
        path, shard, offset, n_bytes, content_id = row
        if is_odd(path):
            raise _damaged(root, f"{INDEX_FILE} line {line}: {path!r} is not a plain path")
        if index.paths and path <= index.paths[-1]:
            reason = "stands there twice" if path == index.paths[-1] else "is not in the order of the paths"
            raise _damaged(root, f"{INDEX_FILE} line {line}: {path!r} {reason}")
        if not _ROW.fullmatch(",".join(row[1:])) or shard not in number:
            raise _damaged(root, f"{INDEX_FILE} line {line} is not shard, offset, n_bytes, content_id of an image")
        if int(offset) + int(n_bytes) > shards[number[shard]].n_bytes:
            raise _damaged(root, f"{INDEX_FILE} line {line}: {path!r} lies beyond the end of {shard}")
        index.paths.append(path)
        index.shard.append(number[shard])
        index.offset.append(int(offset))
        index.n_bytes.append(int(n_bytes))
        index.content_id.append(int(content_id, 16))
    return index


def _index_rows(root: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and our columns of each row, in our order; further columns are the user's own."""
    try:
        with (root / INDEX_FILE).open(encoding="utf-8", newline="") as handle:
            table = csv.reader(handle, strict=True)
            header = next(table, [])
            absent = [name for name in INDEX_COLUMNS if header.count(name) != 1]
            if absent:
                raise _damaged(root, f"{INDEX_FILE} must have one column {', '.join(absent)}")
            places = [header.index(name) for name in INDEX_COLUMNS]
            for row in table:
                if len(row) != len(header):
                    raise _damaged(root, f"{INDEX_FILE} line {table.line_num} has {len(row)} of {len(header)} fields")
                yield table.line_num, [row[k] for k in places]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _damaged(root, f"{INDEX_FILE} can't be read ({type(error).__name__})") from None


def _damaged(root: Path, reason: str) -> ValueError:
    return ValueError(f"the pack {root} is damaged: {reason}; copy or make the pack again")
