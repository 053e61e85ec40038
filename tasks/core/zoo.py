"""The zoo: candidate networks from a zoo.json, each checked against its sha256 before it is loaded."""

from dataclasses import dataclass

import torch
from torch import nn

from tasks.core.files import file_sha256
from tasks.core.model import ImageModel, load_weights, network, pretrained_head, split_head
from tasks.core.zoo_file import Candidate


@dataclass(frozen=True)
class Pretrained:
    """A loaded candidate: the backbone with a fresh head, and the head it was pretrained with."""

    model: ImageModel
    source_head: nn.Linear


def load_candidate(candidate: Candidate, n_classes: int, head_seed: int) -> Pretrained:
    """The candidate's network with its weights and a fresh head. ValueError where file, hash or shapes don't fit."""
    check_weights(candidate)
    net = network(candidate.architecture, candidate.n_source_classes)
    load_weights(net, candidate.weights_path)
    source_head = pretrained_head(net)
    torch.manual_seed(head_seed)
    model = split_head(net, n_classes)
    if model.head.in_features != candidate.feature_dim:
        raise ValueError(
            f"candidate {candidate.name}: {candidate.architecture} gives {model.head.in_features} features, zoo.json says "
            f"{candidate.feature_dim}; mend feature_dim"
        )
    return Pretrained(model, source_head)


def untrained(candidate: Candidate, n_classes: int, seed: int) -> ImageModel:
    """The same architecture with random weights: the null candidate."""
    torch.manual_seed(seed)
    return split_head(network(candidate.architecture, n_classes), n_classes)


def check_weights(candidate: Candidate) -> None:
    path = candidate.weights_path
    if not path.is_file():
        raise ValueError(
            f"candidate {candidate.name}: the weight file {path} is missing; put it there or mend zoo.json"
        )
    found = file_sha256(path)
    if found != candidate.sha256:
        raise ValueError(
            f"candidate {candidate.name}: {path} has sha256 {found}, zoo.json says {candidate.sha256}; "
            "the file is not the one that was reviewed, so it is not loaded"
        )
