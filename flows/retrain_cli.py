"""`acclimate retrain` and `acclimate deploy`: new candidates by cron, or by Prefect's schedule and events."""

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.data_cli import plain_errors
from flows.registry_cli import show_table, warn

if TYPE_CHECKING:
    from flows.registry import Version

# Everything heavier is imported by the command that needs it: `acclimate --help` answers at once.

EVERY_MONDAY = "0 3 * * 1"


def add_commands(app: typer.Typer) -> None:
    """Nothing; the app knows our commands afterwards."""
    app.command()(retrain)
    app.command()(deploy)


def retrain(
    data: Annotated[
        Path | None, typer.Option(help="Images or a table that take the place of build_manifest.root or .table.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Show the runs instead.")] = False,
) -> None:
    """Makes a new candidate from the last commit and what is new, and asks for its review; made for cron."""
    with plain_errors():
        if listed:
            list_runs()
            return
        retrain_now(data)


def retrain_now(data: Path | None) -> None:
    """Prints how the run ended. ValueError where it failed."""
    from flows.cli import run_with_dvc
    from flows.retrain import Drivers
    from flows.retrain import retrain as run_retraining
    from tasks.core.runtime import quiet_tools

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the record says how it ended
    quiet_tools()
    run = run_retraining(Path.cwd(), data, Drivers(run_with_dvc, no_form, warn))
    typer.echo(f"{run.state}: {run.told}")


def no_form(_version: "Version") -> str:
    """Without Prefect a decision is made by `acclimate review`."""
    return ""


def list_runs() -> None:
    """Prints every run, after marking those dead that ended without a word."""
    from flows.retrain import swept
    from flows.run_record import read_runs

    swept()
    rows = [[run.run_id, run.started, run.state, run.step, run.candidate[:12], run.told] for run in read_runs()]
    show_table("retraining runs", ["run", "started", "state", "last step", "candidate", "told"], rows)


def deploy(
    cron: Annotated[str, typer.Option(help="When, as cron writes it.")] = EVERY_MONDAY,
    serve: Annotated[bool, typer.Option("--serve", help="Run them in this process, without a worker.")] = False,
) -> None:
    """Puts retraining and review forms on Prefect's server, on schedule and on the event acclimate.drift."""
    with plain_errors():
        if "PREFECT_API_URL" not in os.environ:
            raise ValueError(
                "PREFECT_API_URL is not set; start `prefect server start --host 127.0.0.1` and set it to "
                "http://127.0.0.1:4200/api"
            )
        from flows.environment import settle_prefect

        settle_prefect()
        from flows.deployments import deploy_to_pool, serve_here

        if serve:
            serve_here(Path.cwd(), cron)
        else:
            typer.echo(deploy_to_pool(Path.cwd(), cron))
