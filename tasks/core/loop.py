"""The state of one phase under way: all that a checkpoint holds, and all that the phase ends with."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tasks.core import precision
from tasks.core.averaging import Average, copied
from tasks.core.best import Best, Validation
from tasks.core.model import ImageModel
from tasks.core.objective import Objective
from tasks.core.optimisation import parameter_groups, schedule_of
from tasks.core.phases import FitSettings, Job, NetPhase
from tasks.core.steps import Steps


@dataclass
class Loop:
    model: ImageModel
    objective: Objective
    phase: NetPhase
    job: Job
    settings: FitSettings
    steps: Steps
    anchor: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    average: Average | None
    best: Best = field(default_factory=Best)
    next_epoch: int = 0
    saved_epoch: int = 0  # of the last checkpoint; 0 = none
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        patience = self.phase.patience
        return self.next_epoch == self.phase.n_epochs or (patience is not None and self.best.n_since >= patience)

    @property
    def learning(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    @property
    def lr(self) -> float:
        """Of the head and the last block."""
        return max(group["lr"] for group in self.optimizer.param_groups)

    def note_validation(self, found: Validation) -> None:
        """To be called while the model holds the weights that were measured."""
        if self.phase.patience is not None:
            self.best.see(self.next_epoch, found, copied(self.model))

    def end(self) -> None:
        """The model gets the weights that the phase ends with: the best validation's, else the average, else the last."""
        if self.best.weights:
            self.model.load_state_dict(self.best.weights)
        elif self.average is not None:
            self.model.load_state_dict(self.average.weights)

    def told_end(self) -> str:
        """Why the phase is over and whose weights it ends with, where that is not plain."""
        if self.phase.patience is None:
            return ""
        if not self.best.epoch:
            return "no validation images: the patience is not used"
        why = (
            "" if self.next_epoch == self.phase.n_epochs else f"{self.best.n_since} validations without a better one; "
        )
        return f"{why}ends with the weights of epoch {self.best.epoch}"

    def state(self) -> dict[str, Any]:
        schedule = {k: v for k, v in self.schedule.state_dict().items() if isinstance(v, int | float | bool | list)}
        extra = self.objective.extra()
        return {
            "model": self.model.state_dict(),
            "extra": None if extra is None else extra.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": schedule,
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else vars(self.average),
            "best": vars(self.best),
            "next_epoch": self.next_epoch,
            "history": self.history,
        }

    def load(self, state: dict[str, Any]) -> None:
        """What `state` gave, its tensors on the CPU: AdamW counts its steps there, and would else wait for the GPU each time."""
        self.model.load_state_dict(state["model"])
        if (extra := self.objective.extra()) is not None:
            extra.load_state_dict(state["extra"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load(state["average"])
        self.best = Best(**state["best"])
        self.next_epoch, self.history = state["next_epoch"], state["history"]


def new_loop(
    model: ImageModel,
    objective: Objective,
    phase: NetPhase,
    job: Job,
    settings: FitSettings,
    address: tuple[object, ...],
) -> Loop:
    """Before its first step. The objective's own parameters and buffers go to the device. ValueError as Steps raises it."""
    steps = Steps(job, settings, address, wants_plain=objective.wants_plain)
    extra = objective.extra()
    if extra is not None:
        extra.to(settings.device)
    optimizer = torch.optim.AdamW(parameter_groups(model, phase, settings.weight_decay, extra))
    return Loop(
        model=model,
        objective=objective,
        phase=phase,
        job=job,
        settings=settings,
        steps=steps,
        anchor=(job.anchor or copied(model)) if settings.l2_sp else {},
        optimizer=optimizer,
        schedule=schedule_of(optimizer, phase, steps.n_per_epoch * phase.n_epochs),
        scaler=precision.grad_scaler(settings.device, settings.precision),
        average=None if settings.ema_decay is None else Average(settings.ema_decay, copied(model)),
    )
