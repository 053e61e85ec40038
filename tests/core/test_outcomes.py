"""Outcomes: which labels a figure rests on, what the champion is shown, and a table that holds no label."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from made_workshop import Row, made_workshop

from tasks.core.batches import ImageList
from tasks.core.bundle import write_bundle
from tasks.core.champion import champion_probabilities
from tasks.core.files import write_json
from tasks.core.images import ImageFiles
from tasks.core.method_choice import SOURCE_ONLY
from tasks.core.model import ImageModel, SmallResNet, save_weights, split_head
from tasks.core.outcomes import (
    Outcome,
    Sample,
    against_scratch,
    calibration_of,
    chosen_method,
    foreignness_of,
    held_out_table,
    is_right,
    label_shift_of,
    outcomes_of,
    with_mixval,
)
from tasks.core.workshop import Workshop

ROWS: list[Row] = [
    *((f"s{k}", "source", "train", "ab"[k % 2], "") for k in range(10)),
    *((f"w{k}", "source", "val", "ab"[k % 2], "") for k in range(4)),
    ("h0", "target", "holdout", "", ""), ("v0", "target", "val", "a", ""), ("g0", "target", "guard", "", ""),
    ("v1", "target", "val", "b", ""), ("t0", "target", "train", "a", ""), ("x0", "target", "test", "", ""),
]  # fmt: skip


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return made_workshop(tmp_path, ROWS)


def images(labels: list[int]) -> ImageList:
    """Images that nobody opens."""
    names = tuple(f"i{k}" for k in range(len(labels)))
    return ImageList(None, names, names, tuple(labels), (), ())  # type: ignore[arg-type]


def said(guess: list[int], sure: float = 0.9) -> np.ndarray:
    """(N, 2) probabilities."""
    return np.where(np.arange(2) == np.array(guess, int).reshape(-1, 1), sure, 1 - sure)


def sample(source: list[int], target: list[int], n_held_out: int = 0) -> Sample:
    rows = pd.DataFrame({"image_id": [f"i{k}" for k in range(n_held_out)], "split": "holdout"})
    return Sample(images(source), images(target), rows, images([-1] * n_held_out))


def outcome(source: np.ndarray, target: np.ndarray, held_out: np.ndarray | None = None) -> Outcome:
    """Source images are labelled a and b in turn."""
    right_V = source.argmax(1) == np.arange(len(source)) % 2
    return Outcome(source, target if held_out is None else held_out, target, right_V)


@pytest.mark.parametrize(
    ("n_source", "n_target", "on"),
    [(60, 49, "source"), (60, 50, "target"), (10, 0, "source"), (9, 49, "target"), (9, 10, "target"), (9, 9, None)],
)
def test_calibration_rests_on_target_labels_from_50_on(n_source: int, n_target: int, on: str | None) -> None:
    """Every fourth is wrong on the source, every fifth on the target, at a confidence of .9."""
    source_y, target_y = ([k % 2 for k in range(n)] for n in (n_source, n_target))
    source_NC = said([y if k % 4 else 1 - y for k, y in enumerate(source_y)])
    target_NC = said([y if k % 5 else 1 - y for k, y in enumerate(target_y)])
    found = calibration_of(outcome(source_NC, target_NC), sample(source_y, target_y), accuracy=0.9, confidence=0.95)
    if on is None:
        assert found is None
        return
    assert found is not None
    n, every = (n_target, 5) if on == "target" else (n_source, 4)
    assert (found["on"], found["temperature"]["n"]) == (on, n)
    # the best temperature makes the confidence the accuracy: log odds 9 : 1 over T = log odds of being right
    n_wrong = -(-n // every)
    assert found["temperature"]["value"] == pytest.approx(math.log(9) / math.log((n - n_wrong) / n_wrong), abs=1e-6)
    assert found["ask_below"]["threshold"] is None  # .75 and .8 are not shown to be .9
    assert found["ask_below"]["accuracy"]["value"] == pytest.approx(1 - n_wrong / n)


def test_a_target_of_other_class_sizes_is_seen_where_nothing_is_misread() -> None:
    y_N = [0, 1] * 50
    source_NC, mixed = said(y_N, 0.99), sample(y_N, [], 100)
    same = label_shift_of(outcome(source_NC, said([]), said(y_N, 0.99)), mixed, ["a", "b"], confidence=0.95, seed=0)
    assert same is not None
    assert not same.suspected
    all_a = outcome(source_NC, said([]), said([0] * 100, 0.99))
    found = label_shift_of(all_a, mixed, ["a", "b"], confidence=0.95, seed=0)
    assert found is not None
    assert found.suspected
    assert found.prior_C == pytest.approx([1, 0])
    assert found.least_shift.value == pytest.approx(0.5)  # half of the images


@pytest.mark.parametrize(("n_source", "n_held_out"), [(0, 5), (5, 0)])
def test_without_images_on_a_side_nothing_is_said_of_class_sizes(n_source: int, n_held_out: int) -> None:
    found = outcome(said([0] * n_source), said([]), said([0] * n_held_out))
    seen = sample([0] * n_source, [], n_held_out)
    assert label_shift_of(found, seen, ["a", "b"], confidence=0.95, seed=0) is None


def test_the_table_has_a_row_per_model_and_image_and_no_label() -> None:
    rows = pd.DataFrame({
        "image_id": ["x", "y"], "split": ["val", "guard"], "label": ["a", "b"], "path": ["p", "q"], "audit_site": ["n", "s"],
    })  # fmt: skip
    seen = replace(sample([], []), held_out_rows=rows)
    probs = {"one": np.array([[0.75, 0.25], [1 / 3, 2 / 3]]), "two": np.array([[0.0, 1.0], [1.0, 0.0]])}
    found = held_out_table(probs, seen, ["a", "b"])
    assert found.to_dict("list") == {
        "model": ["one", "one", "two", "two"], "image_id": ["x", "y", "x", "y"],
        "split": ["val", "guard", "val", "guard"], "y_pred": ["a", "b", "b", "a"],
        "p_a": [0.75, 0.333333, 0.0, 1.0], "p_b": [0.25, 0.666667, 1.0, 0.0],
    }  # fmt: skip


def test_an_outcome_has_the_probabilities_of_each_part(shop: Workshop) -> None:
    seen, model = Sample.of(shop), shop.pretrained("x")
    assert seen.held_out.image_ids == ("h0", "v0", "g0", "v1")
    assert seen.held_out.labels == (-1,) * 4
    found = Outcome.of(model, seen, shop)
    model.eval()
    with torch.no_grad():
        expected = {part: model(getattr(seen, part).batch(range(4))).softmax(1) for part in ("source_val", "held_out")}
    assert found.source_val_NC == pytest.approx(expected["source_val"].numpy(), abs=1e-6)
    assert found.held_out_NC == pytest.approx(expected["held_out"].numpy(), abs=1e-6)
    assert (found.target_val_NC == found.held_out_NC[[1, 3]]).all()
    right = found.seen("x", seen)
    guess = found.held_out_NC.argmax(1)
    assert right.val_right_L.tolist() == [guess[1] == 0, guess[3] == 1]
    assert right.source_right_V is not None
    assert right.source_right_V.tolist() == (found.source_val_NC.argmax(1) == [0, 1, 0, 1]).tolist()
    assert (right.mixval_intra, right.mixval_inter) == (None, None)
    judged = with_mixval(found, model, seen, shop)
    shown = judged.seen("x", seen)
    assert (shown.mixval_intra, shown.mixval_inter) == pytest.approx(
        (judged.mixval_intra, judged.mixval_inter), nan_ok=True
    )


def test_source_images_cannot_tell_what_adabn_lost(shop: Workshop) -> None:
    """As it is, it would show them in the target's statistics; in the source's it is source-only."""
    seen, models = Sample.of(shop), {name: shop.pretrained("x") for name in (SOURCE_ONLY, "adabn", "frozen")}
    found = outcomes_of(shop, seen, models, models[SOURCE_ONLY], "standardise")
    shown = {name: own.seen(name, seen).source_right_V for name, own in found.items()}
    assert shown.pop("adabn") is None
    assert {name: len(right_V) for name, right_V in shown.items() if right_V is not None} == {
        SOURCE_ONLY: 4,
        "frozen": 4,
    }


def test_what_a_method_lost_on_the_source_is_seen_in_the_statistics_of_the_source(shop: Workshop) -> None:
    """Source images are told apart by their mean; in statistics of a far brighter target all of them look dark."""

    class Scaled(torch.nn.Module):
        def __init__(self, mean: float, var: float) -> None:
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(1, affine=False)
            self.norm.running_mean.fill_(mean)
            self.norm.running_var.fill_(var)

        def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
            return self.norm(x_NCHW.mean((1, 2, 3))[:, None])

    def model(mean: float, var: float) -> ImageModel:
        found = ImageModel(Scaled(mean, var), torch.nn.Linear(1, 2))
        with torch.no_grad():
            found.head.weight.copy_(torch.tensor([[-1.0], [1.0]]))
            found.head.bias.zero_()
        return found

    mean_N = shop.source("train").batch(range(10)).mean((1, 2, 3))
    start, seen = model(float(mean_N.mean()), float(mean_N.var())), Sample.of(shop)
    bright = model(9.0, 1.0)
    found = outcomes_of(shop, seen, {"mcc": bright}, start, None)["mcc"]
    is_above_V = (seen.source_val.batch(range(4)).mean((1, 2, 3)) > mean_N.mean()).int().tolist()
    assert found.source_right_V is not None
    assert found.source_right_V.tolist() == [int(a) == b for a, b in zip(is_above_V, [0, 1, 0, 1], strict=True)]
    assert found.source_val_NC.argmax(1).tolist() == [0] * 4  # as it will be used, on target images
    without = replace(shop, manifest=shop.manifest[shop.manifest["split"] != "train"])
    assert outcomes_of(without, seen, {"mcc": bright}, start, None)["mcc"].source_right_V is None


def test_mixed_images_are_made_of_two_held_out_ones(shop: Workshop) -> None:
    """The head sees only whether the mean pixel is above a limit, so that each mixture is known by hand."""

    class Mean(torch.nn.Module):
        def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
            return x_NCHW.mean((1, 2, 3))[:, None]

    seen = Sample.of(shop)
    mean_N = seen.held_out.batch(range(4)).mean((1, 2, 3)).double()
    limit = float(mean_N.sort().values[1:3].mean())  # two images on each side
    model = ImageModel(Mean(), torch.nn.Linear(1, 2))
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[0.0], [1e4]]))
        model.head.bias.copy_(torch.tensor([0.0, -1e4 * limit]))
    found = with_mixval(Outcome.of(model, seen, shop), model, seen, shop)
    assert found.held_out_NC.argmax(1).tolist() == [int(mean > limit) for mean in mean_N]
    assert found.mixval_intra == 1.0  # both on one side: so is what lies between them


def test_the_number_of_classes_in_use_is_that_of_source_validation() -> None:
    seen = sample([0, 0, 0, 1], [], 2)
    found = outcome(said([0, 0, 0, 1]), said([]), said([0, 1]))
    choice = chosen_method({SOURCE_ONLY: found, "mcc": found}, seen, 2, 0.95)
    assert choice["n_source_classes"] == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))
    assert choice["chosen"] == SOURCE_ONLY  # both say the same
    one_class = replace(found, held_out_NC=said([1, 1], 1 - 1e-9))
    entry = chosen_method({SOURCE_ONLY: found, "mcc": one_class}, seen, 2, 0.95)["candidates"][1]
    assert entry["class_ratio"] == pytest.approx(4)  # everything is said to be b, a quarter of the source


@pytest.mark.parametrize(("n_plan", "better"), [(10, True), (2, False)])
def test_a_pretrained_start_must_beat_random_weights(n_plan: int, better: bool) -> None:
    """10 of 10 won: two-sided sign test .002; 2 of 2: .5."""
    found = against_scratch(np.arange(10) < n_plan, np.zeros(10, bool), 0.95)
    assert (found["gain"], found["n"], found["is_better"]) == (pytest.approx(n_plan / 10), 10, better)
    words = "better than" if better else "not shown to be better than"
    assert f"fine-tuned, is {words} the same network" in found["reason"]


def test_right_is_what_has_its_label() -> None:
    assert is_right(said([0, 1, 1]), images([0, 0, 1])).tolist() == [True, False, True]
    assert is_right(said([]), images([])).shape == (0,)


def test_foreign_images_are_told_from_ten_training_images_on(shop: Workshop) -> None:
    model = shop.pretrained("x")
    found = foreignness_of(model, shop, Sample.of(shop), 0.95)
    assert found is not None
    assert found["auroc"]["n"] == 4
    assert 0 <= found["foreign_share"] <= 1
    fewer = replace(shop, manifest=shop.manifest[shop.manifest["image_id"] != "s9"])
    assert foreignness_of(model, fewer, Sample.of(fewer), 0.95) is None


def champion(folder: Path, **changes: Any) -> ImageModel:
    torch.manual_seed(5)
    model = split_head(SmallResNet(2), 2)
    save_weights(model, folder / "c.safetensors")
    description = {
        "architecture": "acclimate.small_resnet", "classes": ["a", "b"], "image_px": 32, "interpolation": "bicubic",
        "crop_share": 0.5, "mean": [0.1] * 3, "std": [0.2] * 3,
    }  # fmt: skip
    write_json(folder / "c.json", description | changes)
    files = {"model.safetensors": folder / "c.safetensors", "model.json": folder / "c.json"}
    write_bundle(folder / "champion", files, {"name": "x"})
    return model.eval()


def test_the_champion_sees_images_as_it_was_trained_to(shop: Workshop, tmp_path: Path) -> None:
    model, seen = champion(tmp_path), Sample.of(shop)
    found = champion_probabilities(tmp_path / "champion", seen.held_out, shop.classes, batch_size=32, device="cpu")
    files = ImageFiles(tmp_path / "images", 32, "bicubic", 0.5)
    pixels = np.stack([files[f"{name}.png"] for name in ("h0", "v0", "g0", "v1")]) / 255
    with torch.no_grad():
        expected = model(torch.from_numpy((pixels - 0.1) / 0.2).float().permute(0, 3, 1, 2)).softmax(1)
    assert found == pytest.approx(expected.numpy(), abs=1e-5)


def test_no_champion_is_none(shop: Workshop, tmp_path: Path) -> None:
    assert (
        champion_probabilities(
            tmp_path / "champion", Sample.of(shop).held_out, shop.classes, batch_size=32, device="cpu"
        )
        is None
    )


def test_a_champion_of_other_classes_is_refused(shop: Workshop, tmp_path: Path) -> None:
    champion(tmp_path, classes=["a", "c"])
    message = (
        r"champion in .* knows the classes a, c, the data has a, b: they can't be compared; empty the folder to go on"
    )
    with pytest.raises(ValueError, match=message):
        champion_probabilities(
            tmp_path / "champion", Sample.of(shop).held_out, shop.classes, batch_size=32, device="cpu"
        )


def test_a_champion_whose_bytes_were_changed_is_refused(shop: Workshop, tmp_path: Path) -> None:
    champion(tmp_path)
    with (tmp_path / "champion/model.json").open("a") as handle:
        handle.write(" ")
    with pytest.raises(ValueError, match=r"is not as it was registered: model.json has sha256"):
        champion_probabilities(
            tmp_path / "champion", Sample.of(shop).held_out, shop.classes, batch_size=32, device="cpu"
        )


def test_source_images_that_must_be_shown_otherwise_count_as_they_were_shown() -> None:
    """The frozen head's: as they are, they would meet the target's scaling."""
    of, shown_V = sample([0, 1, 0, 1], [0]), np.array([True, True, True])
    seen = replace(outcome(said([0, 0, 0, 0]), said([0])), source_right_V=shown_V).seen("frozen", of)
    assert seen.source_right_V is shown_V
