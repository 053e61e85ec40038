"""Images: upright RGB pixels whatever the file holds, or a refusal."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.core import images
from tasks.core.images import MADE, ImageFiles, open_upright, read_square

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def four_corners() -> Image.Image:
    """Red, green; blue, white."""
    return Image.fromarray(np.array([[RED, GREEN], [BLUE, (255, 255, 255)]], np.uint8))


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, [[RED, GREEN], [BLUE, (255,) * 3]]),
        (2, [[GREEN, RED], [(255,) * 3, BLUE]]),  # mirrored
        (3, [[(255,) * 3, BLUE], [GREEN, RED]]),  # upside down
        (6, [[BLUE, RED], [(255,) * 3, GREEN]]),  # a quarter turn clockwise to stand upright
        (8, [[GREEN, (255,) * 3], [RED, BLUE]]),  # and anticlockwise
    ],
)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, expected: list) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    four_corners().save(tmp_path / "x.png", exif=exif)
    assert np.asarray(open_upright(tmp_path / "x.png")).tolist() == np.array(expected).tolist()


def test_a_turned_photograph_is_cropped_after_turning(tmp_path: Path) -> None:
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, :10] = RED  # as stored: left third; upright by a clockwise turn: top third
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    assert open_upright(tmp_path / "x.png").size == (10, 30)
    assert np.asarray(open_upright(tmp_path / "x.png"))[0, 0].tolist() == list(RED)
    assert read_square(tmp_path / "x.png", 10).max() == 0  # the middle third is black


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    rgba = np.array([[[*RED, 255], [*RED, 0], [0, 0, 0, 51]]], np.uint8)
    Image.fromarray(rgba).save(tmp_path / "x.png")
    # 51/255 = .2 black over white: .8 · 255 = 204
    assert np.asarray(open_upright(tmp_path / "x.png"))[0].tolist() == [list(RED), [255] * 3, [204] * 3]


def test_grey_with_transparency(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[100, 255], [100, 0]]], np.uint8)).save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as stored:
        assert stored.mode == "LA"
    assert np.asarray(open_upright(tmp_path / "x.png"))[0].tolist() == [[100] * 3, [255] * 3]


@pytest.mark.parametrize("transparent", [1, bytes([255, 0, 255])])
def test_palette_with_a_transparent_colour(tmp_path: Path, transparent: int | bytes) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    image.save(tmp_path / "x.png", transparency=transparent)
    assert np.asarray(open_upright(tmp_path / "x.png"))[0].tolist() == [list(RED), [255] * 3, list(BLUE)]


def test_one_colour_of_an_rgb_image_marked_transparent(tmp_path: Path) -> None:
    four_corners().save(tmp_path / "x.png", transparency=BLUE)
    found = np.asarray(open_upright(tmp_path / "x.png"))
    assert found[1, 0].tolist() == [255] * 3
    assert found[0, 0].tolist() == list(RED)


@pytest.mark.parametrize(("mode", "colour", "expected"), [("L", 90, [90] * 3), ("1", 1, [255] * 3), ("P", 0, [0] * 3)])
def test_grey_black_and_white_and_palette_become_rgb(tmp_path: Path, mode: str, colour: int, expected: list) -> None:
    Image.new(mode, (4, 4), colour).save(tmp_path / "x.png")
    found = open_upright(tmp_path / "x.png")
    assert found.mode == "RGB"
    assert np.asarray(found)[0, 0].tolist() == expected


def test_cmyk_is_read_as_colours_of_light(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "x.jpg", quality=95)
    red, green, blue = np.asarray(open_upright(tmp_path / "x.jpg"))[8, 8].astype(int)
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize(
    ("dtype", "suffix"), [(np.uint16, "png"), (np.uint16, "tif"), (np.int32, "tif"), (np.float32, "tif")]
)
def test_more_than_8_bits_are_refused(tmp_path: Path, dtype: type, suffix: str) -> None:
    Image.fromarray(np.full((4, 4), 40000, dtype)).save(tmp_path / f"x.{suffix}")
    with pytest.raises(ValueError, match="has more than 8 bits a channel; convert it to 8 bits"):
        open_upright(tmp_path / f"x.{suffix}")


def test_big_endian_16_bits_are_refused(tmp_path: Path) -> None:
    Image.frombytes("I;16B", (2, 1), b"\x9c\x40\x00\x01").save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match="8 bits"):
        open_upright(tmp_path / "x.tif")


@pytest.mark.parametrize(
    ("size", "kept"), [((30, 10), "columns"), ((10, 30), "rows"), ((10, 10), "all"), ((90, 30), "columns")]
)
def test_the_centre_square_is_kept(tmp_path: Path, size: tuple[int, int], kept: str) -> None:
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 3], pixels[:, -(width // 3) :] = RED, BLUE
    if kept == "rows":
        pixels[:] = 0
        pixels[: height // 3], pixels[-(height // 3) :] = RED, BLUE
    Image.fromarray(pixels).save(tmp_path / "x.png")
    found = read_square(tmp_path / "x.png", 10)
    assert found.shape == (10, 10, 3)
    assert found.dtype == np.uint8
    inner = found[1:-1, 1:-1]  # at the edge antialiasing mixes in what lies just outside
    assert (inner.max() > 0) == (kept == "all")  # the coloured ends are cut off


def test_scaling_down_averages_instead_of_dropping_pixels(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "x.png")
    assert read_square(tmp_path / "x.png", 8).astype(int)[2:-2, 2:-2] == pytest.approx(127.5, abs=6)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_extreme_shapes_give_a_full_square(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, RED).save(tmp_path / "x.png")
    assert (read_square(tmp_path / "x.png", 12) == RED).all()


def test_an_image_of_the_right_size_is_not_resampled(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert (read_square(tmp_path / "x.png", 9) == pixels).all()


def test_half_a_file_is_an_error_and_not_a_black_image(tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 50).save(tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(OSError, match="truncated"):
        open_upright(tmp_path / "x.png")


def test_each_file_is_decoded_once(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), RED).save(tmp_path / "x.png")
    files = ImageFiles(tmp_path, 4)
    first = files["x.png"]
    (tmp_path / "x.png").unlink()
    assert files["x.png"] is first


def test_bytes_in_memory_are_read_like_the_file(tmp_path: Path) -> None:
    four_corners().save(tmp_path / "x.png")
    content = io.BytesIO((tmp_path / "x.png").read_bytes())
    assert np.asarray(open_upright(content)).tolist() == [[list(RED), list(GREEN)], [list(BLUE), [255] * 3]]
    content.seek(0)
    assert (read_square(content, 2) == read_square(tmp_path / "x.png", 2)).all()


def test_images_are_read_from_an_archive_and_from_one_in_a_folder(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), BLUE).save(tmp_path / "x.png")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "x.png", "cat/x.png")
    for root, path in ((tmp_path / "a.zip", "cat/x.png"), (tmp_path, "a.zip/cat/x.png")):
        assert (ImageFiles(root, 4)[path] == BLUE).all()
    with pytest.raises(
        ValueError, match=r"a.zip/cat/y.png changed or vanished since build_manifest \(FileNotFoundError\)"
    ):
        ImageFiles(tmp_path / "a.zip", 4)["cat/y.png"]


def test_a_path_that_leads_outside_the_root_is_not_read(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
    (tmp_path / "root").mkdir()
    with pytest.raises(ValueError, match=r"root/../x.png changed or vanished since build_manifest \(ValueError\)"):
        ImageFiles(tmp_path / "root", 4)["../x.png"]


def test_the_cache_stays_within_its_bytes(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(images, "CACHE_BYTES", 2 * 48)  # two images of 4 x 4 x 3
    for k in range(4):
        Image.new("RGB", (4, 4), (k, 0, 0)).save(tmp_path / f"{k}.png")
    files = ImageFiles(tmp_path, 4)
    assert [int(files[f"{k}.png"][0, 0, 0]) for k in (0, 1, 2, 3, 0, 3)] == [0, 1, 2, 3, 0, 3]
    assert len(files._cache) == 2


def test_made_images_are_read_beside_those_of_the_root_though_they_have_their_names(tmp_path: Path) -> None:
    for folder, colour in (("root", RED), ("made", BLUE)):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (4, 4), colour).save(tmp_path / folder / "x.png")
    files = ImageFiles(tmp_path / "root", 4, made_root=tmp_path / "made")
    assert (files["x.png"] == RED).all()
    assert (files[f"{MADE}x.png"] == BLUE).all()
    assert (files["x.png"] == RED).all()
    (tmp_path / "made/y.png").write_bytes((tmp_path / "made/x.png").read_bytes())
    with pytest.raises(ValueError, match=r"y.png changed or vanished"):
        files["y.png"]  # made images stand for themselves only


def test_an_image_that_vanished_since_it_was_measured_is_named(tmp_path: Path) -> None:
    files = ImageFiles(tmp_path, 8)
    with pytest.raises(ValueError, match=r"a/gone.png changed or vanished since build_manifest \(FileNotFoundError\)"):
        files["a/gone.png"]


def test_bicubic_and_a_tighter_crop_are_what_torchvision_makes_of_them(tmp_path: Path) -> None:
    """torchvision resizes to 40 px and cuts 32 px out of the centre: .8 of the short side."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import center_crop, resize

    pixels = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    smooth = Image.fromarray(pixels).resize((80, 80), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "x.png")
    for name, mode in {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}.items():
        expected = np.asarray(center_crop(resize(smooth, 40, mode), [32, 32])).astype(int)
        found = read_square(tmp_path / "x.png", 32, name, crop_share=0.8)
        assert np.abs(found - expected).max() <= 1
    plain = read_square(tmp_path / "x.png", 32)
    assert (read_square(tmp_path / "x.png", 32, "bilinear", 1.0) == plain).all()
    assert not (read_square(tmp_path / "x.png", 32, "bicubic") == plain).all()


def test_a_crop_is_cut_out_of_an_image_that_has_the_size_already(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[2:6, 2:6] = RED
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert (read_square(tmp_path / "x.png", 8, "bilinear", crop_share=0.5)[1:-1, 1:-1] == RED).all()
    files = ImageFiles(tmp_path, 8, "bicubic", 0.5)
    assert (files["x.png"] == read_square(tmp_path / "x.png", 8, "bicubic", 0.5)).all()
