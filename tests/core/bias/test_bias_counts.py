"""Point values: equal to fairlearn's and scikit-learn's, NaN where nothing was measured."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame
from sklearn.metrics import accuracy_score, balanced_accuracy_score, precision_score, recall_score

from tasks.core.bias.counts import Settings, class_counts, class_rates, point
from tasks.core.bias.table import AuditTable, table_of
from tasks.core.metrics import calibration_error

SETTINGS = Settings(confidence=0.95, min_group_size=20, n_bootstrap=100, seed=0, ask_below=0.6)
CLASSES = ["cat", "dog", "emu"]


def made_rows(n: int = 600) -> pd.DataFrame:
    """Three classes, groups of about 300, 240 and 60 images; a fifth of the images has no probabilities."""
    rng = np.random.default_rng(3)
    rows = pd.DataFrame({"site": rng.choice(["a", "b", "c"], n, p=[0.5, 0.4, 0.1]), "y_true": rng.choice(CLASSES, n)})
    probs = rng.dirichlet([1, 1, 1], n)
    probs[np.arange(n), pd.Categorical(rows["y_true"], CLASSES).codes] += 0.7
    probs /= probs.sum(1, keepdims=True)
    rows["y_pred"] = np.array(CLASSES)[probs.argmax(1)]
    probs[rng.random(n) < 0.2] = np.nan
    return rows.assign(**{f"p_{name}": probs[:, c] for c, name in enumerate(CLASSES)})


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return made_rows()


@pytest.fixture(scope="module")
def table(rows: pd.DataFrame) -> AuditTable:
    return table_of(rows, columns=["site"])


def of_class(measure: Callable[..., float], label: str, positive: int = 1) -> Callable[..., float]:
    """A binary metric of "is it this class"; positive 0 swaps the classes' parts."""

    def measured(y_true: pd.Series, y_pred: pd.Series) -> float:
        return measure(y_true == label, y_pred == label, pos_label=bool(positive), zero_division=np.nan)

    return measured


METRICS: dict[str, Callable[..., float]] = {
    "accuracy": accuracy_score,
    "balanced_accuracy": balanced_accuracy_score,
    "worst_class_recall": lambda t, p: recall_score(t, p, average=None, labels=CLASSES).min(),
    "recall:dog": of_class(recall_score, "dog"),
    "precision:dog": of_class(precision_score, "dog"),
    "false_positive_rate:dog": lambda t, p: 1 - of_class(recall_score, "dog", 0)(t, p),
    "false_negative_rate:dog": lambda t, p: 1 - of_class(recall_score, "dog")(t, p),
    "selection_rate:dog": lambda t, p: float((p == "dog").mean()),
    "base_rate:dog": lambda t, p: float((t == "dog").mean()),
}


@pytest.mark.parametrize("metric", METRICS)
def test_values_equal_fairlearn_and_scikit_learn(rows: pd.DataFrame, table: AuditTable, metric: str) -> None:
    frame = MetricFrame(
        metrics=METRICS[metric], y_true=rows["y_true"], y_pred=rows["y_pred"], sensitive_features=rows["site"]
    )
    assert point(table, "site", metric, SETTINGS)[0] == pytest.approx(frame.by_group.astype(float), abs=1e-12)
    assert point(table, "", metric, SETTINGS)[0] == pytest.approx(float(frame.overall), abs=1e-12)


def test_values_on_probabilities_leave_images_without_them_out(rows: pd.DataFrame, table: AuditTable) -> None:
    probs = rows[[f"p_{name}" for name in CLASSES]]
    for g, (_, inside) in enumerate(rows[probs.notna().all(axis=1)].groupby("site")):
        sure_NC, right = inside[probs.columns].to_numpy(), (inside["y_true"] == inside["y_pred"]).to_numpy()
        expected = {
            "calibration_error": calibration_error(sure_NC, right),
            "mean_confidence": sure_NC.max(1).mean(),
            "abstention": (sure_NC.max(1) < 0.6).mean(),
        }
        for metric, value in expected.items():
            value_G, n_G = point(table, "site", metric, SETTINGS)
            assert value_G[g] == pytest.approx(value, abs=1e-12)
            assert n_G[g] == len(inside)


def test_n_counts_what_the_metric_is_taken_over() -> None:
    rows = pd.DataFrame({"site": list("aaab"), "y_true": ["x", "x", "y", "y"], "y_pred": ["x", "y", "x", "y"]})
    table = table_of(rows, columns=["site"])
    expected = {  # values of a and b, numbers of a and b, by hand
        "accuracy": ([1 / 3, 1], [3, 1]),
        "recall:x": ([1 / 2, np.nan], [2, 0]),
        "precision:x": ([1 / 2, np.nan], [2, 0]),
        "false_positive_rate:x": ([1, 0], [1, 1]),
        "false_negative_rate:x": ([1 / 2, np.nan], [2, 0]),
        "selection_rate:x": ([2 / 3, 0], [3, 1]),
        "base_rate:x": ([2 / 3, 0], [3, 1]),
        "balanced_accuracy": ([1 / 4, 1], [3, 1]),  # b has no x: the mean over its one class
        "worst_class_recall": ([0, 1], [3, 1]),
    }
    for metric, (value, n) in expected.items():
        value_G, n_G = point(table, "site", metric, SETTINGS)
        assert value_G.tolist() == pytest.approx(value, nan_ok=True), metric
        assert n_G.tolist() == n, metric


@pytest.mark.parametrize("metric", ["recall:fox", "calibration_error", "mean_confidence", "abstention"])
def test_what_is_not_there_is_not_measured(metric: str) -> None:
    rows = pd.DataFrame({"site": ["a", "b"], "y_true": "x", "y_pred": "x"})
    value_G, n_G = point(table_of(rows, columns=["site"]), "site", metric, SETTINGS)
    assert np.isnan(value_G).all()
    assert n_G.tolist() == [0, 0]


def test_abstention_is_not_measured_without_a_threshold(table: AuditTable) -> None:
    never = Settings(confidence=0.95, min_group_size=20, n_bootstrap=100, seed=0, ask_below=None)
    assert np.isnan(point(table, "site", "abstention", never)[0]).all()


@pytest.mark.parametrize("metric", ["recall", "accuracy:dog", "f1", "f1:dog", ""])
def test_an_unknown_metric_is_refused(table: AuditTable, metric: str) -> None:
    with pytest.raises(ValueError, match=f"metric '{metric}' isn't known; allowed are accuracy, abstention"):
        point(table, "site", metric, SETTINGS)


def test_rates_of_all_classes_at_once_are_those_of_each(table: AuditTable) -> None:
    rates = class_rates(class_counts(table, "site"))
    assert set(rates) == {name.split(":")[0] for name in METRICS if ":" in name}
    for name, (hits_GC, n_GC) in rates.items():
        for c, label in enumerate(table.classes):
            value_G, n_G = point(table, "site", f"{name}:{label}", SETTINGS)
            assert n_GC[:, c].tolist() == n_G.tolist()
            assert (hits_GC[:, c] / n_GC[:, c]).tolist() == pytest.approx(value_G.tolist())


def test_an_empty_table_has_no_values() -> None:
    table = table_of(made_rows().iloc[:0], columns=["site"])
    for metric in (*METRICS, "calibration_error"):
        measure = partial(point, table, metric=metric, settings=SETTINGS)
        assert len(measure(column="site")[0]) == 0
        assert np.isnan(measure(column="")[0]).all()
