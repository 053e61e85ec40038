"""MCC: class confusion against numpy and by hand, and that it helps where the source's network errs."""

import math

import numpy as np
import pytest
import torch
from blobs import domains, network, target_accuracy, train
from scipy.optimize import approx_fprime
from scipy.special import softmax

from tasks.core.adaptation.mcc import Mcc, class_confusion
from tasks.core.adaptation.two_domains import Labels
from tasks.core.objective import Batch


def confusion_by_numpy(logits: np.ndarray, temperature: float) -> float:
    p = softmax(logits / temperature, axis=1)
    weight = 1 + np.exp((p * np.log(p)).sum(1))
    weight = len(p) * weight / weight.sum()
    table = np.einsum("i,ij,ik->jk", weight, p, p)
    table /= table.sum(1, keepdims=True)
    return float((table.sum() - np.trace(table)) / len(table))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_class_confusion_is_that_of_numpy(temperature: float) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (12, 5))
    found = float(class_confusion(torch.from_numpy(logits), temperature))
    assert found == pytest.approx(confusion_by_numpy(logits, temperature), abs=1e-6)


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        ([[0.9, 0.1], [0.1, 0.9]], 0.18),  # equal weights: rows (.82, .18)
        ([[0.5, 0.5], [0.5, 0.5]], 0.5),
        # H = .325083 and ln 2: weights 1.722 and 1.5, scaled 1.0689 and .9311; rows (1.0986, .3290), (.3290, .2435)
        ([[0.9, 0.1], [0.5, 0.5]], (0.32897 / 1.42757 + 0.32897 / 0.57244) / 2),
    ],
)
def test_class_confusion_by_hand(p: list[list[float]], expected: float) -> None:
    assert float(class_confusion(torch.tensor(p).log(), 1.0)) == pytest.approx(expected, abs=1e-4)


def test_the_gradient_is_that_of_the_whole_formula() -> None:
    logits = np.random.default_rng(1).normal(0, 1, (6, 3))
    x = torch.from_numpy(logits).requires_grad_()
    class_confusion(x, 0.5).backward()
    slope = approx_fprime(logits.ravel(), lambda flat: confusion_by_numpy(flat.reshape(6, 3), 0.5), 1e-6)
    assert np.abs(slope).max() > 0.01
    assert x.grad.numpy().ravel() == pytest.approx(slope, abs=1e-5)


def test_classes_that_the_batch_does_not_show_are_no_trouble() -> None:
    logits = torch.zeros(4, 50)
    logits[:, 0] = 1000.0
    logits.requires_grad_()
    loss = class_confusion(logits, 2.5)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(logits.grad).all()


def test_half_precision_is_left() -> None:
    logits = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)) * 3
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = class_confusion(logits, 2.5)
    assert float(found) == pytest.approx(confusion_by_numpy(logits.numpy().astype(float), 2.5), abs=1e-6)


def test_the_loss_is_the_sum_of_both_domains() -> None:
    made, model = domains(0), network(0)
    objective = Mcc(Labels(made.labels_N, 0.0), weight=2.0, temperature=1.0)
    indices = [4, 0, 8]
    batch = Batch(made.source_NCHW[indices], indices, (), u_NCHW=made.target_NCHW[:10])
    found = float(objective.loss(model, batch, 0.0).detach())
    with torch.no_grad():
        source, target = model(made.source_NCHW[indices]).numpy(), model(made.target_NCHW[:10]).numpy()
    labelled = -np.log(softmax(source, 1)[range(3), [4 % 3, 0, 8 % 3]]).mean()
    confusion = confusion_by_numpy(target, 1.0)
    assert found == pytest.approx(labelled + 2 * confusion, abs=1e-5)
    assert objective.figures() == pytest.approx({"labelled_loss": labelled, "class_confusion": confusion}, abs=1e-5)
    assert objective.figures() == {}


def test_labels_are_smoothed() -> None:
    # uniform logits over two classes but for one: log softmax (-.3133, -1.3133); smoothing .2 -> .9 and .1
    loss = Labels(torch.tensor([1, 0]), 0.2).loss(torch.tensor([[1.0, 0.0]]), [1])
    assert float(loss) == pytest.approx(0.9 * 0.313262 + 0.1 * 1.313262, abs=1e-5)


def test_it_beats_source_only_on_a_turned_domain() -> None:
    made, accuracies = domains(0), {}
    for weight in (0.0, 1.0):
        model = network(0)
        train(model, Mcc(Labels(made.labels_N, 0.1), weight, 2.5), made, seed=0)
        accuracies[weight] = target_accuracy(model, made)
    assert accuracies[0.0] < 0.9
    assert accuracies[1.0] > accuracies[0.0] + 0.1


def test_the_target_sets_the_statistics() -> None:
    made, model = domains(0), network(0, with_batch_norm=True)
    indices = list(range(48))
    model.backbone[2].momentum = 1.0
    batch = Batch(made.source_NCHW[indices], indices, (), u_NCHW=made.target_NCHW[100:160])
    Mcc(Labels(made.labels_N, 0.1), 1.0, 2.5).loss(model.train(), batch, 0.0)
    with torch.no_grad():
        given = model.backbone[1](made.target_NCHW[100:160].flatten(1))
    assert model.backbone[2].running_mean.tolist() == pytest.approx(given.mean(0).tolist(), abs=1e-5)
    assert math.isclose(float(model.backbone[2].num_batches_tracked), 1)
