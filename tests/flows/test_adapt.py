"""The flow on the toy pipeline; a child process per run, as a person or a schedule starts it."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.dvc_process import dvc_output

pytestmark = pytest.mark.flows
RUN = [sys.executable, "-m", "flows.adapt"]
UNTIL_GO = """\
import os, time
open('pid', 'w').write(str(os.getpid()))
end = time.monotonic() + 90
while not os.path.exists('go') and time.monotonic() < end:
    time.sleep(0.1)
open('b', 'w').write('2')
"""


def run_flow(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(RUN, env=environment, capture_output=True, text=True, check=False)


def last_states(environment: dict[str, str]) -> dict[str, tuple[str, str, str]]:
    """Type, name and message of the last flow run ("adapt") and of its tasks."""
    flow = _query(environment, "flow_runs", {"sort": "START_TIME_DESC", "limit": 1})[0]
    tasks = _query(environment, "task_runs", {"flow_runs": {"id": {"any_": [flow["id"]]}}})
    runs = {"adapt": flow} | {task["name"]: task for task in tasks}
    return {name: (run["state"]["type"], run["state"]["name"], run["state"]["message"]) for name, run in runs.items()}


def wait_for(path: Path) -> str:
    """The text of a file, as soon as there is some."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if path.exists() and (text := path.read_text()):
            return text
        time.sleep(0.05)
    pytest.fail(f"{path.name} was never written")


def test_the_flow_leaves_the_lock_file_of_dvc_repro(
    toy: Callable[[str], Path], flow_environment: dict[str, str]
) -> None:
    plain = toy("plain")
    dvc_output("repro", "register_model")
    flow = toy("flow")
    done = run_flow(flow_environment)
    assert done.returncode == 0, done.stderr
    assert "hello from build" in done.stdout + done.stderr
    assert (flow / "dvc.lock").read_bytes() == (plain / "dvc.lock").read_bytes()
    assert not (flow / "u").exists()


def test_unchanged_and_restored_stages_are_cached(workspace: Path, flow_environment: dict[str, str]) -> None:
    dvc_output("repro", "register_model")
    (workspace / "c").unlink()
    assert run_flow(flow_environment).returncode == 0
    states = last_states(flow_environment)
    assert {name: state[:2] for name, state in states.items()} == {
        "adapt": ("COMPLETED", "Completed"),
        "build_manifest": ("COMPLETED", "Cached"),
        "measure_images": ("COMPLETED", "Cached"),
        "register_model": ("COMPLETED", "Cached"),
    }
    assert "is cached" in states["register_model"][2]


def test_task_and_flow_tell_the_stages_own_reason(workspace: Path, flow_environment: dict[str, str]) -> None:
    (workspace / "measure.py").write_text("import sys\nsys.exit('error: nothing to measure')\n")
    done = run_flow(flow_environment)
    states = last_states(flow_environment)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: measure_images: nothing to measure"
    assert states["measure_images"] == ("FAILED", "Failed", "measure_images: nothing to measure")
    assert states["adapt"] == ("FAILED", "Failed", "measure_images: nothing to measure")
    assert "register_model" not in states


def test_the_flow_waits_for_a_dvc_that_somebody_else_runs(workspace: Path, flow_environment: dict[str, str]) -> None:
    (workspace / "measure.py").write_text(UNTIL_GO)
    with subprocess.Popen([sys.executable, "-m", "dvc", "repro", "-q", "measure_images"]) as other:
        wait_for(workspace / "pid")
        with subprocess.Popen(RUN, env=flow_environment, stderr=subprocess.PIPE, text=True) as flow:
            assert flow.stderr is not None
            assert any("Retry 1/" in line for line in flow.stderr)
            (workspace / "go").touch()
            flow.communicate(timeout=120)
    assert (other.returncode, flow.returncode) == (0, 0)


def test_the_stage_dies_with_the_flow(workspace: Path, flow_environment: dict[str, str]) -> None:
    (workspace / "measure.py").write_text(UNTIL_GO)
    with subprocess.Popen(RUN, env=flow_environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as flow:
        stage = int(wait_for(workspace / "pid"))
        flow.send_signal(signal.SIGTERM)
        flow.communicate(timeout=30)
    with pytest.raises(ProcessLookupError):
        os.kill(stage, 0)
    assert last_states(flow_environment)["adapt"][0] == "CRASHED"


def test_results_become_artifacts(workspace: Path, flow_environment: dict[str, str]) -> None:
    (workspace / "data/audit").mkdir(parents=True)
    (workspace / "data/audit/report.html").write_text("<html></html>")
    rule = {"name": "accuracy by block", "verdict": "inconclusive", "reason": "12 more images | would decide"}
    audit = {"verdict": "inconclusive", "reason": "one rule is undecided", "rules": [rule]}
    (workspace / "data/audit/verdict.json").write_text(json.dumps(audit))
    adopted = {"n": 90, "accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 0.95, "balanced_accuracy": 0.89}
    (workspace / "data/metrics.json").write_text(json.dumps({"adopted": adopted}))
    assert run_flow(flow_environment).returncode == 0
    artifacts = {each["key"]: each["data"] for each in _query(flow_environment, "artifacts", {})}
    assert json.loads(artifacts["metrics"])[0]["interval"] == "0.800 to 0.950"
    assert "12 more images \\| would decide" in artifacts["audit"]
    assert (workspace / "data/audit/report.html").as_uri() in artifacts["report"]
    message = last_states(flow_environment)["adapt"][2]
    assert message == "audit verdict inconclusive: one rule is undecided"


@pytest.mark.slow
def test_no_server_is_needed(workspace: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = run_flow(environment | {"PYTHONPATH": str(Path(__file__).parents[2])})
    assert done.returncode == 0, done.stderr
    assert (workspace / "c").exists()
    assert (workspace / ".prefect" / "prefect.db").exists()


def _query(environment: dict[str, str], table: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"{environment['PREFECT_API_URL']}/{table}/filter",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)
