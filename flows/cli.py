"""`acclimate …`: run the pipeline, see where it stands, read its report, use its model."""

import os
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table
from typer.models import CommandInfo

from flows.audit_cli import audit
from flows.data_cli import add_commands, plain_errors
from flows.export import export
from flows.fan_out_cli import add_commands as add_fan_out_commands
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

PANELS = {
    "The pipeline in this folder": ("run", "status", "report", "label", "doctor"),
    "Candidates and the champion": ("promote", "verify", "registry", "review"),
    "A model at work": ("predict", "serve", "export", "monitor"),
    "On schedule, and on many machines": ("retrain", "deploy", "extract", "vary"),
    "Any images, predictions and networks": ("validate", "select", "audit", "pack", "zoo"),
}
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
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
add_fan_out_commands(app)
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
    from flows.due import due_here
    from flows.run_lock import lock_holder
    from tasks.core.runtime import acclimate_home
    from tasks.params import read_params

    with plain_errors():
        read_params()
        holder = lock_holder(acclimate_home(), Path.cwd())
        out.print(f"run lock: {holder or 'free'}", markup=False, highlight=False)
        if holder is None:  # DVC answers no question while a stage writes
            out.print(f"to run: {due_here()}", markup=False, highlight=False, soft_wrap=True)
        show_results()
        show_registered()


def show_results() -> None:
    """Prints verdict, decision, metrics and the report's place, as far as they exist."""
    from flows.results import REPORT, audit_paragraph, data_sentence, decision_sentence, metric_rows, read_results

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
        "audit": results.audit and f"{results.audit['verdict']}: {audit_paragraph(results.audit)}",
        "decision": results.decision and decision_sentence(results.decision),
        "report": REPORT.exists() and REPORT.absolute(),
    }
    for name, text in told.items():
        out.print(f"{name}: {text or 'none yet'}", markup=False, highlight=False, soft_wrap=True)


def show_registered() -> None:
    """Prints version and bundle behind each alias; of a bundle that is missing or damaged what to do about it."""
    from flows.registry import versions
    from tasks.params import read_params

    behind = {alias: each for each in versions(read_params().register_model.name) for alias in each.aliases}
    for alias in ("challenger", "champion"):
        try:
            told = f"version {behind[alias].number}, {behind[alias].checked_folder()}" if alias in behind else "none"
        except ValueError as error:
            told = str(error)
        out.print(f"{alias}: {told}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def report(
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    data: Annotated[bool, typer.Option("--data", help="The page on the data, not the audit.")] = False,
    docs: Annotated[bool, typer.Option("--data-docs", help="Build Great Expectations' Data Docs anew.")] = False,
    served: Annotated[bool, typer.Option("--serve", help="Show all registered candidates on a web page.")] = False,
    host: Annotated[str, typer.Option(help="Of the web page; others reach it only if you say so.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the web page; 0 = a free one.")] = 8001,
) -> None:
    """Prints the path of the audit report, or of the page on the data; with --serve, a web page of all candidates."""
    from flows.results import data_docs, report_path, validation_path

    with plain_errors():
        if served:
            from flows.report_view import serve_view

            if data or docs:
                raise ValueError("--serve shows the registered candidates; leave out --data and --data-docs")
            serve_view(host, port, is_opened=open_it)
            return
        path = data_docs() if docs else validation_path() if data else report_path()
    typer.echo(path)
    if open_it:
        typer.launch(path.as_uri())


@app.command()
def doctor() -> None:
    """Checks this machine and workspace; exit code 1 if something must be mended first."""
    from flows.doctor import examine

    table = Table(
        "check", *(Column(name, overflow="fold") for name in ("found", "verdict", "advice"))
    )  # paths stay whole
    checks = examine(Path.cwd())
    for check in checks:
        table.add_row(check.name, check.found, f"[{check.colour}]{check.verdict}[/]", check.advice)
    out.print(table)
    if any(check.verdict == "fail" for check in checks):
        raise typer.Exit(1)


def sort_into_panels() -> None:
    """Nothing; `acclimate --help` shows the commands under these headings, in this order."""
    panel_of = {name: panel for panel, names in PANELS.items() for name in names}
    order = list(panel_of)

    def name_of(command: CommandInfo) -> str:
        return command.name or str(getattr(command.callback, "__name__", ""))

    app.registered_commands.sort(key=lambda command: order.index(name_of(command)))
    for command in app.registered_commands:
        command.rich_help_panel = panel_of[name_of(command)]
    for group in app.registered_groups:
        group.rich_help_panel = panel_of[str(group.name)]


sort_into_panels()

if __name__ == "__main__":
    app()
