"""Training: one phase of a plan, on labelled images, unlabelled ones or both, resumable at every epoch with the same bytes.

Axes: N images, C classes, S steps.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from tqdm import tqdm

from tasks.core import parallel, precision
from tasks.core.adaptation.adabn import adapt_batch_norm
from tasks.core.batches import ImageList, plain_batches
from tasks.core.best import Validation
from tasks.core.checkpoints import Checkpoint
from tasks.core.loop import Loop, new_loop
from tasks.core.model import ImageModel
from tasks.core.objective import Objective
from tasks.core.phases import FitSettings, Job, NetPhase, set_training
from tasks.core.regularisers import l2_sp_penalty
from tasks.core.runtime import address_seed, is_quiet
from tasks.core.steps import Step, on_device

HISTORY_COLUMNS = [
    "model", "phase", "epoch", "loss",
    "lr",  # of the head and the last block at the epoch's first step
    "val_accuracy", "val_loss",  # of the averaged weights, where weights are averaged; the loss in nats
    "figures",  # what the method tells of the epoch: name=value; name=value
    "note",  # of the last row: why it is the last, and whose weights the phase ends with
]  # fmt: skip
TINY = float(np.finfo(float).tiny)


def fit_phase(
    model: ImageModel,
    phase: NetPhase,
    *,
    job: Job,
    settings: FitSettings,
    objective: Objective,
    phase_number: int = 0,
) -> list[dict[str, Any]]:
    """Trains in place and returns the history: a row per epoch, of HISTORY_COLUMNS. A killed run goes on after its checkpoint.

    Only steps and seeds addressed by (job, phase, epoch) are random. The objective must be new, or as the phase before
    left it: its `extra` is restored together with the network. Under torchrun every process calls it and gets the same
    network; with BatchNorm in training the processes' statistics are averaged after each epoch.
    ValueError where the loss stops being a number, memory runs out, or the job lacks what the phase asks for.
    """
    checkpoint = Checkpoint(job.checkpoint_folder / f"{job.name}.{phase_number}.pt")
    if phase.batch_norm == "adapted" and not checkpoint.path.exists():
        _adapt_batch_norm(model, job, settings)
    if settings.device.startswith("cuda"):
        model.to(memory_format=torch.channels_last)
    loop = new_loop(model, objective, phase, job, settings, (settings.seed, job.name, phase_number))
    checkpoint.restore(loop)
    if settings.compile:
        model.backbone.compile()
    with _dropout_before(model.head, settings.dropout), _progress(loop) as progress:
        while not loop.is_over:
            row = {"model": job.name, "phase": f"{phase_number}-{phase.trains}", **_epoch(loop)}
            loop.history.append(row)
            if loop.is_over and (note := loop.told_end()):
                row["note"] = note
            checkpoint.save(loop, at_once=loop.is_over)
            progress.update()
    loop.end()
    return loop.history


def _adapt_batch_norm(model: ImageModel, job: Job, settings: FitSettings) -> None:
    images = job.adapts_to if job.adapts_to is not None else job.unlabelled
    if images is None:
        raise ValueError(f"{job.name}: batch_norm is adapted, which needs unlabelled images; set it to train or frozen")
    if not adapt_batch_norm(model, images, settings.batch_size, settings.device):
        raise ValueError(f"{job.name}: batch_norm is adapted and the network has no BatchNorm; set it to train")


@contextmanager
def _dropout_before(head: nn.Linear, share: float) -> Iterator[None]:
    """Within it the head in train mode sees features of which a share is dropped; all others are scaled up."""

    def drop(_head: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        return (dropout(given[0], share, head.training),)

    handle = head.register_forward_pre_hook(drop) if share else None
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


def _progress(loop: Loop) -> "tqdm[Any]":
    return tqdm(
        desc=f"{loop.job.name}: {loop.phase.trains}",
        unit="epoch",
        initial=loop.next_epoch,
        total=loop.phase.n_epochs,
        disable=is_quiet() or not parallel.is_first(),
    )


def _epoch(loop: Loop) -> dict[str, Any]:
    """What the history tells of the next epoch, which is over then."""
    epoch, job, every = loop.next_epoch, loop.job, loop.settings.evaluate_every
    loop.objective.before_epoch(loop.model, epoch)
    torch.manual_seed(address_seed(*loop.steps.address, epoch) + parallel.rank())
    set_training(loop.model, loop.phase)
    row: dict[str, Any] = {"epoch": epoch + 1, "lr": float(f"{loop.lr:.6g}")}
    row["loss"] = round(_mean_loss(loop, [take_step(loop, step) for step in loop.steps.of_epoch(epoch)]), 6)
    for module in (loop.model, loop.objective.extra()):
        if module is not None:
            parallel.average_buffers(module)
    if loop.average is not None:  # it followed statistics that differed from process to process
        parallel.average(loop.average.weights.values())
    if figures := loop.objective.figures():
        row["figures"] = "; ".join(f"{name}={value:.6g}" for name, value in figures.items())
    loop.next_epoch = epoch + 1
    if len(job.validation) and (loop.next_epoch == loop.phase.n_epochs or loop.next_epoch % every == 0):
        row |= _validate(loop).row()
    return row


def take_step(loop: Loop, step: Step) -> Tensor:
    """The loss of the step, as this process's share of it. ValueError where memory runs out."""
    settings = loop.settings
    try:
        loss = _gradients(loop, step)
        parallel.average_gradients(loop.learning, step.share)
        loop.scaler.step(loop.optimizer)
        loop.scaler.update()
        loop.schedule.step()
        loop.objective.after_step(loop.model)
        if loop.average is not None:
            loop.average.follow(loop.model)
    except (RuntimeError, MemoryError) as error:
        if not precision.is_out_of_memory(error):
            raise
        where = f"{loop.job.name}, phase {loop.phase.trains}"
        told = precision.out_of_memory_message(settings.batch_size, where, settings.accumulate)
        raise ValueError(told) from error
    return loss * step.share


def _gradients(loop: Loop, step: Step) -> Tensor:
    """The loss on the images that this process holds, whose gradients the parameters have then."""
    settings, n_steps = loop.settings, loop.steps.n_per_epoch
    progress = (loop.next_epoch * n_steps + step.number) / (n_steps * loop.phase.n_epochs)
    total = torch.zeros((), device=settings.device)
    loop.optimizer.zero_grad(set_to_none=True)
    for part, (batch, share) in enumerate(step.parts):
        with precision.autocast(settings.device, settings.precision):
            loss = loop.objective.loss(loop.model, on_device(batch, settings.device), progress) * share
        if settings.l2_sp and part == 0:
            loss = loss + settings.l2_sp * l2_sp_penalty(loop.model, loop.anchor)
        loop.scaler.scale(loss).backward()
        total += loss.detach()
    return total


def _mean_loss(loop: Loop, losses: list[Tensor]) -> float:
    """Of an epoch's steps. ValueError where one is no number: they are looked at together, so that no GPU waits for each."""
    losses_S = parallel.summed(torch.stack(losses).double()).cpu().numpy()
    if not np.isfinite(losses_S).all():
        kept = (
            f"the checkpoint of epoch {loop.saved_epoch} is kept" if loop.saved_epoch else "there is no checkpoint yet"
        )
        step = int(np.flatnonzero(~np.isfinite(losses_S))[0])
        raise ValueError(
            f"{loop.job.name}: the loss is {losses_S[step]} in phase {loop.phase.trains}, epoch {loop.next_epoch + 1}, "
            f"step {step + 1} of {len(losses)}; lower lr in params.yaml; {kept}"
        )
    return float(np.mean(losses_S))


def _validate(loop: Loop) -> Validation:
    """Noted for the patience; of the averaged weights where there are any."""
    with loop.average.in_place_of(loop.model) if loop.average is not None else nullcontext():
        found = validation(loop.model, loop.job.validation, loop.settings)
        # the same in each process, else one of them might stop before the others
        both = torch.tensor([found.accuracy, found.log_loss], dtype=torch.double)
        found = Validation(*(parallel.summed(both) / parallel.n_processes()).tolist())
        loop.note_validation(found)
    return found


def validation(model: ImageModel, images: ImageList, settings: FitSettings) -> Validation:
    """On the plain images, all of them labelled."""
    probs_NC = probabilities(model, images, settings.batch_size, settings.device)
    labels_N = np.array(images.labels)
    p_N = probs_NC[np.arange(len(images)), labels_N]
    return Validation(float((probs_NC.argmax(1) == labels_N).mean()), float(-np.log(p_N.clip(min=TINY)).mean()))


def probabilities(model: ImageModel, images: ImageList, batch_size: int, device: str) -> np.ndarray:
    """(N, C) float64 softmax probabilities of the plain images; every part keeps its mode."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    parts = []
    with torch.inference_mode():
        for x_NCHW in plain_batches(images, batch_size):
            parts.append(model(x_NCHW.to(device)).double().softmax(1).cpu().numpy())
    for part, was_training in modes:
        part.training = was_training
    return np.concatenate(parts) if parts else np.zeros((0, model.head.out_features))


def accuracy(model: ImageModel, images: ImageList, settings: FitSettings) -> float:
    return validation(model, images, settings).accuracy
