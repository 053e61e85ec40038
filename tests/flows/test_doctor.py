import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows.doctor import locked_packages, prefect_and_fastapi, project_files, repository


@pytest.mark.parametrize(
    ("prefect", "fastapi", "verdict"),
    [
        ("3.8.8", "0.150.0", "ok"),
        ("3.8.8", "0.151.0", "fail"),
        ("3.8.8", "0.165.0", "fail"),
        ("3.9.1", "0.165.0", "ok"),
    ],
)
def test_the_fastapi_that_stops_prefects_server_is_found(prefect: str, fastapi: str, verdict: str) -> None:
    assert prefect_and_fastapi(prefect, fastapi).verdict == verdict


def test_packages_that_differ_from_the_lock_are_named(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    pins = [
        "pytest==0.1 \\",
        "    --hash=sha256:0",
        "nowhere==1.0 ; sys_platform == 'win32' \\",
        "absent-package==2.0 \\",
    ]
    lock.write_text("\n".join(pins))
    check = locked_packages(lock)
    assert check.verdict == "warn"
    assert "pytest " in check.found
    assert "instead of ==0.1" in check.found
    assert "absent-package is missing" in check.found
    assert "nowhere" not in check.found


def test_a_folder_without_git_is_a_failure(tmp_path: Path) -> None:
    assert [(check.name, check.verdict, check.advice) for check in repository(tmp_path)] == [
        ("git", "fail", "run `git init`")
    ]


def test_links_that_dvc_cannot_tell_before_the_first_run_are_said_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fresh clone has no cache, and DVC then prints an address of its documentation in place of the kinds."""
    monkeypatch.chdir(tmp_path)
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, check=True)
    shutil.rmtree(".dvc/cache", ignore_errors=True)
    (links,) = [check for check in repository(tmp_path) if check.name == "dvc cache links"]
    assert links.found == "configured reflink,copy (default); possible: not known before the first run makes a cache"
    assert (links.verdict, links.advice) == ("ok", "")
    Path(".dvc/cache/files/md5").mkdir(parents=True)
    (links,) = [check for check in repository(tmp_path) if check.name == "dvc cache links"]
    assert re.fullmatch(r"configured reflink,copy \(default\); possible: [a-z, ]+", links.found)
    assert "not known" not in links.found


def test_missing_params_are_a_failure_and_a_good_graph_is_not(workspace: Path) -> None:
    assert [(check.name, check.verdict) for check in project_files(workspace)] == [
        ("params.yaml", "fail"),
        ("dvc.yaml", "ok"),
    ]
