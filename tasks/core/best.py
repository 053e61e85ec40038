"""The best validation of a phase, with the weights that it was measured with: what a patience waits for and goes back to."""

import math
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Validation:
    accuracy: float
    log_loss: float  # nats

    def row(self) -> dict[str, float]:
        return {"val_accuracy": round(self.accuracy, 6), "val_loss": round(self.log_loss, 6)}


@dataclass
class Best:
    """Better is the higher accuracy, then the lower log-loss: of few images the accuracy has coarse steps."""

    epoch: int = 0
    accuracy: float = -math.inf
    log_loss: float = math.inf
    n_since: int = 0  # validations since then
    weights: dict[str, Tensor] = field(default_factory=dict)

    def see(self, epoch: int, found: Validation, weights: dict[str, Tensor]) -> None:
        """Notes one more validation; the weights are kept as they are given, so give a copy."""
        self.n_since += 1
        if (found.accuracy, -found.log_loss) > (self.accuracy, -self.log_loss):
            self.epoch, self.accuracy, self.log_loss = epoch, found.accuracy, found.log_loss
            self.n_since, self.weights = 0, weights
