"""What a dvc.lock says a result came from: code, data, parameters, each with the hash that DVC gave it."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUNDLE, MANIFEST = "data/bundle", "data/manifest.csv"
LAST_STAGE = "register_model"  # its own entry is of the run before where the lock was kept within the stage
ENVIRONMENT = "requirements.lock"
CODE_FOLDER = "tasks/"


@dataclass(frozen=True)
class Recorded:
    """A file or folder that a stage read or wrote; `md5` ends in .dir for a folder."""

    stage: str
    path: str
    md5: str
    is_out: bool

    @property
    def is_code(self) -> bool:
        return self.path.startswith(CODE_FOLDER) or self.path == ENVIRONMENT


def read_lock(path: Path) -> dict[str, Any]:
    """The lock's stages by name. FileNotFoundError where none was kept."""
    from ruamel.yaml import YAML

    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing: no dvc.lock was kept with this model; say `acclimate registry sync` in the folder of its run, "
            "while dvc.lock and data/bundle there are still those of that run"
        )
    stages: dict[str, Any] = YAML(typ="safe").load(path.read_text(encoding="utf-8"))["stages"]
    return stages


def recorded(stages: Mapping[str, Any], *, with_last: bool = False) -> Iterator[Recorded]:
    """Every dep and out of every stage; the registering stage's only if asked for: the bundle answers for itself."""
    for stage, entry in stages.items():
        if stage == LAST_STAGE and not with_last:
            continue
        for kind in ("deps", "outs"):
            for item in entry.get(kind, []):
                yield Recorded(stage, item["path"], item["md5"], kind == "outs")


def recorded_params(stages: Mapping[str, Any]) -> dict[str, Any]:
    """Value by dotted key, of all stages."""
    return {
        key: value
        for stage, entry in stages.items()
        if stage != LAST_STAGE
        for key, value in entry.get("params", {}).get("params.yaml", {}).items()
    }


def data_md5(stages: Mapping[str, Any]) -> str:
    """The manifest's hash: it holds the hash of every image's bytes, and people's labels."""
    return next(item.md5 for item in recorded(stages) if item.path == MANIFEST)


def params_sha256(stages: Mapping[str, Any]) -> str:
    text = json.dumps(recorded_params(stages), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def made_bundle(stages: Mapping[str, Any]) -> str | None:
    """The hash of the bundle that the lock's run ended with."""
    outs = {item.path: item.md5 for item in recorded(stages, with_last=True) if item.is_out}
    return outs.get(BUNDLE)


def path_md5(path: Path) -> str | None:
    """The hash that DVC gives the file or folder, None where it isn't there."""
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file()]
        return folder_md5({file.relative_to(path).as_posix(): file_md5(file) for file in files})
    return file_md5(path) if path.is_file() else None


def folder_md5(md5_by_name: Mapping[str, str]) -> str:
    """DVC's hash of a folder: that of the JSON list of its files, sorted by name."""
    listed = [{"md5": md5, "relpath": name} for name, md5 in sorted(md5_by_name.items())]
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir"


def file_md5(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "md5").hexdigest()
