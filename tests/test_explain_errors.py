"""explain_errors on a model made by hand: what it shows of whom, and what the map of an image says."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tasks import explain_errors
from tasks.core.error_sheets import INDEX_COLUMNS
from tasks.core.files import read_table, write_json, write_table
from tasks.core.model import ImageModel, SmallResNet, save_weights, split_head
from tasks.explain_errors import margin_weights, saliency

CLASSES = ["a", "b", "c"]
ERRORS = Path("data/errors")
# image: (true class, guess, probability of the guess, site)
TEST = {
    "x0": ("a", "b", 0.9, "north"), "x1": ("a", "c", 0.6, "north"), "x2": ("b", "b", 0.9, "north"),
    "x3": ("c", "a", 0.8, "south"), "x4": ("c", "c", 0.8, "south"), "x5": ("a", "a", 0.8, "south"),
}  # fmt: skip
TRAINING = {"s0": "source", "s1": "source", "t0": "target"}  # t0 looks like x0, s1 like x3


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def folder(shipped: dict[str, Any], go_with: Callable[[dict[str, Any]], Path]) -> Path:
    """Six predictions, three of them wrong, of a network of random weights."""
    shipped["build_manifest"]["root"] = "images"
    shipped["audit_bias"]["min_group_size"] = 2
    shipped["explain_errors"] = {"n_per_group": 6, "max_groups": 8, "window_share": 0.5, "batch_size": 2}
    folder = go_with(shipped)
    save_manifest_and_images()
    save_predictions(TEST)
    torch.manual_seed(0)
    save_weights(split_head(SmallResNet(3), 3), Path("data/model/mcc.safetensors"))
    write_json(Path("data/model/model.json"), {
        "architecture": "acclimate.small_resnet", "classes": CLASSES, "image_px": 32, "interpolation": "bilinear",
        "crop_share": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3,
    })  # fmt: skip
    write_json(Path("data/adoption.json"), {"adopted": "mcc"})
    return folder


def save_manifest_and_images() -> None:
    Path("images").mkdir()
    Path("data/model").mkdir()
    rows = [(name, "target", "test", "") for name in TEST]
    rows += [(name, domain, "train", "b") for name, domain in TRAINING.items()]
    rows += [("u0", "target", "unlabelled", ""), ("v0", "target", "val", "a"), ("w0", "source", "val", "a")]
    looks = {"t0": "x0", "s1": "x3", "u0": "x1", "v0": "x1", "w0": "x1"}  # the last three may not be told of
    for name, *_ in rows:
        rng = np.random.default_rng(int.from_bytes(looks.get(name, name).encode()))
        blocks = rng.integers(0, 256, (4, 4, 3)).repeat(8, 0).repeat(8, 1)
        Image.fromarray(blocks.astype(np.uint8)).save(f"images/{name}.png")
    table = pd.DataFrame(rows, columns=["image_id", "domain", "split", "label"])
    write_table(Path("data/manifest_valid.csv"), table.assign(path=table["image_id"] + ".png"))
    write_json(Path("data/gate.json"), {"blocked_by": []})


def save_predictions(test: dict[str, tuple[str, str, float, str]]) -> None:
    """The adopted model's; another model is wrong everywhere."""
    rows = []
    for name, (truth, guess, share, site) in test.items():
        shares = {f"p_{c}": share if c == guess else (1 - share) / 2 for c in CLASSES}
        fixed = {"image_id": name, "split": "test", "y_true": truth, "audit_site": site}
        rows.append({"model": "adopted", **fixed, "y_pred": guess, **shares})
        other = next(c for c in CLASSES if c != truth)
        rows.append({"model": "source_only", **fixed, "y_pred": other, "p_a": 1, "p_b": 0, "p_c": 0})
    write_table(Path("data/predictions.csv"), pd.DataFrame(rows))


def index() -> pd.DataFrame:
    return read_table(ERRORS / "index.csv", made_by="explain_errors")


def test_each_group_has_a_sheet_of_the_adopted_models_errors(folder: Path) -> None:
    pytest.importorskip("captum", reason="the maps need captum")
    explain_errors.main()
    lines = index()[["sheet", "line", "group", "n", "image_id", "y_true", "y_pred", "confidence"]]
    assert lines.to_numpy().tolist() == [
        ["sheet_01.png", "1", "north", "3", "x0", "a", "b", "0.9"],
        ["sheet_01.png", "2", "north", "3", "x1", "a", "c", "0.6"],
        ["sheet_02.png", "1", "south", "3", "x3", "c", "a", "0.8"],
    ]
    assert {path.name for path in ERRORS.iterdir()} == {"index.csv", "sheet_01.png", "sheet_02.png"}


def test_neighbours_are_labelled_training_images_of_both_domains(folder: Path) -> None:
    """The images that look just like x1 are no training images, or have no label."""
    pytest.importorskip("captum", reason="the maps need captum")
    explain_errors.main()
    found = index().set_index("image_id")
    first = [f"nearest_1_{what}" for what in ("id", "domain", "label", "similarity")]
    assert found.loc["x0", first].tolist() == ["t0", "target", "b", "1.0"]
    assert found.loc["x3", first].tolist() == ["s1", "source", "b", "1.0"]
    shown = {name for k in (1, 2, 3) for name in found[f"nearest_{k}_id"]}
    assert shown == set(TRAINING)


def test_a_line_shows_the_image_and_its_nearest_and_bytes_repeat(folder: Path) -> None:
    pytest.importorskip("captum", reason="the maps need captum")
    explain_errors.main()
    before = {path.name: path.read_bytes() for path in ERRORS.iterdir()}
    with Image.open(io.BytesIO(before["sheet_01.png"])) as sheet:
        squares = [np.asarray(sheet)[18:130, left : left + 112] for left in (20, 136, 252)]
    with Image.open("images/x0.png") as image:
        enlarged = np.asarray(image.resize((112, 112), Image.Resampling.NEAREST))
    assert (squares[0] == enlarged).all()
    assert (squares[2] == enlarged).all()  # t0
    assert (squares[1] != enlarged).any()
    explain_errors.main()
    assert {path.name: path.read_bytes() for path in ERRORS.iterdir()} == before


def test_a_model_without_errors_has_an_empty_index(folder: Path) -> None:
    save_predictions({name: (truth, truth, share, site) for name, (truth, _, share, site) in TEST.items()})
    explain_errors.main()
    assert list(index().columns) == INDEX_COLUMNS
    assert index().empty
    assert [path.name for path in ERRORS.iterdir()] == ["index.csv"]


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("data/predictions.csv", "evaluate_model"), ("data/adoption.json", "guard_adaptation"),
        ("data/model/model.json", "finetune_model"),
    ],
)  # fmt: skip
def test_a_missing_input_names_its_stage(folder: Path, path: str, stage: str) -> None:
    Path(path).unlink()
    with pytest.raises(FileNotFoundError, match=f"made by the stage {stage}"):
        explain_errors.main()


def test_blocked_data_is_refused(folder: Path) -> None:
    write_json(Path("data/gate.json"), {"blocked_by": ["no label"]})
    with pytest.raises(ValueError, match="the data is blocked: no label"):
        explain_errors.main()


# The map


@pytest.mark.parametrize(
    ("guess", "truth", "weights"), [("b", "a", [-1, 1, 0]), ("c", "b", [0, -1, 1]), ("b", "no class", [0, 1, 0])]
)
def test_the_margin_is_the_guess_over_the_truth(guess: str, truth: str, weights: list[float]) -> None:
    assert margin_weights(CLASSES, guess=guess, truth=truth).tolist() == weights


class Pixels(nn.Module):
    """The pixels in a row, so that the head makes a linear model of them."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return x_NCHW.flatten(1)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_map_is_the_mean_fall_over_the_squares_that_cover_a_point(batch_size: int) -> None:
    """The first class counts the red top left corner four times: squares of 2 points begin at each of 3 x 3 places."""
    pytest.importorskip("captum", reason="the maps need captum")
    model = ImageModel(Pixels(), nn.Linear(3 * 4 * 4, 2)).requires_grad_(False)
    model.head.weight.zero_()
    model.head.weight[0, 0] = 4
    x_1CHW = torch.zeros(1, 3, 4, 4)
    x_1CHW[0, 0, 0, 0] = 1.6  # red's mean is 0.1: covered, the class loses 4 (1.6 - 0.1) = 6
    found = saliency(model, x_1CHW, torch.tensor([1.0, -1.0]), window_share=0.5, batch_size=batch_size)
    assert found == pytest.approx(np.array([[6, 3, 0, 0], [3, 1.5, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]), abs=1e-5)
    against = saliency(model, x_1CHW, torch.tensor([-1.0, 1.0]), window_share=0.5, batch_size=batch_size)
    assert against == pytest.approx(-found, abs=1e-5)


@pytest.mark.parametrize("window_share", [0.01, 0.3, 1.0])
def test_every_point_of_any_image_is_covered(window_share: float) -> None:
    pytest.importorskip("captum", reason="the maps need captum")
    torch.manual_seed(0)
    model = split_head(SmallResNet(3), 3).eval().requires_grad_(False)
    weights_C = torch.tensor([0.0, 1.0, -1.0])
    found = saliency(model, torch.randn(1, 3, 17, 17), weights_C, window_share=window_share, batch_size=64)
    assert found.shape == (17, 17)
    assert np.isfinite(found).all()
    assert (found != 0).all()
