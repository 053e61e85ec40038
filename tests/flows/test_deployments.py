"""Deployments on a real Prefect server: schedule, event, one at a time; retraining as a flow ends with an open form."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from made_registry import NAME, git
from prefect_server import ask, child_environment, free_port, in_new_process, runs_of, server, serving, wait_for
from typer.testing import CliRunner

from flows.cli import app
from flows.registry import versions

pytest_plugins = ("registry_fixtures", "retrain_repository")
pytestmark = [pytest.mark.flows, pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")]


@pytest.mark.slow
def test_drift_starts_a_run_that_opens_a_form(project: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    monkeypatch.setenv("PREFECT_HOME", str(home / "prefect"))
    monkeypatch.setenv("PREFECT_API_URL", api)
    environment = child_environment()
    with ExitStack() as running:
        running.enter_context(server(project, environment, port))
        running.enter_context(serving(project, environment))
        wait_for(lambda: len(ask(api, "deployments/filter", {})) == 2, "both deployments")
        (retraining,) = [each for each in ask(api, "deployments/filter", {}) if each["schedules"]]
        assert retraining["schedules"][0]["schedule"]["cron"] == "0 3 * * 1"
        assert retraining["concurrency_limit"] == 1 or retraining["global_concurrency_limit"]["limit"] == 1
        wait_for(lambda: runs_of(api, "retrain"), "the scheduled runs")
        assert {run["state"]["type"] for run in runs_of(api, "retrain")} == {"SCHEDULED"}
        assert all(run["expected_start_time"][11:16] == "03:00" for run in runs_of(api, "retrain"))
        wait_for(lambda: len(ask(api, "automations/filter", {})) == 4, "the triggers")
        names = {each["name"] for each in ask(api, "automations/filter", {})}
        assert names == {
            "retrain on drift", "runs without a heartbeat for 600 s", "crashed review forms",
            "review forms that keep crashing",
        }  # fmt: skip
        emit(environment)
        wait_for(lambda: [run for run in runs_of(api, "retrain") if run["state"]["type"] == "COMPLETED"], "the run")
        (done,) = [run for run in runs_of(api, "retrain") if run["state"]["type"] == "COMPLETED"]
        (version,) = versions(NAME)
        assert done["state"]["name"] == "Done"
        assert done["state"]["message"].startswith(f"digits version 1, candidate {version.candidate[:12]} is on the")
        wait_for(lambda: [r["state"]["name"] for r in runs_of(api, "review")] == ["Suspended"], "the form")
        assert runs_of(api, "review")[0]["parameters"]["candidate"] == version.candidate
        assert f"acclimate/{version.candidate[:12]}" in git("branch")


def emit(environment: dict[str, str]) -> None:
    """The event that `acclimate monitor` emits."""
    code = (
        "from prefect.events import emit_event\n"
        "from prefect.events.worker import EventsWorker\n"
        "emit_event('acclimate.drift', {'prefect.resource.id': 'acclimate.model.digits'})\n"
        "EventsWorker.drain_all(timeout=30)"
    )
    in_new_process("-c", code, environment=environment)


def test_without_a_server_it_is_said_what_to_start(project: Path) -> None:
    done = CliRunner().invoke(app, ["deploy"])
    assert done.exit_code == 1
    assert "PREFECT_API_URL is not set; start `prefect server start --host 127.0.0.1`" in done.stderr
