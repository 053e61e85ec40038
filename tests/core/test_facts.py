"""Facts of images that were made to have them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.core.facts import COLUMNS, difference_hash, measure_image, measure_images, measure_pixels, read_facts
from tasks.core.files import write_table

CHECKS = np.kron(np.indices((4, 8)).sum(0) % 2, np.ones((4, 4))).astype(np.uint8) * 255  # 16 x 32, half white


def save(path: Path, array: np.ndarray = CHECKS, **options: object) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def test_facts_of_a_known_image(tmp_path: Path) -> None:
    facts = measure_image(save(tmp_path / "a.png"))
    assert {key: facts[key] for key in COLUMNS[1:9]} == {
        "width_px": 32, "height_px": 16, "mode": "L", "format": "png", "n_frames": 1, "exif_orientation": 1,
        "brightness": 0.5, "contrast": 0.5,
    }  # fmt: skip
    assert facts["error"] == ""
    assert set(facts) == set(COLUMNS) - {"image_id"}


def test_a_flat_image_has_neither_contrast_nor_sharpness() -> None:
    facts = measure_pixels(np.full((8, 8, 3), 51, np.uint8))
    assert (facts["brightness"], facts["contrast"], facts["sharpness"]) == (0.2, 0, 0)


def test_frames_and_orientation_are_counted(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.roll(CHECKS, i)) for i in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "b.jpg", exif=exif)
    assert measure_image(tmp_path / "a.gif")["n_frames"] == 3
    assert measure_image(tmp_path / "b.jpg")["exif_orientation"] == 6


def test_the_same_pixels_have_one_hash_whatever_the_file(tmp_path: Path) -> None:
    hashes = {name: measure_image(save(tmp_path / name))["pixel_hash"] for name in ("a.png", "b.bmp", "c.tif")}
    assert len(set(hashes.values())) == 1
    other = measure_image(save(tmp_path / "d.png", CHECKS.reshape(32, 16)))["pixel_hash"]
    assert other != hashes["a.png"], "same bytes in another shape"


def test_the_difference_hash_is_that_of_its_definition() -> None:
    ramp = np.tile(np.arange(9, dtype=np.uint8) * 20, (8, 1))
    assert difference_hash(ramp) == "ff" * 8
    assert difference_hash(ramp[:, ::-1].copy()) == "00" * 8


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.png", b"no image"),
        ("empty.jpg", b""),
        ("gone.png", None),
        ("header.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 30),
    ],
)
def test_what_cannot_be_decoded_has_its_error_as_only_fact(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    facts = measure_image(tmp_path / name)
    assert list(facts) == ["error"]
    assert facts["error"]
    assert str(tmp_path) not in str(facts["error"]), "facts hold no machine's folders"
    assert "\n" not in str(facts["error"])


def test_a_truncated_image_is_an_error(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    whole = save(tmp_path / "whole.jpg", noise).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    assert "truncated" in str(measure_image(tmp_path / "cut.jpg")["error"])


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_more_than_eight_bits_are_refused_not_misread(tmp_path: Path, dtype: type) -> None:
    path = save(tmp_path / "deep.tif", CHECKS.astype(dtype) * 100)
    assert "more than 8 bits" in str(measure_image(path)["error"])


def test_facts_come_in_the_order_given_and_are_read_as_numbers(tmp_path: Path) -> None:
    for number in range(20):
        save(tmp_path / f"{number}.png", np.full((4, 4 + number), number, np.uint8))
    paths = [f"{number}.png" for number in reversed(range(20))] + ["gone.png"]
    write_table(tmp_path / "facts.csv", measure_images(tmp_path, [f"i{p}" for p in paths], paths))
    facts = read_facts(tmp_path / "facts.csv")
    assert list(facts["image_id"]) == [f"i{p}" for p in paths]
    assert list(facts["width_px"][:20]) == [23 - number for number in range(20)]
    assert facts.iloc[20][["width_px", "contrast"]].isna().all()
    assert list(facts.columns) == COLUMNS


def test_facts_of_nothing_are_an_empty_table(tmp_path: Path) -> None:
    write_table(tmp_path / "facts.csv", measure_images(tmp_path, [], []))
    assert len(read_facts(tmp_path / "facts.csv")) == 0
