"""The zoo: candidate networks from a zoo.json, each checked against its sha256 before it is loaded.

Axes: N images, D features, Z classes of the pretraining.
"""

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tasks.core.bundle import check_bundle
from tasks.core.files import file_sha256
from tasks.core.model import ImageModel, load_weights, network, pretrained_head, split_head
from tasks.core.runtime import address_seed
from tasks.core.zoo_file import Candidate


@dataclass(frozen=True)
class Pretrained:
    """A loaded candidate: the backbone with a fresh head, and the head it was pretrained with (scratch has none)."""

    model: ImageModel
    source_head: nn.Linear | None


def load_candidate(candidate: Candidate, n_classes: int, head_seed: int) -> Pretrained:
    """The candidate's network with its weights and a fresh head. ValueError where file, hash, shapes or values are wrong.

    From-scratch weights depend on the candidate's seed alone, not on the number of classes.
    """
    check_weights(candidate)
    backbone, source_head = _from_scratch(candidate) if candidate.is_scratch else _from_file(candidate)
    torch.manual_seed(head_seed)
    model = ImageModel(backbone, nn.Linear(_n_features(backbone, source_head, candidate), n_classes))
    return Pretrained(model, None if candidate.is_scratch else source_head)


def _from_file(candidate: Candidate) -> tuple[nn.Module, nn.Linear]:
    """Backbone and head as stored: a bundle holds both apart, another file the network as its library builds it."""
    net = network(candidate.architecture, candidate.n_source_classes)
    path = candidate.weights_path
    assert path is not None, "from scratch there is no file"
    if candidate.bundle is not None:
        model = split_head(net, candidate.n_source_classes)
        load_weights(model, path)
        check_finite(model, str(path))
        return model.backbone, model.head
    load_weights(net, path)
    check_finite(net, str(path))
    head = pretrained_head(net)
    return split_head(net, 1).backbone, head


def _from_scratch(candidate: Candidate) -> tuple[nn.Module, nn.Linear]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(address_seed(candidate.seed, "scratch", candidate.architecture))
        model = split_head(network(candidate.architecture, 2), 2)  # always 2: the head's size shifts other draws
    return model.backbone, model.head


def _n_features(backbone: nn.Module, head: nn.Linear, candidate: Candidate) -> int:
    if head.in_features != candidate.feature_dim:
        raise ValueError(
            f"candidate {candidate.name}: {candidate.architecture} gives {head.in_features} features, zoo.json says "
            f"{candidate.feature_dim}; mend feature_dim"
        )
    return head.in_features


def source_probabilities(pretrained: Pretrained, features_ND: np.ndarray) -> np.ndarray | None:
    """(N, Z) float64: what the pretrained head makes of the features; None where the candidate has no such head."""
    head = pretrained.source_head
    if head is None:
        return None
    if features_ND.ndim != 2 or features_ND.shape[1] != head.in_features:
        raise ValueError(f"features have the shape {features_ND.shape}, the source head takes (N, {head.in_features})")
    with torch.inference_mode():
        logits_NZ = deepcopy(head).cpu().double()(torch.from_numpy(np.asarray(features_ND, np.float64)))
        probabilities: np.ndarray = logits_NZ.softmax(1).numpy()
    return probabilities


def untrained(candidate: Candidate, n_classes: int, seed: int) -> ImageModel:
    """The same architecture with random weights: the null candidate."""
    torch.manual_seed(seed)
    return split_head(network(candidate.architecture, n_classes), n_classes)


def check_weights(candidate: Candidate) -> None:
    """Nothing. ValueError where the file is missing or not the one that was reviewed; from scratch there is none."""
    path = candidate.weights_path
    if path is None:
        return
    if not path.is_file():
        raise ValueError(
            f"candidate {candidate.name}: the weight file {path} is missing; put it there (sha256 {candidate.sha256}), run "
            f"`acclimate zoo pull {candidate.name}` if zoo.json says where it comes from, or mend zoo.json"
        )
    if candidate.bundle is not None:
        check_bundle(candidate.bundle)
    found = file_sha256(path)
    if found != candidate.sha256:
        raise ValueError(
            f"candidate {candidate.name}: {path} has sha256 {found}, zoo.json says {candidate.sha256}; "
            "the file is not the one that was reviewed, so it is not loaded"
        )


def check_finite(module: nn.Module, where: str) -> None:
    """Nothing. ValueError names the first tensors that hold NaN or infinity."""
    bad = [name for name, t in module.state_dict().items() if t.is_floating_point() and not t.isfinite().all()]
    if bad:
        shown = ", ".join(bad[:3]) + (", …" if len(bad) > 3 else "")
        raise ValueError(f"{where}: {len(bad)} tensors hold NaN or infinity ({shown}); take another weight file")
