"""Records of retraining runs, one folder each under `$ACCLIMATE_HOME/runs`: who runs it, how far it is, how it ended."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tasks.core.files import read_json, write_json
from tasks.core.runtime import acclimate_home

RUNNING, NOTHING_NEW, DONE, FAILED, DEAD = "running", "nothing new", "done", "failed", "dead"
MARK = "ACCLIMATE_RUN"  # in the environment of all that a run starts
BEAT_S, STILL_S = 10, 300
SECONDS_TO_END = 10


@dataclass(frozen=True)
class Run:
    """`told` is the reason of the state, in one sentence; `process` tells a process from a later one of the same pid."""

    run_id: str
    state: str
    step: str
    told: str
    started: str  # ISO 8601, UTC
    ended: str
    host: str
    pid: int
    process: str
    commit: str
    candidate: str = ""
    branch: str = ""

    @property
    def folder(self) -> Path:
        return runs_folder() / self.run_id

    @property
    def tree(self) -> Path:
        """Where the repository is checked out while the run lasts; kept where the run failed."""
        return self.folder / "tree"


def runs_folder() -> Path:
    return acclimate_home() / "runs"


def new_run() -> Run:
    """A record of this process, not yet written; its name sorts by time."""
    now = datetime.now(UTC)
    return Run(
        run_id=f"{now:%Y%m%dT%H%M%S%f}-{os.getpid()}",
        state=RUNNING,
        step="waiting for its turn",
        told="",
        started=now.isoformat(timespec="seconds"),
        ended="",
        host=socket.gethostname(),
        pid=os.getpid(),
        process=process_name(os.getpid()),
        commit="",
    )


def write_run(run: Run) -> Run:
    """The same record, on disk."""
    write_json(run.folder / "run.json", asdict(run))
    return run


def read_runs() -> list[Run]:
    """Every run, the oldest first. A folder without a record was made by a run that died at once: it isn't one yet."""
    return [Run(**read_json(path, made_by="acclimate retrain")) for path in sorted(runs_folder().glob("*/run.json"))]


@contextmanager
def beating(run: Run) -> Iterator[None]:
    """Touches the run's heartbeat while the block lasts: what other machines can see of a process."""
    run.folder.mkdir(parents=True, exist_ok=True)
    beat, is_over = run.folder / "heartbeat", threading.Event()

    def go_on() -> None:
        while not is_over.wait(BEAT_S):
            beat.touch()

    beat.touch()
    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def sweep() -> list[Run]:
    """Runs that ended without a word: marked dead now, and what they left running on this machine is ended."""
    found = []
    for run in read_runs():
        if run.state == RUNNING and (cause := death_of(run)):
            end_all_of(run)
            told = f"{cause}, while {run.step}"
            ended = datetime.now(UTC).isoformat(timespec="seconds")
            found.append(write_run(Run(**asdict(run) | {"state": DEAD, "told": told, "ended": ended})))
    return found


def death_of(run: Run) -> str | None:
    """Why the run can't be alive; None if it may be. On this machine the process tells, elsewhere the heartbeat does."""
    if run.host == socket.gethostname():
        return None if process_name(run.pid) == run.process else f"its process {run.pid} is gone"
    with suppress(FileNotFoundError):
        still_s = time.time() - (run.folder / "heartbeat").stat().st_mtime
        return f"no heartbeat from {run.host} for {still_s:.0f} s" if still_s > STILL_S else None
    return f"it has no heartbeat from {run.host}"


def process_name(pid: int) -> str:
    """The moment at which the process started, in the kernel's ticks; empty where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    state, *fields = stat.rpartition(")")[2].split()  # the command before it may hold blanks
    return "" if state == "Z" else fields[18]


def end_all_of(run: Run) -> None:
    """Ends the processes that carry the run's mark: a stage outlives a killed run, and holds the GPU and its lock."""
    if run.host != socket.gethostname():
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + SECONDS_TO_END
        pids = marked(run)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        while (pids := marked(run)) and time.monotonic() < end:
            time.sleep(0.1)
        if not pids:
            return


def marked(run: Run) -> list[int]:
    """Living processes of ours that were started by the run."""
    wanted, found = f"{MARK}={run.run_id}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # somebody else's, or gone meanwhile
            if wanted in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return [pid for pid in found if pid != os.getpid() and process_name(pid)]
