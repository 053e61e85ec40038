"""What a file's header tells, whatever the format; and that pixels are measured as later stages read them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from tasks.core import headers
from tasks.core.facts import measure_image
from tasks.core.images import open_upright
from tasks.core.measures import measure_pixels

CHECKS = np.kron(np.indices((4, 8)).sum(0) % 2, np.ones((4, 4))).astype(np.uint8) * 255  # 16 x 32, half white
NOISE = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)


def encoded(pixels: np.ndarray | Image.Image = CHECKS, fmt: str = "png", **options: object) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int, colour: int, rows: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_sizes_are_those_in_the_file_and_pixels_are_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for fmt in ("jpeg", "png", "webp"):
        data = encoded(NOISE, fmt, exif=exif)
        facts = measure_image(data)
        assert (facts["width_px"], facts["height_px"], facts["exif_orientation"]) == (53, 37, orientation)
        assert facts["pixel_hash"] == measure_pixels(np.asarray(open_upright(io.BytesIO(data))))["pixel_hash"]


@pytest.mark.parametrize("nonsense", [0, 9, 65535])
def test_a_nonsense_orientation_is_none(nonsense: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = nonsense
    assert measure_image(encoded(NOISE, "jpeg", exif=exif))["exif_orientation"] == 1


def test_an_orientation_that_is_text_is_none() -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[0x0112], tags.tagtype[0x0112] = "six", 2
    image = Image.fromarray(NOISE)
    facts = measure_image(encoded(image, "tiff", tiffinfo=tags))
    assert (facts["exif_orientation"], facts["error"]) == (1, "")


def sample_of(mode: str) -> Image.Image:
    rgba = Image.fromarray(np.dstack([NOISE, NOISE[..., ::-1][..., 0]]))
    return rgba.convert("RGB").quantize(16) if mode == "P" else rgba.convert(mode)


@pytest.mark.parametrize(
    ("mode", "fmt", "has_alpha"),
    [
        ("RGB", "png", False), ("RGBA", "png", True), ("L", "png", False), ("LA", "png", True), ("1", "png", False),
        ("P", "png", False), ("P", "gif", False), ("CMYK", "jpeg", False), ("L", "jpeg", False),
        ("RGBA", "webp", True), ("RGBA", "tiff", True), ("CMYK", "tiff", False), ("1", "ppm", False),
    ],
)  # fmt: skip
def test_every_mode_is_measured_as_it_will_be_read(mode: str, fmt: str, has_alpha: bool) -> None:
    options = {"lossless": True} if fmt == "webp" else {}
    data = encoded(sample_of(mode), fmt, **options)
    facts = measure_image(data)
    assert (facts["error"], facts["has_alpha"], facts["n_bits"]) == ("", has_alpha, 8)
    as_read = measure_pixels(np.asarray(open_upright(io.BytesIO(data))))
    assert {name: facts[name] for name in as_read} == as_read


def test_a_transparency_entry_is_alpha_even_for_grey_and_palettes() -> None:
    assert measure_image(encoded(CHECKS, "png", transparency=0))["has_alpha"] is True
    assert measure_image(encoded(sample_of("P"), "png", transparency=3))["has_alpha"] is True
    assert measure_image(encoded(sample_of("P"), "gif", transparency=3))["has_alpha"] is True


def test_transparency_is_laid_over_white() -> None:
    assert measure_image(encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0))))["brightness"] == 1


@pytest.mark.parametrize(
    ("data", "bits", "is_measured"),
    [
        (encoded(CHECKS.astype(np.uint16) * 100), 16, False),
        (encoded(CHECKS.astype(np.uint16) * 100, "tiff"), 16, False),
        (encoded(CHECKS.astype(np.int32) * 100, "tiff"), 32, False),
        (encoded(CHECKS.astype(np.float32), "tiff"), 32, False),
        (png(1, 2, 16, 2, (b"\0" + b"\x01\x02" * 3) * 2), 16, True),  # colours, reduced by the decoder
        (png(1, 2, 16, 6, (b"\0" + b"\x01\x02" * 4) * 2), 16, True),
        (png(1, 2, 16, 4, (b"\0" + b"\x01\x02" * 2) * 2), 16, True),
        (png(1, 2, 8, 2, (b"\0" + b"\x01" * 3) * 2), 8, True),
        (b"P6 2 1 65535 " + bytes(12), 16, True),
        (b"P6 2 1 255 " + bytes(6), 8, True),
        (encoded(Image.new("1", (9, 9))), 8, True),
    ],
)
def test_more_than_eight_bits_are_told_and_are_no_error(data: bytes, bits: int, is_measured: bool) -> None:
    facts = measure_image(data)
    assert (facts["n_bits"], facts["error"]) == (bits, "")
    assert (facts["brightness"] is not None) == is_measured
    assert facts["width_px"]
    assert facts["exif_orientation"] == 1


def test_sixteen_bit_colours_in_a_tiff_are_told() -> None:
    pixels = struct.pack("<6H", *range(0, 60000, 10000))
    entries = [(256, 4, 1, 2), (257, 4, 1, 1), (258, 3, 3, 200), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 210)]
    entries += [(277, 3, 1, 3), (278, 4, 1, 1), (279, 4, 1, len(pixels))]
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    data = (head + bytes(4)).ljust(200, b"\0") + struct.pack("<3H", 16, 16, 16).ljust(10, b"\0") + pixels
    assert measure_image(data)["n_bits"] == 16


@pytest.mark.parametrize(("fmt", "n"), [("gif", 1), ("gif", 3), ("tiff", 3), ("webp", 3), ("png", 3), ("tiff", 1)])
def test_frames_are_counted(fmt: str, n: int) -> None:
    frames = [Image.fromarray(np.roll(NOISE, i)) for i in range(n)]
    assert measure_image(encoded(frames[0], fmt, save_all=True, append_images=frames[1:]))["n_frames"] == n


def test_frames_of_a_gif_with_all_kinds_of_blocks_are_counted_as_pillow_does() -> None:
    frames = [sample_of("P"), *(Image.fromarray(np.roll(NOISE, i)).quantize(7 + i) for i in range(5))]
    data = encoded(
        frames[0], "gif", save_all=True, append_images=frames[1:], comment=b"c" * 600, loop=0, duration=[10] * 6
    )
    assert measure_image(data)["n_frames"] == Image.open(io.BytesIO(data)).n_frames == 6
    assert measure_image(data)["pixel_hash"] == measure_image(encoded(frames[0], "png"))["pixel_hash"], "the first one"


@pytest.mark.parametrize("fmt", ["gif", "tiff", "png"])
def test_frames_beyond_the_limit_are_not_counted(fmt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "MAX_FRAMES", 4)
    frames = [Image.fromarray(np.roll(NOISE, i)) for i in range(9)]
    data = encoded(frames[0], fmt, save_all=True, append_images=frames[1:])
    assert (measure_image(data)["n_frames"], measure_image(data)["error"]) == (4, "")


def test_the_preview_in_a_cameras_file_is_no_second_picture() -> None:
    other = Image.fromarray(NOISE[:8, :8])
    facts = measure_image(encoded(NOISE, "mpo", save_all=True, append_images=[other]))
    assert (facts["format"], facts["n_frames"]) == ("mpo", 1)


def test_the_same_pixels_have_one_hash_whatever_the_file() -> None:
    hashes = {measure_image(encoded(CHECKS, fmt))["pixel_hash"] for fmt in ("png", "bmp", "tiff", "ppm")}
    assert len(hashes) == 1
    assert measure_image(encoded(CHECKS.reshape(32, 16)))["pixel_hash"] not in hashes, "same bytes in another shape"
