"""`acclimate export`: what is written gives the bundle's probabilities, or nothing is written."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_models import working_bundle
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from flows.cli import app
from tasks.core.classifier import Classifier, load_classifier
from tasks.core.exported import MAX_DIFFERENCE, TRIED_BATCHES, largest_difference, torch_export

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def workspace(go_with: Callable[[dict[str, Any]], Path], shipped: dict[str, Any]) -> Path:
    """A workspace that has no registry."""
    return go_with(shipped)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for k in range(3):
        pixels = np.random.default_rng(k).integers(0, 80 * (k + 1), (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.png")
    (folder / "broken.png").write_bytes(b"x")
    return folder


def export(*arguments: object, code: int = 0) -> Result:
    done = CliRunner().invoke(app, ["export", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done


def raw(images: Path) -> np.ndarray:
    """(3, 32, 32, 3) uint8, by Pillow alone."""
    return np.stack([np.asarray(Image.open(images / f"{k}.png")) for k in range(3)])


def expected(bundle: Path, pixels_NHWC: np.ndarray, temperature: float) -> np.ndarray:
    """Scaled, normalised, tempered by hand; the network alone is the bundle's."""
    net = load_classifier(bundle, "cpu").net
    with torch.inference_mode():
        logits_NC = net(torch.from_numpy((pixels_NHWC / 255 - 0.5) / 0.5).permute(0, 3, 1, 2).float()).numpy()
    powers = np.exp(logits_NC.astype(float) / temperature)
    return powers / powers.sum(1, keepdims=True)


def check_description(out: Path, bundle: Path, form: str) -> None:
    told = json.loads(out.with_name(f"{out.name}.json").read_text())
    content = out.read_bytes()
    assert told["sha256"] == hashlib.sha256(content).hexdigest()
    assert told["candidate"] == hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    assert (told["format"], told["file"], told["classes"]) == (form, out.name, ["a", "b", "c"])
    assert (told["n_compared"], told["within"]["temperature"], told["before"]["resize_px"]) == (3, 0.5, 32)
    assert 0 <= told["largest_difference"] <= 1e-4
    for folder in (str(PROJECT), sys.prefix, str(bundle)):
        assert folder.encode() not in content  # nor does it tell where it was made


def test_a_torch_export_gives_the_bundles_probabilities_in_any_batch(
    workspace: Path, tmp_path: Path, images: Path
) -> None:
    bundle, out = working_bundle(tmp_path / "m", "a", is_random=True, temperature=0.5), tmp_path / "m.pt2"
    told = export(images, "--format", "torch-export", "--model", bundle, "--out", out).output
    assert "on 3 images; sha256" in told.replace("\n", " ")
    module = torch.export.load(BytesIO(out.read_bytes())).module()
    pixels = raw(images)
    for n in (1, 2, 3, 11):
        batch = np.resize(pixels, (n, 32, 32, 3))
        found = module(torch.from_numpy(batch)).detach().numpy()
        assert found == pytest.approx(expected(bundle, batch, 0.5), abs=1e-6)
    check_description(out, bundle, "torch-export")


def test_an_onnx_export_gives_the_bundles_probabilities_in_any_batch(
    workspace: Path, tmp_path: Path, images: Path
) -> None:
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    runtime = pytest.importorskip("onnxruntime")
    bundle, out = working_bundle(tmp_path / "m", "a", is_random=True, temperature=0.5), tmp_path / "m.onnx"
    export(images, "--format", "onnx", "--model", bundle, "--out", out)
    session = runtime.InferenceSession(out, providers=["CPUExecutionProvider"])
    for n in (1, 2, 3, 11):
        batch = np.resize(raw(images), (n, 32, 32, 3))
        found = session.run(["probabilities"], {"pixels": batch})[0]
        assert found == pytest.approx(expected(bundle, batch, 0.5), abs=1e-6)
    check_description(out, bundle, "onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_onnx_is_asked_for_where_it_is_absent(
    workspace: Path, tmp_path: Path, images: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import ModuleType

    for name in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, package, None)
    bundle = working_bundle(tmp_path / "m", "a")
    told = export(images, "--format", "onnx", "--model", bundle, "--out", tmp_path / "m.onnx", code=1).output
    assert f"needs {package}, which is not installed here; run `pip install onnx onnxscript onnxruntime`" in told
    assert not (tmp_path / "m.onnx").exists()


def made(net: nn.Module) -> Classifier:
    sight: dict[str, Any] = {"image_px": 2, "mean": [0.0] * 3, "std": [1.0] * 3, "classes": ["a", "b"]}
    return Classifier(net.eval(), sight, "cpu")


class Even(nn.Module):
    def forward(self, x_NCHW: Tensor) -> Tensor:
        return x_NCHW.flatten(1)[:, :2] * 0


class OneSize(nn.Module):
    def forward(self, x_NCHW: Tensor) -> Tensor:
        return x_NCHW.reshape(3, 12)[:, :2]


@pytest.mark.parametrize(
    ("first", "is_refused"),
    [(0.5, False), (0.5 + MAX_DIFFERENCE / 2, False), (0.5 + 2 * MAX_DIFFERENCE, True), (float("nan"), True)],
)
def test_an_export_that_differs_is_refused(first: float, is_refused: bool) -> None:
    images = [np.zeros((2, 2, 3), np.uint8)] * 3
    sizes = []

    def run(batch_NHWC: np.ndarray) -> np.ndarray:
        sizes.append(len(batch_NHWC))
        return np.tile([first, 0.5], (len(batch_NHWC), 1))

    if is_refused:
        with pytest.raises(ValueError, match=r"differ from the bundle's by up to .*, 0.0001 is allowed: nothing was"):
            largest_difference(made(Even()), run, images)
    else:
        assert largest_difference(made(Even()), run, images) == pytest.approx(first - 0.5)
    assert set(sizes) == set(TRIED_BATCHES) == {1, 2, 7}


def test_a_network_for_one_number_of_images_is_refused() -> None:
    with pytest.raises(ValueError, match=r"torch.export can't turn this network into a model for any number of images"):
        torch_export(made(OneSize()))


def test_an_export_without_a_readable_image_is_refused(workspace: Path, tmp_path: Path, images: Path) -> None:
    bundle, out = working_bundle(tmp_path / "m", "a"), tmp_path / "m.pt2"
    arguments = ("--format", "torch-export", "--model", bundle, "--out", out)
    assert "none of the images can be read" in export(images / "broken.png", *arguments, code=1).output
    (bundle / "model.json").write_text("{}")
    assert "model.json has sha256" in export(images, *arguments, code=1).output
    assert not out.exists()


def test_a_made_bundle_says_what_its_tests_take_for_granted(tmp_path: Path) -> None:
    probs = load_classifier(working_bundle(tmp_path, "b"), "cpu").probabilities([np.zeros((32, 32, 3), np.uint8)])
    assert np.log(probs[0]) == pytest.approx([log(0.1), log(0.8), log(0.1)], abs=1e-6)


@pytest.mark.slow
def test_an_mlflow_model_of_the_bundle_predicts_paths_and_bytes_without_a_pickle(tmp_path: Path, images: Path) -> None:
    bundle, folder = working_bundle(tmp_path / "m", "b"), tmp_path / "mlflow"
    written = f"from flows.pyfunc_model import save; from pathlib import Path; save(Path({str(bundle)!r}), Path({str(folder)!r}))"
    asked = (
        "import mlflow.pyfunc, sys; from pathlib import Path; "
        f"model = mlflow.pyfunc.load_model({str(folder)!r}); images = Path({str(images)!r}); "
        "print(model.predict([str(images / '0.png'), (images / '1.png').read_bytes(), 'gone.png']).to_json(orient='records')); "
        "import tasks; print(tasks.__file__)"
    )
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    subprocess.run([sys.executable, "-c", written], env=environment, check=True, cwd=tmp_path)
    environment.pop("PYTHONPATH")  # it stands alone
    done = subprocess.run(
        [sys.executable, "-c", asked], env=environment, check=True, cwd=tmp_path, capture_output=True, text=True
    )
    told, place = done.stdout.splitlines()[-2:]
    found = [(row["y_pred"], row["error"].split(":")[0]) for row in json.loads(told)]
    assert found == [("b", ""), ("b", ""), ("", "FileNotFoundError")]
    assert place.startswith(str(folder))
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pickle", ".pt", ".pth")]
