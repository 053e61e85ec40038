"""Predictions of adaptation methods on frozen features: what the guard's simulation judges.

Axes: N target images, S source images, D features, C classes, M methods (the first is source-only).
Domains: three of PACS at 128 px (real pictures), three made from them by blur, noise and darkness (made shifts), rendered
and handwritten digits as 8 x 8 pixels; four more made ones (edges, gray, inverted, coarse) that no rule was chosen on.
Each target also with skewed class shares: its real images, some classes rarer.
"""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from guard_methods import METHODS, Cell, predicted
from pipeline import ROOT
from scipy.ndimage import gaussian_filter, sobel

sys.path.insert(0, str(ROOT))
from tasks.core.batches import to_tensor
from tasks.core.images import ImageFiles
from tasks.core.runtime import address_rng
from tasks.core.sample import COARSE_PX, DIGITS_LOWRES, handwriting, render
from tasks.core.validators import mixed
from tasks.core.zoo import load_candidate
from tasks.core.zoo_file import Candidate, read_zoo

TESTBED = Path(os.environ.get("ACCLIMATE_TESTBED", ROOT / "../shared/testbed")).resolve()
N_PER_CLASS, SIDE_PX, BATCH = 100, 128, 50
SIDE_PX_OF_DIGITS, N_COMPONENTS = 32, 128
RAREST = 0.2  # of a class's images, where the target's shares are skewed
MADE = {"photo_blurred": "photo", "cartoon_noisy": "cartoon", "art_painting_dark": "art_painting"}
FRESH = {
    "photo_sketched": "photo", "cartoon_gray": "cartoon", "art_painting_inverted": "art_painting",
    "photo_pixelated": "photo",
}  # fmt: skip
COARSE = 8  # pixels that become one


def features(path: Path, made_of: dict[str, str] = MADE) -> dict[str, np.ndarray]:
    """x/<backbone>/<domain> (N, D), mixed/… (P, D) of images pairs/<domain> (P, 2), y/<domain> (N,); made once."""
    if not path.exists():
        found = pacs_features(made_of) | (digit_features() if made_of is MADE else {})
        np.savez(path, **found)
    with np.load(path) as stored:
        return dict(stored)


def pacs_features(made_of: dict[str, str]) -> dict[str, np.ndarray]:
    table = pd.read_csv(TESTBED / "pacs/manifest.csv")
    order = pd.Series([address_rng(0, "guard_benchmark", path).random() for path in table["path"]])
    table = table[order.groupby([table["domain"], table["label"]]).rank() <= N_PER_CLASS]
    files, found = ImageFiles(TESTBED / "pacs", SIDE_PX), {}
    pixels = {domain: np.stack([files[path] for path in rows["path"]]) for domain, rows in table.groupby("domain")}
    pixels |= {name: made(name, pixels[origin]) for name, origin in made_of.items()}
    backbones = {candidate.name.split("_")[0]: candidate for candidate in read_zoo(TESTBED / "zoo", None)}
    for domain, images in pixels.items():
        rows = table[table["domain"] == made_of.get(domain, domain)]
        found[f"y/{domain}"] = np.unique(rows["label"], return_inverse=True)[1]
        found[f"pairs/{domain}"] = pairs_P2 = pairs(domain, len(rows))
        for name, candidate in backbones.items():
            found[f"x/{name}/{domain}"] = seen(candidate, images)
            found[f"mixed/{name}/{domain}"] = seen(candidate, mixed(images.astype(np.float32), pairs_P2))
            print(name, domain, flush=True)
    return found


def pairs(domain: str, n_images: int) -> np.ndarray:
    """(N, 2) each image with another of any class: whether they are of one class is each model's own guess."""
    return np.stack([np.arange(n_images), address_rng(0, "partner", domain).permutation(n_images)], axis=1)


def made(name: str, images_NHWC: np.ndarray) -> np.ndarray:
    kind, x = name.rsplit("_", 1)[1], images_NHWC.astype(np.float32)
    if kind == "blurred":
        return np.stack([gaussian_filter(image, (2.5, 2.5, 0)) for image in x])
    if kind == "noisy":
        return np.clip(x + address_rng(0, name).normal(0, 40, x.shape), 0, 255)
    if kind == "gray":
        return x.mean(3, keepdims=True).repeat(3, axis=3)
    if kind == "inverted":
        return 255 - x
    if kind == "pixelated":
        n, height, width, c = x.shape
        means = x.reshape(n, height // COARSE, COARSE, width // COARSE, COARSE, c).mean((2, 4))
        return means.repeat(COARSE, 1).repeat(COARSE, 2)
    if kind == "sketched":
        edges = np.hypot(sobel(x.mean(3), 1), sobel(x.mean(3), 2))
        dark = np.clip(edges * 255 / np.quantile(edges, 0.98, axis=(1, 2), keepdims=True), 0, 255)
        return (255 - dark)[..., None].repeat(3, axis=3)
    return x * 0.3 + 10


@torch.inference_mode()
def seen(candidate: Candidate, images_NHWC: np.ndarray) -> np.ndarray:
    model = load_candidate(candidate, 2, 0).model.eval()
    parts = np.array_split(images_NHWC, max(len(images_NHWC) // BATCH, 1))
    return np.concatenate([model.features(to_tensor(list(p), candidate.mean, candidate.std)).numpy() for p in parts])


def digit_features() -> dict[str, np.ndarray]:
    """Brightness of 8 x 8 points, 1,000 rendered and 1,000 handwritten digits."""
    fonts, hand = [render(DIGITS_LOWRES, i, 0, "guard_benchmark") for i in range(1000)], handwriting()
    step = SIDE_PX_OF_DIGITS // COARSE_PX
    drawn = np.stack([f.pixels[:, :, 0].reshape(COARSE_PX, step, COARSE_PX, step).mean((1, 3)) / 255 for f in fonts])
    x = {"fonts": drawn.reshape(1000, -1), "handwriting": hand.gray_NHW[:1000].reshape(1000, -1)}
    y = {"fonts": np.array([int(f.label) for f in fonts]), "handwriting": hand.labels[:1000]}
    found = {}
    for domain in x:
        pairs_P2 = pairs(domain, 1000)
        found |= {f"x/pixels/{domain}": x[domain], f"y/{domain}": y[domain], f"pairs/{domain}": pairs_P2}
        found[f"mixed/pixels/{domain}"] = mixed(x[domain], pairs_P2)
    return found


def shifts(made_of: dict[str, str] = MADE) -> list[tuple[str, str, str]]:
    """(backbone, source, target): real domains as sources, all others as targets, made ones marked by their names.

    Of others than the usual made ones only the shifts to them.
    """
    if made_of is not MADE:
        real = sorted(set(MADE.values()))
        return [(backbone, s, t) for backbone in ("imagenet", "inat") for s in real for t in made_of]
    real = sorted(set(MADE.values()))
    pacs = [
        (backbone, source, target)
        for backbone in ("imagenet", "inat")
        for source in real
        for target in [*real, *MADE]
        if target != source
    ]
    return [*pacs, ("pixels", "fonts", "handwriting"), ("pixels", "handwriting", "fonts")]


def prediction(stored: dict[str, np.ndarray], shift: tuple[str, str, str], shares: str, seed: int) -> dict[str, Any]:
    """What each method says (M, N, C) of the held-out half of the target, of its mixed images, and of held-out source."""
    backbone, source, target = shift
    rng = address_rng(seed, "guard_benchmark", *shift, shares)
    x_S, y_S = stored[f"x/{backbone}/{source}"].astype(float), stored[f"y/{source}"]
    x_T, y_T = stored[f"x/{backbone}/{target}"].astype(float), stored[f"y/{target}"]
    mixed_PD, pairs_P2 = stored[f"mixed/{backbone}/{target}"].astype(float), stored[f"pairs/{target}"]
    n_classes = int(y_S.max()) + 1
    is_kept, kept_C = np.ones(len(y_T), bool), np.ones(n_classes)
    if shares == "skewed":
        drawn = rng.random(len(y_T))
        kept_C = rng.permutation(np.geomspace(1, RAREST, n_classes))
        is_kept = drawn < kept_C[y_T]
    val, train = np.split(rng.permutation(len(y_S)), [len(y_S) // 4])
    adapt, held_out = np.split(rng.permutation(np.flatnonzero(is_kept)), [is_kept.sum() // 3])
    of_kept = is_kept[pairs_P2].all(1)
    seen_by = rotation(x_S[train])
    everything = seen_by(x_T)
    cell = Cell(
        seen_by(x_S[train]), y_S[train], everything[adapt],
        {
            "source_val": seen_by(x_S[val]), "held_out": everything[held_out], "mixed": seen_by(mixed_PD[of_kept]),
            "first": everything[pairs_P2[of_kept, 0]], "second": everything[pairs_P2[of_kept, 1]],
        },
    )  # fmt: skip
    prior_C = np.bincount(y_S[train], minlength=n_classes) / len(train)
    frequent_C = np.bincount(y_T, minlength=n_classes) * kept_C
    of_target = {"y": y_T[held_out], "target_prior": frequent_C / frequent_C.sum()}
    return predicted(cell, n_classes) | of_target | {"y_val": y_S[val], "prior": prior_C}


def rotation(x_SD: np.ndarray) -> Any:
    """Features standardised by the source and turned into at most 128 of its principal directions."""
    mean, spread = x_SD.mean(0), x_SD.std(0)
    spread = np.where(spread > 0, spread, np.inf)
    v = np.linalg.svd((x_SD - mean) / spread, full_matrices=False)[2][:N_COMPONENTS].T
    return lambda x: (x - mean) / spread @ v


def predictions(stored: dict[str, np.ndarray], n_seeds: int, made_of: dict[str, str] = MADE) -> list[dict[str, Any]]:
    """Every shift, with the target's own class shares and with skewed ones."""
    found = []
    for shift in shifts(made_of):
        for shares in ("even", "skewed"):
            for seed in range(n_seeds):
                told = dict(zip(("backbone", "source", "target"), shift, strict=True)) | {
                    "shares": shares,
                    "seed": seed,
                }
                found.append(told | prediction(stored, shift, shares, seed))
        right = (found[-1]["held_out"].argmax(2) == found[-1]["y"]).mean(1)
        print(shift, {name: round(float(share), 3) for name, share in zip(METHODS, right, strict=True)}, flush=True)
    return found
