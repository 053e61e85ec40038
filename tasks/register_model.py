"""register_model: the bundle of the adopted model, registered as challenger whatever its verdict, stamped with it.

reads   data/model, data/adoption.json, data/metrics.json, data/reference.safetensors, data/selection.json,
        data/validation.json, data/profile.json, data/audit
writes  data/bundle

Registration is idempotent and lies outside the outs: a stage that DVC restores from its run cache does not execute, so
`sync_registry` is also called by the flow and by hand. The registry holds pointers; the bytes lie, named by candidate
id, under $ACCLIMATE_HOME/bundles, because data/bundle is overwritten by the next run.
"""

import fcntl
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from tasks.core.bundle import candidate_id, check_bundle, write_bundle
from tasks.core.costs import read_cost
from tasks.core.files import file_sha256, read_json, whole_file, whole_folder, write_json, write_text
from tasks.core.runtime import acclimate_home, quiet_tools, run_stage
from tasks.params import read_params

BUNDLE = Path("data/bundle")
ALIAS = "challenger"


def main() -> None:
    from tasks.core.card import model_card  # brings scipy.stats: a second that nobody who asks the registry should wait

    name = read_params().register_model.name
    data = Path("data")
    description = read_json(data / "model/model.json", made_by="finetune_model")
    metrics = read_json(data / "metrics.json", made_by="evaluate_model")
    evidence = {
        "verdict": read_json(data / "audit/verdict.json", made_by="audit_bias"),
        "decision": read_json(data / "adoption.json", made_by="guard_adaptation"),
        "selection": read_json(data / "selection.json", made_by="select_model"),
        "validation": read_json(data / "validation.json", made_by="validate_data"),
    }
    description |= of_adopted(description, evidence["decision"])
    card, described = data / ".card.md", data / ".model.json"
    write_text(card, model_card(name, description, metrics, evidence))
    write_json(described, description)
    files = {
        "model.safetensors": data / "model" / f"{description['adopted']}.safetensors",
        "model.json": described,
        "README.md": card,
        "adoption.json": data / "adoption.json",
        "metrics.json": data / "metrics.json",
        "selection.json": data / "selection.json",
        "validation.json": data / "validation.json",
        "profile.json": data / "profile.json",
        "reference.safetensors": data / "reference.safetensors",
        "verdict.json": data / "audit/verdict.json",
        **{name: data / "audit" / name for name in ("by_group.csv", "by_class.csv", "changes.csv")},
        "audit.md": data / "audit/summary.md",
        "report.html": data / "audit/report.html",
    }
    facts = {
        "name": name,
        "verdict": evidence["verdict"]["verdict"],
        "decision": evidence["decision"]["guard"]["decision"],
        "adopted": description["adopted"],
        "accuracy": metrics["adopted"]["accuracy"],
        "pretrained": evidence["selection"]["chosen"],
        "predicted_rank": predicted_rank(evidence["selection"]),
        "candidates": [entry["name"] for entry in evidence["selection"]["candidates"]],
    }
    write_bundle(BUNDLE, files, facts)
    card.unlink()
    described.unlink()
    print(sync_registry(BUNDLE, name))  # noqa: T201  the stage's result for the person


def predicted_rank(selection: dict[str, Any]) -> str:
    """Where the scores placed the candidate that was trained, such as "2 of 4"."""
    names = [entry["name"] for entry in selection["candidates"]]
    return f"{names.index(selection['chosen']) + 1} of {len(names)}"


def of_adopted(description: dict[str, Any], decision: dict[str, Any]) -> dict[str, Any]:
    """What the description says of the one network that goes into the bundle."""
    adopted = decision["adopted"]
    calibration = decision["calibration"].get(adopted)
    ask_below = calibration["ask_below"]["threshold"] if calibration else None
    return {"adopted": adopted, "temperature": description["temperature"][adopted], "ask_below": ask_below}


def sync_registry(bundle: Path, name: str) -> str:
    """One line on what was done: a version is made only if none carries the bundle's candidate id."""
    manifest = check_bundle(bundle)
    candidate = candidate_id(bundle)
    stored = acclimate_home() / "bundles" / candidate
    if not stored.exists():
        with whole_folder(stored) as part:
            shutil.copytree(bundle, part, dirs_exist_ok=True)
    with open_registry() as client:
        version = next((v for v in _versions(client, name) if v.tags.get("candidate_id") == candidate), None)
        if version is not None:
            client.set_registered_model_alias(name, ALIAS, version.version)
            return f"candidate {candidate[:12]} is already registered as {name} version {version.version}; it is the {ALIAS}"
        keep_lock(candidate)
        version = client.create_model_version(
            name, source=f"acclimate:/bundles/{candidate}", tags=_tags(candidate, manifest)
        )
        client.set_registered_model_alias(name, ALIAS, version.version)
    return f"candidate {candidate[:12]} registered as {name} version {version.version}, {ALIAS}, audit {manifest['verdict']}"


@contextmanager
def open_registry() -> Iterator[Any]:
    """MLflow's client, under a lock: two first uses at once break the database's migration."""
    path = acclimate_home() / "locks" / "registry.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield _client()


def person() -> str:
    """Who is at work here: the login name ($USER, $LOGNAME), else git's e-mail address, else "unknown". Said, not proven."""
    return os.environ.get("USER") or os.environ.get("LOGNAME") or _git("config", "user.email") or "unknown"


def kept_lock(candidate: str) -> Path:
    """Where the dvc.lock that a candidate came with is kept: the workspace's own one goes on with the next run."""
    return acclimate_home() / "lineage" / f"{candidate}.lock"


def keep_lock(candidate: str) -> None:
    """Keeps the dvc.lock that is here. Within the stage its last entry is still the run's before."""
    if (lock := Path("dvc.lock")).exists():
        with whole_file(kept_lock(candidate)) as part:
            shutil.copyfile(lock, part)


def lineage_tags() -> dict[str, str]:
    """The commit, whether what a run reads was committed (a run writes dvc.lock itself), and the lock file's hash."""
    lock = Path("dvc.lock")
    return {
        "git_commit": _git("rev-parse", "HEAD"),
        "git_tree": "clean" if _git("status", "--porcelain", "--", ".", ":!dvc.lock") == "" else "changed",
        "dvc_lock_sha256": file_sha256(lock) if lock.exists() else "none yet",
    }


def _client() -> Any:
    quiet_tools()
    import mlflow  # 3 seconds to import

    uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{acclimate_home() / 'mlflow.db'}")
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


def _versions(client: Any, name: str) -> list[Any]:
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    return list(client.search_model_versions(f"name = '{name}'"))


def _tags(candidate: str, manifest: dict[str, Any]) -> dict[str, str]:
    """What is known at registration only stands beside what the bundle says: who, from which commit, on which machine."""
    return {
        "candidate_id": candidate,
        "verdict": manifest["verdict"],
        "decision": manifest["decision"],
        "adopted": manifest["adopted"],
        "weights_sha256": manifest["files"]["model.safetensors"],
        **{key: manifest[key] for key in ("pretrained", "predicted_rank") if key in manifest},
        **{f"cost_{name}": str(cost) for name in manifest.get("candidates", []) if (cost := read_cost(name))},
        "started_by": person(),
        **machine_tags(),
        **lineage_tags(),
    }


def machine_tags() -> dict[str, str]:
    """What the bytes of a result depend on beside code, data and parameters: other processors round differently."""
    return {"cpu": _cpu(), "python": platform.python_version(), "torch": version_of("torch")}


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return named[1] if named else platform.machine()


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


if __name__ == "__main__":
    run_stage(main)
