"""Replicates: their spread against formulas, their ends against fairlearn's bootstrap, doubt where all is right."""

import warnings

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame
from scipy.stats import norm
from sklearn.metrics import balanced_accuracy_score

from tasks.core.bias.counts import N_CELLS, Settings
from tasks.core.bias.estimates import own_intervals
from tasks.core.bias.resample import calibration_deviations, class_mean_deviations, ends
from tasks.core.bias.table import table_of

RIGHT_WRONG = np.array([1.0, 0.0])


def calibration_cells(sure: float, n_right: int, n_wrong: int) -> tuple[np.ndarray, np.ndarray]:
    """All images in the bin of one probability."""
    n_S, x_S, first = np.zeros(N_CELLS, int), np.zeros(N_CELLS), 2 * int(sure * 15)
    n_S[first : first + 2] = n_wrong, n_right
    x_S[first : first + 2] = -sure * n_wrong, (1 - sure) * n_right
    return n_S, x_S


def test_spread_is_that_of_a_mean_of_shares() -> None:
    counts = np.array([[180, 20], [300, 100], [0, 0], [50, 50]])  # the third class isn't there
    deviations = class_mean_deviations(counts, RIGHT_WRONG, 20_000, np.random.default_rng(0))
    variance = (0.9 * 0.1 / 200 + 0.75 * 0.25 / 400 + 0.5 * 0.5 / 100) / 9
    assert deviations.std() == pytest.approx(np.sqrt(variance), rel=0.03)
    assert deviations.mean() == pytest.approx(0, abs=4 * np.sqrt(variance / 20_000))


def test_spread_of_paired_gains() -> None:
    deviations = class_mean_deviations(
        np.array([[30, 60, 10]]), np.array([1.0, 0.0, -1.0]), 20_000, np.random.default_rng(0)
    )
    p_win, p_loss = 30.5 / 101, 10.5 / 101
    assert deviations.std() == pytest.approx(np.sqrt((p_win + p_loss - (p_win - p_loss) ** 2) / 100), rel=0.03)


def test_all_right_leaves_doubt() -> None:
    low, _ = ends(class_mean_deviations(np.array([[30, 0]]), RIGHT_WRONG, 2000, np.random.default_rng(0)), 0.95)
    assert -0.10 < low < -0.03
    low, high = ends(calibration_deviations(*calibration_cells(0.9, 30, 0), 2000, np.random.default_rng(0)), 0.95)
    assert -0.10 < low < -0.03
    assert 0 < high < 0.10


def test_many_classes_add_up_to_no_bias() -> None:
    counts = np.tile([29, 1], (100, 1))
    deviations = class_mean_deviations(counts, RIGHT_WRONG, 5000, np.random.default_rng(0))
    assert abs(deviations.mean()) < 0.1 * deviations.std()


def test_calibration_error_of_one_bin_moves_as_its_accuracy() -> None:
    deviations = calibration_deviations(*calibration_cells(0.95, 800, 200), 20_000, np.random.default_rng(0))
    half = norm.ppf(0.975) * np.sqrt(0.8 * 0.2 / 1000)
    low, high = ends(deviations, 0.95)
    assert high == pytest.approx(half, rel=0.05)
    assert low == pytest.approx(-norm.ppf(0.9875) * half / norm.ppf(0.975), rel=0.05)  # |bin's own error|: both tails


@pytest.mark.parametrize("n_replicates", [100, 2000])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999, 0.99999])
def test_ends_beyond_the_replicates_go_on_as_the_normal_does(n_replicates: int, confidence: float) -> None:
    deviations = norm.ppf((np.arange(n_replicates) + 0.5) / n_replicates)
    expected = norm.ppf((1 + confidence) / 2)
    assert ends(deviations, confidence) == pytest.approx((-expected, expected), rel=0.02)


def test_intervals_agree_with_fairlearns_bootstrap() -> None:
    rng = np.random.default_rng(5)
    n = 900
    rows = pd.DataFrame({"site": rng.choice(["a", "b"], n, p=[0.7, 0.3]), "y_true": rng.choice(["x", "y", "z"], n)})
    rows["y_pred"] = np.where(rng.random(n) < 0.85, rows["y_true"], rng.choice(["x", "y", "z"], n))
    assert rows.groupby(["site", "y_true"]).size().min() >= 30
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = MetricFrame(
            metrics=balanced_accuracy_score, y_true=rows["y_true"], y_pred=rows["y_pred"],
            sensitive_features=rows["site"], n_boot=100, ci_quantiles=[0.05, 0.95], random_state=0,
        )  # fmt: skip
    theirs = np.stack([ci.to_numpy(float).ravel() for ci in frame.by_group_ci], 1)
    settings = Settings(confidence=0.9, min_group_size=20, n_bootstrap=2000, seed=0, ask_below=None)
    ours = [
        one.interval(0.9)
        for one in own_intervals(table_of(rows, columns=["site"]), "site", "balanced_accuracy", settings)
    ]
    assert np.abs(np.array(ours) - theirs).max() < 0.02


def test_replicates_depend_on_their_address_only() -> None:
    rng = np.random.default_rng(1)
    rows = pd.DataFrame({"site": rng.choice(["a", "b", "c"], 300), "y_true": "x"})
    rows["y_pred"] = np.where(rng.random(300) < 0.8, "x", "y")

    def intervals(seed: int, order: list[int]) -> list[tuple[float, float]]:
        settings = Settings(confidence=0.95, min_group_size=20, n_bootstrap=500, seed=seed, ask_below=None)
        found = own_intervals(table_of(rows, columns=["site"]), "site", "balanced_accuracy", settings)
        ends_of = {g: found[g].interval(0.95) for g in order}
        return [ends_of[g] for g in range(3)]

    assert intervals(0, [0, 1, 2]) == intervals(0, [2, 1, 0])
    assert intervals(0, [0, 1, 2]) != intervals(1, [0, 1, 2])
