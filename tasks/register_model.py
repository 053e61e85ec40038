"""register_model: the bundle of the adopted model, registered as challenger whatever its verdict, stamped with it.

reads   data/model, data/adoption.json, data/metrics.json, data/selection.json, data/validation.json, data/profile.json,
        data/audit
writes  data/bundle

Registration is idempotent and lies outside the outs: a stage that DVC restores from its run cache does not execute, so
`sync_registry` is also called by the flow and by hand. The registry holds pointers; the bytes lie, named by candidate
id, under $ACCLIMATE_HOME/bundles, because data/bundle is overwritten by the next run.
"""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tasks.core.bundle import candidate_id, check_bundle, write_bundle
from tasks.core.card import model_card
from tasks.core.files import file_sha256, read_json, whole_folder, write_json, write_text
from tasks.core.runtime import acclimate_home, quiet_tools, run_stage
from tasks.params import read_params

BUNDLE = Path("data/bundle")
ALIAS = "challenger"


def main() -> None:
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
        "verdict.json": data / "audit/verdict.json",
        "by_group.csv": data / "audit/by_group.csv",
        "report.html": data / "audit/report.html",
    }
    facts = {
        "name": name,
        "verdict": evidence["verdict"]["verdict"],
        "decision": evidence["decision"]["guard"]["decision"],
        "adopted": description["adopted"],
        "accuracy": metrics["adopted"]["accuracy"],
    }
    write_bundle(BUNDLE, files, facts)
    card.unlink()
    described.unlink()
    print(sync_registry(BUNDLE, name))  # noqa: T201  the stage's result for the person


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
    with _RegistryLock():  # two first uses at once break the database's migration
        client = _client()
        version = next((v for v in _versions(client, name) if v.tags.get("candidate_id") == candidate), None)
        if version is not None:
            client.set_registered_model_alias(name, ALIAS, version.version)
            return f"candidate {candidate[:12]} is already registered as {name} version {version.version}; it is the {ALIAS}"
        version = client.create_model_version(name, source=stored.as_uri(), tags=_tags(candidate, manifest))
        client.set_registered_model_alias(name, ALIAS, version.version)
    return f"candidate {candidate[:12]} registered as {name} version {version.version}, {ALIAS}, audit {manifest['verdict']}"


def registered_bundle(name: str, alias: str) -> Path:
    """The folder of the bundle behind an alias. ValueError where there is none, or where its bytes were changed."""
    from mlflow.exceptions import MlflowException

    with _RegistryLock():
        client = _client()
        try:
            version = client.get_model_version_by_alias(name, alias)
        except MlflowException:
            raise ValueError(
                f"no model {name!r} carries the alias {alias!r}; `acclimate run` registers its model as {ALIAS!r}"
            ) from None
    folder = acclimate_home() / "bundles" / version.tags["candidate_id"]
    if not folder.is_dir():
        raise ValueError(f"{name} version {version.version} is registered, but its bundle {folder} is missing here")
    check_bundle(folder)
    return folder


class _RegistryLock:
    """Held while the registry is opened or changed."""

    def __enter__(self) -> None:
        path = acclimate_home() / "locks" / "registry.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = path.open("w")
        fcntl.flock(self._handle, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._handle.close()


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
    """What is known at registration only: the commit, whether the tree was clean, the lock file's hash."""
    lock = Path("dvc.lock")
    return {
        "candidate_id": candidate,
        "verdict": manifest["verdict"],
        "decision": manifest["decision"],
        "adopted": manifest["adopted"],
        "git_commit": _git("rev-parse", "HEAD"),
        "git_tree": "clean" if _git("status", "--porcelain") == "" else "changed",
        "dvc_lock_sha256": file_sha256(lock) if lock.exists() else "none yet",
    }


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


if __name__ == "__main__":
    run_stage(main)
