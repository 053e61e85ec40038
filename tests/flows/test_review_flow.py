"""The review form on a real Prefect server: nothing is decided by wrong input, a restart or time; the first decision stands."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from made_registry import registered
from prefect_server import ask, child_environment, free_port, in_new_process, runs_of, server, serving, wait_for
from pydantic import ValidationError

from flows.environment import settle_prefect
from flows.review import reviews_folder, subject_of
from tasks.core.reviews import APPROVE, REJECT, read_review

pytest_plugins = ("registry_fixtures",)
pytestmark = [
    pytest.mark.flows, pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")
]  # fmt: skip
SAID = {"decision": "approve", "reviewer": "bob", "reason": "better on every group"}
REJECTED = ("--reviewer", "ann", "--reason", "worse")


class Forms:
    """The forms of a server, as a person sees them."""

    def __init__(self, api: str) -> None:
        self.api = api

    def open(self, deployment: str, candidate: str) -> str:
        """The id of a new form's flow run."""
        run = ask(self.api, f"deployments/{deployment}/create_flow_run", {"parameters": {"candidate": candidate}})
        return str(run["id"])

    def state(self, run: str) -> tuple[str, str, str]:
        state = ask(self.api, f"flow_runs/{run}")["state"]
        return state["type"], state["name"], state["message"] or ""

    def until(self, run: str, kind: str) -> str:
        """The message, once the run is in that state."""
        wait_for(lambda: self.state(run)[0] == kind, f"{kind}, it is {self.state(run)}")
        return self.state(run)[2]

    def description(self, run: str) -> str:
        keyset = ask(self.api, f"flow_runs/{run}")["state"]["state_details"]["run_input_keyset"]
        return str(ask(self.api, f"flow_runs/{run}/input/{keyset['description']}"))

    def send(self, run: str, **changes: Any) -> Any:
        return ask(self.api, f"flow_runs/{run}/resume", {"run_input": SAID | changes})


def crash_for_ever(forms: Forms, run: str) -> None:
    """The process of the form dies whenever the server has begun it anew."""
    for _ in range(5):
        crash(forms, run)
        wait_for(lambda: forms.state(run)[1] == "AwaitingRetry", f"the restart of {forms.state(run)}")
    crash(forms, run)
    assert forms.until(run, "FAILED") == (
        "its process crashed 6 times in a day, so it isn't begun anew: the log of that process says why; decide with "
        "`acclimate review approve` or `acclimate review reject`"
    )


def crash(forms: Forms, run: str) -> None:
    ask(forms.api, f"flow_runs/{run}/set_state", {"state": {"type": "CRASHED", "name": "Crashed"}, "force": True})


def test_a_form_decides_once_whatever_is_killed(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = registered(tmp_path, "aa", verdict="fail"), registered(tmp_path, "bbb")
    workspace, port = Path.cwd(), free_port()
    api = f"http://127.0.0.1:{port}/api"
    for name, value in {"PREFECT_API_URL": api, "PREFECT_HOME": str(tmp_path / "prefect")}.items():
        monkeypatch.setenv(name, value)
    environment = child_environment()
    forms = Forms(api)
    with ExitStack() as first:
        first.enter_context(server(workspace, environment, port))
        first.enter_context(serving(workspace, environment))
        deployment = wait_for(
            lambda: [each["id"] for each in ask(api, "deployments/filter", {}) if "candidate" in
                     each["parameter_openapi_schema"]["properties"]], "the deployment"
        )[0]  # fmt: skip
        run, other = forms.open(deployment, bad.candidate), forms.open(deployment, good.candidate)
        forms.until(run, "PAUSED")
        assert f"sha256 {subject_of(bad).report_sha256}" in forms.description(run)
        for changes in ({"reason": ""}, {"reason": "  "}, {"decision": "maybe"}, {"reviewer": None}):
            assert forms.send(run, **changes)["status"] == "REJECT"
        assert forms.state(run)[0] == "PAUSED"
        assert forms.send(run)["status"] == "ACCEPT"  # the schema is content, the rules are not: an override is missing
        wait_for(lambda: forms.state(run)[0] == "PAUSED" and "not accepted" in forms.description(run), "the form again")
        assert "the audit's verdict is fail: to approve it all the same, write why" in forms.description(run)
        assert read_review(reviews_folder(), bad.candidate).votes == ()
        forms.until(other, "PAUSED")
    with server(workspace, environment, port):  # the server's and the runner's processes were killed
        assert forms.state(run)[0] == "PAUSED"
        broken = forms.open(deployment, good.candidate)
        crash_for_ever(forms, broken)
        assert forms.send(run, override="the group is not served")["status"] == "ACCEPT"
        in_new_process("-m", "flows.cli", "review", "reject", good.candidate, *REJECTED, environment=environment)
        kind, _, message = forms.state(other)
        assert (kind, "was rejected by ann" in message) == ("COMPLETED", True)
        assert forms.send(other)["status"] == "ABORT"
        with serving(workspace, environment):
            assert "was approved by bob" in forms.until(run, "COMPLETED")
        ended = {each["id"]: each["state"]["type"] for each in runs_of(api, "review")}
        assert ended == {run: "COMPLETED", other: "COMPLETED", broken: "FAILED"}
    (kept,) = read_review(reviews_folder(), bad.candidate).votes
    assert (kept.decision, kept.reviewer, kept.override) == (APPROVE, "bob", "the group is not served")
    assert [vote.decision for vote in read_review(reviews_folder(), good.candidate).votes] == [REJECT]


@pytest.mark.parametrize(
    "wrong", [{"reason": " \n"}, {"reviewer": ""}, {"decision": "promote"}, {"reason": "x" * 4001}]
)
def test_every_rule_stands_in_the_schema(wrong: dict[str, str]) -> None:
    settle_prefect()
    from flows.review_flow import Decision

    assert Decision(**SAID).role == ""
    with pytest.raises(ValidationError):
        Decision(**SAID | wrong)
    schema = Decision.model_json_schema()
    assert schema["required"] == ["decision", "reviewer", "reason"]
    assert schema["properties"]["reason"]["pattern"] == r"\S"
    assert schema["properties"]["decision"]["enum"] == ["approve", "reject", "withdraw"]
