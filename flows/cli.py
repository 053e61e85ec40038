"""`acclimate …`: run the pipeline, see where it stands, read its report, use its model."""

import os
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from flows.audit_cli import audit
from flows.data_cli import add_commands, plain_errors
from flows.export import export
from flows.monitor import monitor
from flows.predict_cli import predict
from flows.registry_cli import add_commands as add_registry_commands
from flows.retrain_cli import add_commands as add_retrain_commands
from flows.review_cli import add_commands as add_review_commands
from flows.select_cli import select
from flows.serve import serve
from flows.validate import validate
from flows.verify_cli import verify
from flows.zoo_cli import add_commands as add_zoo_commands

if TYPE_CHECKING:
    from tasks.params import Params

# Everything heavier is imported by the command that needs it: `acclimate --help` answers at once.

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
app.command()(validate)
app.command()(select)
app.command()(audit)
app.command()(predict)
app.command()(export)
app.command()(serve)
app.command()(monitor)
add_commands(app)
add_zoo_commands(app)
add_registry_commands(app)
add_review_commands(app)
add_retrain_commands(app)
app.command()(verify)
out = Console()


class Engine(StrEnum):
    dvc = "dvc"
    prefect = "prefect"


Folder = Annotated[Path, typer.Option("--workspace", help="The project's folder.", exists=True, file_okay=False)]
EngineChoice = Annotated[
    Engine, typer.Option(help="dvc: with progress bars. prefect: as a flow, with log and artifacts.")
]


@app.callback()
def workspace(folder: Folder = Path()) -> None:
    """Adapts pretrained image models to a new domain, and shows with evidence whether that helped and for whom."""
    os.chdir(folder)


@app.command()
def run(engine: EngineChoice = Engine.dvc) -> None:
    """Runs every stage that is out of date, in order."""
    from flows.results import register_again
    from tasks.params import read_params

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that stages end with us
    with plain_errors():
        check_places(read_params())
        run_with_dvc() if engine is Engine.dvc else run_with_prefect()
        show_results()
        if engine is Engine.dvc and (told := register_again()):
            typer.echo(f"registry: {told}")


def check_places(params: "Params") -> None:
    """Nothing. ValueError lists the given folders and tables that are not there; what the sample makes comes later."""
    given = {
        "build_manifest.root": params.build_manifest.root,
        "build_manifest.table": params.build_manifest.table,
        "zoo.folder": params.zoo.folder,
    }
    sample = Path("data/sample").resolve()
    absent = [
        f"{key} {place!r} does not exist; mend it in params.yaml"
        for key, place in given.items()
        if not Path(place).resolve().is_relative_to(sample) and not Path(place).exists()
    ]
    absent += [
        f"{path} is missing: it holds what people decided; restore it with `git checkout {path}`"
        for path in ("data/given/labels.csv", "data/given/accepted_profile.json")
        if not Path(path).exists()
    ]
    if absent:
        raise ValueError("; ".join(absent))
    check_answers()


def check_answers() -> None:
    """Nothing. ValueError where the list of images to label holds answers that were not entered: a run writes it anew."""
    from tasks.core.labels import unentered

    if n := unentered(Path("data/to_label.csv"), Path("data/given/labels.csv")):
        raise ValueError(
            f"data/to_label.csv holds {n} answer{'s' * (n > 1)} that a run would lose; enter them first with "
            "`acclimate label --from data/to_label.csv`, or empty their cells"
        )


def run_with_dvc() -> None:
    """Nothing. ValueError with the failing stage's reason."""
    from flows.dvc_process import failure_reason
    from flows.graph import TARGET
    from flows.run_lock import run_lock
    from flows.terminal import run_dvc_here
    from tasks.core.runtime import acclimate_home

    with run_lock(acclimate_home(), Path.cwd(), tell=lambda message: typer.echo(message, err=True)):
        exit_code, lines = run_dvc_here("repro", TARGET)
    if exit_code:
        raise ValueError(failure_reason(lines, exit_code))


def run_with_prefect() -> None:
    """Nothing. ValueError with the failing stage's reason."""
    from flows.environment import settle_prefect

    settle_prefect()
    from flows.adapt import adapt

    final = adapt(return_state=True)
    if not final.is_completed():
        raise ValueError(final.message)


@app.command()
def status() -> None:
    """Shows what would run, who is running, the last results and the registered models."""
    from flows.run_lock import lock_holder
    from tasks.core.runtime import acclimate_home
    from tasks.params import read_params

    with plain_errors():
        read_params()
        holder = lock_holder(acclimate_home(), Path.cwd())
        out.print(f"run lock: {holder or 'free'}", markup=False, highlight=False)
        if holder is None:  # DVC answers no question while a stage writes
            out.print(f"to run: {out_of_date()}", markup=False, highlight=False)
        show_results()
        show_registered()


def out_of_date() -> str:
    """Names of the stages that `acclimate run` would start with, or that there are none."""
    import json

    from flows.dvc_process import dvc_output
    from flows.graph import stages

    changed = json.loads(dvc_output("status", "--json"))
    names = ", ".join(stage for stage in stages() if stage in changed)
    return f"{names} and what depends on them" if names else "nothing, all stages are up to date"


def show_results() -> None:
    """Prints verdict, decision, metrics and the report's place, as far as they exist."""
    from flows.results import REPORT, data_sentence, decision_sentence, metric_rows, read_results

    results = read_results()
    if results.metrics and (rows := metric_rows(results.metrics)):
        table = Table(title="Target test images")
        for column in rows[0]:
            table.add_column(column, justify="left" if column == "model" else "right")
        for row in rows:
            table.add_row(*row.values())
        out.print(table)
    told = {
        "data": results.gate and data_sentence(results.gate),
        "audit": results.audit and f"{results.audit['verdict']}: {results.audit['reason']}",
        "decision": results.decision and decision_sentence(results.decision),
        "report": REPORT.exists() and REPORT.absolute(),
    }
    for name, text in told.items():
        out.print(f"{name}: {text or 'none yet'}", markup=False, highlight=False, soft_wrap=True)


def show_registered() -> None:
    """Prints the bundle behind each alias."""
    from flows.registry import registered_bundle
    from tasks.params import read_params

    name = read_params().register_model.name
    for alias in ("challenger", "champion"):
        try:
            place = str(registered_bundle(name, alias))
        except ValueError:
            place = "none"
        out.print(f"{alias}: {place}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def report(
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    data: Annotated[bool, typer.Option("--data", help="The page on the data, not the audit.")] = False,
    docs: Annotated[bool, typer.Option("--data-docs", help="Build Great Expectations' Data Docs anew.")] = False,
) -> None:
    """Prints the path of the audit report, or of the page on the data."""
    from flows.results import data_docs, report_path, validation_path

    with plain_errors():
        path = data_docs() if docs else validation_path() if data else report_path()
    typer.echo(path)
    if open_it:
        typer.launch(path.as_uri())


@app.command()
def doctor() -> None:
    """Checks this machine and workspace; exit code 1 if something must be mended first."""
    from flows.doctor import examine

    table = Table("check", "found", "verdict", "advice")
    checks = examine(Path.cwd())
    for check in checks:
        table.add_row(check.name, check.found, f"[{check.colour}]{check.verdict}[/]", check.advice)
    out.print(table)
    if any(check.verdict == "fail" for check in checks):
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
