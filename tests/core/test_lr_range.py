"""The range test: where it points on curves whose answer is known, and that it leaves everything as it was."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tasks.core.batches import ImageList
from tasks.core.images import ImageFiles
from tasks.core.lr_range import LrRange, Sweep, found, lr_range
from tasks.core.model import ImageModel, SmallResNet, split_head
from tasks.core.objective import Batch, Objective
from tasks.core.phases import FitSettings, Job, NetPhase
from tasks.core.regularisers import Supervised

RATES = np.geomspace(1e-6, 1, 61)  # ten to a decade
PHASE = NetPhase("all", 3, 0.01, 0.5, "train", "one_cycle", 0.3, None)
SETTINGS = FitSettings(
    batch_size=8, weight_decay=0.0, evaluate_every=2, seed=3, device="cpu", ema_decay=None, l2_sp=0.0, dropout=0.0,
    precision="float32", compile=False, accumulate=1,
)  # fmt: skip


@pytest.fixture
def job(tmp_path: Path) -> Job:
    rng, paths = np.random.default_rng(0), [f"{k}.png" for k in range(20)]
    for k, path in enumerate(paths):
        pixels = rng.integers(0, 120, (16, 16, 3), dtype=np.uint8)
        pixels[:, :, k % 2] += 100
        Image.fromarray(pixels).save(tmp_path / path)
    ids, labels = tuple(f"id{k}" for k in range(20)), tuple(k % 2 for k in range(20))
    images = ImageList(ImageFiles(tmp_path, 16), ids, tuple(paths), labels, (0.5,) * 3, (0.25,) * 3)
    return Job("run", images, images, lambda image, _id, _epoch: image, tmp_path / "state")


def small_model() -> ImageModel:
    torch.manual_seed(0)
    return split_head(SmallResNet(2, width=4), 2)


def labels_of(job: Job) -> Tensor:
    return torch.tensor(job.images.labels)


def state(module: nn.Module) -> dict[str, bytes]:
    return {name: t.detach().contiguous().numpy().tobytes() for name, t in module.state_dict().items()}


# what a curve says


def falling(centre: float) -> np.ndarray:
    """From 2 to 1 nat in a decade, fastest at the centre."""
    return 1.5 - 0.5 * np.tanh(3 * np.log10(RATES / centre))


@pytest.mark.parametrize("centre", [1e-4, 1e-3])
def test_it_finds_the_steepest_rate(centre: float) -> None:
    swept = found(RATES, falling(centre))
    assert swept.steepest == pytest.approx(centre, rel=1e-6)
    assert swept.diverging is None
    assert swept.suggested == swept.steepest
    assert swept.reason.startswith(f"the loss falls fastest at the learning rate {centre:.3g}: the loss fell by ")
    assert list(swept.table.columns) == ["lr", "loss", "smoothed_loss"]
    assert swept.table["lr"].tolist() == RATES.tolist()


def test_noise_moves_it_by_less_than_half_a_decade() -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        swept = found(RATES, falling(1e-3) + rng.normal(0, 0.1, len(RATES)))
        assert swept.steepest is not None
        assert abs(math.log10(swept.steepest / 1e-3)) < 0.5


@pytest.mark.parametrize("exploded", [4.1, 1e30, math.inf, math.nan])
def test_it_stops_where_the_loss_explodes_and_stays_a_decade_below(exploded: float) -> None:
    losses = falling(1e-3)
    losses[36] = exploded  # 10^-2.4; the first loss is 2, so that 4 is the most
    losses[37:] = 1e9
    swept = found(RATES, losses)
    assert swept.diverging == pytest.approx(10**-2.4)
    assert swept.suggested == pytest.approx(10**-3.4)
    assert len(swept.table) == 37
    assert np.isfinite(swept.table["smoothed_loss"]).all()


def test_a_loss_near_zero_may_rise_by_a_nat() -> None:
    losses = np.concatenate([np.linspace(0.1, 0.0, 40), np.full(21, 1.05)])
    assert found(RATES, losses).diverging is None
    losses[40:] = 1.15
    assert found(RATES, losses).diverging == RATES[40]


def test_a_steepest_rate_below_a_tenth_of_the_diverging_one_is_suggested() -> None:
    assert LrRange(found(RATES, falling(1e-4)).table, 1e-4, 1e-2, "").suggested == 1e-4


def test_a_loss_that_never_falls_is_a_finding() -> None:
    swept = found(RATES, np.linspace(1, 1.5, 61))
    assert (swept.steepest, swept.diverging, swept.suggested) == (None, None, None)
    assert swept.reason == (
        "no clear fall at any learning rate from 1e-06 to 1: the loss fell by 0, its noise is 0.00874"
    )  # steps of .5 / 60 over .954
    assert swept.table["loss"].tolist() == np.linspace(1, 1.5, 61).tolist()


def test_without_a_fall_not_even_the_diverging_rate_suggests_one() -> None:
    swept = found(RATES, np.where(np.arange(61) < 50, np.linspace(1, 1.5, 61), 9.0))
    assert swept.diverging == RATES[50]
    assert swept.suggested is None


def test_noise_alone_is_no_fall() -> None:
    rng = np.random.default_rng(5)
    n_without = sum(found(RATES, rng.normal(2, 0.1, len(RATES))).steepest is None for _ in range(50))
    assert n_without >= 46  # 5 in 100 pass


@pytest.mark.parametrize("first", [math.nan, math.inf])
def test_a_loss_that_is_no_number_at_the_start_is_refused(first: float) -> None:
    with pytest.raises(ValueError, match=f"the loss is {first} before the first step; look at the images and labels"):
        found(RATES, [first] * 61)


@pytest.mark.parametrize(
    ("sweep", "told"),
    [
        ((0.0, 1.0, 50), "the rates go from 0.0 to 1.0; the first must be above 0 and smaller"),
        ((1.0, 0.1, 50), "the rates go from 1.0 to 0.1; the first must be above 0 and smaller"),
        ((0.1, math.inf, 39),
         "the rates go from 0.1 to inf; the first must be above 0 and smaller; 39 steps are too few for a range test; "
         "take at least 40"),
    ],
)  # fmt: skip
def test_a_sweep_that_is_none_is_refused(sweep: tuple[float, float, int], told: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        Sweep(*sweep)


# on a network


def test_it_trains_at_the_rates_of_the_sweep_in_the_phases_proportions(job: Job) -> None:
    """Adam's first step is the rate itself, whatever the gradient; the stem stands four blocks below the last one."""
    seen: list[tuple[Tensor, Tensor]] = []

    class Watched(Supervised):
        def loss(self, model: ImageModel, batch: Batch, progress: float) -> Tensor:
            parts = (model.head.weight, model.backbone.stem[0].weight)
            seen.append(tuple(part.detach().clone() for part in parts))
            return super().loss(model, batch, progress)

    lr_range(
        small_model(), PHASE, job=job, settings=SETTINGS, objective=Watched(labels_of(job), 0.0),
        sweep=Sweep(1e-3, 1.0, 40),
    )  # fmt: skip
    (head, stem), (head_after, stem_after) = seen[:2]
    assert (head_after - head).abs().mean().item() == pytest.approx(1e-3, rel=1e-3)
    assert (stem_after - stem).abs().mean().item() == pytest.approx(1e-3 * 0.5**4, rel=1e-3)


def test_progress_goes_from_nothing_to_all(job: Job) -> None:
    told: list[float] = []

    class Watched(Supervised):
        def loss(self, model: ImageModel, batch: Batch, progress: float) -> Tensor:
            told.append(progress)
            return super().loss(model, batch, progress)

    objective = Watched(labels_of(job), 0.0)
    lr_range(
        small_model(), PHASE, job=job, settings=SETTINGS, objective=objective, sweep=Sweep(1e-4, 0.1, 40)
    )  # 3 steps an epoch: 14 epochs, 42 steps
    assert told == pytest.approx([step / 42 for step in range(40)])


class OwnHead(Objective):
    """With parameters and a buffer of its own, as DANN and FixMatch have them."""

    def __init__(self, labels_N: Tensor) -> None:
        self._plain = Supervised(labels_N, 0.0)
        self.own = nn.BatchNorm1d(2)

    def extra(self) -> nn.Module:
        return self.own

    def loss(self, model: ImageModel, batch: Batch, progress: float) -> Tensor:
        return self._plain.loss(model, batch, progress) + self.own(model(batch.x_NCHW)).square().mean()


def test_model_objective_and_random_numbers_stay_as_they_were(job: Job) -> None:
    model, objective = small_model(), OwnHead(labels_of(job))
    model.backbone.stem.eval()
    model.head.bias.requires_grad_(False)
    torch.manual_seed(11)
    before = (state(model), state(objective.own), [m.training for m in model.modules()], torch.get_rng_state().tolist())
    swept = lr_range(
        model, PHASE, job=job, settings=SETTINGS, objective=objective, sweep=Sweep(1e-5, 1.0, 40)
    )  # fmt: skip
    after = (state(model), state(objective.own), [m.training for m in model.modules()], torch.get_rng_state().tolist())
    assert before == after
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["head.bias"]
    assert all(p.grad is None for p in [*model.parameters(), *objective.own.parameters()])
    assert not job.checkpoint_folder.exists()
    assert swept.table["loss"].iloc[0] != swept.table["loss"].iloc[9]


def test_the_same_call_finds_the_same_table(job: Job) -> None:
    tables = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = small_model()
        torch.manual_seed(seed)
        objective = Supervised(labels_of(job), 0.1, mixup_alpha=0.2)
        tables.append(
            lr_range(model, PHASE, job=job, settings=SETTINGS, objective=objective, sweep=Sweep(1e-5, 0.1, 40)).table
        )
    assert tables[0].equals(tables[1])


def test_the_suggested_rate_learns_and_one_a_thousand_times_lower_does_not(job: Job) -> None:
    def swept(lowest: float, highest: float) -> LrRange:
        return lr_range(
            small_model(), PHASE, job=job, settings=SETTINGS, objective=Supervised(labels_of(job), 0.0),
            sweep=Sweep(lowest, highest, 40),
        )  # fmt: skip

    suggested = swept(1e-6, 10.0).suggested
    assert suggested is not None
    losses = swept(suggested, suggested * 1.001).table["loss"]
    assert losses.iloc[-5:].mean() < 0.3 * losses.iloc[0]
    assert swept(suggested / 1000, suggested / 999).suggested is None
