"""Ranking: point scores and bootstrap draws of several candidates → intervals, P(best), ties and a choice.

Axes: B bootstrap draws, M candidates, N images, C strata.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata

from tasks.core.folds import group_codes

N_DECIMALS = 12


@dataclass(frozen=True)
class Score:
    """One score of all candidates: value (M,) and draws (B, M), larger is better if `higher_is_better`."""

    name: str
    value_M: np.ndarray
    draws_BM: np.ndarray
    higher_is_better: bool
    weight: float

    def interval(self, confidence: float) -> tuple[np.ndarray, np.ndarray]:
        """Normal interval from the spread of the draws: refitted scores are biased in a bootstrap sample, spread is not."""
        half = norm.ppf((1 + confidence) / 2) * self.draws_BM.std(0, ddof=1)
        return self.value_M - half, self.value_M + half

    def centred_draws(self) -> np.ndarray:
        """The draws moved so that they scatter around the point value."""
        return self.draws_BM - self.draws_BM.mean(0) + self.value_M

    def ranks(self, values: np.ndarray) -> np.ndarray:
        """Rank 1 is best; values that are equal but for rounding share their mean rank."""
        coarse = np.round(values, N_DECIMALS)  # (5/7 + 2/7) / 2 and 1/2 differ in the last bit
        return rankdata(-coarse if self.higher_is_better else coarse, axis=-1)


def mean_ranks(scores: list[Score]) -> np.ndarray:
    """(M,) weighted mean over scores of the candidates' ranks."""
    weights = np.array([score.weight for score in scores])
    return weights @ np.stack([score.ranks(score.value_M) for score in scores]) / weights.sum()


def p_best(scores: list[Score]) -> np.ndarray:
    """(M,) share of bootstrap draws in which each candidate has the best weighted mean rank; shared firsts are split."""
    weights = np.array([score.weight for score in scores])
    ranks_BM = sum(w * s.ranks(s.centred_draws()) for w, s in zip(weights, scores, strict=True))
    first_BM = np.isclose(ranks_BM, np.min(ranks_BM, axis=1, keepdims=True))
    return np.asarray((first_BM / first_BM.sum(1, keepdims=True)).mean(0))


def choose(
    p_best_M: np.ndarray, mean_rank_M: np.ndarray, n_parameters_M: np.ndarray, tie_p_best: float
) -> tuple[int, list[int]]:
    """The chosen candidate, and all that can't be told apart from the leader (the leader included).

    Among tied candidates the one with the fewest parameters is taken; at equal size the better mean rank decides.
    """
    leader = int(np.lexsort((mean_rank_M, -p_best_M))[0])
    tied = [m for m in range(len(p_best_M)) if m == leader or p_best_M[m] >= tie_p_best]
    return min(tied, key=lambda m: (n_parameters_M[m], mean_rank_M[m], m)), tied


def stratified_resamples(strata_N: np.ndarray, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """(B, N) row numbers: within each stratum as many as there are, with replacement."""
    draws = np.empty((n_draws, len(strata_N)), dtype=np.int64)
    for stratum in np.unique(strata_N):
        members = np.flatnonzero(strata_N == stratum)
        draws[:, members] = rng.choice(members, size=(n_draws, len(members)))
    return draws


def resample_counts(
    strata_N: np.ndarray, groups_N: np.ndarray | None, n_draws: int, rng: np.random.Generator
) -> np.ndarray:
    """(B, N) how often each image stands in each bootstrap draw.

    Every image its own group: drawn within its stratum. Else whole groups are drawn with replacement, strata left to
    chance, so a draw's size varies; a draw that leaves fewer than two of the strata is drawn again.
    """
    codes = group_codes(groups_N, len(strata_N))
    n_groups = int(codes.max()) + 1
    if n_groups == len(strata_N):
        rows_BN = stratified_resamples(strata_N, n_draws, rng)
        return np.stack([np.bincount(rows, minlength=len(strata_N)) for rows in rows_BN])
    if n_groups < 2:
        raise ValueError("a bootstrap over groups needs at least two of them, but all images are of one")
    labels, stratum_N = np.unique(strata_N, return_inverse=True)
    is_in_NC = stratum_N[:, None] == np.arange(len(labels))
    counts_BN = np.zeros((n_draws, len(codes)), dtype=np.int64)
    poor = np.arange(n_draws)
    while len(poor):
        drawn = rng.integers(n_groups, size=(len(poor), n_groups))
        counts_BN[poor] = np.stack([np.bincount(groups, minlength=n_groups) for groups in drawn])[:, codes]
        n_strata = ((counts_BN[poor] @ is_in_NC) > 0).sum(1)
        poor = poor[n_strata < min(2, len(labels))]
    return counts_BN
