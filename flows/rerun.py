"""A registered model made anew: a fresh clone of its commit, the whole pipeline, and the bytes compared."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

from flows.lineage import read_lock, recorded, recorded_params
from flows.registry import Version
from flows.verify import DIFFERS, OK, UNKNOWN, Finding, some
from tasks.core.bundle import candidate_id
from tasks.core.files import read_json
from tasks.register_model import kept_lock, machine_tags

CLONE_BUNDLE, CLONE_LOCK = Path("data/bundle"), Path("dvc.lock")
N_LAST_LINES = 200
STDERR = 2  # a result on stdout stays readable by programs


def rerun(version: Version, *, tell: Callable[[str], None]) -> list[Finding]:
    """Whether the commit gives the same bundle, or what differs first and why that may be. Minutes to hours."""
    commit = version.tags.get("git_commit", "unknown")
    folder, kept, workspace = version.checked_folder(), kept_lock(version.candidate), Path.cwd()
    with tempfile.TemporaryDirectory(prefix="acclimate-verify-") as temporary:
        clone = Path(temporary) / "clone"
        if problem := cloned(workspace, commit, clone):
            return [Finding("rerun", UNKNOWN, problem)]
        tell(f"running the pipeline of commit {commit[:12]} in {clone}")
        with alone_in(clone):
            exit_code, reason = reproduce()
            if exit_code:
                return [Finding("rerun", UNKNOWN, f"the pipeline failed in the clone: {reason}")]
            if candidate_id(CLONE_BUNDLE) == version.candidate:
                return [Finding("rerun", OK, f"commit {commit[:12]} gives the same candidate, to the byte")]
            told = f"commit {commit[:12]} gives candidate {candidate_id(CLONE_BUNDLE)[:12]}: {what_differs(folder)}"
            causes = [Finding("why", DIFFERS, cause) for cause in causes_of(version, kept)]
            return [Finding("rerun", DIFFERS, told), *causes]


def cloned(workspace: Path, commit: str, clone: Path) -> str | None:
    """None once the clone stands at the commit; else why it can't."""
    for command in (
        ["git", "clone", "--quiet", "--no-checkout", str(workspace), str(clone)],
        ["git", "-C", str(clone), "checkout", "--quiet", "--detach", commit],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"commit {commit[:12]} can't be cloned: {' '.join(done.stderr.split())}"
    return None


@contextmanager
def alone_in(clone: Path) -> Iterator[None]:
    """In the clone, with a home and a registry of its own: what is made there must not register itself with ours."""
    before = dict(os.environ)
    os.environ["ACCLIMATE_HOME"] = str(clone / ".acclimate")
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    try:
        with chdir(clone):
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def reproduce() -> tuple[int, str]:
    """DVC's exit code for the whole pipeline, forced past every cache, and the reason if it failed."""
    from flows.dvc_process import dvc_process, failure_reason
    from flows.graph import TARGET

    with tempfile.TemporaryFile() as log:
        arguments = ("repro", "--force", "--no-run-cache", TARGET)
        with dvc_process(*arguments, stdout=STDERR, stderr=log.fileno()) as process:
            exit_code = process.wait()
        log.seek(0)
        lines = log.read().decode(errors="replace").splitlines()[-N_LAST_LINES:]
    return exit_code, failure_reason(lines, exit_code) if exit_code else ""


def what_differs(folder: Path) -> str:
    """Files of the bundle that differ, and by how much the weights do."""
    ours, theirs = (read_json(at / "manifest.json", made_by="register_model") for at in (folder, CLONE_BUNDLE))
    names = sorted({*ours["files"], *theirs["files"]})
    differing = [name for name in names if ours["files"].get(name) != theirs["files"].get(name)]
    facts = [key for key in ours if key != "files" and ours[key] != theirs.get(key)]
    told = [f"{key} {ours[key]} became {theirs.get(key)}" for key in facts]
    if "model.safetensors" in differing:
        told.append(weights_differ(folder / "model.safetensors", CLONE_BUNDLE / "model.safetensors"))
    return "; ".join([f"other bytes in {some(differing)}" if differing else "the same files", *told])


def weights_differ(ours: Path, theirs: Path) -> str:
    from safetensors.numpy import load_file

    a, b = load_file(ours), load_file(theirs)
    if {name: x.shape for name, x in a.items()} != {name: x.shape for name, x in b.items()}:
        return "the weights are of another network"
    largest = max(float(abs(a[name].astype(float) - b[name].astype(float)).max(initial=0)) for name in a)
    return f"no weight differs by more than {largest:.2g}"


def causes_of(version: Version, kept: Path) -> Iterator[str]:
    """Sentences on what was other than at registration, and the first stage that came out differently."""
    if version.tags.get("git_tree") != "clean":
        yield "code or given files were not committed when it was registered, so the commit is not all that it came from"
    for what, now in machine_tags().items():
        if (then := version.tags.get(what, "not recorded")) != now:
            yield f"{what}: {then} at registration, {now} here"
    if kept.exists():
        ours, theirs = read_lock(kept), read_lock(CLONE_LOCK)
        a, b = recorded_params(ours), recorded_params(theirs)
        if differing := [key for key in a if a[key] != b.get(key)]:
            yield f"params: {some(differing)}"
        if found := first_difference(ours, theirs):
            yield found


def first_difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str | None:
    """The stage that wrote other bytes before any other did: that which read the least that was other."""
    md5 = {item.path: item.md5 for item in recorded(theirs)}
    other = [item for item in recorded(ours) if md5.get(item.path) != item.md5]
    wrote = {item.stage: [each.path for each in other if each.is_out and each.stage == item.stage] for item in other}
    read = {stage: [each.path for each in other if not each.is_out and each.stage == stage] for stage in wrote}
    stages = sorted((stage for stage in wrote if wrote[stage]), key=lambda stage: len(read[stage]))
    if not stages:
        return None
    stage = stages[0]
    cause = f"it read other {some(read[stage])}" if read[stage] else "from the same inputs: threads, CPU or a library"
    return f"the first stage that wrote other bytes is {stage} ({some(wrote[stage])}); {cause}"
