"""People's later labels: given entries in a table of their own, of which the last one for an image counts.

An entry with `asked_of` (the id of the pair of models that the guard compares) answers the guard: it never becomes part of
the manifest, so that what is trained stays the same. An image may have one label for each id beside the ordinary one.
"""

import csv
import difflib
import io
import posixpath
import re
from collections.abc import Callable, Collection, Mapping
from datetime import date
from pathlib import Path

import pandas as pd

from tasks.core.files import write_text

LABEL_COLUMNS = ["path", "label", "by", "on", "asked_of"]
OLD_COLUMNS = LABEL_COLUMNS[:4]  # of files from before the guard could ask: their labels are ordinary ones
NEEDS_QUOTES = re.compile(r'[",\r\n]')
ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
N_TOLD = 3  # of each kind of problem; a wrong column would otherwise be told once per line

Line = tuple[int, list[str]]  # the number of a row's first line, and its cells


def read_labels(path: Path) -> pd.DataFrame:
    """All entries in the file's order, as text. ValueError names line and column of what is damaged."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: it holds people's labels; restore it with git, or write the header line "
            f"{','.join(LABEL_COLUMNS)} into it"
        )
    header, lines = _lines(path)
    if header not in (LABEL_COLUMNS, OLD_COLUMNS):
        raise ValueError(
            f"{path}: line 1 must be the header {','.join(LABEL_COLUMNS)}, not {','.join(header)!r}; restore it with git"
        )
    problems = _problems(lines, {"path": (0, bool), "by": (2, bool), "on": (3, _is_date)}, n_cells=len(header))
    if problems:
        raise ValueError(f"{path}: {_first(problems)}; mend the file or restore it with git")
    labels = pd.DataFrame([cells for _, cells in lines], columns=header, dtype=str)
    return labels if "asked_of" in header else labels.assign(asked_of="")


def read_wanted_labels(path: Path) -> pd.DataFrame:
    """path, label and asked_of of every row of a person's own table. ValueError names line and column of what is missing.

    Where the table has no column asked_of it is empty. Where it has one, every row must have it, and an empty label is a
    question that isn't answered yet; ValueError if none is.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; name a CSV file with the columns path and label")
    header, lines = _lines(path)
    if not {"path", "label"} <= set(header) or len(set(header)) < len(header):
        raise ValueError(
            f"{path}: the header must name the columns path and label once each; it is {','.join(header)!r}; "
            "write them there, with commas between the columns"
        )
    is_asked = "asked_of" in header
    columns = {name: header.index(name) for name in ("path", "label", "asked_of")[: 2 + is_asked]}
    needed = ("path", "asked_of") if is_asked else ("path", "label")
    checks = {name: (columns[name], bool) for name in needed}
    problems = _problems(lines, checks, n_cells=len(header))
    if problems:
        raise ValueError(
            f"{path}: {_first(problems)}; mend the lines or leave them out "
            "(`acclimate label --undo IMAGE` takes a label back)"
        )
    if not lines:
        raise ValueError(f"{path} holds no label: there is nothing below its header; write one line per image")
    wanted = pd.DataFrame(
        [[cells[i] for i in columns.values()] for _, cells in lines], columns=list(columns), dtype=str
    )
    if (wanted["label"] == "").all():
        raise ValueError(
            f"{path}: none of its {len(wanted)} rows has a label yet; "
            "write the class of the images that you know into the column label"
        )
    return wanted if is_asked else wanted.assign(asked_of="")


def write_labels(path: Path, labels: pd.DataFrame) -> None:
    """One line per entry; whatever a name holds (commas, quotes, line ends) is read back as it was."""
    rows = [LABEL_COLUMNS, *labels[LABEL_COLUMNS].to_numpy().tolist()]
    write_text(path, "".join(",".join(map(_quoted, row)) + "\n" for row in rows))


def with_given_labels(rows: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """The rows with the last given ordinary label of each path; an empty one takes the label back.

    An image that was given as split unlabelled and has a person's label now is free to be learnt from: its split is
    emptied, so that it follows its group. Entries of other paths change nothing: rows may have been sampled.
    """
    last = {path: label for (path, asked_of), label in last_labels(labels).items() if not asked_of}
    label = [last.get(path, label) for path, label in zip(rows["path"], rows["label"], strict=True)]
    is_named = rows["path"].map(lambda path: bool(last.get(path))).astype(bool)
    return rows.assign(label=label, split=rows["split"].mask(is_named & (rows["split"] == "unlabelled"), ""))


def asked_labels(labels: pd.DataFrame) -> pd.DataFrame:
    """path, label, asked_of: the last answer to each question, in the order of path and asked_of; none if it was taken back."""
    last = sorted((*key, label) for key, label in last_labels(labels).items() if key[1] and label)
    return pd.DataFrame(last, columns=["path", "asked_of", "label"], dtype=str)[["path", "label", "asked_of"]]


def asked_paths(asked_path: Path) -> set[str]:
    """Images that a list of asked labels names, answered or not; none where there is no list or no column path."""
    header, lines = _lines(asked_path) if asked_path.exists() else ([], [])
    if "path" not in header:
        return set()
    place = header.index("path")
    return {cells[place] for _, cells in lines if len(cells) > place}


def unentered(asked_path: Path, labels_path: Path) -> int:
    """How many answers a list of asked labels holds that the labels don't know; 0 where there is no list.

    A line that can't be read as one of the list's (a spreadsheet's semicolons, a comma too many) may be an answer and counts.
    """
    if not asked_path.exists():
        return 0
    header, lines = _lines(asked_path)
    if not {"path", "label", "asked_of"} <= set(header):
        return len(lines)
    whole = [cells for _, cells in lines if len(cells) == len(header)]
    asked = pd.DataFrame(whole, columns=header, dtype=str)
    known = last_labels(read_labels(labels_path))
    answers = asked[asked["label"].str.strip() != ""]
    rows = zip(answers["path"], answers["label"], answers["asked_of"], strict=True)
    n_new = sum(known.get((path, asked_of)) != label for path, label, asked_of in rows)
    return n_new + len(lines) - len(whole)


def last_labels(labels: pd.DataFrame) -> dict[tuple[str, str], str]:
    """(path, asked_of) → the last label entered, "" where it was taken back; the latest entry stands last."""
    last = labels.drop_duplicates(["path", "asked_of"], keep="last")
    return dict(zip(zip(last["path"], last["asked_of"], strict=True), last["label"], strict=True))


def asked_of_latest(labels: pd.DataFrame) -> dict[str, str]:
    """Path → asked_of of the label that was entered last and still stands; such labels are taken back one after the other."""
    return {path: asked_of for (path, asked_of), label in last_labels(labels).items() if label}


def added_labels(
    labels: pd.DataFrame,
    new: pd.DataFrame,
    *,
    rows: pd.DataFrame,
    known_classes: Collection[str],
    allow_new_classes: bool,
) -> pd.DataFrame:
    """The entries with the new ones behind them, less those that say again what the last one says.

    An empty label takes one back. `rows`: the manifest's, with the ordinary labels as they are now. ValueError lists all
    problems of the new entries at once.
    """
    unknown = sorted(set(new["label"]) - {"", *known_classes})
    problems = _path_problems(new, set(rows["path"])) + _refusals(new[new["asked_of"] == ""], rows)
    if (new["by"] == "").any():
        problems.append("it is not said who gives the label; name the person")
    problems += _odd_classes(unknown) if allow_new_classes else _unknown_classes(unknown, sorted(known_classes))
    if problems:
        raise ValueError("; ".join(problems))
    now, keys = last_labels(labels), ["path", "asked_of"]
    fresh = new[[now.get((path, of)) != label for path, of, label in new[[*keys, "label"]].itertuples(index=False)]]
    return pd.concat([labels, fresh.drop_duplicates(keys)[LABEL_COLUMNS]], ignore_index=True)


def _path_problems(new: pd.DataFrame, known: set[str]) -> list[str]:
    unknown = sorted(set(new["path"]) - known - {""})
    several = new.drop_duplicates(["path", "label"])
    twice = sorted(set(several["path"][several["path"].duplicated()]))
    problems = ["an image's path is empty; name the image"] if (new["path"] == "").any() else []
    if unknown:
        near = "; ".join(repr(path) + _nearest_path(path, known) for path in unknown[:N_TOLD])
        problems.append(
            f"{len(unknown)} images are not in the manifest, the first: {near}; "
            "new ones are entered by `dvc repro build_manifest`"
        )
    return problems + ([_counted("images are given two labels in one call", twice)] if twice else [])


def _refusals(new: pd.DataFrame, rows: pd.DataFrame) -> list[str]:
    """Sentences on images whose label is nobody's to give or to take: the pipeline needs it, or there is none."""
    undone = rows["path"].isin(set(new["path"][new["label"] == ""]))
    named = rows["path"].isin(set(new["path"][new["label"] != ""]))
    is_source, has_none = rows["domain"] == "source", rows["label"] == ""
    held_out = (rows["domain"] == "target") & rows["split"].isin(("val", "test"))
    needed = "which can't be without a label; give the right one instead"
    kinds = {
        "carry no label that could be taken back": undone & has_none,
        f"are source images, {needed}": undone & is_source & ~has_none,
        f"are given as split val or test, {needed}": undone & held_out & ~has_none,
        "are source images without a label; label them where they are listed": named & is_source & has_none,
    }
    return [_counted(f"images {what}", sorted(rows["path"][found])) for what, found in kinds.items() if found.any()]


def _odd_classes(unknown: list[str]) -> list[str]:
    odd = [label for label in unknown if label != label.strip() or not label.isprintable()]
    what = "new labels begin or end with a blank or hold a character that can't be seen; write them plainly"
    return [_counted(what, odd)] if odd else []


def _unknown_classes(unknown: list[str], known: list[str]) -> list[str]:
    if not unknown:
        return []
    near = "; ".join(repr(label) + _did_you_mean(label, known) for label in unknown[:N_TOLD])
    allowed = ", ".join(map(repr, known[:50])) + (f" and {len(known) - 50} more" if len(known) > 50 else "")
    return [f"{len(unknown)} labels are no class, the first: {near}; the classes are {allowed or 'none'}"]


def _nearest_path(path: str, known: set[str]) -> str:
    """Looked for among images of the same name or the same folder: to compare with a million paths takes minutes."""
    folder, name = posixpath.split(path.lower())
    near = [other for other in known if name == posixpath.basename(other).lower()]
    near = near or [other for other in known if folder == posixpath.dirname(other).lower()]
    return _did_you_mean(path, sorted(near)[:20_000])


def _did_you_mean(text: str, known: list[str]) -> str:
    near = difflib.get_close_matches(text, known, n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _counted(what: str, found: list[str]) -> str:
    return f"{len(found)} {what}, the first: {', '.join(map(repr, found[:N_TOLD]))}"


def _first(problems: list[str]) -> str:
    more = len(problems) - N_TOLD
    return "; ".join(problems[:N_TOLD]) + (f"; and {more} more problems" if more > 0 else "")


def _lines(path: Path) -> tuple[list[str], list[Line]]:
    """The header and every line that isn't empty. ValueError names the line where it is no CSV text in UTF-8."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        n_before = content.count(b"\n", 0, error.start)
        raise ValueError(f"{path}: line {n_before + 1} is not UTF-8; save the file as UTF-8") from None
    # the csv module and not pandas: it tells the line, and keeps a carriage return inside quotes
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines, start = [], 1
    try:
        for cells in reader:
            if cells:
                lines.append((start, cells))
            start = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}: line {start} is not CSV ({error}); mend its quotes") from None
    return (lines[0][1], lines[1:]) if lines else ([], [])


def _problems(lines: list[Line], checks: Mapping[str, tuple[int, Callable[[str], bool]]], n_cells: int) -> list[str]:
    problems = []
    for number, cells in lines:
        if len(cells) != n_cells:
            problems.append(f"line {number} has {len(cells)} columns instead of {n_cells} ({cells[0][:40]!r}…)")
            continue
        for name, (column, is_right) in checks.items():
            if not is_right(cells[column]):
                wanted = "is no date YYYY-MM-DD" if name == "on" else "is empty"
                problems.append(
                    f"line {number}, column {name}, {wanted}" + f": {cells[column]!r}" * bool(cells[column])
                )
    return problems


def _is_date(text: str) -> bool:
    try:
        return ISO_DATE.fullmatch(text) is not None and bool(date.fromisoformat(text))
    except ValueError:
        return False


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if NEEDS_QUOTES.search(cell) else cell
