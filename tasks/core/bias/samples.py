"""The groups of a column, and the rest of the images beside each, as samples under one metric.

Axes: N images, G groups, S strata, J clusters.
"""

import math
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from tasks.core.bias.clusters import ClusterCells, Sampling, cluster_cells, likeness, sampling_unit
from tasks.core.bias.counts import Settings, Strata, Sums, sums_of, values_of
from tasks.core.bias.part import LIMITS, NOWHERE, Estimate, Part
from tasks.core.bias.score import Ends
from tasks.core.bias.table import AuditTable, grouping_of

MAX_DRAWS = 40_000_000  # groups × strata × replicates of a metric: seconds, and megabytes for what is kept of them
MIN_REPLICATES = 200


@dataclass(frozen=True)
class Parts:
    """All groups of a column under one metric."""

    kind: str
    names: tuple[str, ...]
    sums: Sums
    cells: ClusterCells | None
    sampling: Sampling
    address: tuple[object, ...]
    n_replicates: int

    def group(self, g: int) -> Estimate:
        return self._estimate(self._part(g, rest=False))

    def rest(self, g: int) -> Estimate:
        """All images outside the group."""
        return self._estimate(self._part(g, rest=True))

    def n_clusters(self, g: int) -> int | None:
        of_groups = self.sampling.n_clusters_G
        return None if of_groups is None else int(of_groups[g])

    @cached_property
    def whole(self) -> tuple[float, int]:
        """(value, n) over all images."""
        n_S, x_S, _ = self.totals
        value_G, n_G = values_of(self.kind, n_S[None], x_S[None])
        return float(value_G[0]), int(n_G[0])

    @cached_property
    def totals(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.sums.n_GS.sum(0), self.sums.x_GS.sum(0), self.sums.xx_GS.sum(0)

    def _part(self, g: int, *, rest: bool) -> Part:
        n_S, x_S, xx_S = self.sums.n_GS[g], self.sums.x_GS[g], self.sums.xx_GS[g]
        if rest:
            n_S, x_S, xx_S = (total - own for total, own in zip(self.totals, (n_S, x_S, xx_S), strict=True))
        told, cells = None, self.cells
        if cells is not None:
            told = partial(cells.told_by_rest if rest else cells.told_by_group, g=g)
        side = "rest" if rest else "group"
        return Part(self.kind, n_S, x_S, xx_S, told, (*self.address, side, self.names[g]), self.n_replicates)

    @cached_property
    def likeness(self) -> float:
        """How far images of a cluster are alike, over all images."""
        assert self.cells is not None
        whole = Part(self.kind, *self.totals, self.cells.told_by_all, (), 1)
        return likeness(whole.effect, whole.effect_if_alike)

    def _effect(self, part: Part) -> float:
        """The group's own design effect, at least the one that the likeness over all images gives its clusters' sizes.

        A group of few clusters, or all of whose images are right, says too little about its clusters.
        """
        expected = 1 + (part.effect_if_alike - 1) * self.likeness
        return expected if math.isnan(part.effect) else max(part.effect, expected)

    def _estimate(self, part: Part) -> Estimate:
        if part.n == 0:
            return Estimate(math.nan, 0, lambda _: NOWHERE)
        image_limits = LIMITS[self.kind](part)
        if self.cells is None:
            return Estimate(part.value, part.n, lambda confidence: image_limits(confidence, 1.0, None))

        def limits(confidence: float) -> Ends:
            return image_limits(confidence, self._effect(part), part.n_clusters)

        told = part.told
        return Estimate(part.value, part.n, limits, None if told is None else lambda: told(part.form))


def parts_of(table: AuditTable, column: str, metric: str, settings: Settings, strata: Strata) -> Parts:
    """The column's groups under a metric's strata; clusters are the draws where there are enough of them."""
    grouping, sampling = grouping_of(table, column), sampling_unit(table, column, settings)
    clustered = sampling.unit == "group" and table.clusters_N is not None
    return Parts(
        kind=strata.kind,
        names=grouping.names,
        sums=sums_of(strata, grouping.codes_N, len(grouping.names)),
        cells=cluster_cells(strata, grouping, table.clusters_N) if clustered and table.clusters_N is not None else None,
        sampling=sampling,
        address=(settings.seed, "audit replicates", column, metric),
        n_replicates=n_replicates(settings, len(grouping.names) * strata.n_strata),
    )


def n_replicates(settings: Settings, n_cells: int) -> int:
    """As many as were asked for; where many groups share the work fewer, from which `resample.ends` takes one deviation.

    Calibration's low end then lies too low rather than too high.
    """
    return min(settings.n_bootstrap, max(MAX_DRAWS // max(n_cells, 1), MIN_REPLICATES))
