"""Work that fans out: one Prefect task per child process, on a Dask cluster or on threads of this machine."""

import logging
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any

from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.futures import PrefectFuture, as_completed
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed, State
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.environment import dvc_environment

N_KEPT_LINES = 200
RUNNING = set["subprocess.Popen[str]"]()  # children of this process
STOPPED = threading.Event()
STOPS: list[BaseException] = []  # what stopped us
ENDED: ContextVar[Callable[[str, "Outcome"], None]] = ContextVar("ENDED")


@dataclass(frozen=True)
class Outcome:
    """`told` is the last line that the child printed, or why it failed."""

    is_done: bool
    told: str


def fan_out(
    children: dict[str, list[str]],
    workspace: str,
    home: str,
    *,
    runner: TaskRunner[Any],
    ended: Callable[[str, Outcome], None] = lambda name, outcome: None,
) -> dict[str, Outcome]:
    """What came of each child: name → module and arguments. One that fails stops no other; `ended` gets each as it ends."""

    STOPPED.clear()
    STOPS.clear()
    before = ENDED.set(ended)
    try:
        start_server()
        found: dict[str, Outcome] = fan_out_flow.with_options(task_runner=runner)(children, workspace, home)
    except Exception:  # also Prefect's own, where its server was stopped with us
        if STOPS and not isinstance(STOPS[0], Exception):
            raise KeyboardInterrupt if isinstance(STOPS[0], KeyboardInterrupt) else SystemExit(143) from None
        raise
    except BaseException:  # stopped outside the flow
        logging.disable()
        raise
    finally:
        ENDED.reset(before)
    return found


@flow(name="fan out", persist_result=False)
def fan_out_flow(children: dict[str, list[str]], workspace: str, home: str) -> dict[str, Outcome]:
    found = {}
    try:
        names = {run_child.submit(name, arguments, workspace, home): name for name, arguments in children.items()}
        for future in as_completed(list(names)):
            name = names[future]
            found[name] = outcome(future)
            tell_ended(name, found[name])
    except BaseException as stop:
        end_children(stop)
        raise
    return {name: found[name] for name in children}


# Dask gets flow and task by value, with what they name; functions such as these it gets by name


def tell_ended(name: str, outcome: Outcome) -> None:
    ENDED.get()(name, outcome)


def end_children(stop: BaseException) -> None:
    """Nothing: this process's children are told to end, no other starts, and Prefect says nothing more."""
    logging.disable()
    STOPPED.set()
    STOPS.append(stop)
    for process in list(RUNNING):
        process.terminate()


@task(persist_result=False, task_run_name="{name}")
def run_child(name: str, arguments: list[str], workspace: str, home: str) -> State[None]:
    """Completed with the last line of `python -m …` in the workspace, or Failed with its reason; its lines go to the log."""
    exit_code, lines = run_process(arguments, workspace, home, get_run_logger().info)
    if exit_code:
        return Failed(message=reason(lines, exit_code))
    return Completed(message=lines[-1] if lines else "")


def run_process(arguments: list[str], workspace: str, home: str, tell: Callable[[str], None]) -> tuple[int, list[str]]:
    """Exit code of `python -m …` in the workspace and its last lines; `tell` gets each."""
    kept = deque[str](maxlen=N_KEPT_LINES)
    # stdin stays open and empty: its end tells the child that this process is gone. Ctrl-C is for us alone
    with subprocess.Popen(
        [sys.executable, "-m", *arguments], cwd=workspace, env=dvc_environment() | {"ACCLIMATE_HOME": home},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        start_new_session=True,
    ) as process:  # fmt: skip
        RUNNING.add(process)
        if STOPPED.is_set():
            process.terminate()
        assert process.stdout is not None
        for raw in process.stdout:
            if line := raw.rstrip():
                tell(line)
                kept.append(line)
    RUNNING.discard(process)
    return process.returncode, list(kept)


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
    return DaskTaskRunner(cluster_class=cluster_here, cluster_kwargs=here)


def start_server() -> None:
    """Nothing: Prefect's own server has started, where none is named. While that lasts Ctrl-C ends this process."""

    def start() -> None:
        with without_ctrl_c(), suppress(Exception):  # the flow tries again, and tells
            get_client(sync_client=True)

    starting = threading.Thread(target=start, daemon=True)
    starting.start()
    starting.join()


def cluster_here(**settings: Any) -> Any:
    """Dask's workers on this machine. They tell the server that we tell: left alone, each starts one of its own."""
    from distributed import LocalCluster

    with get_client(sync_client=True) as client:
        told = {"PREFECT_API_URL": str(client.api_url)}
    resource_tracker.ensure_running()  # when it starts, multiprocessing lets Ctrl-C through again
    with without_ctrl_c():
        # they warn of each task that is stopped, and call the scheduler's end an error; what a child says comes by its outcome
        return LocalCluster(env=told, silence_logs=logging.CRITICAL, **settings)


@contextmanager
def without_ctrl_c() -> Iterator[None]:
    """What starts in the block, processes and threads, never gets Ctrl-C, which a terminal sends to all: we end it ourselves.

    Of a server that ends before us Prefect asks again and again, for a minute.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
