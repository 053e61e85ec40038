"""A child of `acclimate vary`: the pipeline with some parameters changed, in a checkout and a home of its own."""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from flows.cli import check_places
from flows.dvc_process import failure_reason
from flows.fan_child import end_with_parent, own_gpu
from flows.results import read_results
from flows.run_lock import run_lock
from flows.terminal import run_dvc_here
from flows.worktree import PARAMS, add_tree, clear_tree, fetch_data, inside, link_places, share_cache
from tasks.core.files import read_json
from tasks.core.runtime import acclimate_home, run_stage
from tasks.params import read_params

TARGET = "audit_bias"  # the last stage that measures: a variant is no candidate, so none is registered
AUDIT_METRICS = Path("data/audit_metrics.json")
SHARED = ("archives", "facts", "features")  # of the home: what is kept by content


def main() -> None:
    end_with_parent()
    commit, number, changes = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    found = run_variant(Path.cwd(), commit, number, changes)
    print(json.dumps(found), flush=True)  # noqa: T201  read by the process that started this one


def run_variant(workspace: Path, commit: str, number: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Figures and verdict of the commit's pipeline with these parameters changed. Nothing else of it is kept."""
    home = acclimate_home()
    (home / "variants").mkdir(parents=True, exist_ok=True)
    # Not named by its number alone: a cluster tries again where a worker died
    folder = Path(tempfile.mkdtemp(dir=home / "variants", prefix=f"{number}-"))
    tree, own_home = folder / "tree", folder / "home"
    try:
        _, project = add_tree(workspace, tree, commit)
        make_home(own_home, home)
        with inside(project, {"ACCLIMATE_HOME": str(own_home)}):
            fetch_data(share_cache(workspace), say)
            link_places(workspace)
            change_params(changes)
            params = read_params()
            check_places(params)
            with own_gpu(home, params.runtime.device, tell=say) as variables:
                os.environ.update(variables)
                run_stages()
            return figures()
    finally:
        clear_tree(tree)
        shutil.rmtree(folder, ignore_errors=True)


def make_home(own_home: Path, home: Path) -> None:
    """Nothing: resume state and locks are the variant's own, what is kept by content is everybody's."""
    own_home.mkdir()
    for name in SHARED:
        (home / name).mkdir(exist_ok=True)
        (own_home / name).symlink_to(home / name)


def change_params(changes: dict[str, Any]) -> None:
    """Nothing: this checkout's params.yaml has other values at these dotted keys. ValueError names keys that it lacks."""
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 4096, True
    content = yaml.load(PARAMS.read_text(encoding="utf-8"))
    absent = [key for key, value in changes.items() if not put(content, key.split("."), value)]
    if absent:
        raise ValueError(
            f"{PARAMS} has no key {', '.join(absent)}; name it with its section, as in audit_bias.confidence"
        )
    with PARAMS.open("w", encoding="utf-8") as handle:
        yaml.dump(content, handle)


def put(content: Any, names: list[str], value: Any) -> bool:
    """Whether the key is there and has the value now."""
    for name in names[:-1]:
        content = content.get(name) if isinstance(content, dict) else None
    if not isinstance(content, dict) or names[-1] not in content:
        return False
    content[names[-1]] = value
    return True


def run_stages() -> None:
    """Nothing. ValueError with the failing stage's reason."""
    with run_lock(acclimate_home(), Path.cwd(), tell=say):
        exit_code, lines = run_dvc_here("repro", TARGET)
    if exit_code:
        raise ValueError(failure_reason(lines, exit_code))


def figures() -> dict[str, Any]:
    """On the target's test images: accuracy of the adopted and the source-only model, the worst group, verdict, decision."""
    results = read_results()
    metrics, audit, decision = results.metrics or {}, results.audit or {}, results.decision or {}
    adopted = metrics.get("adopted", {})
    groups = read_json(AUDIT_METRICS, made_by=TARGET)["worst_group"]
    worst = [(group["accuracy"], f"{column} {group['group']}") for column, group in groups.items()]
    worst_accuracy, worst_group = min(worst, default=(None, ""))
    return {
        **{name: adopted.get(name) for name in ("n", "accuracy", "accuracy_low", "accuracy_high")},
        "source_only": metrics.get("source_only", {}).get("accuracy"),
        "worst_group": worst_group,
        "worst_accuracy": worst_accuracy,
        "verdict": audit.get("verdict"),
        "adopted": decision.get("adopted"),
        "told": audit.get("reason"),
    }


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  read by the process that started this one


if __name__ == "__main__":
    run_stage(main)
