"""zoo.json: what is known of each candidate without loading it."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from tasks.core.bundle import MANIFEST
from tasks.core.files import text_sha256, write_json
from tasks.core.zoo_keys import ALL, INHERITED, entry_problems, is_to_be_pulled, kind_of

MAX_BYTES = 10_000_000  # of zoo.json: thousands of entries are far smaller


@dataclass(frozen=True)
class Pretraining:
    """What is known of the images that a candidate was trained on; None = not known."""

    data: str | None = None
    n_images: int | None = None
    known_gaps: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class Candidate:
    """One network to start from: where it is, what it expects, what it was trained on. None = not known.

    From scratch there is no file: `sha256` is then that of architecture and seed, and there are no source classes.
    """

    name: str
    architecture: str
    weights_path: Path | None
    sha256: str
    n_source_classes: int
    feature_dim: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    native_px: int
    source_domain: str
    licence: str
    interpolation: str = "bilinear"
    crop_share: float = 1.0
    seed: int | None = None
    bundle: Path | None = None
    published_accuracy: float | None = None
    n_parameters: int | None = None
    n_multiply_adds: int | None = None
    pretraining: Pretraining | None = None

    @property
    def is_scratch(self) -> bool:
        return self.weights_path is None


def read_zoo(folder: Path, names: list[str] | None) -> list[Candidate]:
    """The wanted candidates, in the file's order. ValueError lists every problem of zoo.json at once."""
    entries, problems = read_entries(folder)
    known = [str(entry.get("name")) for entry in entries]
    problems += [f"zoo.candidates names {name!r}, which is not there" for name in names or [] if name not in known]
    if not entries:
        problems.append("it names no model")
    wanted = [entry for entry in entries if names is None or entry.get("name") in names]
    problems += [not_pulled(folder, entry) for entry in wanted if is_to_be_pulled(entry)]
    by_name = {str(entry.get("name")): entry for entry in entries}
    found = []
    if not problems:
        for entry in wanted:
            try:
                found.append(_candidate(folder, entry, by_name))
            except ValueError as error:
                problems.append(f"model {entry['name']!r}: {error}")
    if problems:
        raise ValueError(f"{folder / 'zoo.json'}: " + "; ".join(problems))
    return found


def read_entries(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The entries as they stand there, and what is wrong with them. ValueError where it is no zoo.json at all."""
    path = folder / "zoo.json"
    if not path.is_file():
        raise ValueError(f"{path} is missing: zoo.folder must hold zoo.json and the weight files it names")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, at most {MAX_BYTES} are read; is it another file?")
    try:
        entries = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)["models"]
    except _Twice as error:
        raise ValueError(f"{path}: the key {str(error)!r} stands twice in one object; take one out") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        entries = None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path} is not JSON of the form {{'models': [{{'name': …}}, …]}}")
    problems = [problem for number, entry in enumerate(entries) for problem in entry_problems(number, entry)]
    counts = Counter(str(entry["name"]) for entry in entries if entry.get("name"))
    problems += [f"the name {name[:80]!r} stands there twice" for name, n in sorted(counts.items()) if n > 1]
    usable = {str(entry.get("name")) for entry in entries if kind_of(entry) == "file"}
    problems += [
        f"model {entry.get('name')!r}: like is {str(entry['like'])[:80]!r}, which is no model with weights of this file"
        for entry in entries
        if "like" in entry and str(entry["like"]) not in usable
    ]
    return entries, problems


def write_entries(folder: Path, entries: list[dict[str, Any]]) -> None:
    write_json(folder / "zoo.json", {"models": entries})


def not_pulled(folder: Path, entry: dict[str, Any]) -> str:
    """The sentence for an entry whose weights are not there yet."""
    return (
        f"model {entry['name']!r}: its weights were not pulled into {folder} yet; "
        f"run `acclimate zoo pull {entry['name']}` where the network allows it"
    )


def allowed(candidates: Iterable[Candidate], licences: list[str] | None) -> tuple[list[Candidate], dict[str, str]]:
    """The candidates whose licence is on the list (None = any), and for each one left out the reason.

    Names are compared without regard to case; from-scratch weights are nobody's work and need no licence.
    ValueError where that leaves out every pretrained candidate.
    """
    kept: list[Candidate] = []
    left_out: dict[str, str] = {}
    names = None if licences is None else {name.strip().casefold() for name in licences}
    for candidate in candidates:
        if names is None or candidate.is_scratch or candidate.licence.strip().casefold() in names:
            kept.append(candidate)
        else:
            listed = ", ".join(licences or []) or "none"
            left_out[candidate.name] = f"its licence is {candidate.licence!r}, allowed are: {listed}"
    if left_out and all(candidate.is_scratch for candidate in kept):
        told = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise ValueError(f"zoo.licences leaves no pretrained candidate ({told}); add a licence there or a candidate")
    return kept, left_out


class _Twice(Exception):
    """A key that stands twice in one JSON object: one of the two would silently win."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for key, n in Counter(key for key, _ in pairs).items():
        if n > 1:
            raise _Twice(key)
    return dict(pairs)


def _candidate(folder: Path, entry: dict[str, Any], by_name: dict[str, dict[str, Any]]) -> Candidate:
    kind = kind_of(entry)
    if kind == "bundle":
        return _bundle_candidate(entry)
    if "like" in entry:
        other = by_name[entry["like"]]
        if is_to_be_pulled(other):
            raise ValueError(f"like is {entry['like']!r}, which was not pulled yet; pull it first")
        entry = {key: other[key] for key in INHERITED if key in other} | entry
    if kind == "scratch":
        address = text_sha256(f"scratch\x1f{entry['arch']}\x1f{entry['seed']}")
        words = {"source_domain": "none: random weights", "license": "none needed"}
        return _built(words | entry | {"sha256": address, "num_classes": 0}, None)
    return _built(entry, folder / entry["file"])


def _built(entry: dict[str, Any], weights_path: Path | None, bundle: Path | None = None) -> Candidate:
    return Candidate(
        name=entry["name"],
        architecture=entry["arch"],
        weights_path=weights_path,
        sha256=entry["sha256"],
        n_source_classes=entry["num_classes"],
        feature_dim=entry["feature_dim"],
        mean=tuple(entry["mean"]),
        std=tuple(entry["std"]),
        native_px=int(entry["input_size"][-1]),
        source_domain=entry["source_domain"],
        licence=entry["license"],
        interpolation=entry["interpolation"],
        crop_share=float(entry.get("crop_pct", 1.0)),
        seed=entry.get("seed"),
        bundle=bundle,
        published_accuracy=entry.get("published_accuracy"),
        n_parameters=entry.get("n_parameters"),
        n_multiply_adds=entry.get("n_multiply_adds"),
        pretraining=Pretraining(**entry["pretraining"]) if "pretraining" in entry else None,
    )


def _bundle_candidate(entry: dict[str, Any]) -> Candidate:
    """From the bundle's own description; its bytes are checked when it is loaded."""
    folder = Path(entry["bundle"])
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        with safe_open(folder / "model.safetensors", framework="numpy") as stored:
            feature_dim = stored.get_slice("head.weight").get_shape()[1]
        found = _of_bundle(description, feature_dim) | {"sha256": files["model.safetensors"]}
    except FileNotFoundError as error:
        raise ValueError(
            f"the bundle {folder} has no {Path(error.filename or '').name}; pin a registered one there"
        ) from None
    except (ValueError, KeyError, TypeError, IndexError, OSError, SafetensorError) as error:
        told = " ".join(str(error).split())
        raise ValueError(
            f"{folder} is not a registered bundle ({type(error).__name__}: {told}); pin it again"
        ) from None
    if wrong := [f"{key} {value!r}" for key, value in found.items() if not ALL[key][1](value)]:
        raise ValueError(f"{folder} is not a registered bundle ({'; '.join(wrong)}); pin it again")
    return _built(entry | found, folder / "model.safetensors", bundle=folder)


def _of_bundle(description: dict[str, Any], feature_dim: int) -> dict[str, Any]:
    """A bundle's description in the words of zoo.json. Without the two later keys images were read as said here."""
    side_px = description["image_px"]
    return {
        "arch": description["architecture"],
        "num_classes": len(description["classes"]),
        "feature_dim": feature_dim,
        "mean": description["mean"],
        "std": description["std"],
        "input_size": [3, side_px, side_px],
        "interpolation": description.get("interpolation", "bilinear"),
        "crop_pct": description.get("crop_share", 1.0),
    }
