"""`acclimate extract` and `acclimate vary`: many candidates, many variants, on all cores, GPUs or machines."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.data_cli import plain_errors
from flows.registry_cli import show_table, warn

if TYPE_CHECKING:
    from flows.fan_out import Outcome

# Everything heavier is imported by the command that needs it: `acclimate --help` answers at once.

STAGE = "extract_features"
DASK, THREADS = "dask", "threads"

Jobs = Annotated[int, typer.Option("--jobs", min=1, help="How many run at a time on this machine.")]
RunnerKind = Annotated[str, typer.Option("--runner", help="dask: worker processes. threads: none, quicker to start.")]
Cluster = Annotated[
    str | None, typer.Option(help="Address of a Dask scheduler, tcp://HOST:8786: its workers do it, one task a thread.")
]


def add_commands(app: typer.Typer) -> None:
    """Nothing; the app knows our commands afterwards."""
    app.command()(extract)
    app.command()(vary)


def extract(n_jobs: Jobs = 2, runner: RunnerKind = DASK, cluster: Cluster = None) -> None:
    """Computes the features of all candidate networks side by side; `acclimate run` then finds them."""
    from flows.cli import check_places
    from flows.run_lock import run_lock
    from tasks.core.runtime import acclimate_home
    from tasks.params import read_params

    with plain_errors():
        check_runner(runner, cluster)
        params = read_params()
        check_places(params)
        with run_lock(acclimate_home(), Path.cwd(), tell=warn):
            run_before(STAGE)
            from flows.candidate_rows import candidates_of

            names = [candidate.name for candidate in candidates_of(params)]
            children = {name: ["flows.candidate_rows", name] for name in names}
            outcomes = fanned_out(children, n_jobs, runner, cluster)
        show_table("features", ["candidate", "state", "told"], [[name, *row(each)] for name, each in outcomes.items()])
        raise_failures(outcomes)


def vary(
    said: Annotated[
        list[str], typer.Option("--set", "-S", help="KEY=VALUE,VALUE,… of params.yaml; several: every combination.")
    ],
    out: Annotated[Path, typer.Option(help="The table: a CSV file.")] = Path("variants.csv"),
    n_jobs: Jobs = 1,
    runner: RunnerKind = DASK,
    cluster: Cluster = None,
) -> None:
    """Runs the last commit's pipeline with other parameters, each variant in a checkout of its own; writes one table."""
    with plain_errors():
        check_runner(runner, cluster)
        from flows.retrain import tell_of_changes
        from flows.run_lock import run_lock
        from flows.run_record import runs_folder
        from flows.variants import check_variants, child_of, drop_old_trees, printed, read_variants, table_of
        from flows.worktree import git
        from tasks.core.files import write_table
        from tasks.core.runtime import acclimate_home

        variants, commit = read_variants(said), git("rev-parse", "HEAD")
        check_variants(variants, commit)
        tell_of_changes(Path.cwd(), warn)
        with run_lock(acclimate_home(), runs_folder(), tell=warn):  # retraining waits: one run a GPU
            drop_old_trees(acclimate_home())
            children = {each.name: child_of(each, commit) for each in variants}
            outcomes = fanned_out(children, n_jobs, runner, cluster)
        table = table_of(variants, outcomes)
        write_table(out, table)
        cells = printed(table)
        show_table(f"variants of commit {commit[:12]}", list(cells.columns), cells.to_numpy().tolist())
        typer.echo(f"{out}: the figures are of the test images, so who chooses by them has chosen on the test")
        raise_failures(outcomes)


def check_runner(runner: str, cluster: str | None) -> None:
    """Nothing. ValueError where it is not one of ours, or where a cluster could not be used."""
    if runner not in (DASK, THREADS):
        raise ValueError(f"--runner {runner!r} is unknown; say {DASK} or {THREADS}")
    if cluster and runner != DASK:
        raise ValueError(f"--cluster {cluster} is a Dask scheduler's; leave --runner {runner} out")


def run_before(stage: str) -> None:
    """Nothing: what the stage needs is up to date. ValueError with the failing stage's reason."""
    from flows.dvc_process import failure_reason
    from flows.graph import stages
    from flows.terminal import run_dvc_here

    exit_code, lines = run_dvc_here("repro", *stages(stage)[:-1])
    if exit_code:
        raise ValueError(failure_reason(lines, exit_code))


def fanned_out(children: dict[str, list[str]], n_jobs: int, runner: str, cluster: str | None) -> dict[str, "Outcome"]:
    """What came of each child process, in the order given."""
    from flows.environment import settle_prefect

    settle_prefect()
    from flows.fan_out import fan_out, runner_of
    from tasks.core.runtime import acclimate_home

    made = runner_of(runner, cluster, n_jobs)
    return fan_out(children, os.getcwd(), str(acclimate_home()), runner=made)


def row(outcome: "Outcome") -> list[str]:
    return ["done" if outcome.is_done else "failed", outcome.told]


def raise_failures(outcomes: dict[str, "Outcome"]) -> None:
    """ValueError names those that failed; the others stand."""
    if failed := [name for name, each in outcomes.items() if not each.is_done]:
        raise ValueError(f"{len(failed)} of {len(outcomes)} failed: {'; '.join(failed)}; the table tells why")
