"""A run that ended without a word is found and marked, and what it left running is ended; living runs stay as they are."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from flows import run_record
from flows.run_record import (
    DEAD,
    MARK,
    NOTHING_NEW,
    RUNNING,
    Run,
    beating,
    marked,
    new_run,
    process_name,
    read_runs,
    sweep,
    write_run,
)  # fmt: skip

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCLIMATE_HOME", str(tmp_path))


def gone() -> Run:
    """A run whose process has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    name = process_name(process.pid)
    process.wait()
    return write_run(replace(new_run(), pid=process.pid, process=name, step="running the stages"))


def test_a_run_is_read_as_it_was_written_the_oldest_first() -> None:
    first = write_run(new_run())
    second = write_run(new_run())
    assert read_runs() == [first, second]
    assert (first.state, first.pid) == (RUNNING, os.getpid())


def test_a_living_run_is_not_swept() -> None:
    run = write_run(new_run())
    assert sweep() == []
    assert read_runs() == [run]


def test_a_run_without_a_process_is_dead_once() -> None:
    run = gone()
    (dead,) = sweep()
    assert dead.state == DEAD
    assert dead.told == f"its process {run.pid} is gone, while running the stages"
    assert read_runs() == [dead]
    assert sweep() == []


def test_another_process_of_the_same_number_is_not_the_run() -> None:
    write_run(replace(new_run(), process="1"))
    assert [run.state for run in sweep()] == [DEAD]


def test_a_finished_run_is_left_as_it_is() -> None:
    run = write_run(replace(gone(), state=NOTHING_NEW))
    assert sweep() == []
    assert read_runs() == [run]


def test_elsewhere_the_heartbeat_tells() -> None:
    here = replace(new_run(), host="elsewhere", pid=1)
    fresh, old = write_run(replace(here, run_id="fresh")), write_run(replace(here, run_id="old"))
    for run, age_s in ((fresh, 0), (old, 301)):
        (run.folder / "heartbeat").touch()
        os.utime(run.folder / "heartbeat", (time.time() - age_s,) * 2)
    (dead,) = sweep()
    assert dead.run_id == "old"
    assert dead.told.startswith("no heartbeat from elsewhere for 301 s")


def test_the_heart_beats_while_the_block_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_record, "BEAT_S", 0.02)
    run = new_run()
    beat = run.folder / "heartbeat"
    with beating(run):
        os.utime(beat, (1, 1))
        end = time.monotonic() + 10
        while beat.stat().st_mtime < 2 and time.monotonic() < end:
            time.sleep(0.01)
        assert beat.stat().st_mtime > 2
    os.utime(beat, (1, 1))
    time.sleep(0.1)
    assert beat.stat().st_mtime == 1


def test_what_a_dead_run_left_running_is_ended_and_nothing_else_is() -> None:
    run = gone()
    with (
        subprocess.Popen(SLEEP, env=os.environ | {MARK: run.run_id}) as left,
        subprocess.Popen(SLEEP, env=os.environ | {MARK: "another"}) as other,
    ):
        end = time.monotonic() + 10
        while marked(run) != [left.pid] and time.monotonic() < end:
            time.sleep(0.01)
        sweep()
        assert left.wait(timeout=10) == -15
        assert other.poll() is None
        other.kill()
