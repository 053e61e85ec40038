"""The guard trips where it must, counts labels that tell something, and lets equal models pass as rarely as promised."""

import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from tasks.core.guard import (
    ADOPT,
    INCONCLUSIVE,
    KEEP,
    Evidence,
    GuardDecision,
    GuardSettings,
    by_labels,
    by_part,
    decide,
    evidence_of,
    labels_needed,
    shares_gate,
    to_label,
)
from tasks.core.method_choice import Gate

AGREES = Gate("one", 1.0, 0.5, True, "1.0 of what is asked")
SPEAKS_AGAINST = Gate("other", 0.1, 0.5, False, "only 0.1 of what is asked")


def settings(
    margin: float = 0.0, adopt: float = 0.9, with_gates: float = 0.5, without_labels: str = "keep"
) -> GuardSettings:
    return GuardSettings(0.95, adopt, with_gates, margin, without_labels)


def guard(
    wins: int, losses: int, both_wrong: int = 0, *, n: int = 1000, differ: int = 200, **how: float
) -> GuardDecision:
    return decide(Evidence(n, differ, wins, losses, both_wrong), settings(**how))


@pytest.mark.parametrize(
    ("wins", "losses", "both_wrong", "decision"),
    [
        (30, 2, 20, ADOPT),
        (5, 0, 0, ADOPT),  # one-sided sign test 1/32 = .031, round 1 allows .05
        (4, 0, 16, INCONCLUSIVE),  # 1/16 = .063
        (7, 1, 12, ADOPT),  # 9/256 = .035
        (6, 1, 13, INCONCLUSIVE),  # 8/128 = .0625
        (0, 4, 16, INCONCLUSIVE),
        (0, 5, 15, KEEP),  # harmful adaptation is refused
        (2, 30, 0, KEEP),
        (10, 10, 0, INCONCLUSIVE),
        (0, 0, 20, INCONCLUSIVE),
    ],
)
def test_only_a_proven_gain_is_adopted(wins: int, losses: int, both_wrong: int, decision: str) -> None:
    found = guard(wins, losses, both_wrong)
    assert found.decision == decision
    assert found.is_proven == (decision != INCONCLUSIVE)
    assert found.gain.n == wins + losses + both_wrong


def test_evidence_counts_labelled_disagreements_only() -> None:
    adapted = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    source_ = np.array([0, 0, 1, 0, 0, 2, 1, 0])
    labels = np.array([0, -1, 0, 0, 2, -1, 2, -1])
    # images 2 and 6 are won, 3 is lost, 4 is wrong in both; 0 is an agreement, 1, 5 and 7 have no label
    found = evidence_of(adapted, source_, labels)
    assert found == Evidence(n_images=8, n_disagreements=6, wins=2, losses=1, both_wrong=1)
    assert found.n_labels == 4


def test_the_gain_is_scaled_by_the_known_share_of_disagreements() -> None:
    gain = Evidence(1000, 200, wins=30, losses=10, both_wrong=0).gain(0.95)
    assert gain.value == pytest.approx(0.2 * 20 / 40)
    won = binomtest(30, 40).proportion_ci(0.95, "exact")
    found = binomtest(40, 40).proportion_ci(0.95, "exact")  # of 40 labels all tell
    assert gain.low == pytest.approx(0.2 * found.low * (2 * won.low - 1))
    assert gain.high == pytest.approx(0.2 * (2 * won.high - 1))
    # labels on disagreements: the same 40 among 200 random labels would leave the share of disagreements open as well
    assert Evidence(1000, 200, 0, 0, 0).gain(0.95).high == 0.2


def test_models_that_guess_the_same_leave_nothing_to_gain() -> None:
    found = guard(0, 0, n=50, differ=0)
    assert found.decision == KEEP
    assert found.reason.startswith("both models guess the same on all 50 images; the models disagree on 0 of 50")
    assert (found.gain.value, found.gain.low, found.gain.high) == (0.0, 0.0, 0.0)


def test_without_labels_nothing_is_proven() -> None:
    found = guard(0, 0)
    assert (found.decision, found.is_proven) == (INCONCLUSIVE, False)
    assert found.reason == (
        "there are no labels on disagreements, so nothing proves a gain; the models disagree on 200 of 1000 images (20.0%); "
        "label some of these images"
    )
    assert math.isnan(found.gain.value)
    assert found.n_more_labels is None


def test_gates_adopt_without_labels_only_where_that_is_allowed() -> None:
    none = Evidence(1000, 200, 0, 0, 0)
    allowed = settings(without_labels="gates")
    adopted = decide(none, allowed, gates=[AGREES, AGREES])
    assert (adopted.decision, adopted.is_proven) == (ADOPT, False)
    assert adopted.reason.startswith(
        "there are no labels on disagreements; all 2 label-free gates agree, which proves nothing"
    )
    kept = decide(none, allowed, gates=[AGREES, SPEAKS_AGAINST])
    assert kept.decision == KEEP
    assert "label-free gates speak against it or can't tell: only 0.1 of what is asked;" in kept.reason
    assert decide(none, settings(), gates=[AGREES, AGREES]).decision == INCONCLUSIVE
    assert decide(none, allowed, gates=[]).decision == INCONCLUSIVE


def test_labels_count_more_than_gates() -> None:
    allowed = settings(without_labels="gates")
    assert decide(Evidence(1000, 200, 2, 12, 0), allowed, gates=[AGREES]).decision == KEEP
    assert decide(Evidence(1000, 200, 12, 2, 0), allowed, gates=[SPEAKS_AGAINST]).decision == ADOPT
    assert decide(Evidence(1000, 200, 5, 5, 0), allowed, gates=[AGREES]).decision == INCONCLUSIVE


def test_gates_that_agree_lower_the_evidence_that_is_asked_for() -> None:
    evidence = Evidence(1000, 200, 4, 1, 15)  # 6/32 = .19: within .25, not within .05
    assert decide(evidence, settings(), gates=[AGREES]).decision == ADOPT
    assert decide(evidence, settings(), gates=[AGREES, SPEAKS_AGAINST]).decision == INCONCLUSIVE
    assert decide(evidence, settings()).decision == INCONCLUSIVE


def test_the_reason_gives_the_numbers() -> None:
    def ends(level: float) -> tuple[float, float]:
        won, tells = (binomtest(*case).proportion_ci(level, "exact") for case in ((6, 7), (7, 20)))
        return 0.2 * tells.high * (2 * won.low - 1), 0.2 * tells.high * (2 * won.high - 1)

    (low, high), (shown_low, shown_high) = ends(0.9), ends(0.95)
    assert low < 0 < high
    # at the same rate 25 labels have 7.5, so 8 wins and 1 loss: 10/512 = .0195 is within the second round's .025
    assert guard(6, 1, 13).reason == (
        f"not proven either way: 95.0% one-sided bounds {low:+.3f} and {high:+.3f}; the models disagree on 200 of 1000 "
        f"images (20.0%), of 20 labelled ones adapted won 6 and lost 1: gain +0.050, 95% interval {shown_low:+.3f} to "
        f"{shown_high:+.3f}; about 5 more labels of these images would decide at this rate"
    )
    assert guard(30, 2, 20).reason.startswith("better than source-only: 95.0% one-sided bound +0.0")
    assert guard(0, 9).reason.startswith("worse than source-only: 95.0% one-sided bound -0.")


def test_the_champion_can_stand_for_source_only() -> None:
    found = decide(Evidence(1000, 200, 30, 2, 20), settings(), baseline="the champion")
    assert found.reason.startswith("better than the champion: 95.0% one-sided bound")


def test_asking_again_asks_for_more_evidence() -> None:
    evidence = Evidence(1000, 200, 5, 0, 0)  # 1/32 = .031: rounds allow .05, .025, .0125
    by_round = [decide(evidence, settings(), n_rounds=n).decision for n in (1, 2, 3)]
    assert by_round == [ADOPT, INCONCLUSIVE, INCONCLUSIVE]
    assert [settings().error(False, n) for n in (1, 2, 3)] == pytest.approx([0.05, 0.025, 0.0125])
    assert settings().error(True, 1) == 0.25


@pytest.mark.parametrize("share_won", [0.5, 0.4])
def test_looking_again_and_again_adopts_no_more_often_than_promised(share_won: float) -> None:
    rng, n_runs, adopted = np.random.default_rng(0), 1500, 0
    memo: dict[tuple[int, int, int], bool] = {}
    for _ in range(n_runs):
        won = rng.random(100) < share_won
        for n_rounds, n in enumerate((20, 40, 60, 80, 100), start=1):
            case = (int(won[:n].sum()), n, n_rounds)
            if case not in memo:
                found = Evidence(1000, 200, case[0], n - case[0], 0)
                memo[case] = by_labels(found, settings(), False, n_rounds)[0] == ADOPT
            if memo[case]:
                adopted += 1
                break
    assert adopted / n_runs <= 0.1
    if share_won == 0.5:
        assert adopted > 0  # a guard that never opens would pass too


@pytest.mark.parametrize("n", [10, 20, 50])
@pytest.mark.parametrize("tells", [0.3, 1.0])
def test_the_exact_false_adoption_rate_stays_below_the_tail(n: int, tells: float) -> None:
    rate = 0.0
    for m in range(n + 1):
        cases = [Evidence(1000, 200, w, m - w, n - m) for w in range(m + 1)]
        adopting = [c.wins for c in cases if by_labels(c, settings(), False, 1)[0] == ADOPT]
        if adopting:
            rate += binom.pmf(m, n, tells) * binom.sf(adopting[0] - 1, m, 0.5)
    assert rate <= 0.05
    assert rate > 0.005 or n * tells < 5


def test_a_model_worse_by_the_margin_is_adopted_no_more_often_than_promised() -> None:
    # a fifth of the images differ; on a quarter of those only source-only is right, so it costs .05: the margin
    adopting = [m for m in range(21) if guard(0, m, 20 - m, margin=0.05).decision == ADOPT]
    assert sum(binom.pmf(m, 20, 0.25) for m in adopting) <= 0.05


def test_a_negative_margin_asks_for_that_much_gain() -> None:
    asked = guard(60, 4, 0, margin=-0.05)
    assert asked.decision == ADOPT
    assert asked.reason.startswith("better than source-only +0.050: 95.0% one-sided bound")
    assert guard(60, 4, 0, margin=-0.19).decision == INCONCLUSIVE


def test_about_as_many_more_labels_as_the_next_sign_test_needs() -> None:
    evidence = Evidence(1000, 200, 6, 1, 13)

    def decides(size: int) -> bool:
        won, lost = round(6 * size / 20), round(size / 20)
        return bool(binomtest(won, won + lost, alternative="greater").pvalue < 0.025)

    more = labels_needed(evidence, settings(), False, n_rounds=1)
    assert more is not None
    assert decides(20 + more)
    assert not decides(20 + more - 1)


def test_no_number_of_labels_decides_between_equals_or_beyond_the_disagreements() -> None:
    assert labels_needed(Evidence(1000, 200, 5, 5, 0), settings(), False, n_rounds=1) is None
    few = Evidence(1000, 22, 6, 2, 12)
    assert labels_needed(few, settings(), False, n_rounds=1) is None
    assert decide(few, settings()).reason.endswith("; not even labels on all of these images would decide at this rate")


def test_labels_that_chose_the_method_are_not_asked_for_again() -> None:
    """Of 200 disagreements some may never have a label that counts: no more can be asked for than the others."""
    evidence = Evidence(1000, 200, 6, 1, 13)
    more = labels_needed(evidence, settings(), False, n_rounds=1)
    assert more is not None
    assert decide(evidence, settings()).n_more_labels == more
    assert decide(evidence, settings(), n_askable=20 + more).n_more_labels == more
    assert decide(evidence, settings(), n_askable=20 + more - 1).n_more_labels is None


def test_labels_that_neither_model_gets_tell_no_rate() -> None:
    found = decide(Evidence(1000, 200, 0, 0, 1), settings())
    assert (found.decision, found.n_more_labels) == (INCONCLUSIVE, None)
    assert found.reason.endswith("; so far they tell nothing of how many would decide: label more of these images")


def test_images_to_label_are_disagreements_in_a_nested_addressed_order() -> None:
    names = [f"image{n}" for n in range(50)]
    adapted, source_ = np.arange(50) % 2, np.zeros(50, int)
    few, more = (to_label(names, adapted, source_, n=n, seed=0) for n in (5, 12))
    assert more[:5] == few
    assert len(set(more)) == 12
    assert all(int(name.removeprefix("image")) % 2 == 1 for name in more)
    assert to_label(names[::-1], adapted[::-1], source_[::-1], n=5, seed=0) == few
    assert to_label(names, adapted, source_, n=5, seed=1) != few
    assert len(to_label(names, adapted, source_, n=99, seed=0)) == 25


def test_a_part_that_gets_provably_worse_is_named() -> None:
    part = np.repeat(["a", "b", "c"], 40)
    adapted, source_ = np.ones(120, int), np.zeros(120, int)
    adapted[80:] = 0  # c: no disagreement
    labels = np.full(120, -1)
    labels[:12] = 1  # a: 12 won
    labels[40:52] = 0  # b: 12 lost
    rows = {row["part"]: row for row in by_part(adapted, source_, labels, part, 0.95)}
    assert [rows[name]["is_worse"] for name in "abc"] == [False, True, False]
    assert [rows[name]["gain"] for name in "abc"] == [1.0, -1.0, 0.0]
    assert [(rows[name]["n"], rows[name]["n_disagreements"], rows[name]["n_labels"]) for name in "abc"] == [
        (40, 40, 12), (40, 40, 12), (40, 0, 0),
    ]  # fmt: skip
    # 7 of 7 lost: two-sided 2/128 = .0156 would be proof for one part, three share .05: .0167; 6 of 6: .031
    labels[46:52] = -1
    assert not {row["part"]: row for row in by_part(adapted, source_, labels, part, 0.95)}["b"]["is_worse"]
    labels[46] = 0
    assert {row["part"]: row for row in by_part(adapted, source_, labels, part, 0.95)}["b"]["is_worse"]


def mean_of(*p_C: float, n: int = 10_000) -> np.ndarray:
    """(N, 3): so many images of which each says the same."""
    return np.tile(p_C, (n, 1))


def test_class_shares_are_compared_by_total_variation() -> None:
    """Stated .5, .3, .2. Adapted says .35, .45, .2: half of .15 + .15; source-only .71, .19, .1: half of .21 + .11 + .1."""
    adapted_NC, base_NC = (
        np.vstack([mean_of(0.7, 0.1, 0.2, n=5000), mean_of(0.0, 0.8, 0.2, n=5000)]),
        mean_of(0.71, 0.19, 0.1),
    )
    stated_C = np.array([0.5, 0.3, 0.2])
    gate = shares_gate(adapted_NC, base_NC, stated_C)
    assert (gate.value, gate.limit, gate.is_passed) == (pytest.approx(0.15), pytest.approx(0.16), True)
    assert shares_gate(base_NC, adapted_NC, stated_C).is_passed is False
    assert shares_gate(adapted_NC, adapted_NC, stated_C).is_passed is False
    far_NC = mean_of(0.8, 0.1, 0.1)  # .3 off: .05 nearer is .25
    assert shares_gate(mean_of(0.74, 0.06, 0.2), far_NC, stated_C).is_passed is True
    assert shares_gate(mean_of(0.76, 0.04, 0.2), far_NC, stated_C).is_passed is False


@pytest.mark.parametrize("n", [400, 10_000])
def test_as_near_as_chance_lets_it_is_near_enough(n: int) -> None:
    """Two classes, half and half: twice √(.25 / (2 π n)), and .03; source-only is right on the shares."""
    stated_C = np.array([0.5, 0.5])
    limit = 2 * math.sqrt(0.25 / (2 * math.pi * n)) + 0.03
    for away, is_passed in ((limit - 0.001, True), (limit + 0.001, False)):
        gate = shares_gate(np.tile([0.5 + away, 0.5 - away], (n, 1)), np.tile(stated_C, (n, 1)), stated_C)
        assert (gate.limit, gate.is_passed) == (pytest.approx(limit), is_passed)


def test_chance_is_what_a_perfect_model_sees() -> None:
    """Drawn 4,000 times: the mean distance of 150 true labels from the shares that they are drawn by; the limit is .03 more."""
    stated_C, rng = np.array([0.4, 0.25, 0.2, 0.1, 0.05]), np.random.default_rng(0)
    away = np.abs(rng.multinomial(150, stated_C, size=4000) / 150 - stated_C).sum(1).mean() / 2
    base_NC = np.tile(stated_C, (150, 1))
    assert shares_gate(base_NC, base_NC, stated_C).limit - 0.03 == pytest.approx(away, rel=0.02)


def test_class_shares_of_few_images_agree_with_nothing() -> None:
    """65 even classes: 65 √(1/65 · 64/65 / (2 π n)) = .1 at n = 64 · 100 / (2 π) = 1018.6."""
    even = np.full(65, 1 / 65)
    for n, is_passed in ((1018, None), (1019, True)):
        said = np.tile(even, (n, 1))
        assert shares_gate(said, said, even).is_passed is is_passed
    reason = shares_gate(said[:1018], said[:1018], even).reason
    assert reason == (
        "1018 held-out images that came without a label are too few to see how frequent classes are: 1019 are needed "
        "(validate_data.splits.target_holdout_share)"
    )
    nothing = np.zeros((0, 65))
    assert shares_gate(nothing, nothing, even).is_passed is None
    verdict = decide(
        Evidence(100, 20, 0, 0, 0),
        settings(without_labels="gates"),
        gates=[AGREES, shares_gate(nothing, nothing, even)],
    )
    assert (verdict.decision, "0 held-out images that came without a label are too few" in verdict.reason) == (
        KEEP,
        True,
    )
