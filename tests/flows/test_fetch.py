"""A bundle on a machine that did not make it: fetched from a DVC remote (a folder, an S3 server), to the byte or not at all."""

import hashlib
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pandas as pd
import pytest
from made_models import working_bundle
from made_registry import NAME, git
from PIL import Image
from prefect_server import child_environment, free_port, process, wait_for
from typer.testing import CliRunner

from flows.cli import app
from flows.dvc_process import dvc_output
from flows.fetch import get_from_remote
from flows.registry import find, sync
from flows.served_model import ServedModel, Wanted
from flows.verify import OK, verify
from tasks.core.bundle import candidate_id
from tasks.register_model import kept_lock

pytest_plugins = ("registry_fixtures",)
pytestmark = [pytest.mark.flows, pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")]
PIPELINE = """\
stages:
  build_manifest:
    cmd: cp table data/manifest.csv
    deps: [table]
    outs: [data/manifest.csv]
  register_model:
    cmd: cp -r made/bundle data/bundle
    deps: [data/manifest.csv]
    outs: [data/bundle]
artifacts:
  adapted-model:
    path: data/bundle
    type: model
"""
CONFIG = "[core]\n    analytics = false\n    remote = store\n['remote \"store\"']\n    url = {url}\n"
SECRETS = "['remote \"store\"']\n    endpointurl = {address}\n    access_key_id = ann\n    secret_access_key = word\n"


@dataclass(frozen=True)
class Maker:
    """The first machine, where version 1 was made: its project, home and the folder that is its remote."""

    project: Path
    home: Path
    remote: Path
    candidate: str


@pytest.fixture(scope="session")
def first_machine(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Version 1 is registered, its dvc.lock committed, its bytes pushed; made once: DVC takes seconds to start."""
    folder = tmp_path_factory.mktemp("first")
    project, home, remote = folder / "project", folder / "home", folder / "remote"
    (project / "data").mkdir(parents=True)
    home.mkdir()
    shutil.copyfile(migrated, home / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        patch.setenv("ACCLIMATE_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        git("init", "-q", "-b", "main")
        dvc_output("init", "-q")
        params = (Path(__file__).parents[2] / "params.yaml").read_text().replace("acclimate-sample", NAME)
        for name, content in {
            "dvc.yaml": PIPELINE, "params.yaml": params, "table": "1.png\n", ".gitignore": "/made/\n/data/*\n",
            ".dvc/config": CONFIG.format(url=remote),
        }.items():  # fmt: skip
            (project / name).write_text(content)
        git("add", ".")
        git("commit", "-q", "-m", "project")
        working_bundle(project / "made", "a")
        dvc_output("repro")
        sync(Path("data/bundle"), NAME)
        git("add", "dvc.lock")
        git("commit", "-q", "-m", "run")
        dvc_output("push")
        shutil.copytree(remote, folder / "sound")
        return Maker(project, home, remote, candidate_id(Path("data/bundle")))


@pytest.fixture
def maker(first_machine: Maker, tmp_path: Path) -> Maker:
    """A copy of the first machine whose remote may be harmed."""
    folder = tmp_path / "first"
    shutil.copytree(first_machine.project.parent, folder, symlinks=True)
    (folder / "project/.dvc/config").write_text(CONFIG.format(url=folder / "remote"))
    return Maker(folder / "project", folder / "home", folder / "remote", first_machine.candidate)


@pytest.fixture
def second(maker: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's folder on another machine: a clone, an empty home, the same registry; we are in it."""
    clone = tmp_path / "second/project"
    git("clone", "-q", str(maker.project), str(clone))
    (clone / ".dvc/config.local").write_text(CONFIG.format(url=maker.remote))
    monkeypatch.chdir(clone)
    monkeypatch.setenv("ACCLIMATE_HOME", str(clone.parent / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{maker.home / 'mlflow.db'}")
    monkeypatch.setenv("USER", "bob")
    return clone


def said(*arguments: str, exit_code: int = 0) -> str:
    """What the command prints, words one blank apart."""
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == exit_code, done.output
    return " ".join(done.output.split())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


def remote_file(maker: Maker, name: str) -> Path:
    """The file of the remote that holds that file of the bundle."""
    wanted = (maker.home / "bundles" / maker.candidate / name).read_bytes()
    (found,) = [path for path in maker.remote.rglob("*") if path.is_file() and path.read_bytes() == wanted]
    return found


@pytest.mark.slow
def test_a_bundle_is_fetched_to_the_byte_and_mended(maker: Maker, second: Path) -> None:
    (second / ".dvc/config.local").write_text(CONFIG.format(url=maker.remote) + "[cache]\n    type = symlink\n")
    version = find(NAME, "1")
    for command in (
        ["predict", "."],
        ["review", "show", "1"],
        ["promote", "1", "--reason", "good"],
        ["serve", "--model", "1"],
    ):
        assert "is missing here; bring it from DVC's remote with `acclimate registry fetch 1`" in said(
            *command, *(["--model", "1"] if command[0] == "predict" else []), exit_code=1
        )
    commit = git("rev-parse", "HEAD")[:12]
    assert said("registry", "fetch", "challenger") == (
        f"{NAME} version 1 is fetched, as in commit {commit}, to {version.folder}"
    )
    original = contents(maker.home / "bundles" / maker.candidate)
    assert contents(version.folder) == original
    assert not any(path.is_symlink() for path in version.folder.iterdir())
    assert kept_lock(version.candidate).read_bytes() == (maker.project / "dvc.lock").read_bytes()
    assert "is here already, to the byte" in said("registry", "fetch", "1")
    flip(version.folder / "model.safetensors")
    kept_lock(version.candidate).unlink()
    assert "or bring it from DVC's remote with `acclimate registry fetch 1`" in said("review", "show", "1", exit_code=1)
    said("registry", "fetch", "1")
    assert contents(version.folder) == original
    assert kept_lock(version.candidate).exists()


@pytest.mark.slow
def test_a_flipped_byte_in_the_remote_is_refused_and_nothing_is_left(maker: Maker, second: Path) -> None:
    version, commit = find(NAME, "1"), git("rev-parse", "HEAD")[:12]
    for name in ("model.safetensors", "manifest.json"):
        flip(remote_file(maker, name))
        told = said("registry", "fetch", "1", exit_code=1)
        assert f"can't be fetched at commit {commit}: other bytes than were registered in {name}" in told
        assert contents(version.folder.parent) == contents(version.folder.parents[1] / "fetched") == {}
        shutil.rmtree(maker.remote)  # mended: what was damaged was kept nowhere
        shutil.copytree(maker.project.parent / "sound", maker.remote)
    said("registry", "fetch", "1")
    assert contents(version.folder) == contents(maker.home / "bundles" / maker.candidate)


@pytest.mark.slow
def test_what_keeps_a_bundle_from_being_fetched_is_told(
    maker: Maker, second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(maker.remote)
    told = said("registry", "fetch", "1", exit_code=1)
    assert "error: the bundle of digits version 1 can't be fetched at commit" in told
    assert told.endswith(
        f"the folder {maker.remote} of the DVC remote 'store' isn't there; mount it, or mend it with "
        "`dvc remote modify store url PLACE`"
    )
    maker.remote.mkdir()
    told = said("registry", "fetch", "1", exit_code=1)
    assert "unexpected" not in told
    assert told.endswith("; `dvc push` it where it was made")
    git("reset", "-q", "--hard", "HEAD~1")
    git("remote", "remove", "origin")  # the commit of dvc.lock was never pushed
    told = said("registry", "fetch", "1", exit_code=1)
    assert told.startswith("error: no commit here holds the dvc.lock of digits version 1 (sha256 ")
    assert told.endswith("commit dvc.lock, `dvc push` and `git push` its branch; then `git fetch` here")
    (tmp_path / "elsewhere").mkdir()
    shutil.copyfile("params.yaml", tmp_path / "elsewhere/params.yaml")
    monkeypatch.chdir(tmp_path / "elsewhere")
    for command in (["registry", "fetch", "1"], ["verify", "1"]):
        assert said(*command, exit_code=1) == (
            f"error: {Path.cwd()} lies in no DVC project: neither it nor a folder above it has a .dvc folder; say it in the "
            "project's folder, or name that with `acclimate --workspace FOLDER …`"
        )


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("", "this project has no default DVC remote; `dvc remote add --default NAME PLACE`"),
        ("store", "the folder {gone} of the DVC remote 'store' isn't there; mount it"),
    ],
)
def test_a_remote_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    gone = tmp_path / "gone"
    git("init", "-q", "-b", "main")
    dvc_output("init", "-q")
    Path("dvc.yaml").write_text(
        "stages: {a: {cmd: mkdir -p data/bundle && echo 1 > data/bundle/a, outs: [data/bundle]}}\n"
    )
    Path("data").mkdir()
    dvc_output("repro", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "run")
    shutil.rmtree(".dvc/cache")
    if config:
        Path(".dvc/config").write_text(CONFIG.format(url=gone))  # not committed
    with pytest.raises(ValueError, match=r"dvc push|dvc remote modify") as raised:
        get_from_remote("data/bundle", "HEAD", tmp_path / "got")
    assert str(raised.value).startswith(told.format(gone=gone))


def test_a_remote_counts_before_it_is_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    git("init", "-q", "-b", "main")
    dvc_output("init", "-q")
    Path("a").write_text("1\n")
    dvc_output("add", "-q", "a")
    git("add", ".")
    git("commit", "-q", "-m", "data")
    Path(".dvc/config").write_text(CONFIG.format(url=tmp_path / "store"))
    dvc_output("push", "-q")
    shutil.rmtree(".dvc/cache")
    get_from_remote("a", "HEAD", tmp_path / "got")
    assert (tmp_path / "got").read_text() == "1\n"


@pytest.mark.slow
def test_the_lock_is_found_on_a_branch_and_the_project_below_its_repositorys_top(
    maker: Maker, second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As retraining leaves it: main knows nothing of the run."""
    top = tmp_path / "many"
    shutil.copytree(
        maker.project, top / "digits", ignore=shutil.ignore_patterns(".git", "cache", "tmp", "made", "dvc.lock")
    )
    monkeypatch.chdir(top)
    git("init", "-q", "-b", "main")
    git("add", ".")
    git("commit", "-q", "-m", "project")
    git("checkout", "-q", "-b", f"acclimate/{maker.candidate[:12]}")
    shutil.copyfile(maker.project / "dvc.lock", top / "digits/dvc.lock")
    git("add", ".")
    git("commit", "-q", "-m", "candidate")
    commit = git("rev-parse", "HEAD")[:12]
    git("checkout", "-q", "main")
    git("clone", "-q", str(top), str(tmp_path / "clone"))
    monkeypatch.chdir(tmp_path / "clone/digits")
    assert not Path("dvc.lock").exists()
    assert f"is fetched, as in commit {commit}" in said("registry", "fetch", "1")
    assert contents(find(NAME, "1").folder) == contents(maker.home / "bundles" / maker.candidate)


@pytest.mark.slow
def test_dvc_gets_the_artifact_by_its_name(maker: Maker, second: Path, tmp_path: Path) -> None:
    git("tag", "-a", "-m", "version 1", "adapted-model@v1.0.0")
    dvc_output("artifacts", "get", str(second), "adapted-model", "--rev", "v1.0.0", "--out", str(tmp_path / "got"))
    assert contents(tmp_path / "got") == contents(maker.home / "bundles" / maker.candidate)


@contextmanager
def served(arguments: list[str], folder: Path, path: str) -> Iterator[str]:
    """The server's address, once it answers at that path."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    environment = child_environment() | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    log = folder / f"{port}.log"
    with process(["-m", *arguments, "--port", str(port)], folder, environment, log):
        wait_for(lambda: answers(address + path), f"{arguments[0]}'s server")
        yield address


def answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.slow
def test_a_second_machine_uses_a_teams_servers(
    maker: Maker, second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 and MLflow on loopback; then verify, predict, approve and promote where the model was never made."""
    uri = f"sqlite:///{maker.home / 'mlflow.db'}"
    store = ["mlflow", "server", "--host", "127.0.0.1", "--workers", "1", "--backend-store-uri", uri]
    with served(["moto.server"], tmp_path, "/moto-api/") as s3, served(store, tmp_path, "/health") as mlflow:
        client = boto3.client(
            "s3", endpoint_url=s3, aws_access_key_id="ann", aws_secret_access_key="word", region_name="us-east-1"
        )
        client.create_bucket(Bucket="acclimate")
        for project in (maker.project, second):
            (project / ".dvc/config").write_text(CONFIG.format(url="s3://acclimate/dvc"))
            (project / ".dvc/config.local").write_text(SECRETS.format(address=s3))
        subprocess.run([sys.executable, "-m", "dvc", "push", "-q"], cwd=maker.project, check=True)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow)
        said("registry", "fetch", "1")
        version = find(NAME, "1")
        assert contents(version.folder) == contents(maker.home / "bundles" / maker.candidate)
        findings = {finding.part: finding.verdict for finding in verify(version)}
        assert (findings["bundle"], findings["dvc.lock"], findings["commit"]) == (OK, OK, OK)
        Image.new("RGB", (32, 32)).save("black.png")
        said("predict", "black.png", "--model", "1", "--out", "said.csv")
        assert pd.read_csv("said.csv")["y_pred"].tolist() == ["a"]
        said("review", "approve", "1", "--reason", "good", "--reviewer", "eve")
        assert "is the champion" in said("promote", "1", "--reason", "good")
        assert ServedModel(Wanted(NAME, "champion", "cpu", False)).current.version.number == "1"
        flip(version.folder / "model.safetensors")
        assert "with `acclimate registry fetch 1`" in said("predict", "black.png", exit_code=1)
        (key,) = [
            each["Key"]
            for each in client.list_objects_v2(Bucket="acclimate")["Contents"]
            if hashes_to(client, each["Key"], version.tags["weights_sha256"])
        ]
        client.put_object(Bucket="acclimate", Key=key, Body=b"other weights")
        assert "other bytes than were registered in model.safetensors" in said("registry", "fetch", "1", exit_code=1)


def hashes_to(client: Any, key: str, sha256: str) -> bool:
    return hashlib.sha256(client.get_object(Bucket="acclimate", Key=key)["Body"].read()).hexdigest() == sha256
