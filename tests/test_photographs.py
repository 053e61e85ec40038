"""The real pipeline on real photographs, with the example's parameters. A file of its own: it runs beside test_pipeline.py."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pipeline_clone import ROOT, STAGES, TESTBED, call, edit_params, ran, shorten

pytestmark = pytest.mark.pipeline


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
