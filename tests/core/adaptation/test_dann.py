"""DANN: reversal, domain loss and strength by hand, a discriminator of its own seed, and that it helps on a moved domain."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from blobs import N_CLASSES, domains, network, target_accuracy, train

from tasks.core.adaptation.dann import Dann, Reversed, domain_loss, reversal
from tasks.core.adaptation.two_domains import Labels
from tasks.core.objective import Batch


def objective(labels_N: torch.Tensor, weight: float = 1.0, seed: int = 0) -> Dann:
    return Dann(Labels(labels_N, 0.0), n_features=16, weight=weight, seed=seed)


@pytest.mark.parametrize(
    ("progress", "strength"), [(0.0, 0.0), (0.1, 0.4621172), (0.5, 0.9866143), (1.0, 0.9999092)]
)  # tanh(5 p)
def test_strength_grows_with_progress(progress: float, strength: float) -> None:
    assert reversal(progress) == pytest.approx(strength, abs=1e-7)


def test_the_gradient_is_reversed() -> None:
    x = torch.tensor([[1.0, -2.0]], requires_grad=True)
    out = Reversed.apply(x, 0.25)
    (out * torch.tensor([[3.0, 5.0]])).sum().backward()
    assert out.tolist() == [[1, -2]]
    assert x.grad.tolist() == [[-0.75, -1.25]]


def test_both_domains_count_half_whatever_their_size() -> None:
    # log(1 + e^-1) = .313262, log(1 + e^2) = 2.126928
    found = float(domain_loss(torch.tensor([1.0]), torch.tensor([2.0, 2.0, 2.0])))
    assert found == pytest.approx((0.313262 + 2.126928) / 2, abs=1e-6)
    assert float(domain_loss(torch.zeros(5), torch.zeros(2))) == pytest.approx(math.log(2))
    assert float(domain_loss(torch.tensor([1000.0]), torch.tensor([1000.0]))) == 500


def test_the_network_climbs_where_the_discriminator_descends() -> None:
    """At full strength the backbone's gradient of the domain term is minus what it is without reversal."""
    made, model = domains(0), network(0)
    method = objective(made.labels_N)
    indices = list(range(12))
    batch = Batch(made.source_NCHW[:12], indices, (), u_NCHW=made.target_NCHW[:20])

    def gradients(strength: float) -> list[np.ndarray]:
        method.discriminator.zero_grad()
        own = deepcopy(model)
        seen = [own.features(x) for x in (batch.x_NCHW, batch.u_NCHW)]
        domain_loss(*(method.judged(x_ND, strength) for x_ND in seen)).backward()
        return [own.backbone[1].weight.grad.numpy(), method.discriminator[0].weight.grad.numpy().copy()]

    (backbone, disc), (reversed_backbone, same_disc) = gradients(-1.0), gradients(0.5)
    assert np.abs(backbone).max() > 0
    assert reversed_backbone == pytest.approx(-0.5 * backbone, rel=1e-4, abs=1e-9)
    assert same_disc == pytest.approx(disc)


def test_features_of_any_size_are_judged_alike() -> None:
    method = objective(torch.zeros(1, dtype=torch.long))
    x = torch.rand(5, 16, generator=torch.Generator().manual_seed(0))
    judged = method.judged(x, 1.0).detach().numpy()
    for size in (1e-9, 1e6):
        assert method.judged(x * size, 1.0).detach().numpy() == pytest.approx(judged, rel=1e-3, abs=1e-5)
    assert torch.isfinite(method.judged(torch.zeros(2, 16), 1.0)).all()


def test_the_discriminator_depends_on_its_seed_alone() -> None:
    def weights(seed: int) -> list[float]:
        return objective(torch.zeros(1, dtype=torch.long), seed=seed).extra()[0].weight.flatten().tolist()

    torch.manual_seed(1)
    first, after = weights(0), torch.rand(1).item()
    torch.manual_seed(1)
    assert torch.rand(1).item() == after  # the stream of others is left alone
    assert weights(0) == first
    assert weights(1) != first


def test_figures_tell_how_well_the_domains_are_told_apart() -> None:
    made, model = domains(0), network(0)
    method = objective(made.labels_N)
    with torch.no_grad():
        for parameter in method.discriminator.parameters():
            parameter.zero_()
        method.discriminator[4].bias.fill_(3.0)  # all are called source
    batch = Batch(made.source_NCHW[:12], list(range(12)), (), u_NCHW=made.target_NCHW[:36])
    method.loss(model, batch, 0.5)
    told = method.figures()
    assert told["discriminator_accuracy"] == 0.5
    assert told["domain_loss"] == pytest.approx((math.log1p(math.exp(-3)) + math.log1p(math.exp(3))) / 2)
    assert told["labelled_loss"] == pytest.approx(math.log(N_CLASSES), abs=0.2)
    assert method.figures() == {}


def test_it_beats_source_only_on_a_moved_domain() -> None:
    made, accuracies = domains(1, turn_rad=0.0, move=0.8), {}
    for weight in (0.0, 0.1):
        model = network(1)
        train(model, objective(made.labels_N, weight, seed=1), made, seed=1)
        accuracies[weight] = target_accuracy(model, made)
    assert accuracies[0.0] < 0.9
    assert accuracies[0.1] > accuracies[0.0] + 0.05
