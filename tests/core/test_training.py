"""Training: what a phase changes, what it ends with, and what it refuses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tasks.core import checkpoints
from tasks.core.adaptation.adabn import adapt_batch_norm
from tasks.core.batches import ImageList
from tasks.core.best import Best, Validation
from tasks.core.images import ImageFiles
from tasks.core.model import ImageModel, SmallResNet, blocks, split_head
from tasks.core.objective import Batch, Objective
from tasks.core.phases import FitSettings, Job, NetPhase
from tasks.core.regularisers import Supervised
from tasks.core.runtime import address_seed
from tasks.core.training import HISTORY_COLUMNS, accuracy, fit_phase, probabilities, validation

SETTINGS = FitSettings(
    batch_size=8, weight_decay=0.05, evaluate_every=2, seed=3, device="cpu", ema_decay=None, l2_sp=0.0, dropout=0.0,
    precision="float32", compile=False, accumulate=1,
)  # fmt: skip
PHASE = NetPhase("all", 4, 0.01, 0.7, "train", "one_cycle", 0.3, None)
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


def small_model() -> ImageModel:
    torch.manual_seed(0)
    return split_head(SmallResNet(2, width=4), 2)


def rolled(image: np.ndarray, image_id: str, number: int) -> np.ndarray:
    return np.roll(image, address_seed(image_id, number) % 16, axis=1)


def job_of(images: ImageList, folder: Path, **changed) -> Job:
    return replace(Job("run", images, images, rolled, folder), **changed)


def fit(model: ImageModel, phase: NetPhase, images: ImageList, folder: Path, **changed) -> list[dict]:
    objective = Supervised(torch.tensor(images.labels), 0.1)
    how = {"job": job_of(images, folder), "settings": SETTINGS, "objective": objective}
    return fit_phase(model, phase, **(how | changed))


def state(module: nn.Module) -> dict[str, bytes]:
    return {name: t.detach().contiguous().numpy().tobytes() for name, t in module.state_dict().items()}


def apart(one: nn.Module, other: dict[str, Tensor]) -> float:
    return sum(float((w - other[name]).square().sum().detach()) for name, w in one.named_parameters())


def part_of(images: ImageList, n: int) -> ImageList:
    return replace(images, image_ids=images.image_ids[:n], paths=images.paths[:n], labels=images.labels[:n])


class Ruined(Supervised):
    """Learns until an epoch, and from then on unlearns. Keeps the weights that each epoch starts with."""

    def __init__(self, images: ImageList, from_epoch: int) -> None:
        super().__init__(torch.tensor(images.labels), 0.0)
        self.from_epoch, self.seen = from_epoch, []

    def before_epoch(self, model: ImageModel, epoch: int) -> None:
        self.epoch = epoch
        self.seen.append(state(model))

    def loss(self, model: ImageModel, batch: Batch, progress: float) -> Tensor:
        loss = super().loss(model, batch, progress)
        return loss if self.epoch < self.from_epoch else -10 * loss


# what a phase changes


@pytest.mark.parametrize("policy", ["frozen", "train"])
def test_batch_norms_statistics_move_only_in_training(images: ImageList, tmp_path: Path, policy: str) -> None:
    model, before = small_model(), state(small_model())
    fit(model, replace(PHASE, batch_norm=policy), images, tmp_path)
    after = state(model)
    statistics = [name for name in after if "running" in name]
    assert len(statistics) == 24  # two in each of 12 norms: 1 stem, 8 in blocks, 3 in shortcuts
    assert {after[name] == before[name] for name in statistics} == {policy == "frozen"}
    assert all(after[name] != before[name] for name in after if name.endswith("weight"))


def test_adapted_batch_norm_takes_the_unlabelled_images_statistics_and_keeps_them(
    images: ImageList, tmp_path: Path
) -> None:
    model, adapted, before = small_model(), small_model(), state(small_model())
    adapt_batch_norm(adapted, part_of(images, 11), 8, "cpu")
    job = job_of(images, tmp_path, unlabelled=part_of(images, 11))
    fit(model, replace(PHASE, batch_norm="adapted"), images, tmp_path, job=job)
    after, expected = state(model), state(adapted)
    statistics = [name for name in after if "running" in name]
    assert all(after[name] == expected[name] != before[name] for name in statistics)


@pytest.mark.parametrize(
    ("trains", "learning"), [("last_block", [4]), (r"blocks:^layers\.[13]$", [2, 4]), ("blocks:stem", [0])]
)
def test_blocks_that_do_not_learn_stay_byte_identical(
    images: ImageList, tmp_path: Path, trains: str, learning: list[int]
) -> None:
    model, before = small_model(), small_model()
    fit(model, replace(PHASE, trains=trains), images, tmp_path)
    pairs = list(zip(blocks(model.backbone), blocks(before.backbone), strict=True))
    assert len(pairs) == 5
    assert [k for k, ((_, now), (_, then)) in enumerate(pairs) if state(now) != state(then)] == learning
    for k in learning:
        now, then = (state(block) for _, block in pairs[k])
        assert all(now[name] != then[name] for name in now)
    assert state(model.head) != state(before.head)


def test_training_learns(images: ImageList, tmp_path: Path) -> None:
    model = small_model()
    history = fit(model, replace(PHASE, n_epochs=15, lr=0.02), images, tmp_path)
    assert history[-1]["loss"] < history[0]["loss"]
    assert accuracy(model, images, SETTINGS) > 0.9


class Watching(Objective):
    """Notes what the head is given in training; moves nothing."""

    def __init__(self) -> None:
        self.given: list[Tensor] = []
        self.progress: list[float] = []

    def loss(self, model: ImageModel, batch: Batch, progress: float) -> Tensor:
        model.head.register_forward_hook(lambda _head, given, _out: self.given.append(given[0].detach()))
        self.features = model.features(batch.x_NCHW)
        self.progress.append(progress)
        return model.head(self.features).sum() * 0


def test_dropout_stands_before_the_head_in_training_only(images: ImageList, tmp_path: Path) -> None:
    model, watching = small_model(), Watching()
    job = job_of(images, tmp_path, validation=part_of(images, 0))
    fit(model, replace(PHASE, n_epochs=1), images, tmp_path, job=job, objective=watching,
        settings=replace(SETTINGS, dropout=0.25, batch_size=17))  # fmt: skip
    (given,), features = watching.given, watching.features.detach()
    kept = given != 0
    assert given[kept].tolist() == pytest.approx((features[kept] / 0.75).tolist())
    assert 0.55 < float(kept[features != 0].float().mean()) < 0.95
    assert not model.head._forward_pre_hooks  # it is gone with the phase
    model.eval()
    with torch.no_grad():
        x_NCHW = images.batch(range(4))
        assert torch.equal(model(x_NCHW), model.head(model.features(x_NCHW)))


def test_dropout_is_off_while_images_are_validated(images: ImageList, tmp_path: Path) -> None:
    model = small_model()
    history = fit(model, PHASE, images, tmp_path, settings=replace(SETTINGS, dropout=0.9))
    assert history[-1]["val_loss"] == pytest.approx(validation(model, images, SETTINGS).log_loss, abs=1e-6)


def test_progress_is_the_share_of_steps_that_are_done(images: ImageList, tmp_path: Path) -> None:
    watching = Watching()
    fit(small_model(), replace(PHASE, n_epochs=3), images, tmp_path, objective=watching)
    assert watching.progress == pytest.approx([k / 6 for k in range(6)])  # two steps an epoch


def test_l2_sp_pulls_the_backbone_to_its_start(images: ImageList, tmp_path: Path) -> None:
    start = {name: w.detach().clone() for name, w in small_model().backbone.named_parameters()}
    moved = []
    for number, l2_sp in enumerate((0.0, 1.0, 100.0)):
        model = small_model()
        fit(model, PHASE, images, tmp_path / str(number), settings=replace(SETTINGS, weight_decay=0.0, l2_sp=l2_sp))
        moved.append(apart(model.backbone, start))
    assert moved[0] > 2 * moved[1] > 4 * moved[2] > 0


def test_the_loss_holds_the_pull(images: ImageList, tmp_path: Path) -> None:
    """The loss itself is 0 here: what the history shows is the pull from an anchor that is 0.1 away in every weight."""
    model = small_model()
    anchor = {name: tensor + 0.1 for name, tensor in model.state_dict().items()}
    n_weights = sum(p.numel() for p in model.backbone.parameters())
    whole = replace(SETTINGS, batch_size=N_IMAGES, l2_sp=0.5)
    job = job_of(images, tmp_path, anchor=anchor)
    (row,) = fit(model, replace(PHASE, n_epochs=1), images, tmp_path, job=job, settings=whole, objective=Watching())
    assert row["loss"] == pytest.approx(0.5 * n_weights * 0.01, rel=1e-4)


def test_parts_of_a_batch_add_up_to_the_whole(images: ImageList, tmp_path: Path) -> None:
    found = []
    for accumulate in (1, 3):
        model = small_model()
        settings = replace(SETTINGS, accumulate=accumulate, l2_sp=0.1)
        history = fit(model, replace(PHASE, batch_norm="frozen"), images, tmp_path / str(accumulate), settings=settings)
        found.append((history, model))
    (whole, model), (parts, other) = found
    assert [row["loss"] for row in parts] == pytest.approx([row["loss"] for row in whole], abs=1e-4)
    assert apart(model, dict(other.named_parameters())) < 1e-6 * apart(model, dict(small_model().named_parameters()))


def test_a_lower_precision_trains_too_and_differs(images: ImageList, tmp_path: Path) -> None:
    models = {}
    for precision in ("float32", "bfloat16"):
        models[precision] = small_model()
        settings = replace(SETTINGS, precision=precision)
        history = fit(models[precision], PHASE, images, tmp_path / precision, settings=settings)
        assert history[-1]["loss"] < history[0]["loss"]
    assert state(models["float32"]) != state(models["bfloat16"])
    assert {p.dtype for p in models["bfloat16"].parameters()} == {torch.float32}


@pytest.mark.slow
def test_a_compiled_network_trains_alike(images: ImageList, tmp_path: Path) -> None:
    """Two layers: most of the time is the compiler's."""
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = ImageModel(nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.ReLU()), nn.Linear(8, 2))
        settings = replace(SETTINGS, compile=compiled, batch_size=N_IMAGES)
        job = job_of(images, tmp_path / str(compiled), validation=part_of(images, 0))
        history = fit(model, replace(PHASE, n_epochs=2), images, tmp_path, job=job, settings=settings)
        found.append(([row["loss"] for row in history], state(model).keys()))
    (losses, names), (compiled_losses, compiled_names) = found
    assert compiled_losses == pytest.approx(losses, abs=1e-4)
    assert compiled_names == names


# what it ends with


class Recording(Supervised):
    """Keeps the weights after each step."""

    def after_step(self, model: ImageModel) -> None:
        self.states = [*getattr(self, "states", []), {k: t.clone() for k, t in model.state_dict().items()}]


def test_averaged_weights_are_the_moving_average_of_the_steps(images: ImageList, tmp_path: Path) -> None:
    recording, averaged = Recording(torch.tensor(images.labels), 0.1), small_model()
    expected = {name: tensor.double() for name, tensor in small_model().state_dict().items()}
    fit(small_model(), PHASE, images, tmp_path / "plain", objective=recording)
    for n, states in enumerate(recording.states, start=1):
        decay = min(0.6, (1 + n) / (10 + n))  # the smaller in the first steps only
        for name, tensor in states.items():
            expected[name] = decay * expected[name] + (1 - decay) * tensor.double()
    assert len(recording.states) == 8
    history = fit(averaged, PHASE, images, tmp_path / "ema", settings=replace(SETTINGS, ema_decay=0.6))
    for name, tensor in averaged.state_dict().items():
        if tensor.is_floating_point():
            assert tensor.numpy() == pytest.approx(expected[name].numpy(), abs=1e-5)
    assert history[-1]["val_loss"] == pytest.approx(validation(averaged, images, SETTINGS).log_loss, abs=1e-6)


def test_a_phase_stops_after_its_patience_and_ends_with_its_best_weights(images: ImageList, tmp_path: Path) -> None:
    model, ruined = small_model(), Ruined(images, from_epoch=6)
    phase = replace(PHASE, n_epochs=20, lr=0.02, patience=2, batch_norm="frozen")
    history = fit(model, phase, images, tmp_path, objective=ruined)  # validated at epochs 2, 4, 6, …
    curve = {row["epoch"]: (row["val_accuracy"], -row["val_loss"]) for row in history if "val_accuracy" in row}
    best = max(curve, key=curve.get)
    assert history[-1]["epoch"] == best + 4 < 20
    assert state(model) == ruined.seen[best]  # what the epoch after the best one started with
    assert history[-1]["note"] == f"2 validations without a better one; ends with the weights of epoch {best}"
    assert not any("note" in row for row in history[:-1])


def test_the_best_averaged_weights_are_kept_where_weights_are_averaged(images: ImageList, tmp_path: Path) -> None:
    model = small_model()
    phase = replace(PHASE, n_epochs=12, lr=0.02, patience=2)
    settings = replace(SETTINGS, ema_decay=0.5)
    history = fit(model, phase, images, tmp_path, objective=Ruined(images, from_epoch=4), settings=settings)
    best = max((row["val_accuracy"], -row["val_loss"]) for row in history if "val_loss" in row)
    found = validation(model, images, SETTINGS)
    assert (found.accuracy, -found.log_loss) == pytest.approx(best, abs=1e-6)


def test_the_best_weights_are_restored_where_the_patience_did_not_run_out(images: ImageList, tmp_path: Path) -> None:
    model, ruined = small_model(), Ruined(images, from_epoch=2)
    phase = replace(PHASE, n_epochs=4, lr=0.02, patience=9, batch_norm="frozen")
    history = fit(model, phase, images, tmp_path, objective=ruined)
    assert history[-1]["note"] == "ends with the weights of epoch 2"
    assert state(model) == ruined.seen[2]


def test_without_validation_images_a_patience_is_not_used_and_the_history_says_so(
    images: ImageList, tmp_path: Path
) -> None:
    patient, plain = small_model(), small_model()
    job = job_of(images, tmp_path / "patient", validation=part_of(images, 0))
    history = fit(patient, replace(PHASE, patience=1), images, tmp_path, job=job)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert history[-1]["note"] == "no validation images: the patience is not used"
    fit(plain, PHASE, images, tmp_path / "plain")
    assert state(patient) == state(plain)


def test_better_is_the_higher_accuracy_then_the_lower_log_loss() -> None:
    best, curve = Best(), [(0.5, 0.9), (0.6, 2.0), (0.6, 2.0), (0.5, 0.1), (0.6, 1.0), (0.6, 1.5)]
    seen = []
    for epoch, (right, log_loss) in enumerate(curve, start=1):
        best.see(epoch, Validation(right, log_loss), {"of": torch.tensor(epoch)})
        seen.append((best.epoch, best.n_since, int(best.weights["of"])))
    assert seen == [(1, 0, 1), (2, 0, 2), (2, 1, 2), (2, 2, 2), (5, 0, 5), (5, 1, 5)]


# the history


class Telling(Supervised):
    def figures(self) -> dict[str, float]:
        return {"in_use": 0.25, "n": 3.0}


def test_history_holds_every_epoch_and_the_validation_curve(images: ImageList, tmp_path: Path) -> None:
    phase = replace(PHASE, n_epochs=5, schedule="constant", warmup_share=0.4)
    history = fit(small_model(), phase, images, tmp_path, objective=Telling(torch.tensor(images.labels), 0.1))
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5]
    assert [row["epoch"] for row in history if "val_accuracy" in row] == [2, 4, 5]
    assert [row["epoch"] for row in history if "val_loss" in row] == [2, 4, 5]
    assert [row["lr"] for row in history] == pytest.approx([0.0025, 0.0075, 0.01, 0.01, 0.01])  # two steps an epoch
    assert {(row["model"], row["phase"], row["figures"]) for row in history} == {("run", "0-all", "in_use=0.25; n=3")}
    assert {name for row in history for name in row} <= set(HISTORY_COLUMNS)


def test_validation_by_hand(images: ImageList) -> None:
    model = small_model().eval()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([0.0, np.log(3.0)]))  # p = 1/4, 3/4; 9 images of class 0, 8 of class 1
    found = validation(model, images, SETTINGS)
    assert found.accuracy == pytest.approx(8 / 17)
    assert found.log_loss == pytest.approx((9 * np.log(4) + 8 * np.log(4 / 3)) / 17, abs=1e-6)


def test_probabilities_are_those_of_plain_images_in_eval_mode(images: ImageList) -> None:
    model = small_model()
    found = probabilities(model, images, 4, "cpu")
    model.eval()
    with torch.no_grad():
        expected = model(images.batch(range(N_IMAGES))).double().softmax(1).numpy()
    assert found == pytest.approx(expected, abs=1e-6)
    assert probabilities(model, part_of(images, 0), 4, "cpu").shape == (0, 2)


def test_probabilities_keep_each_parts_mode(images: ImageList) -> None:
    model = small_model()
    model.backbone.layers[2].eval()
    before = [module.training for module in model.modules()]
    probabilities(model, images, 4, "cpu")
    assert [module.training for module in model.modules()] == before


# what it refuses


class Exploding(Supervised):
    def loss(self, model: ImageModel, batch: Batch, progress: float) -> Tensor:
        loss = super().loss(model, batch, progress)
        return loss * float("inf") if progress >= 0.625 else loss  # the sixth of eight steps


@pytest.mark.parametrize(
    ("seconds", "kept"), [(0, "the checkpoint of epoch 2 is kept"), (1e9, "there is no checkpoint yet")]
)
def test_a_loss_that_is_no_number_stops_the_run(
    images: ImageList, tmp_path: Path, monkeypatch, seconds: float, kept: str
) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN_CHECKPOINTS", seconds)
    told = rf"run: the loss is inf in phase all, epoch 3, step 2 of 2; lower lr in params\.yaml; {kept}"
    with pytest.raises(ValueError, match=told):
        fit(small_model(), PHASE, images, tmp_path, objective=Exploding(torch.tensor(images.labels), 0.1))
    assert len(list(tmp_path.glob("*.pt"))) == (seconds == 0)


class Failing(Objective):
    def __init__(self, error: Exception) -> None:
        self.error = error

    def loss(self, model: ImageModel, batch: Batch, progress: float) -> Tensor:
        raise self.error


def test_a_full_memory_is_told_with_the_batch_size_to_try(images: ImageList, tmp_path: Path) -> None:
    told = (
        r"run, phase all: memory ran out with 8 images at once; set batch_size to 4 in params\.yaml, or accumulate to 2"
    )
    with pytest.raises(ValueError, match=told):
        fit(small_model(), PHASE, images, tmp_path, objective=Failing(torch.OutOfMemoryError("CUDA out of memory")))


def test_other_errors_are_not_taken_for_a_full_memory(images: ImageList, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        fit(small_model(), PHASE, images, tmp_path, objective=Failing(RuntimeError("shapes")))


def test_batch_norm_that_can_not_be_adapted_is_refused(images: ImageList, tmp_path: Path) -> None:
    phase = replace(PHASE, batch_norm="adapted")
    with pytest.raises(ValueError, match="run: batch_norm is adapted, which needs unlabelled images; set it to train"):
        fit(small_model(), phase, images, tmp_path)
    model = ImageModel(nn.Sequential(nn.Flatten(), nn.Linear(768, 4), nn.ReLU()), nn.Linear(4, 2))
    job = job_of(images, tmp_path, unlabelled=images)
    with pytest.raises(ValueError, match="run: batch_norm is adapted and the network has no BatchNorm"):
        fit(model, phase, images, tmp_path, job=job)


def test_one_image_is_too_few(images: ImageList, tmp_path: Path) -> None:
    job = job_of(part_of(images, 1), tmp_path)
    with pytest.raises(ValueError, match=r"run: 1 training image\(s\); at least 2 are needed"):
        fit(small_model(), PHASE, images, tmp_path, job=job)
