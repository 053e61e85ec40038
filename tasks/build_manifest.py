"""build_manifest: one row per image of the source and target domains.

reads   the image table, folders, archives or pack named in params.yaml, data/given/labels.csv (what people labelled later)
writes  data/manifest.csv
"""

from pathlib import Path

import pandas as pd

from tasks.core.files import file_sha256, write_table
from tasks.core.labels import read_labels, with_given_labels
from tasks.core.listing import ColumnNames, read_image_table, rows_from_entries, rows_from_table, with_split_words
from tasks.core.manifest import checked_paths, sampled_rows, with_domains, with_ids
from tasks.core.runtime import run_stage
from tasks.core.store import Store, open_store
from tasks.params import BuildManifest, read_params

LABELS = Path("data/given/labels.csv")


def main() -> None:
    params = read_params()
    settings = params.build_manifest
    store = opened_root(settings)
    rows = with_domains(listed_rows(settings, store), settings.source_domains, settings.target_domain)
    labels_sha256 = file_sha256(LABELS) if LABELS.exists() else ""
    labels = read_labels(LABELS)
    if lost := sorted(set(labels["path"]) - set(rows["path"])):
        print(f"{len(lost)} image(s) of {LABELS} are not listed, so their labels mean nothing; the first: {lost[0]}")  # noqa: T201
    rows = with_given_labels(checked_paths(with_split_words(rows)), labels)
    rows = sampled_rows(rows, settings.max_per_class.model_dump(), params.seed)
    manifest = with_ids(rows, store)
    if file_sha256(LABELS) != labels_sha256:  # DVC would note the new file as the one that was read
        raise ValueError(f"{LABELS} changed while the images were read; run again")
    write_table(Path("data/manifest.csv"), manifest)


def opened_root(settings: BuildManifest) -> Store:
    try:
        return open_store(Path(settings.root))
    except ValueError as error:
        raise ValueError(f"build_manifest.root: {error}") from None


def listed_rows(settings: BuildManifest, store: Store) -> pd.DataFrame:
    """The rows of the table, or of the folders where the table is the root itself."""
    root, table, audit = Path(settings.root), Path(settings.table), tuple(settings.audit_columns)
    if table.resolve() != root.resolve():
        names = ColumnNames(**settings.columns.model_dump(), audit=audit)
        return rows_from_table(read_image_table(table), names, root, store)
    if audit:
        raise ValueError(
            f"build_manifest.audit_columns {list(audit)} need a table: folders carry no columns; "
            "name a CSV or Parquet file as build_manifest.table, or set audit_columns to []"
        )
    rows = rows_from_entries(store.entries(), settings.layout)
    if ignored := store.ignored():
        told = ", ".join(f"{n} {suffix or 'without ending'}" for suffix, n in sorted(ignored.items()))
        print(f"files that are no images were left out: {told}")  # noqa: T201  news
    return rows


if __name__ == "__main__":
    run_stage(main)
