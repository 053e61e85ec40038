"""Two domains of tiny images made of blobs on a plane: the target's are turned or moved, and a network of the source errs."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tasks.core.model import ImageModel
from tasks.core.objective import Batch, Objective

N_CLASSES, N_IMAGES, BATCH, N_STEPS = 3, 240, 48, 150
TURN_RAD = math.radians(45)


@dataclass(frozen=True)
class Domains:
    source_NCHW: Tensor
    target_NCHW: Tensor
    labels_N: Tensor  # of both


def domains(seed: int, *, turn_rad: float = TURN_RAD, move: float = 0.0) -> Domains:
    """(N, 3, 4, 4) images: a point of the plane, laid out over the pixels, with noise."""
    generator = torch.Generator().manual_seed(seed)
    layout = torch.randn(2, 48, generator=generator)
    labels_N = torch.arange(N_IMAGES) % N_CLASSES

    def images(turn_rad: float, move: float) -> Tensor:
        angle_N = labels_N * (2 * math.pi / N_CLASSES) + turn_rad
        centres = torch.stack([angle_N.cos() + move, angle_N.sin()], 1)
        points = centres + 0.2 * torch.randn(N_IMAGES, 2, generator=generator)
        noise = 0.1 * torch.randn(N_IMAGES, 48, generator=generator)
        return (points @ layout + noise).reshape(-1, 3, 4, 4)

    return Domains(images(0.0, 0.0), images(turn_rad, move), labels_N)


def network(seed: int, *, with_batch_norm: bool = False) -> ImageModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        norm = nn.BatchNorm1d(32) if with_batch_norm else nn.Identity()
        backbone = nn.Sequential(nn.Flatten(), nn.Linear(48, 32), norm, nn.ReLU(), nn.Linear(32, 16), nn.ReLU())
        return ImageModel(backbone, nn.Linear(16, N_CLASSES))


def train(model: ImageModel, objective: Objective, made: Domains, seed: int, n_steps: int = N_STEPS) -> None:
    """A bare loop: labelled source and unlabelled target images, an epoch being five steps."""
    generator = torch.Generator().manual_seed(seed)
    extra = objective.extra()
    parameters = [*model.parameters(), *(extra.parameters() if extra is not None else [])]
    optimizer = torch.optim.AdamW([p for p in parameters if p.requires_grad], lr=0.003)
    for step in range(n_steps):
        if step % 5 == 0:
            objective.before_epoch(model, step // 5)
            model.train()
        i, j = (torch.randperm(N_IMAGES, generator=generator)[:BATCH].tolist() for _ in range(2))
        plain = made.target_NCHW[j]
        view = plain + 0.1 * torch.randn(plain.shape, generator=generator)
        batch = Batch(made.source_NCHW[i], i, (seed, step), view, plain, tuple(j))
        optimizer.zero_grad()
        objective.loss(model, batch, step / n_steps).backward()
        optimizer.step()
        objective.after_step(model)


def target_accuracy(model: ImageModel, made: Domains) -> float:
    model.eval()
    with torch.no_grad():
        return float((model(made.target_NCHW).argmax(1) == made.labels_N).float().mean())
