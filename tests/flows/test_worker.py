"""A work pool of processes: `acclimate deploy` puts retraining there, and a real worker runs it in the workspace."""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from made_registry import NAME, git
from prefect_server import ask, child_environment, free_port, process, runs_of, server, wait_for

from flows.registry import versions

pytest_plugins = ("registry_fixtures", "retrain_repository")
pytestmark = [pytest.mark.flows, pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")]


@pytest.mark.slow
def test_a_worker_runs_what_was_deployed(project: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    monkeypatch.setenv("PREFECT_HOME", str(home / "prefect"))
    monkeypatch.setenv("PREFECT_API_URL", api)
    environment = child_environment() | {"PREFECT_WORKER_QUERY_SECONDS": "1"}
    worker = ["-m", "prefect", "worker", "start", "--pool", "acclimate"]
    with ExitStack() as running:
        running.enter_context(server(project, environment, port))
        told = subprocess.run(
            [sys.executable, "-m", "flows.cli", "deploy"], cwd=project, env=environment, capture_output=True, text=True,
            check=True,
        ).stdout  # fmt: skip
        assert "start `prefect worker start --pool acclimate`" in told
        assert ask(api, "work_pools/acclimate")["type"] == "process"
        running.enter_context(process(worker, home, environment, home / "worker.log"))  # not in the workspace
        deployment = ask(api, "deployments/name/retrain/acclimate")["id"]
        started = ask(api, f"deployments/{deployment}/create_flow_run", {})["id"]
        wait_for(lambda: ask(api, f"flow_runs/{started}")["state"]["type"] == "RUNNING", "the worker's pick")
        state = wait_for(lambda: ended(api, started), "the run's end")
        (version,) = versions(NAME)
        assert state["name"] == "Done", state["message"]
        assert state["message"].startswith(f"digits version 1, candidate {version.candidate[:12]} is on the branch")
        assert f"acclimate/{version.candidate[:12]}" in git("branch")
        wait_for(lambda: [run["state"]["name"] for run in runs_of(api, "review")] == ["Suspended"], "the form")


def ended(api: str, run: str) -> dict[str, Any] | None:
    """The run's state once it is a last one."""
    state: dict[str, Any] = ask(api, f"flow_runs/{run}")["state"]
    return state if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None
