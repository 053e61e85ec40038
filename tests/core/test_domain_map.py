"""The map: two components, the same whatever the sign that the solver found, apart where the domains are apart."""

import numpy as np
from scipy.spatial.distance import pdist

from tasks.core.domain_map import domain_map


def test_two_features_keep_their_distances() -> None:
    x = np.random.default_rng(0).normal(size=(30, 2))
    found = domain_map({"one": x[:10], "other": x[10:]})
    flat = np.array(found["points"]["one"] + found["points"]["other"])
    standard = (x - x.mean(0)) / x.std(0)
    np.testing.assert_allclose(pdist(flat), pdist(standard), atol=2e-3)
    assert found["explained"] == 1.0


def test_domains_that_differ_lie_apart() -> None:
    rng = np.random.default_rng(0)
    found = domain_map({"a": rng.normal(size=(40, 64)), "b": rng.normal(size=(40, 64)) + 3})
    a, b = (np.array(found["points"][name])[:, 0] for name in "ab")
    assert max(a.max(), b.max()) > 0
    assert a.max() < b.min() or b.max() < a.min()


def test_dead_features_and_tiny_sets_are_no_crash() -> None:
    assert domain_map({"a": np.zeros((1, 4)), "b": np.zeros((1, 4))})["points"] == {"a": [], "b": []}
    assert domain_map({"a": np.zeros((3, 4)), "b": np.zeros((3, 4))})["points"] == {"a": [], "b": []}
