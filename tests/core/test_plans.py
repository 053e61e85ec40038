"""Plans: phases in order on one network, and finished runs that are kept."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tasks.core import plans, training
from tasks.core.batches import ImageList
from tasks.core.features import Features
from tasks.core.images import ImageFiles
from tasks.core.model import ImageModel, SmallResNet, split_head
from tasks.core.plans import run_once, run_plan
from tasks.core.training import FitSettings, HeadPhase, Job, NetPhase, probabilities

SETTINGS = FitSettings(batch_size=6, label_smoothing=0.0, weight_decay=0.01, evaluate_every=1, seed=0, device="cpu")
PLAN = [
    HeadPhase(0.5), NetPhase("last_block", 2, 0.01, 1.0, "train"), NetPhase("all", 2, 0.005, 0.7, "train")
]  # fmt: skip


def small_model() -> ImageModel:
    torch.manual_seed(0)
    return split_head(SmallResNet(3, width=4), 3)


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
    history = run_plan(model, PLAN[:1], job=job, settings=SETTINGS, features=features)
    x_ND, y_N = features.x_ND[:30], np.array(job.images.labels * 2)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=1000)).fit(x_ND, y_N)
    found = probabilities(model, job.images, 4, "cpu")
    assert found == pytest.approx(probe.predict_proba(x_ND[:15]), abs=1e-4)
    assert history[0]["phase"] == "0-head"
    assert history[0]["val_accuracy"] == pytest.approx(probe.score(x_ND[:15], y_N[:15]), abs=1e-6)
    expected_loss = -np.log(probe.predict_proba(x_ND)[np.arange(30), y_N]).mean()
    assert history[0]["loss"] == pytest.approx(expected_loss, abs=1e-4)


def test_phases_run_in_their_order(job: Job, features: Features) -> None:
    history = run_plan(small_model(), PLAN, job=job, settings=SETTINGS, features=features)
    assert [(row["phase"], row["epoch"]) for row in history] == [
        ("0-head", 1), ("1-last_block", 1), ("1-last_block", 2), ("2-all", 1), ("2-all", 2),
    ]  # fmt: skip


@pytest.mark.parametrize("killed_at_step", [4, 8])
def test_a_plan_killed_in_any_phase_ends_with_the_same_bytes(
    job: Job, features: Features, monkeypatch, tmp_path: Path, killed_at_step: int
) -> None:
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    whole, resumed, n_views_seen = small_model(), small_model(), 0

    def dying_view(image: np.ndarray, image_id: str, epoch: int) -> np.ndarray:
        nonlocal n_views_seen
        n_views_seen += 1
        if n_views_seen == 6 * killed_at_step:
            raise KeyboardInterrupt
        return turned(image, image_id, epoch)

    how = {"settings": SETTINGS, "features": features}
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
        return run_plan(model, PLAN, job=job, settings=SETTINGS, features=features)

    def never(_model: ImageModel) -> plans.History:
        raise AssertionError("trained twice")

    first = run_once(tmp_path / "done", "full", small_model, train)
    second = run_once(tmp_path / "done", "full", small_model, never)
    assert first.history == second.history
    states = zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in states)


def test_a_run_without_its_history_is_not_whole(tmp_path: Path) -> None:
    run_once(tmp_path, "full", small_model, lambda _model: [{"epoch": 1}])
    (tmp_path / "full.json").unlink()
    again = run_once(tmp_path, "full", small_model, lambda _model: [{"epoch": 2}])
    assert again.history == [{"epoch": 2}]
    assert json.loads((tmp_path / "full.json").read_text()) == [{"epoch": 2}]
