"""Verify: each part of a version's lineage is hashed anew, and a rerun gives the same bytes or says what differs."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from made_registry import NAME, git
from typer.testing import CliRunner

from flows.dvc_process import dvc_output
from flows.lineage import folder_md5, path_md5, read_lock, recorded
from flows.registry import Version, find, sync
from flows.rerun import first_difference, rerun, weights_differ
from flows.verify import DIFFERS, OK, UNKNOWN, Finding, verify
from flows.verify_cli import verify as verify_command
from tasks.register_model import kept_lock

pytest_plugins = ("registry_fixtures",)
pytestmark = [
    pytest.mark.flows,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),  # its own use of SQLAlchemy
]
PIPELINE = """\
stages:
  build_manifest:
    cmd: python tasks/build.py
    params: [seed, build.size]
    deps: [tasks/build.py, data/given/champion, requirements.lock]
    outs: [data/manifest.csv, data/images]
  register_model:
    cmd: python tasks/register.py
    deps: [data/manifest.csv, data/images]
    outs: [data/bundle]
"""
BUILD = """\
import os, pathlib
text = pathlib.Path("params.yaml").read_text() + "".join(sorted(p.name for p in pathlib.Path("data/given/champion").iterdir()))
pathlib.Path("data/manifest.csv").write_text(text)
pathlib.Path("data/images/deep").mkdir(parents=True)
pathlib.Path("data/images/deep/1.png").write_text("one")
pathlib.Path("data/images/b.png").write_text("two" + os.environ.get("LUCK", ""))
"""
REGISTER = """\
import hashlib, json, pathlib
import numpy as np
from safetensors.numpy import save_file
bundle = pathlib.Path("data/bundle")
bundle.mkdir()
n_bytes = len(pathlib.Path("data/manifest.csv").read_bytes() + pathlib.Path("data/images/b.png").read_bytes())
save_file({"w": np.array([n_bytes], dtype=np.float32)}, bundle / "model.safetensors")
files = {"model.safetensors": hashlib.sha256((bundle / "model.safetensors").read_bytes()).hexdigest()}
facts = {"name": "digits", "verdict": "pass", "decision": "keep", "adopted": "source_only", "accuracy": 0.5, "files": files}
(bundle / "manifest.json").write_text(json.dumps(facts))
"""
PROJECT = Path(__file__).parents[2]
PARTS = ["bundle", "dvc.lock", "commit", "code", "environment", "params", "data"]


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a small pipeline, everything committed, nothing run; DVC takes seconds to start."""
    folder = tmp_path_factory.mktemp("project") / "workspace"
    for name in ("tasks", "data/given/champion"):
        (folder / name).mkdir(parents=True)
    contents = {
        "dvc.yaml": PIPELINE, "params.yaml": "seed: 1\nbuild: {size: 1e-3}\n", "tasks/build.py": BUILD,
        "tasks/register.py": REGISTER, "requirements.lock": "", "data/given/champion/.gitkeep": "",
        ".gitignore": "/data/*\n!/data/given/\n",
    }  # fmt: skip
    for name, content in contents.items():
        (folder / name).write_text(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        git("init", "-q")
        dvc_output("init", "-q")
        git("add", "-A")
        git("commit", "-qm", "first")
        dvc_output("repro")
        git("add", "-A")
        git("commit", "-qm", "run")
    return folder


@pytest.fixture
def version(project: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Version:
    """The registered version of a run in a repository of its own."""
    folder = tmp_path / "own"
    subprocess.run(["cp", "-a", str(project), str(folder)], check=True)  # shutil would not keep what git knows of times
    monkeypatch.chdir(folder)
    sync(Path("data/bundle"), NAME)
    return find(NAME, "1")


def looked_at(version: Version) -> tuple[dict[str, str], dict[str, str]]:
    """Verdict and words by part."""
    findings = verify(version)
    return {each.part: each.verdict for each in findings}, {each.part: each.told for each in findings}


def test_our_hashes_are_those_of_dvc(version: Version) -> None:
    every = list(recorded(read_lock(Path("dvc.lock")), with_last=True))
    assert {item.path for item in every} >= {"data/images", "data/bundle", "data/given/champion", "tasks/build.py"}
    assert [path_md5(Path(item.path)) for item in every] == [item.md5 for item in every]
    # by md5sum, of the text [{"md5": "0cc175b9c0f1b6a831c399e269772661", "relpath": "x"}]
    assert folder_md5({"x": "0cc175b9c0f1b6a831c399e269772661"}) == "1bb104d3614a4bbe3a96117b7a394b99.dir"


def test_everything_as_registered_is_ok(version: Version) -> None:
    verdicts, told = looked_at(version)
    assert verdicts == dict.fromkeys(PARTS, OK)
    assert version.tags["git_tree"] == "clean"
    assert told["code"] == "1 files, as in the commit"
    assert told["params"] == "2 keys, as in the commit"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


def damage_bundle(version: Version) -> None:
    flip(version.folder / "model.safetensors")


def damage_lock(version: Version) -> None:
    kept = kept_lock(version.candidate)
    kept.write_text(kept.read_text() + "\n")


def go_on_and_empty_the_cache(version: Version) -> None:
    """Later work in the same folder, and nothing left of the model's data."""
    flip(Path("data/manifest.csv"))
    subprocess.run(["rm", "-rf", ".dvc/cache"], check=True)


def another_environment(version: Version) -> None:
    Path("requirements.lock").write_text("numpy==1.0\n")


@pytest.mark.parametrize(
    ("change", "part", "verdict", "words"),
    [
        (damage_bundle, "bundle", DIFFERS, "model.safetensors has sha256"),
        (damage_lock, "dvc.lock", DIFFERS, "the registry says"),
        (
            go_on_and_empty_the_cache,
            "data",
            UNKNOWN,
            "nowhere here: data/manifest.csv (changed since: data/manifest.csv)",
        ),
        (another_environment, "environment", DIFFERS, "requirements.lock here is another one than the model's"),
    ],
)
def test_what_is_not_as_registered_is_told_and_the_rest_stays_ok(
    version: Version, change: Callable[[Version], None], part: str, verdict: str, words: str
) -> None:
    change(version)
    verdicts, told = looked_at(version)
    assert verdicts == dict.fromkeys(PARTS, OK) | {part: verdict}
    assert words in told[part]


def test_data_is_found_in_the_cache_and_in_the_commit_after_the_workspace_went_on(version: Version) -> None:
    flip(Path("data/manifest.csv"))
    Path("data/images/new.png").write_text("three")
    Path("data/given/champion/manifest.json").write_text("{}")
    verdicts, told = looked_at(version)
    assert verdicts == dict.fromkeys(PARTS, OK)
    assert told["data"] == "3 files and folders: 1 in the commit, 2 in DVC's cache"
    cached = next(item.md5 for item in recorded(read_lock(Path("dvc.lock"))) if item.path == "data/images")
    (name,) = json.loads(Path(".dvc/cache/files/md5", cached[:2], cached[2:]).read_text())[:1]
    flip(Path(".dvc/cache/files/md5", name["md5"][:2], name["md5"][2:]))  # a damaged cache is no evidence
    assert looked_at(version)[1]["data"].startswith("nowhere here: data/images (changed since: data/images)")


@pytest.mark.slow
def test_uncommitted_code_and_params_are_told_by_name(
    project: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "own"
    subprocess.run(["cp", "-a", str(project), str(folder)], check=True)
    monkeypatch.chdir(folder)
    with Path("tasks/build.py").open("a") as handle:
        handle.write("# new\n")
    Path("params.yaml").write_text("seed: 22\nbuild: {size: 1e-3}\n")
    dvc_output("repro")
    sync(Path("data/bundle"), NAME)
    version = find(NAME, "1")
    verdicts, told = looked_at(version)
    assert verdicts == dict.fromkeys(PARTS, OK) | dict.fromkeys(("commit", "code", "params"), DIFFERS)
    assert told["code"] == "not as in the commit: tasks/build.py"
    assert told["params"] == "not as in the commit: seed"
    (finding, *causes) = rerun(version, tell=lambda _: None)
    assert finding.verdict == DIFFERS
    assert "other bytes in model.safetensors" in finding.told
    words = " ".join(cause.told for cause in causes)
    assert "code or given files were not committed" in words
    assert "params: seed" in words
    assert "build_manifest (data/manifest.csv); it read other tasks/build.py" in words


def test_a_commit_that_is_not_here_leaves_what_hangs_on_it_unknown(version: Version) -> None:
    elsewhere = Version(**{**vars(version), "tags": version.tags | {"git_commit": "0" * 40}})
    verdicts, _ = looked_at(elsewhere)
    assert [part for part, verdict in verdicts.items() if verdict == UNKNOWN] == [
        "commit",
        "code",
        "environment",
        "params",
    ]
    (finding,) = rerun(elsewhere, tell=lambda _: None)
    assert finding.verdict == UNKNOWN
    assert "commit 000000000000 can't be cloned" in finding.told


def test_a_rerun_gives_the_same_bytes_and_registers_nothing(version: Version, home: Path) -> None:
    before = {path.name: path.read_bytes() for path in Path("data/bundle").iterdir()}
    (finding,) = rerun(version, tell=lambda _: None)
    assert finding == Finding(
        "rerun", OK, f"commit {version.tags['git_commit'][:12]} gives the same candidate, to the byte"
    )
    assert {path.name: path.read_bytes() for path in Path("data/bundle").iterdir()} == before
    assert os.environ["ACCLIMATE_HOME"] == str(home)


def test_other_bytes_from_the_same_inputs_are_told_with_their_stage_and_machine(
    version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage that depends on something that nobody declared: here a variable, elsewhere a processor."""
    monkeypatch.setenv("LUCK", "12")
    tags = version.tags | {"cpu": "a 486"}
    finding, *causes = rerun(Version(**{**vars(version), "tags": tags}), tell=lambda _: None)
    assert finding.verdict == DIFFERS
    assert "other bytes in model.safetensors; no weight differs by more than 2" in finding.told
    words = [cause.told for cause in causes]
    assert len(words) == 2
    assert words[0].startswith("cpu: a 486 at registration, ")
    assert words[1] == (
        "the first stage that wrote other bytes is build_manifest (data/images); from the same inputs: threads, CPU or a library"
    )


def test_a_pipeline_that_fails_is_told_and_is_no_verdict(version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("tasks/build.py").write_text("import sys\nsys.exit('error: no images here')\n")
    git("commit", "-qam", "broken")
    broken = Version(**{**vars(version), "tags": version.tags | {"git_commit": git("rev-parse", "HEAD").strip()}})
    (finding,) = rerun(broken, tell=lambda _: None)
    assert finding == Finding("rerun", UNKNOWN, "the pipeline failed in the clone: build_manifest: no images here")


def test_the_first_stage_that_differs_is_the_one_that_read_the_same() -> None:
    def lock(features: str, model: str, **changes: str) -> dict[str, object]:
        read = {"path": "tasks/a.py", "md5": changes.get("code", "c")}
        return {
            "finetune_model": {
                "deps": [{"path": "features", "md5": features}], "outs": [{"path": "model", "md5": model}],
            },
            "extract_features": {"deps": [read], "outs": [{"path": "features", "md5": features}]},
        }  # fmt: skip

    same = lock("f", "m")
    assert first_difference(same, lock("f", "m")) is None
    found = first_difference(same, lock("F", "M"))
    assert found is not None
    assert found.startswith(
        "the first stage that wrote other bytes is extract_features (features); from the same inputs:"
    )
    only_last = first_difference(same, lock("f", "M"))
    assert only_last is not None
    assert "is finetune_model (model); from the same inputs" in only_last


def test_how_far_weights_are_apart_is_told(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    for name, values in [("a", [1.0, 2.0]), ("b", [1.0, 2.25]), ("c", [1.0])]:
        save_file({"w": np.array(values, dtype=np.float32)}, tmp_path / name)
    assert weights_differ(tmp_path / "a", tmp_path / "b") == "no weight differs by more than 0.25"
    assert weights_differ(tmp_path / "a", tmp_path / "c") == "the weights are of another network"


def test_the_command_ends_with_1_unless_all_is_as_registered(version: Version) -> None:
    params = (PROJECT / "params.yaml").read_text().replace("name: acclimate-sample", f"name: {NAME}")
    Path("params.yaml").write_text(params)
    app = typer.Typer()
    app.command()(verify_command)
    assert CliRunner().invoke(app, ["1"]).exit_code == 0
    damage_bundle(version)
    done = CliRunner().invoke(app, ["1", "--rerun"])  # no rerun of what is damaged
    assert done.exit_code == 1
    assert "model.safetensors has sha256" in " ".join(done.stdout.split())
    assert "rerun" not in done.stdout
