"""Methods that learn from two domains, in the real training loop: they run, tell their figures, and survive a kill."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.core.adaptation.dann import Dann
from tasks.core.adaptation.deep_coral import DeepCoral
from tasks.core.adaptation.fixmatch import FixMatch
from tasks.core.adaptation.mcc import Mcc
from tasks.core.adaptation.two_domains import Labels
from tasks.core.batches import ImageList
from tasks.core.images import ImageFiles
from tasks.core.model import ImageModel, SmallResNet, split_head
from tasks.core.objective import Objective
from tasks.core.phases import FitSettings, Job, NetPhase
from tasks.core.training import fit_phase

SETTINGS = FitSettings(
    batch_size=6, weight_decay=0.01, evaluate_every=9, seed=0, device="cpu", ema_decay=None, l2_sp=0, dropout=0.2,
    precision="float32", compile=False, accumulate=1,
)  # fmt: skip
PHASE = NetPhase("all", 4, 0.01, 1.0, "train", "one_cycle", 0.3, None)
FIGURES = {
    "mcc": {"labelled_loss", "class_confusion"},
    "deep_coral": {"labelled_loss", "coral_distance"},
    "dann": {"labelled_loss", "domain_loss", "discriminator_accuracy"},
    "fixmatch": {"labelled_loss", "strong_loss", "used_share", "lowest_threshold"},
}
N_SOURCE, N_TARGET = 10, 17


def method_of(name: str, model: ImageModel, source: ImageList) -> Objective:
    labels = Labels(source.labels_at(range(len(source))), 0.1)
    if name == "mcc":
        return Mcc(labels, weight=1.0, temperature=2.5)
    if name == "deep_coral":
        return DeepCoral(labels, weight=1.0)
    if name == "dann":
        return Dann(labels, n_features=32, weight=1.0, seed=0)
    return FixMatch(labels, model, n_unlabelled=N_TARGET, weight=1.0, threshold=0.5, decay=0.9)


def image_list(folder: Path, name: str, n: int) -> ImageList:
    rng, paths = np.random.default_rng(n), tuple(f"{name}{k}.png" for k in range(n))
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / path)
    labels = tuple(k % 3 for k in range(n)) if name == "source" else (-1,) * n
    return ImageList(ImageFiles(folder, 16), paths, paths, labels, (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("name", list(FIGURES))
def test_a_killed_run_ends_with_the_same_bytes(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tasks.core.checkpoints.SECONDS_BETWEEN_CHECKPOINTS", 0)
    source, target = image_list(tmp_path, "source", N_SOURCE), image_list(tmp_path, "target", N_TARGET)

    def train(folder: str, killed_in_epoch: int | None) -> tuple[dict[str, torch.Tensor], list[dict]]:
        torch.manual_seed(0)
        model = split_head(SmallResNet(3, width=4), 3)

        def view(image: np.ndarray, _image_id: str, epoch: int) -> np.ndarray:
            if killed_in_epoch is not None and epoch >= killed_in_epoch:
                raise KeyboardInterrupt
            return np.roll(image, epoch, 0)

        none = ImageList(source.files, (), (), (), source.mean, source.std)
        job = Job("run", source, none, view, tmp_path / folder, unlabelled=target)
        method = method_of(name, model, source)
        history = fit_phase(model, PHASE, job=job, settings=SETTINGS, objective=method)
        extra = method.extra()
        return model.state_dict() | {f"extra.{k}": v for k, v in (extra.state_dict() if extra else {}).items()}, history

    whole, history = train("whole", None)
    with pytest.raises(KeyboardInterrupt):
        train("killed", 3)
    assert list((tmp_path / "killed").iterdir())
    resumed, resumed_history = train("killed", None)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert resumed_history == history
    assert {part.split("=")[0].strip() for part in history[-1]["figures"].split(";")} == FIGURES[name]
