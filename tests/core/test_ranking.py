"""Ranking: ranks, intervals, P(best) and the tie rule, on tables small enough to do by hand."""

import numpy as np
import pytest

from tasks.core.ranking import Score, choose, mean_ranks, p_best, resample_counts, stratified_resamples


def score(values: list[float], draws: list[list[float]], *, higher: bool = True, weight: float = 1.0) -> Score:
    return Score("s", np.array(values), np.array(draws, dtype=float), higher, weight)


def test_larger_is_better_or_smaller_is() -> None:
    values = np.array([0.2, 0.9, 0.2])
    assert score([0], [[0]]).ranks(values).tolist() == [2.5, 1, 2.5]
    assert score([0], [[0]], higher=False).ranks(values).tolist() == [1.5, 3, 1.5]


def test_mean_ranks_are_weighted() -> None:
    # ranks 1 2 3 with weight 3 and 3 2 1 with weight 1
    scores = [score([3, 2, 1], [[0, 0, 0]], weight=3), score([3, 2, 1], [[0, 0, 0]], higher=False)]
    assert mean_ranks(scores).tolist() == [1.5, 2.0, 2.5]


def test_interval_is_normal_around_the_value_with_the_spread_of_the_draws() -> None:
    low, high = score([10.0], [[1.0], [2.0], [3.0]]).interval(0.95)  # standard deviation 1, bias -8 ignored
    assert (low[0], high[0]) == pytest.approx((10 - 1.959964, 10 + 1.959964), abs=1e-6)


def test_p_best_counts_centred_draws_and_splits_shared_firsts() -> None:
    # centred: first candidate 1 ± 1, second 1 ± 0; draws: (0, 1), (1, 1) shared, (2, 1)
    assert p_best([score([1, 1], [[5, 7], [6, 7], [7, 7]])]).tolist() == [0.5, 0.5]
    # the value decides where the draws don't scatter, whatever their own mean
    assert p_best([score([2, 1], [[0, 9], [0, 9]])]).tolist() == [1, 0]
    assert p_best([score([2, 1], [[0, 9], [0, 9]], higher=False)]).tolist() == [0, 1]


def test_p_best_sums_to_one_and_uses_weights() -> None:
    rng = np.random.default_rng(0)
    scores = [score([0, 0, 0, 0], rng.normal(size=(50, 4)), weight=w) for w in (1.0, 0.5, 0.0)]
    assert p_best(scores).sum() == pytest.approx(1)
    assert p_best(scores[:2]) == pytest.approx(p_best(scores))  # weight 0 says nothing


@pytest.mark.parametrize(
    ("p", "rank", "size", "expected"),
    [
        ([0.9, 0.1], [1, 2], [100, 1], (0, [0])),  # clear leader, though larger
        ([0.6, 0.4], [1, 2], [100, 1], (1, [0, 1])),  # tied: the smaller one
        ([0.6, 0.4], [1, 2], [5, 5], (0, [0, 1])),  # tied and equally large: the better mean rank
        ([0.5, 0.5], [2, 1], [5, 5], (1, [0, 1])),
        ([0.5, 0.5], [1, 1], [5, 5], (0, [0, 1])),  # nothing differs: the first named
        ([0.15, 0.15, 0.7], [2, 3, 1], [3, 2, 1], (2, [2])),
        ([0.2, 0.2, 0.2, 0.2, 0.2], [1, 2, 3, 4, 5], [9, 9, 9, 1, 9], (0, [0])),  # only the leader is taken
    ],
)
def test_ties_take_the_smallest_model(p, rank, size, expected) -> None:
    found = choose(np.array(p), np.array(rank, dtype=float), np.array(size), 0.25)
    assert found == expected


def test_resamples_keep_each_stratum_size_and_members() -> None:
    strata = np.array([1, 0, 1, 1, 0])
    draws = stratified_resamples(strata, 200, np.random.default_rng(0))
    assert draws.shape == (200, 5)
    assert (strata[draws] == strata).all()
    assert set(draws[:, 0]) == {0, 2, 3}
    assert not (np.sort(draws, axis=1) == np.arange(5)).all()  # with replacement


def test_counts_without_groups_are_those_of_the_stratified_rows() -> None:
    strata = np.array([1, 0, 1, 1, 0])
    rows = stratified_resamples(strata, 50, np.random.default_rng(3))
    for groups in (None, np.array([9, 2, 5, 3, 1])):
        counts = resample_counts(strata, groups, 50, np.random.default_rng(3))
        assert counts.tolist() == [np.bincount(draw, minlength=5).tolist() for draw in rows]


def test_groups_are_drawn_whole_and_leave_two_strata() -> None:
    groups, strata = np.array(["a", "b", "a", "c", "b", "b"]), np.array([0, 0, 0, 1, 0, 0])
    counts = resample_counts(strata, groups, 500, np.random.default_rng(0))
    assert (counts[:, 0] == counts[:, 2]).all()
    assert (counts[:, 1] == counts[:, 4]).all()
    assert (counts[:, [0, 1, 3]].sum(1) == 3).all()  # three groups in each draw
    assert (counts[:, 3] > 0).all()  # the only group of stratum 1 ...
    assert (counts[:, [0, 1]].sum(1) > 0).all()  # ... never stands alone
    assert len({tuple(draw) for draw in counts.tolist()}) == 5  # abc aac acc bbc bcc


def test_a_bootstrap_over_groups_scatters_as_the_group_means_do() -> None:
    # 25 groups of 8 equal images: the mean has the variance of 25 values, not of 200
    rng = np.random.default_rng(1)
    groups, value_N = np.repeat(np.arange(25), 8), np.repeat(rng.normal(size=25), 8)
    counts = resample_counts(np.zeros(200), groups, 4000, rng)
    expected = value_N[::8].std() / 5
    assert (counts @ value_N / counts.sum(1)).std() == pytest.approx(expected, rel=0.05)


def test_a_single_group_can_not_be_drawn_from() -> None:
    with pytest.raises(ValueError, match="at least two of them"):
        resample_counts(np.array([0, 1]), np.array([5, 5]), 3, np.random.default_rng(0))


def test_values_that_are_equal_but_for_rounding_share_their_rank() -> None:
    """Balanced accuracies of 9 of 35 images: sums of sevenths in another order."""
    values = np.array([0.2571428571428572, 0.2571428571428571, 0.3])
    score = Score("knn", values, np.tile(values, (2, 1)), True, 1.0)
    assert score.ranks(values).tolist() == [2.5, 2.5, 1.0]
