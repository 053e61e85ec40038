"""The guard: it trips where it must, and equal models pass it no more often than promised."""

import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from tasks.core.guard import ADOPT, INCONCLUSIVE, KEEP, GuardDecision, decide, labels_needed


def guard(wins: int, losses: int, ties: int, *, margin: float = 0.0, confidence: float = 0.95) -> GuardDecision:
    adapted = np.array([True] * wins + [False] * losses + [i % 2 == 0 for i in range(ties)], dtype=bool)
    source = np.array([False] * wins + [True] * losses + [i % 2 == 0 for i in range(ties)], dtype=bool)
    return decide(adapted, source, margin=margin, confidence=confidence)


@pytest.mark.parametrize(
    ("wins", "losses", "ties", "decision"),
    [
        (30, 2, 88, ADOPT),
        (6, 0, 100, ADOPT),  # two-sided sign test: 2/64 = .031
        (5, 0, 100, INCONCLUSIVE),  # 2/32 = .063
        (0, 5, 100, INCONCLUSIVE),
        (0, 6, 100, KEEP),
        (2, 30, 88, KEEP),  # harmful adaptation is refused
        (10, 10, 100, INCONCLUSIVE),
        (0, 0, 120, INCONCLUSIVE),  # equal models
        (0, 0, 0, INCONCLUSIVE),  # no labels
        (0, 0, 1, INCONCLUSIVE),
        (1, 0, 0, INCONCLUSIVE),
    ],
)
def test_only_a_proven_gain_is_adopted(wins: int, losses: int, ties: int, decision: str) -> None:
    found = guard(wins, losses, ties)
    assert found.decision == decision
    assert found.n_discordant == wins + losses
    assert found.gain.n == wins + losses + ties


def test_the_decision_is_the_sign_test() -> None:
    for discordant in range(1, 26):
        for wins in range(discordant + 1):
            proven = binomtest(wins, discordant).pvalue < 0.05
            expected = INCONCLUSIVE if not proven else ADOPT if wins * 2 > discordant else KEEP
            assert guard(wins, discordant - wins, 30).decision == expected, (wins, discordant)


def test_no_labels_say_so() -> None:
    found = guard(0, 0, 0)
    assert found.reason == "there are no guard labels, so nothing proves a gain"
    assert math.isnan(found.gain.value)
    assert found.n_more_labels is None


def test_gain_and_interval_by_hand() -> None:
    # 8 of 10 discordant won, 40 labels; Clopper-Pearson of 8/10 is .4439 to .9748
    found = guard(8, 2, 30)
    assert found.gain.value == pytest.approx(0.15)
    assert (found.gain.low, found.gain.high) == pytest.approx((0.25 * -0.1122, 0.25 * 0.9496), abs=1e-4)
    assert "gain +0.150" in found.reason
    assert "n = 40 guard labels" in found.reason


def test_equal_models_keep_an_interval_with_width() -> None:
    # exact upper bound of 0 of 20: 1 - .025^(1/20) = .1684
    found = guard(0, 0, 20)
    assert (found.gain.low, found.gain.value, found.gain.high) == pytest.approx((-0.1684, 0.0, 0.1684), abs=5e-5)


def test_labels_needed_by_hand() -> None:
    # 1.96² (.25 - .15²) / .15² = 38.84; 1.96² (.3 - .1²) / .1² = 111.4
    assert labels_needed(0.15, 0.25, 20, 0.95) == 39 - 20
    assert labels_needed(-0.1, 0.3, 100, 0.95) == 112 - 100
    assert labels_needed(0.15, 0.25, 40, 0.95) == 1
    assert labels_needed(0.0, 0.25, 40, 0.95) is None


def test_equal_models_are_adopted_no_more_often_than_promised() -> None:
    rng, n_runs = np.random.default_rng(0), 1500
    adopted = 0
    for _ in range(n_runs):
        right = rng.random((2, 120)) < np.where(rng.random(120) < 0.8, 0.95, 0.3)
        adopted += decide(right[0], right[1], margin=0.0, confidence=0.95).decision == ADOPT
    assert adopted / n_runs <= 0.025 + 2.6 * math.sqrt(0.025 * 0.975 / n_runs)
    assert adopted > 0  # a guard that never opens would pass too


@pytest.mark.parametrize(("n", "discordant_share"), [(20, 0.1), (60, 0.3), (120, 0.08)])
def test_the_exact_false_adoption_rate_stays_below_the_tail(n: int, discordant_share: float) -> None:
    rate = 0.0
    for m in range(n + 1):
        adopting = [w for w in range(m + 1) if guard(w, m - w, n - m).decision == ADOPT]
        if adopting:
            rate += binom.pmf(m, n, discordant_share) * binom.sf(adopting[0] - 1, m, 0.5)
    assert rate <= 0.025


@pytest.mark.parametrize(("margin", "loss_share"), [(0.1, 0.1), (0.05, 0.05)])
def test_a_model_worse_by_the_margin_is_adopted_no_more_often_than_promised(margin: float, loss_share: float) -> None:
    # the adapted model loses a share of images as large as the margin and wins none; 20 or 40 guard labels
    n = round(2 / margin)
    adopting = [m for m in range(n + 1) if guard(0, m, n - m, margin=margin).decision == ADOPT]
    assert sum(binom.pmf(m, n, loss_share) for m in adopting) <= 0.025


def test_more_losses_never_turn_a_doubt_into_an_adoption() -> None:
    decisions = [guard(0, losses, 20 - losses, margin=0.1).decision for losses in range(4)]
    first_doubt = decisions.index(INCONCLUSIVE)
    assert ADOPT not in decisions[first_doubt:]


def test_an_adoption_within_the_margin_does_not_claim_to_be_better() -> None:
    found = guard(40, 60, 1900, margin=0.05)
    assert found.decision == ADOPT
    assert found.gain.value < 0
    assert "better than source-only" not in found.reason


def test_a_negative_margin_asks_for_that_much_gain() -> None:
    assert guard(30, 2, 88).decision == ADOPT
    assert guard(30, 2, 88, margin=-0.25).decision == INCONCLUSIVE
