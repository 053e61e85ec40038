"""Runs the stages on changed parameters in a folder of its own, without DVC, for the benchmarks that need many runs."""

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent
STAGES = [
    "make_sample",
    "build_manifest",
    "measure_images",
    "validate_data",
    "augment_images",
    "extract_features",
    "select_model",
    "synthesise_images",
    "finetune_model",
    "guard_adaptation",
    "evaluate_model",
    "explain_errors",
    "audit_bias",
]


def run_pipeline(folder: Path, params_file: Path, change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """metrics, selection, decision and seconds per stage; the folder holds everything else afterwards."""
    seconds = run_stages(folder, params_file, change, STAGES)
    found = {"metrics": "metrics.json", "selection": "selection.json", "decision": "adoption.json"}
    return {name: json.loads((folder / "data" / path).read_text()) for name, path in found.items()} | {
        "seconds": seconds
    }


def run_stages(
    folder: Path, params_file: Path, change: Callable[[dict[str, Any]], None], stages: list[str]
) -> dict[str, float]:
    """Seconds per stage, start-up included; the folder holds what they wrote and the changed params.yaml."""
    shutil.copytree(ROOT / "data/given", folder / "data/given")
    params = YAML(typ="safe").load(params_file.read_text(encoding="utf-8"))
    change(params)
    YAML(typ="safe").dump(params, folder / "params.yaml")
    (folder / "requirements.lock").write_bytes((ROOT / "requirements.lock").read_bytes())
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ACCLIMATE_HOME": str(folder / "home")}
    seconds = {}
    for stage in stages:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", f"tasks.{stage}"], cwd=folder, env=environment, check=True)
        seconds[stage] = round(time.perf_counter() - start, 1)
    return seconds


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    return {
        "cpu": platform.processor() or platform.machine(),
        "n_cores": os.cpu_count(),
        "load": [round(x, 1) for x in os.getloadavg()],
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
