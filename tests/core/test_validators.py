"""Label-free validators: values by hand, and what fools them is known."""

import math

import numpy as np
import pytest

from tasks.core.validators import (
    effective_classes,
    ensemble_agreement,
    entropy,
    estimated_accuracy,
    information_maximisation,
    mix_pairs,
    mixed,
    mixval,
    nuclear_norm,
    softmax_correlation,
)

CERTAIN = np.array([[1.0, 0.0], [0.0, 1.0]])
COLLAPSED = np.array([[1.0, 0.0], [1.0, 0.0]])
UNDECIDED = np.full((2, 2), 0.5)


@pytest.mark.parametrize(
    ("p_NC", "by_hand"),
    [
        # entropy, IM, BNM, softmax correlation, effective classes
        (CERTAIN, (0.0, math.log(2), 1.0, 1.0, 2.0)),  # PᵀP = identity
        (
            COLLAPSED,
            (0.0, 0.0, math.sqrt(2) / 2, 1 / math.sqrt(2), 1.0),
        ),  # one singular value √2; PᵀP = [[2, 0], [0, 0]]
        (UNDECIDED, (-math.log(2), 0.0, 0.5, 1 / math.sqrt(2), 2.0)),  # one singular value 1; PᵀP = all 1/2
    ],
)
def test_scores_of_three_simple_models(p_NC: np.ndarray, by_hand: tuple[float, ...]) -> None:
    scores = (entropy, information_maximisation, nuclear_norm, softmax_correlation, effective_classes)
    assert [score(p_NC) for score in scores] == pytest.approx(by_hand)


def test_a_mixed_case_by_hand() -> None:
    p_NC = np.array([[0.9, 0.1], [0.3, 0.7]])
    of_rows = [-(0.9 * math.log(0.9) + 0.1 * math.log(0.1)), -(0.3 * math.log(0.3) + 0.7 * math.log(0.7))]
    of_mean = -(0.6 * math.log(0.6) + 0.4 * math.log(0.4))
    assert entropy(p_NC) == pytest.approx(-sum(of_rows) / 2)
    assert information_maximisation(p_NC) == pytest.approx(of_mean - sum(of_rows) / 2)
    # the singular values of a 2 x 2 matrix add up to sqrt(sum of squares + 2 |determinant|); .9 · .7 - .1 · .3 = .6
    assert nuclear_norm(p_NC) == pytest.approx(math.sqrt(0.81 + 0.01 + 0.09 + 0.49 + 1.2) / 2)
    # PᵀP = [[.90, .30], [.30, .50]]
    assert softmax_correlation(p_NC) == pytest.approx(1.4 / (math.sqrt(2) * math.sqrt(0.81 + 0.09 + 0.09 + 0.25)))


def test_entropy_alone_prefers_a_collapsed_model_and_the_diverse_scores_do_not() -> None:
    sound = np.array([[0.9, 0.1], [0.1, 0.9]])
    assert entropy(COLLAPSED) > entropy(sound)
    for score in (information_maximisation, nuclear_norm, softmax_correlation, effective_classes):
        assert score(COLLAPSED) < score(sound)


def test_agreement_with_the_mean_over_models() -> None:
    p_MNC = np.array(
        [
            [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.9, 0.1]],
            [[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.9, 0.1]],
            [[0.1, 0.9], [0.1, 0.9], [0.4, 0.6], [0.3, 0.7]],
        ]
    )  # class 0 has .600, .433, .300, .700 on average: the guesses are 0, 1, 1, 0
    assert ensemble_agreement(p_MNC) == pytest.approx([0.75, 0.75, 0.5])


def test_a_sure_minority_outvotes_an_unsure_majority() -> None:
    # two votes (.6, .4) and one (.1, .9) are (.433, .567)
    p_MNC = np.array([[[0.6, 0.4]], [[0.6, 0.4]], [[0.1, 0.9]]])
    assert ensemble_agreement(p_MNC).tolist() == [0.0, 0.0, 1.0]


def test_pairs_are_of_one_or_of_two_guessed_classes() -> None:
    guess_N = np.array([0, 0, 0, 1, 1, 2])
    intra, inter = mix_pairs(guess_N, seed=3)
    assert intra[:, 0].tolist() == [0, 1, 2, 3, 4]  # image 5 has no company
    assert inter[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert (guess_N[intra[:, 0]] == guess_N[intra[:, 1]]).all()
    assert (intra[:, 0] != intra[:, 1]).all()
    assert (guess_N[inter[:, 0]] != guess_N[inter[:, 1]]).all()


def test_pairs_are_addressed() -> None:
    guess_N = np.arange(40) % 3
    again, other = mix_pairs(guess_N, seed=0), mix_pairs(guess_N, seed=1)
    assert [pairs.tolist() for pairs in mix_pairs(guess_N, seed=0)] == [pairs.tolist() for pairs in again]
    assert again[0].tolist() != other[0].tolist()


def test_a_collapsed_model_has_no_pairs_of_two_classes() -> None:
    intra, inter = mix_pairs(np.zeros(4, int), seed=0)
    assert (len(intra), len(inter)) == (4, 0)
    assert math.isnan(mixval(np.empty((0, 2)), np.empty(0, int)))


def test_mixing_and_its_score_by_hand() -> None:
    assert mixed(np.array([[0.0], [10.0]]), np.array([[0, 1], [1, 0]])).ravel() == pytest.approx([4.5, 5.5])
    p_PC = np.array([[0.6, 0.4], [0.4, 0.6], [0.7, 0.3], [0.1, 0.9]])
    assert mixval(p_PC, np.array([0, 1, 1, 1])) == 0.75


def negative_entropy_to_p(x: float) -> list[float]:
    return [1 - x, x]


def test_estimated_accuracy_by_hand() -> None:
    source = np.array([negative_entropy_to_p(x) for x in (0.01, 0.05, 0.1, 0.3, 0.45)])
    right = np.array([True, True, True, False, False])  # the threshold is the certainty of .1
    target = np.array([negative_entropy_to_p(x) for x in (0.02, 0.1, 0.2, 0.4)])
    found = estimated_accuracy(source, right, target, n_draws=200, confidence=0.95, seed=0)
    assert (found.value, found.n) == (0.5, 4)
    assert 0 <= found.low <= 0.5 <= found.high <= 1
    assert found.high - found.low > 0.1
    assert found == estimated_accuracy(source, right, target, n_draws=200, confidence=0.95, seed=0)
    wrong = np.zeros(5, bool)
    assert estimated_accuracy(source, wrong, target, n_draws=5, confidence=0.95, seed=0).value == 0.0


def test_estimated_accuracy_is_right_where_source_and_target_are_alike() -> None:
    rng = np.random.default_rng(0)

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        top = rng.uniform(0.5, 1, n)
        return np.stack([top, 1 - top], 1), rng.random(n) < top  # calibrated: three quarters are right

    source_p, right = draw(3000)
    found = estimated_accuracy(source_p, right, draw(3000)[0], n_draws=100, confidence=0.95, seed=0)
    assert found.low < 0.75 < found.high
    assert found.value == pytest.approx(0.75, abs=0.03)


def test_estimated_accuracy_refuses_an_empty_side() -> None:
    message = "the accuracy on the target can't be estimated from 2 source and 0 target images; at least one of each is needed"
    with pytest.raises(ValueError, match=message):
        estimated_accuracy(CERTAIN, np.ones(2, bool), np.empty((0, 2)), n_draws=2, confidence=0.95, seed=0)
