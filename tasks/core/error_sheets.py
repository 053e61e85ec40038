"""Error sheets: per audit group the most confident wrong guesses, each beside what spoke for it and similar training images.

A sheet is a PNG of numbered lines; the index has a row for each line. Names stand in the index alone: they may be written in
letters that no font at hand can draw.

Axes: N test images, Q of them that are shown, T training images, K nearest of these, D features, H height, W width.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO

import cv2
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from tasks.core.bias.table import NOT_KNOWN

N_NEAREST = 3
INDEX_COLUMNS = [
    "sheet", "line",  # file name, and the number at the left of the line
    "column", "group", "n", "accuracy",  # of the group; column "" = all images are one group
    "image_id", "path", "y_true", "y_pred", "confidence",
    *(f"nearest_{k}_{what}" for k in range(1, N_NEAREST + 1) for what in ("id", "path", "domain", "label", "similarity")),
]  # fmt: skip
SIDE_PX, GAP_PX, MARGIN_PX, HEAD_PX = 112, 4, 20, 14
HEADS = ("image", "orange: for guess", "nearest 1", "nearest 2", "nearest 3")
FOR_GUESS, FOR_TRUTH = (217, 95, 2), (31, 90, 180)  # orange and blue: told apart with any colour vision, and in print
BLUR_SHARE = 1 / 32  # of the side: the map is made of squares
TINY = 1e-12


@dataclass(frozen=True)
class Sheet:
    """A group, and those of its errors that are shown, the most confident first."""

    column: str
    group: str
    n: int
    accuracy: float
    image_ids: tuple[str, ...]


def with_confidence(rows: pd.DataFrame) -> pd.DataFrame:
    """One model's predictions with `confidence`: the probability of the guess."""
    shares = rows[[name for name in rows.columns if name.startswith("p_")]]
    return rows.assign(confidence=shares.max(axis=1))


def worst_groups(
    rows: pd.DataFrame, columns: list[str], *, min_group_size: int, max_groups: int, n_per_group: int
) -> list[Sheet]:
    """Groups in which something is wrong, the lowest accuracy first; smaller groups are masked, as everywhere in the audit.

    `rows` are one model's predictions with confidence; `columns` are plain names of audit columns. Without any, all images
    are one group.
    """
    told = rows.assign(is_right=rows["y_true"] == rows["y_pred"])
    table = pd.concat([_cells(told, column) for column in columns or [""]], ignore_index=True)
    shown = table[(table["n"] >= min_group_size) & (table["accuracy"] < 1)]
    shown = shown.sort_values(["accuracy", "column", "group"], kind="stable").head(max_groups)
    return [
        Sheet(column, group, int(n), float(accuracy), _most_confident(told, column, group, n_per_group))
        for column, group, n, accuracy in shown[["column", "group", "n", "accuracy"]].itertuples(index=False)
    ]


def _cells(told: pd.DataFrame, column: str) -> pd.DataFrame:
    """column, group, n, accuracy."""
    right = told["is_right"].groupby(_groups(told, column)).agg(["size", "mean"])
    return pd.DataFrame({"column": column, "group": right.index, "n": right["size"], "accuracy": right["mean"]})


def _groups(rows: pd.DataFrame, column: str) -> pd.Series:
    if not column:
        return pd.Series("", rows.index)
    return rows[f"audit_{column}"].replace("", NOT_KNOWN)


def _most_confident(told: pd.DataFrame, column: str, group: str, n: int) -> tuple[str, ...]:
    wrong = told[(_groups(told, column) == group) & ~told["is_right"]]
    return tuple(wrong.sort_values(["confidence", "image_id"], ascending=[False, True])["image_id"].head(n))


def shown_errors(rows: pd.DataFrame, sheets: list[Sheet]) -> pd.DataFrame:
    """The rows of the images that some sheet shows."""
    shown = {image_id for sheet in sheets for image_id in sheet.image_ids}
    return rows[rows["image_id"].isin(shown)].reset_index(drop=True)


def nearest(wanted_QD: np.ndarray, parts_TD: Iterable[np.ndarray], n: int) -> tuple[np.ndarray, np.ndarray]:
    """(Q, K) places in the concatenated parts and (Q, K) cosines, the most similar first, of equals the earlier one.

    One part is in memory at a time. K is n, or T where there are fewer.
    """
    unit_QD, n_seen = _unit(wanted_QD), 0
    cosine_QK, place_QK = np.zeros((len(unit_QD), 0)), np.zeros((len(unit_QD), 0), dtype=int)
    for part_TD in parts_TD:
        places = np.broadcast_to(np.arange(n_seen, n_seen + len(part_TD)), (len(unit_QD), len(part_TD)))
        cosines = np.hstack([cosine_QK, unit_QD @ _unit(part_TD).T])
        order_QK = np.argsort(-cosines, axis=1, kind="stable")[:, :n]
        cosine_QK = np.take_along_axis(cosines, order_QK, 1)
        place_QK = np.take_along_axis(np.hstack([place_QK, places]), order_QK, 1)
        n_seen += len(part_TD)
    return place_QK, cosine_QK


def _unit(rows_ND: np.ndarray) -> np.ndarray:
    rows_ND = rows_ND.astype(np.float64)
    return rows_ND / np.maximum(np.linalg.norm(rows_ND, axis=1, keepdims=True), TINY)


def neighbour_columns(training: pd.DataFrame, place_QK: np.ndarray, cosine_QK: np.ndarray) -> pd.DataFrame:
    """(Q rows) the nearest_… columns of the index; empty where there are fewer than N_NEAREST training images."""
    found: dict[str, object] = {}
    for k in range(N_NEAREST):
        is_there = k < place_QK.shape[1]
        rows = training.iloc[place_QK[:, k]] if is_there else None
        for what, name in (("id", "image_id"), ("path", "path"), ("domain", "domain"), ("label", "label")):
            found[f"nearest_{k + 1}_{what}"] = "" if rows is None else rows[name].to_numpy()
        found[f"nearest_{k + 1}_similarity"] = cosine_QK[:, k].round(4) if is_there else np.nan
    return pd.DataFrame(found, index=range(len(place_QK)))


def index_rows(sheet: Sheet, name: str, errors: pd.DataFrame) -> pd.DataFrame:
    """The sheet's lines, in INDEX_COLUMNS. `errors` have confidence, path and the neighbour columns."""
    rows = errors.set_index("image_id").loc[list(sheet.image_ids)].reset_index()
    rows = rows.assign(sheet=name, line=range(1, len(rows) + 1), column=sheet.column, group=sheet.group)
    return rows.assign(n=sheet.n, accuracy=round(sheet.accuracy, 6))[INDEX_COLUMNS]


def overlay(image_HW3: np.ndarray, map_HW: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: the image in pale grey, orange where the map is above 0, blue where it is below, by its size.

    Each map is scaled by its own largest size: colours compare parts of one image, not images.
    """
    smooth_HW = cv2.GaussianBlur(map_HW.astype(np.float64), (0, 0), max(BLUR_SHARE * map_HW.shape[0], 0.5))
    share_HW = smooth_HW / max(float(np.abs(smooth_HW).max()), TINY)
    pale_HW1 = 255 - (255 - image_HW3.astype(np.float64).mean(2, keepdims=True)) / 2
    colour_HW3 = np.where(share_HW[..., None] > 0, FOR_GUESS, FOR_TRUTH)
    weight_HW1 = np.abs(share_HW)[..., None]
    return np.rint((1 - weight_HW1) * pale_HW1 + weight_HW1 * colour_HW3).astype(np.uint8)


def error_sheet(lines: list[list[np.ndarray]]) -> bytes:
    """PNG: a numbered line for each error, its (H, W, 3) uint8 squares under HEADS; a missing last square stays white."""
    step = SIDE_PX + GAP_PX
    size = (MARGIN_PX + len(HEADS) * step, HEAD_PX + GAP_PX + len(lines) * step)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for place, head in enumerate(HEADS):
        draw.text((MARGIN_PX + place * step, 1), head, fill="black")
    for number, line in enumerate(lines):
        top = HEAD_PX + GAP_PX + number * step
        draw.text((2, top), str(number + 1), fill="black")
        for place, square in enumerate(line):
            sheet.paste(_scaled(square), (MARGIN_PX + place * step, top))
    buffer = BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _scaled(square: np.ndarray) -> Image.Image:
    """SIDE_PX wide; points of a small image stay points."""
    image = Image.fromarray(square)
    method = Image.Resampling.NEAREST if square.shape[0] <= SIDE_PX // 2 else Image.Resampling.BILINEAR
    return image.resize((SIDE_PX, SIDE_PX), method)
