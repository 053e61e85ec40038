"""The bundle: its bytes are checked, and one bad image costs the others nothing."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tasks.core.bundle import candidate_id, check_bundle, write_bundle
from tasks.core.classifier import load_classifier, predicted
from tasks.core.files import write_json
from tasks.core.model import SmallResNet, save_weights, split_head


def predict_images(folder: Path, paths: list[Path]) -> pd.DataFrame:
    return pd.concat(
        predicted(load_classifier(folder, "cpu"), [(str(p), p.absolute) for p in paths]), ignore_index=True
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return made_bundle(tmp_path)


def made_bundle(tmp_path: Path, **changes: float) -> Path:
    tmp_path.mkdir(exist_ok=True)
    torch.manual_seed(0)
    save_weights(split_head(SmallResNet(3), 3), tmp_path / "w.safetensors")
    description = {"architecture": "acclimate.small_resnet", "classes": ["a", "b", "c"], "image_px": 32}
    sight = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear", "crop_share": 1.0}
    write_json(tmp_path / "m.json", description | sight | changes)
    files = {"model.safetensors": tmp_path / "w.safetensors", "model.json": tmp_path / "m.json"}
    write_bundle(tmp_path / "bundle", files, {"name": "x"})
    return tmp_path / "bundle"


def test_one_flipped_byte_is_refused_by_name(bundle: Path) -> None:
    before = candidate_id(bundle)
    assert check_bundle(bundle)["name"] == "x"
    content = bytearray((bundle / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (bundle / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"model.safetensors has sha256"):
        check_bundle(bundle)
    assert candidate_id(bundle) == before


def test_images_that_cannot_be_read_have_their_reason_and_the_others_their_class(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # 64 × 64 is then more than twice the limit: a bomb
    pixels = np.random.default_rng(0).integers(0, 255, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "good.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "bomb.png")
    (tmp_path / "text.png").write_text("no image")
    paths = [tmp_path / name for name in ("bomb.png", "good.png", "text.png", "gone.png")]
    rows = predict_images(bundle, paths)
    assert [error.split(":")[0] for error in rows["error"]] == [
        "DecompressionBombError", "", "UnidentifiedImageError", "FileNotFoundError",
    ]  # fmt: skip
    assert rows.loc[1, "y_pred"] in ("a", "b", "c")
    assert rows.loc[1, ["p_a", "p_b", "p_c"]].sum() == pytest.approx(1)
    assert rows.loc[[0, 2, 3], "y_pred"].eq("").all()


@pytest.mark.parametrize("temperature", [0.25, 1.0, 4.0])
def test_a_temperature_changes_confidence_and_never_the_class(tmp_path: Path, temperature: float) -> None:
    paths = [tmp_path / f"{k}.png" for k in range(6)]
    for k, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(k).integers(0, 50 * k + 1, (32, 32, 3), dtype=np.uint8)).save(path)
    plain = predict_images(made_bundle(tmp_path / "plain"), paths)  # as of the first days
    tempered = made_bundle(tmp_path / "tempered", temperature=temperature)
    found = predict_images(tempered, paths)
    assert list(found["y_pred"]) == list(plain["y_pred"])
    columns = ["p_a", "p_b", "p_c"]
    powers = plain[columns].to_numpy(float) ** (1 / temperature)  # softmax(z / T) is that, scaled to sum 1
    assert found[columns].to_numpy(float) == pytest.approx(powers / powers.sum(1, keepdims=True), abs=1e-6)
    assert list(found["confidence"]) == pytest.approx(found[columns].max(axis=1).tolist())
