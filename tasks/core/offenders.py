"""What is shown of the images that fail a rule: small pictures as data URIs, copies side by side, further paths.

The page stays small whatever the data holds: pictures are drawn until their bytes or the pixels to decode are used up.
"""

import base64
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from markupsafe import Markup
from PIL import Image, ImageOps

from tasks.core.checks import COPIES
from tasks.core.headers import DECODED, REFUSED_MODES
from tasks.core.images import open_upright

SIDE_PX = 96
MAX_IMAGES, MAX_GROUPS, MAX_MEMBERS = 12, 12, 6
MAX_PATHS, PAGE_PATHS = 200, 2500  # of one rule; of all rules together
MAX_PIXELS = 50_000_000
PAGE_BYTES, PAGE_PIXELS = 1_000_000, 300_000_000  # of all pictures together: 1.3 MB as base64, some seconds
JPEG_FORMATS = ("JPEG", "MPO")
DRAFT_GAIN = 8  # a JPEG is decoded at an eighth of its sides, which takes about an eighth of the time
NEVER_OPENED = "usable_path"
NO_PICTURE = Markup()
KINDS = {"pixels": "identical", "picture": "near"}


@dataclass(frozen=True)
class Picture:
    """A data URI with the size at which it is shown, or `words` that say why there is none."""

    uri: Markup = NO_PICTURE
    width: int = SIDE_PX
    height: int = SIDE_PX
    is_enlarged: bool = False
    words: str = ""


class Thumbnails:
    """The small pictures of one page, by path; each is read once, and what the page can still carry is counted."""

    def __init__(self, read: Callable[[str], bytes]) -> None:
        self._read = read
        self._known: dict[str, Picture] = {}
        self._bytes_left = PAGE_BYTES
        self._pixels_left = PAGE_PIXELS

    def __getitem__(self, path: str) -> Picture:
        if path not in self._known:
            self._known[path] = self._drawn(path)
        picture = self._known[path]
        if len(picture.uri) * 3 // 4 > self._bytes_left:
            return Picture(words="left out to keep the page small")
        self._bytes_left -= len(picture.uri) * 3 // 4
        return picture

    def _drawn(self, path: str) -> Picture:
        try:
            content = self._read(path)
        except FileNotFoundError:
            return Picture(words="the file is missing")
        except Exception:  # a store may fail in any way; the page is made all the same
            return Picture(words="can't be read")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # bombs and damaged EXIF only warn
                return self._small(content)
        except Image.DecompressionBombError:
            return Picture(words="too large for a thumbnail")
        except Exception:  # decoders raise anything (OSError, SyntaxError, struct.error…)
            return Picture(words="can't be decoded")

    def _small(self, content: bytes) -> Picture:
        with Image.open(BytesIO(content), formats=DECODED) as image:
            n_pixels, is_jpeg = image.width * image.height, image.format in JPEG_FORMATS
            cost = n_pixels // DRAFT_GAIN if is_jpeg else n_pixels
            if n_pixels > MAX_PIXELS:
                return Picture(words=f"too large for a thumbnail ({n_pixels / 1e6:,.0f} megapixels)")
            if image.mode in REFUSED_MODES:
                return Picture(words="more than 8 bits a channel")
            if cost > self._pixels_left:
                return Picture(words="left out to keep the page quick")
            self._pixels_left -= cost
            if is_jpeg:  # it has no transparency, and a draft saves most of the work
                image.draft(None, (2 * SIDE_PX, 2 * SIDE_PX))
                small = ImageOps.exif_transpose(image).convert("RGB")
            else:
                small = open_upright(BytesIO(content))
        small.thumbnail((SIDE_PX, SIDE_PX))
        return _encoded(small)


def _encoded(small: Image.Image) -> Picture:
    """Few pixels are kept exactly and shown larger."""
    times = max(1, SIDE_PX // max(small.size))
    buffer = BytesIO()
    if times > 1:
        small.save(buffer, "PNG")
    else:
        small.save(buffer, "JPEG", quality=75)
    kind = "png" if times > 1 else "jpeg"
    uri = Markup(f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}")
    return Picture(uri=uri, width=small.width * times, height=small.height * times, is_enlarged=times > 1)


def offenders(
    found: dict[str, Any], groups: list[dict[str, Any]], thumbnails: Thumbnails, *, n_listed: int
) -> dict[str, Any]:
    """pictures (path, why, picture), groups of copies, `n_listed` further paths, and n_more that are not shown."""
    shown_groups = _groups(found, groups, thumbnails)
    in_groups = {member["image_id"] for group in shown_groups for member in group["members"]}
    rest = [image for image in found["images"] if image["image_id"] not in in_groups]
    pictures = [] if shown_groups else rest[:MAX_IMAGES]
    further = rest[len(pictures) :]
    return {
        "pictures": [image | {"picture": _picture(found["rule"], image["path"], thumbnails)} for image in pictures],
        "groups": shown_groups,
        "further": [image["path"] for image in further[:n_listed]],
        "n_more": max(len(further) - n_listed, 0),
    }


def _picture(rule: str, path: str, thumbnails: Thumbnails) -> Picture:
    if rule == NEVER_OPENED:
        return Picture(words="not opened: the path can't be used")
    return thumbnails[path]


def _groups(found: dict[str, Any], groups: list[dict[str, Any]], thumbnails: Thumbnails) -> list[dict[str, Any]]:
    """The first sets of copies that hold an offender; [] for rules that are not about copies."""
    name, asked = COPIES.get(found["rule"], ("", ""))
    failed = {image["image_id"] for image in found["images"]} if name in KINDS else set()
    shown: list[dict[str, Any]] = []
    for group in groups if failed else []:
        if len(shown) == MAX_GROUPS:
            break
        ids = {member["image_id"] for member in group["members"]}
        if group["kind"] == KINDS[name] and not failed.isdisjoint(ids):
            chosen = _chosen(group["members"], failed, asked)
            members = [
                member
                | {
                    "picture": thumbnails[member["path"]],
                    "mark": _mark(found, member["image_id"] in failed, ids <= failed),
                }
                for member in chosen
            ]
            shown.append(
                {"kind": group["kind"], "members": members, "n_members": len(ids), "n_more": len(ids) - len(chosen)}
            )
    return shown


def _chosen(members: list[dict[str, Any]], failed: set[str], asked: str) -> list[dict[str, Any]]:
    """Up to 6 of the set; where a rule asks for something to be equal: offenders first, one of each value before a second."""
    if not asked:
        return members[:MAX_MEMBERS]
    seen: dict[Any, int] = {}
    turns = []
    for member in members:
        seen[member[asked]] = seen.get(member[asked], 0) + 1
        turns.append((member["image_id"] not in failed, seen[member[asked]]))
    order = sorted(range(len(members)), key=lambda number: turns[number])
    return [members[number] for number in order[:MAX_MEMBERS]]


def _mark(found: dict[str, Any], is_offender: bool, all_fail: bool) -> str:
    if not is_offender:
        return ""
    if found.get("policy", "keep") != "keep":
        return "rejected"
    return "" if all_fail else "fails"
