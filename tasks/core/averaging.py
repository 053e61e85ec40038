"""Averaged weights: an exponential moving average (EMA) of a network's state over the steps of its training."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Average:
    """The moving average of every float tensor of a module, BatchNorm's statistics included; others are copied.

    Step n counts with decay min(decay, (1 + n) / (10 + n)): a short run would else keep its starting weights.
    """

    decay: float
    weights: dict[str, Tensor]  # the module's state at the start, and the average from then on
    n_steps: int = 0

    def follow(self, module: nn.Module) -> None:
        """To be called after each step."""
        self.n_steps += 1
        decay = min(self.decay, (1 + self.n_steps) / (10 + self.n_steps))
        now = module.state_dict()
        floats = [name for name, tensor in now.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self.weights[name] for name in floats], [now[name] for name in floats], 1 - decay)
        for name in now.keys() - floats:
            self.weights[name].copy_(now[name])

    def load(self, state: dict[str, Any]) -> None:
        """vars() of an average, its tensors on any device."""
        self.n_steps = state["n_steps"]
        for name, tensor in state["weights"].items():
            self.weights[name].copy_(tensor)

    @contextmanager
    def in_place_of(self, module: nn.Module) -> Iterator[None]:
        """Within it the module holds the average; afterwards its own state again."""
        own = copied(module)
        module.load_state_dict(self.weights)
        try:
            yield
        finally:
            module.load_state_dict(own)


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
