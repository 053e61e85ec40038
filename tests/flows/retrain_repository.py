"""A repository of two stages that makes a real (tiny) bundle: `pytest_plugins = ("registry_fixtures", "retrain_repository")`."""

import shutil
from pathlib import Path

import pytest
from made_registry import git
from ruamel.yaml import YAML

from flows.dvc_process import dvc_output

HERE = Path(__file__).parent
PIPELINE = """\
stages:
  build_manifest:
    cmd: python build.py
    params: [build_manifest]
    deps: [build.py, data/given/labels.csv, "${build_manifest.root}"]
    outs: [data/manifest.csv]
  register_model:
    cmd: python register.py
    deps: [register.py, data/manifest.csv, data/given/champion, data/given/accepted_profile.json]
    outs: [data/bundle]
"""
BUILD = """\
from pathlib import Path
from ruamel.yaml import YAML
root = Path(YAML(typ="safe").load(Path("params.yaml"))["build_manifest"]["root"])
names = sorted(path.name for path in root.iterdir())
Path("data").mkdir(exist_ok=True)
Path("data/manifest.csv").write_text(",".join(names) + "\\n" + Path("data/given/labels.csv").read_text())
"""
REGISTER = f"""\
import shutil, sys
from pathlib import Path
sys.path.insert(0, {str(HERE)!r})
from made_registry import made_bundle
made_bundle(Path("made"), Path("data/manifest.csv").read_text())
shutil.move("made/bundle", "data/bundle")
"""


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A committed project whose pipeline has never run; its images are known to neither git nor DVC."""
    folder = tmp_path_factory.mktemp("repository")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        git("init", "-q", "-b", "main")
        dvc_output("init", "-q")
        (folder / "dvc.yaml").write_text(PIPELINE)
        (folder / "build.py").write_text(BUILD)
        (folder / "register.py").write_text(REGISTER)
        (folder / ".gitignore").write_text("/images\n/made/\n/data/*\n!/data/given/\n.acclimate/\n")
        (folder / "images").mkdir()
        (folder / "images/1.png").write_text("1")
        (folder / "data/given/champion").mkdir(parents=True)
        (folder / "data/given/champion/.gitkeep").touch()
        (folder / "data/given/labels.csv").write_text("image_id,label\n")
        (folder / "data/given/accepted_profile.json").write_text("{}\n")
        params = YAML(typ="safe").load((HERE.parents[1] / "params.yaml").read_text(encoding="utf-8"))
        params["register_model"]["name"] = "digits"
        params["build_manifest"] |= {"root": "images", "table": "images"}
        YAML(typ="safe").dump(params, folder / "params.yaml")
        git("add", ".")
        git("commit", "-q", "-m", "project")
    return folder


@pytest.fixture
def project(repository: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the repository, with the home and the registry of its own that `home` sets."""
    folder = shutil.copytree(repository, tmp_path / "project")
    monkeypatch.chdir(folder)
    for name in ("ACCLIMATE_WEBHOOK", "ACCLIMATE_SMTP_HOST", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    return folder
