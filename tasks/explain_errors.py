"""explain_errors: the adopted model's most confident errors in the worst audit groups, with what spoke for each wrong guess.

reads   data/manifest_valid.csv, data/gate.json, data/predictions.csv, data/model, data/adoption.json, the images
writes  data/errors (index.csv, one PNG per group)

It measures nothing and decides nothing: it shows a reviewer where to look.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tasks.core.batches import ImageList, plain_batches
from tasks.core.error_sheets import (
    INDEX_COLUMNS,
    N_NEAREST,
    Sheet,
    error_sheet,
    index_rows,
    nearest,
    neighbour_columns,
    overlay,
    shown_errors,
    with_confidence,
    worst_groups,
)
from tasks.core.files import read_json, whole_folder, write_table
from tasks.core.manifest import part, read_valid_manifest
from tasks.core.model import ImageModel
from tasks.core.predictions import ADOPTED, of_model, read_predictions
from tasks.core.runtime import run_stage, use_machine
from tasks.core.trained import images_of, load_network
from tasks.params import Params, read_params

MODEL = Path("data/model")


def main() -> None:
    params = read_params()
    own = params.explain_errors
    manifest = read_valid_manifest(Path("data/manifest_valid.csv"), Path("data/gate.json"))
    predictions = of_model(read_predictions(Path("data/predictions.csv")), ADOPTED)
    rows = with_confidence(predictions.merge(manifest[["image_id", "path"]], on="image_id", validate="one_to_one"))
    sheets = worst_groups(
        rows,
        [str(name).removeprefix("audit_") for name in rows.columns if str(name).startswith("audit_")],
        min_group_size=params.audit_bias.min_group_size,
        max_groups=own.max_groups,
        n_per_group=own.n_per_group,
    )
    adopted = adopted_network(params)
    training = pd.concat([part(manifest, domain, "train") for domain in ("source", "target")], ignore_index=True)
    errors = with_neighbours(adopted, shown_errors(rows, sheets), training, own.batch_size)
    pictures = pictures_of(adopted, errors, window_share=own.window_share, batch_size=own.batch_size)
    with whole_folder(Path("data/errors")) as folder:
        write_sheets(folder, sheets, errors, pictures)


@dataclass(frozen=True)
class Adopted:
    """The adopted network, ready to be asked, its description, and where its images lie."""

    model: ImageModel
    description: dict[str, Any]
    root: Path
    device: str

    def images(self, rows: pd.DataFrame) -> ImageList:
        return images_of(rows, self.description, self.root)

    def features(self, rows: pd.DataFrame, batch_size: int) -> Iterator[np.ndarray]:
        """(n, D) of each batch: what the head sees."""
        for x_NCHW in plain_batches(self.images(rows), batch_size):
            with torch.inference_mode():
                yield self.model.features(x_NCHW.to(self.device)).cpu().numpy()


def adopted_network(params: Params) -> Adopted:
    device = use_machine(params.runtime.device, params.runtime.n_threads)
    description = read_json(MODEL / "model.json", made_by="finetune_model")
    name = read_json(Path("data/adoption.json"), made_by="guard_adaptation")["adopted"]
    model = load_network(MODEL / f"{name}.safetensors", description, device).requires_grad_(False)
    return Adopted(model, description, Path(params.build_manifest.root), device)


def with_neighbours(adopted: Adopted, errors: pd.DataFrame, training: pd.DataFrame, batch_size: int) -> pd.DataFrame:
    """The errors with the columns of their nearest labelled training images, by the cosine of the network's features.

    Training images are those with a label that may be learnt from, of both domains: the question is whether there was
    anything like the image, and what it was called.
    """
    if errors.empty:
        return errors
    wanted_QD = np.concatenate(list(adopted.features(errors, batch_size)))
    place_QK, cosine_QK = nearest(wanted_QD, adopted.features(training, batch_size), N_NEAREST)
    return errors.join(neighbour_columns(training, place_QK, cosine_QK))


def pictures_of(
    adopted: Adopted, errors: pd.DataFrame, *, window_share: float, batch_size: int
) -> dict[str, list[np.ndarray]]:
    """By image_id what a line shows: the image as the network sees it, the overlay, the nearest training images."""
    images, found = adopted.images(errors), {}
    for place, row in enumerate(errors.to_dict("records")):
        weights_C = margin_weights(adopted.description["classes"], guess=row["y_pred"], truth=row["y_true"]).to(
            adopted.device
        )
        x_1CHW = images.batch([place]).to(adopted.device)
        map_HW = saliency(adopted.model, x_1CHW, weights_C, window_share=window_share, batch_size=batch_size)
        image_HW3 = images.files[row["path"]]
        paths = [row[f"nearest_{k}_path"] for k in range(1, N_NEAREST + 1)]
        near = [images.files[path] for path in paths if path]
        found[row["image_id"]] = [image_HW3, overlay(image_HW3, map_HW), *near]
    return found


def margin_weights(classes: list[str], *, guess: str, truth: str) -> Tensor:
    """(C,) that make the margin of the guess over the true class out of logits; over nothing where no class is the truth."""
    return torch.tensor([float(name == guess) - float(name == truth) for name in classes])


def saliency(
    model: ImageModel, x_1CHW: Tensor, weights_C: Tensor, *, window_share: float, batch_size: int
) -> np.ndarray:
    """(H, W) how much Σ weights · logits falls when a square around the point is covered with the image's mean colour.

    Occlusion (Zeiler and Fergus 2014): squares of window_share of the side, each half a square from the next; a point has the
    mean over the squares that cover it. It asks the network alone, so any will do, and it says what a person could try.
    Measured by what the margin loses with the most against the least telling tenth of the points: on photographs twice as
    much as integrated gradients at the same cost, on 32 px digits somewhat less; Grad-CAM comes last on both.
    """
    from captum.attr import Occlusion  # its only home; half a second to import

    def value(x_NCHW: Tensor) -> Tensor:
        return (model(x_NCHW) * weights_C).sum(1)

    window = max(round(window_share * x_1CHW.shape[2]), 1)
    stride, n_colours = max(window // 2, 1), x_1CHW.shape[1]
    map_1CHW = Occlusion(value).attribute(
        x_1CHW,
        sliding_window_shapes=(n_colours, window, window),
        strides=(n_colours, stride, stride),
        baselines=x_1CHW.mean((2, 3), keepdim=True).expand_as(x_1CHW),
        perturbations_per_eval=batch_size,
    )
    map_HW: np.ndarray = map_1CHW[0, 0].cpu().numpy()  # covered are all colours at once
    return map_HW


def write_sheets(
    folder: Path, sheets: list[Sheet], errors: pd.DataFrame, pictures: dict[str, list[np.ndarray]]
) -> None:
    """sheet_01.png and so on, the worst group first, and index.csv; the index alone where nothing is wrong."""
    index = [pd.DataFrame(columns=INDEX_COLUMNS)] if not sheets else []
    for number, sheet in enumerate(sheets, start=1):
        name = f"sheet_{number:02d}.png"
        (folder / name).write_bytes(error_sheet([pictures[image_id] for image_id in sheet.image_ids]))
        index.append(index_rows(sheet, name, errors))
    write_table(folder / "index.csv", pd.concat(index, ignore_index=True))


if __name__ == "__main__":
    run_stage(main)
