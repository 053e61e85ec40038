"""Figures of an epoch: means of what each step noted, for the history."""

import torch
from torch import Tensor


class Figures:
    """Notes stay on the device until they are taken: no step waits for a number."""

    def __init__(self) -> None:
        self._notes: dict[str, list[Tensor]] = {}

    def note(self, **values: Tensor) -> None:
        for name, value in values.items():
            self._notes.setdefault(name, []).append(value.detach().float())

    def taken(self) -> dict[str, float]:
        """The mean of each figure since the last call; the notes start anew."""
        means = {name: float(torch.stack(values).mean()) for name, values in self._notes.items()}
        self._notes = {}
        return means
