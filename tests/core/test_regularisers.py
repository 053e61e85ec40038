"""Losses against hand arithmetic, mixed images pixel by pixel, group weights by Sagawa's rule, and each refusal."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tasks.core.model import ImageModel, SmallResNet, split_head
from tasks.core.objective import Batch
from tasks.core.regularisers import Supervised, l2_sp_penalty, mixed

LABELS = torch.tensor([0, 1, 1, 0, 2])


class Looked(nn.Module):
    """Features: the means of two halves of the image. The head maps them to logits unchanged."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        half = x_NCHW.shape[-1] // 2
        return torch.stack([x_NCHW[..., :half].mean((1, 2, 3)), x_NCHW[..., half:].mean((1, 2, 3))], 1)


def looking_model(n_classes: int = 2) -> ImageModel:
    head = nn.Linear(2, n_classes)
    with torch.no_grad():
        head.weight.copy_(torch.eye(n_classes, 2))
        head.bias.zero_()
    return ImageModel(Looked(), head)


def batch_of(x_NCHW: Tensor, indices: list[int] | None = None, *address: object) -> Batch:
    return Batch(x_NCHW, indices or list(range(len(x_NCHW))), address or (0, "job", 0, 0, 0))


def numbered(n: int, side_px: int = 8) -> Tensor:
    """Image k holds the number k + 1 in every pixel."""
    return (torch.arange(n) + 1.0).view(n, 1, 1, 1).expand(n, 3, side_px, side_px).clone()


# cross-entropy


def test_label_smoothing_gives_every_class_its_share() -> None:
    """Logits 0 and ln 3: p = 1/4 and 3/4. Smoothing by .2 over two classes: .9 for the label, .1 for the other."""
    x_NCHW = torch.zeros(1, 3, 2, 2)
    x_NCHW[..., 1] = math.log(3)
    expected = -(0.9 * math.log(1 / 4) + 0.1 * math.log(3 / 4))
    found = Supervised(torch.tensor([0]), 0.2).loss(looking_model(), batch_of(x_NCHW), 0.0)
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_without_options_it_is_plain_cross_entropy_to_the_bit() -> None:
    torch.manual_seed(0)
    model, x_NCHW = split_head(SmallResNet(3, width=4), 3), torch.randn(3, 3, 16, 16)
    found = Supervised(LABELS, 0.1).loss(model, batch_of(x_NCHW, [4, 0, 2]), 0.5)
    assert torch.equal(found, cross_entropy(model(x_NCHW), torch.tensor([2, 0, 1]), label_smoothing=0.1))


def test_it_keeps_no_state() -> None:
    objective = Supervised(LABELS, 0.1, mixup_alpha=0.2)
    objective.after_step(looking_model())
    assert objective.extra() is None
    assert objective.figures() == {}


# mixed images


def draws(
    alphas: dict[str, float], n: int, n_images: int = 6, side_px: int = 8
) -> Iterator[tuple[Tensor, Tensor, float]]:
    for step in range(n):
        yield mixed(batch_of(numbered(n_images, side_px), None, 1, "job", 0, 0, step), alphas)


def test_mixup_adds_the_partners_pixels() -> None:
    own = np.arange(6) + 1.0
    for x_NCHW, partners, share in draws({"mixup": 0.4, "cutmix": 0}, 20):
        assert sorted(partners.tolist()) == list(range(6))
        expected = share * own + (1 - share) * own[partners.numpy()]
        np.testing.assert_allclose(
            x_NCHW.numpy(), np.broadcast_to(expected[:, None, None, None], (6, 3, 8, 8)), rtol=1e-5
        )


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_the_share_follows_the_beta_law(alpha: float) -> None:
    shares = [share for *_, share in draws({"mixup": alpha}, 400, 2, 2)]
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 0.05


def test_cutmix_sets_one_box_of_the_partner_and_counts_its_pixels() -> None:
    n_changed = 0
    for x_NCHW, partners, share in draws({"cutmix": 1.0}, 200, 6, 9):
        for k, partner in enumerate(partners.tolist()):
            image = x_NCHW[k].numpy()
            assert set(np.unique(image)) <= {k + 1.0, partner + 1.0}
            if partner == k:
                continue
            taken = image == partner + 1.0
            assert taken.mean() == pytest.approx(1 - share, abs=1e-12)
            assert (taken == taken[0]).all(), "the same place in every channel"
            rows, columns = taken[0].any(1), taken[0].any(0)
            assert (taken[0] == np.outer(rows, columns)).all(), "a box"
            assert np.count_nonzero(np.diff(np.flatnonzero(rows)) > 1) == 0
            assert np.count_nonzero(np.diff(np.flatnonzero(columns)) > 1) == 0
            n_changed += 0 < taken.mean() < 1
    assert n_changed > 500


def test_boxes_have_the_drawn_area_and_stand_anywhere() -> None:
    """A box of relative side s whose centre is drawn evenly covers the middle with probability s on each axis, s² in all:
    the area that was drawn, whose mean is 1/2 under Beta(1, 1)."""
    covered = [
        x[0, 0, 50, 50].item() != 1 for x, partners, _ in draws({"cutmix": 1.0}, 800, 3, 101) if partners[0] != 0
    ]
    assert np.mean(covered) == pytest.approx(1 / 2, abs=3 * 0.5 / len(covered) ** 0.5)


def test_mixing_leaves_the_batch_alone() -> None:
    for alphas in ({"mixup": 1.0}, {"cutmix": 1.0}):
        batch = batch_of(numbered(4))
        mixed(batch, alphas)
        assert torch.equal(batch.x_NCHW, numbered(4))


def test_a_mix_depends_on_its_address_only() -> None:
    alphas = {"mixup": 1.0}
    first, again = (mixed(batch_of(numbered(5), None, 3, "job", 1), alphas) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert len({mixed(batch_of(numbered(5), None, 3, "job", step), alphas)[2] for step in range(20)}) == 20


def test_with_both_each_batch_draws_one() -> None:
    n_boxes = sum(set(np.unique(x)) <= {1, 2, 3, 4, 5, 6} for x, *_ in draws({"mixup": 1.0, "cutmix": 1.0}, 300))
    assert 110 < n_boxes < 190  # 150 ± 4.6 standard deviations


@pytest.mark.parametrize("alphas", [{"mixup_alpha": 0.5}, {"cutmix_alpha": 0.5}], ids=["mixup", "cutmix"])
def test_the_loss_of_mixed_images_is_mixed_alike(alphas: dict[str, float]) -> None:
    labels, batch, model = torch.tensor([0, 1, 0, 1]), batch_of(numbered(4)), looking_model()
    x_NCHW, partners, share = mixed(batch, {name.removesuffix("_alpha"): alpha for name, alpha in alphas.items()})
    assert 0 < share < 1
    assert partners.tolist() != [0, 1, 2, 3]
    logits_NC = model(x_NCHW).detach().double().numpy()
    logs = logits_NC - np.log(np.exp(logits_NC).sum(1, keepdims=True))
    own, other = labels.numpy(), labels.numpy()[partners.numpy()]
    expected = -np.mean([share * logs[k, own[k]] + (1 - share) * logs[k, other[k]] for k in range(4)])
    assert Supervised(labels, 0.0, **alphas).loss(model, batch, 0.0).item() == pytest.approx(expected, abs=1e-5)


# groups


def grouped(step: float = 0.5, groups: tuple[int, ...] = (0, 0, 1, 1, 2)) -> tuple[Supervised, ImageModel]:
    return Supervised(LABELS, 0.0, groups_N=torch.tensor(groups), group_step=step), looking_model(3)


def weights(objective: Supervised) -> list[float]:
    extra = objective.extra()
    assert extra is not None
    return extra.state_dict()["log_q_G"].exp().tolist()


def some_images() -> Tensor:
    return torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(2)) * 4


def losses_of(model: ImageModel, x_NCHW: Tensor) -> np.ndarray:
    return cross_entropy(model(x_NCHW), LABELS, reduction="none").detach().double().numpy()


def test_group_weights_follow_sagawas_rule() -> None:
    (objective, model), x_NCHW = grouped(), some_images()
    a, b, c, d, e = losses_of(model, x_NCHW)
    means = np.array([(a + b) / 2, (c + d) / 2, e])
    q = np.full(3, 1 / 3)
    for _ in range(3):
        assert objective.loss(model, batch_of(x_NCHW), 0.0).item() == pytest.approx(q @ means, rel=1e-6)
        assert weights(objective) == pytest.approx(q), "they move after the step"
        objective.after_step(model)
        q = q * np.exp(0.5 * means)
        q /= q.sum()
        assert weights(objective) == pytest.approx(q, rel=1e-6)
    assert objective.figures() == pytest.approx({"heaviest_group": int(q.argmax()), "its_weight": q.max()})


def test_a_group_that_is_not_in_the_batch_counts_nothing() -> None:
    (objective, model), x_NCHW = grouped(), some_images()
    a, _, _, d, _ = losses_of(model, x_NCHW)
    loss = objective.loss(model, batch_of(x_NCHW[[0, 3]], [0, 3]), 0.0)
    assert loss.item() == pytest.approx((a + d) / 3, rel=1e-6)
    objective.after_step(model)
    raised = np.exp([a / 2, d / 2, 0])
    assert weights(objective) == pytest.approx(raised / raised.sum(), rel=1e-6)


def test_parts_of_a_batch_move_the_weights_once() -> None:
    (whole, model), (parted, _), x_NCHW = grouped(), grouped(), some_images()
    whole.loss(model, batch_of(x_NCHW), 0.0)
    for part in ([0, 2, 4], [1, 3]):
        parted.loss(model, batch_of(x_NCHW[part], part), 0.0)
    for objective in (whole, parted):
        objective.after_step(model)
    assert weights(parted) == pytest.approx(weights(whole), rel=1e-6)


def test_restored_weights_go_on_alike() -> None:
    (first, model), (second, _), x_NCHW = grouped(), grouped(), some_images()
    first.loss(model, batch_of(x_NCHW), 0.0)
    first.after_step(model)
    second.extra().load_state_dict(first.extra().state_dict())
    losses = [objective.loss(model, batch_of(x_NCHW), 0.0) for objective in (first, second)]
    assert torch.equal(*losses)


def test_huge_losses_leave_the_weights_finite() -> None:
    objective, model = grouped(step=100.0)
    for _ in range(3):
        objective.loss(model, batch_of(some_images() * 1000), 0.0)
        objective.after_step(model)
    assert sum(weights(objective)) == pytest.approx(1)
    assert all(math.isfinite(weight) for weight in objective.extra().log_q_G.tolist())


def test_the_worst_group_is_served() -> None:
    """Nine images of group 0 say class 0, one of group 1 says class 1, and the image can't tell them apart. Plain training
    ends at p = .9 and a worst loss of ln 10; the least worst loss is ln 2, at p = 1/2."""
    labels, groups = torch.tensor([0] * 9 + [1]), torch.tensor([0] * 9 + [1])
    batch = batch_of(torch.zeros(10, 3, 2, 2))
    found = []
    for objective in (Supervised(labels, 0.0), Supervised(labels, 0.0, groups_N=groups, group_step=0.02)):
        model = looking_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
        for _ in range(600):
            optimizer.zero_grad()
            objective.loss(model, batch, 0.0).backward()
            optimizer.step()
            objective.after_step(model)
        found.append(-model(batch.x_NCHW).log_softmax(1)[9, 1].item())
    assert found == pytest.approx([math.log(10), math.log(2)], abs=0.05)


# what is refused


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0; a share from 0 to below 1 is allowed"),
        ({"mixup_alpha": -0.1}, "mixup_alpha is -0.1; 0 (off) or more is allowed"),
        ({"cutmix_alpha": math.nan}, "cutmix_alpha is nan; 0 (off) or more is allowed"),
        ({"labels_N": torch.tensor([0, -1, -1])},
         "2 of 3 training images have no label; leave them out or label them"),
        ({"group_step": 0.1}, "group_step is 0.1 but no groups are given; name their column or set it to 0"),
        ({"groups_N": torch.tensor([0, 1, 0])}, "group_step is 0 with groups given; set it above 0, e.g. to 0.01"),
        ({"groups_N": torch.tensor([0, 1]), "group_step": 0.1}, "2 groups are given for 3 labels; give one for each image"),
        ({"groups_N": torch.tensor([0, -1, 1]), "group_step": 0.1},
         "1 of 3 training images have no group; fill the column or leave them out"),
        ({"groups_N": torch.tensor([0, 1, 1]), "group_step": 0.1, "cutmix_alpha": 1.0},
         "mixup and cutmix can't be combined with weighted groups, since a mixed image belongs to two of them; "
         "set both alphas or group_step to 0"),
        ({"mixup_alpha": -1, "label_smoothing": -1},
         "label_smoothing is -1; a share from 0 to below 1 is allowed; mixup_alpha is -1; 0 (off) or more is allowed"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_in_words(changed: dict, told: str) -> None:
    settings = {"labels_N": torch.tensor([0, 1, 1]), "label_smoothing": 0.1} | changed
    with pytest.raises(ValueError) as raised:  # noqa: PT011  the text is compared below
        Supervised(**settings)
    assert str(raised.value) == told


# L2-SP


def pulled_model() -> tuple[ImageModel, dict[str, Tensor]]:
    model = ImageModel(nn.Linear(2, 1), nn.Linear(1, 2))
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        model.backbone.weight += torch.tensor([[1.0, -2.0]])
        model.backbone.bias += 3
        model.head.weight += 10
    return model, start


def test_the_pull_is_the_squared_way_of_the_backbone() -> None:
    model, start = pulled_model()
    penalty = l2_sp_penalty(model, start)
    penalty.backward()
    assert penalty.item() == pytest.approx(1 + 4 + 9)
    assert model.backbone.weight.grad.flatten().tolist() == pytest.approx([2, -4])
    assert model.backbone.bias.grad.tolist() == pytest.approx([6])
    assert model.head.weight.grad is None


def test_what_does_not_learn_is_not_pulled() -> None:
    model, start = pulled_model()
    model.backbone.weight.requires_grad_(False)
    assert l2_sp_penalty(model, start).item() == pytest.approx(9)
    model.backbone.bias.requires_grad_(False)
    assert l2_sp_penalty(model, start).item() == 0


def test_at_the_start_there_is_no_pull() -> None:
    model, _ = pulled_model()
    assert l2_sp_penalty(model, {name: p.detach().clone() for name, p in model.named_parameters()}).item() == 0
