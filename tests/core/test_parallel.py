"""Two processes end with the weights of one. Run as a module, this file is what each of the processes does."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tasks.core import parallel
from tasks.core.batches import ImageList
from tasks.core.images import ImageFiles
from tasks.core.model import ImageModel, SmallResNet, split_head
from tasks.core.phases import FitSettings, Job, NetPhase
from tasks.core.regularisers import Supervised
from tasks.core.runtime import address_seed
from tasks.core.training import fit_phase

PROJECT = Path(__file__).parents[2]
FOLDER = "FOLDER_OF_THE_TEST"
N_IMAGES = 13
PHASE = NetPhase("all", 3, 0.01, 0.7, "frozen", "one_cycle", 0.3, 2)
SETTINGS = FitSettings(
    batch_size=5, weight_decay=0.05, evaluate_every=1, seed=3, device="cpu", ema_decay=0.9, l2_sp=0.01, dropout=0.0,
    precision="float32", compile=False, accumulate=1,
)  # fmt: skip
BATCHES = [[0, 1, 2, 3, 4], [5, 6, 7], [8]]  # the first has a share for each of two processes


def draw_images(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for k in range(N_IMAGES):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / f"{k}.png")


def rolled(image: np.ndarray, image_id: str, number: int) -> np.ndarray:
    return np.roll(image, address_seed(image_id, number) % 16, axis=1)


def trained(
    folder: Path, name: str, phase: NetPhase = PHASE, settings: FitSettings = SETTINGS, **of_the_loss: Any
) -> dict[str, Any]:
    """What a run ends with: 13 images in steps of 5, 5 and 3, of which two processes hold 3 + 2, 3 + 2 and 3 + 0."""
    ids, paths = tuple(f"id{k}" for k in range(N_IMAGES)), tuple(f"{k}.png" for k in range(N_IMAGES))
    labels = tuple(k % 3 for k in range(N_IMAGES))
    images = ImageList(ImageFiles(folder, 16), ids, paths, labels, (0.5,) * 3, (0.25,) * 3)
    job = Job(name, images, images, rolled, folder / f"state of {parallel.n_processes()}.{parallel.rank()}")
    model, objective = fresh_model(), Supervised(torch.tensor(labels), 0.1, **of_the_loss)
    history = fit_phase(model, phase, job=job, settings=settings, objective=objective)
    extra = objective.extra()
    return {
        "weights": model.state_dict(),
        "history": history,
        "extra": {} if extra is None else extra.state_dict(),
        "has_written": (job.checkpoint_folder / f"{name}.0.pt").exists(),
    }


def fresh_model() -> ImageModel:
    """With statistics as if it had been trained."""
    torch.manual_seed(0)
    model = split_head(SmallResNet(3, width=4), 3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return model


def gradients(batch: list[int]) -> list[Tensor | None]:
    """Of the mean of (k + 1) · weight over the batch; the second weight is reached by number 1 only, the third by none."""
    weights = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(1))]
    own = parallel.own_share(batch)
    if own:
        loss = sum((k + 1) * weights[0].sum() for k in own) / len(own)
        if 1 in own:
            loss = loss + weights[1].sum() / len(own)
        loss.backward()
    parallel.average_gradients(weights, len(own) / len(batch))
    return [weight.grad for weight in weights]


def in_a_process() -> None:
    device, folder = parallel.join("cpu"), Path(os.environ[FOLDER])
    rank = parallel.rank()
    norm = nn.BatchNorm1d(2)
    norm.running_mean.fill_(rank * 4)
    norm.num_batches_tracked.fill_(7 - rank)
    parallel.average_buffers(norm)
    result = {
        "run": trained(folder, "run"),
        "groups": trained(folder, "groups", groups_N=torch.arange(N_IMAGES) % 2, group_step=0.1),
        "batch norm": trained(folder, "norm", replace(PHASE, batch_norm="train")),
        "gradients": [gradients(batch) for batch in BATCHES],
        "shares": [parallel.own_share(batch) for batch in BATCHES],
        "sum": parallel.summed(torch.tensor([1.0, 10.0 * rank])),
        "means": norm.running_mean,
        "n_batches": norm.num_batches_tracked,
        "place": [parallel.is_first(), parallel.n_processes(), device],
    }
    torch.save(result, folder / f"{rank}.pt")
    parallel.leave()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    draw_images(folder)
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> list[dict[str, Any]]:
    """What each of two processes saved."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{PROJECT}{os.pathsep}{Path(__file__).parent}")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv(FOLDER, str(folder))
        assert parallel.launch(2, Path(__file__).stem) == 0
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_two_processes_end_with_the_weights_of_one(results: list[dict[str, Any]], folder: Path) -> None:
    both, alone, start = results[0]["run"], trained(folder, "run"), fresh_model().state_dict()
    for name, expected in alone["weights"].items():
        torch.testing.assert_close(both["weights"][name], expected, atol=1e-5, rtol=0)
    assert all(not torch.equal(alone["weights"][name], start[name]) for name, _ in fresh_model().named_parameters())
    assert len(both["history"]) == len(alone["history"])
    for found, expected in zip(both["history"], alone["history"], strict=True):
        numbers = {name: value for name, value in expected.items() if isinstance(value, float)}
        assert {name: found[name] for name in numbers} == pytest.approx(numbers, abs=1e-5)


@pytest.mark.parametrize("run", ["run", "groups", "batch norm"])
def test_the_processes_agree_to_the_byte_and_one_of_them_writes(results: list[dict[str, Any]], run: str) -> None:
    first, second = (result[run] for result in results)
    for kind in ("weights", "extra"):
        assert all(torch.equal(first[kind][name], second[kind][name]) for name in first[kind])
    assert first["history"] == second["history"]
    assert [first["has_written"], second["has_written"]] == [True, False]


def test_group_weights_move_by_the_whole_batch(results: list[dict[str, Any]]) -> None:
    (weights,) = results[0]["groups"]["extra"].values()
    assert weights.exp().sum().item() == pytest.approx(1)
    assert weights[0] != weights[1]


def test_gradients_are_weighted_by_images(results: list[dict[str, Any]]) -> None:
    """The mean of k + 1 is 3, 7 and 9. Number 1 is one of five; a weight that nothing reached has no gradient: zeros
    would let it decay."""
    for result in results:
        firsts, seconds, thirds = zip(*result["gradients"], strict=True)
        assert [grad.flatten().tolist() for grad in firsts] == [pytest.approx([mean] * 4) for mean in (3, 7, 9)]
        assert seconds[0].tolist() == pytest.approx([0.2] * 3)
        assert [seconds[1], seconds[2], *thirds] == [None] * 5


def test_each_image_of_a_batch_is_in_one_share_and_none_is_alone(results: list[dict[str, Any]]) -> None:
    assert [result["shares"] for result in results] == [[[0, 2, 4], [5, 6, 7], [8]], [[1, 3], [], []]]


def test_sums_and_mean_statistics_are_those_of_both_and_counts_of_the_first(results: list[dict[str, Any]]) -> None:
    for result in results:
        assert result["sum"].tolist() == [2, 10]
        assert result["means"].tolist() == [2, 2]
        assert result["n_batches"].item() == 7


def test_each_process_knows_its_place(results: list[dict[str, Any]]) -> None:
    assert [result["place"] for result in results] == [[True, 2, "cpu"], [False, 2, "cpu"]]


def test_where_one_process_fails_the_others_are_stopped_and_its_sentence_stands_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "failing.py").write_text(
        "import os, sys, time\n"
        "if os.environ['RANK'] == '0':\n    time.sleep(600)\n"
        "print('error: a sentence', file=sys.stderr)\nsys.exit(3)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert parallel.launch(2, "failing") == 3
    assert capfd.readouterr().err == "error: a sentence\n"


def test_one_process_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert parallel.join("cpu") == "cpu"
    weight = nn.Parameter(torch.tensor([1.0]))
    (3 * weight).sum().backward()
    parallel.average_gradients([weight], 0.5)
    assert weight.grad.tolist() == [3]
    norm = nn.BatchNorm1d(2)
    parallel.average_buffers(norm)
    assert norm.running_var.tolist() == [1, 1]
    assert parallel.own_share(range(3)) == [0, 1, 2]
    assert (parallel.n_processes(), parallel.rank(), parallel.is_first()) == (1, 0, True)
    parallel.leave()


def test_half_an_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in parallel.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(
        ValueError,
        match=r"WORLD_SIZE is 2 but LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set; start the processes with torchrun",
    ):
        parallel.join("cpu")


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in parallel.VARIABLES:
        monkeypatch.setenv(name, str(torch.cuda.device_count()))
    monkeypatch.setenv("WORLD_SIZE", "99")
    with pytest.raises(ValueError, match=r"has no GPU of its own: torch sees \d+; start at most as many processes"):
        parallel.join("cuda")


if __name__ == "__main__":
    in_a_process()
