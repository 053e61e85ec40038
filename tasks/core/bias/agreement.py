"""Whether our point values are those that another library counts.

Axes: G groups, C classes.
"""

from collections.abc import Mapping

import numpy as np

from tasks.core.bias.counts import Settings, class_counts, class_rates, point
from tasks.core.bias.table import AuditTable

ROUNDING = 1e-9
VALUES = ("accuracy", "balanced_accuracy")


def rates_of_cells(cells_GC22: np.ndarray) -> dict[str, np.ndarray]:
    """Per rate (G, C) from confusion matrices of each class against the rest, as scikit-learn's multilabel_confusion_matrix.

    NaN where a rate is over no image.
    """
    (right_no, false_yes), (false_no, right_yes) = np.moveaxis(cells_GC22, (2, 3), (0, 1)).astype(float)
    no, yes, said_yes = right_no + false_yes, false_no + right_yes, false_yes + right_yes
    with np.errstate(invalid="ignore"):
        return {
            "recall": right_yes / yes, "precision": right_yes / said_yes, "false_positive_rate": false_yes / no,
            "false_negative_rate": false_no / yes, "selection_rate": said_yes / (yes + no), "base_rate": yes / (yes + no),
        }  # fmt: skip


def differences(table: AuditTable, column: str, settings: Settings, theirs: Mapping[str, np.ndarray]) -> list[str]:
    """The metrics of a column's groups, and of their classes, in which our values aren't theirs."""
    counts = class_counts(table, column)
    ours = {name: point(table, column, name, settings)[0] for name in VALUES} | {"n": counts.n_G}
    with np.errstate(invalid="ignore", divide="ignore"):
        ours |= {name: hits_GC / n_GC for name, (hits_GC, n_GC) in class_rates(counts).items()}
    return [name for name in ours if not np.allclose(ours[name], theirs[name], rtol=0, atol=ROUNDING, equal_nan=True)]
