"""Against overfitting: the supervised loss with its options, and the pull towards the start.

Axes: N images, C classes, G groups, K images of a step.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tasks.core import parallel
from tasks.core.model import ImageModel
from tasks.core.objective import Batch, Objective
from tasks.core.runtime import address_rng


class Supervised(Objective):
    """Cross-entropy with label smoothing; on mixed images (mixup, cutmix) or on weighted groups (GroupDRO), or on neither.

    ValueError names every setting that is wrong, and refuses mixed images together with groups. Mixed partners and mean
    losses of groups are taken within the images that a process holds: with several processes, or with a batch run in
    parts, they differ from those of the whole batch.
    """

    def __init__(
        self,
        labels_N: Tensor,
        label_smoothing: float,
        *,
        mixup_alpha: float = 0,
        cutmix_alpha: float = 0,
        groups_N: Tensor | None = None,
        group_step: float = 0,
    ) -> None:
        if problems := [
            *_label_problems(labels_N, label_smoothing),
            *_alpha_problems({"mixup_alpha": mixup_alpha, "cutmix_alpha": cutmix_alpha}),
            *_group_problems(labels_N, groups_N, group_step, is_mixed=bool(mixup_alpha or cutmix_alpha)),
        ]:
            raise ValueError("; ".join(problems))
        self._labels_N = labels_N
        self._label_smoothing = label_smoothing
        self._alphas = {"mixup": mixup_alpha, "cutmix": cutmix_alpha}
        self._groups = GroupWeights(groups_N, group_step) if groups_N is not None else None

    def extra(self) -> nn.Module | None:
        return self._groups

    def loss(self, model: ImageModel, batch: Batch, progress: float) -> Tensor:
        labels_K = self._labels_N[batch.indices].to(batch.x_NCHW.device)
        if self._groups is not None:
            return self._groups.loss(self._losses(model(batch.x_NCHW), labels_K, "none"), batch.indices)
        if not any(self._alphas.values()):
            return self._losses(model(batch.x_NCHW), labels_K)
        x_KCHW, partners, share = mixed(batch, self._alphas)
        logits_KC = model(x_KCHW)
        return share * self._losses(logits_KC, labels_K) + (1 - share) * self._losses(logits_KC, labels_K[partners])

    def after_step(self, model: ImageModel) -> None:
        if self._groups is not None:
            self._groups.move()

    def figures(self) -> dict[str, float]:
        return {} if self._groups is None else self._groups.figures()

    def _losses(self, logits_KC: Tensor, labels_K: Tensor, reduction: str = "mean") -> Tensor:
        return cross_entropy(logits_KC, labels_K, label_smoothing=self._label_smoothing, reduction=reduction)


class GroupWeights(nn.Module):
    """The weights of GroupDRO (Sagawa et al. 2020, algorithm 1): q_g ∝ q_g · exp(step · mean loss of group g).

    The loss is Σ_g q_g · mean loss of g in the batch; a group that is not in the batch counts 0. The paper moves q before
    it is used, here it moves after the step: so that parts of a batch and processes move it once and alike. The paper
    finds that it helps only a model that is kept from fitting every image: with strong weight decay or an early stop.
    """

    log_q_G: Tensor

    def __init__(self, groups_N: Tensor, step: float) -> None:
        super().__init__()
        self._groups_N = groups_N
        self._step = step
        n_groups = int(groups_N.max()) + 1
        self.register_buffer("log_q_G", torch.full((n_groups,), 1 / n_groups, dtype=torch.float64).log())
        self._seen_2G = torch.zeros(2, n_groups, dtype=torch.float64)  # sums of losses, numbers of images

    def loss(self, losses_K: Tensor, indices: list[int]) -> Tensor:
        groups_K = self._groups_N[indices].to(losses_K.device)
        one_hot_KG = nn.functional.one_hot(groups_K, len(self.log_q_G)).to(losses_K.dtype)
        sums_G, counts_G = (losses_K[:, None] * one_hot_KG).sum(0), one_hot_KG.sum(0)
        self._seen_2G = self._seen_2G.to(losses_K.device) + torch.stack([sums_G.detach(), counts_G])
        q_G = self.log_q_G.exp().to(losses_K)
        return (q_G * sums_G / counts_G.clamp(min=1)).sum()

    def move(self) -> None:
        sums_G, counts_G = parallel.summed(self._seen_2G).to(self.log_q_G.device)
        self.log_q_G.copy_((self.log_q_G + self._step * sums_G / counts_G.clamp(min=1)).log_softmax(0))
        self._seen_2G.zero_()

    def figures(self) -> dict[str, float]:
        return {"heaviest_group": float(self.log_q_G.argmax()), "its_weight": float(self.log_q_G.max().exp())}


def mixed(batch: Batch, alphas: Mapping[str, float]) -> tuple[Tensor, Tensor, float]:
    """The images mixed each with a partner, the partners' numbers (K,), and the share of its own that an image keeps.

    mixup (Zhang et al. 2018): the whole image, x·λ + x[partner]·(1 - λ). cutmix (Yun et al. 2019): a box of the partner
    of area 1 - λ around a place drawn evenly; λ is then the share that the box, cut at the edge, really left. λ is drawn
    from Beta(alpha, alpha), once for the batch; where both alphas are above 0, each batch draws one of the two.
    """
    rng = address_rng(*batch.address, "mixed")
    kind = str(rng.choice([kind for kind, alpha in alphas.items() if alpha]))
    share = float(rng.beta(alphas[kind], alphas[kind]))
    x_KCHW = batch.x_NCHW
    partners = torch.from_numpy(rng.permutation(len(x_KCHW))).to(x_KCHW.device)
    if kind == "mixup":
        return share * x_KCHW + (1 - share) * x_KCHW[partners], partners, share
    height, width = x_KCHW.shape[-2:]
    rows, columns = _box(rng, height, width, 1 - share)
    x_KCHW = x_KCHW.clone()
    x_KCHW[..., rows, columns] = batch.x_NCHW[partners][..., rows, columns]
    cut = (rows.stop - rows.start) * (columns.stop - columns.start)
    return x_KCHW, partners, 1 - cut / (height * width)


def _box(rng: np.random.Generator, height: int, width: int, area_share: float) -> tuple[slice, slice]:
    """Rows and columns of a box with the image's proportions, cut at its edges."""
    sides = []
    for length in (height, width):
        half, centre = length * area_share**0.5 / 2, rng.uniform(0, length)
        sides.append(slice(max(round(centre - half), 0), min(round(centre + half), length)))
    return sides[0], sides[1]


def l2_sp_penalty(model: ImageModel, start: Mapping[str, Tensor]) -> Tensor:
    """Σ (w - w_start)² over the backbone's parameters that learn: L2-SP (Li et al. 2018), a scalar to be multiplied.

    `start` holds them by their names in the model (`backbone.…`) on the same device; what else it holds is not read. The
    paper's α is twice the factor. The head has no start to be pulled to.
    """
    pulls = [
        (weight - start[name]).square().sum()
        for name, weight in model.named_parameters()
        if name.startswith("backbone.") and weight.requires_grad
    ]
    return torch.stack(pulls).sum() if pulls else torch.zeros((), device=model.head.weight.device)


def _label_problems(labels_N: Tensor, label_smoothing: float) -> list[str]:
    problems = []
    if n_missing := int((labels_N < 0).sum()):
        problems.append(f"{n_missing} of {len(labels_N)} training images have no label; leave them out or label them")
    if not 0 <= label_smoothing < 1:
        problems.append(f"label_smoothing is {label_smoothing}; a share from 0 to below 1 is allowed")
    return problems


def _alpha_problems(alphas: Mapping[str, float]) -> list[str]:
    return [f"{name} is {alpha}; 0 (off) or more is allowed" for name, alpha in alphas.items() if not alpha >= 0]


def _group_problems(labels_N: Tensor, groups_N: Tensor | None, group_step: float, *, is_mixed: bool) -> list[str]:
    if groups_N is None:
        return [f"group_step is {group_step} but no groups are given; name their column or set it to 0"] * bool(
            group_step
        )
    problems = []
    if not group_step > 0:
        problems.append(f"group_step is {group_step} with groups given; set it above 0, e.g. to 0.01")
    if is_mixed:
        problems.append(
            "mixup and cutmix can't be combined with weighted groups, since a mixed image belongs to two of them; "
            "set both alphas or group_step to 0"
        )
    if len(groups_N) != len(labels_N):
        problems.append(f"{len(groups_N)} groups are given for {len(labels_N)} labels; give one for each image")
    elif n_missing := int((groups_N < 0).sum()):
        problems.append(
            f"{n_missing} of {len(groups_N)} training images have no group; fill the column or leave them out"
        )
    return problems
