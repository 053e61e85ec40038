"""Work in processes: the same results in the same order, and what happens when a process dies."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.core import workers
from tasks.core.manifest import content_id_of
from tasks.core.workers import Workers

PIECES = [bytes([k]) * (10 + k) for k in range(200)]
EXPECTED = [content_id_of(piece) for piece in PIECES]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "FEW", 0)


def started(group: Workers) -> list[subprocess.Popen[bytes]]:
    group.results([b"small"])
    assert group._start is not None
    return group._start.result()


def test_results_come_in_order_from_many_threads_and_large_pieces_stay_here() -> None:
    pieces = [*PIECES, b"x" * (workers.SMALL_BYTES + 1), b"y"]
    with Workers(content_id_of, 1) as group, ThreadPoolExecutor(4) as threads:
        (process,) = started(group)
        answers = list(threads.map(group.results, [pieces] * 8))
    assert answers == [[content_id_of(piece) for piece in pieces]] * 8
    assert process.poll() is not None, "it ends with the group"


def test_before_they_run_and_without_any_the_work_is_done_here() -> None:
    with Workers(content_id_of, 0) as group:
        assert group.results(PIECES) == EXPECTED
        assert group._start is None


def test_where_processes_cannot_start_the_work_is_done_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for executable in (str(tmp_path / "gone"), "/bin/false"):
        monkeypatch.setattr(sys, "executable", executable)
        with Workers(content_id_of, 1) as group:
            assert started(group) == []
            assert group.results(PIECES) == EXPECTED


def test_a_process_that_dies_is_told() -> None:
    with Workers(content_id_of, 1) as group:
        (process,) = started(group)
        process.kill()
        for _ in range(2):
            with pytest.raises(ChildProcessError, match=r"a process ended while it worked \(exit code -9\)"):
                group.results(PIECES)


ORPHAN = """
from tasks.core import workers
from tasks.core.manifest import content_id_of
workers.FEW = 0
group = workers.Workers(content_id_of, 1)
group.results([b"small"])
print(group._start.result()[0].pid, flush=True)
input()
"""


def test_a_killed_run_leaves_no_processes_behind() -> None:
    project = Path(__file__).parents[2]
    command = [sys.executable, "-c", ORPHAN]
    with subprocess.Popen(command, cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        run.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(pid)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
