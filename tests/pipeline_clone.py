"""The whole pipeline in a clone of one's own, with parameters that make it quick."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

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
