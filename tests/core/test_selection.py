"""Selection: all scores of all candidates, and their draws against refits on the very same resamples."""

from dataclasses import replace

import numpy as np
import pytest

from tasks.core.null_splits import null_splits
from tasks.core.ranking import choose, mean_ranks, p_best, stratified_resamples
from tasks.core.runtime import address_rng
from tasks.core.selection import (
    SIMILARITY,
    TRANSFERABILITY,
    CandidateFeatures,
    ScoreSettings,
    similarity_scores,
    transferability_scores,
)
from tasks.core.similarity import coral_distance, frechet_distance, kid, linear_mmd, proxy_a_distance
from tasks.core.transferability import balanced, h_score, linear_probe_correct, transfer_probe_correct

HOW = ScoreSettings(n_neighbors=3, probe_inverse_l2=0.01, n_bootstrap=12, seed=7)
WEIGHTS = dict.fromkeys(TRANSFERABILITY, 1.0) | dict.fromkeys(SIMILARITY, 0.5)
Y_N, Y_S = np.arange(60) % 3, np.arange(50) % 3


def candidate(signal: float, distance: float, n_features: int = 10, seed: int = 0) -> CandidateFeatures:
    rng = np.random.default_rng(seed)
    centres_CD = signal * rng.normal(size=(3, n_features))
    labelled, source = rng.normal(size=(60, n_features)) + centres_CD[Y_N], rng.normal(size=(50, n_features))
    target = rng.normal(size=(40, n_features)) * (1 + distance) + distance
    theta = np.exp(labelled) / np.exp(labelled).sum(1, keepdims=True)
    return CandidateFeatures(labelled, source, target, theta)


def test_good_near_features_beat_bad_far_ones_in_every_score() -> None:
    found = [candidate(0.0, 3.0, seed=1), candidate(2.0, 0.1, seed=2)]
    scores = transferability_scores(found, Y_N, HOW, WEIGHTS, y_S=Y_S).scores
    distances, nulls = similarity_scores(found, HOW, WEIGHTS)
    assert {s.name: s.weight for s in scores + distances} == WEIGHTS
    for one in scores + distances:
        assert one.ranks(one.value_M).tolist() == [2, 1], one.name
        assert one.draws_BM.shape == (12, 2)
    assert p_best(scores + distances).tolist() == [0, 1]
    assert choose(p_best(scores), mean_ranks(scores), np.array([1, 9]), 0.1) == (1, [1])
    for distance in distances:
        far, near = nulls[distance.name]
        assert far["mean"] < far["high"] < distance.value_M[0], distance.name
        assert near["mean"] < near["high"]


def test_h_score_draws_add_what_it_loses_without_each_image() -> None:
    one = candidate(0.5, 0.0)
    (found,) = transferability_scores([one], Y_N, HOW, {"h_score": 1.0}).scores
    resamples = stratified_resamples(Y_N, HOW.n_bootstrap, address_rng(HOW.seed, "transferability"))
    whole = h_score(one.labelled_ND, Y_N)
    lost_N = np.array([whole - h_score(np.delete(one.labelled_ND, i, 0), np.delete(Y_N, i)) for i in range(60)])
    assert found.draws_BM[:, 0] == pytest.approx([whole - lost_N.sum() + lost_N[rows].sum() for rows in resamples])


def test_transfer_probe_learns_from_the_source_and_says_where_it_can_not() -> None:
    one = candidate(0.5, 0.2)
    y_S = np.arange(50) % 4 - 1  # a quarter plays no part
    (found,) = transferability_scores([one], Y_N, HOW, {"transfer_probe": 1.0}, y_S=y_S).scores
    is_used = y_S >= 0
    right = transfer_probe_correct(one.source_SD[is_used], y_S[is_used], one.labelled_ND, Y_N, 0.01)
    assert found.value_M.tolist() == [balanced(right, Y_N)]
    assert found.draws_BM[:, 0].std() > 0
    for given, n_lacking in ((None, 3), (np.minimum(y_S, 1), 1), (np.full(50, -1), 3)):
        without = transferability_scores([one], Y_N, HOW, {"knn": 1.0, "transfer_probe": 1.0}, y_S=given)
        assert [score.name for score in without.scores] == ["knn"]
        assert without.left_out == [
            f"transfer_probe is left out: {n_lacking} of 3 target classes have no labelled source image"
        ]


def test_the_same_candidate_twice_ties_exactly() -> None:
    twins = [candidate(0.5, 0.5), candidate(0.5, 0.5)]
    scores = transferability_scores(twins, Y_N, HOW, WEIGHTS).scores + similarity_scores(twins, HOW, WEIGHTS)[0]
    assert p_best(scores) == pytest.approx([0.5, 0.5])


def test_scores_repeat_and_change_with_the_seed() -> None:
    one = [candidate(0.5, 0.5)]
    first, again = (similarity_scores(one, HOW, WEIGHTS)[0][2].draws_BM for _ in range(2))
    other = similarity_scores(one, ScoreSettings(3, 0.01, 12, 8), WEIGHTS)[0][2].draws_BM
    assert (first == again).all()
    assert not (first == other).all()


def test_a_dead_candidate_does_not_hide_the_best_one() -> None:
    dead = CandidateFeatures(np.zeros((60, 10)), np.zeros((50, 10)), np.zeros((40, 10)), np.full((60, 4), 0.25))
    scores = transferability_scores([candidate(0.5, 0.5), dead, candidate(2.0, 0.1, seed=2)], Y_N, HOW, WEIGHTS).scores
    assert p_best(scores).argmax() == 2
    assert np.isfinite(p_best(scores)).all()


def test_leep_is_left_out_where_a_candidate_has_no_head() -> None:
    with_head = candidate(0.5, 0.0)
    headless = replace(with_head, theta_NZ=None)
    found = transferability_scores([with_head, headless, with_head], Y_N, HOW, WEIGHTS, y_S=Y_S)
    assert [score.name for score in found.scores] == ["knn", "linear_probe", "transfer_probe", "logme", "h_score"]
    assert found.left_out == [
        "leep is left out: 1 of 3 candidates have no source head, and a score that some lack can't rank them all"
    ]
    assert transferability_scores([with_head], Y_N, HOW, WEIGHTS, y_S=Y_S).left_out == []


def test_only_scores_with_a_weight_are_computed() -> None:
    one = [replace(candidate(0.5, 0.5), theta_NZ=None)]
    found = transferability_scores(one, Y_N, HOW, {"h_score": 1.0, "kid": 1.0})
    assert ([score.name for score in found.scores], found.left_out) == (["h_score"], [])
    distances, nulls = similarity_scores(one, HOW, {"h_score": 1.0, "kid": 1.0})
    assert [score.name for score in distances] == list(nulls) == ["kid"]
    tiny = [
        CandidateFeatures(one[0].labelled_ND, np.zeros((1, 0)), np.zeros((0, 0)))
    ]  # of which no distance could be had
    assert similarity_scores(tiny, HOW, {"h_score": 1.0}) == ([], {})


def test_values_are_those_of_the_plain_functions() -> None:
    one = candidate(0.5, 0.3, n_features=90)  # more features than source images
    found = {s.name: s.value_M[0] for s in similarity_scores([one], HOW, WEIGHTS)[0]}
    for distance in (proxy_a_distance, linear_mmd, kid, coral_distance, frechet_distance):
        assert found[distance.__name__] == pytest.approx(distance(one.source_SD, one.target_TD), rel=1e-6)


def test_what_the_probe_got_right_is_kept() -> None:
    both = [candidate(0.3, 0.0, seed=1), candidate(2.0, 0.0, seed=2)]
    kept = transferability_scores(both, Y_N, HOW, {"knn": 1.0}).probe_correct_MN
    assert kept.dtype == bool
    assert kept.tolist() == [linear_probe_correct(one.labelled_ND, Y_N, 0.01).tolist() for one in both]


def test_groups_widen_intervals_and_take_the_gain_of_recognition_away() -> None:
    rng = np.random.default_rng(0)
    groups, y_N = np.repeat(np.arange(20), 6), np.repeat(np.arange(20) % 2, 6)
    x = rng.normal(size=(20, 30))[groups] + 0.05 * rng.normal(size=(120, 30))
    one = [CandidateFeatures(x, x[:50], x[50:])]
    alone = {s.name: s for s in transferability_scores(one, y_N, HOW, WEIGHTS).scores}
    grouped = {s.name: s for s in transferability_scores(one, y_N, HOW, WEIGHTS, groups).scores}
    assert alone["knn"].value_M[0] == 1
    assert grouped["knn"].value_M[0] < 0.8
    for name in ("logme", "h_score"):
        assert grouped[name].value_M == alone[name].value_M
    assert grouped["logme"].draws_BM.std() > 1.5 * alone["logme"].draws_BM.std()


def test_nulls_at_true_0_are_those_of_fresh_samples_of_the_same_sizes() -> None:
    rng, fresh, halves = np.random.default_rng(3), [], []
    for _ in range(15):
        source, target = rng.normal(size=(2, 80, 20))
        one = CandidateFeatures(np.zeros((0, 20)), source, target)
        distances, nulls = similarity_scores([one], HOW, {"coral_distance": 1.0, "frechet_distance": 1.0})
        fresh.append([distance.value_M[0] for distance in distances])
        halves.append([null[0]["mean"] for null in nulls.values()])
    assert np.mean(halves, axis=0) == pytest.approx(np.mean(fresh, axis=0), rel=0.15)  # unscaled: twice as much


def test_intervals_of_proxy_a_and_kid_cover_0_between_halves_of_one_domain() -> None:
    how, covered = ScoreSettings(5, 0.01, 100, 1), np.zeros(3)
    for seed in range(10):
        x = np.random.default_rng(seed).normal(size=(120, 12))
        halves = CandidateFeatures(np.zeros((0, 12)), x[:60], x[60:])
        weights = {"proxy_a_distance": 1.0, "linear_mmd": 1.0, "kid": 1.0}
        intervals = [score.interval(0.95) for score in similarity_scores([halves], how, weights)[0]]
        covered += [low[0] <= 0 <= high[0] for low, high in intervals]
    assert (covered >= 8).all()  # 9.5 expected of 10


def test_null_parts_are_halves_of_whole_groups_no_larger_than_the_target() -> None:
    splits = null_splits(np.arange(50), 20, 0)
    assert {tuple(np.bincount(split)) for split in splits} == {(5, 25, 20)}
    codes = np.repeat(np.arange(8), [2, 3, 2, 3, 2, 3, 2, 3])
    for split in null_splits(codes, 100, 0):
        assert 8 <= (split == 1).sum() <= 12
        assert (split > 0).all()
        assert all(len(set(split[codes == g])) == 1 for g in range(8))


@pytest.mark.parametrize("codes", [np.arange(3), np.zeros(9, dtype=int), np.repeat([0, 1], [8, 1])])
def test_a_source_too_small_for_a_null_is_refused(codes: np.ndarray) -> None:
    with pytest.raises(ValueError, match="can't be split into two parts of at least two images and whole groups"):
        null_splits(codes, 5, 0)


def test_groups_of_one_domain_alone_are_taken() -> None:
    one, groups_S = candidate(0.5, 0.2), np.repeat(np.arange(10), 5)
    for given in (
        {"groups_S": groups_S},
        {"groups_T": groups_S[:40]},
        {"groups_S": groups_S, "groups_T": np.arange(40)},
    ):
        scores, _ = similarity_scores([one], HOW, WEIGHTS, **given)
        assert all(np.isfinite(score.draws_BM).all() for score in scores)
