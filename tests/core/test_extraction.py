"""Extraction: the same bytes with and without cache, after a kill, for any number of threads; memory that runs out is no end."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tasks.core.batches import ImageList
from tasks.core.extraction import Pass, Sight, extract, is_independent, n_workers, sight_of
from tasks.core.features import row_file
from tasks.core.features_cache import FeaturesCache
from tasks.core.images import ImageFiles
from tasks.core.model import SmallResNet, network, split_head

N = 11


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCLIMATE_HOME", str(tmp_path / "home"))


@pytest.fixture
def sight(tmp_path: Path) -> Sight:
    rng, paths = np.random.default_rng(0), tuple(f"{k}.png" for k in range(N))
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / path)
    ids = tuple("abcdefghijk")
    images = ImageList(ImageFiles(tmp_path, 32), ids, paths, (0,) * N, (0.5,) * 3, (0.5,) * 3)
    return Sight(images, tuple(f"content of {i}" for i in ids), np.arange(N), np.zeros(N, int), turned, "turned")


def turned(image: np.ndarray, _image_id: str, epoch: int) -> np.ndarray:
    return np.rot90(image, epoch + 1)


def backbone() -> nn.Module:
    torch.manual_seed(0)
    return split_head(SmallResNet(3, width=4), 3).backbone


def cut(sight: Sight, n: int) -> Sight:
    return Sight(sight.images, sight.content_ids, sight.position[:n], sight.view[:n], sight.show, sight.show_key)


def run(
    tmp_path: Path, sight: Sight, net: nn.Module, batch_size: int = 4, key: str = "k", dtype: str = "float32"
) -> tuple[np.ndarray, Pass]:
    def open_cache(batch_size: int) -> FeaturesCache:
        return FeaturesCache(f"{key}-{batch_size}", 32, dtype)

    with row_file(tmp_path / "x.npy", len(sight), 32, dtype) as out:
        done = extract(net, sight, out, open_cache=open_cache, batch_size=batch_size, name="net")
    return np.load(tmp_path / "x.npy"), done


def test_features_are_those_of_the_eval_mode(sight: Sight, tmp_path: Path) -> None:
    found, done = run(tmp_path, sight, backbone().train())
    with torch.no_grad():
        expected = backbone().eval()(sight.images.batch(range(N))).numpy()
    assert found == pytest.approx(expected, abs=1e-5)
    assert done == Pass(N, 0, 4)


def test_views_follow_the_plain_images_epoch_after_epoch(sight: Sight, tmp_path: Path) -> None:
    both = sight_of(sight, np.array([2, 7]), 2)
    assert list(zip(both.position[N:].tolist(), both.view[N:].tolist(), strict=True)) == [
        (2, 1),
        (7, 1),
        (2, 2),
        (7, 2),
    ]
    found, _ = run(tmp_path, both, backbone())
    with torch.no_grad():
        expected = [backbone().eval()(sight.images.batch([2, 7], turned, epoch)).numpy() for epoch in (0, 1)]
    assert found[N:] == pytest.approx(np.concatenate(expected), abs=1e-5)


def test_only_what_is_new_is_computed_and_the_bytes_are_those_of_one_run(sight: Sight, tmp_path: Path) -> None:
    both = sight_of(sight, np.array([0, 3]), 1)
    whole, _ = run(tmp_path, both, backbone(), key="apart")
    _, first = run(tmp_path, cut(both, 5), backbone())
    found, second = run(tmp_path, both, backbone())
    again, third = run(tmp_path, both, backbone())
    assert [(d.n_computed, d.n_known) for d in (first, second, third)] == [(5, 0), (8, 5), (0, 13)]
    assert found.tobytes() == again.tobytes() == whole.tobytes()


def test_a_known_view_needs_the_same_policy(sight: Sight, tmp_path: Path) -> None:
    both = sight_of(sight, np.array([0, 3]), 1)
    run(tmp_path, both, backbone())
    other = Sight(both.images, both.content_ids, both.position, both.view, turned, "another policy")
    assert run(tmp_path, other, backbone())[1] == Pass(2, N, 4)


class Dying(nn.Module):
    def __init__(self, n_calls: int) -> None:
        super().__init__()
        self.inner, self.n_calls = backbone(), n_calls

    def forward(self, x_NCHW: Tensor) -> Tensor:
        self.n_calls -= 1
        if not self.n_calls:
            raise KeyboardInterrupt
        return self.inner(x_NCHW)


def test_a_run_that_was_stopped_continues_with_the_same_bytes(sight: Sight, tmp_path: Path) -> None:
    whole, _ = run(tmp_path, sight, backbone(), key="apart")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, sight, Dying(4))
    found, done = run(tmp_path, sight, backbone())
    assert (done.n_computed, done.n_known) == (3, 8)
    assert found.tobytes() == whole.tobytes()


@pytest.mark.parametrize("threads", ["1", "3"])
def test_the_number_of_threads_changes_nothing(
    sight: Sight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: str
) -> None:
    both = sight_of(sight, np.array([0, 3]), 3)
    whole, _ = run(tmp_path, both, backbone(), batch_size=2, key="apart")
    monkeypatch.setenv("ACCLIMATE_WORKERS", threads)
    assert run(tmp_path, both, backbone(), batch_size=2)[0].tobytes() == whole.tobytes()


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", ""])
def test_a_number_of_threads_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("ACCLIMATE_WORKERS", text)
    with pytest.raises(ValueError, match=r"ACCLIMATE_WORKERS is .*; set it to a whole number from 1 on"):
        n_workers()


class Narrow(nn.Module):
    """Has no room for more than `room` images at once."""

    def __init__(self, room: int, error: Exception) -> None:
        super().__init__()
        self.inner, self.room, self.error = backbone(), room, error

    def forward(self, x_NCHW: Tensor) -> Tensor:
        if len(x_NCHW) > self.room:
            raise self.error
        return self.inner(x_NCHW)


NO_ROOM = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to …"),
    MemoryError(),
]


@pytest.mark.parametrize("error", NO_ROOM)
def test_where_memory_runs_out_all_is_done_with_smaller_batches(sight: Sight, tmp_path: Path, error: Exception) -> None:
    small, _ = run(tmp_path, sight, backbone(), batch_size=2, key="apart")
    found, done = run(tmp_path, sight, Narrow(3, error), batch_size=8)
    assert done == Pass(N, 0, 2)
    assert found.tobytes() == small.tobytes()
    assert run(tmp_path, sight, Narrow(3, error), batch_size=8)[1] == Pass(0, N, 2)


def test_no_room_for_one_image_is_said(sight: Sight, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="memory runs out for a single image"):
        run(tmp_path, sight, Narrow(0, NO_ROOM[0]), batch_size=8)


def test_another_error_is_not_taken_for_lack_of_memory(sight: Sight, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run(tmp_path, sight, Narrow(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied")))


class Companions(nn.Module):
    """What an image gets depends on the others."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = backbone()

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.inner(x_NCHW) + x_NCHW.mean()


def test_a_network_whose_rows_depend_on_their_companions_is_never_cached(sight: Sight, tmp_path: Path) -> None:
    for _ in range(2):
        done = run(tmp_path, sight, Companions())[1]
        assert (done.n_computed, done.n_known) == (N, 0)
        assert done.problem == "this network gives an image other last bits beside other images"


@pytest.mark.parametrize("architecture", ["acclimate.small_resnet", "torchvision.mobilenet_v2"])
def test_rows_do_not_depend_on_their_companions(architecture: str) -> None:
    torch.manual_seed(0)
    net = split_head(network(architecture, 2), 2).backbone.eval().to(memory_format=torch.channels_last)
    x_NCHW = torch.randn(8, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert is_independent(net, x_NCHW, net(x_NCHW))


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.inner, self.factor = backbone(), factor

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.inner(x_NCHW) * self.factor


@pytest.mark.parametrize(
    ("factor", "message"),
    [(1e7, "float16 ends at 65504; set extract_features.dtype to float32"), (float("nan"), "no finite numbers")],
)
def test_features_that_cannot_be_stored_are_refused(sight: Sight, tmp_path: Path, factor: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(tmp_path, sight, Scaled(factor), dtype="float16")


def test_no_images_are_no_rows(sight: Sight, tmp_path: Path) -> None:
    found, done = run(tmp_path, cut(sight, 0), backbone())
    assert (found.shape, done.n_computed) == ((0, 32), 0)
