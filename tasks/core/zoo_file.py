"""zoo.json: what is known of each candidate without loading it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KEYS = {
    "name": str, "arch": str, "file": str, "sha256": str, "num_classes": int, "feature_dim": int,
    "mean": list, "std": list, "input_size": list, "interpolation": str, "source_domain": str, "license": str,
}  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """One pretrained network: where it is, what it expects, what it was trained on."""

    name: str
    architecture: str
    weights_path: Path
    sha256: str
    n_source_classes: int
    feature_dim: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    native_px: int
    source_domain: str
    licence: str


def read_zoo(folder: Path, names: list[str] | None) -> list[Candidate]:
    """The wanted candidates, in the file's order. ValueError lists every problem of zoo.json at once."""
    path = folder / "zoo.json"
    if not path.is_file():
        raise ValueError(f"{path} is missing: zoo.folder must hold zoo.json and the weight files it names")
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["models"]
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
        raise ValueError(f"{path} is not JSON of the form {{'models': [...]}}") from None
    problems = [problem for number, entry in enumerate(entries) for problem in _problems(number, entry)]
    known = [entry.get("name") for entry in entries]
    problems += [f"zoo.candidates names {name!r}, which is not there" for name in names or [] if name not in known]
    problems += [f"the name {name!r} stands there twice" for name in sorted({n for n in known if known.count(n) > 1})]
    if not entries:
        problems.append("it names no model")
    if problems:
        raise ValueError(f"{path}: " + "; ".join(problems))
    return [_candidate(folder, entry) for entry in entries if names is None or entry["name"] in names]


def _problems(number: int, entry: dict[str, Any]) -> list[str]:
    where = f"model {entry.get('name', number)!r}"
    problems = [
        f"{where}: {key} is {entry.get(key, 'missing')!r}, wanted is a {kind.__name__}"
        for key, kind in KEYS.items()
        if not isinstance(entry.get(key), kind)
    ]
    name = entry.get("name")
    if isinstance(name, str) and (not name or "/" in name or name.startswith(".")):
        problems.append(
            f"{where}: the name becomes a file name, so it can't be empty, start with a dot or hold a slash"
        )
    if not problems and entry["interpolation"] != "bilinear":
        problems.append(f"{where}: interpolation {entry['interpolation']!r} is not supported; allowed is bilinear")
    if not problems and (len(entry["mean"]) != 3 or len(entry["std"]) != 3 or len(entry["input_size"]) != 3):
        problems.append(f"{where}: mean, std and input_size (channels, height, width) need three numbers each")
    return problems


def _candidate(folder: Path, entry: dict[str, Any]) -> Candidate:
    return Candidate(
        name=entry["name"],
        architecture=entry["arch"],
        weights_path=folder / entry["file"],
        sha256=entry["sha256"],
        n_source_classes=entry["num_classes"],
        feature_dim=entry["feature_dim"],
        mean=tuple(entry["mean"]),
        std=tuple(entry["std"]),
        native_px=int(entry["input_size"][-1]),
        source_domain=entry["source_domain"],
        licence=entry["license"],
    )
