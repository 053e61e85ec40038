"""`acclimate review …` and `acclimate promote`: a person decides, and what was approved becomes champion."""

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.data_cli import plain_errors
from flows.registry_cli import Which, model_name, now, show_table, warn

if TYPE_CHECKING:
    from tasks.core.reviews import Review, ReviewRules

# Everything heavier is imported by the command that needs it: `acclimate --help` answers at once.

review = typer.Typer(help="Decisions on candidates: the first one stands.", no_args_is_help=True)

Reason = Annotated[str, typer.Option(help="Why; it stays on record.")]
By = Annotated[str | None, typer.Option("--reviewer", help="Who decides; the login name if not said.")]
Role = Annotated[str, typer.Option(help="As what, e.g. 'product owner'.")]
Override = Annotated[str, typer.Option(help="Why to approve in spite of the verdict; stays on record.")]
Shown = Annotated[
    str | None,
    typer.Option("--report-sha256", help="Refuse unless the report is this one; the first 12 letters will do."),
]
MIN_SHOWN = 12


def add_commands(app: typer.Typer) -> None:
    """Nothing; the app knows our commands afterwards."""
    app.add_typer(review, name="review")
    app.command()(promote)


def person_of(said: str | None) -> str:
    """Who decides. ValueError where neither it, the login name nor git's e-mail address is known."""
    from tasks.register_model import person

    name = person() if said is None else said
    if not name.strip() or name == "unknown":
        raise ValueError("it is not known who you are; say it with --reviewer NAME (--by NAME for a rollback)")
    return name


def review_rules() -> "ReviewRules":
    from tasks.core.reviews import ReviewRules
    from tasks.params import read_params

    return ReviewRules(**read_params().review.model_dump())


@review.command("list")
def list_reviews(
    everything: Annotated[bool, typer.Option("--all", help="Those that were decided, too.")] = False,
) -> None:
    """Shows the candidates that wait for a decision."""
    from flows.registry import versions
    from flows.review import reviews_folder
    from tasks.core.reviews import PENDING, read_review

    with plain_errors():
        name = model_name()
        rows = []
        for each in versions(name):
            found = read_review(reviews_folder(), each.candidate)
            if everything or found.decision == PENDING:
                told = [each.tags.get(key, "") for key in ("verdict", "decision", "started_by")]
                rows.append([each.number, each.candidate[:12], *told, state_of(found)])
    if not rows:
        typer.echo(
            f"no candidate of {name} waits for a decision" + ("" if everything else "; --all shows decided ones")
        )
        return
    columns = ["version", "candidate", "verdict", "decision", "started by", "review"]
    show_table(f"{name}: reviews", columns, rows)


def state_of(found: "Review") -> str:
    """In words: pending with its approvals, or who decided."""
    from tasks.core.reviews import DONE, PENDING

    if found.decision != PENDING:
        names = ", ".join(vote.reviewer for vote in found.votes if vote.decision == found.decision)
        return f"{DONE[found.decision]} by {names}"
    return f"pending, {len(found.votes)} of {found.votes[0].n_approvals} approvals" if found.votes else "pending"


@review.command()
def show(which: Which) -> None:
    """Shows what is to be decided, the report with its hash, and every vote with its reason and override."""
    from flows.registry import find
    from flows.results import audit_paragraph
    from flows.review import REPORT, reviews_folder, subject_of
    from tasks.core.files import read_json
    from tasks.core.reviews import one_line, read_review

    with plain_errors():
        version = find(model_name(), which)
        subject = subject_of(version)
        found = read_review(reviews_folder(), version.candidate)
        verdict = read_json(version.folder / "verdict.json", made_by="audit_bias")
        typer.echo(f"{version.name} version {version.number}, candidate {version.candidate}")
        typer.echo(f"review: {state_of(found)}")
        typer.echo(f"audit: {verdict['verdict']}: {audit_paragraph(verdict)}")
        typer.echo(f"adoption: {version.tags.get('decision', '')}, the model is {version.tags.get('adopted', '')}")
        if subject.concerns:
            typer.echo(f"an approval needs an override: {'; '.join(subject.concerns)}")
        typer.echo(f"started by: {subject.started_by or 'not recorded'}")
        typer.echo(f"report: {version.folder / REPORT}")
        typer.echo(f"report sha256: {subject.report_sha256}")
        for vote in found.votes:
            typer.echo(f"{vote.decision} by {vote.reviewer}{f' ({vote.role})' if vote.role else ''} at {vote.time}")
            typer.echo(f"  reason: {one_line(vote.reason)}")
            typer.echo(f"  report seen: {vote.report_sha256}")
            if vote.override:
                typer.echo(f"  override: {one_line(vote.override)}")


@review.command()
def approve(
    which: Which, reason: Reason, reviewer: By = None, role: Role = "", override: Override = "", shown: Shown = None
) -> None:
    """Approves a candidate, so that it may be promoted."""
    vote("approve", which, {"reviewer": reviewer, "role": role, "reason": reason, "override": override}, shown)


@review.command()
def reject(which: Which, reason: Reason, reviewer: By = None, role: Role = "", shown: Shown = None) -> None:
    """Rejects a candidate for good."""
    vote("reject", which, {"reviewer": reviewer, "role": role, "reason": reason, "override": ""}, shown)


@review.command()
def withdraw(which: Which, reason: Reason, reviewer: By = None, role: Role = "", shown: Shown = None) -> None:
    """Takes a candidate out of review for good, e.g. because a better one is on its way."""
    vote("withdraw", which, {"reviewer": reviewer, "role": role, "reason": reason, "override": ""}, shown)


def vote(decision: str, which: str, said: dict[str, Any], shown: str | None) -> None:
    """Prints the review's state after the vote, and which report it was about."""
    from flows.registry import find
    from flows.review import REPORT, decide, subject_of
    from tasks.core.reviews import Vote

    with plain_errors():
        rules, version = review_rules(), find(model_name(), which)
        report_sha256 = subject_of(version).report_sha256
        if shown is not None and (len(shown) < MIN_SHOWN or not report_sha256.startswith(shown)):
            raise ValueError(
                f"--report-sha256 {shown}: the report of version {version.number} has {report_sha256}; read it"
            )
        said = said | {"reviewer": person_of(said["reviewer"]), "report_sha256": report_sha256, "time": now()}
        ballot = Vote(candidate=version.candidate, decision=decision, n_approvals=rules.n_approvals, **said)
        found = decide(version, ballot, rules)
    close_forms()
    typer.echo(f"{version.name} version {version.number}: {state_of(found)}")
    typer.echo(f"on the report {version.folder / REPORT}, sha256 {report_sha256}")


def close_forms() -> None:
    """Nothing: forms of decided candidates are closed on Prefect's server, where one is set; the decision stands without."""
    if "PREFECT_API_URL" not in os.environ:
        return
    from flows.environment import settle_prefect

    settle_prefect()
    from httpx import HTTPError  # how Prefect's client says that it reaches no server

    from flows.review_flow import close_decided

    try:
        close_decided()
    except HTTPError as error:
        warn(f"the form on Prefect's server stays open until the next retraining: {error}")


def promote(
    which: Which,
    reason: Annotated[str | None, typer.Option(help="Why now; the review's reason if not said.")] = None,
    by: Annotated[str | None, typer.Option(help="Who promotes; the login name if not said.")] = None,
    role: Role = "",
) -> None:
    """Makes an approved candidate the champion."""
    from flows.registry import find
    from flows.review import Statement, approved
    from flows.review import promote as make_champion

    with plain_errors():
        version = find(model_name(), which)
        words = reason or "; ".join(vote.reason for vote in approved(version).votes)
        typer.echo(make_champion(version, Statement(person_of(by), role, words), time=now(), tell=warn))
