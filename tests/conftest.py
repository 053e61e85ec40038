"""The shipped parameters as plain values, and a folder of one's own that holds a changed params.yaml."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pipeline_clone import call, fresh_clone
from ruamel.yaml import YAML

from flows.environment import dvc_environment

PROJECT = Path(__file__).parents[1]


@pytest.fixture
def shipped() -> dict[str, Any]:
    """The content of the shipped params.yaml, free to be changed."""
    content: dict[str, Any] = YAML(typ="safe").load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    return content


@pytest.fixture
def go_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], Path]:
    """Goes to an empty folder and writes the given parameters there, and given files that say nothing yet.

    Not those of this checkout: they may hold a person's labels and the profile of accepted data.
    """

    def go(content: dict[str, Any]) -> Path:
        given = tmp_path / "data/given"
        given.mkdir(parents=True, exist_ok=True)
        (given / "labels.csv").write_text("path,label,by,on\n")
        (given / "accepted_profile.json").write_text('{"format": 1, "n_images": 0, "origins": {}, "groups": {}}\n')
        YAML(typ="safe").dump(content, tmp_path / "params.yaml")
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return go


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return {**dvc_environment(), "GIT_CONFIG_GLOBAL": os.devnull}


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    folder = fresh_clone(tmp_path / "clone")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[Path]:
    """A clone in which `dvc repro` has run undisturbed."""
    folder = fresh_clone(tmp_path_factory.mktemp("reference") / "clone")
    call(folder, environment, "dvc", "repro", "register_model")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
