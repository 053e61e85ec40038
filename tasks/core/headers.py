"""What an opened image tells of itself besides its pixels: bits, transparency, EXIF turning, frames."""

from PIL import Image, ImageOps

DECODED = ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM")  # none that starts another program, as EPS does
REFUSED_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
EXIF_ORIENTATION = 0x0112
MAX_FRAMES = 1000  # counting more would only cost time: 1000 means 1000 or more


def upright(image: Image.Image) -> Image.Image:
    """RGB, turned as its EXIF says, transparency laid over white."""
    if orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    if has_alpha(image):
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def has_alpha(image: Image.Image) -> bool:
    return not {"A", "a"}.isdisjoint(image.getbands()) or "transparency" in image.info


def orientation(image: Image.Image) -> int:
    """1 to 8; 1 where it is absent or nonsense."""
    value = image.getexif().get(EXIF_ORIENTATION, 1)
    return int(value) if value in range(1, 9) else 1


def n_bits(image: Image.Image) -> int:
    """Bits of one channel as stored, at least 8; of an image that is not decoded yet.

    Pillow quietly drops the lower half of 16-bit colours: the tile tells.
    """
    if image.mode in ("I", "F"):
        return 32
    if image.mode in REFUSED_MODES:
        return 16
    for tile in getattr(image, "tile", []):
        arguments = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        if any(isinstance(value, str) and ";16" in value for value in arguments):
            return 16
        if tile.codec_name in ("ppm", "ppm_plain") and arguments[-1] > 255:  # the largest value
            return 16
    return 8


def n_frames(image: Image.Image, data: bytes) -> int:
    """Pictures in the file, at most MAX_FRAMES. Further ones of an MPO are the camera's own preview or depth."""
    if image.format == "MPO" or not getattr(image, "is_animated", False):
        return 1
    if image.format == "GIF":
        return _n_gif_frames(data)
    if image.format == "TIFF":
        return _n_tiff_frames(image)
    return min(int(getattr(image, "n_frames", 1)), MAX_FRAMES)  # the header says it


def _n_tiff_frames(image: Image.Image) -> int:
    for count in range(1, MAX_FRAMES):  # one by one: after a leap too far Pillow believes that so many are there
        try:
            image.seek(count)
        except EOFError:
            return count
    return MAX_FRAMES


def _n_gif_frames(data: bytes) -> int:
    """Image blocks, found by walking over the blocks without decoding any."""

    def after_colours(at: int, flags: int) -> int:
        return at + (3 << (flags & 7) + 1 if flags & 0x80 else 0)

    count, at = 0, after_colours(13, data[10])
    while count < MAX_FRAMES and at + 9 < len(data) and data[at] != 0x3B:
        kind = data[at]
        if kind not in (0x21, 0x2C):  # between blocks: decoders skip it
            at += 1
            continue
        count += kind == 0x2C
        at = after_colours(at + 10, data[at + 9]) + 1 if kind == 0x2C else at + 2
        while at < len(data) and data[at]:
            at += data[at] + 1
        at += 1
    return max(count, 1)
