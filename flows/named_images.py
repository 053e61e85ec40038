"""The images that a person names on the command line: files, folders, archives, packs, and tables with a column of paths."""

from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tasks.core.classifier import Named

TABLES = (".csv", ".tsv", ".parquet", ".pq")
COLUMN = "path"

Places = Annotated[
    list[Path],
    typer.Argument(metavar="IMAGES…", help="Image files, folders, archives, or tables with the column path."),
]


def named_images(places: list[Path]) -> "list[Named]":
    """Every image with what opens it, none of them opened yet. ValueError for a place that holds none.

    A file that is neither table nor archive is taken for an image, whatever it is called. A table's paths are relative
    to its folder; an image keeps the name that the table gives it.
    """
    from tasks.core.entries import is_archive, shown_name

    found: list[Named] = []
    for place in places:
        if place.suffix.lower() in TABLES:
            found += _of_table(place)
        elif place.is_dir() or is_archive(place.name):
            found += _of_store(place)
        else:
            found.append((shown_name(str(place))[0], place.absolute))
    return found


def _of_table(table: Path) -> "list[Named]":
    from tasks.core.listing import read_image_table

    rows = read_image_table(table)
    if COLUMN not in rows.columns:
        raise ValueError(
            f"{table} has no column {COLUMN!r}, only {', '.join(map(repr, rows.columns))}; rename the one of paths"
        )
    if not len(rows):
        raise ValueError(f"{table} has no row; name a table with images")
    return [(said, partial(Path, table.absolute().parent, said)) for said in rows[COLUMN]]


def _of_store(place: Path) -> "list[Named]":
    from tasks.core.entries import shown_name
    from tasks.core.store import open_store

    store = open_store(place)
    entries = store.entries()
    if not entries:
        raise ValueError(f"{place} holds no image; name a place with images")

    def opener(path: str, problem: str) -> Callable[[], BytesIO]:
        def opened() -> BytesIO:
            if problem:
                raise ValueError(problem)
            return BytesIO(store.read(path))

        return opened

    return [(shown_name(str(place / entry.path))[0], opener(entry.path, entry.problem)) for entry in entries]
