"""The manifest: one row per image, from a table or from folders; and its leak-free splits.

`image_id` names the place (hash of the relative path), `content_id` the bytes (hash of the file).
"""

import posixpath
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.core.files import file_sha256, read_json, read_table, text_sha256
from tasks.core.images import IMAGE_SUFFIXES
from tasks.core.runtime import address_seed

COLUMNS = ["image_id", "content_id", "path", "domain", "origin", "split", "group_id", "label"]
GIVEN_SPLITS = ("", "train", "val", "test", "unlabelled")
SPLITS = ("train", "val", "guard", "test", "unlabelled")
ID_LENGTH = 16


@dataclass(frozen=True)
class ColumnNames:
    """The user's names of the columns; None where the table has no such column."""

    path: str
    label: str | None
    domain: str | None
    split: str | None
    group: str | None
    audit: tuple[str, ...]


def rows_from_table(table_path: Path, names: ColumnNames) -> pd.DataFrame:
    """path, label, origin, split, group_id and the audit columns, as text. ValueError lists all missing columns."""
    if not table_path.is_file():
        raise ValueError(
            f"build_manifest.table {table_path} is not a file; name a CSV file, or the root itself to read its folders"
        )
    try:
        given = pd.read_csv(table_path, dtype=str, keep_default_na=False, encoding="utf-8")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{table_path} is not a whole CSV table in UTF-8 ({' '.join(str(error).split())})") from None
    short = given.isna().any(axis=1)
    if short.any():
        line = int(np.flatnonzero(short)[0]) + 2
        raise ValueError(f"{table_path}: line {line} has fewer fields than the header; mend the table")
    wanted = [names.path, names.label, names.domain, names.split, names.group, *names.audit]
    missing = [name for name in wanted if name is not None and name not in given.columns]
    if missing:
        raise ValueError(
            f"{table_path} has no column {', '.join(map(repr, missing))}; it has {', '.join(given.columns)}; "
            "mend build_manifest.columns or build_manifest.audit_columns"
        )
    empty = pd.Series("", index=given.index)
    own = {
        "path": names.path,
        "label": names.label,
        "origin": names.domain,
        "split": names.split,
        "group_id": names.group,
    }
    rows = pd.DataFrame({new: given[old] if old else empty for new, old in own.items()})
    rows["path"] = rows["path"].map(posixpath.normpath)  # one file under two spellings is one path
    return pd.concat([rows, given[list(names.audit)].rename(columns=audit_name)], axis=1)


def audit_name(column: str) -> str:
    """Audit columns carry a prefix in all our tables, so that none can hide one of our own columns."""
    return f"audit_{column}"


def rows_from_folders(root: Path, audit_columns: tuple[str, ...]) -> pd.DataFrame:
    """One row per image file under root/<domain>/<class>/ (or root/<domain>/ for unlabelled ones)."""
    if audit_columns:
        raise ValueError(
            f"build_manifest.audit_columns {list(audit_columns)} need a table: folders carry no columns; "
            "name a CSV file as build_manifest.table, or set audit_columns to []"
        )
    rows = []
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()):
        parts = path.relative_to(root).parts
        if len(parts) > 1:
            label = parts[1] if len(parts) > 2 else ""
            rows.append({"path": "/".join(parts), "label": label, "origin": parts[0], "split": "", "group_id": ""})
    return pd.DataFrame(rows, columns=["path", "label", "origin", "split", "group_id"])


def with_domains(rows: pd.DataFrame, source_domains: list[str], target_domain: str) -> pd.DataFrame:
    """Rows of the named domains, marked source or target. ValueError lists domains that hold no image."""
    found = sorted(rows["origin"].unique())
    absent = [name for name in [*source_domains, target_domain] if name not in found]
    if absent:
        raise ValueError(
            f"no image of domain {', '.join(map(repr, absent))} was found; there are "
            f"{', '.join(repr(name) for name in found) or 'no images at all'}; "
            "mend build_manifest.source_domains or build_manifest.target_domain"
        )
    if target_domain in source_domains:
        raise ValueError(
            f"build_manifest.target_domain {target_domain!r} also stands in source_domains; it can't be both"
        )
    domain = rows["origin"].map({**dict.fromkeys(source_domains, "source"), target_domain: "target"})
    return rows.assign(domain=domain)[domain.notna()].reset_index(drop=True)


def checked_rows(rows: pd.DataFrame, root: Path) -> pd.DataFrame:
    """The same rows. ValueError lists missing files, paths outside the root, repeated paths and unknown splits."""
    problems = []
    # by spelling, not by where links lead: DVC may check images out as links into its cache
    odd = sorted({p for p in rows["path"] if posixpath.isabs(p) or posixpath.normpath(p) != p or p.startswith("..")})
    missing = sorted(path for path in set(rows["path"]) - set(odd) if not (root / path).is_file())
    repeated = sorted(rows["path"][rows["path"].duplicated()].unique())
    unknown = sorted(set(rows["split"]) - set(GIVEN_SPLITS))
    unlabelled = sorted(rows["path"][(rows["domain"] == "source") & (rows["label"] == "")])
    held_out = (rows["domain"] == "target") & rows["split"].isin(("val", "test"))
    untested = sorted(rows["path"][held_out & (rows["label"] == "")])
    for what, found in [
        ("paths are not plain relative paths below the root", odd),
        ("image files are missing", missing),
        ("paths stand in the table twice", repeated),
        ("source images carry no label", unlabelled),
        ("target images of split val or test carry no label", untested),
    ]:
        if found:
            problems.append(f"{len(found)} {what}, the first: {', '.join(map(repr, found[:3]))}")
    if unknown:
        problems.append(
            f"split {', '.join(map(repr, unknown))} is unknown; allowed are train, val, test, unlabelled, empty"
        )
    if problems:
        raise ValueError(f"images under {root}: " + "; ".join(problems))
    return rows


def sampled_rows(rows: pd.DataFrame, max_per_class: dict[str, int | None], seed: int) -> pd.DataFrame:
    """At most that many images per domain and class, drawn by address: the same whatever the file order."""
    order = pd.Series([address_seed(seed, "sample", path) for path in rows["path"]], index=rows.index)
    rank = order.groupby([rows["domain"], rows["label"]]).rank(method="first")
    limit = rows["domain"].map(max_per_class).astype(float).fillna(float("inf"))
    return rows[rank <= limit].reset_index(drop=True)


def with_ids(rows: pd.DataFrame, root: Path) -> pd.DataFrame:
    """The manifest: ids added, rows in the order of their paths. A row without a group is its own group."""
    rows = rows.sort_values("path", kind="stable").reset_index(drop=True)
    image_id = [text_sha256(path)[:ID_LENGTH] for path in rows["path"]]
    content_id = [file_sha256(root / path)[:ID_LENGTH] for path in rows["path"]]
    group_id = rows["group_id"].where(rows["group_id"] != "", pd.Series(image_id, index=rows.index))
    audit = [name for name in rows.columns if name.startswith("audit_")]
    return rows.assign(image_id=image_id, content_id=content_id, group_id=group_id)[COLUMNS + audit]


def draw_splits(rows: pd.DataFrame, shares: dict[str, float], seed: int) -> pd.Series:
    """A split per row of one domain; whole groups, stratified by each group's commonest label.

    `shares` maps split → share of images; the rest is train. Addressed: the file order changes nothing.
    """
    label = rows.groupby("group_id")["label"].agg(lambda labels: labels.mode().iloc[0])
    size = rows.groupby("group_id").size()
    groups = pd.DataFrame({"label": label, "size": size})
    groups["order"] = [address_seed(seed, "split", group) for group in groups.index]
    groups = groups.sort_values("order")
    chosen: dict[str, str] = {}
    for _, same_label in groups.groupby("label"):
        total, filled = same_label["size"].sum(), dict.fromkeys(shares, 0)
        for group, n_images in same_label["size"].items():
            short = {name: share * total - filled[name] for name, share in shares.items()}
            name = max(short, key=lambda key: short[key]) if short else "train"
            # a group is given away only while at least half of it is still wanted
            if not short or short[name] < n_images / 2:
                name = "train"
            else:
                filled[name] += n_images
            chosen[str(group)] = name
    return rows["group_id"].map(chosen)


def read_manifest(path: Path) -> pd.DataFrame:
    return read_table(path, made_by="build_manifest")


def read_valid_manifest(path: Path, validation_path: Path) -> pd.DataFrame:
    """Accepted rows. ValueError with the reasons where the data is blocked: a blocked set is never trained on."""
    validation = read_json(validation_path, made_by="validate_data")
    if validation["status"] == "blocked":
        raise ValueError(
            f"the data is blocked: {'; '.join(validation['blocked_by'])}; see {validation_path}, mend the data and run again"
        )
    return read_table(path, made_by="validate_data")


def classes_of(manifest: pd.DataFrame) -> list[str]:
    """The class names: the labelled source's, sorted."""
    return sorted(manifest.loc[manifest["domain"] == "source", "label"].unique())


def part(manifest: pd.DataFrame, domain: str, *splits: str) -> pd.DataFrame:
    return manifest[(manifest["domain"] == domain) & manifest["split"].isin(splits)].reset_index(drop=True)
