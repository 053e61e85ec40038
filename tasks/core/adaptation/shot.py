"""SHOT: source-free adaptation. The source model's head stays; the backbone learns on unlabelled target images.

Liang, Hu, Feng 2020, "Do We Really Need to Access the Source Data?". Ours differs: no extra bottleneck or weight
normalisation (the pretrained network is used as it is), AdamW in place of SGD, augmented views.
Axes: N images, C classes, D features.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from tasks.core.adaptation.figures import Figures
from tasks.core.adaptation.two_domains import in_float32
from tasks.core.batches import ImageList, plain_batches
from tasks.core.model import ImageModel
from tasks.core.objective import Batch, Objective

EMPTY = 1e-8
N_ROUNDS = 2  # once with soft, once with hard assignments
ABSENT_SHARE = 0.1  # of an even share: what a class is granted that the prior leaves less


@dataclass
class Shot(Objective):
    """mean H(p) - H(mean p) + weight · CE(p, pseudo-label): confident on each image, spread over the classes.

    The job's images are the unlabelled target images; no source image and no label is opened. Pseudo-labels are new
    before each epoch, from plain images in eval mode. Spread means evenly, or as `prior_C` says where the target's
    classes are believed to be of unequal size: then KL(mean p || prior) takes the place of -H(mean p).
    """

    images: ImageList
    batch_size: int
    device: str
    pseudo_label_weight: float
    prior_C: Tensor | None
    labels_N: Tensor = field(init=False)
    _figures: Figures = field(default_factory=Figures)

    def before_epoch(self, model: ImageModel, epoch: int) -> None:
        model.eval()
        features, probs = [], []
        with torch.inference_mode():
            for x_NCHW in plain_batches(self.images, self.batch_size):
                f_ND = model.features(x_NCHW.to(self.device))
                features.append(f_ND.double().cpu())
                probs.append(model.head(f_ND).double().softmax(1).cpu())
        self.labels_N = centroid_labels(torch.cat(features), torch.cat(probs))

    def loss(self, model: ImageModel, batch: Batch, progress: float) -> Tensor:
        logits_NC = model(batch.x_NCHW)
        with in_float32(logits_NC):
            logits_NC = logits_NC.float()
            labels = self.labels_N[batch.indices].to(logits_NC.device)
            pseudo = cross_entropy(logits_NC, labels)
            self._figures.note(used_classes=used_classes(logits_NC))
            return information_loss(logits_NC, self.prior_C) + self.pseudo_label_weight * pseudo

    def figures(self) -> dict[str, float]:
        """used_classes: how many classes the predictions of a batch spread over; 1 = all images in one class."""
        return self._figures.taken()


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


def information_loss(logits_NC: Tensor, prior_C: Tensor | None = None) -> Tensor:
    """mean H(p_i) - H(mean p), in nats; with a prior, mean H(p_i) + KL(mean p || prior)."""
    log_p_NC = logits_NC.log_softmax(1)
    p_NC = log_p_NC.exp()
    mean_p_C = p_NC.mean(0)
    conditional = -(p_NC * log_p_NC).sum(1).mean()
    marginal = -(mean_p_C * (mean_p_C + float(np.finfo(np.float32).tiny)).log()).sum()
    if prior_C is None:
        return conditional - marginal
    granted_C = prior_C.to(mean_p_C).clamp_min(ABSENT_SHARE / len(mean_p_C))
    return conditional - marginal - (mean_p_C * (granted_C / granted_C.sum()).log()).sum()


def used_classes(logits_NC: Tensor) -> Tensor:
    """exp H(mean p): C where the predictions spread evenly, 1 where they are all of one class."""
    mean_p_C = logits_NC.softmax(1).mean(0)
    return torch.special.entr(mean_p_C).sum().exp()
