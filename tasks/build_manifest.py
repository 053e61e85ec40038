"""build_manifest: one row per image of the source and target domains.

reads   the image table or folders named in params.yaml
writes  data/manifest.csv
"""

from pathlib import Path

from tasks.core.files import write_table
from tasks.core.manifest import (
    ColumnNames,
    checked_rows,
    rows_from_folders,
    rows_from_table,
    sampled_rows,
    with_domains,
    with_ids,
)
from tasks.core.runtime import run_stage
from tasks.params import read_params


def main() -> None:
    params = read_params()
    settings = params.build_manifest
    root, audit = Path(settings.root), tuple(settings.audit_columns)
    if not root.is_dir():
        raise ValueError(
            f"build_manifest.root {settings.root!r} is not a folder; name the folder that holds the images"
        )
    if Path(settings.table).resolve() == root.resolve():
        rows = rows_from_folders(root, audit)
    else:
        rows = rows_from_table(Path(settings.table), ColumnNames(**settings.columns.model_dump(), audit=audit))
    rows = checked_rows(with_domains(rows, settings.source_domains, settings.target_domain), root)
    rows = sampled_rows(rows, settings.max_per_class.model_dump(), params.seed)
    write_table(Path("data/manifest.csv"), with_ids(rows, root))


if __name__ == "__main__":
    run_stage(main)
