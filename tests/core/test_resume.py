"""A run that is killed anywhere and started again ends with the same bytes, whatever is switched on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from tasks.core import checkpoints
from tasks.core.batches import ImageList, View
from tasks.core.images import ImageFiles
from tasks.core.model import ImageModel, SmallResNet, split_head
from tasks.core.objective import Batch, Objective
from tasks.core.phases import FitSettings, Job, NetPhase
from tasks.core.regularisers import Supervised
from tasks.core.runtime import address_seed
from tasks.core.training import fit_phase

SETTINGS = FitSettings(
    batch_size=6, weight_decay=0.05, evaluate_every=1, seed=3, device="cpu", ema_decay=None, l2_sp=0.0, dropout=0.0,
    precision="float32", compile=False, accumulate=1,
)  # fmt: skip
PHASE = NetPhase("all", 4, 0.01, 0.7, "train", "one_cycle", 0.3, None)
N, N_UNLABELLED = 13, 22


class Adversary(Objective):
    """Everything an objective may carry: parameters, buffers that follow, randomness, and a strength that grows."""

    def __init__(self, labels_N: Tensor) -> None:
        self.labels_N, self.n_seen = labels_N, 0
        torch.manual_seed(1)
        self.own = nn.Sequential(nn.Linear(32, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 1))
        self.own.register_buffer("follows", torch.zeros(2, 32))

    def extra(self) -> nn.Module:
        return self.own

    def before_epoch(self, model: ImageModel, epoch: int) -> None:
        self.shift = float(model.head.bias.detach().sum()) + epoch

    def loss(self, model: ImageModel, batch: Batch, progress: float) -> Tensor:
        x_ND, u_ND = model.features(batch.x_NCHW), model.features(batch.u_NCHW)
        self.n_seen += len(batch.u_indices)
        sides = torch.cat([torch.ones(len(x_ND), 1), torch.zeros(len(u_ND), 1)])
        told_apart = binary_cross_entropy_with_logits(self.own(torch.cat([x_ND, u_ND])), sides)
        near = (u_ND - self.own.follows.mean(0)).square().mean()
        supervised = cross_entropy(model.head(x_ND), self.labels_N[batch.indices])
        return supervised + progress * told_apart + 0.01 * self.shift * near

    def after_step(self, model: ImageModel) -> None:
        self.own.follows.lerp_(model.head.weight.detach(), 0.2)

    def figures(self) -> dict[str, float]:
        n, self.n_seen = self.n_seen, 0
        return {"n_seen": float(n)}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    rng = np.random.default_rng(0)
    paths = tuple(f"{k}.png" for k in range(N + N_UNLABELLED))
    for k, path in enumerate(paths):
        pixels = rng.integers(0, 120, (16, 16, 3), dtype=np.uint8)
        pixels[:, :, k % 2] += 100
        Image.fromarray(pixels).save(tmp_path / path)
    labels = tuple(k % 2 for k in range(N))
    files = ImageFiles(tmp_path, 16)
    images = ImageList(files, paths[:N], paths[:N], labels, (0.5,) * 3, (0.25,) * 3)
    unlabelled = replace(images, image_ids=paths[N:], paths=paths[N:], labels=(-1,) * N_UNLABELLED)
    return Job("run", images, images, rolled, tmp_path, unlabelled=unlabelled)


def rolled(image: np.ndarray, image_id: str, number: int) -> np.ndarray:
    return np.roll(image, address_seed(image_id, number) % 16, axis=1)


def small_model() -> ImageModel:
    torch.manual_seed(0)
    model = split_head(SmallResNet(2, width=4), 2)
    model.backbone.layers.append(nn.Dropout(0.3))
    return model


def supervised(job: Job) -> Objective:
    return Supervised(torch.tensor(job.images.labels), 0.1)


def with_groups(job: Job) -> Objective:
    return Supervised(torch.tensor(job.images.labels), 0.0, groups_N=torch.arange(N) % 3, group_step=0.3)


def adversary(job: Job) -> Objective:
    return Adversary(torch.tensor(job.images.labels))


def mixed(job: Job) -> Objective:
    return Supervised(torch.tensor(job.images.labels), 0.0, mixup_alpha=0.4, cutmix_alpha=1.0)


class Unlearning(Supervised):
    """From its second epoch on, so that a patience runs out."""

    def loss(self, model: ImageModel, batch: Batch, progress: float) -> Tensor:
        return super().loss(model, batch, progress) * (1 if progress < 0.2 else -5)


def unlearning(job: Job) -> Objective:
    return Unlearning(torch.tensor(job.images.labels), 0.0)


Changed = dict[str, Any]
CASES: dict[str, tuple[Callable[[Job], Objective], Changed, Changed, Changed]] = {  # objective, phase, settings, job
    "plain": (supervised, {}, {}, {"unlabelled": None}),
    "last block": (supervised, {"trains": "last_block"}, {}, {"unlabelled": None}),
    "averaged and pulled": (supervised, {}, {"ema_decay": 0.9, "l2_sp": 0.01}, {"unlabelled": None}),
    "patience": (unlearning, {"n_epochs": 9, "patience": 2}, {}, {"unlabelled": None}),
    "patience, averaged": (unlearning, {"n_epochs": 9, "patience": 2}, {"ema_decay": 0.5}, {"unlabelled": None}),
    "balanced, in parts": (with_groups, {"batch_norm": "frozen"}, {"accumulate": 2}, {"sampling": "class_balanced"}),
    "mixed, dropped": (mixed, {"schedule": "cosine"}, {"dropout": 0.4}, {"unlabelled": None}),
    "two streams": (adversary, {}, {"dropout": 0.2, "ema_decay": 0.9}, {}),
    "adapted": (adversary, {"batch_norm": "adapted", "patience": 1}, {"precision": "bfloat16"}, {}),
}


class Case:
    """A run of a case in a folder, with a new network and a new objective each time, as a new process has them."""

    def __init__(self, name: str, job: Job) -> None:
        self.objective_of, *self.changes = CASES[name]
        self.job = replace(job, **self.changes[2])
        self.phase, self.settings = replace(PHASE, **self.changes[0]), replace(SETTINGS, **self.changes[1])

    def run(self, folder: Path, *, kill_epoch: int | None = None, view: View = rolled) -> tuple[list, list[bytes]]:
        model, objective = small_model(), self.objective_of(self.job)
        prepare = objective.before_epoch

        def before_epoch(network: ImageModel, epoch: int) -> None:
            if epoch == kill_epoch:
                raise KeyboardInterrupt
            prepare(network, epoch)

        objective.before_epoch = before_epoch
        job = replace(self.job, checkpoint_folder=folder, view=view)
        torch.manual_seed(address_seed(str(folder)))  # a new process starts elsewhere
        history = fit_phase(model, self.phase, job=job, settings=self.settings, objective=objective)
        extra = objective.extra()
        modules = [model, *([extra] if extra is not None else [])]
        return history, [t.numpy().tobytes() for module in modules for t in module.state_dict().values()]


@pytest.fixture(autouse=True)
def checkpoint_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN_CHECKPOINTS", 0)


@pytest.mark.parametrize("name", CASES)
def test_a_run_killed_before_any_epoch_ends_with_the_same_bytes(job: Job, tmp_path: Path, name: str) -> None:
    """One after the other in one run: it is killed before every epoch, and each time started again."""
    case = Case(name, job)
    whole = case.run(tmp_path / "whole")
    n_epochs = len(whole[0])
    assert n_epochs > 2
    for epoch in range(n_epochs):
        with pytest.raises(KeyboardInterrupt):
            case.run(tmp_path / "killed", kill_epoch=epoch)
    assert case.run(tmp_path / "killed") == whole
    assert case.run(tmp_path / "killed", kill_epoch=n_epochs) == whole  # a finished phase takes no step


@pytest.mark.parametrize(("name", "n_views"), [("patience", 32), ("two streams", 100)])  # in the third epoch
@pytest.mark.parametrize("seconds", [0, 1e9])
def test_a_run_killed_within_an_epoch_ends_with_the_same_bytes(
    job: Job, tmp_path: Path, monkeypatch, name: str, n_views: int, seconds: float
) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN_CHECKPOINTS", seconds)
    case, n_seen = Case(name, job), 0
    whole = case.run(tmp_path / "whole")

    def dying(image: np.ndarray, image_id: str, number: int) -> np.ndarray:
        nonlocal n_seen
        n_seen += 1
        if n_seen == n_views:
            raise KeyboardInterrupt
        return rolled(image, image_id, number)

    with pytest.raises(KeyboardInterrupt):
        case.run(tmp_path / "killed", view=dying)
    assert (tmp_path / "killed").exists() == (seconds == 0)
    assert case.run(tmp_path / "killed") == whole


def test_every_option_changes_the_bytes(job: Job, tmp_path: Path) -> None:
    """Else the cases above would prove nothing of it."""
    plain = {"unlabelled": None}
    changes: list[tuple[Changed, Changed, Changed]] = [
        ({}, {}, {}),
        ({"trains": "last_block"}, {}, {}),
        ({"trains": r"blocks:layers\.[23]"}, {}, {}),
        ({"schedule": "cosine"}, {}, {}),
        ({"warmup_share": 0.5}, {}, {}),
        ({"batch_norm": "frozen"}, {}, {}),
        ({}, {"dropout": 0.4}, {}),
        ({}, {"ema_decay": 0.9}, {}),
        ({}, {"l2_sp": 0.01}, {}),
        ({}, {"accumulate": 2}, {}),
        ({}, {"precision": "bfloat16"}, {}),
        ({}, {"seed": 4}, {}),
        ({}, {}, {"name": "other"}),
        ({}, {}, {"sampling": "class_balanced"}),
        ({}, {}, {"sampling": "group_balanced", "groups": ("a",) * 3 + ("b",) * 10}),
    ]
    found = []
    for number, (phase, settings, changed) in enumerate(changes):
        model, own = small_model(), replace(job, **plain, checkpoint_folder=tmp_path / str(number))
        fit_phase(
            model, replace(PHASE, **{"n_epochs": 2, **phase}), job=replace(own, **changed),
            settings=replace(SETTINGS, **settings), objective=supervised(job), phase_number=0,
        )  # fmt: skip
        found.append(b"".join(t.numpy().tobytes() for t in model.state_dict().values()))
    own = replace(job, **plain, checkpoint_folder=tmp_path / "number")
    model = small_model()
    fit_phase(model, replace(PHASE, n_epochs=2), job=own, settings=SETTINGS, objective=supervised(job), phase_number=1)
    found.append(b"".join(t.numpy().tobytes() for t in model.state_dict().values()))
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("name", ["plain", "two streams"])
def test_the_number_of_threads_that_decode_changes_no_byte(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    found = []
    for n_workers in ("1", "2", "5"):
        monkeypatch.setenv("ACCLIMATE_WORKERS", n_workers)
        found.append(Case(name, job).run(tmp_path / n_workers))
    assert found[0] == found[1] == found[2]


def test_the_same_image_and_epoch_give_the_same_view_and_no_view_repeats(job: Job, tmp_path: Path, monkeypatch) -> None:
    """For any number of threads, and for a run that was killed."""
    case, asked = Case("two streams", job), {}

    def noting(name: str, dies_at: int | None = None) -> View:
        asked.setdefault(name, [])

        def view(image: np.ndarray, image_id: str, number: int) -> np.ndarray:
            if dies_at is not None and len(asked[name]) == dies_at:
                raise KeyboardInterrupt
            asked[name].append((image_id, number))
            return rolled(image, image_id, number)

        return view

    for n_workers in ("1", "4"):
        monkeypatch.setenv("ACCLIMATE_WORKERS", n_workers)
        case.run(tmp_path / n_workers, view=noting(n_workers))
    assert len(set(asked["1"])) == len(asked["1"])
    assert set(asked["4"]) == set(asked["1"])
    with pytest.raises(KeyboardInterrupt):
        case.run(tmp_path / "killed", view=noting("killed", dies_at=70))
    case.run(tmp_path / "killed", view=noting("resumed"))
    assert set(asked["killed"]) | set(asked["resumed"]) == set(asked["1"])
