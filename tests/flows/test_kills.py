"""kill -9 at the points where something waits: no decision is lost or doubled, no run stays running, the next one starts.

docs/LOG.md says which point is tested where.
"""

import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from made_models import champion_model, registered_model
from made_registry import NAME, git, registered
from prefect_server import (
    PROJECT,
    ask,
    child_environment,
    free_port,
    in_new_process,
    runs_of,
    server,
    serving,
    wait_for,
)
from receivers import web_receiver

from flows.environment import settle_prefect
from flows.registry import versions
from flows.review import Statement, decide, promote, reviews_folder, subject_of
from flows.run_record import DEAD, DONE, process_name, read_runs
from tasks.core.reviews import APPROVE, ReviewRules, Vote, read_review

pytest_plugins = ("registry_fixtures", "retrain_repository")
pytestmark = [
    pytest.mark.flows, pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")
]  # fmt: skip
TIME = "2026-11-21T10:00:00+00:00"
SAID = {"decision": "approve", "reviewer": "bob", "reason": "better on every group"}
WAITING = """\
import os, pathlib, time
pathlib.Path("data").mkdir(exist_ok=True)
pathlib.Path(os.environ["ACCLIMATE_HOME"], "pid").write_text(str(os.getpid()))
time.sleep(300)
"""
LAST_SIGN = """\
import sys
from flows.deployments import HEARTBEAT, keep_no_dead_runs
from prefect.events import emit_event
from prefect.events.worker import EventsWorker
keep_no_dead_runs(10)
emit_event(HEARTBEAT, resource={"prefect.resource.id": f"prefect.flow-run.{sys.argv[1]}"})
EventsWorker.instance().drain()
"""
NO_LONGER = """\
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    (made,) = client.read_automations_by_name("runs without a heartbeat for 10 s")
    client.delete_automation(made.id)
"""


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def processes_of(run: str) -> list[int]:
    """Living processes that Prefect's runner started for this flow run."""
    mark, found = f"PREFECT__FLOW_RUN_ID={run}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return [pid for pid in found if process_name(pid)]


def state_of(api: str, run: str) -> str:
    return str(ask(api, f"flow_runs/{run}")["state"]["type"])


def until(api: str, run: str, kind: str) -> None:
    """Returns as soon as the flow run is in a state of that kind."""
    try:
        wait_for(lambda: state_of(api, run) == kind, kind)
    except AssertionError:
        pytest.fail(f"not {kind} but {ask(api, f'flow_runs/{run}')['state']}")


def start(api: str, flow: str, **parameters: Any) -> str:
    """The id of a new run of the flow's deployment."""
    body = {"flows": {"name": {"any_": [flow]}}}
    (deployment,) = wait_for(lambda: ask(api, "deployments/filter", body), "the deployment")
    path = f"deployments/{deployment['id']}/create_flow_run"
    return str(ask(api, path, {"parameters": deployment["parameters"] | parameters})["id"])


@contextmanager
def registry_lock(home: Path) -> Iterator[None]:
    """Whoever asks the registry waits."""
    with (home / "locks/registry.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def test_server_runner_retraining_and_form_are_killed(
    project: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    monkeypatch.setenv("PREFECT_HOME", str(home / "prefect"))
    monkeypatch.setenv("PREFECT_API_URL", api)
    environment = child_environment()
    build = (project / "build.py").read_text()
    (project / "build.py").write_text(WAITING)
    git("commit", "-q", "-am", "a stage that waits")
    with server(project, environment, port), serving(project, environment):
        killed = start(api, "retrain")
        stage = int(wait_for(lambda: (home / "pid").exists() and (home / "pid").read_text(), "the stage"))
        (run,) = read_runs()
        frozen = {run.pid, *processes_of(killed)} - {stage}  # the stage carries the run's mark, too
        for pid in frozen:  # so that none of them sees the server go and ends the stage by itself
            os.kill(pid, signal.SIGSTOP)
    for pid in frozen:  # server and runner are gone already
        kill(pid)
    assert process_name(stage)  # it outlived them all
    (project / "build.py").write_text(build)
    git("commit", "-q", "-am", "and one that doesn't")
    with server(project, environment, port), serving(project, environment):
        assert state_of(api, killed) == "RUNNING"
        with last_sign_of(killed, environment):
            until(api, killed, "CRASHED")  # before that the next run would wait for its place
        until(api, start(api, "retrain"), "COMPLETED")
        assert [each.state for each in read_runs()] == [DEAD, DONE]
        assert not process_name(stage)
        (version,) = versions(NAME)
        wait_for(lambda: [each["state"]["name"] for each in runs_of(api, "review")] == ["Suspended"], "the form")
        form = runs_of(api, "review")[0]["id"]
        with registry_lock(home):
            assert ask(api, f"flow_runs/{form}/resume", {"run_input": SAID})["status"] == "ACCEPT"
            until(api, form, "RUNNING")
            for pid in processes_of(form):  # it has the answer, and has not voted yet
                kill(pid)
            wait_for(lambda: state_of(api, form) != "RUNNING", "the runner's notice of the kill")
        until(api, form, "COMPLETED")
    (vote,) = read_review(reviews_folder(), version.candidate).votes
    assert (vote.decision, vote.reviewer, vote.reason) == (APPROVE, "bob", "better on every group")


@contextmanager
def last_sign_of(run: str, environment: dict[str, str]) -> Iterator[None]:
    """For a server that waits ten minutes after a run's last heartbeat: in the block it waits ten seconds after this one."""
    in_new_process("-c", LAST_SIGN, run, environment=environment)
    yield
    in_new_process("-c", NO_LONGER, environment=environment)  # living runs are silent for longer


def test_an_answer_whose_vote_was_cast_before_the_kill_is_not_cast_again(home: Path, tmp_path: Path) -> None:
    settle_prefect()
    from flows.review_flow import Decision, answer

    version = registered(tmp_path, "aa")
    report = subject_of(version).report_sha256
    vote = Vote(version.candidate, APPROVE, "bob", "", SAID["reason"], "", report, TIME, 1)
    decide(version, vote, ReviewRules(1, allow_starter=True))
    assert "approved" in answer(version, Decision.model_validate(SAID))
    assert read_review(reviews_folder(), version.candidate).votes == (vote,)


def test_a_run_killed_while_it_tells_people_is_followed_by_one_that_tells_them(
    project: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-m", "flows.cli", "retrain"]
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes the message and never answers
        hook = f"http://127.0.0.1:{mute.getsockname()[1]}/hook"
        environment = child_environment() | {"ACCLIMATE_WEBHOOK": hook}
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
            mute.settimeout(120)
            connection, _ = mute.accept()
            run.kill()
        connection.close()
    (version,) = versions(NAME)
    with web_receiver() as (address, received):
        subprocess.run(
            command, env=child_environment() | {"ACCLIMATE_WEBHOOK": address}, check=True, capture_output=True
        )
    assert [message["candidate"] for message in received] == [version.candidate]
    assert read_runs()[0].state == DEAD
    assert [each.number for each in versions(NAME)] == ["1"]
    assert git("branch", "--list", "acclimate/*").split() == [f"acclimate/{version.candidate[:12]}"]


@contextmanager
def service(port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`acclimate serve`, once it answers; killed with the block."""
    command = [sys.executable, "-m", "flows.cli", "serve", "--port", str(port), "--follow-every", "60"]
    with log.open("ab") as handle:
        process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(PROJECT)}, stderr=handle)
    try:
        wait_for(lambda: answers(port), "the service")
        yield process
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx.TransportError:
        return False


def test_a_service_killed_with_a_request_in_hand_comes_back_with_the_champion_of_the_day(
    home: Path, tmp_path: Path
) -> None:
    first, port = champion_model(tmp_path, "a"), free_port()
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nab"
    with service(port, tmp_path / "log") as process, socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(head)
        second = registered_model(tmp_path, "b")
        promote(second, Statement("ann", "", "better"), time=TIME, tell=lambda _: None)  # it hasn't looked yet
        assert httpx.get(f"http://127.0.0.1:{port}/health").json()["version"] == first.number
        process.kill()
        client.settimeout(30)
        with suppress(ConnectionResetError):
            assert client.recv(100) == b""  # no half answer
    with service(port, tmp_path / "log"):
        health = httpx.get(f"http://127.0.0.1:{port}/health").json()
    assert (health["status"], health["version"]) == ("serving", second.number)
    assert "Traceback" not in (tmp_path / "log").read_text()
