"""A toy workspace of three stages, and one Prefect server for all tests that need one."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.dvc_process import dvc_output

PROJECT = Path(__file__).parents[2]
PIPELINE = """\
stages:
  build_manifest:
    cmd: python -c "print('hello from build'); open('a', 'w').write('1')"
    outs: [a]
  measure_images:
    cmd: python measure.py
    deps: [a, measure.py]
    outs: [b]
  unrelated:
    cmd: python -c "open('u', 'w').write('u')"
    outs: [u]
  register_model:
    cmd: python -c "open('c', 'w').write(open('a').read() + open('b').read())"
    deps: [a, b]
    outs: [c]
"""
MEASURE = "open('b', 'w').write(open('a').read() + '2')\n"


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that has never run, made once: git and DVC take seconds to start."""
    folder = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        subprocess.run(["git", "init", "-q"], check=True)
        dvc_output("init", "-q")
        dvc_output("config", "core.analytics", "false")
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "measure.py").write_text(MEASURE)
    (folder / "data/given").mkdir(parents=True)
    for name in ("labels.csv", "accepted_profile.json"):
        (folder / "data/given" / name).touch()
    return folder


@pytest.fixture
def toy(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes a workspace with the given name and goes there."""

    def make(name: str) -> Path:
        folder = shutil.copytree(template, tmp_path / name)
        monkeypatch.chdir(folder)
        for variable in ("ACCLIMATE_HOME", "PREFECT_HOME"):
            monkeypatch.delenv(variable, raising=False)
        return folder

    return make


@pytest.fixture
def workspace(toy: Callable[[str], Path]) -> Path:
    return toy("workspace")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API address of a Prefect server that all tests share."""
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--no-ui",
    ]
    environment = os.environ | {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}/api/health", process)
        yield f"http://127.0.0.1:{port}/api"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_until_healthy(address: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
        else:
            return
    pytest.fail(f"Prefect's server did not start (exit code {process.poll()})")


@pytest.fixture
def flow_environment(server: str, tmp_path: Path) -> dict[str, str]:
    """The environment of a child that runs the flow against the shared server."""
    return os.environ | {
        "PREFECT_API_URL": server,
        "PYTHONPATH": str(PROJECT),
        "PREFECT_HOME": str(tmp_path / "prefect"),
    }
