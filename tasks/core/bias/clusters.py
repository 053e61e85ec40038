"""What counts as one independent draw: an image, or a cluster of images, and how much less clusters tell.

Axes: N images, G groups, S strata, J clusters, M cells that hold images: those of cluster × stratum, of shares cluster × group.
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


@dataclass(frozen=True)
class Pairs:
    """The cells of cluster × group: which one each image is in, and the group and the cluster of each."""

    cell_N: np.ndarray
    group_M: np.ndarray
    cluster_M: np.ndarray
    n_groups: int


def pairs_of(grouping: Grouping, clusters_N: np.ndarray) -> Pairs:
    n_clusters = int(clusters_N.max(initial=-1)) + 1
    keys, cell_N = np.unique(grouping.codes_N.astype(np.int64) * n_clusters + clusters_N, return_inverse=True)
    return Pairs(cell_N, keys // max(n_clusters, 1), keys % max(n_clusters, 1), len(grouping.names))


def share_designs(hits_M: np.ndarray, n_M: np.ndarray, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """(effect_G, n_clusters_G) of a share, hits of n, in all groups at once: as `samples.Parts` has them one by one."""
    measured_G, most_G, n_clusters_G = _share_effects(hits_M, n_M, pairs.group_M, pairs.n_groups)
    hits_J, n_J = (np.bincount(pairs.cluster_M, weights=of_M) for of_M in (hits_M, n_M))
    measured, most, _ = _share_effects(hits_J, n_J, np.zeros(len(n_J), int), 1)
    expected_G = 1 + (most_G - 1) * likeness(float(measured[0]), float(most[0]))
    return np.where(np.isnan(measured_G), expected_G, np.maximum(measured_G, expected_G)), n_clusters_G


def likeness(measured: float, most: float) -> float:
    """0..1: how far images of a cluster are alike, from the design effect and the one they would have if all were alike.

    1 where no image differs from another: then nothing is known of it.
    """
    if np.isnan(measured):
        return 1.0
    return min((measured - 1) / (most - 1), 1.0) if most > 1 else 0.0


def _share_effects(
    hits_M: np.ndarray, n_M: np.ndarray, group_M: np.ndarray, n_groups: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per group the design effect (NaN where no image differs), the one if a cluster's images were alike, and the clusters."""

    def total(of_M: np.ndarray) -> np.ndarray:
        return np.bincount(group_M, weights=of_M, minlength=n_groups)

    n_G, n_clusters_G = total(n_M), total(n_M > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share_G = total(hits_M) / n_G
        by_images_G = n_G * share_G * (1 - share_G)
        by_clusters_G = total((hits_M - share_G[group_M] * n_M) ** 2) * n_clusters_G / (n_clusters_G - 1)
        is_known_G = (by_images_G > 1e-12 * n_G) & (n_clusters_G > 1)
        effect_G = np.where(is_known_G, np.maximum(by_clusters_G / by_images_G, 1.0), np.nan)
        return effect_G, total(n_M**2) / n_G, n_clusters_G
