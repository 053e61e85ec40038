"""A workspace with a home and a registry of its own: `pytest_plugins = ("registry_fixtures",)` in a test file."""

import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tasks.core.runtime import quiet_tools
from tasks.register_model import open_registry

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry's database that holds nothing yet, made once: its first migration takes ten seconds."""
    home = tmp_path_factory.mktemp("registry")
    quiet_tools()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCLIMATE_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with open_registry() as client:
            assert client.search_registered_models() == []
    return home / "mlflow.db"


@pytest.fixture
def home(migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ACCLIMATE_HOME; the current folder is a workspace in which nothing was promoted yet. Ann is logged in."""
    folder, workspace = tmp_path / "home", tmp_path / "workspace"
    folder.mkdir()
    shutil.copyfile(migrated, folder / "mlflow.db")
    (workspace / "data/given/champion").mkdir(parents=True)
    (workspace / "data/given/champion/.gitkeep").touch()
    (workspace / "data/given/accepted_profile.json").write_text("{}\n")
    params = YAML(typ="safe").load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    params["register_model"]["name"] = "digits"
    YAML(typ="safe").dump(params, workspace / "params.yaml")
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("ACCLIMATE_HOME", str(folder))
    monkeypatch.setenv("USER", "ann")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder
