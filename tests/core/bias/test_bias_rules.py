"""Rules judged on literal comparisons: hand arithmetic on normal intervals, estimate ± z se (z = 1.95996 at 95 %)."""

import math

import pytest
from scipy.stats import norm

from tasks.core.bias.asking import Asked
from tasks.core.bias.counts import LOWER_IS_BETTER, NEITHER, Settings
from tasks.core.bias.estimates import Comparison
from tasks.core.bias.judging import FAIL, INCONCLUSIVE, PASS, conclude, holm_levels
from tasks.core.bias.power import (
    Measured,
    n_at_width,
    n_for_limit,
    n_for_power,
    n_more_of_rates,
    n_more_to_fail,
    n_more_to_pass,
    share_of_rates,
)
from tasks.core.bias.rules import Rule

SETTINGS = Settings(confidence=0.95, min_group_size=20, n_bootstrap=1000, seed=0, ask_below=None)
ALONE = {"unit": "image", "n_clusters": None, "is_limiting": False, "sentence": "each image stands for itself"}
TOO_FEW = {
    "unit": "image",
    "n_clusters": 4,
    "is_limiting": True,
    "sentence": "group b holds images of only 4 group_ids",
}
Z = 1.959964


def rule(
    comparison: str = "difference",
    limit: float = 0.05,
    *,
    metric: str = "accuracy",
    reference: str = "others",
    column: str = "site",
    required: bool = True,
) -> Rule:
    return Rule("the rule", metric, column, comparison, reference, limit, required)


def seen(estimate: float, se: float, group: str = "b", n: int = 400, n_reference: int = 4000) -> Comparison:
    def interval(confidence: float) -> tuple[float, float]:
        z = float(norm.ppf((1 + confidence) / 2))
        return estimate - z * se, estimate + z * se

    return Comparison(group, n, None, n_reference, 0.9 + estimate, 0.9, estimate, interval)


def verdict(asked_rule: Rule, *comparisons: Comparison, sampling: dict | None = None) -> dict:
    (entry,) = conclude([Asked(asked_rule, comparisons, sampling or ALONE)], SETTINGS)
    return entry


@pytest.mark.parametrize(
    ("estimate", "se", "expected"),
    [
        (-0.01, 0.01, PASS),  # -.030 to .010
        (-0.01, 0.03, INCONCLUSIVE),  # -.069 to .049
        (-0.06, 0.01, INCONCLUSIVE),  # -.080 to -.040
        (-0.10, 0.01, FAIL),  # -.120 to -.080
        (0.20, 0.01, PASS),  # better than the others is no fault of a group
        (math.nan, math.nan, INCONCLUSIVE),
    ],
)
def test_difference(estimate: float, se: float, expected: str) -> None:
    assert verdict(rule(), seen(estimate, se))["verdict"] == expected


@pytest.mark.parametrize(
    ("comparison", "metric", "reference", "limit", "allowed"),
    [
        ("difference", "accuracy", "others", 0.05, (-0.05, math.inf)),
        ("difference", "false_positive_rate:cat", "others", 0.05, (-math.inf, 0.05)),
        ("difference", "selection_rate:cat", "others", 0.05, (-0.05, 0.05)),
        ("difference", "accuracy", "pairwise", 0.05, (-0.05, 0.05)),
        ("ratio", "recall:cat", "others", 0.8, (0.8, math.inf)),
        ("ratio", "abstention", "others", 0.8, (-math.inf, 1.25)),
        ("ratio", "base_rate:cat", "overall", 0.8, (0.8, 1.25)),
        ("four_fifths", "selection_rate:cat", "highest", 0.8, (0.8, math.inf)),
        ("floor", "worst_class_recall", "", 0.5, (0.5, math.inf)),
        ("floor", "calibration_error", "", 0.1, (-math.inf, 0.1)),
        ("floor", "mean_confidence", "", 0.6, (0.6, math.inf)),
        ("change", "accuracy", "source_only", 0.02, (-0.02, math.inf)),
        ("change", "false_negative_rate:cat", "source_only", 0.02, (-math.inf, 0.02)),
        ("change", "selection_rate:cat", "source_only", 0.02, (-0.02, 0.02)),
    ],
)
def test_what_a_rule_allows(
    comparison: str, metric: str, reference: str, limit: float, allowed: tuple[float, float]
) -> None:
    assert rule(comparison, limit, metric=metric, reference=reference).allowed == pytest.approx(allowed)


@pytest.mark.parametrize("metric", LOWER_IS_BETTER)
def test_more_errors_than_the_others_fail(metric: str) -> None:
    assert verdict(rule(metric=f"{metric}:cat"), seen(0.1, 0.01))["verdict"] == FAIL
    assert verdict(rule(metric=f"{metric}:cat"), seen(-0.1, 0.01))["verdict"] == PASS


@pytest.mark.parametrize("metric", NEITHER)
def test_a_rate_that_is_neither_good_nor_bad_fails_on_both_sides(metric: str) -> None:
    for estimate in (-0.1, 0.1):
        assert verdict(rule(metric=f"{metric}:cat"), seen(estimate, 0.01))["verdict"] == FAIL


def test_holm_by_hand() -> None:
    # p = .01, .04, .03, .005 at .05: both .005 and .01 fall at .05/4, then .03 > .05/2 stops it
    p = [0.01, 0.04, 0.03, 0.005]
    levels = holm_levels([lambda c, p=one: p <= 1 - c + 1e-12 for one in p], 0.05)
    assert [one <= level for one, level in zip(p, levels, strict=True)] == [True, False, False, True]
    assert levels == pytest.approx([0.05 / 4, 0.05 / 2, 0.05 / 2, 0.05 / 4])


def test_holm_agrees_with_the_step_down_from_the_smallest() -> None:
    p = sorted(float(norm.sf(k / 4)) for k in range(16))
    expected = []
    for k, one in enumerate(p):
        expected.append(one <= 0.05 / (len(p) - k) and all(expected))
    levels = holm_levels([lambda c, p=one: p <= 1 - c for one in p], 0.05)
    assert [one <= level for one, level in zip(p, levels, strict=True)] == expected
    assert 0 < sum(expected) < len(p)


def test_one_wide_interval_among_many_is_chance() -> None:
    # z = (.0750 - .05) / .0115 = 2.17: beyond the limit alone (1.96), not among ten groups (2.81)
    groups = [seen(0.0, 0.0115, f"g{k}") for k in range(9)]
    assert verdict(rule(), seen(-0.075, 0.0115))["verdict"] == FAIL
    entry = verdict(rule(), *groups, seen(-0.075, 0.0115))
    assert entry["verdict"] == INCONCLUSIVE
    assert "one such interval can come by chance" in entry["reason"]
    b = entry["groups"][-1]
    assert b["adjusted_high"] == pytest.approx(-0.075 + norm.ppf(1 - 0.0025) * 0.0115)
    assert b["high"] == pytest.approx(-0.075 + Z * 0.0115)


def test_required_rules_are_one_family_and_advisory_ones_stand_alone() -> None:
    def two(required: bool) -> list[dict]:
        others = [seen(0.0, 0.0115, f"g{k}") for k in range(9)]
        return conclude(
            [Asked(rule(), others, ALONE), Asked(rule(required=required), [seen(-0.075, 0.0115)], ALONE)], SETTINGS
        )

    assert two(required=True)[1]["verdict"] == INCONCLUSIVE
    assert two(required=False)[1]["verdict"] == FAIL


def test_groups_that_cant_be_judged_dont_widen_the_intervals_of_others() -> None:
    small = [seen(0.0, 0.1, f"s{k}", n=19) for k in range(50)]
    entry = verdict(rule(), seen(-0.075, 0.0115), *small)
    assert entry["groups"][0]["adjusted_high"] == pytest.approx(entry["groups"][0]["high"])
    assert entry["verdict"] == FAIL


def test_a_small_group_is_inconclusive_however_bad() -> None:
    entry = verdict(rule(), seen(0.0, 0.001), seen(-0.9, 0.001, "tiny", n=19))
    assert entry["verdict"] == INCONCLUSIVE
    tiny = entry["groups"][1]
    assert (tiny["n_more"], tiny["low"], tiny["n_for_power"]) == (1, None, None)
    assert tiny["reason"] == "group tiny has 19 images that count here, too few to judge (1 more needed)"


def test_a_small_reference_judges_nobody() -> None:
    entry = verdict(rule(), seen(0.0, 0.001, n_reference=19))
    assert entry["verdict"] == INCONCLUSIVE
    assert "is compared with 19 images only" in entry["reason"]


def test_a_known_group_without_images_keeps_a_rule_from_passing() -> None:
    asked = Asked(rule(), [seen(0.0, 0.001)], ALONE, absent=["c"])
    (entry,) = conclude([asked], SETTINGS)
    assert entry["verdict"] == INCONCLUSIVE
    assert entry["groups"][1]["reason"] == "group c has no image in this table (20 needed)"
    assert entry["groups"][1]["n_more"] == 20


def test_a_problem_is_inconclusive_with_its_reason() -> None:
    (entry,) = conclude([Asked(rule(), [], ALONE, "column site is absent from the table")], SETTINGS)
    assert (entry["verdict"], entry["reason"]) == (INCONCLUSIVE, "column site is absent from the table")


def test_no_comparison_at_all_is_no_pass() -> None:
    assert verdict(rule())["verdict"] == INCONCLUSIVE


@pytest.mark.parametrize(("estimate", "word"), [(0.0, "pass"), (-0.2, "fail")])
def test_too_few_clusters_leave_a_required_rule_open(estimate: float, word: str) -> None:
    entry = verdict(rule(), seen(estimate, 0.01), sampling=TOO_FEW)
    assert entry["verdict"] == INCONCLUSIVE
    assert entry["reason"].startswith(
        f"group b holds images of only 4 group_ids; taken as independent images the rule would be a {word}: "
    )
    assert verdict(rule(required=False), seen(estimate, 0.01), sampling=TOO_FEW)["verdict"] == word


def test_reasons_are_sentences_with_all_numbers() -> None:
    (said,) = [group["reason"] for group in verdict(rule(), seen(-0.1, 0.01))["groups"]]
    assert said == (
        "group b: accuracy 80.0 % (n = 400) lies 10.0 points below all other images together (90.0 %, n = 4000), "
        "interval -12.0 to -8.0 points; allowed: at most 5 points below: wholly beyond it"
    )


def test_reason_of_a_ratio_and_of_a_floor() -> None:
    ratio = verdict(rule("four_fifths", 0.8, reference="highest", metric="selection_rate:cat"), seen(0.7, 0.02))
    assert "is 0.70 times that of the group with the best value" in ratio["reason"]
    assert "interval 0.66 to 0.74; allowed: at least 0.80 times" in ratio["reason"]
    floor = verdict(rule("floor", 0.8, reference=""), seen(0.7, 0.02))
    assert "interval 66.1 % to 73.9 %; allowed: at least 80 %: wholly beyond it" in floor["reason"]


def test_a_gain_of_the_whole_never_hides_the_loss_of_a_group() -> None:
    change = rule("change", 0.02, reference="source_only")
    (entry,) = conclude([Asked(change, [seen(0.02, 0.005, "a"), seen(-0.03, 0.01)], ALONE, overall=0.012)], SETTINGS)
    assert entry["verdict"] == INCONCLUSIVE
    assert entry["reason"].startswith(
        "overall +1.2 points, group b -3.0 points (-5.0 to -1.0) against source_only; 1 of 2 groups of site undecided: "
    )
    (entry,) = conclude([Asked(change, [seen(0.02, 0.005, "a")], ALONE, overall=0.012)], SETTINGS)
    assert not entry["reason"].startswith("overall")


def test_ten_thousand_reasons_are_not_read_out() -> None:
    entry = verdict(rule(), *[seen(-0.01 - k * 1e-6, 0.03, f"g{k}") for k in range(1000)])
    assert len(entry["reason"]) < 1500
    assert entry["reason"].startswith("1,000 of 1,000 groups of site undecided: group g999: ")  # the worst first
    assert entry["reason"].endswith("; and 997 more")


def test_text_from_right_to_left_turns_no_number_around() -> None:
    said = verdict(rule(), seen(-0.1, 0.01, "עברית\u202e\n1"))["reason"]
    assert "\u2068עברית 1\u2069: accuracy" in said
    assert "\u202e" not in said


def test_an_image_count_that_would_decide() -> None:
    # inside, half = .03 Z, distance = .04, n_other = ∞ in all but name: 400 ((.0588 / .04)² - 1) = 464.2
    entry = verdict(rule(metric="balanced_accuracy"), seen(-0.01, 0.03, n=400, n_reference=10**12))
    assert entry["groups"][0]["n_more"] == math.ceil(400 * ((0.03 * Z / 0.04) ** 2 - 1)) == 465
    assert "about 465 more images of it would decide" in entry["reason"]
    # beyond, half = .01 Z, distance = .01: 400 (1.96² - 1) = 1136.6
    entry = verdict(rule(metric="balanced_accuracy"), seen(-0.06, 0.01, n=400, n_reference=10**12))
    assert entry["groups"][0]["n_more"] == 1137
    # 80 % power to fail at -.06: ((1.96 + .8416) .01 / .01)² 400 = 3139.6
    assert entry["groups"][0]["n_for_power"] == 3140


def test_on_the_limit_nothing_decides() -> None:
    entry = verdict(rule(limit=0.0625), seen(-0.0625, 0.01))
    assert entry["groups"][0]["n_more"] is None
    assert "more images of this group alone wouldn't decide" in entry["reason"]


def test_images_of_the_other_side_bound_what_more_images_can_do() -> None:
    # se² = s² (1/100 + 1/100); halving it needs 1/n' = 2/100/4 - 1/100 < 0: impossible; by 1/1.2: 1/n' = .02/1.44 - .01
    measured = Measured(100, 100, 0.0, -1.0, 1.0, 0.95)
    assert n_at_width(measured, 1.0, 0.5) is None
    assert n_at_width(measured, 1.0, 1 / 1.2) == pytest.approx(1 / (0.02 / 1.44 - 0.01))


def test_of_two_rates_each_side_has_its_own_spread() -> None:
    # .9 of 100 against .5 of 100, each drawn by one image of either kind: 91/102 and 51/102
    one, other = 91 / 102 * 11 / 102 / 100, 0.25 / 100
    assert share_of_rates(0.9, 100, 0.5, 100.0, is_ratio=False) == pytest.approx(one / (one + other))
    # of logarithms: (1 - p) / (p n)
    one, other = 11 / 91 / 100, 1 / 100
    assert share_of_rates(0.9, 100, 0.5, 100.0, is_ratio=True) == pytest.approx(one / (one + other))
    assert share_of_rates(0.9, 100, math.nan, 100.0, is_ratio=False) is None


def test_a_well_known_reference_makes_more_images_of_the_group_worth_their_number() -> None:
    """244 of 258 right against 497 of 510, limit 5 points: so many more of the group do put scipy's interval inside."""
    seen_one, seen_other = (244, 258), (497, 510)
    estimate = 244 / 258 - 497 / 510
    low = estimate - 1.96 * math.sqrt(sum(k / n * (1 - k / n) / n for k, n in (seen_one, seen_other)))
    share = share_of_rates(244 / 258, 258, 497 / 510, 510.0, is_ratio=False)
    more = n_more_to_pass(Measured(258, 510, estimate, low, 2 * estimate - low, 0.95, share), -0.05, math.inf)
    assert more is not None

    def wald_low(n: int) -> float:
        p, q = 244 / 258, 497 / 510
        return p - q - 1.96 * math.sqrt(p * (1 - p) / n + q * (1 - q) / 510)

    assert wald_low(258 + more) == pytest.approx(-0.05, abs=1e-3)
    assert 100 < more < 1000  # with one spread for both sides it would be tens of thousands


def test_images_that_are_said_to_decide_do_decide() -> None:
    """244 of 258 right against 497 of 510, limit 5 points: statsmodels' Newcombe interval needs a lower end above -.05."""

    def newcombe_low(n: int) -> float:
        (p, q), z = (244 / 258, 497 / 510), Z

        def wilson(share: float, size: int) -> tuple[float, float]:
            centre = (share + z * z / (2 * size)) / (1 + z * z / size)
            half = z / (1 + z * z / size) * math.sqrt(share * (1 - share) / size + z * z / (4 * size * size))
            return centre - half, centre + half

        return p - q - math.sqrt((p - wilson(p, n)[0]) ** 2 + (wilson(q, 510)[1] - q) ** 2)

    more = n_more_of_rates((244 / 258, 497 / 510), (258, 510), Z, lambda low, high: low >= -0.05)
    assert more is not None
    assert newcombe_low(258 + more) >= -0.05 > newcombe_low(258 + more - 1)
    assert (
        n_more_of_rates((0.9, 0.95), (100, 10), Z, lambda low, high: low >= -0.05) is None
    )  # the other side is too small


def test_limits_on_both_sides_need_the_larger_number() -> None:
    measured = Measured(100, math.inf, 0.01, 0.01 - 0.1, 0.01 + 0.1, 0.95)
    # to the upper limit .04: 100 ((.1/.04)² - 1) = 525; to the lower one .06: 100 ((.1/.06)² - 1) = 177.8
    assert n_more_to_pass(measured, -0.05, 0.05) == 525
    assert n_more_to_pass(measured, -0.05, math.inf) == 178


def test_infinite_intervals_promise_nothing() -> None:
    measured = Measured(100, math.inf, -0.1, -math.inf, math.inf, 0.95)
    assert n_more_to_fail(measured, -0.05) is None
    assert n_for_power(measured, -0.05) is None
    assert n_for_limit([measured], 0.05, others_per_group=1, is_two_sided=False) is None


def test_images_per_group_for_the_limit_asked() -> None:
    # s² = .09 (a rate of .9), floor of one group: .09 ((1.95996 + .84162) / .05)² = 282.6
    se = math.sqrt(0.09 / 400)
    one = Measured(400, math.inf, 0.0, -Z * se, Z * se, 0.95)
    assert n_for_limit([one], 0.05, others_per_group=math.inf, is_two_sided=False) == 283
    # ten groups against nine times as many others; each has to pass with .8^(1/10) = .97793, z = 2.0126
    se = math.sqrt(0.09 * (1 / 400 + 1 / 3600))
    ten = [Measured(400, 3600, 0.0, -Z * se, Z * se, 0.95)] * 10
    expected = 10 / 9 * 0.09 * ((Z + 2.0126) / 0.05) ** 2
    assert n_for_limit(ten, 0.05, others_per_group=9, is_two_sided=False) == pytest.approx(expected, abs=1.5)


def test_no_number_of_images_shows_a_limit_of_nothing() -> None:
    assert verdict(rule(limit=0.0), seen(0.0, 0.01))["n_for_limit"] is None
    assert verdict(rule(), seen(0.0, 0.01))["n_for_limit"] > 0
