"""What the validation rules look at, and what they found: rule × image, rejected rows, counts per cell."""

from pathlib import PurePosixPath
from typing import Any

import pandas as pd

FORMATS = {
    "jpg": "jpeg", "jpeg": "jpeg", "jpe": "jpeg", "jfif": "jpeg", "tif": "tiff",
    "pgm": "ppm", "pnm": "ppm", "pbm": "ppm", "dib": "bmp", "mpo": "jpeg",
}  # fmt: skip


def checked_columns(manifest: pd.DataFrame, facts: pd.DataFrame) -> pd.DataFrame:
    """Manifest and facts joined by image_id, with the columns that the rules look at. NaN = not measured."""
    rows = manifest.merge(facts, on="image_id", how="left", validate="one_to_one")
    rows["error"] = rows["error"].fillna("never measured")
    readable = rows["error"] == ""
    rows["short_side_px"] = rows[["width_px", "height_px"]].min(axis=1)
    rows["long_side_px"] = rows[["width_px", "height_px"]].max(axis=1)
    rows["aspect_ratio"] = rows["long_side_px"] / rows["short_side_px"]
    rows["extension_matches"] = [
        not fmt or _format_of(path) == FORMATS.get(fmt, fmt)
        for path, fmt in zip(rows["path"], rows["format"].fillna(""), strict=True)
    ]
    pixels = rows["pixel_hash"].where(readable)
    labelled = rows["label"].where(rows["label"] != "")
    given = rows["split"].where(rows["split"] != "").replace("unlabelled", "train")  # both are learnt from
    rows["is_copy"] = pixels.notna() & pixels.duplicated()
    rows["n_labels_of_pixels"] = labelled.groupby(pixels).transform("nunique")
    rows["n_splits_of_pixels"] = (rows["domain"] + given).groupby(pixels).transform("nunique")
    rows["n_splits_of_group"] = given.groupby([rows["domain"], rows["group_id"]]).transform("nunique")
    return rows


def finding(rule: str, severity: str, rows: pd.DataFrame, image_ids: list[str]) -> dict[str, Any]:
    failed = rows[rows["image_id"].isin(set(image_ids))]
    return {
        "rule": rule,
        "severity": severity,
        "n_checked": len(rows),
        "n_failed": len(failed),
        "images": [{"image_id": i, "path": p} for i, p in zip(failed["image_id"], failed["path"], strict=True)],
    }


def rejected_rows(rows: pd.DataFrame, findings: list[dict[str, Any]]) -> pd.DataFrame:
    """image_id, path, reasons: images that a rule with severity drop rejects."""
    reasons: dict[str, list[str]] = {}
    for found in findings:
        if found["severity"] == "drop":
            for image in found["images"]:
                reasons.setdefault(image["image_id"], []).append(found["rule"])
    rejected = rows[rows["image_id"].isin(reasons)][["image_id", "path", "error"]]
    texts = [
        "; ".join(reasons[i]) + (f" ({error})" if error else "")
        for i, error in zip(rejected["image_id"], rejected["error"], strict=True)
    ]
    return rejected.drop(columns="error").assign(reasons=texts)


def counts(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """n per domain × split × label; the label of images whose label is hidden is empty."""
    cells = rows.groupby(["domain", "split", "label"]).size().rename("n").reset_index()
    return [{"domain": d, "split": s, "label": c, "n": int(n)} for d, s, c, n in cells.itertuples(index=False)]


def count_problems(rows: pd.DataFrame, classes: list[str], min_source_per_class: int) -> list[str]:
    """Sentences that block: classes too small to learn (or rejected whole), no source validation, no target test."""
    source, target = rows[rows["domain"] == "source"], rows[rows["domain"] == "target"]
    n_train = source[source["split"] == "train"].groupby("label").size().reindex(classes, fill_value=0)
    problems = [
        f"class {label!r} has {n} readable source training images, at least {min_source_per_class} are needed"
        for label, n in n_train.items()
        if n < min_source_per_class
    ]
    if len(n_train) < 2:
        problems.append(f"the source holds {len(n_train)} class(es), at least 2 are needed")
    if not (source["split"] == "val").any():
        problems.append("no source image is left for validation; set validate_data.splits.source_val_share higher")
    if not (target["split"] == "test").any():
        problems.append("no labelled target image is left for the test; label some, or mend the split column")
    if not target["split"].isin(("train", "unlabelled")).any():
        problems.append("no target image is left to learn from; mend the split column or the shares")
    return problems


def _format_of(path: str) -> str:
    extension = PurePosixPath(path).suffix.lower().lstrip(".")
    return FORMATS.get(extension, extension)
