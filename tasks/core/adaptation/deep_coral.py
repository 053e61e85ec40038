"""Deep CORAL: the covariance of the logits is the same in both domains.

Sun, Saenko 2016, "Deep CORAL: Correlation Alignment for Deep Domain Adaptation" (eq. 1-3). As there, the covariances are
those of the classifier's outputs, not of the backbone's features: a batch of 64 says little about 1,280 x 1,280 numbers,
and 1 / (4 d²) makes a weight fit one width only. On PACS, at weight 1, 1,280 features left source-only's .531 at .533 and
256 features gave .616 from .553; the logits gave .612 and .630. Where a batch is shared between processes or run in
parts each part is looked at by itself.
Axes: N images, C classes.
"""

from dataclasses import dataclass, field

from torch import Tensor

from tasks.core.adaptation.figures import Figures
from tasks.core.adaptation.two_domains import Labels, in_float32, see_both
from tasks.core.model import ImageModel
from tasks.core.objective import Batch, Objective


@dataclass
class DeepCoral(Objective):
    """Cross-entropy on the labelled images + weight · distance of the covariances."""

    labels: Labels
    weight: float
    _figures: Figures = field(default_factory=Figures)

    def loss(self, model: ImageModel, batch: Batch, progress: float) -> Tensor:
        seen = see_both(model, batch)
        labelled = self.labels.loss(seen.source_NC, batch.indices)
        distance = coral_distance(seen.source_NC, seen.target_UC)
        self._figures.note(labelled_loss=labelled, coral_distance=distance)
        return labelled + self.weight * distance

    def figures(self) -> dict[str, float]:
        return self._figures.taken()


def coral_distance(source_NC: Tensor, target_UC: Tensor) -> Tensor:
    """|cov(source) - cov(target)|² / (4 d²), Frobenius, covariances over n - 1; 0 where a domain shows one image only."""
    if min(len(source_NC), len(target_UC)) < 2:
        return (source_NC.sum() + target_UC.sum()) * 0
    with in_float32(source_NC):
        apart_CC = covariance(source_NC.float()) - covariance(target_UC.float())
        return apart_CC.square().sum() / (4 * source_NC.shape[1] ** 2)


def covariance(x_NC: Tensor) -> Tensor:
    centred_NC = x_NC - x_NC.mean(0)
    return centred_NC.T @ centred_NC / (len(x_NC) - 1)
