"""The optimiser of a phase: which parameters learn at which rate, which of them decay, and how rates move over the steps."""

import math
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from tasks.core.model import ImageModel
from tasks.core.phases import NetPhase, learning_blocks


def parameter_groups(
    model: ImageModel, phase: NetPhase, weight_decay: float, extra: nn.Module | None = None
) -> list[dict[str, Any]]:
    """Optimizer groups of what the phase trains; rates fall with depth, norms and biases are not decayed.

    `extra`: a method's own parameters, at the head's rate. All other parameters of the model get no gradients.
    ValueError where `trains` matches no block.
    """
    learning = learning_blocks(model, phase.trains)
    depths = [(list(block.parameters()), depth) for depth, block in learning]
    if phase.trains in ("all", "backbone"):  # parameters that stand outside every block, e.g. a class token
        inside = {id(p) for _, block in learning for p in block.parameters()}
        depths.append(([p for p in model.backbone.parameters() if id(p) not in inside], len(learning)))
    if phase.trains != "backbone":
        depths.append((list(model.head.parameters()), 0))
    trained = {id(p) for parameters, _ in depths for p in parameters}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in trained)
    if extra is not None:
        depths.append(([p for p in extra.parameters() if p.requires_grad], 0))
    named = [*model.named_parameters(), *(extra.named_parameters() if extra is not None else ())]
    # not norms, biases, layer scales, position embeddings or bias tables
    weights = {id(p) for name, p in named if p.ndim > 1 and name.endswith("weight")}
    groups: list[dict[str, Any]] = []
    for parameters, depth in depths:
        for decays in (True, False):
            chosen = [p for p in parameters if (id(p) in weights) == decays]
            if chosen:
                rate = phase.lr * phase.block_decay**depth
                groups.append({"params": chosen, "lr": rate, "weight_decay": weight_decay if decays else 0.0})
    return groups


def schedule_of(optimizer: Optimizer, phase: NetPhase, n_steps: int) -> LRScheduler:
    """The phase's schedule over its n_steps steps; the groups' rates are its peaks. To be moved after each step."""
    if phase.schedule == "one_cycle":
        rates = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, rates, total_steps=n_steps + 1, pct_start=phase.warmup_share)
    n_warmup, falls = round(phase.warmup_share * n_steps), phase.schedule == "cosine"
    return LambdaLR(optimizer, lambda step: rate_share(step, n_warmup, n_steps, falls=falls))


def rate_share(step: int, n_warmup: int, n_steps: int, *, falls: bool) -> float:
    """Of the peak rate, 0..1: rises evenly over the first n_warmup steps, then stays, or falls by a cosine towards 0."""
    if step < n_warmup:
        return (step + 1) / n_warmup
    if not falls or n_warmup == n_steps:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - n_warmup) / (n_steps - n_warmup)))
