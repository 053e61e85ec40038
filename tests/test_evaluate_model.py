"""evaluate_model on a model made by hand: each network at its own temperature, the adopted one under its own name."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tasks import evaluate_model
from tasks.core.bundle import write_bundle
from tasks.core.files import read_json, write_json, write_table
from tasks.core.model import SmallResNet, save_weights, split_head
from tasks.core.predictions import of_model, read_predictions
from tasks.register_model import of_adopted

N_IMAGES, SHARES = 12, ["p_a", "p_b", "p_c"]
PREDICTIONS = Path("data/predictions.csv")


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def evaluated(shipped: dict[str, Any], go_with: Callable[[dict[str, Any]], Path]) -> pd.DataFrame:
    """The predictions of two networks of the same weights, at the temperatures 1 and 4."""
    shipped["build_manifest"]["root"] = "images"
    go_with(shipped)
    save_images_and_labels()
    torch.manual_seed(0)
    model = split_head(SmallResNet(3), 3)
    with torch.no_grad():
        model.head.weight *= 40
        model.head.bias.zero_()
    for name in ("source_only", "mcc"):
        save_weights(model, Path(f"data/model/{name}.safetensors"))
    write_json(Path("data/model/model.json"), {
        "architecture": "acclimate.small_resnet", "classes": ["a", "b", "c"], "image_px": 16, "interpolation": "bilinear",
        "crop_share": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3, "models": ["source_only", "mcc"],
        "temperature": {"source_only": 1.0, "mcc": 4.0},
    })  # fmt: skip
    write_json(Path("data/adoption.json"), {"adopted": "mcc"})
    evaluate_model.main()
    return read_predictions(PREDICTIONS)


def save_images_and_labels() -> None:
    Path("images").mkdir()
    Path("data/model").mkdir()
    names = [f"x{k}" for k in range(N_IMAGES)]
    for k, name in enumerate(names):
        colour = np.random.default_rng(k).integers(0, 256, 3)
        Image.new("RGB", (16, 16), tuple(map(int, colour))).save(f"images/{name}.png")
    rows = {
        "image_id": names,
        "group_id": names,
        "path": [f"{name}.png" for name in names],
        "domain": "target",
        "split": "test",
        "label": "",
    }
    write_table(Path("data/manifest_valid.csv"), pd.DataFrame(rows))
    write_json(Path("data/gate.json"), {"blocked_by": []})
    write_table(Path("data/test_labels.csv"), pd.DataFrame({"image_id": names, "label": ["a", "b", "c"] * 4}))


def test_a_temperature_changes_confidence_and_never_the_guess(evaluated: pd.DataFrame) -> None:
    plain, warm = of_model(evaluated, "source_only"), of_model(evaluated, "mcc")
    assert plain["y_pred"].nunique() > 1
    assert list(warm["y_pred"]) == list(plain["y_pred"])
    powers = plain[SHARES].to_numpy() ** (1 / 4)  # softmax(z / T) is softmax(z) to the power 1/T, scaled
    # written to six digits: below 1e-3 too few are left for a fourth root
    is_known = (plain[SHARES] > 1e-3).all(axis=1).to_numpy()
    assert is_known.any()
    expected = powers / powers.sum(1, keepdims=True)
    assert warm[SHARES].to_numpy()[is_known] == pytest.approx(expected[is_known], abs=1e-3)
    assert (warm[SHARES].max(axis=1) < plain[SHARES].max(axis=1)).all()


def test_accuracies_are_equal_and_calibration_is_not(evaluated: pd.DataFrame) -> None:
    metrics = read_json(Path("data/metrics.json"), made_by="evaluate_model")
    right = (of_model(evaluated, "mcc")["y_pred"] == np.array(["a", "b", "c"] * 4)).mean()
    for name in ("adopted", "source_only", "mcc"):
        assert metrics[name]["accuracy"] == pytest.approx(right)
        assert metrics[name]["n"] == N_IMAGES
    assert "gain_over_source_only" not in metrics["source_only"]
    assert metrics["adopted"]["gain_over_source_only"]["value"] == 0


def test_the_adopted_model_stands_first_under_its_own_name(evaluated: pd.DataFrame) -> None:
    assert list(evaluated["model"].unique()) == ["adopted", "source_only", "mcc"]
    adopted, own = (of_model(evaluated, name).drop(columns="model") for name in ("adopted", "mcc"))
    pd.testing.assert_frame_equal(adopted, own)


def pin_champion(**changes: Any) -> None:
    """A registered bundle of the same weights, at a temperature of its own."""
    folder = Path("data/given/champion")
    folder.parent.mkdir(parents=True, exist_ok=True)
    description = read_json(Path("data/model/model.json"), made_by="finetune_model")
    write_json(Path("described.json"), description | {"temperature": 4.0} | changes)
    files = {"model.safetensors": Path("data/model/mcc.safetensors"), "model.json": Path("described.json")}
    write_bundle(folder, files, {"name": "x"})


def test_the_pinned_champion_is_shown_the_same_images(evaluated: pd.DataFrame) -> None:
    pin_champion()
    evaluate_model.main()
    found = read_predictions(PREDICTIONS)
    assert list(found["model"].unique()) == ["adopted", "source_only", "mcc", "champion"]
    champion, same = (of_model(found, name).drop(columns="model") for name in ("champion", "mcc"))
    pd.testing.assert_frame_equal(champion, same)  # mcc has the same weights and the same temperature
    assert "gain_over_source_only" in read_json(Path("data/metrics.json"), made_by="evaluate_model")["champion"]


def test_a_champion_of_other_classes_is_refused(evaluated: pd.DataFrame) -> None:
    pin_champion(classes=["a", "b", "d"])
    with pytest.raises(
        ValueError, match=r"the champion in data/given/champion knows the classes a, b, d, the data has a, b, c"
    ):
        evaluate_model.main()


@pytest.mark.parametrize(
    ("calibration", "ask_below"),
    [({"ask_below": {"threshold": 0.7}}, 0.7), ({"ask_below": {"threshold": None}}, None), (None, None)],
)
def test_a_bundle_is_told_what_holds_for_the_adopted_network(calibration: Any, ask_below: float | None) -> None:
    description = {"temperature": {"source_only": 1.5, "mcc": 2.5}}
    decision = {"adopted": "mcc", "calibration": {"source_only": None, "mcc": calibration}}
    assert of_adopted(description, decision) == {"adopted": "mcc", "temperature": 2.5, "ask_below": ask_below}
