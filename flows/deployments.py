"""What stands on Prefect's server: its flows, their names, schedule, event and work pool."""

import os
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from prefect import flow, serve
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments import run_deployment
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectAlreadyExists
from prefect.logging import get_run_logger
from prefect.states import Completed, State
from prefect.types.entrypoint import EntrypointType

from flows.adapt import adapt
from flows.registry import Version
from flows.retrain import Drivers
from flows.retrain import retrain as run_retraining
from flows.review_flow import REVIEW, close_decided, review
from tasks.core.runtime import acclimate_home

RETRAIN, DEPLOYMENT, POOL, DRIFT = "retrain", "acclimate", "acclimate", "acclimate.drift"
RESTARTED = "AwaitingRetry"  # Prefect's own name for it
HEARTBEAT = "prefect.flow-run.heartbeat"
ENDS = [f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Crashed", "Cancelled", "Paused", "Suspended")]
STILL_S = 600  # three of Prefect's heartbeats
N_RESTARTS = 5  # of a form in a day
GIVEN_UP = (
    f"its process crashed {N_RESTARTS + 1} times in a day, so it isn't begun anew: the log of that process says why; decide with "
    "`acclimate review approve` or `acclimate review reject`"
)
N_TOGETHER = 8  # runs in one serving process: forms are short, and retraining has a limit of its own


@flow(name=RETRAIN, persist_result=False)
def retrain(workspace: str, home: str, data: str | None = None) -> State[None]:
    """Completed with what came of it, under the name Nothing New where that was nothing; fails with the stage's reason."""
    os.environ["ACCLIMATE_HOME"] = home
    logger = get_run_logger()
    if closed := close_decided():
        logger.info("%d forms were closed: their candidates are decided", closed)

    def open_form(version: Version) -> str:
        return start_review(version, workspace, home)

    drivers = Drivers(run_as_tasks, open_form, logger.info)
    run = run_retraining(Path(workspace), Path(data) if data else None, drivers)
    return Completed(name=run.state.title(), message=run.told)


def run_as_tasks() -> None:
    """Nothing. ValueError with the failing stage's reason."""
    final = adapt(return_state=True)
    if not final.is_completed():
        raise ValueError(final.message)


def start_review(version: Version, workspace: str, home: str) -> str:
    """Where the candidate's form stands; one form a candidate, however often it is asked for."""
    run = run_deployment(
        f"{REVIEW}/{DEPLOYMENT}",
        parameters={"candidate": version.candidate, "workspace": workspace, "home": home},
        idempotency_key=f"{REVIEW}-{version.candidate}",
        flow_run_name=f"{version.name}-version-{version.number}",
        timeout=0,
        as_subflow=False,
    )
    assert isinstance(run, FlowRun)  # not awaited: this is no coroutine
    return f"flow run {run.name} ({run.id})"


def deployments(workspace: Path, cron: str) -> list[RunnerDeployment]:
    """Retraining by schedule and by drift, one at a time; and the form of a review, started by retraining."""
    places = {"workspace": str(workspace.resolve()), "home": str(acclimate_home())}
    by_drift = DeploymentEventTrigger(name=f"{RETRAIN} on drift", expect={DRIFT}, posture=Posture.Reactive, threshold=1)
    of_module = EntrypointType.MODULE_PATH  # an installed package has no flows/ below the workspace
    training = retrain.to_deployment(
        DEPLOYMENT, cron=cron, parameters=places, triggers=[by_drift], concurrency_limit=1, entrypoint_type=of_module
    )
    form = review.to_deployment(DEPLOYMENT, parameters=places, entrypoint_type=of_module)
    assert isinstance(training, RunnerDeployment)  # not awaited: these are no coroutines
    assert isinstance(form, RunnerDeployment)
    return [training, form]


def keep_no_dead_runs(still_s: float = STILL_S) -> None:
    """Nothing. From now on the server ends what was killed: runs without a heartbeat crash, and a crashed form begins anew.

    A form's process may be killed after the server took a person's answer; begun anew it is given the same answer. One that
    crashes whatever is done fails in the end. What stands on the server already stays: a new automation would know nothing of
    the runs that are under way.
    """
    wanted = {
        f"runs without a heartbeat for {still_s:.0f} s": crash_the_silent(still_s),
        "crashed review forms": (
            of_forms("Crashed", 1),
            ChangeFlowRunState(state=StateType.SCHEDULED, name=RESTARTED, message="the form begins anew", force=True),
        ),
        # counts what the one above did, not the crashes themselves: so it is the last to set the state
        "review forms that keep crashing": (
            of_forms(RESTARTED, N_RESTARTS + 1),
            ChangeFlowRunState(state=StateType.FAILED, name="Failed", message=GIVEN_UP, force=True),
        ),
    }
    with get_client(sync_client=True) as client:
        for name, (trigger, action) in wanted.items():
            if not client.read_automations_by_name(name):
                client.create_automation(AutomationCore(name=name, trigger=trigger, actions=[action]))


def crash_the_silent(still_s: float) -> tuple[EventTrigger, ChangeFlowRunState]:
    silent = EventTrigger(
        match={"prefect.resource.id": "prefect.flow-run.*"},
        for_each={"prefect.resource.id"},
        after={HEARTBEAT},
        expect={HEARTBEAT, *ENDS},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=still_s),
    )
    told = f"no heartbeat for {still_s:.0f} s: its process was killed, or its machine is gone"
    return silent, ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=told, force=False)


def of_forms(state: str, n: int) -> EventTrigger:
    """A form came into the state for the nth time; more than once: within a day."""
    return EventTrigger(
        match_related={"prefect.resource.role": "flow", "prefect.resource.name": REVIEW},
        for_each={"prefect.resource.id"},
        expect={f"prefect.flow-run.{state}"},
        posture=Posture.Reactive,
        threshold=n,
        within=timedelta(days=1 if n > 1 else 0),
    )


def serve_here(workspace: Path, cron: str) -> None:
    """Nothing; registers both and runs them until this process is ended."""
    keep_no_dead_runs()
    serve(*deployments(workspace, cron), limit=N_TOGETHER, pause_on_shutdown=False)


def deploy_to_pool(workspace: Path, cron: str) -> str:
    """What to start next: the work pool of processes has both, and its worker runs them in the workspace."""
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    keep_no_dead_runs()
    for each in deployments(workspace, cron):
        each.job_variables = {"working_dir": str(workspace.resolve())}
        each.apply(work_pool_name=POOL)
    return f"deployed; on the machine that trains, start `prefect worker start --pool {POOL}`"
