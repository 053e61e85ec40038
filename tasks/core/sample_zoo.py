"""The sample's zoo: four small networks, each pretrained on images rendered for it alone.

Axes: N images, C channels, H height, W width.
"""

import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from tasks.core.files import file_sha256, write_json
from tasks.core.model import network, pretrained_head, save_weights
from tasks.core.runtime import address_rng, address_seed, is_quiet
from tasks.core.sample import (
    DIGITS,
    DIGITS_LOWRES,
    SIDE_PX,
    Kind,
    Pixels,
    draw_lowres,
    moved_glyph,
    render,
    resized,
    to_bytes,
)

ARCHITECTURE = "acclimate.small_resnet"
MEAN = STD = 0.5

Grid = NDArray[np.float64]
Pattern = Callable[[Grid, Grid], Grid]


def _stripes(u_HW: Grid, _v_HW: Grid) -> Grid:
    return 0.5 + 0.5 * np.sin(u_HW)


def _checker(u_HW: Grid, v_HW: Grid) -> Grid:
    return (np.sin(u_HW) * np.sin(v_HW) > 0).astype(float)


def _dots(u_HW: Grid, v_HW: Grid) -> Grid:
    return (np.cos(u_HW) + np.cos(v_HW) > 0.9).astype(float)


def _grid(u_HW: Grid, v_HW: Grid) -> Grid:
    return (np.maximum(np.cos(u_HW), np.cos(v_HW)) > 0.8).astype(float)


def _rings(u_HW: Grid, v_HW: Grid) -> Grid:
    return 0.5 + 0.5 * np.sin(np.hypot(u_HW, v_HW))


PATTERNS: dict[str, tuple[Pattern, float]] = {  # name: the pattern over two phases, its direction in degrees
    "vertical": (_stripes, 0),
    "rising": (_stripes, 45),
    "horizontal": (_stripes, 90),
    "falling": (_stripes, 135),
    "checker": (_checker, 0),
    "dots": (_dots, 0),
    "grid": (_grid, 0),
    "rings": (_rings, 0),
}
NOISES = {"clouds": 3.0, "grain": 0.7}  # name: blur in px
TEXTURES = (*PATTERNS, *NOISES)


def draw_texture(name: str, _font: Path, rng: np.random.Generator) -> Pixels:
    """One texture between two colours, with a little grain of its own."""
    gray = _noise(NOISES[name], rng) if name in NOISES else _pattern(name, rng)
    dark, bright = _two_colours(rng)
    grain = rng.normal(0, 0.04, (SIDE_PX, SIDE_PX, 1))
    return to_bytes(dark + gray[:, :, None] * (bright - dark) + grain)


def _pattern(name: str, rng: np.random.Generator) -> Grid:
    pattern, direction = PATTERNS[name]
    angle, period_px = np.deg2rad(direction + rng.uniform(-12, 12)), rng.uniform(5, 10)
    y, x = np.indices((SIDE_PX, SIDE_PX)) - rng.uniform(8, 24, (2, 1, 1))
    wave = 2 * np.pi / period_px
    return pattern(wave * (x * np.cos(angle) + y * np.sin(angle)), wave * (y * np.cos(angle) - x * np.sin(angle)))


def _noise(blur_px: float, rng: np.random.Generator) -> Grid:
    soft = cv2.GaussianBlur(rng.normal(0, 1, (SIDE_PX, SIDE_PX)), (0, 0), blur_px)
    return np.clip(0.5 + 0.25 * soft / soft.std(), 0, 1)


def _two_colours(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    dark, bright = rng.uniform(0, 0.35, 3), rng.uniform(0.6, 1, 3)
    return (dark, bright) if rng.random() < 0.5 else (bright, dark)


def draw_paper(character: str, font: Path, rng: np.random.Generator) -> Pixels:
    """A character in dark ink on textured paper, at full resolution."""
    ink = resized(moved_glyph(character, font, rng), SIDE_PX, cv2.INTER_AREA)
    fibres = 0.12 * (_noise(rng.uniform(1, 3), rng) - 0.5) + rng.normal(0, 0.03, ink.shape)
    paper = rng.uniform([0.7, 0.65, 0.55], [0.95, 0.9, 0.85])
    return to_bytes(paper + ink[:, :, None] * (rng.uniform(0, 0.3, 3) - paper) + fibres[:, :, None])


RANDOM = "random"


@dataclass(frozen=True, kw_only=True)
class ZooSource:
    kind: Kind
    described: str


SOURCES = {
    "digits_lowres": ZooSource(kind=DIGITS_LOWRES, described="digits in print fonts, bright on dark, 8 x 8 points"),
    "letters_lowres": ZooSource(
        kind=Kind(labels=tuple(string.ascii_uppercase), draw=draw_lowres),
        described="capital letters in print fonts, bright on dark, 8 x 8 points",
    ),
    "digits_paper": ZooSource(
        kind=Kind(labels=DIGITS, draw=draw_paper),
        described="digits in print fonts, dark ink on textured paper, 32 x 32 px",
    ),
    "textures": ZooSource(
        kind=Kind(labels=TEXTURES, draw=draw_texture), described="procedural textures in two colours, 32 x 32 px"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """How one model of the zoo is trained. `lr` is the peak of a one-cycle schedule (AdamW)."""

    n_images: int
    n_val_images: int
    n_epochs: int
    batch_size: int
    lr: float
    device: str


def check_names(settings: dict[str, dict[str, int]]) -> None:
    """ValueError where a setting that is given by model has other models than the zoo."""
    problems = [f"{name} has {', '.join(models)}" for name, models in settings.items() if set(models) != set(SOURCES)]
    if problems:
        raise ValueError(
            f"params.yaml, make_sample: {'; '.join(problems)}; give one value for each of {', '.join(SOURCES)}"
        )


def write_zoo(folder: Path, recipes: dict[str, Pretraining], *, seed: int) -> None:
    """Pretrains each named model; writes its weights and zoo.json, the list of all models."""
    folder.mkdir(parents=True)
    entries = []
    for name, recipe in tqdm(recipes.items(), desc="zoo", disable=is_quiet()):
        net, accuracy = pretrain(name, recipe, seed=seed)
        weights_path = folder / f"{name}.safetensors"
        save_weights(net, weights_path)
        measured = {"source_val_accuracy": round(accuracy, 4), "n_source_images": recipe.n_images}
        entries.append({**_entry(name, net, weights_path), **measured})
    first = entries[0]["name"]
    entries.append(
        {"name": RANDOM, "like": first, "seed": seed}
    )  # the null candidate: what features are worth untrained
    write_json(folder / "zoo.json", {"models": entries})


def _entry(name: str, net: nn.Module, weights_path: Path) -> dict[str, Any]:
    head = pretrained_head(net)
    return {
        "name": name,
        "arch": ARCHITECTURE,
        "file": weights_path.name,
        "sha256": file_sha256(weights_path),
        "dtype": "float32",
        "num_classes": head.out_features,
        "feature_dim": head.in_features,
        "mean": [MEAN] * 3,
        "std": [STD] * 3,
        "input_size": [3, SIDE_PX, SIDE_PX],
        "interpolation": "bilinear",
        "labels": None,
        "source_domain": SOURCES[name].described,
        "license": "Apache-2.0",
        "origin": "pretrained by make_sample",
    }


def pretrain(name: str, recipe: Pretraining, *, seed: int) -> tuple[nn.Module, float]:
    """The trained network, and its accuracy on renderings of its source that it has not seen."""
    x_NCHW, y_N = _rendered(name, recipe.n_images, (seed, "zoo", name, "train"))
    net = _seeded_network(name, seed).to(recipe.device).to(memory_format=torch.channels_last)
    n_steps = recipe.n_epochs * -(-recipe.n_images // recipe.batch_size)
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=recipe.lr, total_steps=n_steps)
    for epoch in range(recipe.n_epochs):
        order = torch.from_numpy(address_rng(seed, "zoo", name, "order", epoch).permutation(recipe.n_images))
        for batch in order.split(recipe.batch_size):
            logits = net(_prepared(x_NCHW[batch], recipe.device))
            functional.cross_entropy(logits, y_N[batch].to(recipe.device)).backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    x_val_NCHW, y_val_N = _rendered(name, recipe.n_val_images, (seed, "zoo", name, "val"))
    return net.eval(), _accuracy(net, x_val_NCHW, y_val_N, recipe.device)


def _seeded_network(name: str, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(address_seed(seed, "zoo", name, "weights"))
        return network(ARCHITECTURE, len(SOURCES[name].kind.labels))


def _rendered(name: str, n_images: int, address: tuple[object, ...]) -> tuple[Tensor, Tensor]:
    kind = SOURCES[name].kind
    pixels_NHWC = np.stack([render(kind, index, *address).pixels for index in range(n_images)])
    return torch.from_numpy(pixels_NHWC).permute(0, 3, 1, 2), torch.arange(n_images) % len(kind.labels)


def _prepared(pixels_NCHW: Tensor, device: str) -> Tensor:
    return (pixels_NCHW.to(device).float() / 255 - MEAN) / STD


@torch.inference_mode()
def _accuracy(net: nn.Module, x_NCHW: Tensor, y_N: Tensor, device: str) -> float:
    return float((net(_prepared(x_NCHW, device)).argmax(1).cpu() == y_N).float().mean())
