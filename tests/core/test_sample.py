"""The sample: what its images and its zoo promise."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks.core.files import file_sha256, read_json, read_table
from tasks.core.sample import (
    BLOCK_STARTS,
    COLUMNS,
    DIGITS,
    DIGITS_LOWRES,
    glyph,
    handwriting,
    lean,
    render,
    slant_groups,
    split_of_block,
    usable_fonts,
    write_images,
    write_sample_table,
)
from tasks.core.sample_zoo import RANDOM, SOURCES, Pretraining, check_names, write_zoo
from tasks.core.zoo_file import read_zoo

TINY = Pretraining(n_images=40, n_val_images=30, n_epochs=1, batch_size=20, lr=0.003, device="cpu")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("sample") / "images"
    table = write_images(folder, n_source_images=20, seed=0)
    assert all((folder / path).is_file() for path in table["path"])
    write_sample_table(folder.parent / "images.csv", table)
    return read_table(folder.parent / "images.csv", made_by="make_sample")


def test_blocks_cover_all_handwriting() -> None:
    sizes = np.bincount(handwriting().blocks)
    assert len(sizes) == 14
    assert sizes.sum() == 1797
    assert sizes.tolist() == np.diff([*BLOCK_STARTS, 1797]).tolist()


def test_labels_repeat_from_block_to_block() -> None:
    hand = handwriting()
    first = hand.labels[hand.blocks == 0]
    same = [np.mean(block[:60] == first[:60]) for block in (hand.labels[hand.blocks == b] for b in range(1, 14))]
    chance = 0.1
    assert np.median(same) > 5 * chance


@pytest.mark.parametrize(
    ("block", "split"), [(0, "train"), (5, "train"), (6, "val"), (7, "val"), (8, "test"), (13, "test")]
)
def test_blocks_belong_to_one_split(block: int, split: str) -> None:
    assert split_of_block(block) == split


def test_lean_is_positive_where_the_top_is_further_right() -> None:
    rising = np.fliplr(np.eye(4))
    assert lean(np.stack([rising, np.eye(4)])).tolist() == pytest.approx([1, -1])


def test_slant_groups_are_thirds_of_each_label() -> None:
    leans, labels = np.array([0.1, 0.2, 0.3, 9.0, 7.0, 8.0]), np.array([1, 1, 1, 7, 7, 7])
    assert slant_groups(leans, labels).tolist() == ["left", "upright", "right", "right", "left", "upright"]


def test_every_font_shows_ten_different_digits() -> None:
    assert len(usable_fonts()) >= 15
    for font in usable_fonts():
        shapes = [glyph(digit, font) for digit in DIGITS]
        assert min(shape.sum() for shape in shapes) > 100, font
        assert min(np.abs(a - b).sum() for i, a in enumerate(shapes) for b in shapes[:i]) > 30, font


def test_symbol_fonts_are_left_out() -> None:
    names = {font.stem for font in usable_fonts()}
    assert names.isdisjoint({"cmex10", "cmsy10", "LastResortHE-Regular", "STIXNonUni", "DejaVuSansDisplay"})


@pytest.mark.parametrize("name", SOURCES)
def test_an_image_depends_on_its_address_alone(name: str) -> None:
    kind = SOURCES[name].kind
    forwards = [render(kind, index, 0, "here").pixels for index in range(3)]
    backwards = [render(kind, index, 0, "here").pixels for index in (2, 1, 0)][::-1]
    assert np.array_equal(forwards, backwards)
    assert not np.array_equal(forwards[0], render(kind, 0, 0, "there").pixels)
    assert forwards[0].shape == (32, 32, 3)
    assert forwards[0].dtype == np.uint8


def test_labels_take_turns() -> None:
    assert "".join(render(DIGITS_LOWRES, index, 0).label for index in range(12)) == "012345678901"


def test_table_holds_both_domains(table: pd.DataFrame) -> None:
    assert table.columns.tolist() == COLUMNS
    assert table["path"].is_unique
    fonts, hand = table[table["domain"] == "fonts"], table[table["domain"] == "handwriting"]
    assert (len(fonts), len(hand)) == (20, 1797)
    assert (fonts[["split", "inferred_block", "slant"]] == "").all(axis=None)
    assert set(fonts["group"]) <= {font.stem for font in usable_fonts()}
    assert (hand["group"] == hand["inferred_block"]).all()
    assert hand["split"].value_counts().to_dict() == {"test": 768, "train": 776, "val": 253}
    assert set(hand["slant"]) == {"left", "upright", "right"}
    assert (table["label"].str.fullmatch(r"\d")).all()


def test_images_are_the_same_bytes_twice(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_images(tmp_path / name, n_source_images=3, seed=0)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.png"))
    assert len(files) == 1800
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)
    with Image.open(tmp_path / "a" / files[0]) as image:
        assert (image.size, image.mode) == ((32, 32), "RGB")


def test_the_table_without_a_sample_is_a_header(tmp_path: Path) -> None:
    write_sample_table(tmp_path / "images.csv")
    assert (tmp_path / "images.csv").read_text() == ",".join(COLUMNS) + "\n"


def test_zoo_describes_its_files(tmp_path: Path) -> None:
    write_zoo(tmp_path / "a", dict.fromkeys(SOURCES, TINY), seed=0)
    models = read_json(tmp_path / "a/zoo.json", made_by="make_sample")["models"]
    expected = {
        *("name", "arch", "file", "sha256", "dtype", "num_classes", "feature_dim", "mean", "std", "input_size"),
        *("interpolation", "labels", "source_domain", "license", "origin", "source_val_accuracy", "n_source_images"),
    }
    assert [model["name"] for model in models] == [*SOURCES, RANDOM]
    assert models.pop() == {"name": RANDOM, "like": next(iter(SOURCES)), "seed": 0}
    for model in models:
        assert set(model) == expected
        assert model["sha256"] == file_sha256(tmp_path / "a" / model["file"])
        assert model["num_classes"] == len(SOURCES[model["name"]].kind.labels)
        assert (model["feature_dim"], model["n_source_images"]) == (128, 40)
        assert 0 <= model["source_val_accuracy"] <= 1
    found = read_zoo(tmp_path / "a", None)
    assert [(candidate.name, candidate.is_scratch) for candidate in found][-2:] == [("textures", False), (RANDOM, True)]


def test_pretraining_repeats_and_follows_the_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_zoo(tmp_path / name, {"textures": TINY}, seed=seed)
    a, b, c = (file_sha256(tmp_path / name / "textures.safetensors") for name in "abc")
    assert a == b != c


def test_settings_name_exactly_the_zoo() -> None:
    check_names({"zoo_images": dict.fromkeys(SOURCES, 1)})
    with pytest.raises(ValueError, match="zoo_epochs has digits; give one value for each of digits_lowres, "):
        check_names({"zoo_images": dict.fromkeys(SOURCES, 1), "zoo_epochs": {"digits": 3}})
