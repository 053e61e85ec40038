"""How a user's images are listed: a table with columns of their own, or folders whose levels mean something.

Both give the same rows: path, label, origin, split, group_id, problem ("" = the place can be opened) and the audit columns.
"""

import csv
import os
import posixpath
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tasks.core.entries import shown_name
from tasks.core.store import Entry, Store, levels

ROW_COLUMNS = ["path", "label", "origin", "split", "group_id", "problem"]
LEVELS = ("domain", "split", "label", "group", "-")
GIVEN_SPLITS = ("", "train", "val", "test", "unlabelled")
SPLIT_WORDS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test", "unlabelled": "unlabelled", "unlabeled": "unlabelled", "": "",
}  # fmt: skip
MAX_GROUPS = 100_000  # of an audit column: its values times the labels
OUTSIDE = "leads outside the root; it was not opened"
ABSOLUTE = "leads outside the root: it is absolute, so write it relative to the root; it was not opened"


@dataclass(frozen=True)
class ColumnNames:
    """The user's names of the columns; None where the table has no such column."""

    path: str
    label: str | None
    domain: str | None
    split: str | None
    group: str | None
    audit: tuple[str, ...]


def read_image_table(path: Path) -> pd.DataFrame:
    """Every cell as text, empty where there is none; CSV in UTF-8 (comma, semicolon or tab) or Parquet.

    ValueError where it is neither, with what to do.
    """
    if not path.is_file():
        raise ValueError(
            f"the image table {path} is not a file; name a CSV or Parquet file, or a folder to read folders"
        )
    if path.suffix.lower() in (".parquet", ".pq"):
        return _read_parquet(path)
    try:
        lines = _csv_lines(path)
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text in UTF-8 (line {_odd_line(path)}); save it as CSV UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"{path} is not a whole CSV table ({error}); mend it") from None
    if not lines:
        raise ValueError(f"{path} is not a whole CSV table (it has no header); mend it")
    header = lines[0][1]
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        raise ValueError(f"{path}: the header names {', '.join(map(repr, twice))} more than once; rename or remove one")
    if odd := [f"line {number} ({len(cells)})" for number, cells in lines if len(cells) != len(header)]:
        raise ValueError(
            f"{path}: {len(odd)} line(s) have not as many fields as the header ({len(header)}), the first: "
            f"{', '.join(odd[:3])}; mend the table"
        )
    return pd.DataFrame([cells for _, cells in lines[1:]], columns=header, dtype=str)


def rows_from_table(given: pd.DataFrame, names: ColumnNames, root: Path, store: Store) -> pd.DataFrame:
    """The rows of a table. ValueError lists all missing columns.

    An absolute path below the root, or one with Windows' backslashes, becomes the relative path of the same file.
    """
    wanted = [names.path, names.label, names.domain, names.split, names.group, *names.audit]
    missing = [name for name in wanted if name is not None and name not in given.columns]
    if missing:
        raise ValueError(
            f"the image table has no column {', '.join(map(repr, missing))}; it has {', '.join(map(str, given.columns))}; "
            "mend build_manifest.columns or build_manifest.audit_columns (of `acclimate validate`: --path-column and the like)"
        )
    own = {"label": names.label, "origin": names.domain, "split": names.split, "group_id": names.group}
    empty = pd.Series("", index=given.index)
    rows = pd.DataFrame({new: given[old] if old else empty for new, old in own.items()})
    places = [_place(text, root, store) for text in given[names.path]]
    rows.insert(0, "path", [path for path, _ in places])
    rows["problem"] = [problem for _, problem in places]
    _refuse_too_fine_groups(rows["label"], given[list(names.audit)])
    return pd.concat([rows, given[list(names.audit)].rename(columns=audit_name)], axis=1)


def rows_from_entries(entries: Sequence[Entry], layout: str) -> pd.DataFrame:
    """The rows of folders: the levels above each image mean what `layout` says, e.g. "domain/label".

    A level that is not there is empty (an image beside the class folders is unlabelled); further levels mean nothing.
    """
    names = layout_levels(layout)
    columns = {"domain": "origin", "split": "split", "label": "label", "group": "group_id"}
    rows = []
    for entry in entries:
        found = dict(zip(names, levels(entry.path), strict=False))
        values = {column: found.get(level, "") for level, column in columns.items()}
        if entry.problem:  # parts of an unusable path are no class
            values |= {"label": "", "group_id": ""}
        rows.append({"path": entry.path, "problem": entry.problem, **values})
    return pd.DataFrame(rows, columns=ROW_COLUMNS)


def layout_levels(layout: str) -> list[str]:
    """The names of the levels. ValueError tells what is allowed."""
    names = [name for name in layout.split("/") if name]
    meant = [name for name in names if name != "-"]
    if set(names) - set(LEVELS) or len(meant) != len(set(meant)):
        raise ValueError(
            f"layout {layout!r} is not understood; name each folder level once, from the root down, with "
            "domain, split, label, group or - (means nothing), e.g. domain/label"
        )
    return names


def guessed_layout(entries: Sequence[Entry]) -> str:
    """The likeliest layout of folders about which nothing is known; the caller says it aloud.

    First folders that are all words for splits: split/label. Two or more first folders that share names of second folders:
    domain/label (or domain/split/label). Otherwise: label.
    """
    chains = [levels(entry.path) for entry in entries if not entry.problem]
    if _all_splits({chain[0] for chain in chains if chain}):
        return "split/label"
    below: dict[str, set[str]] = {}
    for chain in chains:
        if len(chain) > 1:
            below.setdefault(chain[0], set()).add(chain[1])
    seconds = [name for names in below.values() for name in names]
    if below and _all_splits(set(seconds)):
        return "domain/split/label"
    return "domain/label" if len(set(seconds)) < len(seconds) else "label"


def with_split_words(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the usual words for splits as ours. ValueError lists the words that are unknown."""
    split = rows["split"].str.strip().str.lower().map(SPLIT_WORDS)
    unknown = sorted(rows.loc[split.isna(), "split"].unique())
    if unknown:
        raise ValueError(
            f"split {', '.join(map(repr, unknown[:5]))} is unknown; allowed are train, val, test, unlabelled, empty; "
            "mend the split column (or the layout of the folders)"
        )
    return rows.assign(split=split)


def audit_name(column: str) -> str:
    """Audit columns carry a prefix in all our tables, so that none can hide one of our own columns."""
    return f"audit_{column}"


def _refuse_too_fine_groups(label: pd.Series, audit: pd.DataFrame) -> None:
    """Nothing. ValueError lists audit columns that name single images rather than groups: a million cells take 4 GB."""
    n_labels = max(label[label != ""].nunique(), 1)
    n_values = {name: audit[name].nunique() for name in audit.columns}
    problems = [
        f"audit column {name!r} has {n:,} different values, which with {n_labels:,} labels makes {n * n_labels:,} groups "
        f"to count, more than {MAX_GROUPS:,}"
        for name, n in n_values.items()
        if n * n_labels > MAX_GROUPS
    ]
    if problems:
        raise ValueError(f"{'; '.join(problems)}; name columns of few values, e.g. bands of age instead of ids")


def _all_splits(names: set[str]) -> bool:
    return bool(names) and {name.lower() for name in names} <= set(SPLIT_WORDS) - {""}


def _csv_lines(path: Path) -> list[tuple[int, list[str]]]:
    """The cells of the header and of each row, with the number of the line; blank lines are left out.

    Not by pandas: it takes a row that is cut short for a whole one.
    """
    with path.open(encoding="utf-8-sig", newline="") as handle:
        header = next((line for line in handle if line.strip()), "")
        handle.seek(0)
        separator = max((",", ";", "\t"), key=header.count)
        reader = csv.reader(handle, delimiter=separator, strict=True)
        return [(reader.line_num, cells) for cells in reader if len(cells) > 1 or "".join(cells).strip()]


def _odd_line(path: Path) -> int:
    """The number of the first line that is not UTF-8."""
    with path.open("rb") as handle:
        for number, line in enumerate(handle, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        given = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise ValueError(f"{path} is not a whole Parquet table ({' '.join(str(error).split())})") from None
    given.columns = given.columns.map(str)
    # a column of whole numbers with gaps is read as 3.0: it means 3
    return given.reset_index(drop=True).convert_dtypes().astype("string").fillna("").astype(object)


def _place(text: str, root: Path, store: Store) -> tuple[str, str]:
    """The path relative to the root, and what is wrong with it."""
    if not text.strip():
        return text, "is empty"
    path = posixpath.normpath(text)
    if posixpath.isabs(path):
        above = [place for place in (os.path.abspath(root), os.path.realpath(root)) if path.startswith(f"{place}/")]
        if not above:
            return text, ABSOLUTE
        path = path.removeprefix(f"{above[0]}/")
    if "\\" in path and not store.has(path) and store.has(posixpath.normpath(path.replace("\\", "/"))):
        path = posixpath.normpath(path.replace("\\", "/"))
    if path == ".." or path.startswith("../"):
        return text, OUTSIDE
    if not path.isascii() and not store.has(path):  # a Mac writes ü as u and two dots: one file, two spellings
        spellings = (unicodedata.normalize(form, path) for form in ("NFC", "NFD"))
        path = next((spelling for spelling in spellings if store.has(spelling)), path)
    return shown_name(path)
