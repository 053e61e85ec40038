"""Plans: phases in order on one network, and finished runs that are kept."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tasks.core import checkpoints, parallel, plans
from tasks.core.averaging import copied
from tasks.core.batches import ImageList
from tasks.core.features import Features
from tasks.core.images import ImageFiles
from tasks.core.model import ImageModel, SmallResNet, split_head
from tasks.core.phases import FitSettings, HeadPhase, Job, NetPhase
from tasks.core.plans import run_once, run_plan, within_budget
from tasks.core.regularisers import Supervised
from tasks.core.training import fit_phase, probabilities

SETTINGS = FitSettings(
    batch_size=6, weight_decay=0.01, evaluate_every=1, seed=0, device="cpu", ema_decay=None, l2_sp=0.0, dropout=0.0,
    precision="float32", compile=False, accumulate=1,
)  # fmt: skip
PLAN = [
    HeadPhase(0.5),
    NetPhase("last_block", 2, 0.01, 1.0, "train", "one_cycle", 0.3, None),
    NetPhase("all", 2, 0.005, 0.7, "train", "one_cycle", 0.3, None),
]


def small_model() -> ImageModel:
    torch.manual_seed(0)
    return split_head(SmallResNet(3, width=4), 3)


def supervised(job: Job) -> Supervised:
    return Supervised(torch.tensor(job.images.labels), 0.0)


def turned(image: np.ndarray, _image_id: str, epoch: int) -> np.ndarray:
    return np.rot90(image, epoch + 1)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    rng, n = np.random.default_rng(0), 15
    paths = tuple(f"{k}.png" for k in range(n))
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / path)
    labels = tuple(k % 3 for k in range(n))
    ids = tuple(f"id{k}" for k in range(n))
    images = ImageList(ImageFiles(tmp_path, 16), ids, paths, labels, (0.5,) * 3, (0.25,) * 3)
    return Job("plan_staged", images, images, turned, tmp_path / "state")


@pytest.fixture
def features(job: Job) -> Features:
    """The plain view and one more, and an image that is in no plan."""
    backbone, n = small_model().backbone, len(job.images)
    backbone.eval()
    with torch.inference_mode():
        plain, view = (backbone(job.images.batch(range(n), show)).numpy() for show in (None, turned))
    ids = np.array([*job.images.image_ids, *job.images.image_ids, "stranger"])
    views = np.array([0] * n + [1] * n + [0])
    return Features(ids, views, np.concatenate([plain, view, np.full((1, plain.shape[1]), 1e3, np.float32)]))


def test_a_head_phase_fits_all_cached_views_of_its_images(job: Job, features: Features) -> None:
    model = small_model()
    history = run_plan(model, PLAN[:1], job=job, settings=SETTINGS, features=features, objective=supervised(job))
    x_ND, y_N = features.x_ND[:30], np.array(job.images.labels * 2)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=1000)).fit(x_ND, y_N)
    found = probabilities(model, job.images, 4, "cpu")
    assert found == pytest.approx(probe.predict_proba(x_ND[:15]), abs=1e-4)
    assert history[0]["phase"] == "0-head"
    assert history[0]["val_accuracy"] == pytest.approx(probe.score(x_ND[:15], y_N[:15]), abs=1e-6)
    expected_loss = -np.log(probe.predict_proba(x_ND)[np.arange(30), y_N]).mean()
    assert history[0]["loss"] == pytest.approx(expected_loss, abs=1e-4)
    expected_val_loss = -np.log(probe.predict_proba(x_ND[:15])[np.arange(15), y_N[:15]]).mean()
    assert history[0]["val_loss"] == pytest.approx(expected_val_loss, abs=1e-4)


def test_phases_run_in_their_order(job: Job, features: Features) -> None:
    history = run_plan(small_model(), PLAN, job=job, settings=SETTINGS, features=features, objective=supervised(job))
    assert [(row["phase"], row["epoch"]) for row in history] == [
        ("0-head", 1), ("1-last_block", 1), ("1-last_block", 2), ("2-all", 1), ("2-all", 2),
    ]  # fmt: skip


def test_l2_sp_pulls_to_what_the_plan_started_with(job: Job, features: Features, tmp_path: Path) -> None:
    settings, start = replace(SETTINGS, l2_sp=0.1), copied(small_model())

    def by_hand(folder: Path, anchor: dict[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
        model, own = small_model(), replace(job, checkpoint_folder=folder, anchor=anchor)
        for number, phase in enumerate(PLAN[1:]):
            fit_phase(model, phase, job=own, settings=settings, objective=supervised(job), phase_number=number)
        return copied(model)

    model = small_model()
    run_plan(model, PLAN[1:], job=job, settings=settings, features=features, objective=supervised(job))
    found, expected = copied(model), by_hand(tmp_path / "anchored", start)
    assert all(torch.equal(found[name], expected[name]) for name in found)
    moving = by_hand(tmp_path / "moving", None)  # each phase pulls to its own start
    assert not all(torch.equal(found[name], moving[name]) for name in found)


@pytest.mark.parametrize("killed_at_step", [4, 8])
def test_a_plan_killed_in_any_phase_ends_with_the_same_bytes(
    job: Job, features: Features, monkeypatch, tmp_path: Path, killed_at_step: int
) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    whole, resumed, n_views_seen = small_model(), small_model(), 0

    def dying_view(image: np.ndarray, image_id: str, epoch: int) -> np.ndarray:
        nonlocal n_views_seen
        n_views_seen += 1
        if n_views_seen == 6 * killed_at_step:
            raise KeyboardInterrupt
        return turned(image, image_id, epoch)

    how = {"settings": SETTINGS, "features": features, "objective": supervised(job)}
    apart = Job(job.name, job.images, job.validation, turned, tmp_path / "killed")
    whole_history = run_plan(whole, PLAN, job=job, **how)
    dying = Job(job.name, job.images, job.validation, dying_view, tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        run_plan(small_model(), PLAN, job=dying, **how)
    assert run_plan(resumed, PLAN, job=apart, **how) == whole_history
    states = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in states)


def test_a_finished_run_is_read_back_with_the_same_bytes(job: Job, features: Features, tmp_path: Path) -> None:
    def train(model: ImageModel) -> plans.History:
        return run_plan(model, PLAN, job=job, settings=SETTINGS, features=features, objective=supervised(job))

    def never(_model: ImageModel) -> plans.History:
        raise AssertionError("trained twice")

    first = run_once(tmp_path / "done", "full", small_model, train)
    second = run_once(tmp_path / "done", "full", small_model, never)
    assert first.history == second.history
    states = zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in states)


def test_of_several_processes_the_first_one_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "rank", lambda: 1)
    trained = run_once(tmp_path / "other", "full", small_model, lambda _model: [{"epoch": 1}])
    assert trained.history == [{"epoch": 1}]
    assert not (tmp_path / "other").exists()


def test_a_run_without_its_history_is_not_whole(tmp_path: Path) -> None:
    run_once(tmp_path, "full", small_model, lambda _model: [{"epoch": 1}])
    (tmp_path / "full.json").unlink()
    again = run_once(tmp_path, "full", small_model, lambda _model: [{"epoch": 2}])
    assert again.history == [{"epoch": 2}]
    assert json.loads((tmp_path / "full.json").read_text()) == [{"epoch": 2}]


ONE, TWO = (NetPhase("all", n, 0.01, 1.0, "train", "constant", 0.0, None) for n in (1, 2))
PLANS = {"head": [HeadPhase(1.0)], "short": [HeadPhase(1.0), ONE], "default": [ONE, TWO], "long": [TWO, TWO]}


@pytest.mark.parametrize(
    ("max_epochs", "taken", "beyond"),
    [
        (None, ["default", "head", "short", "long"], {}),
        (8, ["default", "head", "short", "long"], {}),  # 3 + 0 + 1 + 4
        (7, ["default", "head", "short"], {"plan_long": 4}),
        (4, ["default", "head", "short"], {"plan_long": 4}),
        (3, ["default", "head"], {"plan_short": 1, "plan_long": 4}),
        (1, ["default", "head"], {"plan_short": 1, "plan_long": 4}),  # the default is run whatever it takes
    ],
)
def test_plans_are_taken_while_their_epochs_last(max_epochs: int | None, taken: list[str], beyond: dict) -> None:
    found, left_out = within_budget(PLANS, "default", max_epochs)
    assert found == taken
    assert left_out == {name: f"its {n} epochs go beyond max_plan_epochs ({max_epochs})" for name, n in beyond.items()}


def test_a_short_plan_may_follow_a_long_one_that_is_left_out() -> None:
    found, left_out = within_budget({"default": [ONE], "long": [TWO, TWO], "short": [ONE]}, "default", 2)
    assert found == ["default", "short"]
    assert list(left_out) == ["plan_long"]
