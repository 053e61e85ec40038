"""extract_features: each candidate's features of the images that may be learnt from, computed once.

reads   data/manifest_valid.csv, data/gate.json, data/augmentation/policy.json, the images, the zoo
writes  data/features/<candidate>.npz
"""

from pathlib import Path

import numpy as np
import pandas as pd

from tasks.augment_images import read_view
from tasks.core.batches import ImageList
from tasks.core.features import Features, capped, extract, extract_views, write_features
from tasks.core.files import whole_folder
from tasks.core.images import ImageFiles
from tasks.core.manifest import part, read_valid_manifest
from tasks.core.runtime import address_seed, run_stage, use_machine
from tasks.core.zoo import check_weights, load_candidate
from tasks.core.zoo_file import Candidate, read_zoo
from tasks.params import Params, read_params


def main() -> None:
    params = read_params()
    device = use_machine(params.runtime.device, params.runtime.n_threads)
    manifest = read_valid_manifest(Path("data/manifest_valid.csv"), Path("data/gate.json"))
    candidates = read_zoo(Path(params.zoo.folder), params.zoo.candidates)
    for candidate in candidates:
        check_weights(candidate)
    rows = images_to_see(manifest, params)
    with whole_folder(Path("data/features")) as folder:
        for candidate in candidates:
            write_features(folder / f"{candidate.name}.npz", features_of(candidate, rows, params, device))


def images_to_see(manifest: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Source train and val; target train, val and unlabelled: never guard or test. Capped, labelled target images first."""
    limits = params.extract_features.max_images
    labelled = part(manifest, "target", "train", "val")
    n_left = None if limits.target is None else max(limits.target - len(labelled), 0)
    return pd.concat(
        [
            capped(part(manifest, "source", "train", "val"), limits.source, params.seed),
            labelled,
            capped(part(manifest, "target", "unlabelled"), n_left, params.seed),
        ]
    )


def features_of(candidate: Candidate, rows: pd.DataFrame, params: Params, device: str) -> Features:
    """Plain features of all rows, then augmented views of the labelled target training images."""
    settings = params.extract_features
    files = ImageFiles(Path(params.build_manifest.root), params.zoo.image_px or candidate.native_px)
    backbone = load_candidate(candidate, 2, address_seed(params.seed, "unused head")).model.backbone.to(device)
    labelled = part(rows, "target", "train")
    x_ND = extract(backbone, image_list(files, rows, candidate), batch_size=settings.batch_size, name=candidate.name)
    image_ids, views = [rows["image_id"].to_numpy(str)], [np.zeros(len(rows), np.int32)]
    if settings.n_views and len(labelled):
        seen = extract_views(
            backbone, image_list(files, labelled, candidate), read_view(params.seed),
            n_views=settings.n_views, batch_size=settings.batch_size, name=f"{candidate.name} views",
        )  # fmt: skip
        x_ND = np.concatenate([x_ND, seen])
        image_ids += [labelled["image_id"].to_numpy(str)] * settings.n_views
        views += [np.full(len(labelled), epoch + 1, np.int32) for epoch in range(settings.n_views)]
    return Features(np.concatenate(image_ids), np.concatenate(views), x_ND)


def image_list(files: ImageFiles, rows: pd.DataFrame, candidate: Candidate) -> ImageList:
    no_label = (-1,) * len(rows)
    return ImageList(files, tuple(rows["image_id"]), tuple(rows["path"]), no_label, candidate.mean, candidate.std)


if __name__ == "__main__":
    run_stage(main)
