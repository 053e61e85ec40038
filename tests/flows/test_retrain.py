"""Retraining on a toy repository: its own checkout, pinned given files, a branch a candidate; a kill leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from made_registry import NAME, git, registered
from receivers import web_receiver
from ruamel.yaml import YAML

from flows import notify
from flows.due import due_here
from flows.dvc_process import dvc_output
from flows.pins import holds
from flows.registry import find, versions
from flows.retrain import Drivers, commit_message, retrain, swept, tell_of_changes, twin_sentence
from flows.review import Statement, decide, promote, subject_of
from flows.run_lock import run_lock
from flows.run_record import DEAD, DONE, FAILED, NOTHING_NEW, marked, process_name, read_runs, runs_folder
from flows.worktree import changed_names, clear_tree, link_places, use_data
from tasks.core.reviews import APPROVE, ReviewRules, Vote

pytest_plugins = ("registry_fixtures", "retrain_repository")
pytestmark = [pytest.mark.flows, pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")]
TIME = "2026-11-21T10:00:00+00:00"
PROJECT = Path(__file__).parents[2]
WAITING = """\
import os, pathlib, time
pathlib.Path("data").mkdir(exist_ok=True)
pathlib.Path(os.environ["ACCLIMATE_HOME"], "pid").write_text(str(os.getpid()))
time.sleep(90)
"""


def say_nothing(_: object) -> str:
    return ""


def stages() -> None:
    dvc_output("repro", "register_model")


def drivers(
    run_stages: Callable[[], None] = stages, tell: Callable[[str], object] = say_nothing, form: str = ""
) -> Drivers:
    return Drivers(run_stages, lambda _: form, lambda line: void(tell(line)))


def void(_: object) -> None:
    """A list's append is fine as a listener."""


def no_stages() -> None:
    pytest.fail("there was nothing to run")


@pytest.mark.slow
def test_a_candidate_comes_from_the_commit_once_and_asks_for_its_review_once(
    project: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "build.py").write_text("raise SystemExit('somebody is at work here')\n")
    before, told = git("status", "--porcelain"), list[str]()
    with web_receiver() as (address, received):
        monkeypatch.setenv("ACCLIMATE_WEBHOOK", address)
        first = retrain(project, None, drivers(tell=told.append, form="the form"))
        again = retrain(project, None, drivers())
    (version,) = versions(NAME)
    assert (first.state, first.candidate) == (DONE, version.candidate)
    assert f"1 changed files in {project} are not committed and take no part: build.py" in told
    assert git("show", f"{first.branch}:dvc.lock").count("data/bundle") == 1
    assert version.tags["git_tree"] == "clean"
    assert version.tags["git_commit"] == git("rev-parse", "main").strip()  # nothing was pinned: no commit of its own
    assert (git("status", "--porcelain"), git("branch", "--show-current").strip()) == (before, "main")
    assert len(git("worktree", "list").splitlines()) == 1
    assert (again.state, again.candidate) == (NOTHING_NEW, version.candidate)
    assert "again, which stands on the branch" in again.told
    (message,) = received
    assert message["subject"] == "digits version 1 waits for its review"
    assert (message["candidate"], message["branch"], message["form"]) == (version.candidate, first.branch, "the form")


@pytest.mark.slow
def test_nothing_new_ends_early_and_a_new_label_is_new(project: Path, home: Path) -> None:
    first = retrain(project, None, drivers())
    git("merge", "-q", first.branch)
    assert due_here().startswith(
        "nothing to compute anew, but the results of build_manifest, register_model here are not"
    )
    idle = retrain(project, None, drivers(no_stages))
    assert (idle.state, idle.step) == (NOTHING_NEW, "looking for what is new")
    (project / "data/given/accepted_profile.json").write_text('{"n": 1}\n')  # as a promotion leaves it
    (project / "data/given/champion/manifest.json").write_text("{}\n")
    git("add", ".")
    git("commit", "-q", "-m", "promoted")
    assert retrain(project, None, drivers(no_stages)).state == NOTHING_NEW
    (project / "data/given/labels.csv").write_text("image_id,label\n1,7\n")  # said, not committed
    told = list[str]()
    labelled = retrain(project, None, drivers(tell=told.append))
    assert labelled.state == DONE
    assert "new since the last run on this branch: data/given/labels.csv" in told
    assert git("show", f"{labelled.branch}:data/given/labels.csv") == "image_id,label\n1,7\n"
    commit = find(NAME, labelled.candidate).tags["git_commit"]
    assert commit == git("rev-parse", f"{labelled.branch}~1").strip()
    (project / "images/2.png").write_text("2")
    assert retrain(project, None, drivers()).state == DONE


@pytest.mark.slow
def test_the_champion_is_pinned_before_the_stages_start(project: Path, home: Path, tmp_path: Path) -> None:
    version = registered(tmp_path, "aa")
    vote = Vote(
        version.candidate,
        APPROVE,
        "bob",
        "",
        "good",
        "",
        subject_of(version).report_sha256,
        TIME,
        1,
    )
    decide(version, vote, ReviewRules(1, allow_starter=True))
    promote(version, Statement("bob", "", "good"), time=TIME, tell=void)
    git("checkout", "-q", "data")  # as in a workspace that was not there when it was promoted
    git("clean", "-q", "-f", "data")
    found = []

    def look() -> None:
        found.append(holds(Path("data/given/champion"), version.folder))
        stages()

    run = retrain(project, None, drivers(look))
    assert found == [True]
    assert find(NAME, run.candidate).tags["git_tree"] == "clean"
    assert "model.safetensors" in git("ls-tree", "-r", "--name-only", run.branch)
    assert not (project / "data/given/champion/model.safetensors").exists()


@pytest.mark.slow
def test_a_failed_run_keeps_its_folder_and_the_next_one_starts_anew(project: Path, home: Path) -> None:
    def fail() -> None:
        raise ValueError("register_model: no memory")

    with pytest.raises(ValueError, match="register_model: no memory"):
        retrain(project, None, drivers(fail))
    (failed,) = read_runs()
    assert (failed.state, failed.step) == (FAILED, "running the stages")
    assert failed.told == f"register_model: no memory; its folder is {failed.tree}"
    assert (failed.tree / "dvc.yaml").exists()
    assert retrain(project, None, drivers()).state == DONE


@pytest.mark.slow
def test_results_go_to_the_remote_and_come_from_it(
    project: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "WAITS_S", [])
    store = tmp_path / "store"
    dvc_output("remote", "add", "--local", "-d", "store", "../store")  # relative, and known to this workspace only
    first = retrain(project, None, drivers())
    assert sum(path.is_file() for path in store.rglob("*")) >= 8  # the bundle's seven files, its list, the manifest
    git("merge", "-q", first.branch)
    subprocess.run(["rm", "-r", ".dvc/cache"], check=True)
    assert retrain(project, None, drivers(no_stages)).state == NOTHING_NEW
    assert any((project / ".dvc/cache/files").rglob("*"))


def test_a_checkout_that_git_does_not_know_is_cleared(project: Path, tmp_path: Path) -> None:
    """A kill before git wrote its part; the second clearing finds nothing."""
    (tmp_path / "tree/data").mkdir(parents=True)
    for _ in range(2):
        clear_tree(tmp_path / "tree")
        assert not (tmp_path / "tree").exists()


def test_changes_are_told_as_seen_from_the_project_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    git("init", "-q", "-b", "main")
    project, names = tmp_path / "sites/north pole", ("data/given/labels.csv", "größe.py", "same.py", "../shared.py")
    for name in names:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("1\n")
    git("add", ".")
    git("commit", "-q", "-m", "project")
    for name in names:
        (project / name).write_text("1\n" if name == "same.py" else "2\n")
    git("add", "sites/north pole/größe.py")
    (project / "unknown.py").touch()
    told = list[str]()
    tell_of_changes(project, told.append)
    assert told == [
        f"2 changed files in {project} are not committed and take no part: größe.py, ../shared.py",
        "data/given/labels.csv take part as they are, and are committed on the candidate's branch: commit them in "
        f"{project}, too, before you merge it",
    ]


def test_a_folder_without_a_commit_is_refused(home: Path) -> None:
    with pytest.raises(ValueError, match=r"retraining starts from a commit, and .* has none: .*; commit first"):
        retrain(Path(), None, drivers())
    assert [run.state for run in read_runs()] == [FAILED]


def command(project: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "retrain", *arguments], cwd=project, text=True,
        env=os.environ | {"PYTHONPATH": str(PROJECT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def wait_for(is_so: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)


@pytest.mark.slow
def test_a_killed_run_is_found_dead_and_its_stage_ends(project: Path, home: Path) -> None:
    (project / "build.py").write_text(WAITING)
    git("commit", "-q", "-am", "a stage that waits")
    with command(project) as process:
        wait_for(lambda: (home / "pid").exists() and (home / "pid").read_text())
        stage = int((home / "pid").read_text())
        process.send_signal(signal.SIGKILL)  # its pipe stays open while the stage lives: nobody reads it to the end
    assert process_name(stage)  # it outlived its run
    assert len(git("worktree", "list").splitlines()) == 2
    (dead,) = swept()
    assert (dead.state, dead.step) == (DEAD, "running the stages")
    assert not dead.tree.exists()
    assert len(git("worktree", "list").splitlines()) == 1
    assert (project / "images/1.png").read_text() == "1"  # the checkout held a link to them
    assert not process_name(stage)
    assert marked(dead) == []
    git("checkout", "-q", "HEAD~1", "build.py")
    git("commit", "-q", "-m", "and one that doesn't")
    assert retrain(project, None, drivers()).state == DONE
    assert [run.state for run in read_runs()] == [DEAD, DONE]


@pytest.mark.slow
def test_a_run_waits_for_another_and_is_found_dead_if_killed_there(project: Path, home: Path) -> None:
    with run_lock(home, runs_folder(), tell=void), command(project) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("waiting for the run that holds")
        process.send_signal(signal.SIGKILL)
    with command(project, "--list") as listing:
        out, _ = listing.communicate()
    assert listing.returncode == 0
    assert "waiting for its turn" in out
    assert [run.state for run in read_runs()] == [DEAD]


@pytest.fixture
def two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A workspace, and a checkout of it, in which we are."""
    workspace, checkout = tmp_path / "workspace", tmp_path / "runs/1/checkout"
    for folder in (workspace, checkout):
        folder.mkdir(parents=True)
        (folder / "dvc.yaml").write_text("stages: {make: {cmd: c, outs: [data/sample, {data/plot.csv: {x: a}}]}}\n")
    monkeypatch.chdir(checkout)
    return workspace, checkout


def write_places(root: str, table: str, zoo: str) -> None:
    YAML(typ="safe").dump(
        {"build_manifest": {"root": root, "table": table}, "zoo": {"folder": zoo}}, Path("params.yaml")
    )


def test_data_is_linked_but_not_what_a_stage_makes(two_folders: tuple[Path, Path]) -> None:
    workspace, checkout = two_folders
    (workspace / "photos/2026").mkdir(parents=True)
    (workspace / "data/sample/zoo").mkdir(parents=True)
    write_places("photos/2026", "photos/2026", "data/sample/zoo")
    link_places(workspace)
    assert (checkout / "photos/2026").resolve() == workspace / "photos/2026"
    assert not (checkout / "data").exists()


def test_data_above_the_project_must_be_named_absolutely(two_folders: tuple[Path, Path]) -> None:
    workspace, _ = two_folders
    (workspace.parent / "photos").mkdir()
    write_places("../photos", "t.csv", "zoo")
    with pytest.raises(
        ValueError, match=r"build_manifest\.root '\.\./photos' leads out of the project; write \S+/photos"
    ):
        link_places(workspace)


@pytest.mark.parametrize(
    ("given", "data", "expected"),
    [
        (("old", "old"), "new", ("new", "new")),
        (("old", "old.csv"), "new", ("new", "old.csv")),
        (("old", "old.csv"), "new.csv", ("old", "new.csv")),
        (("old", "old"), "new.zip", ("new.zip", "new.zip")),
    ],
)
def test_other_data_takes_the_place_of_root_or_table(
    two_folders: tuple[Path, Path], given: tuple[str, str], data: str, expected: tuple[str, str]
) -> None:
    _, checkout = two_folders
    Path("params.yaml").write_text(f"build_manifest:  # mine\n  root: {given[0]}\n  table: {given[1]}\n")
    (checkout / data).touch() if "." in data else (checkout / data).mkdir()
    use_data(Path(data))
    found = YAML(typ="safe").load(Path("params.yaml"))["build_manifest"]
    absolute = [str(checkout / name) if name.startswith("new") else name for name in expected]
    assert [found["root"], found["table"]] == absolute
    assert "# mine" in Path("params.yaml").read_text()


def test_data_that_is_not_there_is_refused(two_folders: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match="--data nowhere does not exist; name a folder or an archive of images, or a"):
        use_data(Path("nowhere"))


def test_what_changed_is_named_once_and_what_is_only_absent_or_pinned_is_not() -> None:
    status = {
        "a": ["changed command", {"changed deps": {"params.yaml": {"seed": "new"}, "a.py": "modified"}}],
        "b": [
            {"changed outs": {"x": "deleted"}},
            {"changed deps": {"a.py": "modified", "data/given/champion": "modified"}},
        ],
    }
    assert changed_names(status) == ["the command of a", "seed", "a.py"]
    assert changed_names({}) == []


def test_the_same_weights_under_another_report_are_told(home: Path, tmp_path: Path) -> None:
    first, other, again = (
        registered(tmp_path / folder, weights, verdict=verdict)
        for folder, weights, verdict in (("1", "aa", "pass"), ("2", "bbb", "pass"), ("3", "aa", "fail"))
    )
    assert [twin_sentence(each) for each in (first, other)] == ["", ""]
    told = "its weights are those of version 1: what is new has not changed the model, only report.html, verdict.json"
    assert twin_sentence(again) == told


def test_the_commit_says_the_figures_in_words(home: Path, tmp_path: Path) -> None:
    version = registered(tmp_path, "aa")
    metrics = {
        "adopted": {"n": 768, "accuracy": 0.9648, "accuracy_low": 0.949, "accuracy_high": 0.9757, "by": {"a": [1, 2]}}
    }
    Path("data/metrics.json").write_text(json.dumps(metrics))
    assert commit_message(version, "r1").splitlines() == [
        f"Candidate {version.candidate[:12]}: verdict pass, decision adopt", "", "Retraining run r1", "", "Target test images:",
        "adopted: accuracy 0.965 (0.949 to 0.976), n = 768",
    ]  # fmt: skip
