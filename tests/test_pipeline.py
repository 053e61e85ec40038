"""The real pipeline on a small sample: same bytes by either driver, after kills, and only what changed runs again.

.venv/bin/python -m pytest -m pipeline tests/test_pipeline.py
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from flows.environment import dvc_environment

pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).resolve().parent.parent
STAGES = [
    "make_sample", "build_manifest", "measure_images", "validate_data", "augment_images", "extract_features",
    "select_model", "synthesise_images", "finetune_model", "guard_adaptation", "evaluate_model", "explain_errors",
    "audit_bias", "register_model",
]  # fmt: skip
LIMIT_S = 900


TESTBED = Path(os.environ.get("ACCLIMATE_TESTBED", ROOT / "../shared/testbed")).resolve()


def small(params: dict[str, Any]) -> None:
    """Seconds in place of minutes: fewer images and epochs, all steps kept."""
    params["make_sample"] |= {"n_source_images": 220, "zoo_val_images": 100}
    params["make_sample"]["zoo_images"] = dict.fromkeys(params["make_sample"]["zoo_images"], 200)
    params["make_sample"]["zoo_epochs"] = dict.fromkeys(params["make_sample"]["zoo_epochs"], 1)
    params["validate_data"]["rules"]["source_class_size"]["min"] = 5
    params["extract_features"] |= {"n_views": 1, "max_images": {"source": 200, "target": 300}}
    params["select_model"] |= {"n_bootstrap": 50, "max_per_domain": 100}
    shorten(params["finetune_model"], 2)


def shorten(own: dict[str, Any], n_epochs: int) -> None:
    methods = [method["phase"] for method in own["methods"].values() if method and "phase" in method]
    plans = [phase for plan in own["plans"].values() for phase in plan["phases"]]
    for phase in [*methods, *own["source"], *own["scratch"], *plans]:
        if "n_epochs" in phase:
            phase["n_epochs"] = n_epochs


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


def fresh_clone(folder: Path) -> Path:
    """What git would give somebody else, uncommitted changes included, with the small parameters committed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout.decode()  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    edit_params(folder, small)
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "t"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def edit_params(folder: Path, change: Any) -> None:
    yaml = YAML()
    params = yaml.load((folder / "params.yaml").read_text())
    change(params)
    with (folder / "params.yaml").open("w") as handle:
        yaml.dump(params, handle)


def call(folder: Path, environment: dict[str, str], *command: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT_S,
        check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def ran(output: str) -> list[str]:
    return [stage for stage in STAGES if f"Running stage '{stage}'" in output]


def test_every_stage_runs_then_nothing_then_only_what_depends_on_the_change(
    reference: Path, environment: dict[str, str]
) -> None:
    assert list(YAML(typ="safe").load((reference / "dvc.lock").read_text())["stages"]) == STAGES
    lock = (reference / "dvc.lock").read_bytes()
    assert ran(call(reference, environment, "dvc", "repro", "register_model")) == []

    edit_params(reference, lambda p: p["finetune_model"]["regularisers"].update(weight_decay=0.02))
    changed = call(reference, environment, "dvc", "repro", "register_model")
    assert ran(changed) == STAGES[STAGES.index("finetune_model") :]
    assert (reference / "dvc.lock").read_bytes() != lock

    edit_params(reference, lambda p: p["finetune_model"]["regularisers"].update(weight_decay=0.01))
    back = call(reference, environment, "dvc", "repro", "register_model")
    assert ran(back) == []
    assert "Stage 'finetune_model' is cached - skipping run" in back
    assert (reference / "dvc.lock").read_bytes() == lock


def test_prefect_gives_the_same_lock_file(reference: Path, clone: Path, environment: dict[str, str]) -> None:
    call(clone, environment, "flows.cli", "run", "--engine", "prefect")
    assert (clone / "dvc.lock").read_bytes() == (reference / "dvc.lock").read_bytes()
    again = call(clone, environment, "flows.cli", "run", "--engine", "prefect")
    assert again.count("Cached(") >= len(STAGES), again


def test_killed_in_every_stage_the_rerun_ends_with_the_same_bytes(
    reference: Path, clone: Path, environment: dict[str, str]
) -> None:
    for stage in STAGES:
        kill_in_stage(clone, environment, stage)
    call(clone, environment, "dvc", "repro", "register_model")
    assert (clone / "dvc.lock").read_bytes() == (reference / "dvc.lock").read_bytes()


def kill_in_stage(folder: Path, environment: dict[str, str], stage: str) -> None:
    """kill -9 to DVC and the stage together, a moment after the stage has started its work."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "register_model"], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if f"Running stage '{stage}'" in line:
                break
        else:
            pytest.fail(f"{stage} never started")
        time.sleep(2.5)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_metrics_plots_and_experiments_of_dvc_work(clone: Path, reference: Path, environment: dict[str, str]) -> None:
    shutil.copytree(reference, clone, dirs_exist_ok=True)
    shown = json.loads(call(clone, environment, "dvc", "metrics", "show", "--json"))
    assert shown[""]["data"]["data/metrics.json"]["data"]["adopted"]["n"] == 768
    plots = call(clone, environment, "dvc", "plots", "show", "-o", "dvc_plots")
    assert (clone / "dvc_plots/index.html").exists(), plots
    told = call(clone, environment, "dvc", "exp", "run", "-S", "audit_bias.min_group_size=30", "register_model")
    assert ran(told) == ["explain_errors", "audit_bias", "register_model"]


def test_the_registered_model_predicts_images(reference: Path, environment: dict[str, str]) -> None:
    images = sorted((reference / "data/sample/images/handwriting").iterdir())[:3]
    broken = reference / "broken.png"
    broken.write_bytes(b"not an image")
    told = call(
        reference,
        environment,
        "flows.cli",
        "predict",
        *map(str, [*images, broken]),
        "--model",
        "challenger",
        "--out",
        "out.csv",
        code=1,
    )
    assert "1 of 4 images could not be read" in told
    header, *rows = (reference / "out.csv").read_text().splitlines()
    assert header.startswith("path,y_pred,confidence,p_0,")
    assert len(rows) == 4


def test_no_stage_sees_what_it_must_not(reference: Path) -> None:
    valid = (reference / "data/manifest_valid.csv").read_text().splitlines()
    columns = valid[0].split(",")
    split, label, domain = (columns.index(name) for name in ("split", "label", "domain"))
    target = [row.split(",") for row in valid[1:] if row.split(",")[domain] == "target"]
    assert {row[split] for row in target if row[label]} == {"train", "val"}
    assert {row[split] for row in target if not row[label]} == {"guard", "test", "unlabelled", "holdout"}


@pytest.mark.skipif(not TESTBED.is_dir(), reason="needs the testbed of real photographs (ACCLIMATE_TESTBED)")
def test_real_photographs_run_with_the_example_parameters(clone: Path, environment: dict[str, str]) -> None:
    """docs/examples/pacs_photo_to_art.yaml, smaller: it must run and choose, not be accurate."""
    shutil.copyfile(ROOT / "docs/examples/pacs_photo_to_art.yaml", clone / "params.yaml")

    def point_at_testbed(params: dict[str, Any]) -> None:
        params["zoo"].update(folder=str(TESTBED / "zoo"), image_px=96)
        table = str(TESTBED / "pacs/manifest.csv")
        params["build_manifest"].update(root=str(TESTBED / "pacs"), table=table)
        params["build_manifest"]["max_per_class"].update(source=20, target=60)
        params["validate_data"]["target_labels_per_class"] = 15
        params["validate_data"]["rules"]["source_class_size"]["min"] = 5
        params["augment_images"]["transforms"] = params["augment_images"]["transforms"][:1]
        params["select_model"].update(n_bootstrap=50, max_per_domain=100)
        shorten(params["finetune_model"], 1)

    edit_params(clone, point_at_testbed)
    told = call(clone, environment, "dvc", "repro", "register_model")
    assert ran(told) == STAGES[1:]
    selection = json.loads((clone / "data/selection.json").read_text())
    assert selection["chosen"] == "imagenet_mobilenet_v2"
    metrics = json.loads((clone / "data/metrics.json").read_text())
    assert metrics["adopted"]["n"] == 7 * 24
    assert "carries no audit columns" in (clone / "data/audit/report.html").read_text()
