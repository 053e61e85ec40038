"""Entries of a store: which names are images, what a path may look like, and how an odd name is shown."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

MAX_FILE_BYTES = 2**30  # read at once; a larger file is no image, or a trap
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".dib",
    ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
OTHER_IMAGE_SUFFIXES = (  # images without a decoder here: listed, so that they are rejected by name and not overlooked
    ".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".j2k", ".jpf", ".jpx", ".jxr", ".svg", ".tga", ".psd", ".exr",
    ".dcm", ".dicom", ".nii", ".nii.gz", ".nrrd", ".mha", ".svs", ".ndpi", ".czi",
    ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw",
)  # fmt: skip
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
NOT_UTF8 = "has a name that is not UTF-8; rename it"
CONTROL = "has a control character in its name; rename it"

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_ODD_PATH = re.compile("(?:^|/)\\.{0,2}(?:/|\\Z)|[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Entry:
    """One image: its path relative to the root, and why it can't be used ("" = it can be opened)."""

    path: str
    problem: str


class Store(Protocol):
    """Where image bytes come from. Any number of threads may read at once."""

    def entries(self) -> list[Entry]:
        """The images, by path."""

    def ignored(self) -> dict[str, int]:
        """How many other files were left out, by suffix in lower case ("" = none)."""

    def read(self, path: str) -> bytes:
        """The image's bytes. FileNotFoundError where there is none, ValueError where it may not be opened."""

    def has(self, path: str) -> bool:
        """True where there is such a file; it may still be damaged."""


def is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES + OTHER_IMAGE_SUFFIXES)


def is_archive(name: str) -> bool:
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def is_hidden(name: str) -> bool:
    """True for what systems leave lying about: names with a leading dot, and the Mac's shadow folder in archives."""
    return name.startswith(".") or name == "__MACOSX"


def suffix_of(name: str) -> str:
    return shown_name(os.path.splitext(name)[1].lower())[0]


def stem_of(archive: str) -> str:
    """The archive's name without its suffix: "old.tar.gz" → "old"."""
    suffix = max((s for s in ARCHIVE_SUFFIXES if archive.lower().endswith(s)), key=len)
    return archive[: -len(suffix)]


def levels(path: str) -> list[str]:
    """The names of the folders above the file; an archive is a folder, and a folder of its own name in it is no level."""
    names = path.split("/")[:-1]
    found: list[str] = []
    above = None  # the stem, directly below an archive
    for name in names:
        if name != above:
            found.append(stem_of(name) if is_archive(name) else name)
        above = stem_of(name) if is_archive(name) else None
    return found


def shown_name(name: str) -> tuple[str, str]:
    """The name as text of one line, bytes and characters that are none as backslash escapes; and the problem, or ""."""
    if name.isascii() and name.isprintable():
        return name, ""
    problem = ""
    try:
        name.encode()
    except UnicodeEncodeError:  # how Python keeps bytes of a name that are not UTF-8
        name = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        problem = NOT_UTF8
    text = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), name)
    return text, problem or (CONTROL if text != name else "")


def is_odd(path: str) -> bool:
    """True for a path that is not simply names with "/" between them: no file is ever opened by it."""
    return _ODD_PATH.search(path) is not None


def refuse_odd_path(path: str) -> None:
    """Nothing. ValueError says what is odd about the path."""
    if not is_odd(path):
        return
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"{path!r} leads outside the root; it was not opened")
    raise ValueError(f"{path!r} is not a plain path (names with / between them); it was not opened")


def refuse_size(path: str, n_bytes: int) -> None:
    """Nothing. ValueError tells the size where it is over the limit."""
    if n_bytes > MAX_FILE_BYTES:
        raise ValueError(f"{path} has {n_bytes:,} bytes; a file of more than {MAX_FILE_BYTES:,} bytes is not read")


def missing(path: str) -> FileNotFoundError:
    return FileNotFoundError(f"{path} is missing; restore it, or take it out of the list of images")


def distinct(found: Iterable[Entry]) -> list[Entry]:
    """The entries by path, each path once: usable ones keep theirs, a problem's gets a number, "x.jpg (2)"."""
    ordered = sorted(found, key=lambda entry: (entry.path, entry.problem))
    taken = {entry.path for entry in ordered if not entry.problem}
    n_seen: dict[str, int] = {}
    kept = []
    for entry in ordered:
        path = entry.path
        while entry.problem and path in taken:
            n_seen[entry.path] = n_seen.get(entry.path, 1) + 1
            path = f"{entry.path} ({n_seen[entry.path]})"
        taken.add(path)
        kept.append(entry if path == entry.path else Entry(path, entry.problem))
    return sorted(kept, key=lambda entry: entry.path)
