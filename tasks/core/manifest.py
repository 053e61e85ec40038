"""The manifest: one row per image.

`image_id` names the place (hash of the relative path), `content_id` the bytes (hash of the file; empty where there are none to
read: measure_images says why).
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from tasks.core.files import read_json, read_table, text_sha256
from tasks.core.runtime import address_seed, is_quiet
from tasks.core.store import Store

COLUMNS = ["image_id", "content_id", "path", "domain", "origin", "split", "group_id", "label", "problem"]
SPLITS = ("train", "val", "guard", "test", "unlabelled", "holdout")
HELD_OUT = ("val", "guard", "holdout")  # target images that nothing is learnt from and that are no test
ID_LENGTH = 16
CHUNK_IMAGES = 4096  # in flight: memory stays flat


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


def checked_paths(rows: pd.DataFrame) -> pd.DataFrame:
    """The same rows. ValueError lists the paths that stand there more than once: an image is one row."""
    repeated = sorted(rows["path"][rows["path"].duplicated()].unique())
    if repeated:
        raise ValueError(
            f"{len(repeated)} path(s) are listed more than once, the first: {', '.join(map(repr, repeated[:3]))}; "
            "an image is one row: keep one of them (further columns can be audit columns)"
        )
    return rows


def sampled_rows(rows: pd.DataFrame, max_per_class: dict[str, int | None], seed: int) -> pd.DataFrame:
    """At most that many images of each class and origin, drawn by address: the same whatever the file order."""
    order = pd.Series([address_seed(seed, "sample", path) for path in rows["path"]], index=rows.index)
    rank = order.groupby([rows["origin"], rows["label"]]).rank(method="first")
    limit = rows["domain"].map(max_per_class).astype(float).fillna(float("inf"))
    return rows[rank <= limit].reset_index(drop=True)


def with_ids(rows: pd.DataFrame, store: Store) -> pd.DataFrame:
    """The manifest: ids added, rows in the order of their paths. A row without a group is its own group."""
    rows = rows.sort_values("path", kind="stable").reset_index(drop=True)
    image_id = pd.Series([text_sha256(path)[:ID_LENGTH] for path in rows["path"]], index=rows.index, dtype=object)
    usable = rows.loc[rows["problem"] == "", "path"]
    content_id = pd.Series(_content_ids(store, list(usable)), index=usable.index, dtype=object)
    group_id = rows["group_id"].where(rows["group_id"] != "", image_id)
    audit = [name for name in rows.columns if name.startswith("audit_")]
    return rows.assign(image_id=image_id, content_id=content_id.reindex(rows.index, fill_value=""), group_id=group_id)[
        COLUMNS + audit
    ]


def content_id_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:ID_LENGTH]


def read_manifest(path: Path) -> pd.DataFrame:
    return read_table(path, made_by="build_manifest")


def read_valid_manifest(path: Path, gate_path: Path) -> pd.DataFrame:
    """Accepted rows. ValueError with the reasons where the data is blocked: a blocked set is never trained on.

    The gate holds nothing else, so that stages behind it run again only if what they may read has changed.
    """
    gate = read_json(gate_path, made_by="validate_data")
    if gate["blocked_by"]:
        raise ValueError(
            f"the data is blocked: {'; '.join(gate['blocked_by'])}; see data/validation.html, mend the data and run again"
        )
    return read_table(path, made_by="validate_data")


def classes_of(manifest: pd.DataFrame) -> list[str]:
    """The class names: the labelled source's, sorted."""
    return sorted(set(manifest.loc[manifest["domain"] == "source", "label"]) - {""})


def part(manifest: pd.DataFrame, domain: str, *splits: str) -> pd.DataFrame:
    return manifest[(manifest["domain"] == domain) & manifest["split"].isin(splits)].reset_index(drop=True)


def _content_ids(store: Store, paths: list[str]) -> list[str]:
    def content_id(path: str) -> str:
        try:
            return content_id_of(store.read(path))
        except (OSError, ValueError):  # missing, too large, damaged: told as a fact of the image
            return ""

    ids: list[str] = []
    bar = tqdm(total=len(paths), desc="build_manifest", unit="image", disable=is_quiet())
    with ThreadPoolExecutor(os.cpu_count()) as pool, bar:
        for start in range(0, len(paths), CHUNK_IMAGES):
            ids += pool.map(content_id, paths[start : start + CHUNK_IMAGES])
            bar.update(len(ids) - start)
    return ids
