"""Bytes of files: a whole one, or pieces of large ones that many threads read at once."""

import errno
import os
import stat
from threading import Lock

from tasks.core.entries import missing, refuse_size

MAX_OPEN_FILES = 128  # a process may often hold no more than 1,024, sockets and all
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


def read_whole(file: str, path: str) -> bytes:
    """The file's bytes; errors name `path`. Pipes, sockets and devices are refused without opening them: that could hang."""
    try:
        found = os.stat(file)
        if stat.S_ISDIR(found.st_mode):
            raise missing(path)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{path} is a pipe, socket or device; it was not opened")
        refuse_size(path, found.st_size)
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return _to_the_end(handle, found.st_size, path)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno in GONE:
            raise missing(path) from None
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, path) from None


class OpenFiles:
    """Pieces of large files. Each is opened once; beyond the limit the one that was opened first is closed.

    A piece is read at its own offset, so threads and forked processes need not wait for each other.
    """

    def __init__(self) -> None:
        self._open: dict[str, _Handle] = {}
        self._stamps: dict[str, tuple[int, ...]] = {}
        self._lock = Lock()

    def piece(self, file: str, offset: int, n_bytes: int) -> bytes:
        """The bytes there, fewer at the file's end. ValueError where the file is not the one that was opened first."""
        handle = self._open.get(file) or self._opened(file)
        data = os.pread(handle.number, n_bytes, offset)
        while len(data) < n_bytes and (more := os.pread(handle.number, n_bytes - len(data), offset + len(data))):
            data += more
        return data

    def _opened(self, file: str) -> "_Handle":
        with self._lock:
            if handle := self._open.get(file):
                return handle
            handle = _Handle(file)
            if self._stamps.setdefault(file, handle.stamp) != handle.stamp:
                raise ValueError(f"{os.path.basename(file)} changed while it was in use; run again")
            self._open[file] = handle
            while len(self._open) > MAX_OPEN_FILES:
                del self._open[next(iter(self._open))]
            return handle


class _Handle:
    """An open file; closed when the last thread that reads it lets go."""

    def __init__(self, file: str) -> None:
        self.number = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        found = os.fstat(self.number)
        self.stamp = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


def _to_the_end(handle: int, n_expected: int, path: str) -> bytes:
    data = os.read(handle, n_expected + 1)
    if len(data) == n_expected:
        return data
    while more := os.read(handle, 2**20):  # it grew, or its size is told wrongly
        data += more
        refuse_size(path, len(data))
    return data
