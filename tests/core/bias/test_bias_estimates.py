"""Comparisons: their intervals against formulas and other sources, their coverage, and what is never a number by absence."""

import math
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from tasks.core.bias.clusters import sampling_unit
from tasks.core.bias.counts import Settings
from tasks.core.bias.estimates import MAX_PAIRED_GROUPS, Comparison, compare, own_intervals
from tasks.core.bias.score import Measured, difference_ends, exact_high, quantile, ratio_ends, score_interval
from tasks.core.bias.table import NOT_KNOWN, AuditTable, Grouping, table_of
from tasks.core.intervals import clopper_pearson, newcombe, paired_gain, wilson

SETTINGS = Settings(confidence=0.95, min_group_size=20, n_bootstrap=500, seed=0, ask_below=0.6)
ALL_METRICS = [
    "accuracy", "recall:x", "precision:x", "false_positive_rate:x", "false_negative_rate:x", "selection_rate:x", "base_rate:x",
    "abstention", "balanced_accuracy", "worst_class_recall", "calibration_error", "mean_confidence",
]  # fmt: skip


def rows_of(groups: dict[str, tuple[int, int]]) -> pd.DataFrame:
    """Per group (right, n); the true class is x."""
    rows = [(name, "x" if k < n_right else "y") for name, (n_right, n) in groups.items() for k in range(n)]
    return pd.DataFrame(rows, columns=["site", "y_pred"]).assign(y_true="x")


def of_groups(groups: dict[str, tuple[int, int]]) -> AuditTable:
    return table_of(rows_of(groups), columns=["site"])


def gaps(
    table: AuditTable, reference: str, comparison: str = "difference", metric: str = "accuracy"
) -> dict[str, Comparison]:
    return {seen.group: seen for seen in compare(table, "site", metric, comparison, reference, SETTINGS)}


def clustered(right_N: np.ndarray, site_N: np.ndarray, clusters_N: np.ndarray | None) -> AuditTable:
    names = tuple(f"g{g}" for g in range(site_N.max() + 1))
    wrong_N = (~right_N).astype(int)
    return AuditTable(
        None, ("x", "y"), np.zeros(len(site_N), int), wrong_N, None, {"site": Grouping(site_N, names)}, clusters_N, {}
    )


# ---- formulas


def test_a_share_has_wilsons_interval_and_nothing_measured_has_none() -> None:
    low, high = score_interval(np.array([1.0, 0.5, np.nan]), np.array([30, 10, 0]), quantile(0.95))
    expected = [wilson(30, 30, 0.95), wilson(5, 10, 0.95)]
    assert low[:2] == pytest.approx([e.low for e in expected])
    assert high[:2] == pytest.approx([e.high for e in expected])
    assert np.isnan([low[2], high[2]]).all()


def test_the_exact_high_end_is_clopper_pearsons() -> None:
    found = exact_high(np.array([0.9, 1.0, 0.0]), np.array([30, 30, 30]), quantile(0.95))
    assert found == pytest.approx([clopper_pearson(k, 30, 0.95).high for k in (27, 30, 0)])


def test_a_difference_from_the_rest_is_newcombes() -> None:
    found = gaps(of_groups({"a": (21, 30), "b": (40, 50), "c": (60, 61)}), "others")["a"]
    expected = newcombe(wilson(21, 30, 0.99), wilson(100, 111, 0.99))
    assert (found.value, found.reference_value, found.n, found.n_reference) == (0.7, 100 / 111, 30, 111)
    assert found.estimate == pytest.approx(expected.value)
    assert found.interval(0.99) == pytest.approx((expected.low, expected.high))
    assert found.n_clusters is None


def test_differences_of_shares_agree_with_a_published_table() -> None:
    """Newcombe (1998), Table II, method 10: 56/70 - 48/80 and 10/10 - 0/10."""
    for (k1, n1, k2, n2), expected in {(56, 70, 48, 80): (0.0524, 0.3339), (10, 10, 0, 10): (0.6075, 1.0)}.items():
        sides = [Measured(w.value, w.low, w.high) for w in (wilson(k1, n1, 0.95), wilson(k2, n2, 0.95))]
        assert difference_ends(*sides) == pytest.approx(expected, abs=5e-5)


def test_a_difference_from_the_whole_is_that_from_the_rest_shrunk() -> None:
    """The whole is .25 group and .75 rest, so group - whole = .75 (group - rest)."""
    table = of_groups({"a": (60, 100), "b": (240, 300)})
    rest, whole = gaps(table, "others")["a"], gaps(table, "overall")["a"]
    assert (whole.reference_value, whole.n_reference) == (0.75, 400)
    assert whole.estimate == pytest.approx(-0.15)
    assert whole.interval(0.95) == pytest.approx([0.75 * end for end in rest.interval(0.95)])


def test_a_ratio_to_the_whole_follows_from_that_to_the_rest() -> None:
    """Share .25: ratio r to the rest is r / (.25 r + .75) to the whole."""
    table = of_groups({"a": (60, 100), "b": (240, 300)})
    rest, whole = gaps(table, "others", "ratio")["a"], gaps(table, "overall", "ratio")["a"]
    assert rest.estimate == pytest.approx(0.75)
    assert whole.estimate == pytest.approx(0.6 / 0.75)
    assert whole.interval(0.95) == pytest.approx([end / (0.25 * end + 0.75) for end in rest.interval(0.95)])


def test_a_ratio_solves_its_equation_and_has_no_end_above_zero() -> None:
    one, other = Measured(0.6, 0.5, 0.69), Measured(0.8, 0.75, 0.84)
    low, high = ratio_ends(one, other)
    assert (0.6 - low * 0.8) ** 2 == pytest.approx(0.1**2 + low**2 * 0.04**2)
    assert (0.6 - high * 0.8) ** 2 == pytest.approx(0.09**2 + high**2 * 0.05**2)
    assert low < 0.75 < high
    assert ratio_ends(one, Measured(0.0, 0.0, 0.1))[1] == math.inf
    assert ratio_ends(Measured(0.0, 0.0, 0.1), other)[0] == 0
    assert np.isnan(ratio_ends(Measured(math.nan, math.nan, math.nan), other)).all()


def test_a_ratio_to_nothing_has_no_value() -> None:
    found = gaps(of_groups({"a": (20, 30), "b": (0, 30)}), "group:b", "ratio")["a"]
    assert math.isnan(found.estimate)
    assert found.interval(0.95)[0] > 1


def test_worst_class_has_doubt_from_its_classes_intervals() -> None:
    rows = pd.DataFrame({"site": "a", "y_true": ["x"] * 40 + ["y"] * 50, "y_pred": ["x"] * 30 + ["y"] * 60})
    (found,) = own_intervals(table_of(rows, columns=["site"]), "site", "worst_class_recall", SETTINGS)
    assert found.value == 0.75
    expected = wilson(30, 40, 0.95).low, clopper_pearson(30, 40, 0.975).high  # two classes: Bonferroni for the high end
    assert found.interval(0.95) == pytest.approx(expected)


def test_mean_confidence_has_students_interval() -> None:
    rows = rows_of({"a": (4, 4)}).assign(p_x=[0.6, 0.7, 0.8, 0.9])
    (found,) = own_intervals(table_of(rows, columns=["site"]), "site", "mean_confidence", SETTINGS)
    half = 3.182446 * math.sqrt(0.05 / 3 / 4)  # t with 3 degrees, sum of squares .05
    assert (found.value, *found.interval(0.95)) == pytest.approx((0.75, 0.75 - half, 0.75 + half), abs=1e-5)


# ---- references


def test_the_reference_group_is_not_compared_with_itself() -> None:
    table = of_groups({"a": (60, 100), "b": (240, 300), "c": (95, 100), "d": (19, 19)})
    assert {(g, s.reference_value) for g, s in gaps(table, "largest").items()} == {("a", 0.8), ("c", 0.8), ("d", 0.8)}
    assert {(g, s.reference_value) for g, s in gaps(table, "group:a").items()} == {("b", 0.6), ("c", 0.6), ("d", 0.6)}
    assert {(g, s.n_reference) for g, s in gaps(table, "highest").items()} == {("a", 100), ("b", 100), ("d", 100)}


def test_the_best_of_several_is_taken_at_bonferronis_level() -> None:
    table = of_groups({"a": (60, 100), "b": (240, 300), "c": (95, 100)})  # c could have been a or b: two choices
    named, best = gaps(table, "group:c")["a"], gaps(table, "highest")["a"]
    assert best.interval(0.95) == pytest.approx(named.interval(0.975))


def test_the_best_is_the_lowest_where_lower_is_better() -> None:
    found = gaps(of_groups({"a": (60, 100), "b": (90, 100)}), "highest", "ratio", "false_negative_rate:x")
    assert {group: seen.estimate for group, seen in found.items()} == pytest.approx({"a": 4.0})


def test_images_of_unknown_attribute_are_no_reference() -> None:
    table = of_groups({"": (500, 500), "a": (60, 100), "b": (50, 90)})
    assert set(gaps(table, "largest")) == {NOT_KNOWN, "b"}
    assert set(gaps(table, "highest")) == {NOT_KNOWN, "b"}


def test_pairs_name_the_worse_one_first() -> None:
    found = gaps(of_groups({"a": (60, 100), "b": (90, 100), "c": (50, 100)}), "pairwise")
    estimates = {name: round(seen.estimate, 9) for name, seen in found.items()}
    assert estimates == {"a against b": -0.3, "c against a": -0.1, "c against b": -0.4}


@pytest.mark.parametrize("reference", ["others", "overall", "largest", "highest", "pairwise", "group:b"])
@pytest.mark.parametrize("comparison", ["difference", "ratio"])
def test_one_group_alone_has_nothing_to_compare_with(reference: str, comparison: str) -> None:
    assert gaps(of_groups({"a": (60, 100)}), reference, comparison) == {}


def test_an_absent_reference_gives_nothing() -> None:
    table = of_groups({"a": (60, 100), "b": (5, 10)})
    assert gaps(table, "group:zoo") == {}
    assert gaps(table, "champion", "change") == {}
    assert compare(table, "site", "accuracy", "difference", "highest", replace(SETTINGS, min_group_size=500)) == []


@pytest.mark.parametrize(
    ("comparison", "reference", "problem"),
    [
        ("gap", "others", "comparison 'gap' isn't known; allowed are difference, ratio, floor and change"),
        ("ratio", "best", "reference 'best' isn't known; allowed are others, overall"),
    ],
)
def test_unknown_words_are_refused(comparison: str, reference: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        gaps(of_groups({"a": (1, 2), "b": (1, 2)}), reference, comparison)


def test_too_many_pairs_are_refused() -> None:
    table = of_groups({f"g{k}": (1, 2) for k in range(MAX_PAIRED_GROUPS + 1)})
    with pytest.raises(ValueError, match="101 groups make too many pairs"):
        gaps(table, "pairwise")


# ---- change


def changed() -> AuditTable:
    """Group a: 50 images, 45 right before 30; b: 40 images, 20 right before 30 (nested, so all that differ go one way)."""
    rows, before = rows_of({"a": (45, 50), "b": (20, 40)}), rows_of({"a": (30, 50), "b": (30, 40)})
    return table_of(rows, columns=["site"], baselines={"champion": before})


def test_a_change_is_paired_on_the_same_images() -> None:
    found = gaps(changed(), "champion", "change")
    one, other = np.arange(50) < 45, np.arange(50) < 30
    expected = paired_gain(one, other, 0.95)
    assert (found["a"].value, found["a"].reference_value, found["a"].n) == (0.9, 0.6, 50)
    assert found["a"].interval(0.95) == pytest.approx((expected.low, expected.high))
    assert found["b"].estimate == pytest.approx(-0.25)
    assert found["b"].interval(0.95)[1] < 0


def test_a_mean_recall_changes_as_its_only_class() -> None:
    accuracy, balanced = (gaps(changed(), "champion", "change", m)["a"] for m in ("accuracy", "balanced_accuracy"))
    assert balanced.estimate == pytest.approx(accuracy.estimate)
    assert balanced.interval(0.95) == pytest.approx(accuracy.interval(0.95), abs=0.08)
    assert balanced.interval(0.95)[0] > 0


def test_a_rate_better_the_lower_changes_with_its_own_sign() -> None:
    found = gaps(changed(), "champion", "change", "false_negative_rate:x")["a"]
    assert found.estimate == pytest.approx(-0.3)
    assert found.interval(0.95)[1] < 0


@pytest.mark.parametrize("metric", ["precision:x", "worst_class_recall"])
def test_changes_over_other_images_are_taken_as_independent(metric: str) -> None:
    table = changed()
    found = gaps(table, "champion", "change", metric)["a"]
    told = table.y_pred_N, table.baselines["champion"]
    sides = [own_intervals(replace(table, y_pred_N=y), "site", metric, SETTINGS)[0] for y in told]
    measured = [Measured(side.value, *side.interval(0.95)) for side in sides]
    assert found.interval(0.95) == pytest.approx(difference_ends(*measured))


@pytest.mark.parametrize("metric", ["calibration_error", "mean_confidence", "abstention"])
def test_a_baseline_without_probabilities_has_no_change_on_them(metric: str) -> None:
    for seen in gaps(changed(), "champion", "change", metric).values():
        assert math.isnan(seen.estimate)
        assert np.isnan(seen.interval(0.95)).all()


# ---- coverage (larger simulations: benchmarks/audit_coverage.py)


@pytest.mark.parametrize(("n", "least", "most"), [(100, 0.93, 0.97), (2000, 0.93, 0.97), (30, 0.92, 0.98)])
def test_coverage_of_shares(n: int, least: float, most: float) -> None:
    """Summed over all outcomes, so without simulation noise."""
    hits = np.arange(n + 1)
    low, high = score_interval(hits / n, n, quantile(0.95))
    for share in np.arange(0.1, 0.91, 0.1):
        covered = binom.pmf(hits, n, share)[(low <= share) & (share <= high)].sum()
        assert least <= covered <= most


@pytest.mark.parametrize(("n", "n_rest"), [(100, 900), (2000, 2000)])
def test_coverage_of_differences_from_the_rest(n: int, n_rest: int) -> None:
    rng, z, n_runs = np.random.default_rng(0), quantile(0.95), 3000
    for share in (0.1, 0.5, 0.9):
        values = rng.binomial(n, share, n_runs) / n, rng.binomial(n_rest, share, n_runs) / n_rest
        sides = [np.stack([v, *score_interval(v, m, z)], 1) for v, m in zip(values, (n, n_rest), strict=True)]
        ends = [difference_ends(Measured(*one), Measured(*other)) for one, other in zip(*sides, strict=True)]
        covered = np.mean([low <= 0 <= high for low, high in ends])
        assert 0.93 <= covered <= 0.97  # 95 % ± 5 standard errors of 3,000 runs


def test_clusters_widen_the_interval_as_much_as_their_images_agree() -> None:
    """20 clusters of 10 images: all alike, they tell as much as 20 images; split evenly, no less than 200 images do."""
    site, clusters = np.zeros(200, int), np.repeat(np.arange(20), 10)
    alike, apart = np.arange(200) < 150, np.arange(200) % 4 > 0
    alike_table, image_table = clustered(alike, site, clusters), clustered(alike, site, None)
    (wide,), (by_images,) = (own_intervals(t, "site", "accuracy", SETTINGS) for t in (alike_table, image_table))
    t = quantile(0.95, 20)
    assert t == pytest.approx(2.093024, abs=1e-6)
    effect = 20 / 19 * 10  # the variance between 20 clusters, over that of images
    low, high = score_interval(0.75, 200 / effect, t)
    assert wide.interval(0.95) == pytest.approx((float(low), float(high)))
    assert by_images.interval(0.95) == pytest.approx((wilson(150, 200, 0.95).low, wilson(150, 200, 0.95).high))
    (even,) = own_intervals(clustered(apart, site, clusters), "site", "accuracy", SETTINGS)
    low, high = score_interval(0.75, 200, t)
    assert even.interval(0.95) == pytest.approx((float(low), float(high)))


def test_a_group_without_errors_takes_the_likeness_of_the_others() -> None:
    site, clusters = np.repeat([0, 1], 200), np.repeat(np.arange(40), 10)
    right = np.r_[np.ones(200, bool), np.arange(200) < 150]
    found = own_intervals(clustered(right, site, clusters), "site", "accuracy", SETTINGS)[0]
    assert found.interval(0.95)[0] < wilson(200, 200, 0.95).low - 0.05


def test_clusters_on_both_sides_narrow_a_difference() -> None:
    """Each cluster is split between the groups and all of one mind: no cluster tells the groups apart."""
    clusters = np.repeat(np.arange(40), 10)
    right, site = clusters % 4 > 0, np.arange(400) % 2
    both = clustered(right, site, clusters)
    apart = clustered(right, site, clusters * 2 + site)
    widths = [np.diff(gaps(t, "others")["g0"].interval(0.95))[0] for t in (both, apart)]
    assert widths[0] < 0.3 * widths[1]


@pytest.mark.parametrize(("n_clusters", "unit"), [(9, "image"), (10, "group")])
def test_clusters_are_the_draws_where_each_judged_group_has_ten(n_clusters: int, unit: str) -> None:
    site = np.r_[np.zeros(60, int), np.ones(100, int), np.full(19, 2)]  # the third group is too small to be judged
    clusters = np.r_[np.arange(60) % n_clusters, 100 + np.arange(100) % 50, np.full(19, 999)]
    found = sampling_unit(clustered(np.ones(179, bool), site, clusters), "site", SETTINGS)
    assert found.unit == unit
    assert found.n_clusters_G is not None
    assert found.n_clusters_G.tolist() == [n_clusters, 50, 1]
    assert sampling_unit(clustered(np.ones(179, bool), site, None), "site", SETTINGS).n_clusters_G is None


def test_clusters_cover_the_truth_where_images_do_not() -> None:
    rng, n_runs, covered = np.random.default_rng(0), 150, np.zeros(2)
    site, clusters = np.zeros(300, int), np.repeat(np.arange(15), 20)
    for _ in range(n_runs):
        right = rng.random(300) < rng.beta(0.8 * 4, 0.2 * 4, 15)[clusters]  # intra-cluster correlation 1 / (4 + 1) = .2
        for k, given in enumerate((clusters, None)):
            low, high = own_intervals(clustered(right, site, given), "site", "accuracy", SETTINGS)[0].interval(0.95)
            covered[k] += low <= 0.8 <= high
    assert covered[0] / n_runs >= 0.93
    assert covered[1] / n_runs < 0.75


# ---- never a number by absence


@pytest.mark.parametrize("metric", ALL_METRICS)
@pytest.mark.parametrize("clusters", [None, "many"])
def test_odd_tables_make_no_accident(metric: str, clusters: str | None) -> None:
    rng = np.random.default_rng(0)
    names = ["<b>x</b>", "فئة", "", "tiny", "big"]
    rows = pd.DataFrame(
        {"site": rng.choice(names, 400, p=[0.25, 0.25, 0.2, 0.01, 0.29]), "y_true": rng.choice(["x", "y"], 400)}
    )
    rows.loc[rows["site"] == "فئة", "y_true"] = "y"  # no x in this group
    rows["y_pred"] = "y"  # all predictions equal
    rows["p_x"] = np.where(rows["site"] == "<b>x</b>", np.nan, 0.2)
    rows["p_y"] = 1 - rows["p_x"]
    rows["group_id"] = "" if clusters is None else (np.arange(400) // 2).astype(str)
    table = table_of(rows, columns=["site"], baselines={"old": rows.assign(y_pred="x")})
    for comparison, references in {
        "difference": ["others", "overall", "largest", "highest", "pairwise", f"group:{NOT_KNOWN}"],
        "ratio": ["others", "overall", "highest"], "change": ["old"], "floor": [""],
    }.items():  # fmt: skip
        for reference in references:
            for seen in compare(table, "site", metric, comparison, reference, SETTINGS):
                low, high = seen.interval(0.95)
                if math.isnan(seen.value) or (comparison != "floor" and math.isnan(seen.reference_value)):
                    assert math.isnan(seen.estimate)
                    assert math.isnan(low)
                    assert math.isnan(high)
                elif not math.isnan(seen.estimate):
                    assert low - 1e-9 <= seen.estimate <= high + 1e-9


def test_ten_thousand_groups_take_seconds() -> None:
    rng = np.random.default_rng(0)
    site = rng.integers(0, 10_000, 50_000)
    table = clustered(rng.random(50_000) < 0.9, site, None)
    start = time.process_time()
    found = compare(table, "site", "accuracy", "difference", "others", SETTINGS)
    assert len([one.interval(0.95) for one in found]) == len(table.columns["site"].names)
    assert time.process_time() - start < 10
