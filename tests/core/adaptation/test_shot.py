"""SHOT: losses and pseudo-labels worked out by hand, and a head that stays what it was."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tasks.core.adaptation.shot import Shot, centroid_labels, information_loss, used_classes
from tasks.core.batches import ImageList
from tasks.core.images import ImageFiles
from tasks.core.model import ImageModel, SmallResNet, split_head
from tasks.core.objective import Batch
from tasks.core.phases import FitSettings, Job, NetPhase
from tasks.core.training import fit_phase, probabilities

SETTINGS = FitSettings(
    batch_size=6, weight_decay=0.01, evaluate_every=1, seed=0, device="cpu", ema_decay=None, l2_sp=0, dropout=0,
    precision="float32", compile=False, accumulate=1,
)  # fmt: skip
PHASE = NetPhase("backbone", 8, 0.01, 1.0, "train", "one_cycle", 0.3, None)


def double(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.double)


def small_model() -> ImageModel:
    torch.manual_seed(0)
    return split_head(SmallResNet(3, width=4), 3)


def shot(images: ImageList, prior: list[float] | None = None) -> Shot:
    return Shot(images, 5, "cpu", 0.3, None if prior is None else torch.tensor(prior))


def loss_by_hand(logits_NC: Tensor) -> float:
    return float(information_loss(logits_NC.double()))


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


def test_a_prior_takes_the_place_of_an_even_spread() -> None:
    # conditional entropy of (.9, .1) is .325083; mean p is (.9, .1) as well
    logits = double([[0.9, 0.1], [0.9, 0.1]]).log()
    expected = 0.9 * math.log(0.9 / 0.75) + 0.1 * math.log(0.1 / 0.25)
    assert float(information_loss(logits, torch.tensor([0.75, 0.25]))) == pytest.approx(0.325083 + expected, abs=1e-6)
    assert float(information_loss(logits, torch.tensor([0.9, 0.1]))) == pytest.approx(0.325083, abs=1e-6)
    even = float(information_loss(logits, torch.tensor([0.5, 0.5])))
    assert even == pytest.approx(float(information_loss(logits)) + math.log(2), abs=1e-6)


def test_a_class_that_the_prior_leaves_nothing_is_granted_a_tenth_of_an_even_share() -> None:
    # (1, 0) -> (1, .05) / 1.05
    logits = double([[0.6, 0.4]]).log()
    entropy = -0.6 * math.log(0.6) - 0.4 * math.log(0.4)
    divergence = 0.6 * math.log(0.6 * 1.05) + 0.4 * math.log(0.4 * 1.05 / 0.05)
    assert float(information_loss(logits, torch.tensor([1.0, 0.0]))) == pytest.approx(entropy + divergence, abs=1e-6)


def test_used_classes_counts_what_predictions_spread_over() -> None:
    assert float(used_classes(double([[100, 0, 0], [0, 100, 0], [0, 0, 100]]))) == pytest.approx(3)
    assert float(used_classes(double([[100, 0, 0]] * 3))) == pytest.approx(1)


def test_pseudo_labels_come_from_plain_images_and_the_present_network(images: ImageList) -> None:
    model, method = small_model(), shot(images)
    method.before_epoch(model.train(), 0)
    model.eval()
    with torch.no_grad():
        features = model.features(images.batch(range(18))).double()
        probs = torch.from_numpy(probabilities(model, images, 5, "cpu"))
    assert method.labels_N.tolist() == centroid_labels(features, probs).tolist()


def test_the_loss_joins_information_and_pseudo_labels(images: ImageList) -> None:
    model, method = small_model().eval(), shot(images)
    method.before_epoch(model, 0)
    method.labels_N = torch.arange(18) % 3
    x_NCHW = images.batch([4, 9, 11])
    found = method.loss(model, Batch(x_NCHW, [4, 9, 11], ()), 0.0)
    logits = model(x_NCHW).detach()
    pseudo = -(logits.log_softmax(1)[0, 1] + logits.log_softmax(1)[1, 0] + logits.log_softmax(1)[2, 2]) / 3
    assert float(found.detach()) == pytest.approx(loss_by_hand(logits) + 0.3 * float(pseudo), abs=1e-5)
    assert method.figures() == pytest.approx({"used_classes": float(used_classes(logits))})
    assert method.figures() == {}


def test_the_prior_reaches_the_loss(images: ImageList) -> None:
    model, batch = small_model().eval(), Batch(images.batch(range(6)), list(range(6)), ())
    losses = []
    for prior in (None, [1 / 3] * 3, [0.8, 0.1, 0.1]):
        method = shot(images, prior)
        method.before_epoch(model, 0)
        losses.append(float(method.loss(model, batch, 0.0).detach()))
    assert losses[1] - losses[0] == pytest.approx(math.log(3), abs=1e-5)
    assert abs(losses[2] - losses[1]) > 0.01


def trained(images: ImageList, folder: Path) -> ImageModel:
    model = small_model()
    job = Job("shot", images, images, lambda image, _id, epoch: np.roll(image, epoch, 0), folder)
    fit_phase(model, PHASE, job=job, settings=SETTINGS, objective=shot(images))
    return model


def test_the_head_stays_and_the_backbone_learns(images: ImageList, tmp_path: Path) -> None:
    untouched = small_model()
    before = loss_by_hand(torch.from_numpy(probabilities(untouched, images, 6, "cpu")).log())
    model = trained(images, tmp_path)
    after = loss_by_hand(torch.from_numpy(probabilities(model, images, 6, "cpu")).log())
    assert torch.equal(model.head.weight, untouched.head.weight)
    assert torch.equal(model.head.bias, untouched.head.bias)
    assert not torch.equal(model.backbone.stem[0].weight, untouched.backbone.stem[0].weight)
    assert after < before


def test_labels_are_not_opened(images: ImageList, tmp_path: Path) -> None:
    """The images of the fixture have none; with wrong ones the network is the same."""
    labelled = ImageList(images.files, images.image_ids, images.paths, (2,) * 18, images.mean, images.std)
    states = [trained(given, tmp_path / str(n)).state_dict() for n, given in enumerate((images, labelled))]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_killed_run_ends_with_the_same_bytes(images: ImageList, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tasks.core.checkpoints.SECONDS_BETWEEN_CHECKPOINTS", 0)
    whole, before = trained(images, tmp_path / "whole"), Shot.before_epoch

    def dying(self: Shot, model: ImageModel, epoch: int) -> None:
        if epoch == 5:
            raise KeyboardInterrupt
        before(self, model, epoch)

    monkeypatch.setattr(Shot, "before_epoch", dying)
    with pytest.raises(KeyboardInterrupt):
        trained(images, tmp_path / "killed")
    monkeypatch.setattr(Shot, "before_epoch", before)
    assert list((tmp_path / "killed").iterdir())
    resumed = trained(images, tmp_path / "killed")
    states = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in states)
