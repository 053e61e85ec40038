"""extract_features: each candidate's features of the images that may be learnt from, computed once.

reads   data/manifest_valid.csv, data/gate.json, data/augmentation/policy.json, the images, the zoo
writes  data/features/<candidate>/ (x.npy, index.csv, theta.npy, theta_index.csv)

Rows that an earlier run computed lie under $ACCLIMATE_HOME/features: added images alone go through the networks, and a killed
run continues.
"""

from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd

from tasks.augment_images import POLICY_PATH, read_view
from tasks.core.batches import ImageList
from tasks.core.costs import Cost, write_cost
from tasks.core.extraction import Pass, Sight, extract, sight_of
from tasks.core.features import capped, row_file, write_index, write_theta
from tasks.core.features_cache import FeaturesCache, cache_key
from tasks.core.files import file_sha256, text_sha256, whole_folder
from tasks.core.images import ImageFiles
from tasks.core.manifest import part, read_valid_manifest
from tasks.core.peak_memory import forget_peak, peak_gib
from tasks.core.runtime import address_seed, run_stage, use_machine
from tasks.core.zoo import Pretrained, check_weights, load_candidate, source_probabilities
from tasks.core.zoo_file import Candidate, allowed, read_zoo
from tasks.params import Params, read_params


def main() -> None:
    params = read_params()
    device = use_machine(params.runtime.device, params.runtime.n_threads)
    manifest = read_valid_manifest(Path("data/manifest_valid.csv"), Path("data/gate.json"))
    candidates, _ = allowed(read_zoo(Path(params.zoo.folder), params.zoo.candidates), params.zoo.licences)
    for candidate in candidates:
        check_weights(candidate)
    rows = images_to_see(manifest, params)
    keys = frozenset(key_of(c, params, params.extract_features.batch_size) for c in candidates)
    with whole_folder(Path("data/features")) as folder:
        for candidate in candidates:
            pretrained = load_candidate(candidate, 2, address_seed(params.seed, "unused head"))
            pretrained.model.to(device)
            sight = sight_for(candidate, rows, params)
            forget_peak(device)
            begin = perf_counter()
            done = write_features(folder / candidate.name, pretrained, sight, candidate, params, keys)
            if not done.n_known:
                cost = Cost(done.n_computed, perf_counter() - begin, peak_gib(device), device)
                write_cost(candidate.name, cost)
                print(f"{candidate.name}: {cost}")  # noqa: T201  news
            labelled = part(rows, "target", "train", "val")
            write_theta(folder / candidate.name, list(labelled["image_id"]), partial(source_probabilities, pretrained))
            for line in told(candidate.name, done, params.extract_features.batch_size):
                print(line)  # noqa: T201  news


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


def sight_for(candidate: Candidate, rows: pd.DataFrame, params: Params) -> Sight:
    """All rows plain, then augmented views of the labelled target training images."""
    files = ImageFiles(
        Path(params.build_manifest.root), side_of(candidate, params), candidate.interpolation, candidate.crop_share
    )
    ids = tuple(rows["image_id"])
    images = ImageList(files, ids, tuple(rows["path"]), (-1,) * len(rows), candidate.mean, candidate.std)
    places = np.arange(len(rows))
    plain = Sight(images, tuple(rows["content_id"]), places, np.zeros(len(rows), int))
    labelled = set(part(rows, "target", "train")["image_id"])
    shown = places[[image_id in labelled for image_id in ids]]
    n_views = params.extract_features.n_views
    if not n_views or not len(shown):
        return plain
    return replace(sight_of(plain, shown, n_views), show=read_view(params.seed), show_key=view_key(params.seed))


def side_of(candidate: Candidate, params: Params) -> int:
    return params.zoo.image_px or candidate.native_px


def key_of(candidate: Candidate, params: Params, batch_size: int) -> str:
    """Of all that decides a row beside the image: the network, what it is shown, the machine and the code."""
    network = [value for name, value in vars(candidate).items() if name not in ("weights_path", "bundle")]
    runtime, dtype = params.runtime, params.extract_features.dtype
    return cache_key(runtime.device, *network, side_of(candidate, params), runtime.n_threads, dtype, batch_size)


def view_key(seed: int) -> str:
    code = Path(__file__).with_name("augment_images.py")
    libraries = [version(name) for name in ("albumentations", "opencv-python-headless")]
    return text_sha256("\n".join([str(seed), file_sha256(POLICY_PATH), file_sha256(code), *libraries]))


def write_features(
    folder: Path, pretrained: Pretrained, sight: Sight, candidate: Candidate, params: Params, keys: frozenset[str]
) -> Pass:
    settings = params.extract_features
    folder.mkdir()

    def open_cache(batch_size: int) -> FeaturesCache:
        return FeaturesCache(key_of(candidate, params, batch_size), candidate.feature_dim, settings.dtype, keys)

    with row_file(folder / "x.npy", len(sight), candidate.feature_dim, settings.dtype) as out:
        done = extract(
            pretrained.model.backbone, sight, out,
            open_cache=open_cache, batch_size=settings.batch_size, name=candidate.name,
        )  # fmt: skip
    ids = np.array(sight.images.image_ids)
    write_index(folder, ids[sight.position], sight.view)
    return done


def told(name: str, done: Pass, batch_size: int) -> list[str]:
    lines = [
        f"{name}: {done.n_computed + done.n_known} rows: {done.n_computed} computed, {done.n_known} from the cache"
    ]
    if done.batch_size < batch_size:
        lines.append(
            f"{name}: memory ran out with batches of {batch_size}, so {done.batch_size} was taken for all; the last bits depend "
            "on it: set extract_features.batch_size to it for the same bytes everywhere"
        )
    if done.problem:
        lines.append(f"{name}: the cache of features keeps nothing new: {done.problem}")
    return lines


if __name__ == "__main__":
    run_stage(main)
