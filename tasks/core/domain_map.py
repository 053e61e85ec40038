"""A map of the domains as one network sees them: features in two dimensions, for the eye; no verdict rests on it.

Axes: N images, D features.
"""

from typing import Any

import numpy as np
from sklearn.preprocessing import StandardScaler

DIGITS = 3


def domain_map(features: dict[str, np.ndarray]) -> dict[str, Any]:
    """The first two principal components of all domains' features (N, D each), standardised together.

    `explained` is the share of the variance that the map shows; `points` holds (N, 2) coordinates per domain.
    Fewer than three images in all, or features without any variation, give no points.
    """
    sizes = [len(x_ND) for x_ND in features.values()]
    nothing = {"explained": 0.0, "points": {name: [] for name in features}}
    if sum(sizes) < 3:
        return nothing
    together = StandardScaler().fit_transform(np.concatenate([np.asarray(x, np.float64) for x in features.values()]))
    u_Nk, s_k, _ = np.linalg.svd(together, full_matrices=False)
    if not s_k[0]:
        return nothing
    flat = (u_Nk * s_k)[:, :2]
    far = np.abs(flat).argmax(0)
    flat = flat * np.sign(flat[far, range(flat.shape[1])])  # the far end is positive: a sign is chance otherwise
    parts = np.split(flat, np.cumsum(sizes)[:-1])
    points = {name: np.round(part, DIGITS).tolist() for name, part in zip(features, parts, strict=True)}
    return {"explained": round(float((s_k[:2] ** 2).sum() / (s_k**2).sum()), DIGITS), "points": points}
