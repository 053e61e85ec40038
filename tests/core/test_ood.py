"""Foreign images: none in the source itself, all in another domain; AUROC as scikit-learn and DeLong have it."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from tasks.core.ood import N_NEIGHBORS, auroc, foreignness


def images(n: int, shift: float, seed: int, scale: float = 1.0) -> np.ndarray:
    """Three classes, each along an axis of its own; what is foreign lies along a fourth one."""
    x = np.random.default_rng(seed).normal(size=(n, 20))
    x[np.arange(n), np.arange(n) % 3] += 8
    x[:, 3] += shift
    return x * scale


def test_the_source_itself_is_not_foreign() -> None:
    draws = [
        foreignness(images(300, 0, seed), images(200, 0, 100 + seed), images(400, 0, 200 + seed), 0.95)
        for seed in range(12)
    ]
    # by chance .0154 from the held-out images' own percentile and .011 from the target, each draw
    assert np.mean([found.foreign_share for found in draws]) == pytest.approx(0.05, abs=3 * 0.019 / np.sqrt(12))
    assert np.mean([found.percentile_N.mean() for found in draws]) == pytest.approx(0.5, abs=0.03)
    assert sum(found.auroc.low < 0.5 < found.auroc.high for found in draws) >= 10


def test_another_domain_is_foreign() -> None:
    found = foreignness(images(300, 0, 0), images(200, 0, 1), images(100, 12, 2), 0.95)
    assert found.auroc.value > 0.95
    assert found.foreign_share > 0.8
    assert found.auroc.n == len(found.percentile_N) == 100


def test_the_scale_of_features_does_not_matter() -> None:
    plain = foreignness(images(100, 0, 0), images(60, 0, 1), images(50, 2, 2), 0.95)
    tiny = foreignness(images(100, 0, 0, 1e-9), images(60, 0, 1, 1e-9), images(50, 2, 2, 1e-9), 0.95)
    assert tiny.percentile_N == pytest.approx(plain.percentile_N)


def test_distances_are_those_of_scikit_learn() -> None:
    train, held_out, x = images(80, 0, 0), images(40, 0, 1), images(30, 1, 2)

    def on_sphere(y: np.ndarray) -> np.ndarray:
        return y / np.linalg.norm(y, axis=1, keepdims=True)

    tree = NearestNeighbors(n_neighbors=N_NEIGHBORS).fit(on_sphere(train))
    own, its = (tree.kneighbors(on_sphere(y))[0][:, -1] for y in (held_out, x))
    found = foreignness(train, held_out, x, 0.95)
    assert found.percentile_N == pytest.approx((own[None] < its[:, None]).mean(1))
    truth = np.repeat([0, 1], [len(own), len(its)])
    assert found.auroc.value == pytest.approx(roc_auc_score(truth, np.concatenate([own, its])))


def test_an_image_without_any_activation_has_a_place() -> None:
    x = images(30, 0, 2)
    x[0] = 0
    found = foreignness(images(60, 0, 0), images(40, 0, 1), x, 0.95)
    assert found.percentile_N[0] == 1.0  # at a right angle to everything


def test_auroc_by_hand() -> None:
    # positives 2 and 4 against 1, 2, 3: 2 is above one and equal to one (1.5 / 3), 4 above all
    found = auroc(np.array([2.0, 4.0]), np.array([1.0, 2.0, 3.0]), 0.95)
    assert found.value == pytest.approx(0.75)
    # placements .5, 1 (variance .125); 1, .75, .5 (variance .0625): half width 1.96 sqrt(.125/2 + .0625/3) = .566
    assert (found.low, found.high) == (pytest.approx(0.75 - 0.5658, abs=1e-3), 1.0)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    # two normals a distance of 1 apart: Φ(1/√2) = .7602
    rng = np.random.default_rng(0)
    found = [auroc(rng.normal(1, 1, 60), rng.normal(0, 1, 60), 0.9) for _ in range(600)]
    assert np.mean([f.low <= 0.7602 <= f.high for f in found]) == pytest.approx(0.9, abs=0.04)


def test_too_few_images_and_gaps_are_refused_together() -> None:
    gap = images(30, 0, 0)
    gap[4, 2] = np.nan
    message = (
        "foreign images can't be told: 9 source training images, at least 10 are needed; 1 held-out source images, at "
        "least 2 are needed; gaps in the features of 1 target images"
    )
    with pytest.raises(ValueError, match=message):
        foreignness(images(9, 0, 0), images(1, 0, 0), gap, 0.95)
