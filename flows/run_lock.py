"""One run at a time per workspace. DVC's own lock makes a second run fail at once; ours makes it wait."""

import fcntl
import hashlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

LOOK_AGAIN_S = 1.0


@contextmanager
def run_lock(home: Path, workspace: Path, *, tell: Callable[[str], None]) -> Iterator[None]:
    """Holds the workspace's lock; `tell` gets one message, who holds it, if it has to be waited for."""
    with _lock_file(home, workspace) as handle:
        if not _taken(handle, fcntl.LOCK_EX | fcntl.LOCK_NB):
            tell(f"waiting for the run that holds {workspace}: {_read(handle)}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        _write(handle)
        yield  # the kernel drops the lock with the file, also when the process is killed


@contextmanager
def first_free(home: Path, places: Sequence[Path], *, tell: Callable[[str], None]) -> Iterator[Path]:
    """Holds the lock of the first place that is free; where none is, `tell` gets one message, and the next free one is taken."""
    with ExitStack() as opened:
        handles = {place: opened.enter_context(_lock_file(home, place)) for place in places}
        operation, is_told = fcntl.LOCK_EX | fcntl.LOCK_NB, False
        while (found := next((place for place in places if _taken(handles[place], operation)), None)) is None:
            if not is_told:
                listed = "; ".join(f"{place} is held by {_read(handles[place])}" for place in places)
                tell(f"waiting for the first that is free: {listed}")
            is_told = True
            time.sleep(LOOK_AGAIN_S)
        _write(handles[found])
        yield found


def lock_holder(home: Path, workspace: Path) -> str | None:
    """Who holds the lock and since when, or None if it is free."""
    with _lock_file(home, workspace) as handle:
        return None if _taken(handle, fcntl.LOCK_SH | fcntl.LOCK_NB) else _read(handle)


@contextmanager
def _lock_file(home: Path, workspace: Path) -> Iterator[IO[str]]:
    digest = hashlib.sha256(str(workspace.resolve()).encode()).hexdigest()[:16]
    path = home / "locks" / f"run-{digest}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as handle:
        yield handle


def _taken(handle: IO[str], operation: int) -> bool:
    try:
        fcntl.flock(handle, operation)
    except BlockingIOError:
        return False
    return True


def _write(handle: IO[str]) -> None:
    # In place: a rename would leave two processes with locks on two files of one name.
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    handle.truncate(0)
    handle.write(json.dumps(holder))
    handle.flush()


def _read(handle: IO[str]) -> str:
    handle.seek(0)
    try:
        holder = json.loads(handle.read())
    except json.JSONDecodeError:
        return "a process that took it this moment"
    return "pid {pid} on {host} since {since} ({command})".format_map(holder)
