"""Features as points: checked, standardised, and seen along their principal components.

Axes: N images, D features, k rank.
"""

from dataclasses import dataclass

import numpy as np

RANK_TOLERANCE = 1e-10  # singular values below this share of the largest are numerical noise
DEAD = np.finfo(float).tiny  # features without any variation have rank 0: evidence of the noise alone, H-score 0


@dataclass(frozen=True)
class Spectrum:
    """Centred features as a thin SVD: u (N, k), s (k,), and the number of columns D they came from."""

    u_Nk: np.ndarray
    s_k: np.ndarray
    n_features: int


def spectrum(x_ND: np.ndarray) -> Spectrum:
    centred = np.asarray(x_ND, dtype=np.float64)
    centred = centred - centred.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    kept = s > max(RANK_TOLERANCE * s[0], DEAD)
    return Spectrum(u[:, kept], s[kept], centred.shape[1])


def rotated(x_ND: np.ndarray) -> np.ndarray:
    """(N, rank): the same points in principal components, largest first: all inner products of centred rows kept."""
    parts = spectrum(x_ND)
    return parts.u_Nk * parts.s_k if len(parts.s_k) else np.zeros((len(x_ND), 1))


def standardised(x_ND: np.ndarray) -> np.ndarray:
    """Each feature with mean 0 and deviation 1; constant features become 0."""
    x = np.array(x_ND, dtype=np.float64)
    x -= x.mean(0)
    deviation = x.std(0)
    deviation[deviation == 0] = 1
    x /= deviation
    return x


def check_features(**named_ND: np.ndarray) -> None:
    """ValueError that lists what is wrong with arrays of features: their shape, fewer than 2 images, gaps."""
    problems = []
    for name, x_ND in named_ND.items():
        x = np.asarray(x_ND)
        if x.ndim != 2 or x.shape[1] == 0:
            problems.append(f"{name} have the shape {x.shape}, not (images, features)")
        elif len(x) < 2:
            problems.append(f"{name} hold {len(x)} images, at least 2 are needed")
        elif x.dtype.kind not in "fiub":
            problems.append(f"{name} are of type {x.dtype}, not numbers")
        elif not np.isfinite(x).all():
            problems.append(f"{name} hold {int((~np.isfinite(x)).sum())} values that are not finite numbers")
    if len({np.shape(x)[1] for x in named_ND.values()} if not problems else ()) > 1:
        problems.append(" and ".join(named_ND) + " have different numbers of columns: use one network for both")
    if problems:
        raise ValueError("; ".join(problems))


def check_labelled(x_ND: np.ndarray, y_N: np.ndarray, name: str = "features") -> None:
    """ValueError unless features and integer labels of at least two classes belong together."""
    check_features(**{name: x_ND})
    y = np.asarray(y_N)
    if y.shape != (len(x_ND),):
        raise ValueError(f"labels have the shape {y.shape}, but there are {len(x_ND)} images: give one label per image")
    if y.dtype.kind not in "iub":
        raise ValueError(f"labels are of type {y.dtype}: give integers, one number per class")
    if len(np.unique(y)) < 2:
        raise ValueError(f"all {len(y)} labels are {y[0]}: a score needs at least two classes")
