"""A Prefect server and a serving process of our own, to be killed and started again."""

import http
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
PATIENCE_S = 120


def wait_for(look: Callable[[], Any], what: str) -> Any:
    """What `look` returns, as soon as it is true."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.3)
    raise AssertionError(f"{what}: not within {PATIENCE_S} s")


@contextmanager
def process(command: list[str], folder: Path, environment: dict[str, str], log: Path) -> Iterator[None]:
    """A process group that is killed with the block, at once and without a word."""
    with log.open("ab") as handle:
        started = subprocess.Popen(
            [sys.executable, *command], cwd=folder, env=environment, stdout=handle, stderr=handle,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield
    finally:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()


def in_new_process(*command: str, environment: dict[str, str]) -> None:
    """Runs Python with these arguments. Prefect reads its settings while it is imported: this process may have read others."""
    python = [sys.executable, *command]
    done = subprocess.run(python, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def child_environment() -> dict[str, str]:
    """Ours, with the project's modules found from any folder."""
    path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


@contextmanager
def serving(folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """`acclimate deploy --serve` in the folder."""
    with process(["-m", "flows.cli", "deploy", "--serve"], folder, environment, folder.parent / "serve.log"):
        yield


@contextmanager
def server(folder: Path, environment: dict[str, str], port: int) -> Iterator[None]:
    """A server on that port, once it answers; its database is that of PREFECT_HOME."""
    command = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    with process(command, folder, environment, folder.parent / "server.log"):
        wait_for(lambda: is_healthy(port), "Prefect's server")
        yield


def is_healthy(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5).close()
    except (urllib.error.URLError, OSError):
        return False
    return True


def ask(api: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """The server's answer; a POST where there is a body. Asked again while its database is locked, as Prefect's client does."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{api}/{path}", content, {"Content-Type": "application/json"})
    return wait_for(lambda: answered(request), path)[0]


def answered(request: urllib.request.Request) -> tuple[Any] | None:
    """None where the server asks for patience. HTTPError for any other refusal."""
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return (json.load(answer),)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.SERVICE_UNAVAILABLE:
            raise
        return None


def runs_of(api: str, flow: str) -> list[dict[str, Any]]:
    """The flow's runs, the newest first."""
    body = {"flows": {"name": {"any_": [flow]}}, "sort": "EXPECTED_START_TIME_DESC"}
    found: list[dict[str, Any]] = ask(api, "flow_runs/filter", body)
    return found
