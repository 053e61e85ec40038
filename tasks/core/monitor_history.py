"""The history of monitoring: one JSON line per run, appended and synced, never changed."""

import fcntl
import json
import os
from pathlib import Path
from typing import Any

NEEDED = ("time", "name", "status", "n_images", "checks")


def read_history(path: Path, name: str) -> tuple[list[dict[str, Any]], int]:
    """The model's runs, oldest first, and how many lines can't be read: a damaged line must not end the watching."""
    if not path.exists():
        return [], 0
    found = [_run(line) for line in path.read_bytes().splitlines() if line.strip()]
    whole = [run for run in found if run is not None and run["name"] == name]
    return sorted(whole, key=lambda run: run["time"]), sum(run is None for run in found)


def append_history(path: Path, run: dict[str, Any]) -> None:
    """The run stands on the disk afterwards, on a line of its own even where writing the one before was cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(run, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    with path.open("ab+") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        size = handle.seek(0, os.SEEK_END)
        handle.seek(max(size - 1, 0))
        is_cut_off = handle.read(1) not in (b"", b"\n")
        handle.write(b"\n" * is_cut_off + line)
        handle.flush()
        os.fsync(handle.fileno())


def _run(line: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(line)
    except ValueError:
        return None
    fits = isinstance(said, dict) and all(key in said for key in NEEDED)
    return said if fits and isinstance(said["time"], str) and isinstance(said["checks"], dict) else None
