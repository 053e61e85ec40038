"""Training: what learns, at which rate, and that a killed run ends with the same bytes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from tasks.core import training
from tasks.core.batches import ImageList
from tasks.core.images import ImageFiles
from tasks.core.model import ImageModel, SmallResNet, blocks, network, split_head
from tasks.core.runtime import address_seed
from tasks.core.training import (
    FitSettings,
    Job,
    NetPhase,
    accuracy,
    fit_head,
    fit_phase,
    parameter_groups,
    probabilities,
    set_training,
    smoothed_cross_entropy,
)

SETTINGS = FitSettings(batch_size=8, label_smoothing=0.1, weight_decay=0.05, evaluate_every=2, seed=3, device="cpu")
ARCHITECTURES = ("resnet18", "mobilenet_v2", "efficientnet_b0", "convnext_tiny", "vit_b_16", "swin_t")
N_IMAGES = 17  # with batches of 8 the last one holds a single image


@pytest.fixture
def images(tmp_path: Path) -> ImageList:
    rng, paths = np.random.default_rng(0), [f"{k}.png" for k in range(N_IMAGES)]
    for k, path in enumerate(paths):
        pixels = rng.integers(0, 120, (16, 16, 3), dtype=np.uint8)
        pixels[:, :, k % 2] += 100
        Image.fromarray(pixels).save(tmp_path / path)
    ids, labels = tuple(f"id{k}" for k in range(N_IMAGES)), tuple(k % 2 for k in range(N_IMAGES))
    return ImageList(ImageFiles(tmp_path, 16), ids, tuple(paths), labels, (0.5,) * 3, (0.25,) * 3)


def model_with_dropout() -> ImageModel:
    torch.manual_seed(0)
    model = split_head(SmallResNet(2, width=4), 2)
    model.backbone.layers.append(nn.Dropout(0.5))
    return model


def rolled(image: np.ndarray, image_id: str, epoch: int) -> np.ndarray:
    return np.roll(image, address_seed(image_id, epoch) % 16, axis=1)


def fit(model: ImageModel, phase: NetPhase, images: ImageList, folder: Path, **changed) -> list[dict]:
    how = {
        "job": Job("run", images, images, rolled, folder),
        "settings": SETTINGS,
        "loss_of": smoothed_cross_entropy(images, 0.1),
    }
    return fit_phase(model, phase, **(how | changed))


def state(module: nn.Module) -> dict[str, bytes]:
    return {name: t.detach().contiguous().numpy().tobytes() for name, t in module.state_dict().items()}


# the head


@pytest.mark.parametrize(
    ("labels", "n_classes"),
    [([0, 1, 2, 3], 4), ([0, 1], 2), ([0, 2], 3), ([1, 4, 5], 7), ([2, 0], 4)],
    ids=["all", "two", "two of three", "gaps", "two of four"],
)
def test_the_head_equals_scikit_learn_on_scaled_features(labels: list[int], n_classes: int) -> None:
    rng = np.random.default_rng(1)
    y_N = np.array(labels)[rng.integers(0, len(labels), 60)]
    x_ND = (rng.normal(2, [1, 0.1, 5, 2], (60, 4)) + np.eye(8)[y_N, :4] * 2).astype(np.float32)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=1000)).fit(x_ND, y_N)
    model = ImageModel(nn.Identity(), nn.Linear(4, n_classes))
    fit_head(model, x_ND, y_N, 0.5)
    with torch.no_grad():
        probs = model(torch.from_numpy(x_ND)).double().softmax(1).numpy()
    assert probs.argmax(1).tolist() == probe.predict(x_ND).tolist()  # a class that never occurs is never guessed
    present = probs[:, sorted(labels)]
    assert present / present.sum(1, keepdims=True) == pytest.approx(probe.predict_proba(x_ND), abs=1e-5)


def test_classes_that_never_occur_get_no_probability() -> None:
    rng = np.random.default_rng(2)
    x_ND, y_N = rng.normal(size=(60, 4)).astype(np.float32), rng.integers(0, 2, 60)
    model = ImageModel(nn.Identity(), nn.Linear(4, 10))
    fit_head(model, x_ND, y_N, 0.01)
    with torch.no_grad():
        probs = model(torch.from_numpy(x_ND)).softmax(1)
    assert float(probs[:, 2:].sum(1).max()) < 0.01


def test_a_constant_feature_does_no_harm() -> None:
    x_ND = np.array([[5.0, 0], [5, 1], [5, 2], [5, 3]], np.float32)
    model = ImageModel(nn.Identity(), nn.Linear(2, 2))
    fit_head(model, x_ND, np.array([0, 0, 1, 1]), 10.0)
    assert torch.isfinite(model.head.weight).all()
    assert model(torch.from_numpy(x_ND)).argmax(1).tolist() == [0, 0, 1, 1]


def test_a_head_needs_two_classes() -> None:
    with pytest.raises(ValueError, match="labelled images of at least two classes"):
        fit_head(ImageModel(nn.Identity(), nn.Linear(2, 3)), np.eye(2), np.array([1, 1]), 1.0)


# what learns, at which rate


@pytest.mark.parametrize("trains", ["all", "backbone", "last_block"])
@pytest.mark.parametrize("architecture", ["resnet18", "convnext_tiny", "vit_b_16"])
def test_each_trained_parameter_stands_in_one_group(architecture: str, trains: str) -> None:
    with torch.device("meta"):
        model = split_head(network(f"torchvision.{architecture}", 5), 5)
    groups = parameter_groups(model, NetPhase(trains, 1, 0.1, 0.5, "train"), 0.05)
    grouped = [id(p) for group in groups for p in group["params"]]
    expected = {
        "all": list(model.parameters()),
        "backbone": list(model.backbone.parameters()),
        "last_block": [*blocks(model.backbone)[-1][1].parameters(), *model.head.parameters()],
    }[trains]
    assert sorted(grouped) == sorted(id(p) for p in expected)
    assert {id(p) for p in model.parameters() if p.requires_grad} == set(grouped)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rates_fall_with_depth_and_only_matrices_decay(architecture: str) -> None:
    with torch.device("meta"):
        model = split_head(network(f"torchvision.{architecture}", 5), 5)
    groups = parameter_groups(model, NetPhase("all", 1, 0.1, 0.5, "train"), 0.05)
    rate = {id(p): g["lr"] for g in groups for p in g["params"]}
    parts = blocks(model.backbone)
    for height, (_, block) in enumerate(parts):
        assert {rate[id(p)] for p in block.parameters()} == {0.1 * 0.5 ** (len(parts) - 1 - height)}
    assert {rate[id(p)] for p in model.head.parameters()} == {0.1}
    outside = [rate[id(p)] for p in model.backbone.parameters()]
    assert max(outside) == 0.1
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    attentions = [m for m in model.modules() if isinstance(m, nn.MultiheadAttention)]
    matrices = {id(m.weight) for m in layers} | {id(m.in_proj_weight) for m in attentions}
    decayed = {id(p) for g in groups if g["weight_decay"] == 0.05 for p in g["params"]}
    assert decayed == matrices  # not norms, biases, layer scales, class tokens, positions or bias tables
    assert {g["weight_decay"] for g in groups} == {0, 0.05}


def test_a_later_phase_frees_what_an_earlier_one_froze() -> None:
    model = model_with_dropout()
    parameter_groups(model, NetPhase("last_block", 1, 0.1, 1.0, "train"), 0.0)
    parameter_groups(model, NetPhase("all", 1, 0.1, 1.0, "train"), 0.0)
    assert all(p.requires_grad for p in model.parameters())


def test_frozen_batch_norm_keeps_its_statistics_and_still_learns(images: ImageList, tmp_path: Path) -> None:
    model, before = model_with_dropout(), state(model_with_dropout())
    fit(model, NetPhase("all", 2, 0.01, 1.0, "frozen"), images, tmp_path)
    after = state(model)
    statistics = [name for name in after if "running" in name or "num_batches" in name]
    assert len(statistics) == 36  # three in each of 12 norms: 1 stem, 8 in blocks, 3 in shortcuts
    assert all(after[name] == before[name] for name in statistics)
    assert all(after[name] != before[name] for name in after if name.endswith("weight"))


def test_batch_norm_in_training_moves_its_statistics(images: ImageList, tmp_path: Path) -> None:
    model, before = model_with_dropout(), state(model_with_dropout())
    fit(model, NetPhase("all", 1, 0.01, 1.0, "train"), images, tmp_path)
    assert all(value != before[name] for name, value in state(model).items() if "running" in name)


def test_last_block_leaves_all_below_it_byte_identical(images: ImageList, tmp_path: Path) -> None:
    model, before = model_with_dropout(), model_with_dropout()
    fit(model, NetPhase("last_block", 2, 0.01, 1.0, "train"), images, tmp_path)
    pairs = list(zip(blocks(model.backbone), blocks(before.backbone), strict=True))
    assert len(pairs) == 5
    assert all(state(now) == state(then) for (_, now), (_, then) in pairs[:-1])
    last_now, last_then = (state(block) for _, block in pairs[-1])
    assert all(last_now[name] != last_then[name] for name in last_now)
    assert state(model.head) != state(before.head)


def test_parts_that_do_not_learn_stay_in_eval_mode() -> None:
    model = model_with_dropout()
    set_training(model, NetPhase("last_block", 1, 0.01, 1.0, "train"))
    *below, (_, last) = blocks(model.backbone)
    assert not any(module.training for _, block in below for module in block.modules())
    assert all(module.training for module in last.modules())


# resume


@pytest.mark.parametrize("trains", ["all", "last_block"])
@pytest.mark.parametrize("killed_at", [1, 3])
def test_a_killed_run_ends_with_the_same_bytes(
    images: ImageList, tmp_path: Path, monkeypatch, killed_at: int, trains: str
) -> None:
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    phase = NetPhase(trains, 4, 0.01, 0.7, "train")

    def kill(_model: ImageModel, epoch: int) -> None:
        if epoch == killed_at:
            raise KeyboardInterrupt

    whole, killed, resumed = (model_with_dropout() for _ in range(3))
    whole_history = fit(whole, phase, images, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(killed, phase, images, tmp_path / "killed", before_epoch=kill)
    torch.manual_seed(99)  # a new process starts elsewhere
    assert fit(resumed, phase, images, tmp_path / "killed") == whole_history
    assert state(resumed) == state(whole)


@pytest.mark.parametrize("seconds", [0, 1e9])
def test_a_run_killed_within_an_epoch_ends_with_the_same_bytes(
    images: ImageList, tmp_path: Path, monkeypatch, seconds: float
) -> None:
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", seconds)
    phase, plain_loss = NetPhase("all", 3, 0.01, 0.7, "train"), smoothed_cross_entropy(images, 0.1)
    n_steps = 0

    def dying_loss(model, x_NCHW, indices):
        nonlocal n_steps
        n_steps += 1
        if n_steps == 4:  # two steps an epoch: the second step of the second epoch
            raise KeyboardInterrupt
        return plain_loss(model, x_NCHW, indices)

    whole, killed, resumed = (model_with_dropout() for _ in range(3))
    whole_history = fit(whole, phase, images, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(killed, phase, images, tmp_path / "killed", loss_of=dying_loss)
    assert fit(resumed, phase, images, tmp_path / "killed") == whole_history
    assert state(resumed) == state(whole)


def test_a_finished_phase_is_read_back_without_a_step(images: ImageList, tmp_path: Path) -> None:
    phase, first, second = NetPhase("all", 2, 0.01, 0.7, "train"), model_with_dropout(), model_with_dropout()
    history = fit(first, phase, images, tmp_path)
    assert fit(second, phase, images, tmp_path, loss_of=None) == history
    assert state(second) == state(first)


def test_other_seed_name_or_phase_number_is_another_run(images: ImageList, tmp_path: Path) -> None:
    phase, found = NetPhase("all", 1, 0.01, 1.0, "train"), []
    other_seed = FitSettings(8, 0.1, 0.05, 2, 4, "cpu")
    other_name = Job("other", images, images, rolled, tmp_path / "name")
    for number, changed in enumerate([{}, {"settings": other_seed}, {"job": other_name}, {"phase_number": 1}]):
        model = model_with_dropout()
        fit(model, phase, images, tmp_path / str(number), **changed)
        found.append(tuple(state(model).values()))
    assert len(set(found)) == 4


# the rest of a phase


def test_history_holds_every_epoch_and_the_validation_curve(images: ImageList, tmp_path: Path) -> None:
    history = fit(model_with_dropout(), NetPhase("all", 5, 0.01, 1.0, "train"), images, tmp_path)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5]
    assert [row["epoch"] for row in history if "val_accuracy" in row] == [2, 4, 5]
    assert {(row["model"], row["phase"]) for row in history} == {("run", "0-all")}


def test_training_learns(images: ImageList, tmp_path: Path) -> None:
    model = model_with_dropout()
    history = fit(model, NetPhase("all", 15, 0.02, 1.0, "train"), images, tmp_path)
    assert history[-1]["loss"] < history[0]["loss"]
    assert accuracy(model, images, SETTINGS) > 0.9


def test_a_loss_that_is_no_number_stops_the_run(images: ImageList, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"run: the loss is nan in phase all, epoch 0; lower lr in params\.yaml"):
        fit(
            model_with_dropout(), NetPhase("all", 2, 0.01, 1.0, "train"), images, tmp_path,
            loss_of=lambda model, x, _indices: model(x).sum() * float("nan"),
        )  # fmt: skip
    assert not list(tmp_path.glob("*.pt"))


def test_one_image_is_too_few(images: ImageList, tmp_path: Path) -> None:
    one = ImageList(images.files, ("id0",), ("0.png",), (0,), images.mean, images.std)
    with pytest.raises(ValueError, match=r"run: 1 training image\(s\); at least 2 are needed"):
        fit(model_with_dropout(), NetPhase("all", 1, 0.01, 1.0, "train"), one, tmp_path)


def test_probabilities_are_those_of_plain_images_in_eval_mode(images: ImageList) -> None:
    model = model_with_dropout()
    found = probabilities(model, images, 4, "cpu")
    model.eval()
    with torch.no_grad():
        expected = model(images.batch(range(N_IMAGES))).double().softmax(1).numpy()
    assert found == pytest.approx(expected, abs=1e-6)
    none = ImageList(images.files, (), (), (), images.mean, images.std)
    assert probabilities(model, none, 4, "cpu").shape == (0, 2)


def test_probabilities_keep_each_parts_mode(images: ImageList) -> None:
    model = model_with_dropout()
    set_training(model, NetPhase("last_block", 1, 0.01, 1.0, "frozen"))
    before = [module.training for module in model.modules()]
    probabilities(model, images, 4, "cpu")
    assert [module.training for module in model.modules()] == before
