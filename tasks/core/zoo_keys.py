"""The keys of an entry of zoo.json: what each may hold, which are needed, and what is wrong with an entry."""

import difflib
import math
import re
from collections.abc import Callable
from typing import Any

Check = Callable[[object], bool]
MAX_SIZE = 1_000_000  # classes or features: beyond it a typing error would fill the memory
MAX_SIDE_PX = 4096
INTERPOLATIONS = ("bilinear", "bicubic")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_free(value: object) -> bool:
    return True


def _is_file_name(value: object) -> bool:
    is_name = _is_path(value) and "/" not in str(value) and not str(value).startswith(".")
    return is_name and len(str(value)) <= 100


def _is_path(value: object) -> bool:
    """A relative path that stays below the folder it is relative to."""
    if not isinstance(value, str) or not value or not value.isprintable() or "\\" in value:
        return False
    return not value.startswith("/") and ".." not in value.split("/")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_size(value: object) -> bool:
    return _is_count(value) and isinstance(value, int) and value <= MAX_SIZE


def _is_seed(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def _is_share(value: object) -> bool:
    return _is_number(value) and isinstance(value, int | float) and 0 < value <= 1


def _are_numbers(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(_is_number(n) for n in value)


def _are_positive(value: object) -> bool:
    return isinstance(value, list) and _are_numbers(value) and all(n > 0 for n in value)


def _are_sides(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(_is_count(n) and n <= MAX_SIDE_PX for n in value)


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def _is_interpolation(value: object) -> bool:
    return isinstance(value, str) and value in INTERPOLATIONS


def _is_url(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"https?://[^\s/]+/\S+", value) is not None and value.isprintable()


def _is_pretraining(value: object) -> bool:
    if not isinstance(value, dict) or not value:
        return False
    return all(key in PRETRAINING and PRETRAINING[key](item) for key, item in value.items())


PRETRAINING: dict[str, Check] = {"data": _is_text, "n_images": _is_count, "known_gaps": _is_text, "url": _is_url}

KEYS: dict[str, tuple[str, Check]] = {
    "name": ("a file name: no slash, no dot in front, at most 100 characters", _is_file_name),
    "arch": ("the name of an architecture", _is_text),
    "file": ("the name of the weight file, below the zoo's folder", _is_path),
    "sha256": ("64 hexadecimal digits", _is_sha256),
    "num_classes": (f"a positive whole number, at most {MAX_SIZE}", _is_size),
    "feature_dim": (f"a positive whole number, at most {MAX_SIZE}", _is_size),
    "mean": ("a list of three numbers", _are_numbers),
    "std": ("a list of three positive numbers", _are_positive),
    "input_size": (f"channels, height and width: three positive whole numbers, at most {MAX_SIDE_PX}", _are_sides),
    "interpolation": (" or ".join(INTERPOLATIONS), _is_interpolation),
    "source_domain": ("a description in words", _is_text),
    "license": ("the name of a licence", _is_text),
}
NEEDED = tuple(KEYS)
OPTIONAL: dict[str, tuple[str, Check]] = {
    "weights": ("the name under which torchvision knows the weights", _is_text),
    "url": ("an address that begins with http:// or https://", _is_url),
    "state_dict": ("the name of a .pth or .pt file, below the zoo's folder", _is_path),
    "bundle": ("a folder below the workspace", _is_path),
    "like": ("the name of another model of this file", _is_text),
    "seed": ("a whole number, 0 or more", _is_seed),
    "crop_pct": ("a number above 0, at most 1", _is_share),
    "pretraining": ("an object with any of: data, n_images, known_gaps, url", _is_pretraining),
    "published_accuracy": ("a number above 0, at most 1", _is_share),
    "n_parameters": ("a positive whole number", _is_count),
    "n_multiply_adds": ("a positive whole number", _is_count),
    **dict.fromkeys(("dtype", "labels", "origin", "note"), ("anything", _is_free)),
    "source_val_accuracy": ("a number", _is_number),
    "n_source_images": ("a positive whole number", _is_count),
}
ALL = KEYS | OPTIONAL

# What an entry of each kind must hold before anything was pulled, and what it must hold to be used.
SCRATCH = ("name", "seed")
BUNDLE = ("name", "bundle", "source_domain", "license")
PREPROCESSING = ("mean", "std", "input_size", "interpolation")
INHERITED = ("arch", "feature_dim", "crop_pct", "n_parameters", "n_multiply_adds", *PREPROCESSING)
FETCHED = ("weights", "url", "state_dict")
BY_PULL = ("file", "sha256", "feature_dim")


def kind_of(entry: dict[str, Any]) -> str:
    """scratch, bundle or file: where the weights come from."""
    if "bundle" in entry:
        return "bundle"
    has_weights = any(key in entry for key in ("file", "sha256", *FETCHED))
    return "scratch" if not has_weights and ("seed" in entry or entry.get("name") == "scratch") else "file"


def needed_keys(entry: dict[str, Any]) -> tuple[str, ...]:
    kind = kind_of(entry)
    if kind == "bundle":
        return BUNDLE
    if kind == "scratch":
        return (*SCRATCH, "like") if "like" in entry else (*SCRATCH, "arch", "feature_dim", *PREPROCESSING)
    return NEEDED


def is_to_be_pulled(entry: dict[str, Any]) -> bool:
    """True where the file is known to a hub, an address or as a state dict, and was not converted and pinned yet."""
    has_origin = any(key in entry for key in FETCHED) or str(entry.get("arch")).startswith("timm.")
    return kind_of(entry) == "file" and has_origin and "sha256" not in entry


def entry_problems(number: int, entry: dict[str, Any]) -> list[str]:
    """What is wrong with one entry. Of one that waits to be pulled, what the pull finds out itself is not asked for."""
    where = f"model {_short(entry['name'])}" if entry.get("name") else f"model {number}"
    needed = needed_keys(entry)
    if is_to_be_pulled(entry):
        by_metadata = (*PREPROCESSING, "num_classes", "source_domain", "license") if _has_metadata(entry) else ()
        needed = tuple(key for key in needed if key not in (*BY_PULL, *by_metadata))
    absent = [
        f"{where}: {key} is {entry.get(key, 'missing')!r}, wanted is {ALL[key][0]}"
        for key in needed
        if entry.get(key) is None
    ]
    wrong = [
        f"{where}: {key} is {_short(value)}, wanted is {ALL[key][0]}"
        for key, value in entry.items()
        if key in ALL and not (value is None and key in needed) and not ALL[key][1](value)
    ]
    return absent + wrong + [_unknown(where, key) for key in entry if key not in ALL]


def _has_metadata(entry: dict[str, Any]) -> bool:
    return "weights" in entry or ("state_dict" not in entry and "url" not in entry)


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}…"


def _unknown(where: str, key: str) -> str:
    near = difflib.get_close_matches(key, [*ALL, "license"], 1)
    advice = f"did you mean {near[0]!r}?" if near else f"allowed are {', '.join(ALL)}"
    return f"{where}: the key {_short(key)} is unknown; {advice}"
