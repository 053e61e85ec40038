"""Where image bytes come from: a folder (archives in it count as folders), one archive, or a pack."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from threading import Lock

from tasks.core.archives import Archive, Damaged
from tasks.core.entries import (
    ARCHIVE_SUFFIXES,
    IMAGE_SUFFIXES,
    OTHER_IMAGE_SUFFIXES,
    Entry,
    Store,
    distinct,
    is_archive,
    is_hidden,
    is_image,
    is_odd,
    levels,
    refuse_odd_path,
    shown_name,
    stem_of,
    suffix_of,
)
from tasks.core.open_files import OpenFiles, read_whole
from tasks.core.pack import PACK_FILE, PackStore, write_pack

__all__ = ["IMAGE_SUFFIXES", "OTHER_IMAGE_SUFFIXES", "Entry", "Store", "levels", "open_store", "write_pack"]

LOOP = "is a link that leads back to a folder above it"
NOT_A_FILE = "is a pipe, socket or device"

_ARCHIVE_IN_PATH = re.compile(f"(?:{'|'.join(map(re.escape, ARCHIVE_SUFFIXES))})(?=/)", re.IGNORECASE)


def open_store(root: Path) -> Store:
    """The store of that root. ValueError where it is neither folder, archive nor pack, or can't be opened."""
    if os.path.isdir(root):
        try:
            os.scandir(root).close()
        except OSError as error:
            raise ValueError(f"the folder {root} can't be opened ({error.strerror}); mend its permissions") from None
        return PackStore(root) if os.path.lexists(root / PACK_FILE) else FolderStore(root)
    if os.path.isfile(root) and is_archive(root.name):
        try:
            return ArchiveStore(root)
        except Damaged as error:
            raise ValueError(f"the archive {root} can't be opened ({error}); make or copy it again") from None
    state = "is neither a folder, an archive nor a pack" if os.path.lexists(root) else "does not exist"
    raise ValueError(f"{root} {state}; name a folder of images, a pack, or an archive ({', '.join(ARCHIVE_SUFFIXES)})")


class FolderStore:
    """A folder with all below it; links are followed, archives are folders."""

    def __init__(self, root: Path) -> None:
        self._root = f"{os.path.abspath(root)}/"
        self._files = OpenFiles()
        self._archives: dict[str, Archive | Damaged | None] = {}  # by path; None: no archive stands there
        self._lock = Lock()

    def entries(self) -> list[Entry]:
        return self._listing[0]

    def ignored(self) -> dict[str, int]:
        return dict(sorted(self._listing[1].items()))

    def read(self, path: str) -> bytes:
        refuse_odd_path(path)
        if found := self._in_archive(path):
            archive, name = found
            return archive.read(name, path)
        try:
            return read_whole(self._root + path, path)
        except FileNotFoundError:
            if "\\" in path and (problem := self._problems.get(path)):
                raise ValueError(f"{path} {problem}; it was not opened") from None
            raise

    def has(self, path: str) -> bool:
        if is_odd(path):
            return False
        try:
            found = self._in_archive(path)
        except ValueError:
            return False
        return found[0].has(found[1]) if found else os.path.isfile(self._root + path)

    def _in_archive(self, path: str) -> tuple[Archive, str] | None:
        """The archive on the way to the file, and the name in it; None for a plain file."""
        for match in _ARCHIVE_IN_PATH.finditer(path):
            place = path[: match.end()]
            archive = self._archive(place)
            if isinstance(archive, Damaged):
                raise ValueError(f"{place} {_cannot_open(archive)}; make or copy it again")
            if archive is not None:
                return archive, path[match.end() + 1 :]
        return None

    def _archive(self, place: str) -> Archive | Damaged | None:
        """Opened once, whoever asks first."""
        if place in self._archives:
            return self._archives[place]
        with self._lock:
            if place not in self._archives:
                self._archives[place] = self._opened(Path(self._root + place))
            return self._archives[place]

    def _opened(self, file: Path) -> Archive | Damaged | None:
        try:
            return Archive(file, self._files) if os.path.isfile(file) else None
        except Damaged as error:
            return error

    @cached_property
    def _problems(self) -> dict[str, str]:
        return {entry.path: entry.problem for entry in self.entries() if entry.problem}

    @cached_property
    def _listing(self) -> tuple[list[Entry], Counter[str]]:
        ignored: Counter[str] = Counter()
        return distinct(self._walk(ignored)), ignored

    def _walk(self, ignored: Counter[str]) -> Iterator[Entry]:
        """Every image below the root; other files are counted into `ignored`. A folder twice on one way is a loop."""
        todo = [("", _folders_above(self._root))]
        while todo:
            folder, above = todo.pop()
            place = shown_name(folder)[0]
            try:
                here = _identity(self._root + folder)
                if here in above:
                    yield Entry(place, LOOP)
                    continue
                with os.scandir(self._root + folder) as found:
                    children = sorted(found, key=lambda child: child.name)
            except OSError as error:
                yield Entry(place, f"is a folder that can't be opened ({(error.strerror or '').lower()})")
                continue
            for child in children:
                path = f"{folder}/{child.name}" if folder else child.name
                if is_hidden(child.name):
                    continue
                kind = _kind(child)
                if kind == "folder":
                    todo.append((path, above | {here}))
                else:
                    yield from self._listed(path, kind, ignored)

    def _listed(self, path: str, kind: str, ignored: Counter[str]) -> Iterator[Entry]:
        shown, problem = shown_name(path)
        if is_archive(path) and kind == "file":
            yield from [Entry(shown, problem)] if problem else self._members(path, ignored)
        elif is_image(path):
            yield Entry(shown, problem or (NOT_A_FILE if kind == "other" else ""))
        else:
            ignored[suffix_of(path)] += 1

    def _members(self, path: str, ignored: Counter[str]) -> Iterator[Entry]:
        archive = self._archive(path)
        if isinstance(archive, Damaged):
            yield Entry(path, _cannot_open(archive))
        elif archive is not None:
            ignored.update(archive.ignored)
            yield from (Entry(f"{path}/{entry.path}", entry.problem) for entry in archive.entries)


class ArchiveStore:
    """One archive. Where it is a packed folder of its own name the paths begin below that folder, as they did in it."""

    def __init__(self, root: Path) -> None:
        self._archive = Archive(Path(os.path.abspath(root)), OpenFiles())
        folder = f"{stem_of(root.name)}/"
        self._folder = folder if all(entry.path.startswith(folder) for entry in self._archive.entries) else ""

    def entries(self) -> list[Entry]:
        return [Entry(entry.path.removeprefix(self._folder), entry.problem) for entry in self._archive.entries]

    def ignored(self) -> dict[str, int]:
        return dict(sorted(self._archive.ignored.items()))

    def read(self, path: str) -> bytes:
        refuse_odd_path(path)
        inner = self._folder + path
        name = path if self._archive.has(path) and not self._archive.has(inner) else inner
        return self._archive.read(name, path)

    def has(self, path: str) -> bool:
        return not is_odd(path) and (self._archive.has(self._folder + path) or self._archive.has(path))


def _cannot_open(error: Damaged) -> str:
    return f"is an archive that can't be opened ({error})"


def _kind(child: os.DirEntry[str]) -> str:
    """folder, file (both also through a link), other (pipe, socket, device), or absent (a link to nothing)."""
    try:
        if child.is_dir():
            return "folder"
        if child.is_file():
            return "file"
        child.stat()
    except OSError:
        return "absent"
    return "other"


def _identity(folder: str) -> tuple[int, int]:
    found = os.stat(folder)
    return found.st_dev, found.st_ino


def _folders_above(root: str) -> frozenset[tuple[int, int]]:
    """Of those the root lies in; the root itself is met on the way."""
    return frozenset(_identity(str(folder)) for folder in Path(root).resolve().parents)
