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


def test_no_labels_say_so() -> None:
    found = guard(0, 0, 0)
    assert found.reason == "there are no guard labels, so nothing proves a gain"
    assert math.isnan(found.gain.value)
    assert found.n_more_labels is None


def test_the_reason_gives_the_numbers() -> None:
    # 8/10 is .4439 to .9748, 10/40 up to .4120 (Clopper-Pearson)
    assert guard(8, 2, 30).reason == (
        "not proven either way: gain +0.150, 95% interval -0.046 to +0.391, exactly one of the two right on 10 of "
        "n = 40 guard labels; about 8 more labels would decide"
    )
    assert guard(30, 2, 88).reason.startswith("better than source-only beyond the interval: gain +0.233")
    assert guard(2, 30, 88).reason.startswith("worse than source-only beyond the interval: gain -0.233")
    assert guard(5, 5, 10).reason.endswith("; no affordable number of labels would decide at this gain")


@pytest.mark.parametrize(("wins", "losses", "n"), [(8, 2, 40), (9, 3, 120), (20, 10, 200), (2, 8, 40), (5, 2, 60)])
def test_as_many_more_labels_as_said_would_decide(wins: int, losses: int, n: int) -> None:
    """Checked with scipy's exact sign test at the same rates: that many decide, and 5 % fewer of the total don't."""

    def decides(size: int) -> bool:
        won, lost = round(wins * size / n), round(losses * size / n)
        return bool(binomtest(won, won + lost).pvalue < 0.05)

    more = labels_needed(wins, losses, n, margin=0.0, confidence=0.95)
    assert more is not None
    assert decides(n + more)
    assert not decides(max(int((n + more) * 0.95), n))


def test_no_number_of_labels_decides_between_equals() -> None:
    assert labels_needed(5, 5, 40, margin=0.0, confidence=0.95) is None


def test_equal_models_are_adopted_no_more_often_than_promised() -> None:
    rng, n_runs = np.random.default_rng(0), 1500
    adopted = 0
    for _ in range(n_runs):
        right = rng.random((2, 120)) < np.where(rng.random(120) < 0.8, 0.95, 0.3)
        adopted += decide(right[0], right[1], margin=0.0, confidence=0.95).decision == ADOPT
    assert adopted / n_runs <= 0.025 + 2.6 * math.sqrt(0.025 * 0.975 / n_runs)
    assert adopted > 0  # a guard that never opens would pass too


@pytest.mark.parametrize(("n", "discordant_share"), [(20, 0.1), (50, 0.3)])
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
    assert found.reason.startswith("better than source-only -0.050 beyond the interval: gain -0.010")


def test_a_negative_margin_asks_for_that_much_gain() -> None:
    assert guard(30, 2, 88).decision == ADOPT
    asked = guard(30, 2, 88, margin=-0.05)
    assert asked.decision == ADOPT
    assert asked.reason.startswith("better than source-only +0.050 beyond the interval")
    assert guard(30, 2, 88, margin=-0.25).decision == INCONCLUSIVE
