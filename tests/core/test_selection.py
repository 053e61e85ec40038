"""Selection: all scores of all candidates, and their draws against refits on the very same resamples."""

import numpy as np
import pytest

from tasks.core.ranking import choose, mean_ranks, p_best, stratified_resamples
from tasks.core.runtime import address_rng
from tasks.core.selection import CandidateFeatures, ScoreSettings, similarity_scores, transferability_scores
from tasks.core.transferability import logme

HOW = ScoreSettings(n_neighbors=3, probe_inverse_l2=0.01, n_bootstrap=12, seed=7)
WEIGHTS = {"knn": 1.0, "linear_probe": 1.0, "logme": 1.0, "h_score": 1.0, "proxy_a_distance": 0.5, "linear_mmd": 0.5}
Y_N = np.arange(60) % 3


def candidate(signal: float, distance: float, n_features: int = 10, seed: int = 0) -> CandidateFeatures:
    rng = np.random.default_rng(seed)
    labelled = rng.normal(size=(60, n_features)) + signal * rng.normal(size=(3, n_features))[Y_N]
    return CandidateFeatures(labelled, rng.normal(size=(50, n_features)), rng.normal(size=(40, n_features)) + distance)


def test_good_near_features_beat_bad_far_ones_in_every_score() -> None:
    found = [candidate(0.0, 3.0, seed=1), candidate(2.0, 0.1, seed=2)]
    scores = transferability_scores(found, Y_N, HOW, WEIGHTS)
    distances, nulls = similarity_scores(found, HOW, WEIGHTS)
    assert {s.name: s.weight for s in scores + distances} == WEIGHTS
    for one in scores + distances:
        assert one.ranks(one.value_M).tolist() == [2, 1], one.name
        assert one.draws_BM.shape == (12, 2)
    assert p_best(scores + distances).tolist() == [0, 1]
    assert choose(p_best(scores), mean_ranks(scores), np.array([1, 9]), 0.1) == (1, [1])
    assert all(abs(null) < 0.7 for null in nulls["proxy_a_distance"])


def test_logme_draws_equal_refits_on_the_resampled_images() -> None:
    one = candidate(0.5, 0.0)
    logme_score = transferability_scores([one], Y_N, HOW, WEIGHTS)[2]
    resamples = stratified_resamples(Y_N, HOW.n_bootstrap, address_rng(HOW.seed, "transferability"))
    refits = [logme(one.labelled_ND[rows], Y_N[rows]) for rows in resamples]
    assert logme_score.name == "logme"
    assert logme_score.draws_BM[:, 0] == pytest.approx(refits, rel=1e-6)


def test_the_same_candidate_twice_ties_exactly() -> None:
    twins = [candidate(0.5, 0.5), candidate(0.5, 0.5)]
    scores = transferability_scores(twins, Y_N, HOW, WEIGHTS) + similarity_scores(twins, HOW, WEIGHTS)[0]
    assert p_best(scores) == pytest.approx([0.5, 0.5])


def test_scores_repeat_and_change_with_the_seed() -> None:
    one = [candidate(0.5, 0.5)]
    first, again = (similarity_scores(one, HOW, WEIGHTS)[0][1].draws_BM for _ in range(2))
    other = similarity_scores(one, ScoreSettings(3, 0.01, 12, 8), WEIGHTS)[0][1].draws_BM
    assert (first == again).all()
    assert not (first == other).all()


def test_a_dead_candidate_does_not_hide_the_best_one() -> None:
    dead = CandidateFeatures(np.zeros((60, 10)), np.zeros((50, 10)), np.zeros((40, 10)))
    scores = transferability_scores([candidate(0.5, 0.5), dead, candidate(2.0, 0.1, seed=2)], Y_N, HOW, WEIGHTS)
    assert p_best(scores).argmax() == 2
    assert np.isfinite(p_best(scores)).all()
