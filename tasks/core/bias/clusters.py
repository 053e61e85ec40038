"""What counts as one independent draw: an image, or a cluster of images, and how much less clusters tell.

Axes: N images, G groups, S strata, J clusters, M cells (those of cluster × stratum that hold images).
"""

from dataclasses import dataclass

import numpy as np

from tasks.core.bias.counts import Settings, Strata
from tasks.core.bias.table import AuditTable, Grouping, grouping_of

MIN_CLUSTERS = 10


@dataclass(frozen=True)
class Sampling:
    """unit is "group" where intervals take clusters as the draws, else "image".

    n_clusters_G is None where no two images share a cluster. Unit "image" with n_clusters_G: too few clusters in some group.
    """

    unit: str
    n_clusters_G: np.ndarray | None


def sampling_unit(table: AuditTable, column: str, settings: Settings) -> Sampling:
    """Clusters where each group of at least min_group_size images holds at least MIN_CLUSTERS of them."""
    if table.clusters_N is None:
        return Sampling("image", None)
    grouping = grouping_of(table, column)
    n_groups = len(grouping.names)
    pairs = np.unique(grouping.codes_N * (table.clusters_N.max(initial=0) + 1) + table.clusters_N)
    n_clusters_G = np.bincount(pairs // (table.clusters_N.max(initial=0) + 1), minlength=n_groups)
    judged = np.bincount(grouping.codes_N, minlength=n_groups) >= settings.min_group_size
    return Sampling("group" if (n_clusters_G[judged] >= MIN_CLUSTERS).all() else "image", n_clusters_G)


@dataclass(frozen=True)
class Form:
    """A metric of a set of images, made linear: an image of stratum s tells weight (sign x - centre)."""

    weight_S: np.ndarray
    sign_S: np.ndarray
    centre_S: np.ndarray


@dataclass(frozen=True)
class Cells:
    """Images and the sum of their numbers per cluster and stratum."""

    cluster_M: np.ndarray
    stratum_M: np.ndarray
    n_M: np.ndarray
    x_M: np.ndarray

    def told(self, form: Form, n_clusters: int) -> np.ndarray:
        """(J,) what the images of each cluster tell together."""
        s = self.stratum_M
        told_M = form.weight_S[s] * (form.sign_S[s] * self.x_M - form.centre_S[s] * self.n_M)
        return np.bincount(self.cluster_M, weights=told_M, minlength=n_clusters)


@dataclass(frozen=True)
class ClusterCells:
    """A metric's cells of each group, which are begin_G[g] to begin_G[g + 1] of `by_group`, and of all images."""

    by_group: Cells
    begin_G: np.ndarray
    of_all: Cells
    n_clusters: int

    def told_by_group(self, form: Form, g: int) -> np.ndarray:
        at, cells = slice(self.begin_G[g], self.begin_G[g + 1]), self.by_group
        own = Cells(cells.cluster_M[at], cells.stratum_M[at], cells.n_M[at], cells.x_M[at])
        return own.told(form, self.n_clusters)

    def told_by_all(self, form: Form) -> np.ndarray:
        return self.of_all.told(form, self.n_clusters)

    def told_by_rest(self, form: Form, g: int) -> np.ndarray:
        return self.told_by_all(form) - self.told_by_group(form, g)


def cluster_cells(strata: Strata, grouping: Grouping, clusters_N: np.ndarray) -> ClusterCells:
    """The cells of a metric; images that it isn't taken over are left out."""
    inside = np.flatnonzero(strata.stratum_N >= 0)
    n_clusters = int(clusters_N.max(initial=-1)) + 1
    of_cluster = clusters_N[inside].astype(np.int64) * strata.n_strata + strata.stratum_N[inside]
    width = n_clusters * strata.n_strata
    _, of_all = _cells(of_cluster, strata, inside, n_clusters)
    group_M, by_group = _cells(grouping.codes_N[inside] * width + of_cluster, strata, inside, n_clusters)
    return ClusterCells(by_group, np.searchsorted(group_M, np.arange(len(grouping.names) + 1)), of_all, n_clusters)


def _cells(key: np.ndarray, strata: Strata, inside: np.ndarray, n_clusters: int) -> tuple[np.ndarray, Cells]:
    """The group of each cell, in order, and the cells; key: (group × clusters + cluster) × strata + stratum."""
    keys, cell = np.unique(key, return_inverse=True)
    n_M = np.bincount(cell, minlength=len(keys))
    x_M = np.bincount(cell, weights=strata.x_N[inside], minlength=len(keys))
    cluster_M = keys // strata.n_strata
    return cluster_M // max(n_clusters, 1), Cells(cluster_M % max(n_clusters, 1), keys % strata.n_strata, n_M, x_M)
