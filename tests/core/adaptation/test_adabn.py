"""AdaBN: statistics against numpy's of all activations together, and nothing else changed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tasks.core.adaptation.adabn import (
    PRIOR_IMAGES,
    Moments,
    adapt_batch_norm,
    batch_norm_layers,
    statistics_kept,
)
from tasks.core.batches import ImageList
from tasks.core.images import ImageFiles
from tasks.core.model import ImageModel, SmallResNet, split_head

N_IMAGES = 22


@pytest.fixture
def images(tmp_path: Path) -> ImageList:
    """Sorted: each image is brighter than the one before."""
    rng = np.random.default_rng(0)
    paths = [f"{k}.png" for k in range(N_IMAGES)]
    for k, path in enumerate(paths):
        Image.fromarray(rng.integers(9 * k, 9 * k + 40, (16, 16, 3), dtype=np.uint8)).save(tmp_path / path)
    ids = tuple(f"id{k}" for k in range(N_IMAGES))
    return ImageList(ImageFiles(tmp_path, 16), ids, tuple(paths), (-1,) * N_IMAGES, (0.5,) * 3, (0.5,) * 3)


def one_norm() -> ImageModel:
    torch.manual_seed(0)
    return ImageModel(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()), nn.Linear(4 * 14 * 14, 2))


def small_model() -> ImageModel:
    torch.manual_seed(0)
    return split_head(SmallResNet(3, width=4), 3)


def mixed(source: float, target_K: np.ndarray) -> list[float]:
    """64 parts source to N_IMAGES parts target."""
    return pytest.approx((64 * source + N_IMAGES * target_K) / (64 + N_IMAGES), rel=1e-5, abs=1e-6)


def test_statistics_are_those_of_all_images_together(images: ImageList) -> None:
    model = one_norm()
    with torch.no_grad():
        given = model.backbone[0](images.batch(range(N_IMAGES))).double().numpy()
    assert adapt_batch_norm(model, images, 5, "cpu") == 1
    assert PRIOR_IMAGES == 64
    assert model.backbone[1].running_mean.tolist() == mixed(0, given.mean((0, 2, 3)))
    assert model.backbone[1].running_var.tolist() == mixed(1, given.var((0, 2, 3), ddof=1))


def test_the_average_of_the_batches_variances_would_be_too_small(images: ImageList) -> None:
    """What torch's own cumulative average gives on the sorted images: the variance between the batches is lost."""
    model, ours = one_norm(), one_norm()
    model.backbone[1].momentum = None
    with torch.no_grad():
        for k in range(0, N_IMAGES, 2):
            model.train()(images.batch(range(k, k + 2)))
        found = ours.backbone[0](images.batch(range(N_IMAGES))).numpy().var((0, 2, 3), ddof=1)
    assert (model.backbone[1].running_var.numpy() < 0.9 * found).all()


@pytest.mark.parametrize("sizes", [(3, 1, 4), (8,), (1, 7)])
def test_moments_of_batches_add_up(sizes: tuple[int, ...]) -> None:
    x = torch.randn(8, 3, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.double) * 3 + 1000
    moments = Moments.none_yet(3, "cpu")
    for part in x.split(list(sizes)):
        moments.add(part)
    assert moments.n == 32
    assert moments.mean_K.tolist() == pytest.approx(x.numpy().mean((0, 2, 3)), rel=1e-6)
    assert moments.var_K.tolist() == pytest.approx(x.numpy().var((0, 2, 3), ddof=1), rel=1e-4)


def test_deeper_layers_see_images_normalised_by_the_target(images: ImageList) -> None:
    """One batch of all images: exactly what train mode normalises by, in every layer."""
    model, expected = small_model(), small_model()
    for layer in batch_norm_layers(expected):
        layer.momentum = 1.0
    with torch.no_grad():
        expected.train().features(images.batch(range(N_IMAGES)))
    assert adapt_batch_norm(model, images, N_IMAGES, "cpu") == 12
    for layer, other in zip(batch_norm_layers(model), batch_norm_layers(expected), strict=True):
        assert layer.running_mean.tolist() == mixed(0, other.running_mean.numpy())
        assert layer.running_var.tolist() == mixed(1, other.running_var.numpy())


def test_nothing_but_statistics_changes(images: ImageList) -> None:
    model, before = small_model(), small_model()
    model.backbone.stem.eval()
    modes = [part.training for part in model.modules()]
    adapt_batch_norm(model, images, 8, "cpu")
    now, then = model.state_dict(), before.state_dict()
    changed = {name for name in now if not torch.equal(now[name], then[name])}
    assert changed == {name for name in now if "running" in name}
    assert [part.training for part in model.modules()] == modes
    assert not any(part._forward_pre_hooks for part in model.modules())
    assert all(layer.track_running_stats for layer in batch_norm_layers(model))


def test_dropout_is_off_and_the_same_images_give_the_same_bytes(images: ImageList) -> None:
    found = []
    for seed in range(2):
        model = one_norm()
        model.backbone = nn.Sequential(nn.Dropout(0.5), *model.backbone)
        torch.manual_seed(seed)
        adapt_batch_norm(model.train(), images, 5, "cpu")
        found.append(model.backbone[2].running_var.tolist())
    assert found[0] == found[1]


def test_no_batch_is_too_small_to_be_normalised() -> None:
    """7 images in batches of 3 would leave one alone, and a layer without extent has no variance of one image."""

    class Numbers:
        def __len__(self) -> int:
            return 7

        def batch(self, indices: list[int]) -> Tensor:
            seen.append(sorted(indices))
            return torch.tensor(indices).float()[:, None]

    seen: list[list[int]] = []
    model = ImageModel(nn.Sequential(nn.BatchNorm1d(1)), nn.Linear(1, 2))
    adapt_batch_norm(model, Numbers(), 3, "cpu")  # type: ignore[arg-type]
    assert sorted(len(batch) for batch in seen) == [2, 2, 3]
    assert sorted(k for batch in seen for k in batch) == list(range(7))
    assert seen[0] != [0, 1, 2]  # a folder's order may be sorted by class
    assert model.backbone[0].running_mean.item() == pytest.approx(7 * 3 / 71)


@pytest.mark.parametrize(
    "layers", [[nn.LayerNorm(4)], [nn.GroupNorm(2, 4)], [nn.BatchNorm1d(4, track_running_stats=False)]]
)
def test_without_running_statistics_it_does_nothing(images: ImageList, layers: list[nn.Module]) -> None:
    assert adapt_batch_norm(ImageModel(nn.Sequential(*layers), nn.Linear(4, 2)), images, 8, "cpu") == 0


def test_one_image_is_refused(images: ImageList) -> None:
    one = ImageList(images.files, ("id0",), ("0.png",), (-1,), images.mean, images.std)
    message = r"AdaBN was given 1 target image\(s\); at least 2 are needed for a variance: give it more images"
    with pytest.raises(ValueError, match=message):
        adapt_batch_norm(small_model(), one, 8, "cpu")


def test_statistics_are_kept_and_the_batchs_own_are_used(images: ImageList) -> None:
    model, x = small_model().train(), images.batch(range(8))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        with statistics_kept(model):
            kept = model(x)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert torch.equal(model(x), kept)
    assert not torch.equal(model.backbone.stem[1].running_mean, before["backbone.stem.1.running_mean"])
