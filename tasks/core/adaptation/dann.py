"""DANN: features from which a discriminator cannot tell the domain.

Ganin et al. 2016, "Domain-Adversarial Training of Neural Networks". Ours differs: the discriminator sees each image's
features centred and of length sqrt(D), because a pretrained network's may be of any size (1e-10 or 100) and a learning
rate fits one size only; on PACS that also was the best of four ways, at weight 1 and at weight 0.1.
Axes: N labelled images, U unlabelled target images, D features.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from tasks.core.adaptation.figures import Figures
from tasks.core.adaptation.two_domains import Labels, in_float32, see_both
from tasks.core.model import ImageModel
from tasks.core.objective import Batch, Objective
from tasks.core.runtime import address_seed

HIDDEN = 256
STEEPNESS = 10.0  # of the reversal's growth


class Dann(Objective):
    """Cross-entropy on the labelled images + weight · the discriminator's loss, its gradient reversed for the network.

    A discriminator accuracy that stays at 0.5 from the start is dead, one that stays at 1 is too strong: see figures.
    """

    def __init__(self, labels: Labels, *, n_features: int, weight: float, seed: int) -> None:
        self.labels = labels
        self.weight = weight
        self.discriminator = discriminator(n_features, seed)
        self._figures = Figures()

    def extra(self) -> nn.Module:
        return self.discriminator

    def loss(self, model: ImageModel, batch: Batch, progress: float) -> Tensor:
        seen = see_both(model, batch)
        labelled = self.labels.loss(seen.source_NC, batch.indices)
        strength = reversal(progress)
        with in_float32(seen.source_ND):
            source_N = self.judged(seen.source_ND, strength)
            target_U = self.judged(seen.target_UD, strength)
            domain = domain_loss(source_N, target_U)
        right = ((source_N > 0).float().mean() + (target_U <= 0).float().mean()) / 2
        self._figures.note(labelled_loss=labelled, domain_loss=domain, discriminator_accuracy=right)
        return labelled + self.weight * domain

    def judged(self, x_ND: Tensor, strength: float) -> Tensor:
        """(N,) log odds of being source, through the reversal."""
        even_ND = normalize(x_ND - x_ND.mean(1, keepdim=True)) * math.sqrt(x_ND.shape[1])
        judged: Tensor = self.discriminator(Reversed.apply(even_ND, strength)).squeeze(1)
        return judged

    def figures(self) -> dict[str, float]:
        return self._figures.taken()


def discriminator(n_features: int, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(address_seed(seed, "dann", "discriminator"))
        return nn.Sequential(
            nn.Linear(n_features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)
        )


def domain_loss(source_N: Tensor, target_U: Tensor) -> Tensor:
    """Mean of both domains' binary cross-entropies from log odds (source = 1): each counts half, whatever its size."""
    of_source = binary_cross_entropy_with_logits(source_N, torch.ones_like(source_N))
    of_target = binary_cross_entropy_with_logits(target_U, torch.zeros_like(target_U))
    return (of_source + of_target) / 2


def reversal(progress: float) -> float:
    """2 / (1 + exp(-10 p)) - 1: 0 at the start, while the discriminator is still blind; depends on progress alone."""
    return 2 / (1 + math.exp(-STEEPNESS * progress)) - 1


class Reversed(torch.autograd.Function):
    """Identity whose gradient is multiplied by -strength."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x_ND.view_as(x_ND)

    @staticmethod
    def backward(ctx: Any, gradient_ND: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradient_ND, None
