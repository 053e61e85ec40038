"""zoo.json: what is known of each candidate without loading it."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
        entries = None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path} is not JSON of the form {{'models': [{{'name': …}}, …]}}")
    problems = [problem for number, entry in enumerate(entries) for problem in _problems(number, entry)]
    known = [str(entry.get("name")) for entry in entries]
    problems += [f"zoo.candidates names {name!r}, which is not there" for name in names or [] if name not in known]
    given = [str(entry["name"]) for entry in entries if entry.get("name")]
    problems += [f"the name {name!r} stands there twice" for name in sorted({n for n in given if given.count(n) > 1})]
    if not entries:
        problems.append("it names no model")
    if problems:
        raise ValueError(f"{path}: " + "; ".join(problems))
    return [_candidate(folder, entry) for entry in entries if names is None or entry["name"] in names]


def _problems(number: int, entry: dict[str, Any]) -> list[str]:
    where = f"model {entry.get('name', number)!r}" if entry.get("name") else f"model {number}"
    return [
        f"{where}: {key} is {entry.get(key, 'missing')!r}, wanted is {wanted}"
        for key, (wanted, is_right) in KEYS.items()
        if not is_right(entry.get(key))
    ]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_file_name(value: object) -> bool:
    return isinstance(value, str) and bool(value) and "/" not in value and not value.startswith(".")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _are_numbers(value: object) -> bool:
    if not isinstance(value, list) or len(value) != 3:
        return False
    return all(isinstance(n, int | float) and not isinstance(n, bool) for n in value)


def _are_positive(value: object) -> bool:
    return isinstance(value, list) and _are_numbers(value) and all(n > 0 for n in value)


def _are_counts(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(_is_count(n) for n in value)


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def _is_bilinear(value: object) -> bool:
    return value == "bilinear"


KEYS: dict[str, tuple[str, Callable[[object], bool]]] = {
    "name": ("a file name: no slash, no dot in front", _is_file_name),
    "arch": ("the name of an architecture", _is_text),
    "file": ("the name of the weight file", _is_text),
    "sha256": ("64 hexadecimal digits", _is_sha256),
    "num_classes": ("a positive whole number", _is_count),
    "feature_dim": ("a positive whole number", _is_count),
    "mean": ("a list of three numbers", _are_numbers),
    "std": ("a list of three positive numbers", _are_positive),
    "input_size": ("channels, height and width: three positive whole numbers", _are_counts),
    "interpolation": ("bilinear, the only one supported", _is_bilinear),
    "source_domain": ("a description in words", _is_text),
    "license": ("the name of a licence", _is_text),
}


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
