"""The real pipeline on a small sample: Prefect undisturbed and DVC killed in every stage make the same bytes.

A file of its own: it runs beside test_pipeline.py.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pipeline_clone import STAGES, call, fresh_clone

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def by_prefect(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[Path]:
    """A clone in which Prefect has run every stage undisturbed."""
    folder = fresh_clone(tmp_path_factory.mktemp("prefect") / "clone")
    call(folder, environment, "flows.cli", "run", "--engine", "prefect")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_dvc_killed_in_every_stage_ends_with_the_bytes_of_prefect(
    by_prefect: Path, clone: Path, environment: dict[str, str]
) -> None:
    for stage in STAGES:
        kill_in_stage(clone, environment, stage)
    call(clone, environment, "dvc", "repro", "register_model")
    assert (clone / "dvc.lock").read_bytes() == (by_prefect / "dvc.lock").read_bytes()


def test_prefect_runs_nothing_again(by_prefect: Path, environment: dict[str, str]) -> None:
    again = call(by_prefect, environment, "flows.cli", "run", "--engine", "prefect")
    assert again.count("Cached(") >= len(STAGES), again


def kill_in_stage(folder: Path, environment: dict[str, str], stage: str) -> None:
    """kill -9 to DVC and the stage together, a moment after the stage has started its work."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "register_model"], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if f"Running stage '{stage}'" in line:
                break
        else:
            pytest.fail(f"{stage} never started")
        time.sleep(2.5)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
