"""Entries of zoo.json made from what a library says of its weights, fetched, converted to safetensors and pinned."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.core.files import file_sha256, whole_file
from tasks.core.model import (
    ImageModel,
    fill,
    multiply_adds,
    network,
    parameter_count,
    pretrained_head,
    save_weights,
    split_head,
)
from tasks.core.origins import described, tensors_of
from tasks.core.zoo import check_finite
from tasks.core.zoo_file import read_entries, write_entries
from tasks.core.zoo_keys import FETCHED, PREPROCESSING, entry_problems, is_to_be_pulled, kind_of

FROM_METADATA = (*PREPROCESSING, "crop_pct", "num_classes")  # never taken from a person's memory


def add_entry(folder: Path, architecture: str, weights: str | None, name: str | None) -> str:
    """The new entry's name; zoo.json holds it then, with all that is known before the weights are there."""
    facts = described(architecture, weights)
    own_name = name or _name_of(architecture, weights)
    if wrong := entry_problems(0, {"name": own_name, **facts}):
        raise ValueError(f"{architecture} can't be entered: " + "; ".join(wrong))
    side_px = facts["input_size"][-1]
    multiply_adds(split_head(network(architecture, 2), 2).backbone, side_px)  # before hundreds of MB are fetched
    with _locked(folder):
        entries, problems = read_entries(folder) if (folder / "zoo.json").exists() else ([], [])
        if problems:
            raise ValueError(f"{folder / 'zoo.json'}: " + "; ".join(problems))
        if any(entry["name"] == own_name for entry in entries):
            raise ValueError(f"{folder / 'zoo.json'} has a model {own_name!r} already; say another with --name NAME")
        write_entries(folder, [*entries, {"name": own_name, **facts}])
    return own_name


def _name_of(architecture: str, weights: str | None) -> str:
    own = architecture.partition(".")[2].replace(".", "_")
    return f"{own}_{weights.partition('.')[2].lower()}" if weights else own


def pull(folder: Path, names: list[str]) -> Iterator[str]:
    """One line per entry on what was done; each is pinned in zoo.json before the next one is fetched. `all` = each.

    One that can't be had does not stop the others: ValueError tells of all such at the end.
    """
    entries, problems = read_entries(folder)
    known = [str(entry.get("name")) for entry in entries]
    problems += [f"{name!r} is not there; it has {', '.join(known)}" for name in names if name not in [*known, "all"]]
    if problems:
        raise ValueError(f"{folder / 'zoo.json'}: " + "; ".join(problems))
    refused = []
    for entry in entries:
        if entry["name"] in names or "all" in names:
            try:
                told = _pull_entry(folder, entry)
            except ValueError as error:
                refused.append(str(error))
            else:
                yield told
    if refused:
        raise ValueError("; ".join(refused))


def _pull_entry(folder: Path, entry: dict[str, Any]) -> str:
    name = entry["name"]
    if kind_of(entry) != "file":
        return f"{name}: nothing to pull, it is {'a registered bundle' if 'bundle' in entry else 'from scratch'}"
    path = folder / entry.get("file", f"{name}.safetensors")
    if "sha256" in entry and path.is_file():
        _require_hash(path, path, entry)
        return f"{name}: {path} is there and is the one that was reviewed"
    if not is_to_be_pulled({key: value for key, value in entry.items() if key != "sha256"}):
        raise ValueError(
            f"model {name!r}: {path} is missing and zoo.json does not say where it comes from; put it there (sha256 "
            f"{entry.get('sha256')}), or add one of {', '.join(FETCHED)}"
        )
    facts = _with_metadata(entry)
    with whole_file(path) as part:
        pinned = _converted(folder, facts, part)
        _require_hash(part, path, entry)
    _write_pinned(folder, pinned | {"file": path.relative_to(folder).as_posix(), "sha256": file_sha256(path)})
    size_mb = path.stat().st_size / 1e6
    return f"{name}: {size_mb:.1f} MB written to {path}, {pinned['n_parameters']:,} parameters, sha256 in zoo.json"


def _with_metadata(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry, its preprocessing as the library says it; words that a person wrote stay."""
    if "weights" not in entry and not entry["arch"].startswith("timm."):
        return entry
    if "weights" not in entry and ("state_dict" in entry or "url" in entry):
        return entry
    facts = described(entry["arch"], entry.get("weights"))
    return facts | entry | {key: facts[key] for key in FROM_METADATA}


def _converted(folder: Path, entry: dict[str, Any], part: Path) -> dict[str, Any]:
    """The entry with what the network says of itself; `part` holds its weights. ValueError where they don't fit."""
    where = f"model {entry['name']!r}"
    net = network(entry["arch"], entry["num_classes"])
    fill(net, tensors_of(folder, entry), where)
    check_finite(net, where)
    save_weights(net, part)
    feature_dim, n_parameters = pretrained_head(net).in_features, parameter_count(net)
    backbone = split_head(net, 1).backbone
    return entry | {
        "feature_dim": feature_dim,
        "n_parameters": n_parameters,
        "n_multiply_adds": multiply_adds(backbone, entry["input_size"][-1]),
    }


def _require_hash(found_at: Path, path: Path, entry: dict[str, Any]) -> None:
    found = file_sha256(found_at)
    if found != entry.get("sha256", found):
        raise ValueError(
            f"model {entry['name']!r}: {path} has sha256 {found}, zoo.json says {entry['sha256']}; it is not the one that "
            "was reviewed: remove the file and pull again, or review it and mend sha256"
        )


def _write_pinned(folder: Path, pinned: dict[str, Any]) -> None:
    """Only this entry changes: another pull may have pinned its own meanwhile."""
    with _locked(folder):
        entries, _ = read_entries(folder)
        write_entries(folder, [pinned if entry.get("name") == pinned["name"] else entry for entry in entries])


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def overview(folder: Path) -> list[dict[str, Any]]:
    """Per entry, in the file's order: what zoo.json says of it, and how its file is doing."""
    entries, problems = read_entries(folder)
    if problems:
        raise ValueError(f"{folder / 'zoo.json'}: " + "; ".join(problems))
    by_name = {entry["name"]: entry for entry in entries}
    return [_row(folder, by_name.get(str(entry.get("like")), {}) | entry, kind_of(entry)) for entry in entries]


def _row(folder: Path, entry: dict[str, Any], kind: str) -> dict[str, Any]:
    return {
        "name": entry["name"],
        "arch": entry.get("arch", "bundle"),
        "weights": _state(folder, entry, kind),
        **_cost(entry, kind),
        "size_px": entry["input_size"][-1] if "input_size" in entry else None,
        "licence": "none needed" if kind == "scratch" else entry.get("license"),
        "pretraining": "none" if kind == "scratch" else entry.get("source_domain"),
        "published_accuracy": None if kind == "scratch" else entry.get("published_accuracy"),
    }


def _state(folder: Path, entry: dict[str, Any], kind: str) -> str:
    if kind == "scratch":
        return f"random, seed {entry['seed']}"
    if kind == "bundle":
        return "bundle" if Path(entry["bundle"]).is_dir() else "missing"
    if is_to_be_pulled(entry):
        return "not pulled"
    path = folder / entry["file"]
    if not path.is_file():
        return "missing"
    return "ok" if file_sha256(path) == entry["sha256"] else "another sha256"


def _cost(entry: dict[str, Any], kind: str) -> dict[str, int | None]:
    """As zoo.json says it; else counted from the architecture; None where that is not known or can't be built here."""
    keys = ("n_parameters", "n_multiply_adds")
    if all(key in entry for key in keys) or kind == "bundle" or "input_size" not in entry:
        return {key: entry.get(key) for key in keys}
    try:
        model = _counted(entry)
        counted = {"n_parameters": parameter_count(model), "n_multiply_adds": _products(model, entry)}
    except ValueError:
        return {key: entry.get(key) for key in keys}
    return {key: entry.get(key, counted[key]) for key in keys}


def _counted(entry: dict[str, Any]) -> ImageModel:
    n_classes = entry.get("num_classes", 1)
    return split_head(network(entry["arch"], n_classes), n_classes)


def _products(model: ImageModel, entry: dict[str, Any]) -> int:
    return multiply_adds(model.backbone, entry["input_size"][-1])
