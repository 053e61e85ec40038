"""Synthetic images: arithmetic by hand and by other libraries, what may be drawn from, addressed bytes, the table's guards."""

import dataclasses
import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import fft

from tasks.core.manifest import content_id_of
from tasks.core.store import open_store
from tasks.core.synthesis import (
    COLUMNS,
    Recipe,
    drawn,
    manifest_rows,
    read_synthetic,
    synthetic_id,
    with_amplitude,
    with_statistics,
    write_synthetic,
)

RNG = np.random.default_rng(0)
IMAGE, TARGET = RNG.uniform(0, 255, (12, 10, 3)), RNG.uniform(60, 90, (12, 10, 3))
RECIPE = Recipe("fourier", 2, None, strength=1.0, fourier_share=0.2, short_side_px=16, seed=0)
CLASSES = ("cat", "dog")
HELD_BACK = ("val", "guard", "test", "holdout", "held_out")


def row(image_id: str, domain: str, split: str, label: str) -> dict[str, str]:
    return {
        "image_id": image_id, "content_id": f"c{image_id}", "path": f"{image_id}.png", "domain": domain, "origin": domain[:3],
        "split": split, "group_id": f"g{image_id}", "label": label, "problem": "", "audit_age": "old",
    }  # fmt: skip


@pytest.fixture
def manifest(tmp_path: Path) -> pd.DataFrame:
    """Six source and four target images to draw from, and one of every kind that must not be; all 20 x 18, made below images/."""
    rows = [row(f"a{i}", "source", "train", CLASSES[i % 2]) for i in range(6)]
    rows += [row("b0", "source", "val", "cat"), row("b1", "source", "train", "")]
    rows += [row(f"c{i}", "target", "train" if i else "unlabelled", "dog" if i else "") for i in range(4)]
    rows += [row(f"d{i}", "target", split, "") for i, split in enumerate(HELD_BACK)]
    (tmp_path / "images").mkdir()
    for number, found in enumerate(rows):
        pixels = np.random.default_rng(number).integers(0, 256, (18, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / found["path"])
    return pd.DataFrame(rows)


def made(folder: Path, manifest: pd.DataFrame, recipe: Recipe) -> dict[str, bytes]:
    """Bytes by name of all that was written below the folder."""
    folder.mkdir()
    write_synthetic(folder, drawn(manifest, recipe), open_store(folder.parent / "images"), recipe)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image, float)


# Statistics


def ycrcb(image_HWC: np.ndarray) -> np.ndarray:
    return cv2.cvtColor((image_HWC / 255).astype(np.float32), cv2.COLOR_RGB2YCrCb).astype(float)


def test_statistics_become_the_targets_as_opencv_sees_them() -> None:
    found, wanted = ycrcb(with_statistics(IMAGE, TARGET, 1.0)), ycrcb(TARGET)
    # OpenCV rounds the chroma factors to three digits
    assert found.mean((0, 1)) == pytest.approx(wanted.mean((0, 1)), abs=1e-3)
    assert found.std((0, 1)) == pytest.approx(wanted.std((0, 1)), rel=5e-3)
    assert ycrcb(IMAGE).std((0, 1)).min() > 3 * wanted.std((0, 1)).max()


def test_greys_by_hand() -> None:
    # mean 20 and deviation 10 become mean 100 and deviation 30: 10 → 70, 30 → 130; half way: 40 and 80
    grey, its = np.array([[10.0, 30.0]]), np.array([[70.0, 130.0]])
    image, target = np.stack([grey] * 3, axis=2), np.stack([its] * 3, axis=2)
    assert with_statistics(image, target, 1.0) == pytest.approx(target)
    assert with_statistics(image, target, 0.5)[0, :, 0] == pytest.approx([40, 80])


def test_a_flat_channel_is_moved_but_not_blown_up() -> None:
    grey = np.stack([IMAGE[:, :, 0]] * 3, axis=2)
    found = with_statistics(grey, TARGET, 1.0)
    chroma_found, chroma_wanted = found[:, :, 2] - found[:, :, 0], (TARGET[:, :, 2] - TARGET[:, :, 0]).mean()
    assert chroma_found == pytest.approx(np.full((12, 10), chroma_wanted))  # one colour cast, no noise


# Fourier


def test_amplitude_and_phase_against_the_full_transform_of_scipy() -> None:
    found = fft.fft2(with_amplitude(IMAGE, TARGET, 0.25, 0.26), axes=(0, 1))
    own, its = fft.fft2(IMAGE, axes=(0, 1)), fft.fft2(TARGET, axes=(0, 1))
    cycles_H = np.array([0, 1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1])[:, None]
    cycles_W = np.array([0, 1, 2, 3, 4, 5, 4, 3, 2, 1])[None]
    is_low = ((cycles_H <= 2) & (cycles_W <= 2))[:, :, None]  # .26 of the short side of 10: 2 cycles and fewer
    wanted = np.where(is_low, 0.75 * np.abs(own) + 0.25 * np.abs(its), np.abs(own))
    assert np.abs(found) == pytest.approx(wanted)
    assert np.angle(found * own.conj()) == pytest.approx(np.zeros(found.shape), abs=1e-6)


def test_the_smallest_share_swaps_the_mean_alone() -> None:
    found = with_amplitude(IMAGE, TARGET, 1.0, 0.01)
    assert found == pytest.approx(IMAGE - IMAGE.mean((0, 1)) + TARGET.mean((0, 1)))


@pytest.mark.parametrize(("height", "width"), [(7, 9), (8, 9), (9, 8), (1, 1), (2, 3)])
def test_odd_sides_keep_their_shape(height: int, width: int) -> None:
    image = IMAGE[:height, :width]
    assert with_amplitude(image, image[::-1], 0.5, 0.5).shape == image.shape
    assert with_amplitude(image, image, 1.0, 0.5) == pytest.approx(image)


@pytest.mark.parametrize(
    "change",
    [{"strength": 0.0}, {"fourier_share": 0.0}, {"strength": 0.0, "method": "statistics"}],
)
def test_nothing_mixed_in_gives_the_same_pixels(tmp_path: Path, manifest: pd.DataFrame, change: dict) -> None:
    recipe = dataclasses.replace(RECIPE, n_per_image=1, short_side_px=18, **change)
    made(tmp_path / "out", manifest, recipe)
    for found in read_synthetic(tmp_path / "out/images.csv").itertuples():
        assert (pixels_of(tmp_path / "out" / found.path) == pixels_of(tmp_path / f"images/{found.parent_id}.png")).all()


# What is drawn


def test_only_training_images_are_moved_and_only_learnt_ones_lend_their_look(manifest: pd.DataFrame) -> None:
    rows = drawn(manifest, dataclasses.replace(RECIPE, n_per_image=40))
    assert set(rows["parent_id"]) == {f"a{i}" for i in range(6)}
    assert set(rows["target_id"]) == {f"c{i}" for i in range(4)}
    assert set(rows["method"]) == {"fourier"}
    assert set(rows["origin"]) == {"synthetic"}
    labels = manifest.set_index("image_id")["label"]
    assert (rows["label"] == rows["parent_id"].map(labels)).all()
    assert rows["target_path"].tolist() == [f"{image_id}.png" for image_id in rows["target_id"]]


def test_no_target_label_is_looked_at(manifest: pd.DataFrame) -> None:
    hidden = manifest.assign(label=manifest["label"].where(manifest["domain"] == "source", ""))
    pd.testing.assert_frame_equal(drawn(manifest, RECIPE), drawn(hidden, RECIPE))


def test_mixes_are_even_up_to_the_strength(manifest: pd.DataFrame) -> None:
    mixes = drawn(manifest, dataclasses.replace(RECIPE, n_per_image=200, strength=0.4))["mix"]
    assert 0 <= mixes.min() < 0.01
    assert 0.39 < mixes.max() <= 0.4
    assert mixes.mean() == pytest.approx(0.2, abs=4 * 0.4 / 12**0.5 / 1200**0.5)


def test_the_cap_is_even_over_labels_and_keeps_each_image(manifest: pd.DataFrame) -> None:
    everything = drawn(manifest, RECIPE).set_index("image_id")
    capped = drawn(manifest, dataclasses.replace(RECIPE, n_max=6)).set_index("image_id")
    assert capped["label"].value_counts().to_dict() == {"cat": 3, "dog": 3}
    pd.testing.assert_frame_equal(capped, everything.loc[capped.index])
    assert len(everything) == 12


def test_a_synthetic_id_is_no_hash_of_a_path(manifest: pd.DataFrame) -> None:
    ids = [synthetic_id(f"{i:016x}", k) for i in range(50) for k in range(20)]
    assert len(set(ids)) == 1000
    assert {len(image_id) for image_id in ids} == {16}
    assert all(re.fullmatch("[0-9a-f]{16}", image_id) is None for image_id in ids)


@pytest.mark.parametrize(
    ("where", "change", "message"),
    [
        ({"domain": "target"}, {"split": "test"}, "there is no target image to learn a look from"),
        ({"domain": "source"}, {"split": "val"}, "there is no labelled source training image to move"),
        ({"domain": "source"}, {"label": ""}, "there is no labelled source training image to move"),
        ({"domain": "target"}, {"origin": "synthetic"}, "a domain is called 'synthetic', the word that marks"),
    ],
)
def test_nothing_to_draw_from_is_refused(manifest: pd.DataFrame, where: dict, change: dict, message: str) -> None:
    column, value = next(iter(where.items()))
    for name, changed in change.items():
        manifest.loc[manifest[column] == value, name] = changed
    with pytest.raises(ValueError, match=message) as caught:
        drawn(manifest, RECIPE)
    assert str(caught.value).endswith("; or set synthesise_images.n_per_image to 0")
    assert drawn(manifest, dataclasses.replace(RECIPE, n_per_image=0)).empty


# Bytes


@pytest.mark.parametrize("method", ["statistics", "fourier"])
def test_the_same_seed_gives_the_same_bytes_in_any_order(tmp_path: Path, manifest: pd.DataFrame, method: str) -> None:
    recipe = dataclasses.replace(RECIPE, method=method)
    first = made(tmp_path / "one", manifest, recipe)
    assert made(tmp_path / "two", manifest.sample(frac=1, random_state=1), recipe) == first
    other = made(tmp_path / "three", manifest, dataclasses.replace(recipe, seed=1))
    assert other.keys() == first.keys()
    assert all(other[name] != data for name, data in first.items())
    assert len(set(first.values())) == len(first) == 13


def test_the_table_tells_where_each_image_comes_from(tmp_path: Path, manifest: pd.DataFrame) -> None:
    files = made(tmp_path / "out", manifest, RECIPE)
    table = read_synthetic(tmp_path / "out/images.csv")
    assert list(table) == COLUMNS
    assert set(files) == {"images.csv", *table["path"]}
    assert [content_id_of(files[path]) for path in table["path"]] == list(table["content_id"])
    drawn_mixes = drawn(manifest, RECIPE)["mix"]
    assert table["mix"].tolist() == drawn_mixes.tolist()


def test_an_image_can_be_made_again_from_its_row(tmp_path: Path, manifest: pd.DataFrame) -> None:
    made(tmp_path / "out", manifest, dataclasses.replace(RECIPE, short_side_px=18))
    found = read_synthetic(tmp_path / "out/images.csv").iloc[3]
    parent, target = (pixels_of(tmp_path / f"images/{i}.png") for i in (found.parent_id, found.target_id))
    wanted = with_amplitude(parent, target, found.mix, RECIPE.fourier_share)
    pixels = pixels_of(tmp_path / "out" / found.path)
    assert np.abs(pixels - np.clip(wanted, 0, 255)).max() <= 0.5 + 1e-9
    assert np.abs(pixels - parent).max() > 5


def test_images_keep_the_parents_aspect_and_never_grow(tmp_path: Path, manifest: pd.DataFrame) -> None:
    Image.new("RGB", (64, 32), "red").save(tmp_path / "images/a0.png")
    Image.new("RGB", (9, 7), "red").save(tmp_path / "images/a1.png")
    made(tmp_path / "out", manifest, RECIPE)
    table = read_synthetic(tmp_path / "out/images.csv")
    shapes = {found.parent_id: pixels_of(tmp_path / "out" / found.path).shape for found in table.itertuples()}
    assert shapes["a0"] == (16, 32, 3)
    assert shapes["a1"] == (7, 9, 3)


def test_switched_off_it_writes_an_empty_table(tmp_path: Path, manifest: pd.DataFrame) -> None:
    files = made(tmp_path / "out", manifest, dataclasses.replace(RECIPE, n_per_image=0))
    assert files == {"images.csv": (",".join(COLUMNS) + "\n").encode()}
    table = read_synthetic(tmp_path / "out/images.csv")
    assert len(table) == 0
    rows = manifest_rows(table, manifest)
    assert len(rows) == 0
    assert list(rows) == list(manifest)


def test_a_vanished_image_is_named(tmp_path: Path, manifest: pd.DataFrame) -> None:
    (tmp_path / "images/a3.png").unlink()
    with pytest.raises(ValueError, match=r"a3\.png changed or vanished since build_manifest \(FileNotFoundError\)"):
        made(tmp_path / "out", manifest, RECIPE)


# The table


def test_rows_carry_group_and_audit_columns_and_stay_marked(tmp_path: Path, manifest: pd.DataFrame) -> None:
    made(tmp_path / "out", manifest, RECIPE)
    table = read_synthetic(tmp_path / "out/images.csv")
    rows = manifest_rows(table, manifest)
    assert list(rows) == list(manifest)
    assert set(rows["origin"]) == {"synthetic"}
    assert set(rows["domain"]) == {"source"}
    assert set(rows["split"]) == {"train"}
    assert set(rows["audit_age"]) == {"old"}
    assert rows["group_id"].tolist() == [f"g{parent}" for parent in table["parent_id"]]
    for name in ("image_id", "content_id", "path", "label"):
        assert rows[name].tolist() == table[name].tolist()


@pytest.mark.parametrize(
    ("parent_id", "label"), [("b0", "cat"), ("b1", "cat"), ("c1", "dog"), ("a0", "dog"), ("x", "cat")]
)
def test_a_parent_that_is_not_trained_on_is_refused(
    tmp_path: Path, manifest: pd.DataFrame, parent_id: str, label: str
) -> None:
    made(tmp_path / "out", manifest, RECIPE)
    table = read_synthetic(tmp_path / "out/images.csv")
    table.loc[5, ["parent_id", "label"]] = [parent_id, label]
    message = (
        f"1 synthetic images have a parent that is no source training image of their label, the first: {parent_id};"
    )
    with pytest.raises(ValueError, match=message):
        manifest_rows(table, manifest)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("origin", "photo", "1 rows with another origin than 'synthetic'"),
        ("image_id", None, "1 rows with an image_id that stands there twice"),
        ("image_id", "0123456789abcdef", "1 rows with an image_id of a real image"),
        ("label", "", "1 rows with no label"),
    ],
)
def test_an_edited_table_is_refused(
    tmp_path: Path, manifest: pd.DataFrame, column: str, value: str | None, message: str
) -> None:
    made(tmp_path / "out", manifest, RECIPE)
    path = tmp_path / "out/images.csv"
    table = pd.read_csv(path, dtype=str)
    table.loc[2, column] = table.loc[1, column] if value is None else value
    table.to_csv(path, index=False)
    with pytest.raises(ValueError, match=message):
        read_synthetic(path)


def test_lacking_columns_are_named(tmp_path: Path) -> None:
    (tmp_path / "images.csv").write_text("image_id,content_id,path,label,origin,parent_id,method\n")
    with pytest.raises(ValueError, match="has no column target_id, mix; run `dvc repro synthesise_images`"):
        read_synthetic(tmp_path / "images.csv")
    with pytest.raises(FileNotFoundError, match="made by the stage synthesise_images"):
        read_synthetic(tmp_path / "absent.csv")
