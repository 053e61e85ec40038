"""synthesise_images: labelled source images once more, moved towards the look of target images; none where it is switched off.

reads   data/manifest_valid.csv, data/gate.json, the images
writes  data/synthetic (images.csv, images/)

Source images of the split train and target images that may be learnt from: nothing held out, and no target label.
"""

from pathlib import Path

from tasks.core.files import whole_folder
from tasks.core.manifest import read_valid_manifest
from tasks.core.runtime import run_stage
from tasks.core.store import open_store
from tasks.core.synthesis import Recipe, drawn, write_synthetic
from tasks.params import read_params


def main() -> None:
    params = read_params()
    manifest = read_valid_manifest(Path("data/manifest_valid.csv"), Path("data/gate.json"))
    recipe = Recipe(**params.synthesise_images.model_dump(), seed=params.seed)
    rows = drawn(manifest, recipe)
    with whole_folder(Path("data/synthetic")) as folder:
        write_synthetic(folder, rows, open_store(Path(params.build_manifest.root)), recipe)
    n_parents, n_targets = rows["parent_id"].nunique(), rows["target_id"].nunique()
    print(f"{len(rows)} images made of {n_parents} source images, with the look of {n_targets} target images")  # noqa: T201  news


if __name__ == "__main__":
    run_stage(main)
