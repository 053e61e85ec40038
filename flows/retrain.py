"""Retraining on schedule: a run in a checkout of its own, from what was given to a candidate that asks for its review."""

import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from flows.graph import TARGET
from flows.notify import notify
from flows.registry import Version, find, versions
from flows.results import BUNDLE, metric_rows, read_results, register_again
from flows.review import reviews_folder, settle
from flows.run_lock import run_lock
from flows.run_record import (
    DEAD,
    DONE,
    FAILED,
    MARK,
    NOTHING_NEW,
    Run,
    beating,
    new_run,
    read_runs,
    runs_folder,
    sweep,
    write_run,
)
from flows.worktree import (
    GIVEN,
    add_tree,
    clear_tree,
    commit_given,
    commit_results,
    fetch_data,
    inside,
    link_places,
    news,
    push_data,
    remove_tree,
    share_cache,
    take_labels,
    uncommitted,
    use_data,
)
from tasks.core.bundle import MANIFEST, candidate_id
from tasks.core.files import read_json, write_json
from tasks.core.reviews import PENDING, read_review
from tasks.core.runtime import acclimate_home

BRANCH = "acclimate/"
N_KEPT_TREES = 3  # of runs that failed, the newest
N_SHOWN = 5


@dataclass(frozen=True)
class Drivers:
    """How a run does what the command line and Prefect do differently."""

    run_stages: Callable[[], None]  # in the current folder; ValueError with the failing stage's reason
    open_form: Callable[[Version], str]  # where a person can decide, in one sentence
    tell: Callable[[str], None]


class Course:
    """A run under way: its record on disk says where it is."""

    def __init__(self, run: Run, drivers: Drivers) -> None:
        self.run, self.drivers = write_run(run), drivers

    def step(self, words: str) -> None:
        self.run = write_run(replace(self.run, step=words))
        self.drivers.tell(words)

    def end(self, state: str, told: str) -> Run:
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        self.run = write_run(replace(self.run, state=state, told=told, ended=ended))
        return self.run


def retrain(workspace: Path, data: Path | None, drivers: Drivers) -> Run:
    """The record of the run: done, or nothing new. What fails is on record, too, and raised; its checkout is kept.

    Waits while another run of this home lasts. Workspace and home must lie where the stages may read them by absolute paths.
    """
    workspace, home = workspace.resolve(), acclimate_home()
    data = data and data.absolute()
    for dead in swept():
        drivers.tell(f"the run {dead.run_id} is dead: {dead.told}")
    run = new_run()
    with beating(run):
        course = Course(run, drivers)
        try:
            with run_lock(home, runs_folder(), tell=drivers.tell):
                variables = {"ACCLIMATE_HOME": str(home), MARK: run.run_id}
                drop_old_trees(workspace)
                course.step("checking the repository out")
                commit, project = add_tree(workspace, run.tree)
                tell_of_changes(workspace, drivers.tell)
                course.run = replace(course.run, commit=commit)
                with inside(project, variables):
                    state, told = retrain_here(workspace, data, course)
                remove_tree(workspace, run.tree)
                return course.end(state, told)
        except BaseException as error:
            where = f"; its folder is {run.tree}" if run.tree.exists() else ""
            course.end(FAILED, f"{error or type(error).__name__}{where}")
            raise


def retrain_here(workspace: Path, data: Path | None, course: Course) -> tuple[str, str]:
    """State and sentence of the run whose checkout this is."""
    from flows.cli import check_places  # which knows our command
    from tasks.params import read_params

    tell = course.drivers.tell
    course.step("fetching data")
    has_remote = share_cache(workspace)
    fetch_data(has_remote, tell)
    link_places(workspace)
    take_labels(workspace)
    if data:
        use_data(data)
    check_places(read_params())
    course.step("looking for what is new")
    if not (new := news(TARGET)):
        settle(model_name(), tell=tell)
        return NOTHING_NEW, "data, labels, parameters and code are those of the last run on this branch"
    told = f" and {len(new) - N_SHOWN} more" if len(new) > N_SHOWN else ""
    tell(f"new since the last run on this branch: {', '.join(new[:N_SHOWN])}{told}")
    course.step("pinning champion and accepted profile")
    for line in settle(model_name(), tell=tell):
        tell(line)
    commit_given(course.run.run_id)
    course.step("running the stages")
    course.drivers.run_stages()
    return propose(course, has_remote)


def propose(course: Course, has_remote: bool) -> tuple[str, str]:
    """State and sentence, once the stages' candidate is registered, committed on its branch and its review asked for."""
    tell = course.drivers.tell
    if told := register_again():
        tell(told)
    version = find(model_name(), candidate_id(BUNDLE))
    branch = BRANCH + version.candidate[:12]
    course.run = replace(course.run, candidate=version.candidate, branch=branch)
    course.step("committing and sharing the results")
    is_new = commit_results(branch, commit_message(version, course.run.run_id))
    twin = twin_sentence(version)
    if has_remote:
        push_data(tell)
    course.step("asking for the review")
    asked = ask_review(version, branch, course.drivers, twin) + (f"; {twin}" if twin else "")
    named = f"{version.name} version {version.number}, candidate {version.candidate[:12]}"
    if not is_new:
        return NOTHING_NEW, f"the stages made {named} again, which stands on the branch {branch}{asked}"
    return DONE, f"{named} is on the branch {branch}{asked}"


def ask_review(version: Version, branch: str, drivers: Drivers, twin: str) -> str:
    """How people were asked, as the end of a sentence. Each candidate's review is asked for until that has succeeded once."""
    if read_review(reviews_folder(), version.candidate).decision != PENDING:
        return "; its review is closed"
    mark = acclimate_home() / "review_requests" / f"{version.candidate}.json"
    if mark.exists():
        return "; its review was asked for before"
    facts = {
        "model": f"{version.name} version {version.number}",
        "candidate": version.candidate,
        "verdict": version.tags.get("verdict", ""),
        "decision": version.tags.get("decision", ""),
        "report": str(version.folder / "report.html"),
        "branch": branch,
        "to decide": f"acclimate review show {version.number}",
    }
    if twin:
        facts["note"] = twin
    if form := drivers.open_form(version):
        facts["form"] = form
    sent = notify(f"{version.name} version {version.number} waits for its review", facts, tell=drivers.tell)
    write_json(mark, facts | {"sent": sent})
    return f" and waits for its review; told by {' and '.join(sent)}" if sent else " and waits for its review"


def twin_sentence(version: Version) -> str:
    """That an earlier version has the same weights, and which files are new; empty where none has.

    A label that training doesn't see (hidden by target_labels_per_class, say) still stands in the report.
    """
    weights = version.tags.get("weights_sha256")
    twins = [each for each in versions(version.name) if each.tags.get("weights_sha256") == weights]
    if not (earlier := [each for each in twins if int(each.number) < int(version.number)]):
        return ""
    of_both = [bundle_files(each) for each in (earlier[-1], version)]
    new = [name for name, sha256 in of_both[1].items() if of_both[0].get(name) != sha256]
    told = f"its weights are those of version {earlier[-1].number}: what is new has not changed the model"
    return f"{told}, only {', '.join(new)}" if all(of_both) else told


def bundle_files(version: Version) -> dict[str, str]:
    """The sha256 of each file of the version's bundle; none where the bundle is not here."""
    path = version.folder / MANIFEST
    return dict(read_json(path, made_by="register_model")["files"]) if path.exists() else {}


def commit_message(version: Version, run_id: str) -> str:
    """Candidate, verdict and figures on the target's test images."""
    rows = metric_rows(read_results().metrics or {})
    figures = [f"{row['model']}: accuracy {row['accuracy']} ({row['interval']}), n = {row['n']}" for row in rows]
    verdict = f"verdict {version.tags.get('verdict', '')}, decision {version.tags.get('decision', '')}"
    lines = [f"Candidate {version.candidate[:12]}: {verdict}", "", f"Retraining run {run_id}"]
    lines += ["", "Target test images:", *figures] if figures else []
    return "\n".join(lines)


def model_name() -> str:
    from tasks.params import read_params

    return read_params().register_model.name


def tell_of_changes(workspace: Path, tell: Callable[[str], None]) -> None:
    """Says what isn't committed and so doesn't take part, and what people gave, which does."""
    names = uncommitted(workspace)
    given = [name for name in names if Path(name).is_relative_to(GIVEN)]
    if changed := [name for name in names if name not in given]:
        told = ", ".join(changed[:5])
        tell(f"{len(changed)} changed files in {workspace} are not committed and take no part: {told}")
    if given:
        tell(
            f"{', '.join(given)} take part as they are, and are committed on the candidate's branch: commit them in {workspace}, "
            "too, before you merge it"
        )


def swept() -> list[Run]:
    """Runs that were found dead now. What this machine's left of their checkouts is removed: the next run needs none of it."""
    found = sweep()
    for run in found:
        if run.host == socket.gethostname():  # elsewhere it may only be out of reach
            clear_tree(run.tree)
    return found


def drop_old_trees(workspace: Path) -> None:
    """Removes the checkouts of failed runs but the newest few: each holds a copy of the data."""
    kept = [run for run in read_runs() if run.state in (FAILED, DEAD) and run.tree.exists()]
    for run in kept[:-N_KEPT_TREES]:
        with suppress(ValueError):  # of another repository that shares this home
            remove_tree(workspace, run.tree)
