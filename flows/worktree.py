"""A checkout of the repository for one run: its own files and lock, but the cache, the data and the home of the workspace."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from flows.dvc_process import dvc_output
from flows.notify import retried

GIVEN, PARAMS, LOCK = Path("data/given"), Path("params.yaml"), Path("dvc.lock")
LABELS = GIVEN / "labels.csv"
PINNED = {str(GIVEN / name) for name in ("champion", "accepted_profile.json")}
PLACES = (("build_manifest", "root"), ("build_manifest", "table"), ("zoo", "folder"))
TABLES = (".csv", ".tsv", ".parquet")
ABSENT = "deleted"  # DVC's word
# A person's hooks and signing key are not the schedule's.
OURS = ("-c", "core.hooksPath=/dev/null", "-c", "commit.gpgsign=false")
NOBODY = ("-c", "user.name=acclimate", "-c", "user.email=acclimate@localhost")


def git(*arguments: str, at: Path | None = None) -> str:
    """What git prints. ValueError with its own reason if it fails."""
    command = ["git", *(("-C", str(at)) if at else ()), *OURS, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"`git {' '.join(arguments)}` failed: {' '.join(done.stderr.split())}")
    return done.stdout.strip()


def uncommitted(workspace: Path) -> list[str]:
    """Known files whose bytes aren't those of the last commit, as seen from the workspace, wherever in the repository it lies."""
    top = git("rev-parse", "--show-prefix", at=workspace)  # git names them as seen from its top folder
    names = git("diff", "HEAD", "--name-only", "--no-renames", "-z", at=workspace).split("\0")
    return [os.path.relpath(name, top or os.curdir) for name in names if name]


def add_tree(workspace: Path, tree: Path, commit: str = "HEAD") -> tuple[str, Path]:
    """The commit, that of the workspace's branch unless told, and the project's folder in a new checkout of it."""
    try:
        commit, inner = git("rev-parse", commit, at=workspace), git("rev-parse", "--show-prefix", at=workspace)
    except ValueError as error:
        raise ValueError(f"retraining starts from a commit, and {workspace} has none: {error}; commit first") from None
    git("worktree", "add", "--quiet", "--detach", str(tree), commit, at=workspace)
    if not (project := tree / inner).joinpath("dvc.yaml").exists():
        raise ValueError(f"commit {commit[:12]} holds no dvc.yaml in {inner or 'its top folder'}; commit the project")
    return commit, project


def remove_tree(workspace: Path, tree: Path) -> None:
    """Nothing; commits and branches that were made in it stay."""
    git("worktree", "remove", "--force", str(tree), at=workspace)


def clear_tree(tree: Path) -> None:
    """Nothing: what a killed run left of its checkout is gone, whole or not, and its repository knows it no more."""
    try:
        repository = git("rev-parse", "--path-format=absolute", "--git-common-dir", at=tree)
    except ValueError:  # killed before git had written its part
        repository = ""
    shutil.rmtree(tree, ignore_errors=True)  # links to images and to DVC's cache are removed, not what they lead to
    if repository and not tree.exists():
        git("--git-dir", repository, "worktree", "prune")


@contextmanager
def inside(project: Path, variables: dict[str, str]) -> Iterator[None]:
    """In the folder, with these variables set."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        with chdir(project):
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def share_cache(workspace: Path) -> bool:
    """Whether there is a remote to pull from and push to; this checkout uses the workspace's cache and remotes, secrets too."""
    with chdir(workspace):
        cache, listed = Path(dvc_output("cache", "dir").strip()).absolute(), dvc_output("config", "--list")
    found = dict(line.split("=", 1) for line in listed.splitlines() if "=" in line)
    settings = ConfigParser(interpolation=None)
    settings.read(workspace / ".dvc/config.local", encoding="utf-8")
    # autostage: else DVC advises after each stage to add dvc.lock to git, which we do
    changes = {"cache": {"dir": str(cache)}, "core": {"autostage": "true"}}
    for key, value in found.items():
        section, _, name = key.removesuffix(".url").partition(".")
        if section == "remote" and key.endswith(".url") and value.startswith(os.sep):
            changes[f"'remote \"{name}\"'"] = {"url": value}  # a relative one would be looked for beside the checkout
    for section, values in changes.items():
        settings.read_dict({section: values})
    with Path(".dvc/config.local").open("w", encoding="utf-8") as handle:
        settings.write(handle)
    return "core.remote" in found


def fetch_data(has_remote: bool, tell: Callable[[str], None]) -> None:
    """Nothing: what the commit's dvc.lock names is here, as far as the cache or the remote has it."""
    command = "pull" if has_remote else "checkout"
    retried(lambda: dvc_transfer(command, "--quiet", "--allow-missing"), tell=tell)


def push_data(tell: Callable[[str], None]) -> None:
    """Nothing: other machines can fetch what the run made."""
    retried(lambda: dvc_transfer("push", "--quiet"), tell=tell)


def dvc_transfer(*arguments: str) -> None:
    """Nothing. OSError where it fails: a transfer fails by input and output."""
    try:
        dvc_output(*arguments)
    except ValueError as error:
        raise OSError(f"dvc {arguments[0]}: {error}") from None


def link_places(workspace: Path) -> None:
    """Nothing: the data that params.yaml names relatively, and neither git nor DVC holds, is linked."""
    content, made, problems = load_params(), outs(), []
    for section, key in PLACES:
        place = Path(os.path.normpath((content.get(section) or {}).get(key) or os.curdir))
        if ".." in place.parts:
            problems.append(
                f"{section}.{key} {str(place)!r} leads out of the project; write {(workspace / place).resolve()}"
            )
        if ".." in place.parts or place.is_absolute() or place.exists():
            continue
        if any(place.is_relative_to(out) for out in made) or not (workspace / place).exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to((workspace / place).resolve())
    if problems:
        raise ValueError(
            f"a retraining run is checked out elsewhere: {'; '.join(problems)} into params.yaml and commit it"
        )


def outs() -> list[Path]:
    """What the stages make, as dvc.yaml says."""
    stages = YAML(typ="safe").load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"].values()
    listed = [item for stage in stages for kind in ("outs", "metrics", "plots") for item in stage.get(kind, [])]
    return [Path(next(iter(item)) if isinstance(item, dict) else item) for item in listed]


def load_params() -> Any:
    return YAML(typ="safe").load(PARAMS.read_text(encoding="utf-8"))


def use_data(data: Path) -> None:
    """Nothing: this checkout's params.yaml names the table, or the folder or archive of images."""
    if not data.exists():
        raise ValueError(f"--data {data} does not exist; name a folder or an archive of images, or a table")
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 4096, True
    content = yaml.load(PARAMS.read_text(encoding="utf-8"))
    section, place = content["build_manifest"], str(data.resolve())
    if data.suffix.lower() in TABLES:
        section["table"] = place
    else:
        if section["table"] == section["root"]:
            section["table"] = place
        section["root"] = place
    with PARAMS.open("w", encoding="utf-8") as handle:
        yaml.dump(content, handle)


def take_labels(workspace: Path) -> None:
    """Nothing: what people said about images counts as soon as it is said, committed or not."""
    if (labels := workspace / LABELS).exists():
        LABELS.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(labels, LABELS)


def news(target: str) -> list[str]:
    """What of all that the stages would read or have made is not as the commit's dvc.lock tells; nothing where it all is.

    What is only absent here was neither in the cache nor at a remote, and need not be made anew. What a promotion pinned is no
    news either: the same model would be trained and asked about again. Not `dvc repro --dry`: it fails where a stage never
    ran, because what it would read does not exist.
    """
    return changed_names(json.loads(dvc_output("status", "--json", "--with-deps", target)))


def changed_names(status: dict[str, Any]) -> list[str]:
    """Paths and keys of parameters that DVC's status calls changed, each once; "the command of STAGE" where that is."""
    found: dict[str, None] = {}
    for stage, changes in status.items():
        for change in changes:
            if isinstance(change, str):  # "changed command", or that the stage is always run
                found[f"the command of {stage}" if change == "changed command" else f"{stage} ({change})"] = None
                continue
            for kind in change.values():
                for path, how in kind.items():
                    names = how if isinstance(how, dict) else {path: how}  # of params.yaml: its keys
                    found |= dict.fromkeys(n for n, state in names.items() if state != ABSENT and path not in PINNED)
    return list(found)


def commit_given(run_id: str) -> None:
    """Nothing: what was pinned is committed before anything is computed, so that the commit tells all that the run reads."""
    commit([str(path) for path in (GIVEN, PARAMS) if path.exists()], f"Given to retraining run {run_id}")


def commit_results(branch: str, message: str) -> bool:
    """Whether the branch is new: it then holds dvc.lock, tracked metrics and parameters of this run."""
    if git("branch", "--list", branch):
        return False
    git("add", "--update", ".")
    commit([str(LOCK)], message)
    git("branch", branch)
    return True


def commit(paths: list[str], message: str) -> None:
    """Nothing; no commit either where nothing changed."""
    git("add", *paths)
    if git("diff", "--cached", "--name-only"):
        known = subprocess.run(["git", "config", "user.email"], capture_output=True, check=False).returncode == 0
        git(*(() if known else NOBODY), "commit", "--quiet", "--message", message)
