"""`acclimate export`: a registered model as one file for other runtimes, compared with the bundle on real images first."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.chosen_model import CHAMPION, ModelChoice, chosen_bundle
from flows.data_cli import plain_errors
from flows.named_images import Places, named_images

if TYPE_CHECKING:
    import numpy as np

    from tasks.core.classifier import Classifier

# Everything heavier is imported by the command that needs it: `acclimate --help` answers at once.

MAX_COMPARED = 64


class Format(StrEnum):
    onnx = "onnx"
    torch_export = "torch-export"


def export(
    images: Places,
    form: Annotated[Format, typer.Option("--format", help="onnx, or torch-export (.pt2).")],
    out: Annotated[Path, typer.Option("--out", help="The file; a JSON beside it says how to use it.")],
    model: ModelChoice = CHAMPION,
) -> None:
    """Writes a model as one file, after comparing it with the bundle on these images, in batches of 1, 2 and 7."""
    from tasks.core.runtime import quiet_tools
    from tasks.params import read_params

    quiet_tools()
    with plain_errors():
        params = read_params()
        if not out.absolute().parent.is_dir():
            raise ValueError(f"--out {out}: the folder {out.absolute().parent} does not exist; make it first")
        bundle = chosen_bundle(params.register_model.name, model)
        told = export_bundle(bundle, images, form=form, out=out, n_threads=params.runtime.n_threads)
    typer.echo(
        f"{out}: largest difference of a probability {told['largest_difference']:.2g} on {told['n_compared']} images; "
        f"sha256 {told['sha256'][:16]}; {description_path(out).name} says how to use it"
    )


def export_bundle(bundle: Path, places: list[Path], *, form: Format, out: Path, n_threads: int) -> dict[str, Any]:
    """What the JSON beside the file says. ValueError where the exported model isn't the bundle's; nothing is written then."""
    from tasks.core.bundle import candidate_id
    from tasks.core.classifier import load_classifier
    from tasks.core.exported import FORMATS, described, largest_difference
    from tasks.core.files import file_sha256, whole_file, write_json
    from tasks.core.runtime import use_machine

    classifier = load_classifier(bundle, use_machine("cpu", n_threads))  # where its user runs it is not known
    pixels = compared_images(classifier, places)
    export_to, run_from = FORMATS[form]
    content = export_to(classifier)
    difference = largest_difference(classifier, run_from(content), pixels)
    with whole_file(out) as part:
        part.write_bytes(content)
    told = {
        "file": out.name,
        "format": form.value,
        "sha256": file_sha256(out),
        "candidate": candidate_id(bundle),
        "n_compared": len(pixels),
        "largest_difference": difference,
        **described(classifier),
    }
    write_json(description_path(out), told)
    return told


def description_path(out: Path) -> Path:
    return out.with_name(f"{out.name}.json")


def compared_images(classifier: "Classifier", places: list[Path]) -> "list[np.ndarray]":
    """Up to MAX_COMPARED images that can be read, evenly from all. ValueError where there is none."""
    named = named_images(places)
    found, first = [], ""
    for name, opened in named[:: max(len(named) // MAX_COMPARED, 1)][:MAX_COMPARED]:
        try:
            found.append(classifier.read(opened()))
        except Exception as error:  # decoders raise anything
            first = first or f"{name}: {type(error).__name__}"
    if not found:
        raise ValueError(f"none of the images can be read ({first}): an export is compared on real images; name others")
    return found
