"""Work that fans out: one Prefect task per child process, on a Dask cluster or on threads of this machine."""

import logging
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from typing import Any

from prefect import flow, task
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed, State
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.environment import dvc_environment

N_KEPT_LINES = 200


@dataclass(frozen=True)
class Outcome:
    """`told` is the last line that the child printed, or why it failed."""

    is_done: bool
    told: str


def fan_out(
    children: dict[str, list[str]], workspace: str, home: str, *, runner: TaskRunner[Any]
) -> dict[str, Outcome]:
    """What came of each child: name → module and arguments. One that fails stops no other."""
    found: dict[str, Outcome] = fan_out_flow.with_options(task_runner=runner)(children, workspace, home)
    return found


@flow(name="fan out", persist_result=False)
def fan_out_flow(children: dict[str, list[str]], workspace: str, home: str) -> dict[str, Outcome]:
    futures = {name: run_child.submit(name, arguments, workspace, home) for name, arguments in children.items()}
    return {name: outcome(future) for name, future in futures.items()}


@task(persist_result=False, task_run_name="{name}")
def run_child(name: str, arguments: list[str], workspace: str, home: str) -> State[None]:
    """Completed with the last line of `python -m …` in the workspace, or Failed with its reason; its lines go to the log."""
    logger, kept = get_run_logger(), deque[str](maxlen=N_KEPT_LINES)
    # stdin stays open and empty: its end tells the child that this process is gone
    with subprocess.Popen(
        [sys.executable, "-m", *arguments], cwd=workspace, env=dvc_environment() | {"ACCLIMATE_HOME": home},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for raw in process.stdout:
            if line := raw.rstrip():
                logger.info(line)
                kept.append(line)
    if process.returncode:
        return Failed(message=reason(list(kept), process.returncode))
    return Completed(message=kept[-1] if kept else "")


def reason(lines: list[str], exit_code: int) -> str:
    """What the child said from its last `error: …` on, or how it ended."""
    if said := [number for number, line in enumerate(lines) if line.startswith("error: ")]:
        return " ".join(line.strip() for line in lines[said[-1] :]).removeprefix("error: ")
    if exit_code < 0:
        return f"it was killed by signal {-exit_code}" + ("; the machine may lack memory" if exit_code == -9 else "")
    return f"it ended with exit code {exit_code}: {lines[-1] if lines else 'it said nothing'}"


def outcome(future: PrefectFuture[Any]) -> Outcome:
    """What came of the task, also where its worker died too often for another try."""
    try:
        future.wait()
        future.result(raise_on_failure=False)
    except Exception as error:  # whatever the cluster says
        return Outcome(False, f"{type(error).__name__}: {' '.join(str(error).split())}")
    return Outcome(future.state.is_completed(), future.state.message or "")


def runner_of(kind: str, cluster: str | None, n_jobs: int) -> TaskRunner[Any]:
    """Where the tasks run: threads here, a Dask cluster that lasts as long as the flow, or the one at that address."""
    if kind == "threads":
        return ThreadPoolTaskRunner(max_workers=n_jobs)
    try:
        from prefect_dask import DaskTaskRunner
    except ImportError:
        raise ValueError(
            "prefect-dask is not installed: `pip install 'acclimate[dask]'`, or say --runner threads"
        ) from None
    logging.getLogger("distributed").setLevel(logging.WARNING)  # it tells of every connection
    if cluster:
        return DaskTaskRunner(address=cluster)
    here = {"n_workers": n_jobs, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    return DaskTaskRunner(cluster_kwargs=here)
