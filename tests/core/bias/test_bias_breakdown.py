"""Tables of the audit: what is marked holds together, classes allow for clusters, many groups have intervals too."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from tasks.core.bias.breakdown import RATES_WITH_INTERVAL, by_class, by_group, changes
from tasks.core.bias.counts import Settings
from tasks.core.bias.estimates import own_intervals
from tasks.core.bias.samples import n_replicates
from tasks.core.bias.table import AuditTable, table_of, with_intersections

SETTINGS = Settings(confidence=0.95, min_group_size=20, n_bootstrap=2000, seed=0, ask_below=None)


def of_groups(groups: Mapping[str, tuple[int, int]], n: int = 100) -> AuditTable:
    """Per group of n cats those that are right now, and that were before."""
    rows = [(name, k < now, k < was) for name, (now, was) in groups.items() for k in range(n)]
    site, now, was = (list(values) for values in zip(*rows, strict=True))
    table = pd.DataFrame({"site": site, "y_true": "cat"})
    one, other = (table.assign(y_pred=np.where(right, "cat", "dog")) for right in (now, was))
    return table_of(one, columns=["site"], baselines={"before": other})


EQUAL = {f"g{k}": (90, 90) for k in range(39)}


@pytest.mark.parametrize(("groups", "right", "marked"), [({"g0": (90, 90)}, 78, "worse"), (EQUAL, 81, "")])
def test_a_gap_is_marked_only_if_it_holds_among_all_groups(
    groups: dict[str, tuple[int, int]], right: int, marked: str
) -> None:
    found = by_group(of_groups({**groups, "z": (right, right)}), SETTINGS).set_index("group")
    assert found.loc["z", "gap_high"] < 0  # by itself
    assert found.loc["z", "gap_mark"] == marked
    assert set(found["gap_mark"]) <= {"", "worse", "better"}


def test_intersections_cost_plain_groups_nothing() -> None:
    rows = pd.DataFrame({"y_true": "cat", "site": ["a"] * 400 + ["z"] * 400, "age": [f"y{k % 20}" for k in range(800)]})
    rows["y_pred"] = ["cat" if k % 400 < right else "dog" for k, right in enumerate([360] * 400 + [333] * 400)]
    table = with_intersections(table_of(rows, columns=["site"]), 2)
    crossed = with_intersections(table_of(rows, columns=["site", "age"]), 2)
    assert len(crossed.columns["site × age"].names) == 40
    alone, beside = (
        by_group(each, SETTINGS).query("column == 'site'")["gap_mark"].tolist() for each in (table, crossed)
    )
    assert alone == ["better", "worse"]
    assert beside == ["", ""]  # among the 20 ages: they are plain groups too
    without = with_intersections(table_of(rows, columns=["site"]), 1)
    assert by_group(without, SETTINGS)["gap_mark"].tolist() == alone


@pytest.mark.parametrize(("groups", "marked"), [({"g0": (90, 90)}, "worse"), (EQUAL, "")])
def test_a_change_is_marked_only_if_it_holds_among_all_groups(groups: dict[str, tuple[int, int]], marked: str) -> None:
    found = changes(of_groups({**groups, "z": (82, 90)}), SETTINGS).set_index("group")
    assert found.loc["z", "change_high"] < 0
    assert found.loc["z", "change_mark"] == marked
    assert found.loc["all images", "change_high"] < 0
    assert found.loc["all images", "change_mark"] == "worse"  # asked by itself


def test_a_small_group_is_not_marked() -> None:
    found = by_group(of_groups({"a": (15, 15), "b": (0, 0)}, n=19), SETTINGS)
    assert set(found["gap_mark"]) == {""}


def clustered(seed: int = 0) -> AuditTable:
    """Two groups of 15 and 25 clusters of 8 images, whose images are alike; three classes."""
    rng = np.random.default_rng(seed)
    cluster_N = np.repeat(np.arange(40), 8)
    skill_J = rng.beta(4, 1, 40)
    true_N = rng.integers(0, 3, 320)
    pred_N = np.where(rng.random(320) < skill_J[cluster_N], true_N, rng.integers(0, 3, 320))
    names = np.array(["ant", "bee", "cat"])
    return table_of(
        pd.DataFrame({
            "y_true": names[true_N], "y_pred": names[pred_N], "site": np.where(cluster_N < 15, "a", "b"), "group_id": cluster_N,
        }), columns=["site"],
    )  # fmt: skip


@pytest.mark.parametrize("rate", RATES_WITH_INTERVAL)
def test_classes_have_the_intervals_that_rules_on_them_have(rate: str) -> None:
    table = clustered()
    found = by_class(table, SETTINGS).set_index(["class", "group"])
    for label in table.classes:
        for one in own_intervals(table, "site", f"{rate}:{label}", SETTINGS):
            low, high = one.interval(0.95)
            cell = found.loc[(label, one.group)]
            assert (cell[rate], cell[f"{rate}_low"], cell[f"{rate}_high"]) == pytest.approx((one.value, low, high))


def test_classes_allow_for_images_that_are_alike() -> None:
    """Ten clusters of four cats, seven wholly right, three wholly wrong: design effect 10/9 33.6 / 8.4 = 40/9, worth 9 images."""
    right_N = np.repeat([True] * 7 + [False] * 3, 4)
    rows = pd.DataFrame({
        "y_true": "cat", "y_pred": np.where(right_N, "cat", "dog"), "site": "a", "group_id": np.repeat(np.arange(10), 4),
    })  # fmt: skip
    found = by_class(table_of(rows, columns=["site"]), SETTINGS).set_index("class").loc["cat"]
    z = t.ppf(0.975, 9)
    centre, half = (0.7 + z**2 / 18) / (1 + z**2 / 9), z / (1 + z**2 / 9) * math.sqrt(0.21 / 9 + z**2 / 324)
    assert (found["recall_low"], found["recall_high"]) == pytest.approx((centre - half, centre + half))


def test_classes_take_images_as_drawn_where_clusters_are_too_few() -> None:
    rows = pd.DataFrame({"y_true": "cat", "y_pred": ["cat"] * 30 + ["dog"] * 10, "site": "a"})
    few = by_class(table_of(rows.assign(group_id=np.arange(40) // 8), columns=["site"]), SETTINGS)
    pd.testing.assert_frame_equal(few, by_class(table_of(rows, columns=["site"]), SETTINGS))


@pytest.mark.parametrize(
    ("asked", "n_cells", "n"),
    [(2000, 200 * 100, 2000), (2000, 10_000 * 10, 400), (2000, 10**7, 200), (100, 10**7, 100), (2000, 0, 2000)],
)
def test_many_groups_share_the_replicates(asked: int, n_cells: int, n: int) -> None:
    assert n_replicates(replace(SETTINGS, n_bootstrap=asked), n_cells) == n


@pytest.mark.parametrize("metric", ["balanced_accuracy", "calibration_error"])
def test_few_replicates_give_nearly_the_same_ends(metric: str) -> None:
    """Half-widths of 200 within a fifth of those of 20,000; calibration's low end may lie too low."""
    rng = np.random.default_rng(0)
    true_N, sure_N = rng.integers(0, 4, 400), rng.uniform(0.5, 1, 400)
    pred_N = np.where(rng.random(400) < 0.8, true_N, (true_N + 1) % 4)
    shares = {f"p_{c}": np.where(pred_N == c, sure_N, (1 - sure_N) / 3) for c in range(4)}
    table = table_of(pd.DataFrame({"y_true": true_N.astype(str), "y_pred": pred_N.astype(str), **shares}), columns=[])
    few, many = (
        own_intervals(table, "", metric, replace(SETTINGS, n_bootstrap=n))[0].interval(0.95) for n in (200, 20_000)
    )
    value = own_intervals(table, "", metric, SETTINGS)[0].value
    assert few[1] - value == pytest.approx(many[1] - value, rel=0.2)
    assert value - few[0] > 0.8 * (value - many[0])
    assert metric == "calibration_error" or value - few[0] < 1.2 * (value - many[0])


def test_more_than_two_hundred_groups_have_all_intervals() -> None:
    rng = np.random.default_rng(0)
    n = 300 * 20
    true_N = rng.integers(0, 3, n)
    rows = pd.DataFrame({"site": [f"g{k % 300}" for k in range(n)], "y_true": true_N.astype(str)})
    rows["y_pred"] = np.where(rng.random(n) < 0.8, true_N, 0).astype(str)
    rows = rows.assign(**{f"p_{c}": np.where(rows["y_pred"] == str(c), 0.8, 0.1) for c in range(3)})
    found = by_group(table_of(rows, columns=["site"]), SETTINGS)
    for metric in ("accuracy", "balanced_accuracy", "worst_class_recall", "calibration_error", "gap"):
        assert (found[f"{metric}_low"] < found[f"{metric}_high"]).all()
    assert len(found) == 300
