"""Whole files only: everything is written under a temporary name, synced, then renamed."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder; renamed to `path` only when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("rb+") as handle:
            os.fsync(handle.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place only when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        yield part
        shutil.rmtree(path, ignore_errors=True)
        part.replace(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """NaN and infinities become null: strict JSON, readable everywhere."""
    write_text(path, json.dumps(_plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Readers take a carriage return without quotes for a line's end, so where one stands every cell is quoted."""
    texts = table.select_dtypes(exclude="number")
    returns = any(texts[name].astype(str).str.contains("\r", regex=False).any() for name in texts)
    with whole_file(path) as part:
        table.to_csv(
            part, index=False, lineterminator="\n", quoting=1 if returns else 0
        )  # csv.QUOTE_ALL, QUOTE_MINIMAL


def read_json(path: Path, *, made_by: str) -> Any:
    """The parsed file. FileNotFoundError names the stage that makes it."""
    require_file(path, made_by=made_by)
    return json.loads(path.read_text(encoding="utf-8"))


def read_table(path: Path, *, made_by: str) -> pd.DataFrame:
    """Every column as text, empty cells as ""; the noun that owns the table converts its numbers."""
    require_file(path, made_by=made_by)
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def require_file(path: Path, *, made_by: str) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: it is made by the stage {made_by}; run `dvc repro {made_by}`")


def file_sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and not hasattr(value, "__len__"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
