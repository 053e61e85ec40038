"""A registered bundle brought to a machine that did not make it: from DVC's remote, at the commit that holds its dvc.lock."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from flows.dvc_process import check_project, dvc_output
from flows.lineage import BUNDLE
from flows.registry import Version
from flows.run_lock import run_lock
from flows.verify import git, git_bytes, some
from tasks.core.bundle import MANIFEST, candidate_id
from tasks.core.files import file_sha256, read_json, whole_file, whole_folder
from tasks.core.runtime import acclimate_home
from tasks.register_model import kept_lock


def fetch(version: Version, *, tell: Callable[[str], None]) -> str:
    """One line on what was done: the version's bundle and its dvc.lock are here, as registered to the byte.

    ValueError with the reason where they can't be fetched; what was here before stays then.
    """
    check_project()
    kept = kept_lock(version.candidate)
    sha256 = version.tags.get("dvc_lock_sha256", "")
    with run_lock(acclimate_home(), version.folder.parent, tell=tell):
        is_whole = not damage(version.folder, version.candidate)
        is_kept = kept.exists() and file_sha256(kept) == sha256
        if is_whole and is_kept:
            return f"{version.name} version {version.number} is here already, to the byte, in {version.folder}"
        commit, lock = recorded_lock(version, sha256)
        if not is_whole:
            bring(version, commit)
        with whole_file(kept) as part:
            part.write_bytes(lock)
    return f"{version.name} version {version.number} is fetched, as in commit {commit[:12]}, to {version.folder}"


def recorded_lock(version: Version, sha256: str) -> tuple[str, bytes]:
    """The newest commit of any branch that holds the dvc.lock of the version's run, and that file.

    Not the commit that the version is tagged with: a run starts from that one, and its dvc.lock is committed after it.
    """
    for commit in (git("rev-list", "--all", "--full-history", "--", "dvc.lock") or "").split():
        lock = git_bytes("show", f"{commit}:./dvc.lock")
        if lock is not None and hashlib.sha256(lock).hexdigest() == sha256:
            return commit, lock
    raise ValueError(
        f"no commit here holds the dvc.lock of {version.name} version {version.number} (sha256 {sha256[:16] or 'not recorded'}): "
        "where the model was made, commit dvc.lock, `dvc push` and `git push` its branch; then `git fetch` here"
    )


def bring(version: Version, commit: str) -> None:
    """Nothing: the bundle of that commit takes its place, once every byte of it is what was registered."""
    got = acclimate_home() / "fetched" / version.candidate
    shutil.rmtree(got, ignore_errors=True)  # of a call that was killed
    got.parent.mkdir(parents=True, exist_ok=True)
    place = f"{(git('rev-parse', '--show-prefix') or '').strip()}{BUNDLE}"  # with --rev, from the repository's top
    named = f"{version.name} version {version.number}"
    try:
        get_from_remote(place, commit, got)
        with whole_folder(version.folder) as part:  # a copy: DVC may have linked its own files
            shutil.copytree(got, part, dirs_exist_ok=True, copy_function=shutil.copyfile)
            if damaged := damage(part, version.candidate):
                raise ValueError(f"other bytes than were registered in {damaged}")
    except (ValueError, OSError) as error:
        raise ValueError(f"the bundle of {named} can't be fetched at commit {commit[:12]}: {error}") from None
    finally:
        shutil.rmtree(got, ignore_errors=True)


def get_from_remote(place: str, commit: str, got: Path) -> None:
    """Nothing: what the commit has at that place is there. ValueError with the reason."""
    name, url = default_remote()
    named = ["--remote", name] if name else []  # else `dvc get` knows only the default remote that the commit tells
    try:
        dvc_output("get", ".", place, "--rev", commit, "--out", str(got), *named)
    except ValueError as error:
        if not name:
            raise ValueError(
                "this project has no default DVC remote; `dvc remote add --default NAME PLACE` (one of `dvc remote list`: "
                "`dvc remote default NAME`), and `dvc push` where it was made"
            ) from None
        if url.startswith(os.sep) and not Path(url).is_dir():
            raise ValueError(
                f"the folder {url} of the DVC remote {name!r} isn't there; mount it, or mend it with "
                f"`dvc remote modify {name} url PLACE`"
            ) from None
        told = str(error).removeprefix("unexpected error - ")
        raise ValueError(f"the DVC remote {name!r} ({url}) says: {told}; `dvc push` it where it was made") from None


def default_remote() -> tuple[str, str]:
    """Name and place of DVC's default remote here; both empty where there is none."""
    lines = dvc_output("config", "--list").splitlines()
    settings = dict(line.split("=", 1) for line in lines if "=" in line)
    name = settings.get("core.remote", "")
    return name, settings.get(f"remote.{name}.url", "")


def damage(folder: Path, candidate: str) -> str:
    """Names of the files that are absent or not the candidate's; empty where the bundle is whole."""
    manifest = folder / MANIFEST
    if not manifest.is_file() or candidate_id(folder) != candidate:
        return MANIFEST
    files = read_json(manifest, made_by="register_model")["files"]
    return some([n for n, sha256 in files.items() if not (folder / n).is_file() or file_sha256(folder / n) != sha256])
