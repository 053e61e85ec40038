"""What a request brings: bounded bytes, and the images in them."""

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from starlette.requests import Request

    from tasks.core.classifier import Classifier

FORM = "multipart/form-data"
MAX_BOUNDARY = 70  # RFC 2046


@dataclass(frozen=True)
class Limits:
    """What one request may bring and take, and how many may be in hand at once."""

    image_bytes: int
    image_pixels: int
    n_images: int
    request_bytes: int
    n_at_once: int
    timeout_s: float


@dataclass(frozen=True)
class Upload:
    name: str
    content: bytes


class RefusedError(Exception):
    """A request that can't be answered: the status, and one sentence for who sent it."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


async def read_body(request: "Request", limits: Limits) -> bytes:
    """RefusedError 413 as soon as it is known to be too long, told or counted."""
    told = request.headers.get("content-length", "")
    too_long = RefusedError(
        413, f"the request is larger than {limits.request_bytes} bytes; send fewer or smaller images at a time"
    )
    if told.isascii() and told.isdigit() and (len(told) > 18 or int(told) > limits.request_bytes):
        raise too_long
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limits.request_bytes:
            raise too_long
    return bytes(body)


def uploads(content_type: str, body: bytes, limits: Limits) -> list[Upload]:
    """The images of a form, or the body as the one image. RefusedError where there is none, or too many or too large ones."""
    found = _of_form(content_type, body, limits) if is_form(content_type) else [Upload("image", body)]
    if not found or not any(each.content for each in found):
        raise RefusedError(400, f"the request holds no image; send one as the body, or several as files of {FORM}")
    if long := [each.name for each in found if len(each.content) > limits.image_bytes]:
        raise RefusedError(413, f"{_names(long)}: larger than {limits.image_bytes} bytes; send smaller images")
    return found


def is_form(content_type: str) -> bool:
    return content_type.split(";")[0].strip().lower() == FORM


def _of_form(content_type: str, body: bytes, limits: Limits) -> list[Upload]:
    """Every file of the form, in its order; other fields are left out."""
    from werkzeug.exceptions import RequestEntityTooLarge
    from werkzeug.http import parse_options_header
    from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder

    boundary = parse_options_header(content_type)[1].get("boundary", "")
    if not boundary or not boundary.isascii() or len(boundary) > MAX_BOUNDARY:
        raise RefusedError(400, f"the {FORM} says no usable boundary; let your HTTP library write the content type")
    decoder = MultipartDecoder(boundary.encode(), max_parts=limits.n_images)
    found: list[Upload] = []
    try:
        decoder.receive_data(body)
        decoder.receive_data(None)
        event: object = None
        while not isinstance(event, Epilogue):
            event = decoder.next_event()
            if isinstance(event, File):
                found.append(Upload(_told_name(event.filename, len(found)), b""))
            elif isinstance(event, Field):
                raise RefusedError(
                    400, f"the part {_told_name(event.name, len(found))} of the {FORM} is no file; send files only"
                )
            elif isinstance(event, Data):
                found[-1] = Upload(found[-1].name, found[-1].content + event.data)
    except RequestEntityTooLarge:
        raise RefusedError(413, f"more than {limits.n_images} images in a request; send fewer at a time") from None
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise RefusedError(
            400, f"the {FORM} is damaged ({type(error).__name__}); let your HTTP library write it"
        ) from None
    return found


def _told_name(name: str | None, number: int) -> str:
    """Printable and short: it goes into answers."""
    text = "".join(letter if letter.isprintable() else "?" for letter in name or f"image {number + 1}")
    return text.encode(errors="replace").decode()[:200]


def pixels_of(found: list[Upload], classifier: "Classifier", limits: Limits) -> list[np.ndarray]:
    """As the network is shown them. RefusedError names all that are too large or can't be read."""
    from PIL.Image import DecompressionBombError, DecompressionBombWarning

    pixels: list[np.ndarray] = []
    large: list[str] = []
    unread: list[str] = []
    for each in found:
        try:
            if n_pixels(each.content) > limits.image_pixels:
                large.append(each.name)
            else:
                pixels.append(classifier.read(BytesIO(each.content)))
        except (DecompressionBombError, DecompressionBombWarning):
            large.append(each.name)
        except Exception as error:  # decoders raise anything
            unread.append(f"{each.name} ({type(error).__name__})")
    if large:
        raise RefusedError(413, f"{_names(large)}: more than {limits.image_pixels} pixels; send smaller images")
    if unread:
        told = f"can't be read as an image: {_names(unread)}"
        raise RefusedError(400, f"{told}; send whole JPEG, PNG, WebP, TIFF, GIF or BMP files")
    return pixels


def n_pixels(content: bytes) -> int:
    """By the header; nothing is decoded."""
    from PIL import Image

    from tasks.core.headers import DECODED

    with Image.open(BytesIO(content), formats=DECODED) as image:
        return image.width * image.height


def _names(names: list[str]) -> str:
    return ", ".join(names)
