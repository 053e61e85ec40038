"""FixMatch with a threshold for each class: what a teacher is sure of in a plain image is the label of its strong view.

Sohn et al. 2020, "FixMatch"; thresholds of Zhang et al. 2021, "FlexMatch" (eq. 5-7, convex mapping); the teacher that
follows the network is Tarvainen, Valpola 2017, "Mean teachers". Ours differs: the weak view is the plain image, and the
teacher judges it in eval mode, so that no pass but the training one moves BatchNorm's statistics. FlexMatch starts with
thresholds of 0 (images that nothing was sure of count as one more class): from a network that already knows the source
that takes its errors for labels. So they don't count here, and no threshold is below one half. Digits with 3 labels a
class, mean of 8 runs: .974; one fixed threshold .934; FlexMatch as published .77 (one run); labels alone .914.
Axes: N labelled images, U unlabelled target images of a batch, M of the job, C classes.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tasks.core.adaptation.adabn import statistics_kept
from tasks.core.adaptation.figures import Figures
from tasks.core.adaptation.two_domains import Labels, in_float32
from tasks.core.model import ImageModel
from tasks.core.objective import Batch, Objective

NEVER_SURE = -1
LIKELY = 0.5  # a class that is less likely than all others together is no label


class Teacher(nn.Module):
    """The averaged network, how many steps it has followed, and the class it was last sure of for each image."""

    followed: Tensor
    sure_of_M: Tensor

    def __init__(self, model: ImageModel, n_unlabelled: int) -> None:
        super().__init__()
        self.model = deepcopy(model).requires_grad_(False).eval()
        device = model.head.weight.device
        self.register_buffer("followed", torch.zeros((), dtype=torch.long, device=device))
        self.register_buffer("sure_of_M", torch.full((n_unlabelled,), NEVER_SURE, device=device))

    def train(self, mode: bool = True) -> "Teacher":
        """Stays in eval mode."""
        return self

    @torch.no_grad()
    def follow(self, model: ImageModel, decay: float) -> None:
        """Weights by exponential average, sooner at the start; BatchNorm's statistics are the network's own."""
        self.followed += 1
        steps = float(self.followed)
        share = min(decay, (1 + steps) / (10 + steps))
        for weight, followed in zip(self.model.parameters(), model.parameters(), strict=True):
            weight.lerp_(followed, 1 - share)
        for statistic, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            statistic.copy_(theirs)


class FixMatch(Objective):
    """Cross-entropy on the labelled images + weight · that of strong views against the teacher's sure classes.

    The labelled images are those of the target, and of the source where the job's list holds them as well. Where processes
    share a batch, the thresholds count the images that the first process was sure of.
    """

    wants_plain = True

    def __init__(
        self, labels: Labels, model: ImageModel, *, n_unlabelled: int, weight: float, threshold: float, decay: float
    ) -> None:
        self.labels = labels
        self.weight = weight
        self.threshold = threshold
        self.decay = decay
        self.teacher = Teacher(model, n_unlabelled)
        self._figures = Figures()

    def extra(self) -> nn.Module:
        return self.teacher

    def before_epoch(self, model: ImageModel, epoch: int) -> None:
        """The teacher starts as the network does, also where that changed since the teacher was made."""
        if self.teacher.followed == 0:
            self.teacher.model.load_state_dict(model.state_dict())

    def loss(self, model: ImageModel, batch: Batch, progress: float) -> Tensor:
        assert batch.u_NCHW is not None
        assert batch.u_plain_NCHW is not None
        wanted_U, is_used_U = self.believed(batch.u_plain_NCHW, batch.u_indices)
        with statistics_kept(model):
            labelled = self.labels.loss(model(batch.x_NCHW), batch.indices)
        strong = masked_cross_entropy(model(batch.u_NCHW), wanted_U, is_used_U)
        self._figures.note(labelled_loss=labelled, strong_loss=strong, used_share=is_used_U.float().mean())
        return labelled + self.weight * strong

    @torch.no_grad()
    def believed(self, plain_NCHW: Tensor, indices: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """The teacher's class of each plain image, and whether it is sure enough for that class."""
        logits_UC = self.teacher.model(plain_NCHW)
        top_U, class_U = logits_UC.float().softmax(1).max(1)
        limits_C = class_thresholds(self.teacher.sure_of_M, logits_UC.shape[1], self.threshold)
        self._figures.note(lowest_threshold=limits_C.min())
        where = torch.tensor(indices, device=class_U.device)
        is_sure_U = top_U >= self.threshold
        self.teacher.sure_of_M[where[is_sure_U]] = class_U[is_sure_U]
        return class_U, top_U >= limits_C[class_U]

    def after_step(self, model: ImageModel) -> None:
        self.teacher.follow(model, self.decay)

    def figures(self) -> dict[str, float]:
        """used_share: of the unlabelled images; below 0.01 the method does nothing."""
        return self._figures.taken()


def class_thresholds(sure_of_M: Tensor, n_classes: int, threshold: float) -> Tensor:
    """(C,) threshold · b / (2 - b), b = a class's count of sure images over the largest such count; never below LIKELY.

    As long as no image is sure each class has the full threshold.
    """
    count_C = torch.bincount(sure_of_M[sure_of_M != NEVER_SURE], minlength=n_classes).double()
    largest = count_C.max()
    learnt_C = torch.where(largest > 0, count_C / largest.clamp_min(1), 1.0)
    return (threshold * learnt_C / (2 - learnt_C)).clamp_min(LIKELY)


def masked_cross_entropy(logits_UC: Tensor, wanted_U: Tensor, is_used_U: Tensor) -> Tensor:
    """Sum over the used images divided by all of them: few sure images weigh little."""
    with in_float32(logits_UC):
        each_U = cross_entropy(logits_UC.float(), wanted_U, reduction="none")
        return (each_U * is_used_U).mean()
