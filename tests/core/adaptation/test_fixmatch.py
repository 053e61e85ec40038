"""FixMatch: thresholds and losses by hand, a teacher that follows without disturbing, and that it helps."""

import math

import pytest
import torch
from blobs import N_IMAGES, domains, network, target_accuracy, train
from torch import Tensor, nn

from tasks.core.adaptation.fixmatch import FixMatch, class_thresholds, masked_cross_entropy
from tasks.core.adaptation.two_domains import Labels
from tasks.core.model import ImageModel
from tasks.core.objective import Batch


def fixmatch(model: ImageModel, labels_N: Tensor, *, n_unlabelled: int = N_IMAGES, weight: float = 1.0) -> FixMatch:
    return FixMatch(Labels(labels_N, 0.1), model, n_unlabelled=n_unlabelled, weight=weight, threshold=0.9, decay=0.99)


def head_only(weight: list[list[float]]) -> ImageModel:
    """Logits are the image's first two numbers times the weight."""
    head = nn.Linear(2, len(weight), bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.tensor(weight))
    return ImageModel(nn.Flatten(), head)


@pytest.mark.parametrize(
    ("sure_of", "expected"),
    [
        ([-1, -1, -1, -1], [0.9, 0.9, 0.9]),  # nothing is known yet
        ([0, -1, -1, -1], [0.9, 0.5, 0.5]),
        ([0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, -1], [0.9, 0.9 * 0.8 / 1.2, 0.5]),
        ([0, 0, 1, 1, 2, 2], [0.9, 0.9, 0.9]),
    ],
)
def test_thresholds_by_hand(sure_of: list[int], expected: list[float]) -> None:
    assert class_thresholds(torch.tensor(sure_of), 3, 0.9).tolist() == pytest.approx(expected)


def test_the_loss_is_divided_by_all_images() -> None:
    # -log softmax of (0, 1): 1.313262 and .313262
    logits = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    found = masked_cross_entropy(logits, torch.tensor([0, 1, 0, 1]), torch.tensor([True, True, False, False]))
    assert float(found) == pytest.approx((1.313262 + 0.313262) / 4, abs=1e-6)
    assert float(masked_cross_entropy(logits, torch.tensor([0, 1, 0, 1]), torch.zeros(4, dtype=torch.bool))) == 0


def test_a_step_by_hand() -> None:
    model = head_only([[1.0, 0.0], [0.0, 1.0]])
    method = fixmatch(model, torch.tensor([0]), n_unlabelled=4, weight=3.0)
    method.teacher.sure_of_M[:] = torch.tensor([0, 0, 0, -1])  # thresholds .9 and .5
    # the teacher: image 3 is of class 0 with e^3 / (e^3 + 1) = .9526, image 1 of class 0 and 2 of class 1 with .6225
    plain = torch.tensor([[3.0, 0.0], [0.5, 0.0], [0.0, 0.5]])
    strong = torch.tensor([[2.0, 0.0], [0.0, 9.0], [0.0, 1.0]])
    batch = Batch(torch.tensor([[1.0, 0.0]]), [0], (), strong, plain, (3, 1, 2))
    loss = float(method.loss(model, batch, 0.0).detach())
    labelled = 0.95 * 0.313262 + 0.05 * 1.313262
    used = (math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))) / 3  # images 3 and 2; image 1 is not sure enough
    assert loss == pytest.approx(labelled + 3 * used, abs=1e-5)
    assert method.teacher.sure_of_M.tolist() == [0, 0, 0, 0]  # image 3 is now sure; 2 is not, at .62
    told = method.figures()
    assert told["used_share"] == pytest.approx(2 / 3)
    assert told["lowest_threshold"] == 0.5
    assert told["strong_loss"] == pytest.approx(used, abs=1e-5)
    assert method.figures() == {}


def test_no_gradient_reaches_what_the_teacher_saw() -> None:
    model = head_only([[1.0, 0.0], [0.0, 1.0]])
    method = fixmatch(model, torch.tensor([0]), n_unlabelled=1)
    plain = torch.tensor([[3.0, 0.0]], requires_grad=True)
    method.loss(model, Batch(torch.ones(1, 2), [0], (), torch.ones(1, 2), plain, (0,)), 0.0).backward()
    assert plain.grad is None
    assert all(p.grad is None and not p.requires_grad for p in method.extra().parameters())


def test_the_teacher_follows_soon_at_first() -> None:
    model = head_only([[1.0, 0.0], [0.0, 1.0]])
    method = fixmatch(model, torch.tensor([0]))
    with torch.no_grad():
        model.head.weight.zero_()
    method.after_step(model)  # keeps min(.99, 2 / 11)
    assert method.teacher.model.head.weight.tolist() == [[pytest.approx(2 / 11), 0], [0, pytest.approx(2 / 11)]]
    method.after_step(model)  # 3 / 12
    assert method.teacher.model.head.weight[0, 0].item() == pytest.approx(2 / 11 / 4)
    method.teacher.followed += 10_000
    method.after_step(model)
    assert method.teacher.model.head.weight[0, 0].item() == pytest.approx(2 / 11 / 4 * 0.99)


def test_the_teacher_starts_as_the_network_does() -> None:
    model = head_only([[1.0, 0.0], [0.0, 1.0]])
    method = fixmatch(model, torch.tensor([0]))
    with torch.no_grad():
        model.head.weight.zero_()
    method.before_epoch(model, 0)
    assert method.teacher.model.head.weight.abs().sum() == 0
    method.after_step(model)
    with torch.no_grad():
        model.head.weight.fill_(1.0)
    method.before_epoch(model, 0)  # a resumed run calls it again
    assert method.teacher.model.head.weight.abs().sum() == 0


def test_the_teacher_judges_in_eval_mode_and_only_strong_views_move_statistics() -> None:
    made, model = domains(0), network(0, with_batch_norm=True)
    model.backbone[2].momentum = 1.0
    method = fixmatch(model, made.labels_N)
    method.extra().train()
    assert not any(part.training for part in method.teacher.model.modules())
    indices = list(range(30))
    strong = made.target_NCHW[40:80]
    batch = Batch(made.source_NCHW[:30], indices, (), strong, made.target_NCHW[100:140], tuple(range(40)))
    method.loss(model.train(), batch, 0.0)
    with torch.no_grad():
        given = model.backbone[1](strong.flatten(1))
    assert model.backbone[2].running_mean.tolist() == pytest.approx(given.mean(0).tolist(), abs=1e-5)
    assert method.teacher.model.backbone[2].running_mean.abs().sum() == 0
    method.after_step(model)
    assert torch.equal(method.teacher.model.backbone[2].running_mean, model.backbone[2].running_mean)


def test_a_resumed_method_goes_on_with_the_same_bytes() -> None:
    made = domains(0)
    whole, model = network(0), network(0)
    one, other = fixmatch(whole, made.labels_N), fixmatch(model, made.labels_N)
    train(whole, one, made, seed=0, n_steps=60)
    train(model, other, made, seed=0, n_steps=60)
    resumed = fixmatch(model, made.labels_N)
    resumed.extra().load_state_dict(other.extra().state_dict())
    for network_, method in ((whole, one), (model, resumed)):
        train(network_, method, made, seed=1, n_steps=5)
    states = zip(one.extra().state_dict().values(), resumed.extra().state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in states)
    assert int(one.teacher.followed) == 65
    assert (one.teacher.sure_of_M >= 0).any()


def test_it_beats_source_only_on_a_turned_domain() -> None:
    made, accuracies = domains(0), {}
    for weight in (0.0, 1.0):
        model = network(0)
        train(model, fixmatch(model, made.labels_N, weight=weight), made, seed=0)
        accuracies[weight] = target_accuracy(model, made)
    assert accuracies[0.0] < 0.9
    assert accuracies[1.0] > accuracies[0.0] + 0.1
