"""augment_images: the resolved augmentation policy and a contact sheet of what it does.

reads   data/manifest_valid.csv, data/gate.json, the images
writes  data/augmentation/policy.json, data/augmentation/preview.png

Also offers the view itself (image, image_id, epoch → image) to the stages that train: augmentation happens on the
fly and is never baked. Each view is seeded by its address: albumentations' own streams differ with the number of
workers, and repeat over epochs.
"""

import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tasks.core.batches import View
from tasks.core.files import read_json, whole_file, whole_folder, write_json
from tasks.core.images import ImageFiles
from tasks.core.manifest import part, read_valid_manifest
from tasks.core.runtime import address_seed, quiet_tools, run_stage
from tasks.params import Transform, read_params

POLICY_PATH = Path("data/augmentation/policy.json")
GAP_PX = 2
KEEPS_BOTH = "a policy must keep both: take the transform out or set its size"
USUAL_PX = 224  # where each network sees its own size


def main() -> None:
    params = read_params()
    manifest = read_valid_manifest(Path("data/manifest_valid.csv"), Path("data/gate.json"))
    side_px = params.zoo.image_px or USUAL_PX
    policy = resolve_policy(params.augment_images.transforms, side_px)
    view = make_view(policy, params.seed)
    preview = params.augment_images.preview
    rows = part(manifest, "target", "train", "unlabelled").sort_values("image_id").head(preview.n_images)
    files = ImageFiles(Path(params.build_manifest.root), side_px)
    images = [files[path] for path in rows["path"]]
    sheet = contact_sheet(images, list(rows["image_id"]), view, preview.n_views)
    with whole_folder(POLICY_PATH.parent) as folder:
        write_json(folder / POLICY_PATH.name, policy)
        with whole_file(folder / "preview.png") as part_path:
            Image.fromarray(sheet).save(part_path, format="PNG")


def resolve_policy(transforms: list[Transform], side_px: int) -> dict[str, Any]:
    """Every argument of every transform written out, as albumentations serialises it.

    ValueError lists every transform that it refuses, or that would not keep an image's shape and type.
    """
    quiet_tools()
    import albumentations as A  # 5 seconds to import: only where views are made

    built, problems = [], []
    probe = np.full((side_px, side_px, 3), 128, np.uint8)
    for number, transform in enumerate(transforms):
        where = f"augment_images.transforms.{number} ({transform.name})"
        kind = getattr(A, transform.name, None)
        if not (isinstance(kind, type) and issubclass(kind, A.BasicTransform)):
            problems.append(f"{where}: albumentations has no transform of this name")
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # albumentations only warns of an unknown argument
                built.append(kind(p=transform.p, **_tuples(transform.arguments)))
                seen = kind(p=1.0, **_tuples(transform.arguments))(image=probe)["image"]
        except (ValueError, TypeError, NotImplementedError, UserWarning) as error:
            problems.append(f"{where}: {' '.join(str(error).split()) or 'is no whole transform'}")
            continue
        if seen.shape != probe.shape or seen.dtype != probe.dtype:
            problems.append(f"{where}: turns {probe.shape} {probe.dtype} into {seen.shape} {seen.dtype}; {KEEPS_BOTH}")
    if problems:
        raise ValueError("; ".join(problems))
    policy: dict[str, Any] = A.to_dict(A.Compose(built))
    return policy


def make_view(policy: dict[str, Any], seed: int) -> View:
    """The view of (image, image_id, epoch): the same for any order, worker count or resume."""
    quiet_tools()
    import albumentations as A

    compose: Any = A.from_dict(policy)

    def view(image_HWC: np.ndarray, image_id: str, epoch: int) -> np.ndarray:
        address = address_seed(seed, "augment", image_id, epoch)
        # one stream for all transforms: set_random_seed gives each its own, equal one, and they all draw the same numbers
        compose.set_random_state(np.random.default_rng(address), random.Random(address))
        seen: np.ndarray = compose(image=image_HWC)["image"]
        if seen.shape != image_HWC.shape or seen.dtype != image_HWC.dtype:
            raise ValueError(
                f"augment_images.transforms turn an image of shape {image_HWC.shape} and type {image_HWC.dtype} into "
                f"{seen.shape} and {seen.dtype}; {KEEPS_BOTH}"
            )
        return seen

    return view


def read_view(seed: int) -> View:
    return make_view(read_json(POLICY_PATH, made_by="augment_images"), seed)


def contact_sheet(images: list[np.ndarray], image_ids: list[str], view: View, n_views: int) -> np.ndarray:
    """(H, W, 3) uint8: one row per image, the plain image first, then its views of epochs 0, 1, …"""
    rows = []
    for image, image_id in zip(images, image_ids, strict=True):
        cells = [image, *(view(image, image_id, epoch) for epoch in range(n_views))]
        rows.append(np.concatenate([_framed(cell) for cell in cells], axis=1))
    return np.concatenate(rows)


def _framed(image_HWC: np.ndarray) -> np.ndarray:
    return np.pad(image_HWC, ((GAP_PX, GAP_PX), (GAP_PX, GAP_PX), (0, 0)), constant_values=255)


def _tuples(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}


if __name__ == "__main__":
    run_stage(main)
