"""`acclimate extract` and `acclimate vary`: many candidates, many variants, on all cores, GPUs or machines."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from flows.data_cli import plain_errors
from flows.registry_cli import show_table, warn

if TYPE_CHECKING:
    from flows.fan_out import Outcome
    from flows.variants import Variant

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

    ended: dict[str, Outcome] = {}
    with (
        plain_errors(),
        stoppable(lambda: f"{n_done(ended)} candidates done; their features are kept for the next run"),
    ):
        check_runner(runner, cluster)
        params = read_params()
        check_places(params)
        with run_lock(acclimate_home(), Path.cwd(), tell=warn):
            run_before(STAGE)
            from flows.candidate_rows import candidates_of

            names = [candidate.name for candidate in candidates_of(params)]
            children = {name: ["flows.candidate_rows", name] for name in names}
            outcomes = fanned_out(children, n_jobs, runner, cluster, ended.__setitem__)
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
        from flows import variants as of
        from flows.run_lock import run_lock
        from flows.run_record import runs_folder
        from flows.worktree import git
        from tasks.core.runtime import acclimate_home

        variants, commit = of.read_variants(said), git("rev-parse", "HEAD")
        of.check_variants(variants, commit)
        of.tell_of_uncommitted(commit, warn)
        outcomes: dict[str, Outcome] = {}
        with stoppable(lambda: stopped_variants(variants, outcomes, out)):
            with run_lock(acclimate_home(), runs_folder(), tell=warn):  # retraining waits: one run a GPU
                of.drop_old_trees(acclimate_home())
                warn(of.plan_line(len(variants), n_jobs, cluster))
                children = {each.name: of.child_of(each, commit) for each in variants}
                fanned_out(children, n_jobs, runner, cluster, teller(outcomes, len(variants)))
            write_variants(variants, outcomes, out, f"variants of commit {commit[:12]}")
        raise_failures({each.name: outcomes[each.name] for each in variants})


def teller(outcomes: dict[str, "Outcome"], n: int) -> Callable[[str, "Outcome"], None]:
    """What keeps each variant's outcome as it ends, and says so in a line."""
    begin = perf_counter()

    def ended(name: str, outcome: "Outcome") -> None:
        outcomes[name] = outcome
        minutes = (perf_counter() - begin) / 60
        warn(f"{len(outcomes)} of {n} after {minutes:.1f} minutes: variant {name} {row(outcome)[0]}")

    return ended


def write_variants(variants: list["Variant"], outcomes: dict[str, "Outcome"], out: Path, title: str) -> None:
    """Nothing: the table is written and printed, with the reason of each failure below it."""
    from flows.variants import printed, reasons, table_of
    from tasks.core.files import write_table

    table = table_of(variants, outcomes)
    write_table(out, table)
    cells = printed(table)
    show_table(title, list(cells.columns), cells.to_numpy().tolist())
    for line in reasons(variants, outcomes):
        typer.echo(line)
    typer.echo(f"{out}: the figures are of the test images, so who chooses by them has chosen on the test")


def stopped_variants(variants: list["Variant"], outcomes: dict[str, "Outcome"], out: Path) -> str:
    """What is left of a stopped run of variants: the table of those that ended, if any."""
    from flows.variants import table_of
    from tasks.core.files import write_table

    if outcomes:
        write_table(out, table_of(variants, outcomes))
    wrote = f"{out} has the {len(outcomes)} that ended" if outcomes else "nothing written"
    return f"{n_done(outcomes)} of {len(variants)} variants done, {wrote}"


def n_done(outcomes: dict[str, "Outcome"]) -> int:
    return sum(each.is_done for each in outcomes.values())


@contextmanager
def stoppable(left: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the block with a sentence on what is left, and 128 + the signal's number."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        number = signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM
        warn(f"stopped; {left()}")
        raise typer.Exit(128 + number) from None
    finally:
        signal.signal(signal.SIGTERM, before)


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


def fanned_out(
    children: dict[str, list[str]],
    n_jobs: int,
    runner: str,
    cluster: str | None,
    ended: Callable[[str, "Outcome"], None],
) -> dict[str, "Outcome"]:
    """What came of each child process, in the order given; `ended` gets each as it ends."""
    from flows.environment import settle_prefect

    settle_prefect()
    from flows.fan_out import fan_out, runner_of
    from tasks.core.runtime import acclimate_home

    made = runner_of(runner, cluster, n_jobs)
    return fan_out(children, os.getcwd(), str(acclimate_home()), runner=made, ended=ended)


def row(outcome: "Outcome") -> list[str]:
    return ["done" if outcome.is_done else "failed", outcome.told]


def raise_failures(outcomes: dict[str, "Outcome"]) -> None:
    """ValueError names those that failed; the others stand."""
    if failed := [name for name, each in outcomes.items() if not each.is_done]:
        raise ValueError(f"{len(failed)} of {len(outcomes)} failed: {'; '.join(failed)}; the reasons stand above")
