"""Why a candidate is taken, in one sentence that claims no more than the scores know.

Axis: M candidates.
"""

from dataclasses import dataclass

import numpy as np

from tasks.core.ranking import Score
from tasks.core.selection import SIMILARITY

RULE = (
    "Candidates are ranked by the weighted mean of their ranks over all scores; P(best) is the share of bootstrap draws in "
    "which a candidate comes first; all with P(best) of at least {tie} are tied with the leader, and of tied candidates "
    "the cheapest is taken (multiply-adds, then parameters), then the better mean rank."
)
PRIOR = "on a static prior (published accuracy where all have one, else size)"
DRAWS = {True: "the bootstrap draws", False: "the draws of these scores, which don't know the target's labels"}


@dataclass(frozen=True)
class Standing:
    """Who leads: per candidate P(best), mean rank and its place by cost (equal costs share one); who is tied and chosen."""

    names: list[str]
    p_best_M: np.ndarray
    mean_rank_M: np.ndarray
    cost_M: np.ndarray
    chosen: int
    tied: list[int]


def taken(names: list[str], take: str) -> int:
    """The place of the candidate that a person named. ValueError where it is not among the names."""
    if take not in names:
        raise ValueError(
            f"select_model.take is {take!r}, which is no pretrained candidate; allowed: {', '.join(names)}, or null for the "
            "one that the scores prefer"
        )
    return names.index(take)


def reason_of(standing: Standing, scores: list[Score], n_unused: int | None, *, named: str | None = None) -> str:
    """One sentence, which says what the ranking rests on where it doesn't rest on target labels. `named`: by a person.

    `n_unused`: target labels that were too few for the scores, 0 where there are none; None where scores read them.
    """
    own = _reason(standing, scores, n_unused)
    return own if named is None else f"{named} is taken because select_model.take names it; by the scores: {own}"


def _reason(standing: Standing, scores: list[Score], n_unused: int | None) -> str:
    by_labels = n_unused is None
    few = f"no score can use the {n_unused} target labels" if n_unused else "no target labels"
    name = standing.names[standing.chosen]
    share = f"it comes first in {standing.p_best_M[standing.chosen]:.0%} of {DRAWS[by_labels]}"
    basis = (
        "" if by_labels else f"{few}, so the ranking rests {_basis(scores)}: it can't say which is best on the target; "
    )
    if len(standing.tied) == 1:
        return f"{basis}{name} is ahead: {share}"
    others = ", ".join(standing.names[m] for m in standing.tied if m != standing.chosen)
    return f"{basis}{name} can't be told apart from {others}: {share}; {_tie_break(standing)}"


def _tie_break(standing: Standing) -> str:
    tied = np.array(standing.tied)
    cheapest = tied[standing.cost_M[tied] == standing.cost_M[tied].min()]
    if len(cheapest) == 1:
        return "the cheapest of them is taken"
    costs = "they cost the same" if len(cheapest) == len(tied) else f"{len(cheapest)} of them cost the least"
    best_rank = standing.mean_rank_M[cheapest].min()
    if (standing.mean_rank_M[cheapest] == best_rank).sum() > 1:
        return f"{costs} and share the best mean rank, so the first by name is taken"
    return f"{costs}, so the better mean rank is taken"


def _basis(scores: list[Score]) -> str:
    counting = {score.name for score in scores if score.weight > 0}
    parts = {
        "on how alike the domains look": bool(counting & set(SIMILARITY)),
        "on the labelled source": "source_probe" in counting,
        PRIOR: "static_prior" in counting,
    }
    on = [words for words, is_there in parts.items() if is_there]
    return " and ".join(filter(None, [", ".join(on[:-1]), on[-1]]))
