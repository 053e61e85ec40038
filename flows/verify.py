"""Whether a registered model still is what it was registered as: each part of its lineage hashed anew."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.lineage import (
    ENVIRONMENT,
    Recorded,
    file_md5,
    folder_md5,
    path_md5,
    read_lock,
    recorded,
    recorded_params,
)
from flows.registry import Version
from tasks.core.files import file_sha256
from tasks.register_model import kept_lock

OK, DIFFERS, UNKNOWN = "ok", "differs", "unknown"
ABSENT = object()
N_TOLD = 5


@dataclass(frozen=True)
class Finding:
    """What was looked at, and what was found; `unknown`: it could not be looked at, which is no ok."""

    part: str
    verdict: str
    told: str


def verify(version: Version) -> list[Finding]:
    """bundle, dvc.lock, commit, code, environment, params and data of the version. Run in its project's folder."""
    findings = [bundle_finding(version)]
    kept = kept_lock(version.candidate)
    if not kept.exists():
        return [
            *findings,
            Finding("dvc.lock", UNKNOWN, "none was kept with this model, so nothing else can be compared"),
        ]
    stages = read_lock(kept)
    commit = version.tags.get("git_commit", UNKNOWN)
    findings += [lock_finding(version, kept), commit_finding(version, commit)]
    if findings[-1].verdict == UNKNOWN:
        commit = ""
    every = list({item.path: item for item in recorded(stages)}.values())
    code = [item for item in every if item.is_code]
    data = [item for item in every if not item.is_code]
    md5s = commit_md5s(commit, [item.path for item in every]) if commit else {}
    findings.append(code_finding([item for item in code if item.path != ENVIRONMENT], md5s, commit))
    findings.append(environment_finding([item for item in code if item.path == ENVIRONMENT], md5s, commit))
    findings.append(params_finding(recorded_params(stages), commit))
    return [*findings, data_finding(data, md5s)]


def bundle_finding(version: Version) -> Finding:
    try:
        folder = version.checked_folder()
    except (ValueError, FileNotFoundError) as error:
        return Finding("bundle", DIFFERS if version.folder.is_dir() else UNKNOWN, str(error))
    return Finding("bundle", OK, f"every file as registered, in {folder}")


def lock_finding(version: Version, kept: Path) -> Finding:
    tag = version.tags.get("dvc_lock_sha256", UNKNOWN)
    if (found := file_sha256(kept)) != tag:
        return Finding("dvc.lock", DIFFERS, f"the kept one has sha256 {found[:16]}, the registry says {tag[:16]}")
    return Finding("dvc.lock", OK, f"sha256 {tag[:16]}, as in the registry")


def commit_finding(version: Version, commit: str) -> Finding:
    if git("cat-file", "-e", f"{commit}^{{commit}}") is None:
        return Finding("commit", UNKNOWN, f"{commit[:12]} is not in this repository; fetch it")
    if version.tags.get("git_tree") != "clean":
        return Finding(
            "commit", DIFFERS, f"{commit[:12]}, but with changes that were not committed when it was registered"
        )
    return Finding("commit", OK, f"{commit[:12]}, nothing uncommitted")


def code_finding(code: list[Recorded], md5s: dict[str, str], commit: str) -> Finding:
    if not commit:
        return Finding("code", UNKNOWN, "without the commit it can't be compared")
    if differing := [item.path for item in code if md5s.get(item.path) != item.md5]:
        return Finding("code", DIFFERS, f"not as in the commit: {some(differing)}")
    return Finding("code", OK, f"{len(code)} files, as in the commit")


def environment_finding(lock: list[Recorded], md5s: dict[str, str], commit: str) -> Finding:
    """The lock file as in the commit, and what is installed here as the lock file says."""
    from flows.doctor import locked_packages

    if not commit or not lock:
        return Finding("environment", UNKNOWN, f"{ENVIRONMENT} can't be compared without the commit and its record")
    if md5s.get(ENVIRONMENT) != lock[0].md5:
        return Finding("environment", DIFFERS, f"{ENVIRONMENT} is not as in the commit")
    if path_md5(Path(ENVIRONMENT)) != lock[0].md5:
        return Finding("environment", DIFFERS, f"{ENVIRONMENT} here is another one than the model's")
    installed = locked_packages(Path(ENVIRONMENT))
    return Finding("environment", OK if installed.verdict == "ok" else DIFFERS, f"installed: {installed.found}")


def params_finding(params: dict[str, Any], commit: str) -> Finding:
    from ruamel.yaml import YAML

    text = git("show", f"{commit}:./params.yaml") if commit else None
    if text is None:
        return Finding("params", UNKNOWN, "without the commit's params.yaml they can't be compared")
    committed = YAML(typ="safe").load(text)
    if differing := [key for key, value in params.items() if at_key(committed, key) != value]:
        return Finding("params", DIFFERS, f"not as in the commit: {some(differing)}")
    return Finding("params", OK, f"{len(params)} keys, as in the commit")


def data_finding(data: list[Recorded], md5s: dict[str, str]) -> Finding:
    """Each file and folder of the run, looked for in the workspace, in the commit and in DVC's cache."""
    cache = cache_folder()
    found: dict[str, list[str]] = {}
    for item in data:
        found.setdefault(place_of(item, md5s, cache), []).append(item.path)
    lost = found.pop("", [])
    told = ", ".join(f"{len(paths)} {place}" for place, paths in found.items())
    if lost:
        here = [path for path in lost if Path(path).exists()]
        changed = f" (changed since: {some(here)})" if here else ""
        return Finding(
            "data", UNKNOWN, f"nowhere here: {some(lost)}{changed}; found {told or 'nothing'}; try `dvc fetch`"
        )
    return Finding("data", OK, f"{len(data)} files and folders: {told}")


def place_of(item: Recorded, md5s: dict[str, str], cache: Path) -> str:
    """Where the recorded bytes are found, hashed anew; empty if nowhere."""
    if path_md5(Path(item.path)) == item.md5:
        return "in the workspace"
    if md5s.get(item.path) == item.md5:
        return "in the commit"
    return "in DVC's cache" if is_cached(item.md5, cache) else ""


def is_cached(md5: str, cache: Path) -> bool:
    """Whether DVC's cache holds the bytes of that hash, those of a folder all together."""
    import json

    path = cache / md5[:2] / md5[2:]
    if not path.is_file() or file_md5(path) != md5.removesuffix(".dir"):
        return False
    return not md5.endswith(".dir") or all(is_cached(entry["md5"], cache) for entry in json.loads(path.read_bytes()))


def cache_folder() -> Path:
    from flows.dvc_process import dvc_output

    return Path(dvc_output("cache", "dir").strip()) / "files/md5"


def commit_md5s(commit: str, paths: list[str]) -> dict[str, str]:
    """The hash that DVC would give each path, had it been taken from the commit; only of those that are in it."""
    inside = [path for path in paths if not Path(path).is_absolute() and ".." not in Path(path).parts]
    listed = git_bytes("ls-tree", "-r", "-z", commit, "--", *inside) if inside else None
    blobs = dict(_blob(line) for line in (listed or b"").split(b"\0") if line)
    md5s = dict(zip(blobs, blob_md5s(list(blobs.values())), strict=True))
    below = {
        path: {n.removeprefix(f"{path}/"): m for n, m in md5s.items() if n.startswith(f"{path}/")} for path in inside
    }
    return md5s | {path: folder_md5(files) for path, files in below.items() if files}


def blob_md5s(blobs: list[str]) -> Iterator[str]:
    """MD5 of each blob's bytes, from one git process."""
    import hashlib

    done = subprocess.run(
        ["git", "cat-file", "--batch"], input="\n".join(blobs).encode(), capture_output=True, check=True
    )
    rest = memoryview(done.stdout)
    for _ in blobs:
        header, _, _ = bytes(rest[:200]).partition(b"\n")
        start, size = len(header) + 1, int(header.split()[2])
        yield hashlib.md5(rest[start : start + size]).hexdigest()
        rest = rest[start + size + 1 :]


def _blob(line: bytes) -> tuple[str, str]:
    facts, _, name = line.partition(b"\t")
    return os.fsdecode(name), facts.split()[2].decode()


def at_key(params: Any, key: str) -> Any:
    """The value at a dotted key, ABSENT where there is none."""
    for name in key.split("."):
        if not isinstance(params, dict) or name not in params:
            return ABSENT
        params = params[name]
    return params


def some(names: list[str]) -> str:
    more = f" and {len(names) - N_TOLD} more" if len(names) > N_TOLD else ""
    return ", ".join(names[:N_TOLD]) + more


def git(*arguments: str) -> str | None:
    """What git prints, None where it fails."""
    said = git_bytes(*arguments)
    return None if said is None else said.decode()


def git_bytes(*arguments: str) -> bytes | None:
    done = subprocess.run(["git", *arguments], capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None
