"""SHOT: source-free adaptation. The source model's head stays; the backbone learns on unlabelled target images.

Liang, Hu, Feng 2020, "Do We Really Need to Access the Source Data?". Ours differs: no extra bottleneck or weight
normalisation (the pretrained network is used as it is), AdamW in place of SGD, augmented views.
Axes: N images, C classes, D features.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from tasks.core.batches import ImageList, plain_batches
from tasks.core.model import ImageModel
from tasks.core.training import LossOf

EMPTY = 1e-8
N_ROUNDS = 2  # once with soft, once with hard assignments


@dataclass
class PseudoLabels:
    """The current guess of each unlabelled image's class; refreshed before each epoch from plain images in eval mode."""

    images: ImageList
    batch_size: int
    device: str
    labels_N: Tensor

    @classmethod
    def none_yet(cls, images: ImageList, batch_size: int, device: str) -> "PseudoLabels":
        return cls(images, batch_size, device, torch.zeros(len(images), dtype=torch.long))

    def refresh(self, model: ImageModel, _epoch: int) -> None:
        model.eval()
        features, probs = [], []
        with torch.inference_mode():
            for x_NCHW in plain_batches(self.images, self.batch_size):
                f_ND = model.features(x_NCHW.to(self.device))
                features.append(f_ND.double().cpu())
                probs.append(model.head(f_ND).double().softmax(1).cpu())
        self.labels_N = centroid_labels(torch.cat(features), torch.cat(probs))


def centroid_labels(features_ND: Tensor, probs_NC: Tensor) -> Tensor:
    """(N,) class whose centroid is nearest by cosine: centroids from soft assignments, then once more from hard ones.

    SHOT eq. 4-6: features get a constant 1 appended and are normalised; a class without images is never assigned.
    """
    one = torch.ones(len(features_ND), 1, dtype=features_ND.dtype)
    unit_ND = normalize(torch.cat([features_ND, one], 1))
    weight_NC = probs_NC
    labels_N = probs_NC.argmax(1)
    for _ in range(N_ROUNDS):
        present_C = torch.bincount(labels_N, minlength=probs_NC.shape[1]) > 0
        centroids_CD = weight_NC.T @ unit_ND / (weight_NC.sum(0)[:, None] + EMPTY)
        likeness_NC = unit_ND @ normalize(centroids_CD).T
        labels_N = likeness_NC.masked_fill(~present_C, -torch.inf).argmax(1)
        weight_NC = torch.nn.functional.one_hot(labels_N, probs_NC.shape[1]).to(probs_NC.dtype)
    return labels_N


def shot_loss(pseudo: PseudoLabels, pseudo_label_weight: float) -> LossOf:
    """mean H(p) - H(mean p) + weight · CE(p, pseudo-label): confident on each image, spread over the classes."""

    def loss(model: ImageModel, x_NCHW: Tensor, indices: list[int]) -> Tensor:
        logits_NC = model(x_NCHW)
        labels = pseudo.labels_N[indices].to(logits_NC.device)
        return information_loss(logits_NC) + pseudo_label_weight * cross_entropy(logits_NC, labels)

    return loss


def information_loss(logits_NC: Tensor) -> Tensor:
    """mean H(p_i) - H(mean p), in nats."""
    log_p_NC = logits_NC.log_softmax(1)
    p_NC = log_p_NC.exp()
    mean_p_C = p_NC.mean(0)
    conditional = -(p_NC * log_p_NC).sum(1).mean()
    marginal = -(mean_p_C * (mean_p_C + float(np.finfo(np.float32).tiny)).log()).sum()
    return conditional - marginal
