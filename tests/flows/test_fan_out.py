"""Fan-out over a real Dask cluster of this machine: features into the shared cache, variants in checkouts of their own."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from made_registry import git
from PIL import Image
from prefect_server import PROJECT, free_port, process
from ruamel.yaml import YAML

from flows.dvc_process import dvc_output
from flows.fan_child import VISIBLE, gpus, own_gpu
from flows.fan_out import Outcome
from flows.fan_out_cli import check_runner, stoppable, stopped_variants, teller, write_variants
from flows.run_lock import run_lock
from flows.run_record import process_name, runs_folder
from flows.variants import Variant, check_variants, drop_old_trees, plan_line, read_variants, tell_of_uncommitted
from flows.worktree import add_tree
from tasks.augment_images import resolve_policy
from tasks.core.files import file_sha256, write_json, write_table
from tasks.core.model import SmallResNet, save_weights
from tasks.params import read_params

pytestmark = pytest.mark.flows
AUDIT = """\
import json, os, sys, time
from pathlib import Path
from ruamel.yaml import YAML
params = YAML(typ="safe").load(Path("params.yaml"))
seed, plan = params["seed"], params["finetune_model"]["default_plan"]
if "WAIT" in os.environ:
    Path(os.environ["WAIT"]).write_text(str(os.getpid()))
    time.sleep(90)
if (seed, plan) == (1, "staged"):
    sys.exit("error: nothing is learnt from seed 1")
Path("data/audit").mkdir(parents=True)
adopted = {"n": 40, "accuracy": 0.5 + seed / 10, "accuracy_low": 0.4, "accuracy_high": 0.9}
verdict = {"verdict": "pass", "reason": f"of {len(list(Path('images').iterdir()))} images", "rules": []}
worst = {"site": {"group": "south", "accuracy": 0.25}, "slant": {"group": "left", "accuracy": 0.45}}
for name, content in {
    "metrics": {"adopted": adopted, "source_only": {"n": 40, "accuracy": 0.3}},
    "audit/verdict": verdict,
    "audit_metrics": {"verdict": "pass", "worst_group": worst},
    "adoption": {"adopted": plan, "guard": {"decision": "adopt", "reason": "r"}},
}.items():
    Path(f"data/{name}.json").write_text(json.dumps(content))
"""
PIPELINE = """\
stages:
  audit_bias:
    cmd: python audit.py
    params: [seed, finetune_model.default_plan]
    deps: [audit.py]
    outs: [data/audit, data/metrics.json, data/audit_metrics.json, data/adoption.json]
"""


def dumped(folder: Path, **sections: dict[str, object]) -> None:
    """The shipped parameters, changed, as the folder's params.yaml."""
    params = YAML(typ="safe").load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    for name, changes in sections.items():
        params[name] |= changes
    YAML(typ="safe").dump(params, folder / "params.yaml")


def made_project(folder: Path) -> Path:
    """A DVC project without stages; nothing of it is committed."""
    (folder / "data/given").mkdir(parents=True)
    (folder / "data/given/labels.csv").write_text("path,label,by,on\n")
    (folder / "data/given/accepted_profile.json").write_text("{}\n")
    (folder / ".gitignore").write_text("/images\n/data/*\n!/data/given/\n.acclimate/\n")
    git("init", "-q", "-b", "main")
    dvc_output("init", "-q")
    return folder


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A committed project of one stage that makes figures from seed and plan."""
    folder = tmp_path_factory.mktemp("repository")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        made_project(folder)
        (folder / "images").mkdir()
        (folder / "images/1.png").touch()
        (folder / "audit.py").write_text(AUDIT)
        (folder / "dvc.yaml").write_text(PIPELINE)
        dumped(folder, build_manifest={"root": "images", "table": "images"})
        git("add", ".")
        git("commit", "-q", "-m", "project")
    return folder


@pytest.fixture
def project(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = shutil.copytree(repository, tmp_path / "project")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("ACCLIMATE_HOME", raising=False)
    return folder


def acclimate(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments], env=environment, capture_output=True, text=True, check=False
    )


def with_our_modules() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1"}


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.slow
def test_variants_run_apart_and_one_failure_stops_no_other(project: Path, flow_environment: dict[str, str]) -> None:
    (project / "audit.py").write_text("raise SystemExit('somebody is at work here')\n")
    before, table = git("status", "--porcelain"), project.parent / "table.csv"
    said = ["-S", "seed=2,1", "-S", "finetune_model.default_plan=staged"]
    done = acclimate(flow_environment, "vary", *said, "--jobs", "2", "--out", str(table))
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        "error: 1 of 2 failed: 2: seed=1 finetune_model.default_plan=staged; "
    )
    assert "audit.py: changed here and not committed; every variant runs commit" in done.stderr
    assert "2 variants, 2 at a time; each runs whatever stages its parameters change\n" in done.stderr
    assert "minutes: variant 2: seed=1 finetune_model.default_plan=staged failed\n" in done.stderr
    assert (
        "variant 2: seed=1 finetune_model.default_plan=staged failed: audit_bias: nothing is learnt from seed 1"
        in done.stdout
    )
    assert "of 1 images" not in done.stdout
    first, failed = rows_of(table)
    assert [first[key] for key in ("variant", "seed", "finetune_model.default_plan", "state")] == [
        "1",
        "2",
        "staged",
        "done",
    ]
    assert [first[key] for key in ("n", "accuracy", "source_only", "verdict")] == ["40", "0.7", "0.3", "pass"]
    assert [first[key] for key in ("worst_group", "worst_accuracy", "adopted")] == ["site south", "0.25", "staged"]
    assert first["told"] == "of 1 images"
    assert [failed[key] for key in ("seed", "state", "accuracy")] == ["1", "failed", ""]
    assert failed["told"] == "audit_bias: nothing is learnt from seed 1"
    assert git("status", "--porcelain") == before
    assert len(git("worktree", "list").splitlines()) == 1
    assert list((project / ".acclimate/variants").iterdir()) == []
    assert not (project / ".acclimate/mlflow.db").exists()


@contextmanager
def dask_cluster(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """The address of a scheduler with one worker, each a process of its own, as on other machines."""
    address = f"tcp://127.0.0.1:{free_port()}"
    scheduler = ["-m", "distributed.cli.dask_scheduler", "--host", address, "--no-dashboard"]
    worker = ["-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    with (
        process(scheduler, folder, environment, folder / "scheduler.log"),
        process(worker, folder, environment, folder / "worker.log"),
    ):
        yield address


@pytest.mark.slow
def test_a_killed_run_of_variants_leaves_nothing_running(
    project: Path, tmp_path: Path, flow_environment: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "flows.cli", "vary", "-S", "seed=0", "--runner", "threads"]
    waiting = flow_environment | {"WAIT": str(tmp_path / "pid")}
    with subprocess.Popen(command, env=waiting, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        stage = int(until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
        run.send_signal(signal.SIGKILL)
    until(lambda: not process_name(stage))
    until(lambda: not list((project / ".acclimate/variants").iterdir()))
    assert len(git("worktree", "list").splitlines()) == 1


@pytest.mark.parametrize(("number", "runner"), [(signal.SIGINT, "threads"), (signal.SIGTERM, "dask")])
@pytest.mark.slow
def test_a_stopped_run_of_variants_ends_with_a_sentence(
    project: Path, tmp_path: Path, flow_environment: dict[str, str], number: int, runner: str
) -> None:
    command = [sys.executable, "-m", "flows.cli", "vary", "-S", "seed=0,1", "--runner", runner]
    waiting = flow_environment | {"WAIT": str(tmp_path / "pid")}
    with subprocess.Popen(
        command, env=waiting, text=True, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored by all that a shell starts with &
    ) as run:  # fmt: skip
        stage = int(until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
        os.killpg(run.pid, number)  # as a terminal does
        _, told = run.communicate(timeout=60)
    assert told.splitlines()[-1] == "stopped; 0 of 2 variants done, nothing written"
    assert "Traceback" not in told
    assert run.returncode == 128 + number
    until(lambda: not process_name(stage))
    until(lambda: not list((project / ".acclimate/variants").iterdir()))


def test_what_has_ended_when_a_run_is_stopped_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    variants, out = read_variants(["seed=0,1,2"]), tmp_path / "variants.csv"
    with pytest.raises(typer.Exit) as stop, stoppable(lambda: stopped_variants(variants, {}, out)):
        raise KeyboardInterrupt
    assert stop.value.exit_code == 130
    assert capsys.readouterr().err == "stopped; 0 of 3 variants done, nothing written\n"
    assert not out.exists()
    ended = {"2: seed=1": Outcome(True, '{"n": 7}'), "1: seed=0": Outcome(False, "no memory")}
    with pytest.raises(typer.Exit) as stop, stoppable(lambda: stopped_variants(variants, ended, out)):
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.value.exit_code == 143
    assert capsys.readouterr().err == f"stopped; 1 of 3 variants done, {out} has the 2 that ended\n"
    assert [(row["variant"], row["state"], row["n"], row["told"]) for row in rows_of(out)] == [
        ("1", "failed", "", "no memory"),
        ("2", "done", "7", ""),
    ]


def test_the_printed_table_has_no_reasons_and_those_of_failures_stand_below_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    variants, out = read_variants(["seed=0,1"]), tmp_path / "variants.csv"
    outcomes = {"1: seed=0": Outcome(True, '{"n": 7, "told": "all is well"}'), "2: seed=1": Outcome(False, "no memory")}
    write_variants(variants, outcomes, out, "two")
    said = capsys.readouterr().out
    assert "told" not in said
    assert "all is well" not in said
    assert said.count("variant 2: seed=1 failed: no memory\n") == said.count("no memory") == 1
    assert [row["told"] for row in rows_of(out)] == ["all is well", "no memory"]


def test_how_many_run_and_what_ended_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan_line(2, 1, None) == "2 variants, 1 at a time; each runs whatever stages its parameters change"
    assert plan_line(1, 4, None).startswith("1 variant, 1 at a time; ")
    assert plan_line(2, 1, "tcp://a:1").startswith("2 variants, on the workers of tcp://a:1; ")
    ended = teller(kept := {}, 2)
    ended("2: seed=1", Outcome(False, "no memory"))
    ended("1: seed=0", Outcome(True, "{}"))
    assert list(kept) == ["2: seed=1", "1: seed=0"]
    assert capsys.readouterr().err == (
        "1 of 2 after 0.0 minutes: variant 2: seed=1 failed\n2 of 2 after 0.0 minutes: variant 1: seed=0 done\n"
    )


def test_given_files_that_are_not_committed_are_told_not_to_take_part(project: Path) -> None:
    told: list[str] = []
    tell_of_uncommitted("0123456789abcdef", told.append)
    assert told == []
    (project / "data/given/labels.csv").write_text("path,label,by,on\n1.png,a,ann,2026-01-01\n")
    tell_of_uncommitted("0123456789abcdef", told.append)
    assert told == [
        "data/given/labels.csv: changed here and not committed; every variant runs commit 0123456789ab, without these changes"
    ]


def test_a_value_that_is_said_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^-S 'seed=0,1,0' says the value 0 twice; say each once$"):
        read_variants(["seed=0,1,0"])
    assert len(read_variants(["seed=1,1.0,true"])) == 3


def test_what_a_killed_variant_left_is_removed(project: Path) -> None:
    home = project / ".acclimate"
    add_tree(project, home / "variants/1-a/tree")
    assert len(git("worktree", "list").splitlines()) == 2
    drop_old_trees(home)
    assert len(git("worktree", "list").splitlines()) == 1
    assert not (home / "variants").exists()


def until(look: object, patience_s: float = 60) -> str:
    end = time.monotonic() + patience_s
    while not (found := look()):  # type: ignore[operator]
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)
    return str(found)


EXTRACTION = """\
stages:
  validate_data:
    cmd: python -c "import shutil; shutil.copytree('given', 'data', dirs_exist_ok=True)"
    outs: [data/manifest_valid.csv, data/gate.json, data/augmentation]
  extract_features:
    cmd: python -m tasks.extract_features
    deps: [data/manifest_valid.csv, data/gate.json, data/augmentation]
    outs: [data/features]
"""


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with three networks and twelve images, whose stage extract_features has never run."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("ACCLIMATE_HOME", raising=False)
    made_project(folder)
    (folder / "dvc.yaml").write_text(EXTRACTION)
    dumped(
        folder, zoo={"folder": "zoo", "image_px": 16}, build_manifest={"root": "images", "table": "images", "audit_columns": []},
        audit_bias={"rules": [], "columns_explained": {}, "threshold_optimizer": None},
        extract_features={"n_views": 1, "batch_size": 4},
    )  # fmt: skip
    rows = []
    (folder / "images").mkdir()
    for number in range(12):
        name, grain = f"{number}.png", np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(grain).save(folder / "images" / name)
        domain, split = ("source", "train") if number < 6 else ("target", "train" if number < 9 else "unlabelled")
        rows.append({
            "image_id": f"i{number}", "content_id": f"c{number}", "path": name, "domain": domain, "origin": domain,
            "split": split, "group_id": "", "label": "ab"[number % 2] if split == "train" else "",
        })  # fmt: skip
    import pandas as pd

    write_table(folder / "given/manifest_valid.csv", pd.DataFrame(rows))
    write_json(folder / "given/gate.json", {"blocked_by": []})
    transforms = read_params().augment_images.transforms
    write_json(folder / "given/augmentation/policy.json", resolve_policy(transforms, 16))
    models = []
    (folder / "zoo").mkdir()
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        save_weights(SmallResNet(4), weights := folder / f"zoo/{name}.safetensors")
        models.append({
            "name": name, "arch": "acclimate.small_resnet", "file": weights.name, "sha256": file_sha256(weights),
            "num_classes": 4, "feature_dim": 128, "mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 32, 32],
            "interpolation": "bilinear", "source_domain": "drawn weights", "license": "MIT",
        })  # fmt: skip
    write_json(folder / "zoo/zoo.json", {"models": [*models, {"name": "random", "like": "first", "seed": 7}]})
    return folder


@pytest.mark.slow
def test_the_stage_finds_the_rows_that_a_cluster_computed(images: Path, flow_environment: dict[str, str]) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{flow_environment['PATH']}"  # DVC calls the stages with `python`
    flow_environment = flow_environment | {"PATH": path}
    alone = flow_environment | {"ACCLIMATE_HOME": str(images.parent / "alone")}
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], env=alone, check=True, capture_output=True)
    expected, lock = content(images / "data/features"), (images / "dvc.lock").read_bytes()
    assert len(expected) == 2 * 4 + 2  # the random one has no head of its own
    shutil.rmtree(images / "data/features")
    (images / "dvc.lock").unlink()
    shutil.rmtree(images / ".dvc/cache")
    with dask_cluster(images.parent, flow_environment) as address:
        done = acclimate(flow_environment, "extract", "--cluster", address)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("15 rows: 15 computed, 0 from the cache") == 3
    assert not (images / "data/features").exists()
    told = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"], env=flow_environment, check=True, capture_output=True, text=True
    )
    assert told.stdout.count("15 rows: 0 computed, 15 from the cache") == 3
    assert content(images / "data/features") == expected
    assert (images / "dvc.lock").read_bytes() == lock


@pytest.mark.slow
def test_a_stopped_extraction_leaves_nothing_running(
    images: Path, tmp_path: Path, flow_environment: dict[str, str]
) -> None:
    os.truncate(images / "zoo/first.safetensors", 2**40)  # to hash it takes an hour
    path = f"{Path(sys.executable).parent}{os.pathsep}{flow_environment['PATH']}"
    environment = {name: value for name, value in flow_environment.items() if name != "PREFECT_API_URL"}
    with subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "extract"], env=environment | {"PATH": path, "MARK": str(tmp_path)}, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as run:  # fmt: skip
        until(lambda: any("flows.candidate_rows first" in command for command in commands(tmp_path)), 120)
        assert (
            sum("uvicorn" in command for command in commands(tmp_path)) == 1
        )  # Prefect's own server, not one a worker
        assert len(commands(tmp_path)) > 4  # that, this one, two workers, the child
        os.killpg(run.pid, signal.SIGINT)
        _, told = run.communicate(timeout=60)
    *before, last = told.splitlines()
    assert last == "stopped; 0 candidates done; their features are kept for the next run"
    assert "dashboard is available" in before[-1]  # and nothing since
    assert run.returncode == 130
    until(lambda: not commands(tmp_path))


def commands(mark: Path) -> list[str]:
    """Command lines of living processes with this variable MARK, whoever started them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"MARK={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_text().replace("\0", " "))
    return found


def test_values_are_yaml_and_every_combination_is_a_variant() -> None:
    variants = read_variants(["seed=0,1", "a.b=null,{c: [1, 2]}"])
    assert variants == [
        Variant(1, {"seed": 0, "a.b": None}), Variant(2, {"seed": 0, "a.b": {"c": [1, 2]}}),
        Variant(3, {"seed": 1, "a.b": None}), Variant(4, {"seed": 1, "a.b": {"c": [1, 2]}}),
    ]  # fmt: skip
    assert variants[1].name == '2: seed=0 a.b={"c": [1, 2]}'


def test_what_can_not_be_meant_is_told_at_once() -> None:
    with pytest.raises(
        ValueError, match=r"-S 'seed' is not KEY=VALUE.*; -S 'seed=\[' is not .*; -S seed is said twice"
    ):
        read_variants(["seed", "seed=[", "seed=1", "seed=2"])


def test_variants_are_checked_against_the_commit_before_one_runs(project: Path) -> None:
    (project / "params.yaml").unlink()  # the commit's counts
    check_variants(read_variants(["seed=0,1"]), "HEAD")
    with pytest.raises(
        ValueError, match=r"^variant 1: seed=0 a\.b=0: params\.yaml has no key a\.b; name it with its section, \S+ in"
    ):
        check_variants(read_variants(["seed=0,1", "a.b=0"]), "HEAD")  # told once
    with pytest.raises(ValueError, match=r"variant 2: seed=many: seed is 'many'; input should be a valid integer"):
        check_variants(read_variants(["seed=0,many"]), "HEAD")


def test_a_runner_that_is_not_ours_is_refused() -> None:
    with pytest.raises(ValueError, match="--runner 'ray' is unknown; say dask or threads"):
        check_runner("ray", None)
    with pytest.raises(ValueError, match="--cluster tcp://a:1 is a Dask scheduler's; leave --runner threads out"):
        check_runner("threads", "tcp://a:1")


def test_without_dask_it_is_said_what_to_install() -> None:
    code = (
        "import sys; sys.modules['prefect_dask'] = None\n"
        "from flows.fan_out import runner_of\nrunner_of('threads', None, 1)\nrunner_of('dask', None, 1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=with_our_modules(), capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1] == (
        "ValueError: prefect-dask is not installed: `pip install 'acclimate[dask]'`, or say --runner threads"
    )


def test_each_run_has_a_gpu_of_its_own_and_waits_where_none_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE, "3,GPU-5f")
    told: list[str] = []
    with own_gpu(tmp_path, "cpu", tell=told.append) as none, own_gpu(tmp_path, "cuda", tell=told.append) as first:
        with own_gpu(tmp_path, "cuda", tell=told.append) as second:
            assert (none, first, second) == ({}, {VISIBLE: "3"}, {VISIBLE: "GPU-5f"})
            code = (
                "from pathlib import Path\nfrom flows.fan_child import own_gpu\n"
                f"with own_gpu(Path({str(tmp_path)!r}), 'cuda', tell=print) as found: print(found)"
            )
            third = subprocess.Popen(
                [sys.executable, "-c", code], env=with_our_modules(), stdout=subprocess.PIPE, text=True
            )
            assert third.stdout is not None
            assert third.stdout.readline().startswith("waiting for the first that is free: /gpu/")
        assert third.communicate(timeout=30)[0] == f"{{{VISIBLE!r}: 'GPU-5f'}}\n"
    assert told == []


def test_gpus_are_those_that_may_be_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf 'GPU 0: a (UUID: GPU-1)\\nGPU 1: b (UUID: GPU-2)\\n'\n")
    tool.chmod(0o755)
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus() == ["0", "1"]
    tool.unlink()
    assert gpus() == ["0"]


def test_variants_wait_for_retraining(project: Path) -> None:
    with run_lock(project / ".acclimate", runs(project), tell=lambda _: None):
        run = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "vary", "-S", "seed=0"], env=with_our_modules(), stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert run.stderr is not None
        assert run.stderr.readline().startswith("waiting for the run that holds")
        run.kill()
        run.communicate()


def runs(project: Path) -> Path:
    assert runs_folder() == project / ".acclimate/runs"
    return runs_folder()
