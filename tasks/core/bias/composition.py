"""What the data hold, before any model: images per group, split and class, and how far a group stands out from the rest.

Measures of Amazon SageMaker Clarify's pre-training report: CI (imbalance), TVD and KL (labels).
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from tasks.core.bias.table import NOT_KNOWN

TRAIN, TEST = "train", "test"
COMPOSITION = ["column", "group", "domain", "split", "label", "n"]
GAPS = [
    "column", "group", "n", "n_train", "n_test", "share_train", "share_test", "imbalance", "n_labelled", "class_imbalance",
    "label_distance", "label_kl",
]  # fmt: skip


def composition(rows: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """One row per column, group, domain, split and label that holds an image: `n` of them.

    rows: domain, split, label ("" = not labelled) and the audit columns by their plain names; a missing attribute is the group
    "(not known)", a column that is absent has no row.
    """
    parts = []
    for column in columns:
        if column not in rows:
            continue
        table = rows[["domain", "split", "label"]].fillna("").astype(str).assign(group=_groups(rows[column]))
        n = table.value_counts(["group", "domain", "split", "label"], sort=False).rename("n").reset_index()
        parts.append(n.assign(column=column).sort_values(["group", "domain", "split", "label"]))
    return pd.concat(parts, ignore_index=True)[COMPOSITION] if parts else pd.DataFrame(columns=COMPOSITION)


def gaps(composed: pd.DataFrame) -> pd.DataFrame:
    """One row per column and group of a `composition`; NaN = not measured.

    n: images of any split; share_train, share_test: of all images of the split (0 = the group is absent from it).
    imbalance: CI = (n_rest - n_group) / (n_rest + n_group) among training images: -1 = all are of the group, 1 = none is.
    On labelled training images: class_imbalance = (largest - smallest class) / (their sum) within the group, over the classes
    of all groups; label_distance: total variation Σ|p - q| / 2 of the group's class shares p from the rest's q, 0..1;
    label_kl: Σ p ln(p/q), infinite where the rest lacks a class that the group has.
    """
    parts = [_column_gaps(str(column), part) for column, part in composed.groupby("column", sort=False)]
    return pd.concat(parts, ignore_index=True)[GAPS] if parts else pd.DataFrame(columns=GAPS)


def _groups(values: pd.Series) -> pd.Series:
    known = values.notna() & (values.astype(str) != "")
    return values.astype(str).where(known, NOT_KNOWN)


def _column_gaps(column: str, composed: pd.DataFrame) -> pd.DataFrame:
    names = sorted(composed["group"].unique())
    n, n_train, n_test = (
        part.groupby("group")["n"].sum().reindex(names, fill_value=0).to_numpy(float)
        for part in (composed, composed[composed["split"] == TRAIN], composed[composed["split"] == TEST])
    )
    labelled = composed[(composed["split"] == TRAIN) & (composed["label"] != "")]
    counts = labelled.pivot_table(index="group", columns="label", values="n", aggfunc="sum", fill_value=0)
    counts_GC = counts.reindex(names, fill_value=0).to_numpy(float).reshape(len(names), -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        table = {
            "column": column, "group": names, "n": n.astype(int), "n_train": n_train.astype(int),
            "n_test": n_test.astype(int), "share_train": n_train / n_train.sum(), "share_test": n_test / n_test.sum(),
            "imbalance": (n_train.sum() - 2 * n_train) / n_train.sum(), "n_labelled": counts_GC.sum(1).astype(int),
        }  # fmt: skip
    return pd.DataFrame(table | _label_gaps(counts_GC))


def _label_gaps(counts_GC: np.ndarray) -> dict[str, np.ndarray]:
    total_C = counts_GC.sum(0)
    measured = np.full((3, len(counts_GC)), math.nan)
    for g, counts_C in enumerate(counts_GC):
        rest_C = total_C - counts_C
        if counts_C.sum() == 0:
            continue
        most, least = counts_C.max(), counts_C.min()
        measured[0, g] = (most - least) / (most + least)
        if rest_C.sum() > 0:
            p_C, q_C = counts_C / counts_C.sum(), rest_C / rest_C.sum()
            measured[1, g] = np.abs(p_C - q_C).sum() / 2
            measured[2, g] = _divergence(p_C, q_C)
    return dict(zip(("class_imbalance", "label_distance", "label_kl"), measured, strict=True))


def _divergence(p_C: np.ndarray, q_C: np.ndarray) -> float:
    held = p_C > 0
    if (q_C[held] == 0).any():
        return math.inf
    return max(float((p_C[held] * np.log(p_C[held] / q_C[held])).sum()), 0.0)
