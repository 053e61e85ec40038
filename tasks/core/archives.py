"""Archives as folders: zip and tar files whose members are read where they lie, nothing unpacked among the user's files.

A compressed tar has no random access: it is unpacked once into `<home>/archives/<sha256 of the archive>.tar`.
"""

import bz2
import gzip
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from tasks.core.entries import Entry, distinct, is_hidden, is_image, missing, refuse_size, shown_name, suffix_of
from tasks.core.files import file_sha256, whole_file
from tasks.core.open_files import OpenFiles
from tasks.core.runtime import acclimate_home

SHARE_OF_FREE_DISK = 0.5  # what an unpacked tar may take
BLOCK_BYTES = 2**20
OUTSIDE = "has a name that leads outside its archive; make the archive again"
TWICE = "has the same name as an earlier file in its archive; rename one of them"
NOT_A_FILE = "is a link or device in an archive; put the file itself there"
SPARSE = "is a sparse file in a tar; make the tar again without --sparse"

_TAR = -1  # the method of a tar's members: they lie there as they are
_EXPANDERS: dict[int, Any] = {
    zipfile.ZIP_DEFLATED: lambda: zlib.decompressobj(-zlib.MAX_WBITS),
    zipfile.ZIP_BZIP2: bz2.BZ2Decompressor,
}
_METHODS = {zipfile.ZIP_STORED, *_EXPANDERS}
_STREAMS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_LOCAL_HEADER_BYTES = 30
_LOCAL_NAME_GUESS = 256  # name and extra field: nearly always one read then brings header and data
_UNPACKING = Lock()  # two threads would write the same temporary file


class Damaged(ValueError):
    """The archive can't be opened; the text says why."""


class Piece(NamedTuple):
    """Where a member lies: in a zip the offset is its header's."""

    offset: int
    n_stored: int
    n_bytes: int
    method: int
    crc: int


class Member(NamedTuple):
    """One file of an archive, with its name as it stands there and why it can't be used ("" = it can)."""

    name: str
    problem: str
    piece: Piece


class Archive:
    """The members of one archive by name. Damaged where it can't be opened."""

    def __init__(self, file: Path, files: OpenFiles) -> None:
        is_zip = file.name.lower().endswith(".zip")
        place = file if is_zip else _plain_tar(file)
        self._file = str(place)
        self._files = files
        self._pieces: dict[str, Piece] = {}
        self.ignored: Counter[str] = Counter()
        self.entries = distinct(self._listed(_told(_zip_members(place) if is_zip else _tar_members(place))))
        self._problems = {entry.path: entry.problem for entry in self.entries if entry.problem}

    def has(self, name: str) -> bool:
        return name in self._pieces

    def read(self, name: str, path: str) -> bytes:
        """The member's bytes; errors name `path`. Never more than it is declared to have, whatever is packed there."""
        piece = self._pieces.get(name)
        if piece is None:
            if name in self._problems:
                raise ValueError(f"{path} {self._problems[name]}; it was not opened")
            raise missing(path)
        refuse_size(path, max(piece.n_bytes, piece.n_stored))
        try:
            data = self._bytes(piece)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path} is damaged in its archive ({_line(error)}); restore the archive") from None
        if len(data) != piece.n_bytes or (piece.method != _TAR and zlib.crc32(data) != piece.crc):
            raise ValueError(f"{path} is damaged in its archive (size or checksum are wrong); restore the archive")
        return data

    def _bytes(self, piece: Piece) -> bytes:
        if piece.method == _TAR:
            return self._files.piece(self._file, piece.offset, piece.n_bytes)
        n_ahead = _LOCAL_HEADER_BYTES + _LOCAL_NAME_GUESS
        raw = self._files.piece(self._file, piece.offset, n_ahead + piece.n_stored)
        if len(raw) < _LOCAL_HEADER_BYTES or raw[:4] != b"PK\x03\x04":
            raise EOFError("no member begins there")
        start = _LOCAL_HEADER_BYTES + sum(struct.unpack_from("<HH", raw, 26))
        if start > n_ahead:
            raw, start = self._files.piece(self._file, piece.offset + start, piece.n_stored), 0
        packed = memoryview(raw)[start : start + piece.n_stored]
        if piece.method == zipfile.ZIP_STORED:
            return bytes(packed)
        data: bytes = _EXPANDERS[piece.method]().decompress(packed, piece.n_bytes + 1)
        return data

    def _listed(self, members: Iterable[Member]) -> Iterator[Entry]:
        for member in members:
            parts = [part for part in member.name.split("/") if part not in ("", ".")]
            if any(is_hidden(part) and part != ".." for part in parts):
                continue
            name, problem = _safe_name(member.name, parts)
            problem = problem or member.problem or (TWICE if name in self._pieces else "")
            if not problem:
                self._pieces[name] = member.piece
            if is_image(name):
                yield Entry(name, problem)
            else:
                self.ignored[suffix_of(name)] += 1


def _safe_name(raw: str, parts: list[str]) -> tuple[str, str]:
    """The name without detours, and its problem. One that leads outside is shown escaped: no path of ours ever does."""
    name, problem = shown_name("/".join(parts))
    if raw.startswith("/"):
        return f"\\x2f{name}", OUTSIDE
    if ".." in parts:
        return "/".join("\\x2e\\x2e" if part == ".." else part for part in name.split("/")), OUTSIDE
    return name, problem


def _zip_members(file: Path) -> Iterator[Member]:
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
    if any(info.flag_bits & 1 for info in infos):
        raise Damaged("it is encrypted")
    for info in infos:
        if info.is_dir():
            continue
        kind = stat.S_IFMT(info.external_attr >> 16)
        problem = "" if kind in (0, stat.S_IFREG) or info.create_system != 3 else NOT_A_FILE
        if info.compress_type not in _METHODS:
            problem = f"is compressed by method {info.compress_type}; make the zip again with the usual one (deflate)"
        name = info.orig_filename if "\0" in info.orig_filename else info.filename  # zipfile cuts a name at a NUL
        piece = Piece(info.header_offset, info.compress_size, info.file_size, info.compress_type, info.CRC)
        yield Member(name, problem, piece)


def _tar_members(file: Path) -> Iterator[Member]:
    n_bytes = file.stat().st_size
    with tarfile.open(file, "r:", encoding="utf-8", errors="surrogateescape") as archive:
        end = 0
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # it would keep a thousand bytes for each
            if info.size < 0 or archive.offset <= end:
                raise Damaged("a header tells a wrong size")
            end = archive.offset
            if info.isdir():
                continue
            problem = SPARSE if info.issparse() else "" if info.isreg() else NOT_A_FILE
            if not problem and info.offset_data + info.size > n_bytes:
                raise Damaged("it is cut off")
            yield Member(info.name, problem, Piece(info.offset_data, info.size, info.size, _TAR, 0))
        end = archive.offset
    with file.open("rb") as handle:  # tarfile takes a broken header for the end
        handle.seek(end)
        if handle.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise Damaged("it is cut off, or damaged in its middle")
        while block := handle.read(BLOCK_BYTES):
            if block.strip(b"\0"):
                raise Damaged("something follows its end; two archives in one file must be taken apart")


def _told(members: Iterator[Member]) -> Iterator[Member]:
    """The members. Whatever the readers raise on a damaged archive becomes Damaged: they raise nearly anything."""
    try:
        yield from members
    except Damaged:
        raise
    except Exception as error:
        raise Damaged(_line(error)) from None


def _plain_tar(archive: Path) -> Path:
    """The tar itself, or its unpacked copy: what the first bytes say, since browsers unpack and keep the name."""
    try:
        with archive.open("rb") as handle:
            first = handle.read(6)
        opener = next((opener for magic, opener in _STREAMS.items() if first.startswith(magic)), None)
        if opener is None:
            return archive
        copy = acclimate_home() / "archives" / f"{file_sha256(archive)}.tar"
    except OSError as error:
        raise Damaged(_line(error)) from None
    with _UNPACKING:
        if not copy.exists():
            _unpack(archive, opener, copy)
    return copy


def _unpack(archive: Path, opener: Any, copy: Path) -> None:
    with whole_file(copy) as part, part.open("wb") as handle:
        n_allowed = int(shutil.disk_usage(part.parent).free * SHARE_OF_FREE_DISK)
        n_bytes = 0
        for block in _blocks(archive, opener):
            n_bytes += len(block)
            if n_bytes > n_allowed:
                raise ValueError(
                    f"{archive.name} unpacks to more than {n_allowed:,} bytes, {SHARE_OF_FREE_DISK:.0%} of what is free in "
                    f"{copy.parent}; free some space, set ACCLIMATE_HOME to a larger disk, or unpack the archive yourself"
                )
            handle.write(block)


def _blocks(archive: Path, opener: Any) -> Iterator[bytes]:
    try:
        with opener(archive, "rb") as stream:
            while block := stream.read(BLOCK_BYTES):
                yield block
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise Damaged(_line(error)) from None


def _line(error: Exception) -> str:
    """What the error says, on one line and without the machine's paths."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return shown_name(" ".join(text.split()))[0]
