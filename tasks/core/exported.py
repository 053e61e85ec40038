"""A bundle's model as one file for other runtimes: uint8 pixels in, calibrated probabilities out, any number of images.

Scaling, normalisation and temperature are part of the exported graph, so that who uses it can't get them wrong.
Axes: N images, C classes, H height, W width.
"""

import importlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tasks.core.classifier import Classifier
from tasks.core.trained import sight

INPUT, OUTPUT = "pixels", "probabilities"
TRACED_BATCH = 3  # 0 and 1 would be taken for constants
TRIED_BATCHES = (1, 2, 7)
MAX_DIFFERENCE = 1e-4

Runner = Callable[[np.ndarray], np.ndarray]  # (N, H, W, 3) uint8 → (N, C)


class PixelsToProbabilities(nn.Module):
    """(N, H, W, 3) uint8 → (N, C) float32."""

    mean_C: Tensor
    std_C: Tensor

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.net = classifier.net
        self.temperature = classifier.temperature
        description = classifier.description
        self.register_buffer("mean_C", torch.tensor(description["mean"]).view(3, 1, 1))
        self.register_buffer("std_C", torch.tensor(description["std"]).view(3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        x_NCHW = (pixels.permute(0, 3, 1, 2).float() / 255 - self.mean_C) / self.std_C
        probs_NC: Tensor = (self.net(x_NCHW) / self.temperature).softmax(1)
        return probs_NC


def torch_export(classifier: Classifier) -> bytes:
    """A torch.export archive (.pt2). ValueError where the network fixes the number of images."""
    module, pixels, n_images = _ingredients(classifier)
    held = BytesIO()
    with _reworded("torch.export"), torch.no_grad():
        program = torch.export.export(module, (pixels,), dynamic_shapes=({0: n_images},))
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # it names folders of this machine
        torch.export.save(program, held)
    return held.getvalue()


def run_torch_export(content: bytes) -> Runner:
    module = torch.export.load(BytesIO(content)).module()

    def run(images_NHWC: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found: np.ndarray = module(torch.from_numpy(images_NHWC)).numpy()
        return found

    return run


def onnx_export(classifier: Classifier) -> bytes:
    """An ONNX model. ValueError where the packages are absent, or where the network fixes the number of images."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        _extra(package)
    module, pixels, n_images = _ingredients(classifier)
    with _reworded("torch.onnx"), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own translation tables
        program = torch.onnx.export(
            module, (pixels,), dynamo=True, dynamic_shapes=({0: n_images},), input_names=[INPUT], output_names=[OUTPUT],
            verbose=False,
        )  # fmt: skip
    assert program is not None  # it is None only for the old exporter
    model = program.model_proto
    for part in (*model.graph.node, *model.graph.value_info, *(n for f in model.functions for n in f.node)):
        del part.metadata_props[:]  # they name folders of this machine
    content: bytes = model.SerializeToString()
    return content


def run_onnx(content: bytes) -> Runner:
    runtime = _extra("onnxruntime")
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda images_NHWC: np.asarray(session.run([OUTPUT], {INPUT: images_NHWC})[0])


FORMATS: dict[str, tuple[Callable[[Classifier], bytes], Callable[[bytes], Runner]]] = {
    "onnx": (onnx_export, run_onnx),
    "torch-export": (torch_export, run_torch_export),
}


def largest_difference(classifier: Classifier, run: Runner, images: list[np.ndarray]) -> float:
    """Largest |Δ probability| between the exported model and the bundle's, over all images in each of the tried batches.

    Images are taken round and round, so that few of them fill the larger batches too. ValueError above MAX_DIFFERENCE.
    """
    largest = 0.0
    for size in TRIED_BATCHES:
        for start in range(0, len(images), size):
            batch = [images[(start + k) % len(images)] for k in range(size)]
            found_NC = run(np.stack(batch))
            difference = np.abs(found_NC - classifier.probabilities(batch)).max()
            largest = max(largest, float(np.nan_to_num(difference, nan=np.inf)))
    if largest > MAX_DIFFERENCE:
        raise ValueError(
            f"the exported model's probabilities differ from the bundle's by up to {largest:.2g} on {len(images)} images, "
            f"{MAX_DIFFERENCE:g} is allowed: nothing was written; try the other --format"
        )
    return largest


def described(classifier: Classifier) -> dict[str, Any]:
    """What who uses the file must know: how to make its input, and what its output means."""
    description = classifier.description
    side, interpolation, crop_share = sight(description)
    return {
        "input": {"name": INPUT, "shape": ["n", side, side, 3], "type": "uint8", "colours": "RGB"},
        "output": {"name": OUTPUT, "shape": ["n", len(classifier.classes)], "type": "float32"},
        "before": {
            "upright": "turn the image as its EXIF orientation says, lay transparency over white",
            "crop_share": crop_share,
            "crop": "the centre square, crop_share of the short side wide",
            "resize_px": side,
            "interpolation": f"{interpolation}, antialiased, as Pillow has it",
        },
        "within": {
            "scale": 1 / 255,
            "mean": description["mean"],
            "std": description["std"],
            "temperature": classifier.temperature,
        },
        "classes": classifier.classes,
        "ask_below": description.get("ask_below"),
    }


def _ingredients(classifier: Classifier) -> tuple[nn.Module, Tensor, Any]:
    side = classifier.description["image_px"]
    pixels = torch.zeros((TRACED_BATCH, side, side, 3), dtype=torch.uint8)
    return PixelsToProbabilities(classifier).eval(), pixels, torch.export.Dim("n_images", min=1)


@contextmanager
def _reworded(tool: str) -> Iterator[None]:
    """Errors of the tracer as one sentence: they are of many kinds and many lines."""
    try:
        yield
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        raise ValueError(
            f"{tool} can't turn this network into a model for any number of images ({type(error).__name__}: {first}); "
            "serve it with `acclimate serve`"
        ) from error


def _extra(package: str) -> Any:
    """The module. ValueError where it is not installed: it is an optional extra."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ValueError(
            f"--format onnx needs {package}, which is not installed here; run `pip install onnx onnxscript onnxruntime`, or "
            "use `--format torch-export`"
        ) from None
