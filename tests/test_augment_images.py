"""Views: addressed, so that order, process and resume change nothing; policies checked before any image is touched."""

import hashlib
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.augment_images import GAP_PX, contact_sheet, make_view, resolve_policy
from tasks.core.files import read_json, write_json
from tasks.core.images import read_square
from tasks.params import Transform

resolved = partial(resolve_policy, side_px=32)
IMAGE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def transform(name: str, p: float = 1.0, **arguments) -> Transform:
    return Transform(name=name, p=p, arguments=arguments)


ROTATE = [transform("Rotate", limit=[-90, 90])]
MIXED = [
    *ROTATE,
    transform("Affine", 0.9, rotate=[-15, 15], scale=[0.85, 1.15], shear=[-12, 12], translate_percent=[-0.08, 0.08]),
    transform("RandomBrightnessContrast", 0.5, brightness_limit=0.2, contrast_limit=0.3),
    transform("GaussianBlur", 0.2, blur_limit=[3, 3]),
    transform("GaussNoise", 0.5),
]
ADDRESSES = [(f"id{i}", epoch) for i in range(4) for epoch in range(4)]


def test_a_view_depends_on_its_address_only() -> None:
    policy = resolved(MIXED)
    view, other_view = make_view(policy, 1), make_view(policy, 1)
    first = {address: view(IMAGE, *address).tobytes() for address in ADDRESSES}
    np.random.default_rng().random()
    again = {address: other_view(IMAGE, *address).tobytes() for address in reversed(ADDRESSES)}
    assert first == again
    assert len(set(first.values())) == len(ADDRESSES)
    other_seed = make_view(policy, 2)
    assert all(other_seed(IMAGE, *address).tobytes() != first[address] for address in ADDRESSES)


def test_another_process_sees_the_same_views(tmp_path: Path) -> None:
    policy = resolved(MIXED)
    write_json(tmp_path / "policy.json", policy)
    np.save(tmp_path / "image.npy", IMAGE)
    script = (
        "import sys, json, hashlib, numpy as np; from tasks.augment_images import make_view\n"
        "folder, image = sys.argv[1], np.load(sys.argv[1] + '/image.npy')\n"
        "view = make_view(json.load(open(folder + '/policy.json')), 1)\n"
        "sys.stdout.write(json.dumps([hashlib.sha256(view(image, *a)).hexdigest() for a in json.loads(sys.argv[2])]))"
    )
    command = [sys.executable, "-c", script, str(tmp_path), json.dumps(ADDRESSES[::-1])]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    view = make_view(policy, 1)
    here = [hashlib.sha256(view(IMAGE, *address)).hexdigest() for address in ADDRESSES]
    assert json.loads(run.stdout)[::-1] == here


def test_no_view_repeats_over_epochs() -> None:
    view = make_view(resolved(ROTATE), 0)
    assert len({view(IMAGE, "id", epoch).tobytes() for epoch in range(200)}) == 200


def test_transforms_of_one_policy_draw_independently() -> None:
    view = make_view(resolved([transform("HorizontalFlip", 0.5), transform("VerticalFlip", 0.5)]), 0)
    found = [view(IMAGE, "id", epoch).tobytes() for epoch in range(400)]
    shares = [found.count(variant.tobytes()) for variant in (IMAGE, IMAGE[:, ::-1], IMAGE[::-1], IMAGE[::-1, ::-1])]
    assert sum(shares) == 400
    assert min(shares) > 60  # a quarter each: 100 ± 8.7


def test_p_is_the_share_of_views_that_change() -> None:
    view = make_view(resolved([transform("InvertImg", 0.3)]), 0)
    changed = sum(view(IMAGE, "id", epoch).tobytes() != IMAGE.tobytes() for epoch in range(600))
    assert changed / 600 == pytest.approx(0.3, abs=3 * 0.0187)


def test_no_transforms_give_the_image_itself() -> None:
    assert (make_view(resolved([]), 0)(IMAGE, "id", 0) == IMAGE).all()


@pytest.mark.parametrize("name", ["CoarseDropout", "Rotate", "ColorJitter", "GaussNoise", "HorizontalFlip", "CLAHE"])
def test_a_view_never_changes_the_cached_image(tmp_path: Path, name: str) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "x.png")
    image = read_square(tmp_path / "x.png", 32)
    view = make_view(resolved([transform(name)]), 0)
    for epoch in range(3):
        seen = view(image, "id", epoch)
        assert (seen.shape, seen.dtype) == (image.shape, image.dtype)
    assert (image == IMAGE).all()


def test_the_policy_is_plain_json_and_stays_the_same_policy(tmp_path: Path) -> None:
    transforms = [*MIXED, transform("CoarseDropout"), transform("ColorJitter"), transform("ElasticTransform")]
    transforms.append(transform("Affine", scale={"x": [0.8, 1.2], "y": [0.9, 1.1]}))
    policy = resolved(transforms)
    write_json(tmp_path / "policy.json", policy)
    stored = read_json(tmp_path / "policy.json", made_by="augment_images")
    one, other = make_view(policy, 0), make_view(stored, 0)
    assert all((one(IMAGE, *a) == other(IMAGE, *a)).all() for a in ADDRESSES)
    assert resolved(transforms) == policy


def test_the_policy_writes_out_arguments_that_nobody_gave() -> None:
    arguments = resolved(ROTATE)["transform"]["transforms"][0]
    assert list(arguments["limit"]) == [-90, 90]
    assert {"p", "interpolation", "border_mode", "crop_border"} <= set(arguments)


def test_all_problems_stand_in_one_error() -> None:
    transforms = [
        transform("Rotat"),
        transform("HorizontalFlip"),
        transform("Rotate", limt=[0, 5]),
        transform("GaussianBlur", blur_limit="wide"),
        transform("Compose"),
        transform("RandomCrop"),
    ]
    with pytest.raises(ValueError, match="augment_images") as caught:
        resolved(transforms)
    problems = str(caught.value)
    for expected in [
        "augment_images.transforms.0 (Rotat): albumentations has no transform of this name",
        "augment_images.transforms.2 (Rotate): ",
        "limt",
        "augment_images.transforms.3 (GaussianBlur): ",
        "augment_images.transforms.4 (Compose): albumentations has no transform of this name",
        "augment_images.transforms.5 (RandomCrop): ",
    ]:
        assert expected in problems
    assert "HorizontalFlip" not in problems
    assert "\n" not in problems


@pytest.mark.parametrize("name", ["BasicTransform", "ImageOnlyTransform", "DualTransform"])
def test_a_base_class_is_no_transform(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        resolved([transform(name)])


@pytest.mark.parametrize(
    ("name", "arguments", "made"),
    [
        ("Normalize", {}, r"\(32, 32, 3\) float32"),
        ("ToFloat", {}, r"\(32, 32, 3\) float32"),
        ("RandomCrop", {"height": 16, "width": 16}, r"\(16, 16, 3\) uint8"),
    ],
)
def test_a_policy_that_changes_shape_or_type_is_refused(name: str, arguments: dict, made: str) -> None:
    # a view has the image's shape and is scaled by the network's own mean and deviation afterwards
    with pytest.raises(
        ValueError, match=rf"\({name}\): turns \(32, 32, 3\) uint8 into {made}; a policy must keep both"
    ):
        resolved([transform(name, p=0.05, **arguments)])


def test_the_contact_sheet_shows_the_plain_image_first() -> None:
    view = make_view(resolved([transform("InvertImg")]), 0)
    images = [IMAGE, IMAGE // 2]
    sheet = contact_sheet(images, ["a", "b"], view, n_views=2)
    side = 32 + 2 * GAP_PX
    assert sheet.shape == (2 * side, 3 * side, 3)
    inner = slice(GAP_PX, GAP_PX + 32)
    assert (sheet[inner, inner] == IMAGE).all()
    assert (sheet[inner, side:][:, inner] == 255 - IMAGE).all()
    assert (sheet[side:][inner, inner] == IMAGE // 2).all()
    assert (sheet[:GAP_PX] == 255).all()
