"""Deep CORAL: the distance against numpy and by hand, and that it helps where the source's network errs."""

import numpy as np
import pytest
import torch
from blobs import domains, network, target_accuracy, train

from tasks.core.adaptation.deep_coral import DeepCoral, coral_distance
from tasks.core.adaptation.two_domains import Labels
from tasks.core.objective import Batch


def distance_by_numpy(source: np.ndarray, target: np.ndarray) -> float:
    apart = np.cov(source, rowvar=False) - np.cov(target, rowvar=False)
    return float(np.linalg.norm(apart) ** 2 / (4 * source.shape[1] ** 2))


def test_the_distance_is_that_of_numpy_also_for_unequal_batches() -> None:
    rng = np.random.default_rng(0)
    source, target = rng.normal(5, 3, (20, 4)), rng.normal(-2, 1, (7, 4))
    found = coral_distance(torch.from_numpy(source), torch.from_numpy(target))
    assert float(found) == pytest.approx(distance_by_numpy(source, target), rel=1e-5)


def test_the_distance_by_hand() -> None:
    # covariances [[2, 0], [0, 0]] and [[0, 0], [0, 8]]: (4 + 64) / (4 * 4); the means don't count
    source, target = torch.tensor([[1.0, 9.0], [3.0, 9.0]]), torch.tensor([[0.0, 0.0], [0.0, 4.0]])
    assert float(coral_distance(source, target)) == 4.25
    assert float(coral_distance(source, source + 100)) == 0


def test_one_image_has_no_covariance() -> None:
    one, two = torch.ones(1, 3, requires_grad=True), torch.rand(2, 3, requires_grad=True)
    for pair in ((one, two), (two, one)):
        loss = coral_distance(*pair)
        loss.backward()
        assert float(loss.detach()) == 0
    assert one.grad.tolist() == [[0, 0, 0]]


def test_half_precision_is_left() -> None:
    rng = np.random.default_rng(0)
    source, target = rng.normal(50, 1, (30, 3)), rng.normal(50, 2, (30, 3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = coral_distance(torch.from_numpy(source).float(), torch.from_numpy(target).float())
    assert float(found) == pytest.approx(distance_by_numpy(source, target), rel=1e-3)


def test_the_loss_is_the_sum_of_both_domains() -> None:
    made, model = domains(0), network(0)
    indices = list(range(12))
    batch = Batch(made.source_NCHW[:12], indices, (), u_NCHW=made.target_NCHW[:30])
    objective = DeepCoral(Labels(made.labels_N, 0.0), weight=5.0)
    found = float(objective.loss(model, batch, 0.0).detach())
    with torch.no_grad():
        source, target = model(made.source_NCHW[:12]), model(made.target_NCHW[:30])
        labelled = torch.nn.functional.cross_entropy(source, made.labels_N[:12])
    distance = distance_by_numpy(source.numpy(), target.numpy())
    assert found == pytest.approx(float(labelled) + 5 * distance, rel=1e-5)
    told = objective.figures()
    assert told == pytest.approx({"labelled_loss": float(labelled), "coral_distance": distance}, rel=1e-4)


def test_it_beats_source_only_on_a_turned_domain() -> None:
    made, accuracies = domains(0), {}
    for weight in (0.0, 1.0):
        model = network(0)
        train(model, DeepCoral(Labels(made.labels_N, 0.1), weight), made, seed=0)
        accuracies[weight] = target_accuracy(model, made)
    assert accuracies[0.0] < 0.9
    assert accuracies[1.0] > accuracies[0.0] + 0.1
