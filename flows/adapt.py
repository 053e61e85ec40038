"""The pipeline as a Prefect flow: each stage of dvc.yaml is one task that runs `dvc repro --single-item <stage>`."""

import re
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any

from flows.environment import settle_prefect

if __name__ == "__main__":
    settle_prefect()  # Prefect reads its settings once, while it is imported

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from flows.dvc_process import LOCK_IS_BUSY, dvc_process, failure_reason
from flows.graph import stages
from flows.results import REPORT, metric_rows, read_results, register_again
from flows.run_lock import run_lock
from tasks.core.runtime import acclimate_home

N_KEPT_LINES = 200
RETRY_AFTER_S = [2.0, 5.0, 15.0, 60.0, 120.0]


@flow(name="adapt", persist_result=False)
def adapt() -> State[None]:
    """Completed with the audit's verdict, or Failed with the failing stage's own reason; runs in this folder."""
    with run_lock(acclimate_home(), Path.cwd(), tell=get_run_logger().warning):
        try:
            order = stages()
        except ValueError as error:
            return Failed(message=str(error))
        for stage in order:
            state = run_stage.with_options(name=stage, task_run_name=stage)(stage, return_state=True)
            if not state.is_completed():
                return Failed(message=state.message)
        if told := register_again():
            get_run_logger().info(told)
        return Completed(message=publish_results())


def lock_is_busy(_task: object, _run: object, state: State[Any]) -> bool:
    """True where waiting helps: somebody runs DVC by hand in this workspace, which our own lock cannot see."""
    return any(words in (state.message or "") for words in LOCK_IS_BUSY)


@task(
    persist_result=False, retries=len(RETRY_AFTER_S), retry_delay_seconds=RETRY_AFTER_S, retry_condition_fn=lock_is_busy
)
def run_stage(stage: str) -> State[None]:
    """Completed, Completed under the name Cached if there was nothing to compute, or Failed with the reason."""
    exit_code, lines = stream_stage(stage)
    if exit_code:
        reason = failure_reason(lines, exit_code)
        return Failed(message=reason if reason.startswith(f"{stage}: ") else f"{stage}: {reason}")
    skipped = re.compile(rf"(Stage )?'{re.escape(stage)}' (didn't change|is cached)")
    told = [line for line in lines if skipped.match(line)]
    return Completed(name="Cached", message=told[-1]) if told else Completed()


def stream_stage(stage: str) -> tuple[int, list[str]]:
    """DVC's exit code and its last lines; each line goes to Prefect's log as it comes."""
    logger = get_run_logger()
    kept: deque[str] = deque(maxlen=N_KEPT_LINES)
    with dvc_process("repro", "--single-item", stage, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        for raw in process.stdout:
            if line := raw.decode(errors="replace").rstrip():
                logger.info(line)
                kept.append(line)
        return process.wait(), list(kept)


def publish_results() -> str:
    """The audit's verdict in one sentence, after showing metrics, audit and report as artifacts of this run."""
    results = read_results()
    if results.metrics:
        create_table_artifact(table=metric_rows(results.metrics), key="metrics", description="Target test images")
    if REPORT.exists():
        create_link_artifact(link=REPORT.absolute().as_uri(), link_text="Report", key="report")
    if not results.audit:
        return "all stages are up to date"
    create_markdown_artifact(markdown=audit_markdown(results.audit), key="audit")
    return f"audit verdict {results.audit['verdict']}: {results.audit['reason']}"


def audit_markdown(audit: dict[str, Any]) -> str:
    """The verdict, then one table row per rule."""
    rows = [[rule["name"], rule["verdict"], rule["reason"]] for rule in audit.get("rules", [])]
    table = [["Rule", "Verdict", "Reason"], ["---"] * 3, *rows]
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in table]
    return f"**Audit verdict: {audit['verdict']}**: {audit['reason']}\n\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    final = adapt(return_state=True)
    if not final.is_completed():
        sys.exit(f"error: {final.message}")
