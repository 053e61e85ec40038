"""Features: joined by id, never by row order; written the same way each time."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tasks.core.batches import ImageList
from tasks.core.features import Features, capped, extract, extract_views, read_features, write_features
from tasks.core.images import ImageFiles
from tasks.core.model import SmallResNet, split_head

FEATURES = Features(
    np.array(["b", "a", "b", "c", "a"]), np.array([0, 0, 1, 0, 1]), np.arange(10, dtype=np.float32).reshape(5, 2)
)


def test_plain_rows_follow_the_ids_asked_for() -> None:
    assert FEATURES.plain_rows(["c", "b", "c"]).tolist() == [[6, 7], [0, 1], [6, 7]]
    assert FEATURES.plain_rows([]).shape == (0, 2)


def test_absent_images_are_named() -> None:
    message = "2 images have no features, the first: x; run `dvc repro extract_features`"
    with pytest.raises(ValueError, match=message):
        FEATURES.plain_rows(["a", "x", "y"])


def test_all_views_come_with_the_position_of_their_image() -> None:
    x_ND, position = FEATURES.rows_of(["a", "b"])
    assert x_ND.tolist() == [[0, 1], [2, 3], [4, 5], [8, 9]]
    assert position.tolist() == [1, 0, 1, 0]


@pytest.fixture
def images(tmp_path: Path) -> ImageList:
    rng, paths = np.random.default_rng(0), tuple(f"{k}.png" for k in range(5))
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / path)
    return ImageList(ImageFiles(tmp_path, 16), tuple("abcde"), paths, (0,) * 5, (0.5,) * 3, (0.5,) * 3)


def test_features_are_those_of_the_eval_mode_whatever_the_batch(images: ImageList) -> None:
    torch.manual_seed(0)
    backbone = split_head(SmallResNet(3, width=4), 3).backbone
    found = extract(backbone.train(), images, batch_size=2, name="x")
    with torch.no_grad():
        expected = backbone.eval()(images.batch(range(5))).numpy()
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=1e-5)


def test_views_are_stacked_epoch_after_epoch(images: ImageList) -> None:
    backbone = split_head(SmallResNet(3, width=4), 3).backbone
    found = extract_views(
        backbone, images, lambda image, _id, epoch: np.rot90(image, epoch), n_views=3, batch_size=2, name="x"
    )
    plain = extract(backbone, images, batch_size=2, name="x")
    assert found.shape == (15, plain.shape[1])
    assert found[:5] == pytest.approx(plain, abs=1e-6)  # a turn of 0
    assert not np.allclose(found[5:10], plain)
    none = extract_views(backbone, images, lambda image, *_: image, n_views=0, batch_size=2, name="x")
    assert len(none) == 0


def test_features_come_back_and_their_file_is_the_same_twice(tmp_path: Path) -> None:
    for name in ("one.npz", "two.npz"):
        write_features(tmp_path / name, FEATURES)
    found = read_features(tmp_path / "one.npz")
    assert (found.image_id == FEATURES.image_id).all()
    assert (found.view == FEATURES.view).all()
    assert (found.x_ND == FEATURES.x_ND).all()
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_a_missing_file_names_its_stage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="made by the stage extract_features; run `dvc repro extract_features`"):
        read_features(tmp_path / "none.npz")


def rows(labels: str) -> pd.DataFrame:
    return pd.DataFrame({"image_id": [f"i{k}" for k in range(len(labels))], "label": list(labels)})


def test_a_cap_draws_evenly_over_labels() -> None:
    found = capped(rows("aaaaaaaaaabbbbc"), 7, seed=0)
    assert found["label"].value_counts().to_dict() == {"a": 3, "b": 3, "c": 1}
    assert found.index.is_monotonic_increasing


def test_a_cap_does_not_depend_on_the_order_of_rows() -> None:
    table = rows("aabbaabbab")
    first, turned = capped(table, 4, 0), capped(table.iloc[::-1].reset_index(drop=True), 4, 0)
    assert set(first["image_id"]) == set(turned["image_id"])
    assert any(set(capped(table, 4, seed)["image_id"]) != set(first["image_id"]) for seed in range(1, 5))


@pytest.mark.parametrize("n_images", [None, 3, 10])
def test_no_cap_takes_all(n_images: int | None) -> None:
    assert len(capped(rows("abc"), n_images, 0)) == 3
