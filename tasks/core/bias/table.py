"""The table that an audit works on: codes instead of words, one grouping of the images per audit column.

Axes: N images, G groups of a column, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd

NOT_KNOWN = "(not known)"
ALL_IMAGES = "all images"
TIMES = " × "
THIRDS = " (thirds)"


def is_not_known(group: str) -> bool:
    """Whether an attribute of these images is missing; in an intersection, any of them."""
    return NOT_KNOWN in str(group).split(TIMES)


@dataclass(frozen=True)
class Grouping:
    """Each image's group as a code into names; a missing attribute is the group NOT_KNOWN."""

    codes_N: np.ndarray
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class AuditTable:
    """y_true, y_pred and the baselines' predictions are codes into classes; probabilities are NaN where absent.

    clusters_N is None where each image stands for itself. An audit column that the source lacks isn't in columns.
    """

    image_ids_N: np.ndarray | None
    classes: tuple[str, ...]
    y_true_N: np.ndarray
    y_pred_N: np.ndarray
    probs_NC: np.ndarray | None
    columns: dict[str, Grouping]
    clusters_N: np.ndarray | None
    baselines: dict[str, np.ndarray]


def table_of(
    rows: pd.DataFrame, *, columns: Sequence[str], baselines: Mapping[str, pd.DataFrame] | None = None
) -> AuditTable:
    """The table from rows with y_true, y_pred, optional p_<class>, audit columns, optional group_id and image_id.

    An image without group_id is a cluster of its own. Baselines hold the same images in the same order.
    ValueError: a true or predicted class is missing, or a baseline isn't about the same images.
    """
    others = dict(baselines or {})
    _check(rows, others)
    shares = [name for name in rows.columns if str(name).startswith("p_")]
    told = [rows["y_true"], rows["y_pred"], *(other["y_pred"] for other in others.values())]
    seen = {str(name) for words in told for name in words.unique()} | {str(name)[2:] for name in shares}
    classes = pd.Index(sorted(seen))
    return AuditTable(
        image_ids_N=rows["image_id"].to_numpy(object) if "image_id" in rows else None,
        classes=tuple(classes),
        y_true_N=_codes(rows["y_true"], classes),
        y_pred_N=_codes(rows["y_pred"], classes),
        probs_NC=_probabilities(rows, classes) if shares else None,
        columns={name: _grouping(rows[name]) for name in columns if name in rows},
        clusters_N=_clusters(rows["group_id"]) if "group_id" in rows else None,
        baselines={name: _codes(other["y_pred"], classes) for name, other in others.items()},
    )


def grouping_of(table: AuditTable, column: str) -> Grouping:
    """The column's grouping; the empty column puts all images into one group. ValueError: the table has no such column."""
    if column == "":
        return Grouping(np.zeros(len(table.y_true_N), int), (ALL_IMAGES,))
    if column not in table.columns:
        raise ValueError(f"the table has no audit column {column!r}; it has {', '.join(table.columns) or 'none'}")
    return table.columns[column]


def with_intersections(table: AuditTable, max_order: int) -> AuditTable:
    """The table with a column "a × b" for each set of 2 to max_order of its columns; cells with NOT_KNOWN are kept."""
    added = {}
    for order in range(2, max_order + 1):
        for names in combinations(table.columns, order):
            added[TIMES.join(names)] = _crossed([table.columns[name] for name in names])
    return replace(table, columns=table.columns | added)


def with_slices(table: AuditTable, values: Mapping[str, np.ndarray], names: Sequence[str]) -> AuditTable:
    """The table with a column "x (thirds)" for each named numeric fact, cut at its terciles; NOT_KNOWN where it is NaN.

    A fact that is not among the values adds no column, as an audit column that is absent.
    """
    added = {f"{name}{THIRDS}": _thirds(np.asarray(values[name], float)) for name in names if name in values}
    return replace(table, columns=table.columns | added)


def _check(rows: pd.DataFrame, baselines: Mapping[str, pd.DataFrame]) -> None:
    problems = [
        f"{int(_is_missing(rows[name]).sum())} of {len(rows)} rows have no {name}; fill it in or leave these rows out"
        for name in ("y_true", "y_pred")
        if _is_missing(rows[name]).any()
    ]
    for name, other in baselines.items():
        if len(other) != len(rows):
            problems.append(
                f"baseline {name} has {len(other)} rows, the predictions have {len(rows)}; give the same images"
            )
            continue
        for key in ("image_id", "y_true"):
            if key in rows and key in other and (rows[key].to_numpy(object) != other[key].to_numpy(object)).any():
                problems.append(
                    f"baseline {name} differs from the predictions in {key}; give the same images in one order"
                )
        if _is_missing(other["y_pred"]).any():
            problems.append(f"baseline {name} has rows without y_pred; fill it in or leave these images out of both")
    if problems:
        raise ValueError("; ".join(problems))


def _is_missing(values: pd.Series) -> pd.Series:
    return values.isna() | (values.astype(str) == "")


def _codes(values: pd.Series, classes: pd.Index) -> np.ndarray:
    return classes.get_indexer(pd.Index(values.astype(str)))


def _probabilities(rows: pd.DataFrame, classes: pd.Index) -> np.ndarray:
    """(N, C); a class without a column has probability 0 where the image has any."""
    given = [name for name in classes if f"p_{name}" in rows]
    found_NC = np.zeros((len(rows), len(classes)))
    found_NC[:, classes.get_indexer(pd.Index(given))] = rows[[f"p_{name}" for name in given]].to_numpy(float)
    return found_NC


def _grouping(values: pd.Series) -> Grouping:
    words = values.astype(str).where(~_is_missing(values), NOT_KNOWN)
    codes, names = pd.factorize(words, sort=True)
    return Grouping(codes, tuple(names))


def _clusters(group_ids: pd.Series) -> np.ndarray | None:
    """Cluster codes; None where no two images share one."""
    codes = pd.factorize(group_ids.astype(str))[0]
    alone = _is_missing(group_ids).to_numpy()
    codes[alone] = codes.max(initial=0) + 1 + np.arange(alone.sum())
    codes = np.unique(codes, return_inverse=True)[1]
    return codes if len(codes) > codes.max(initial=-1) + 1 else None


def _crossed(parts: list[Grouping]) -> Grouping:
    code_N = np.zeros(len(parts[0].codes_N), np.int64)
    for part in parts:
        code_N = code_N * len(part.names) + part.codes_N
    cells, codes = np.unique(code_N, return_inverse=True)
    names = []
    for cell in cells.tolist():
        words = []
        for part in reversed(parts):
            cell, word = divmod(cell, len(part.names))
            words.append(part.names[word])
        names.append(TIMES.join(reversed(words)))
    return Grouping(codes, tuple(names))


def _thirds(values_N: np.ndarray) -> Grouping:
    known = np.isfinite(values_N)
    if not known.any():
        return Grouping(np.zeros(len(values_N), int), (NOT_KNOWN,))
    first, second = np.quantile(values_N[known], [1 / 3, 2 / 3])
    names = [
        f"low (below {first:.4g})", f"middle ({first:.4g} to {second:.4g})", f"high ({second:.4g} and above)", NOT_KNOWN,
    ]  # fmt: skip
    cut_N = np.where(known, np.digitize(values_N, [first, second]), 3)
    cells, codes = np.unique(cut_N, return_inverse=True)
    return Grouping(codes, tuple(names[cell] for cell in cells))
