"""What a training step minimises: one class per method, with the state and the extra parameters that belong to it.

Axes: N images, C colour channels, H height, W width.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from tasks.core.model import ImageModel


@dataclass(frozen=True)
class Batch:
    """The images of one step; u: unlabelled target images, where the job has any.

    `address` names the step for everything random in it: (seed, job, phase, epoch, step).
    """

    x_NCHW: Tensor  # the view of the epoch
    indices: list[int]  # into the job's images
    address: tuple[object, ...]
    u_NCHW: Tensor | None = None  # the view of the epoch
    u_plain_NCHW: Tensor | None = None  # the same images as they are; only where the objective wants them
    u_indices: tuple[int, ...] = ()  # into the job's unlabelled images


class Objective:
    """Hooks around a step, of which only `loss` is needed."""

    wants_plain = False  # of the unlabelled images

    def extra(self) -> nn.Module | None:
        """Parameters that are trained with the network and buffers that belong to the method: both are checkpointed."""
        return None

    def before_epoch(self, model: ImageModel, epoch: int) -> None:
        """E.g. new pseudo-labels. Must depend on the model and the epoch only: a resumed run calls it again."""

    def loss(self, model: ImageModel, batch: Batch, progress: float) -> Tensor:
        """A scalar. `progress`: share of the phase's steps that are done, 0..1."""
        raise NotImplementedError

    def after_step(self, model: ImageModel) -> None:
        """E.g. a teacher that follows."""

    def figures(self) -> dict[str, float]:
        """What the history shows of the epoch besides the loss, e.g. the share of images in use; then starts anew."""
        return {}
