"""The bundle: weights, description and evidence of one candidate model, named by the hash of its manifest.

`manifest.json` lists the sha256 of every file and holds no clock and no version: its own sha256 is the candidate id.
"""

import shutil
from pathlib import Path
from typing import Any

from tasks.core.files import file_sha256, read_json, whole_folder, write_json

MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"


def write_bundle(folder: Path, files: dict[str, Path], facts: dict[str, Any]) -> None:
    """Copies each file under its name in the bundle, and writes the manifest last."""
    with whole_folder(folder) as part:
        for name, path in files.items():
            shutil.copyfile(path, part / name)
        hashes = {name: file_sha256(part / name) for name in sorted(files)}
        write_json(part / MANIFEST, {**facts, "files": hashes})


def candidate_id(folder: Path) -> str:
    return file_sha256(folder / MANIFEST)


def check_bundle(folder: Path) -> dict[str, Any]:
    """The manifest. ValueError names every file that is missing or not the one that was registered."""
    manifest: dict[str, Any] = read_json(folder / MANIFEST, made_by="register_model")
    problems = []
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif file_sha256(path) != expected:
            problems.append(f"{name} has sha256 {file_sha256(path)[:16]}, its manifest says {expected[:16]}")
    if problems:
        raise ValueError(f"the bundle {folder} is not as it was registered: {'; '.join(problems)}; register it again")
    return manifest
