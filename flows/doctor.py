"""Checks of machine and workspace: what was found, whether it will do, and what to do about it."""

import importlib.metadata
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.version import Version

from flows.dvc_process import dvc_output
from flows.environment import settle_prefect

GIB = 2**30
WANTED_DISK_GIB = 10
WANTED_MEMORY_GIB = 4
COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@dataclass(frozen=True)
class Check:
    """One line of the doctor's table."""

    name: str
    found: str
    verdict: Literal["ok", "warn", "fail"] = "ok"
    advice: str = ""

    @property
    def colour(self) -> str:
        return COLOURS[self.verdict]


def examine(workspace: Path) -> list[Check]:
    """All checks, in the order in which their advice should be followed."""
    settle_prefect()
    return [
        python_version(),
        locked_packages(workspace / "requirements.lock"),
        prefect_and_fastapi(importlib.metadata.version("prefect"), importlib.metadata.version("fastapi")),
        *hardware(workspace),
        *folders(workspace),
        *repository(workspace),
        telemetry(),
        *project_files(workspace),
    ]


def python_version() -> Check:
    return Check("python", f"{platform.python_version()} ({sys.executable})")


def locked_packages(lock: Path) -> Check:
    """Installed versions against requirements.lock."""
    if not lock.exists():
        return Check("packages", f"{lock.name} is missing", "warn", "run from the project's folder")
    pins = [Requirement(line.rstrip(" \\")) for line in lock.read_text().splitlines() if line[:1].isalnum()]
    differing = list(_differing([pin for pin in pins if pin.marker is None or pin.marker.evaluate()]))
    if differing:
        shown = ", ".join(differing[:5]) + (f" and {len(differing) - 5} more" if len(differing) > 5 else "")
        return Check("packages", shown, "warn", "numbers may differ: install requirements.lock with --require-hashes")
    return Check("packages", f"as in {lock.name}")


def prefect_and_fastapi(prefect: str, fastapi: str) -> Check:
    """Prefect 3.8 declares fastapi<1 but its server does not start with 0.151 and newer."""
    found = f"prefect {prefect}, fastapi {fastapi}"
    if Version(prefect) < Version("3.9") and Version(fastapi) >= Version("0.151"):
        return Check("prefect server", found, "fail", "it does not start: install 'fastapi>=0.139,<0.151'")
    return Check("prefect server", found)


def hardware(workspace: Path) -> Iterator[Check]:
    """Device, cores, memory and disk."""
    import torch  # seconds; no other check needs it

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield Check("torch", f"{torch.__version__}, {', '.join(gpus) or 'no GPU'}")
    yield Check("cores", str(len(os.sched_getaffinity(0))))
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    yield _at_least("memory", memory_gib, WANTED_MEMORY_GIB, "lower the batch sizes in params.yaml")
    advice = "make room; `dvc gc --all-branches --dry` shows what no branch needs"
    yield _at_least("free disk", shutil.disk_usage(workspace).free / GIB, WANTED_DISK_GIB, advice)


def folders(workspace: Path) -> Iterator[Check]:
    """Folders that a run writes to."""
    from tasks.core.runtime import acclimate_home

    wanted = {
        "workspace": workspace,
        "ACCLIMATE_HOME": acclimate_home(),
        "PREFECT_HOME": Path(os.environ["PREFECT_HOME"]),
        "temporary files": Path(tempfile.gettempdir()),
    }
    for name, folder in wanted.items():
        there = next(path for path in [folder, *folder.parents] if path.exists())  # the rest is made when needed
        if os.access(there, os.W_OK | os.X_OK):
            yield Check(name, str(folder))
        else:
            yield Check(name, f"{folder} is not writable", "fail", f"make {there} writable")


def repository(workspace: Path) -> Iterator[Check]:
    """git, DVC and how DVC's cache hands out files."""
    for name in ("git", "dvc"):
        if not (workspace / f".{name}").exists():
            yield Check(name, "not initialised", "fail", f"run `{name} init`")
            return
        yield Check(name, "initialised")
    told = re.search(r"Cache types: (.*)", _dvc("doctor"))
    supported = told[1] if told else "unknown"
    is_known = "no-dvc-cache" not in supported  # an address of DVC's documentation in place of the kinds
    chosen = _dvc("config", "cache.type").strip()
    words = supported if is_known else "not known before the first run makes a cache"
    found = f"configured {chosen or 'reflink,copy (default)'}; possible: {words}"
    if is_known and not chosen and "reflink" not in supported:
        advice = "every file lies on disk twice: `dvc config --local cache.type hardlink,symlink`"
        yield Check("dvc cache links", found, "warn", advice)
    else:
        yield Check("dvc cache links", found)


def telemetry() -> Check:
    from tasks.core.runtime import TELEMETRY_OFF

    on = [f"{name}={os.environ[name]}" for name, value in TELEMETRY_OFF.items() if os.environ[name] != value]
    if on:
        return Check("telemetry", ", ".join(on), "warn", "unset these variables to have it off")
    return Check("telemetry", "off")


def project_files(workspace: Path) -> Iterator[Check]:
    """params.yaml and dvc.yaml, loaded as a run loads them."""
    from flows.graph import stages
    from tasks.params import read_params

    try:
        yield device(read_params(workspace / "params.yaml").runtime.device)
    except (ValueError, FileNotFoundError) as error:
        yield Check("params.yaml", str(error), "fail", "correct params.yaml")
    try:
        yield Check("dvc.yaml", f"{len(stages())} stages")
    except ValueError as error:
        yield Check("dvc.yaml", str(error), "fail", "mend what it names")


def device(wanted: str) -> Check:
    """params.yaml's device against what torch sees."""
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        advice = "set runtime.device to cpu, or mend the driver"
        return Check("params.yaml", "runtime.device is cuda but torch sees no GPU", "fail", advice)
    return Check("params.yaml", f"valid; runs on {wanted}")


def _differing(pins: list[Requirement]) -> Iterator[str]:
    for pin in pins:
        try:
            version = importlib.metadata.version(pin.name)
        except importlib.metadata.PackageNotFoundError:
            yield f"{pin.name} is missing"
            continue
        if not pin.specifier.contains(version.split("+")[0], prereleases=True):
            yield f"{pin.name} {version} instead of {pin.specifier}"


def _at_least(name: str, found_gib: float, wanted_gib: float, advice: str) -> Check:
    found = f"{found_gib:.1f} GiB"
    return Check(name, found) if found_gib >= wanted_gib else Check(name, found, "warn", advice)


def _dvc(*arguments: str) -> str:
    try:
        return dvc_output(*arguments)
    except ValueError:  # `dvc config <name>` fails where nothing is set
        return ""
