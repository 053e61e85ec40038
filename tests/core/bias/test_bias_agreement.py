"""Whether a difference from another library's values is seen, metric by metric; those values against fairlearn's functions."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from fairlearn import metrics as fairlearn
from sklearn.metrics import accuracy_score, balanced_accuracy_score, multilabel_confusion_matrix, precision_score

from tasks.core.bias.agreement import differences, rates_of_cells
from tasks.core.bias.counts import Settings
from tasks.core.bias.table import table_of

SETTINGS = Settings(confidence=0.95, min_group_size=20, n_bootstrap=100, seed=0, ask_below=None)
CLASSES = ["ant", "bee", "cat"]
METRICS = [
    "accuracy", "balanced_accuracy", "n", "recall", "precision", "false_positive_rate", "false_negative_rate", "selection_rate",
    "base_rate",
]  # fmt: skip


def made_rows() -> pd.DataFrame:
    """Group c holds no cat, and none is taken for one."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"site": rng.choice(["a", "b", "c"], 300), "y_true": rng.choice(CLASSES, 300)})
    rows["y_pred"] = np.where(rng.random(300) < 0.7, rows["y_true"], rng.choice(CLASSES, 300))
    is_cat = (rows["site"] == "c") & rows[["y_true", "y_pred"]].eq("cat").any(axis=1)
    return rows[~is_cat].reset_index(drop=True)


def theirs() -> dict[str, np.ndarray]:
    groups = [part for _, part in made_rows().groupby("site")]
    cells = [multilabel_confusion_matrix(part["y_true"], part["y_pred"], labels=CLASSES) for part in groups]
    return rates_of_cells(np.stack(cells)) | {
        "accuracy": np.array([accuracy_score(part["y_true"], part["y_pred"]) for part in groups]),
        "balanced_accuracy": np.array([balanced_accuracy_score(part["y_true"], part["y_pred"]) for part in groups]),
        "n": np.array([len(part) for part in groups]),
    }


def test_equal_values_are_equal() -> None:
    found = theirs()
    assert list(found) == [*METRICS[3:], *METRICS[:3]]
    assert np.isnan(found["recall"][2, 2])
    assert differences(table_of(made_rows(), columns=["site"]), "site", SETTINGS, found) == []


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("off", [1e-6, np.nan])
def test_a_difference_is_seen_in_each_metric(metric: str, off: float) -> None:
    found = theirs()
    found[metric] = found[metric].astype(float)
    found[metric][0] += off
    assert differences(table_of(made_rows(), columns=["site"]), "site", SETTINGS, found) == [metric]


@pytest.mark.parametrize(
    ("metric", "measure"),
    [
        ("recall", fairlearn.true_positive_rate), ("false_positive_rate", fairlearn.false_positive_rate),
        ("false_negative_rate", fairlearn.false_negative_rate), ("selection_rate", fairlearn.selection_rate),
        ("precision", precision_score),
    ],
)  # fmt: skip
def test_rates_are_fairlearns_of_each_class_against_the_rest(metric: str, measure: partial[float]) -> None:
    rows, found = made_rows(), theirs()[metric]
    for g, site in enumerate(["a", "b"]):
        part = rows[rows["site"] == site]
        for c, label in enumerate(CLASSES):
            expected = measure((part["y_true"] == label).astype(int), (part["y_pred"] == label).astype(int))
            assert found[g, c] == pytest.approx(expected)
