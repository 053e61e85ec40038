"""The review as a form on Prefect's server: a flow that is suspended until a person answers, and never decides itself."""

import os
from contextlib import chdir
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import flow_run
from prefect.states import Completed, State
from pydantic import Field

from flows.registry import Version, find
from flows.results import audit_paragraph
from flows.review import decide, reviews_folder, subject_of
from flows.review_cli import review_rules, state_of
from tasks.core.files import read_json, write_json
from tasks.core.reviews import PENDING, Review, Vote, closed, read_review
from tasks.core.runtime import acclimate_home

REVIEW = "review"
NEVER_S = 100 * 365 * 24 * 3600  # Prefect wants a limit; time decides nothing
WORDS = r"\S"  # not only blanks


class Decision(RunInput):
    """All rules that the server can check stand in the schema: it looks at nothing else before it resumes the run."""

    decision: Literal["approve", "reject", "withdraw"]
    reviewer: str = Field(min_length=1, max_length=200, pattern=WORDS, description="Who decides")
    role: str = Field("", max_length=200, description="As what, e.g. product owner")
    reason: str = Field(min_length=1, max_length=4000, pattern=WORDS, description="Why; it stays on record")
    override: str = Field("", max_length=4000, description="Why to approve in spite of what speaks against it")


@flow(name=REVIEW, persist_result=False)
def review(candidate: str, workspace: str, home: str) -> State[None]:
    """Completed with who decided. A restart begins anew: what became of each form is kept in the home."""
    os.environ["ACCLIMATE_HOME"] = home
    run_id = str(flow_run.id)
    with chdir(workspace):
        version = find(model_name(), candidate)
        while (found := read_review(reviews_folder(), candidate)).decision == PENDING:
            fates = read_fates(run_id)
            form = Decision.with_initial_data(description=description(version, found, fates))
            said = suspend_flow_run(wait_for_input=form, timeout=NEVER_S, key=f"{REVIEW}-{len(fates) + 1}")
            write_json(fates_path(run_id), [*fates, answer(version, said)])
    return Completed(message=closed(found))


def answer(version: Version, said: Decision) -> str:
    """What became of the form: the review's state, or why the vote was refused."""
    before = read_review(reviews_folder(), version.candidate)
    if any((vote.decision, vote.reviewer, vote.reason) == key_of(said) for vote in before.votes):
        return state_of(before)  # a kill came between the vote and this note of it
    rules = review_rules()
    vote = Vote(
        candidate=version.candidate,
        report_sha256=subject_of(version).report_sha256,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        n_approvals=rules.n_approvals,
        **said.model_dump(include={"decision", "reviewer", "role", "reason", "override"}),
    )
    try:
        return state_of(decide(version, vote, rules))
    except ValueError as error:
        return f"not accepted: {error}"


def key_of(said: Decision) -> tuple[str, str, str]:
    return said.decision, said.reviewer.strip(), said.reason.strip()


def description(version: Version, found: Review, fates: list[str]) -> str:
    """Markdown above the form: what is decided, what speaks against it, what became of the last answer.

    Prefect's page shows four lines before it scrolls: the most needed stand first.
    """
    subject = subject_of(version)
    verdict = read_json(version.folder / "verdict.json", made_by="audit_bias")
    lines = [
        *([f"**The last answer was {fates[-1]}**"] if fates else []),
        f"**{version.name} version {version.number}**, candidate {version.candidate[:12]}, audit {verdict['verdict']}",
        *([f"An approval needs an override: {'; '.join(subject.concerns)}"] if subject.concerns else []),
        f"Report: {version.folder / 'report.html'}",
        f"Why {verdict['verdict']}: {audit_paragraph(verdict)}",
        f"Started by: {subject.started_by or 'not recorded'}. Review: {state_of(found)}",
        f"Report's sha256 {subject.report_sha256}",
    ]
    return "\n\n".join(lines)


def close_decided() -> int:
    """How many suspended forms were closed, their candidates having been decided elsewhere, e.g. on the command line."""
    n_closed = 0
    with get_client(sync_client=True) as client:
        flows = FlowFilter.model_validate({"name": {"any_": [REVIEW]}})
        paused = FlowRunFilter.model_validate({"state": {"type": {"any_": [StateType.PAUSED]}}})
        for run in client.read_flow_runs(flow_filter=flows, flow_run_filter=paused):
            if (found := review_of(run)) and found.decision != PENDING:
                client.set_flow_run_state(run.id, Completed(message=closed(found)), force=True)
                n_closed += 1
    return n_closed


def review_of(run: FlowRun) -> Review | None:
    """The review that the form is about; None where it is kept in another home."""
    if run.parameters.get("home") != str(acclimate_home()):
        return None
    return read_review(reviews_folder(), run.parameters["candidate"])


def fates_path(run_id: str) -> Path:
    return acclimate_home() / "review_forms" / f"{run_id}.json"


def read_fates(run_id: str) -> list[str]:
    """What became of each earlier answer to this form."""
    path = fates_path(run_id)
    return read_json(path, made_by="the review form") if path.exists() else []


def model_name() -> str:
    from tasks.params import read_params

    return read_params().register_model.name
