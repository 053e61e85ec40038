"""Both domains of a step: what the network makes of them, and the loss of the labelled one.

Axes: N labelled images, U unlabelled target images, C classes, D features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tasks.core.adaptation.adabn import statistics_kept
from tasks.core.model import ImageModel
from tasks.core.objective import Batch


@dataclass(frozen=True)
class TwoDomains:
    """float32 whatever the precision of the network: the losses on them are small differences of large sums."""

    source_ND: Tensor
    source_NC: Tensor  # logits
    target_UD: Tensor
    target_UC: Tensor  # logits


@dataclass(frozen=True)
class Labels:
    """Labels of the job's images in the job's order; -1 is not allowed."""

    labels_N: Tensor
    smoothing: float

    def loss(self, logits_NC: Tensor, indices: list[int]) -> Tensor:
        wanted = self.labels_N[indices].to(logits_NC.device)
        return cross_entropy(logits_NC.float(), wanted, label_smoothing=self.smoothing)


def see_both(model: ImageModel, batch: Batch) -> TwoDomains:
    """Features and logits of both domains, each in a forward pass of its own.

    BatchNorm in train mode so normalises each domain by its own statistics, and only the target's are kept for later:
    the network is going to be used on target images, which then meet the statistics that it was trained with. Mean
    target accuracy of four methods on four shifts of PACS: .659; keeping both domains' .636; one joint pass .595.
    """
    assert batch.u_NCHW is not None, "the job has no unlabelled images"
    with statistics_kept(model):
        source_ND = model.features(batch.x_NCHW)
        source_NC = model.head(source_ND)
    target_UD = model.features(batch.u_NCHW)
    target_UC = model.head(target_UD)
    return TwoDomains(source_ND.float(), source_NC.float(), target_UD.float(), target_UC.float())


def in_float32(like: Tensor) -> torch.autocast:
    """A context in which matrix products stay 32-bit, also where the step runs in half precision."""
    return torch.autocast(like.device.type, enabled=False)
