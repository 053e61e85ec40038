"""`acclimate registry …`: what is registered, what was champion when, and the way back."""

from datetime import UTC, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.data_cli import plain_errors

if TYPE_CHECKING:
    from tasks.core.promotions import Event

# Everything heavier is imported by the command that needs it: `acclimate --help` answers at once.

registry = typer.Typer(help="The model registry: versions, lineage, champions.", no_args_is_help=True)

Which = Annotated[str, typer.Argument(help="A version's number, an alias, or the first 8 letters of a candidate id.")]
WIDE = 160


def add_commands(app: typer.Typer) -> None:
    """Nothing; the app knows our commands afterwards."""
    app.add_typer(registry, name="registry")


def model_name() -> str:
    """The registered model's name, with every tool's telemetry off."""
    from tasks.core.runtime import quiet_tools
    from tasks.params import read_params

    quiet_tools()
    return read_params().register_model.name


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def warn(message: str) -> None:
    typer.echo(message, err=True)


def show_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Prints a table; away from a terminal it is wide enough not to break ids."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDE)
    console.print(table)


@registry.command()
def sync() -> None:
    """Registers the last run's bundle if need be, mends damaged copies, and completes an interrupted promotion."""
    from flows.registry import replace_damaged
    from flows.registry import sync as sync_bundle
    from flows.review import CHAMPION_FOLDER, settle

    with plain_errors():
        name, bundle = model_name(), Path("data/bundle")
        if (CHAMPION_FOLDER / "manifest.json").exists() and (mended := replace_damaged(CHAMPION_FOLDER)):
            typer.echo(mended)
        if bundle.exists():
            typer.echo(sync_bundle(bundle, name))
        else:
            typer.echo(f"there is no {bundle} here to register; `acclimate run` makes it")
        for line in settle(name, tell=warn):
            typer.echo(line)


@registry.command("list")
def list_versions() -> None:
    """Shows every version with its aliases, verdict and review."""
    from flows.chosen_model import CHAMPION
    from flows.registry import versions
    from flows.review import reviews_folder
    from tasks.core.reviews import DONE, read_review

    with plain_errors():
        name = model_name()
        rows = []
        for each in versions(name):
            found = read_review(reviews_folder(), each.candidate)
            told = [each.tags.get(key, "") for key in ("verdict", "decision", "adopted")]
            # votes lie in one home, versions in the team's registry
            unseen = CHAMPION in each.aliases and not found.votes
            review = "votes are not here" if unseen else DONE.get(found.decision, found.decision)
            rows.append([each.number, each.candidate[:12], ", ".join(each.aliases), *told, review, each.registered])
        columns = ["version", "candidate", "aliases", "verdict", "decision", "adopted", "review", "registered"]
        show_table(name, columns, rows)


@registry.command()
def show(which: Which) -> None:
    """Shows all that is recorded of one version: tags, votes, and when it was champion."""
    from flows.registry import find, promotions_path
    from flows.review import reviews_folder
    from tasks.core.promotions import read_promotions
    from tasks.core.reviews import one_line, read_review

    with plain_errors():
        version = find(model_name(), which)
        typer.echo(f"{version.name} version {version.number}, registered {version.registered}")
        typer.echo(f"aliases: {', '.join(version.aliases) or 'none'}")
        typer.echo(f"bundle: {version.folder}" + ("" if version.folder.is_dir() else " (not here)"))
        for key, value in sorted(version.tags.items()):
            typer.echo(f"{key}: {value}")
        for vote in read_review(reviews_folder(), version.candidate).votes:
            override = f"; override: {one_line(vote.override)}" if vote.override else ""
            typer.echo(f"vote: {vote.decision} by {vote.reviewer} at {vote.time}: {one_line(vote.reason)}{override}")
        for event in read_promotions(promotions_path(), version.name):
            if event.candidate == version.candidate:
                typer.echo(f"{event.event.replace('_', ' ')} at {event.time} by {event.by}: {one_line(event.reason)}")


@registry.command()
def fetch(which: Which) -> None:
    """Brings a version's bundle from DVC's remote to this machine, checked to the byte."""
    from flows.fetch import fetch as fetch_bundle
    from flows.registry import find

    with plain_errors():
        typer.echo(fetch_bundle(find(model_name(), which), tell=warn))


@registry.command()
def diff(a: Which, b: Which) -> None:
    """Shows all in which two versions differ: lineage, figures, parameters, files."""
    from flows.registry import differences, find

    with plain_errors():
        name = model_name()
        first, second = find(name, a), find(name, b)
        columns = ["what", f"version {first.number}", f"version {second.number}"]
        show_table(f"{name}: differences", columns, [list(row) for row in differences(first, second)])


@registry.command()
def history() -> None:
    """Shows every promotion and rollback, the oldest first."""
    from flows.registry import promotions_path
    from tasks.core.promotions import read_promotions

    with plain_errors():
        name = model_name()
        events = read_promotions(promotions_path(), name)
        columns = ["time", "event", "version", "candidate", "before it", "by", "approved by", "reason"]
        show_table(f"{name}: champions", columns, [event_row(event) for event in events])


def event_row(event: "Event") -> list[str]:
    """A line of the history: who moved the champion, and who had approved it, each with the role that they gave."""
    from flows.review import reviews_folder
    from tasks.core.reviews import APPROVE, one_line, read_review

    before = event.previous[:12] if event.previous else "none"
    told = [event.time, event.event.replace("_", " "), event.version, event.candidate[:12], before]
    votes = [vote for vote in read_review(reviews_folder(), event.candidate).votes if vote.decision == APPROVE]
    approved_by = ", ".join(named(vote.reviewer, vote.role) for vote in votes)
    return [*told, named(event.by, event.role), approved_by, one_line(event.reason)]


def named(name: str, role: str) -> str:
    return f"{name} ({role})" if role else name


@registry.command()
def at(
    date: Annotated[str, typer.Argument(help="2026-11-21 (its end), or 2026-11-21T14:30; UTC unless said.")],
) -> None:
    """Shows which version was champion at a moment; exit code 1 if none was."""
    from flows.registry import promotions_path
    from tasks.core.promotions import champion_at, read_promotions

    with plain_errors():
        name, moment = model_name(), moment_of(date)
        event = champion_at(read_promotions(promotions_path(), name), moment)
        if event is None:
            raise ValueError(f"{name} had no champion at {moment.isoformat(timespec='seconds')}")
    typer.echo(
        f"{name} version {event.version}, candidate {event.candidate}, champion since {event.time} ({event.reason})"
    )


def moment_of(date: str) -> datetime:
    """The moment that is meant, with its offset. A day alone means its end."""
    try:
        said = datetime.fromisoformat(date)
    except ValueError:
        raise ValueError(f"{date!r} is no date; write it as 2026-11-21 or 2026-11-21T14:30") from None
    if len(date) == len("2026-11-21"):
        said = datetime.combine(said.date(), time.max)
    return said if said.tzinfo else said.replace(tzinfo=UTC)


@registry.command()
def rollback(
    reason: Annotated[str, typer.Option(help="Why; it stays on record.")],
    to: Annotated[str | None, typer.Option(help="A former champion; the one before this one if not said.")] = None,
    by: Annotated[str | None, typer.Option(help="Who orders it; the login name if not said.")] = None,
    role: Annotated[str, typer.Option(help="As what.")] = "",
) -> None:
    """Makes the champion before this one, or another former one, champion again."""
    from flows.registry import find
    from flows.review import Statement
    from flows.review import rollback as go_back
    from flows.review_cli import person_of

    with plain_errors():
        name = model_name()
        target = find(name, to) if to else None
        typer.echo(go_back(name, target, Statement(person_of(by), role, reason), time=now(), tell=warn))
