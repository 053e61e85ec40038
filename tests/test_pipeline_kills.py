"""The real pipeline on a small sample, killed in every stage. A file of its own: it runs beside test_pipeline.py."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pipeline_clone import STAGES, call

pytestmark = pytest.mark.pipeline


def test_killed_in_every_stage_the_rerun_ends_with_the_same_bytes(
    reference: Path, clone: Path, environment: dict[str, str]
) -> None:
    for stage in STAGES:
        kill_in_stage(clone, environment, stage)
    call(clone, environment, "dvc", "repro", "register_model")
    assert (clone / "dvc.lock").read_bytes() == (reference / "dvc.lock").read_bytes()


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
