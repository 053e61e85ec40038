"""What the rules on images look at: facts, copies, labels and given splits of each image, as columns; and why one fails."""

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from tasks.core.duplicates import clusters, near_pairs

FORMATS = {
    "jpg": "jpeg", "jpeg": "jpeg", "jpe": "jpeg", "jfif": "jpeg", "tif": "tiff",
    "pgm": "ppm", "pnm": "ppm", "pbm": "ppm", "dib": "bmp", "mpo": "jpeg", "jpg2": "jpeg2000", "jp2": "jpeg2000",
}  # fmt: skip
CONVERTED_MODES = ("CMYK", "YCbCr", "LAB", "HSV")
HELD_OUT = ("val", "test")
SHOWN = ["image_id", "path", "label", "domain", "origin", "split"]


def checked_columns(manifest: pd.DataFrame, facts: pd.DataFrame, max_bits: int) -> pd.DataFrame:
    """Manifest and facts joined by image_id, with the columns that the rules look at. NaN = nothing to check."""
    rows = manifest.merge(facts, on="image_id", how="left", validate="one_to_one")
    rows["error"] = rows["error"].fillna("never measured").where(rows["problem"] == "", "")
    rows["is_rgb_or_grey"] = ~rows["mode"].isin(CONVERTED_MODES)
    rows["short_side_px"] = rows[["width_px", "height_px"]].min(axis=1)
    rows["long_side_px"] = rows[["width_px", "height_px"]].max(axis=1)
    rows["aspect_ratio"] = rows["long_side_px"] / rows["short_side_px"]
    rows["side_px"] = np.sqrt(rows["width_px"] * rows["height_px"])
    typical = rows["side_px"] / rows["side_px"].groupby(rows["origin"]).transform("median")
    rows["size_ratio"] = np.maximum(typical, 1 / typical)
    rows["extension_matches"] = [
        not fmt or _format_of(path) == FORMATS.get(fmt, fmt)
        for path, fmt in zip(rows["path"], rows["format"].fillna(""), strict=True)
    ]
    return _with_labels(_with_copies(rows, max_bits))


def _with_copies(rows: pd.DataFrame, max_bits: int) -> pd.DataFrame:
    """Adds `pixels` and `picture` (a number per set of copies, NaN = alone) and what is counted over them.

    The copy that is none (`is_copy`, `is_near_copy`) is the first that carries a label, else the first: no label gets lost.
    """
    known = rows["pixel_hash"].fillna("") != ""
    pixels = rows["pixel_hash"].where(known)
    number = pd.Series(clusters(len(rows), near_pairs(list(rows["perceptual_hash"].fillna("")), max_bits)[:, :2]))
    rows["pixels"] = pixels.where(pixels.duplicated(keep=False))
    rows["is_copy"] = rows["pixels"].notna() & _repeats(pixels, rows["label"])
    rows["has_copy"] = rows["pixels"].notna()
    # several pictures: not just one picture whose very pixels come again
    several = pixels.groupby(number).transform("nunique") > 1
    rows["picture"] = number.where((number >= 0) & several)
    rows["has_near_copy"] = rows["picture"].notna()
    # the same pixels are one member: its further copies are told by unique_pixels
    rows["is_near_copy"] = rows["has_near_copy"] & ~rows["is_copy"] & _repeats(rows["picture"], rows["label"])
    labelled = rows["label"].where(rows["label"] != "")
    given = rows["split"].where(rows["split"] != "").replace("unlabelled", "train")  # both are learnt from
    side = rows["domain"] + "\x1f" + given
    for name in ("pixels", "picture"):
        rows[f"n_labels_of_{name}"] = labelled.groupby(rows[name]).transform("nunique")
        n_splits = side.groupby([rows[name], rows["domain"]]).transform("nunique")
        rows[f"n_splits_of_{name}"] = n_splits
        rows[f"n_domains_of_{name}"] = rows["origin"].groupby(rows[name]).transform("nunique")
    rows["n_splits_of_group"] = given.groupby([rows["domain"], rows["group_id"]]).transform("nunique")
    return rows


def _repeats(keys: pd.Series, labels: pd.Series) -> pd.Series:
    """Whether an image comes after another of its key: those with a label first, then in the order of the rows."""
    return keys.loc[(labels == "").sort_values(kind="stable").index].duplicated().reindex(keys.index)


def _with_labels(rows: pd.DataFrame) -> pd.DataFrame:
    """Adds `label_missing` and `target_label` (NaN where no rule asks for one)."""
    needed = (rows["domain"] == "source") | rows["split"].isin(HELD_OUT)
    rows["label_missing"] = needed & (rows["label"] == "") & (rows["problem"] == "")
    rows["target_label"] = rows["label"].where((rows["domain"] == "target") & (rows["label"] != ""))
    return rows


def _format_of(path: str) -> str:
    extension = PurePosixPath(path).suffix.lower().lstrip(".")
    return FORMATS.get(extension, extension)


def duplicate_groups(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Sets of copies with their members: of the same pixels, and of nearly the same picture."""
    return [
        {"kind": kind, "members": members}
        for kind, name in (("identical", "pixels"), ("near", "picture"))
        for members in _sets(rows[rows[name].notna()], name, SHOWN).values()
    ]


def reasons(rule: str, rows: pd.DataFrame, failed: pd.DataFrame) -> list[str]:
    """Why each failed image fails the rule, in a few words."""
    if rule in COPIES:
        return _copies(rows, failed, COPIES[rule])
    return [WHY[rule](row) for row in failed.to_dict("records")]


def _sets(rows: pd.DataFrame, name: str, columns: list[str]) -> dict[Any, list[dict[Any, Any]]]:
    """The members of each set: those with a label first, then in the order of the rows. So one that is kept comes first."""
    sets: dict[Any, list[dict[Any, Any]]] = {}
    for key, member in zip(rows[name], rows[columns].to_dict("records"), strict=True):
        sets.setdefault(key, []).append(member)
    return {key: sorted(members, key=lambda member: member["label"] == "") for key, members in sets.items()}


def _copies(rows: pd.DataFrame, failed: pd.DataFrame, of: tuple[str, str]) -> list[str]:
    """Which other image it repeats: the first one of the set that contradicts it in what the rule asks for."""
    name, asked = of
    what = {"origin": "domain"}.get(asked, asked)
    words = {"pixels": "the same pixels as", "picture": "nearly the same picture as", "group_id": "the same group as"}
    sets = _sets(rows[rows[name].isin(failed[name])], name, SHOWN)
    firsts = {key: _firsts(members, asked) for key, members in sets.items()}
    said = []
    for key, row in zip(failed[name], failed[SHOWN].to_dict("records"), strict=True):
        others = [other for other in firsts[key] if other["image_id"] != row["image_id"]]
        other = next((other for other in others if _contradicts(row, other, asked)), others[0])
        own = f"{what} {row[asked]!r} here, {other[asked]!r} there; " if asked else ""
        n_more = len(sets[key]) - 2
        said.append(f"{own}{words[name]} {other['path']}" + (f" and {n_more} more" if n_more else ""))
    return said


def _firsts(members: list[dict[Any, Any]], asked: str) -> list[dict[Any, Any]]:
    """The first member of each kind; of thousands of copies no other can be told."""
    if not asked:
        return members[:2]
    firsts: dict[tuple[str, str], dict[Any, Any]] = {}
    for member in members:
        firsts.setdefault((member["domain"], member[asked]), member)
    return list(firsts.values())


def _contradicts(row: dict[Any, Any], other: dict[Any, Any], asked: str) -> bool:
    """Whether the other image is what the rule objects to: an empty label or split is no contradiction."""
    if asked == "split":
        learnt = {"unlabelled": "train"}  # both are learnt from
        here, there = (learnt.get(one["split"], one["split"]) for one in (row, other))
        return here != there != "" and row["domain"] == other["domain"]
    return not asked or row[asked] != other[asked] != ""


COPIES = {
    "unique_pixels": ("pixels", ""),
    "unique_pictures": ("picture", ""),
    "one_label_per_pixels": ("pixels", "label"),
    "one_label_per_picture": ("picture", "label"),
    "pixels_in_one_split": ("pixels", "split"),
    "pictures_in_one_split": ("picture", "split"),
    "group_in_one_split": ("group_id", "split"),
    "pixels_in_one_domain": ("pixels", "origin"),
    "pictures_in_one_domain": ("picture", "origin"),
}
WHY: dict[str, Callable[[dict[Any, Any]], str]] = {
    "usable_path": lambda row: row["problem"],
    "readable": lambda row: row["error"],
    "single_frame": lambda row: f"{row['n_frames']:.0f} frames",
    "eight_bit": lambda row: f"{row['n_bits']:.0f} bits a channel; convert it to 8",
    "rgb_or_grey": lambda row: f"colour mode {row['mode']}",
    "opaque": lambda row: "has transparency, which is laid over white",
    "upright": lambda row: f"EXIF orientation {row['exif_orientation']:.0f}: it is turned when it is read",
    "extension_matches": lambda row: f"the content is {row['format']}",
    "side_px": lambda row: f"{row['width_px']:.0f} x {row['height_px']:.0f} px",
    "aspect_ratio": lambda row: f"{row['aspect_ratio']:.1f} : 1 ({row['width_px']:.0f} x {row['height_px']:.0f} px)",
    "typical_size": lambda row: (
        f"{row['size_ratio']:.1f} times off the median size ({row['width_px']:.0f} x {row['height_px']:.0f} px)"
    ),
    "not_dark": lambda row: f"99 % of the pixels are darker than {row['brightness_p99']:.2f}",
    "not_bright": lambda row: f"95 % of the pixels are brighter than {row['brightness_p5']:.2f}",
    "contrast": lambda row: f"contrast {row['contrast']:.4f}",
    "sharpness": lambda row: f"sharpness {row['sharpness']:.1f}",
    "entropy": lambda row: f"entropy {row['entropy']:.2f} bits",
    "label_present": lambda row: f"no label ({row['domain'] or 'split'} {row['split']})".replace(" )", ")"),
    "known_label": lambda row: f"label {row['label']!r} is no source class",
}
