"""How many images would decide: normal approximation from the interval that was found.

The group's share w of the squared standard error says what more of its images can do: se²(n') = se² (w n/n' + 1 - w). Of two
rates each side has its own p (1 - p)/n; otherwise an image of either side is taken to spread alike, se² = s² (1/n + 1/n_other),
with n_other = ∞ where a group is compared with a fixed number (floor) or with another model on the same images (change).
Differences are counted on their own scale, ratios on the logarithm's.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from tasks.core.bias.score import Measured as Ends
from tasks.core.bias.score import difference_ends, quantile, score_interval

POWER = 0.8
ROUNDING = 1e-6  # images
MAX_SIZE = 10**7
Decided = Callable[[float, float], bool]  # of an interval's ends


@dataclass(frozen=True)
class Measured:
    """An estimate with its two-sided interval at `confidence`, on the scale on which intervals are about symmetric."""

    n: int
    n_other: float
    estimate: float
    low: float
    high: float
    confidence: float
    own_share: float | None = None  # w, where both sides' spreads are known

    @property
    def share(self) -> float:
        """w, 0..1."""
        return 1 / (1 + self.n / self.n_other) if self.own_share is None else self.own_share

    @property
    def z(self) -> float:
        return quantile(self.confidence)

    def image_variance(self) -> float:
        """s²; NaN where the interval has no finite width."""
        spread = (self.high - self.low) / (2 * self.z)
        return spread**2 / (1 / self.n + 1 / self.n_other) if math.isfinite(spread) else math.nan


def n_more_of_rates(rates: tuple[float, float], sizes: tuple[int, int], z: float, is_decided: Decided) -> int | None:
    """Images of the group to add until Newcombe's interval decides, at the rates seen; None where ten million don't.

    rates, sizes: of the group and of those it is compared with; the latter stay. The first number that decides is found by
    doubling and halving: beyond it the interval only shrinks.
    """
    (one, other), (n, n_other) = rates, sizes
    low, high = (float(end) for end in score_interval(other, n_other, z))
    there = Ends(other, low, high)

    def decides(size: int) -> bool:
        own_low, own_high = (float(end) for end in score_interval(one, size, z))
        return is_decided(*difference_ends(Ends(one, own_low, own_high), there))

    most = n
    while not decides(most):
        most *= 2
        if most > MAX_SIZE:
            return None
    least = most // 2 if most > n else n
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (least, middle) if decides(middle) else (middle, most)
    return max(most - n, 1)


def n_more_to_pass(seen: Measured, allowed_low: float, allowed_high: float) -> int | None:
    """Images of the group to add until its interval fits between the limits, if its estimate stays.

    n' with half(n') = distance, for the nearer limit that is still crossed; None where no number of images does.
    """
    ends = [
        (seen.estimate - seen.low, seen.estimate - allowed_low),
        (seen.high - seen.estimate, allowed_high - seen.estimate),
    ]
    return _more(seen, [n_at_width(seen, half, distance) for half, distance in ends if half > distance])


def n_more_to_fail(seen: Measured, limit: float) -> int | None:
    """Images of the group to add until its interval (at Holm's level) lies wholly beyond `limit`, if its estimate stays."""
    return _more(seen, [n_at_width(seen, _half_towards(seen, limit), abs(seen.estimate - limit))])


def n_for_power(seen: Measured, limit: float) -> int | None:
    """Images of the group that make it fail in 80 % of samples, if the estimate seen beyond `limit` is the truth.

    n' with (z_level + z_.8) se(n') = distance; seen.confidence is 1 - Holm's level.
    """
    half = _half_towards(seen, limit) * (seen.z + float(ndtri(POWER))) / seen.z
    n = n_at_width(seen, half, abs(seen.estimate - limit))
    return None if n is None else math.ceil(n)


def n_for_limit(
    seen: Sequence[Measured], distance: float, *, others_per_group: float, is_two_sided: bool
) -> int | None:
    """Images in each of the groups that let all of them pass in 80 % of samples, where there is no gap at all.

    n = (1 + 1/k) s² ((z_confidence + z_power) / distance)²: s² is the groups' median, k = others_per_group how many images
    stand on the other side for each of the group's; with m groups each has to pass with .8^(1/m), and a limit on both sides is
    missed on either.
    """
    variances = [one.image_variance() for one in seen]
    if not variances or not math.isfinite(np.median(variances)) or not 0 < distance < math.inf:
        return None
    missed = 1 - POWER ** (1 / len(seen))
    z = seen[0].z + float(ndtri(1 - missed / (2 if is_two_sided else 1)))
    return max(math.ceil((1 + 1 / others_per_group) * float(np.median(variances)) * (z / distance) ** 2), 1)


def n_at_width(seen: Measured, half: float, distance: float) -> float | None:
    """Images of the group at which `half` has shrunk to `distance`, the other side as it is: (distance/half)² = w n/n' + 1 - w.

    None where no number is enough.
    """
    if not (math.isfinite(half) and math.isfinite(distance)) or distance <= 0 or half <= 0:
        return None
    left = (distance / half) ** 2 - (1 - seen.share)
    return seen.n * seen.share / left if left > 0 else None


def share_of_rates(rate: float, n: int, other: float, n_other: float, *, is_ratio: bool) -> float | None:
    """The group's share of the squared standard error of a difference (on the logarithm's scale: of a ratio) of two rates.

    Rates are drawn towards .5 by one image of either kind (Agresti-Coull), so that none of 0 or 1 counts as known for sure.
    """
    if not (math.isfinite(rate) and math.isfinite(other)) or n <= 0 or not 0 < n_other < math.inf:
        return None
    parts = []
    for value, size in ((rate, float(n)), (other, n_other)):
        p = (value * size + 1) / (size + 2)
        parts.append((1 - p) / (p * size) if is_ratio else p * (1 - p) / size)
    return parts[0] / sum(parts)


def _half_towards(seen: Measured, limit: float) -> float:
    return seen.high - seen.estimate if seen.estimate < limit else seen.estimate - seen.low


def _more(seen: Measured, needed: Sequence[float | None]) -> int | None:
    found = [n for n in needed if n is not None]
    if not found or len(found) < len(needed):
        return None
    return max(math.ceil(max(found) - seen.n - ROUNDING), 1)
