"""The real pipeline on a small sample: only what changed runs again.

.venv/bin/python -m pytest -m pipeline tests/test_pipeline.py
"""

import json
import shutil
from pathlib import Path

import pytest
from pipeline_clone import STAGES, call, edit_params, ran
from ruamel.yaml import YAML

pytestmark = pytest.mark.pipeline


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
