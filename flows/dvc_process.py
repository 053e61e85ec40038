"""DVC as a child process: a group that ends with us, and the one sentence that says why it failed."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from flows.environment import dvc_environment

SECONDS_TO_END = 10
LOCK_IS_BUSY = ("is busy, it is being blocked by", "Unable to acquire lock")


def check_project() -> None:
    """Nothing. ValueError where we are in no DVC project."""
    here = Path.cwd()
    if not any((folder / ".dvc").is_dir() for folder in (here, *here.parents)):
        raise ValueError(
            f"{here} lies in no DVC project: neither it nor a folder above it has a .dvc folder; say it in the project's "
            "folder, or name that with `acclimate --workspace FOLDER …`"
        )


def dvc_output(*arguments: str) -> str:
    """What `dvc …` prints on stdout. ValueError with DVC's own reason if it fails."""
    done = subprocess.run(_command(arguments), env=dvc_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(failure_reason(done.stderr.splitlines(), done.returncode))
    return done.stdout


@contextmanager
def dvc_process(*arguments: str, stdout: int | None, stderr: int) -> Iterator[subprocess.Popen[bytes]]:
    """`dvc …` in a process group of its own, which is ended with the block whatever ends it."""
    process = subprocess.Popen(
        _command(arguments),
        env=dvc_environment(),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _end_group(process)


def failure_reason(lines: Sequence[str], exit_code: int) -> str:
    """`<stage>: <reason>` from what DVC and the stage wrote; the stage's own `error: …` line comes first."""
    words = [line.strip() for line in lines if line.strip()]
    at = max((i for i, line in enumerate(words) if line.startswith("ERROR: ")), default=None)
    if at is None:
        dvc_error = f"dvc ended with exit code {exit_code}"
    else:  # a line that ends in a colon: the next one names the holder of DVC's lock
        dvc_error = " ".join(words[at : at + 1 + words[at].endswith(":")]).removeprefix("ERROR: ")
    named = re.match(r"failed to reproduce '(.+?)': (.*)", dvc_error)
    stage, reason = named.groups() if named else (None, dvc_error)
    if told := [line.removeprefix("error: ") for line in words if line.startswith("error: ")]:
        reason = told[-1]
    elif killed := re.search(r"exited with -(\d+)$", reason):
        reason = f"was killed by signal {killed[1]}" + ("; the machine may lack memory" if killed[1] == "9" else "")
    elif "is being blocked by" in reason:
        reason += (
            "; wait until that process has ended, or end it (a killed run can leave its stage alive), and run again"
        )
    elif at and reason.startswith("failed to run: "):
        reason = f"{words[at - 1]} ({reason})"  # a bug: the last line of its traceback
    return f"{stage}: {reason}" if stage else reason


def _command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "dvc", *arguments]


def _end_group(process: subprocess.Popen[bytes]) -> None:
    # Also after DVC has ended: a stage outlives a DVC that was killed, and would go on writing.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        end = time.monotonic() + SECONDS_TO_END
        while time.monotonic() < end:
            process.poll()  # else a dead DVC stays in its group
            os.killpg(process.pid, 0)
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
