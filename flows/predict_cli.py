"""`acclimate predict`: classifies images with a registered model, a batch at a time."""

import signal
import sys
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.chosen_model import CHAMPION, ModelChoice, chosen_bundle
from flows.data_cli import plain_errors
from flows.named_images import Places, named_images

if TYPE_CHECKING:
    import pandas as pd

# Everything heavier is imported by the command that needs it: `acclimate --help` answers at once.

NO_THRESHOLD = (
    "ask_a_person is yes for every image: the model has no confidence threshold, because no confidence was shown to be "
    "accurate enough on held-out labels"
)


def predict(
    images: Places,
    model: ModelChoice = CHAMPION,
    out: Annotated[Path | None, typer.Option("--out", help="Write a CSV file instead of a table.")] = None,
) -> None:
    """Classifies images with a registered model; exit code 1 if one could not be read."""
    from tasks.core.runtime import quiet_tools
    from tasks.params import read_params

    quiet_tools()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that no part of a file stays behind
    with plain_errors():
        params = read_params()
        if out and not out.absolute().parent.is_dir():
            raise ValueError(f"--out {out}: the folder {out.absolute().parent} does not exist; make it first")
        bundle = chosen_bundle(params.register_model.name, model)
        tables = predictions(bundle, images, device=params.runtime.device, n_threads=params.runtime.n_threads)
        with closing(tables):
            n, n_unread = write_rows(out, tables) if out else show_rows(tables)
    if n_unread:
        typer.echo(f"error: {n_unread} of {n} images could not be read; see the column error", err=True)
        raise typer.Exit(1)


def predictions(
    bundle: Path, places: list[Path], *, device: str, n_threads: int
) -> "Generator[pd.DataFrame, None, None]":
    """One table a batch, with a progress bar. ValueError for a place without images, or a bundle that isn't as it was."""
    from tqdm import tqdm

    from tasks.core.classifier import load_classifier, predicted
    from tasks.core.runtime import is_quiet, use_machine

    images = named_images(places)
    classifier = load_classifier(bundle, use_machine(device, n_threads))
    if classifier.description.get("ask_below") is None:
        typer.echo(NO_THRESHOLD, err=True)
    with tqdm(total=len(images), desc="predict", unit="image", disable=is_quiet()) as bar:
        for table in predicted(classifier, images):
            yield table
            bar.update(len(table))


def write_rows(path: Path, tables: "Iterator[pd.DataFrame]") -> tuple[int, int]:
    """How many images, and how many of them could not be read. The file appears when all are in it."""
    from tasks.core.files import whole_file

    n = n_unread = 0
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as handle:
        for table in tables:
            returns = table[["path", "error"]].apply(lambda cells: cells.str.contains("\r", regex=False)).any(axis=None)
            quoting: Literal[0, 1] = 1 if returns else 0  # csv.QUOTE_ALL: readers take it for a line's end
            table.to_csv(handle, index=False, header=n == 0, lineterminator="\n", quoting=quoting)
            n, n_unread = n + len(table), n_unread + int((table["error"] != "").sum())
    return n, n_unread


def show_rows(tables: "Iterator[pd.DataFrame]") -> tuple[int, int]:
    """How many images, and how many of them could not be read."""
    from flows.registry_cli import show_table

    rows = [row for table in tables for row in table.to_dict("records")]
    cells = []
    for row in rows:
        confidence = "" if row["error"] else f"{row['confidence']:.3f}"
        cells.append([row["path"], row["y_pred"], confidence, row["ask_a_person"], row["error"]])
    show_table("predictions", ["path", "y_pred", "confidence", "ask a person", "error"], cells)
    return len(rows), sum(bool(row["error"]) for row in rows)
