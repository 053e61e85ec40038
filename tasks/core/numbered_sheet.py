"""A sheet of numbered thumbnails, for a person who is to look at images one by one.

Axes: H height, W width.
"""

from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw

PER_ROW, GAP_PX, LINE_PX = 8, 4, 14


def numbered_sheet(thumbnails: list[np.ndarray]) -> bytes:
    """PNG of the (side, side, 3) uint8 squares, eight in a row, each under its number from 1 on; empty: one blank pixel."""
    if not thumbnails:
        return _png(Image.new("RGB", (1, 1), "white"))
    side = thumbnails[0].shape[0]
    width, height = side + GAP_PX, side + GAP_PX + LINE_PX
    n_rows = -(-len(thumbnails) // PER_ROW)
    sheet = Image.new("RGB", (width * min(len(thumbnails), PER_ROW) + GAP_PX, height * n_rows + GAP_PX), "white")
    draw = ImageDraw.Draw(sheet)
    for place, thumbnail in enumerate(thumbnails):
        left, top = GAP_PX + place % PER_ROW * width, GAP_PX + place // PER_ROW * height
        draw.text((left, top), str(place + 1), fill="black")
        sheet.paste(Image.fromarray(thumbnail), (left, top + LINE_PX))
    return _png(sheet)


def _png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
