import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.run_lock import lock_holder, run_lock

HOLD = """
import sys, time
from pathlib import Path
from flows.run_lock import run_lock
with run_lock(Path(sys.argv[1]), Path(sys.argv[2]), tell=lambda message: None):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "home"), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_waits_and_is_told_once_who_holds_it(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    told: list[str] = []
    threading.Timer(0.5, holder.kill).start()
    with run_lock(tmp_path / "home", tmp_path, tell=told.append):
        assert holder.wait() == -signal.SIGKILL
    assert len(told) == 1
    assert f"pid {holder.pid} on " in told[0]
    assert " since 20" in told[0]


def test_a_dead_holder_does_not_block(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    with run_lock(tmp_path / "home", tmp_path, tell=pytest.fail):
        pass


def test_the_holder_is_named_only_while_it_holds(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    assert f"pid {holder.pid} " in (lock_holder(tmp_path / "home", tmp_path) or "")
    holder.kill()
    holder.wait()
    assert lock_holder(tmp_path / "home", tmp_path) is None


def test_workspaces_do_not_wait_for_each_other(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    assert holder.pid != os.getpid()
    with run_lock(tmp_path / "home", tmp_path / "other", tell=pytest.fail):
        pass
