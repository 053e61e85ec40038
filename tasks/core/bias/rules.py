"""What no group may be: a rule, stated and hashed before the results are seen."""

import math
from dataclasses import dataclass

from tasks.core.bias.counts import LOWER_IS_BETTER, NEITHER

EVERY_COLUMN = "*"


@dataclass(frozen=True)
class Rule:
    """A limit on one metric in the groups of one column.

    column: an audit column, "*" = each plain audit column by itself, "" = all images as one group, "a × b" = an intersection.
    comparison and limit, for a metric that is better the higher it is:
      difference   no group may lie more than `limit` (0..1) below its reference
      ratio        each group's value is at least `limit` times the reference's
      four_fifths  the same against the group with the best value, with limit .8
      floor        each group's value is at least `limit`; no reference
      change       no group may lose more than `limit` against the baseline `reference` on the same images
    Better the lower: above instead of below, at most 1/limit times, at most `limit`. Neither (such as a selection rate): on both
    sides, except for a floor and for ratios to the best value.
    """

    name: str
    metric: str
    column: str
    comparison: str
    reference: str
    limit: float
    required: bool

    @property
    def direction(self) -> int:
        """1: higher is better, -1: lower is better."""
        return -1 if self.metric.partition(":")[0] in LOWER_IS_BETTER else 1

    @property
    def is_two_sided(self) -> bool:
        """Is there a limit on both sides? Of a pair neither may be worse."""
        if self.comparison == "floor" or (self.is_ratio and self.reference == "highest"):
            return False
        return self.metric.partition(":")[0] in NEITHER or self.reference == "pairwise"

    @property
    def is_ratio(self) -> bool:
        return self.comparison in ("ratio", "four_fifths")

    @property
    def is_relative(self) -> bool:
        """Are groups compared with other groups' images?"""
        return self.comparison not in ("floor", "change")

    @property
    def allowed(self) -> tuple[float, float]:
        """The estimates that the rule allows, ends included."""
        if self.comparison == "floor":
            worst, best = self.limit, math.inf
        elif self.is_ratio:
            worst, best = self.limit, 1 / self.limit
        else:
            worst, best = -self.limit, self.limit
        if self.is_two_sided:
            return worst, best
        if self.direction > 0:
            return worst, math.inf
        return -math.inf, self.limit if self.comparison == "floor" else best
