"""SHOT: losses and pseudo-labels worked out by hand, and a head that stays what it was."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tasks.core import training
from tasks.core.batches import ImageList
from tasks.core.images import ImageFiles
from tasks.core.model import ImageModel, SmallResNet, split_head
from tasks.core.shot import PseudoLabels, centroid_labels, information_loss, shot_loss
from tasks.core.training import FitSettings, Job, NetPhase, fit_phase, probabilities

SETTINGS = FitSettings(batch_size=6, label_smoothing=0.1, weight_decay=0.01, evaluate_every=1, seed=0, device="cpu")
PHASE = NetPhase("backbone", 3, 0.01, 1.0, "train")


def double(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.double)


def small_model() -> ImageModel:
    torch.manual_seed(0)
    return split_head(SmallResNet(3, width=4), 3)


@pytest.fixture
def images(tmp_path: Path) -> ImageList:
    rng = np.random.default_rng(0)
    paths = [f"{k}.png" for k in range(18)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / path)
    ids = tuple(f"id{k}" for k in range(18))
    return ImageList(ImageFiles(tmp_path, 16), ids, tuple(paths), (-1,) * 18, (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize(
    ("probs", "expected"),
    [
        ([[0.9, 0.1], [0.1, 0.9]], 0.325083 - math.log(2)),  # sure and spread
        ([[0.9, 0.1], [0.9, 0.1]], 0.0),  # sure, but all of one class
        ([[0.5, 0.5], [0.5, 0.5]], 0.0),  # spread, but not sure
        ([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]], 0.801819 - 1.095273),  # mean p: 1/3, 11/30, 3/10
    ],
)
def test_information_loss_by_hand(probs: list[list[float]], expected: float) -> None:
    assert float(information_loss(double(probs).log() + 3)) == pytest.approx(expected, abs=1e-6)


def test_information_loss_bears_certainty() -> None:
    logits = torch.tensor([[1000.0, 0.0, 0.0], [0.0, 1000.0, 0.0]], requires_grad=True)
    loss = information_loss(logits)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-math.log(2), abs=1e-6)
    assert torch.isfinite(logits.grad).all()


def test_the_nearer_centroid_overrules_the_networks_guess() -> None:
    # with the 1 appended and normalised: (.949, .316), (-.949, .316), (.447, .894)
    # soft centroids point to (.812, .584) and (-.499, .867): the third image's cosines are .885 and .552
    features = double([[3.0], [-3.0], [0.5]])
    probs = double([[0.9, 0.1], [0.1, 0.9], [0.4, 0.6]])
    assert centroid_labels(features, probs).tolist() == [0, 1, 0]


def test_a_class_that_nobody_guesses_is_never_assigned() -> None:
    generator = torch.Generator().manual_seed(0)
    probs = torch.rand(40, 4, generator=generator, dtype=torch.double)
    probs[:, 2] = 0
    probs[:, 2] = probs.max(1).values * 0.99  # always second
    assert 2 not in centroid_labels(torch.randn(40, 3, generator=generator, dtype=torch.double), probs).tolist()


def test_a_class_that_lost_all_its_images_is_not_assigned_again() -> None:
    # after the first round class 2 holds no image, so its centroid is the zero vector, of likeness 0 to everything:
    # the last image, of negative likeness to the two classes that hold images, must still get one of them
    features = double([[-4, 1], [2, 4], [-3, 1], [0, 0], [0, 3], [0, -6]])
    probs = double([
        [0.018, 0.940, 0.042], [0.639, 0.120, 0.241], [0.033, 0.054, 0.913],
        [0.510, 0.320, 0.170], [0.352, 0.360, 0.288], [0.576, 0.096, 0.328],
    ])  # fmt: skip
    assert 2 not in centroid_labels(features, probs).tolist()


def test_pseudo_labels_come_from_plain_images_and_the_present_network(images: ImageList) -> None:
    model = small_model()
    pseudo = PseudoLabels.none_yet(images, 5, "cpu")
    pseudo.refresh(model, 0)
    model.eval()
    with torch.no_grad():
        features = model.features(images.batch(range(18))).double()
        probs = torch.from_numpy(probabilities(model, images, 5, "cpu"))
    assert pseudo.labels_N.tolist() == centroid_labels(features, probs).tolist()


def test_the_head_stays_and_the_backbone_learns(images: ImageList, tmp_path: Path) -> None:
    model, untouched = small_model(), small_model()
    pseudo = PseudoLabels.none_yet(images, 6, "cpu")
    job = Job("shot", images, images, lambda image, _id, _epoch: image, tmp_path)
    before = float(information_loss(torch.from_numpy(probabilities(model, images, 6, "cpu")).log()))
    how = {"job": job, "settings": SETTINGS, "loss_of": shot_loss(pseudo, 0.3), "before_epoch": pseudo.refresh}
    fit_phase(model, NetPhase("backbone", 8, 0.01, 1.0, "train"), **how)
    after = float(information_loss(torch.from_numpy(probabilities(model, images, 6, "cpu")).log()))
    assert torch.equal(model.head.weight, untouched.head.weight)
    assert torch.equal(model.head.bias, untouched.head.bias)
    assert not torch.equal(model.backbone.stem[0].weight, untouched.backbone.stem[0].weight)
    assert after < before


def test_a_killed_run_ends_with_the_same_bytes(images: ImageList, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", 0)

    def train(folder: Path, killed: int | None) -> ImageModel:
        model, pseudo = small_model(), PseudoLabels.none_yet(images, 6, "cpu")

        def before(network: ImageModel, epoch: int) -> None:
            if epoch == killed:
                raise KeyboardInterrupt
            pseudo.refresh(network, epoch)

        job = Job("shot", images, images, lambda image, _id, epoch: np.roll(image, epoch, 0), folder)
        fit_phase(model, PHASE, job=job, settings=SETTINGS, loss_of=shot_loss(pseudo, 0.3), before_epoch=before)
        return model

    whole = train(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", 2)
    resumed = train(tmp_path / "killed", None)
    states = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in states)
