"""Images a second through mobilenet_v2 at 128 px: ours without and with a filled cache, and a plain DataLoader loop.

    python benchmarks/features_speed.py [--images N]        default: 512; a minute or two

All ways take turns in one process per thread count; ratios are medians. The plain loop decodes in
one worker process, as ours does in one thread. "one_ahead" is how features were made before: one batch ahead, plain memory format
of the weights. Needs the testbed (ACCLIMATE_TESTBED); writes benchmarks/results/features_speed.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pipeline import ROOT, machine
from torch import nn
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(ROOT))
from tasks.core.batches import ImageList, plain_batches
from tasks.core.extraction import Sight, extract
from tasks.core.features import row_file
from tasks.core.features_cache import FeaturesCache
from tasks.core.images import ImageFiles
from tasks.core.model import network, split_head

TESTBED = Path(os.environ.get("ACCLIMATE_TESTBED", ROOT / "../shared/testbed")).resolve()
SIDE_PX, BATCH_SIZE, N_FEATURES, N_REPETITIONS = 128, 64, 1280, 3


class Plain(Dataset):
    def __init__(self, images: ImageList) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> torch.Tensor:
        return self.images.batch([place])[0]


def main(n_images: int) -> None:
    results: dict[str, Any] = {"machine": machine(), "n_images": n_images}
    for n_threads in (1, 2):
        command = [sys.executable, __file__, "--threads", str(n_threads), "--images", str(n_images)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(n_threads)}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        results[f"threads_{n_threads}"] = json.loads(done.stdout)
        print(n_threads, done.stdout, flush=True)
    (ROOT / "benchmarks/results/features_speed.json").write_text(json.dumps(results, indent=1) + "\n")


def measure(n_threads: int, n_images: int) -> dict[str, Any]:
    torch.set_num_threads(n_threads)
    paths = sorted(str(p.relative_to(TESTBED / "pacs")) for p in (TESTBED / "pacs").rglob("*.jpg"))
    paths = paths[:: max(len(paths) // n_images, 1)][:n_images]
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as place:
        os.environ["ACCLIMATE_HOME"] = place
        for repetition in range(N_REPETITIONS + 1):  # the first warms up
            ways: dict[str, Callable[[nn.Module, ImageList], object]] = {
                "ours": lambda net, images, r=repetition: ours(net, images, Path(place), f"k{r}"),
                "ours_cached": lambda net, images, r=repetition: ours(net, images, Path(place), f"k{r}"),
                "one_ahead": one_ahead,
                "data_loader": data_loader,
            }
            for name, way in ways.items():
                files = ImageFiles(TESTBED / "pacs", SIDE_PX)
                images = ImageList(files, tuple(paths), tuple(paths), (-1,) * len(paths), (0.5,) * 3, (0.5,) * 3)
                net = split_head(network("torchvision.mobilenet_v2", 2), 2).backbone.eval()
                begin = time.perf_counter()
                way(net, images)
                if repetition:
                    seconds.setdefault(name, []).append(time.perf_counter() - begin)
    rates = {name: round(len(paths) / min(found), 1) for name, found in seconds.items()}
    ratios = {
        name: round(float(np.median(np.array(found) / np.array(seconds["ours"]))), 3) for name, found in seconds.items()
    }
    return {"images_per_s": rates, "ours_is_times_as_fast_as": ratios}


def ours(net: nn.Module, images: ImageList, place: Path, key: str) -> None:
    sight = Sight(images, images.paths, np.arange(len(images)), np.zeros(len(images), int))
    with row_file(place / "x.npy", len(images), N_FEATURES, "float32") as out:
        extract(
            net, sight, out, open_cache=lambda size: FeaturesCache(key, N_FEATURES, "float32"),
            batch_size=BATCH_SIZE, name="benchmark",
        )  # fmt: skip


def one_ahead(net: nn.Module, images: ImageList) -> None:
    with torch.inference_mode():
        np.concatenate([net(x_NCHW).numpy() for x_NCHW in plain_batches(images, BATCH_SIZE)])


def data_loader(net: nn.Module, images: ImageList) -> None:
    with torch.inference_mode():
        np.concatenate([net(x_NCHW).numpy() for x_NCHW in DataLoader(Plain(images), BATCH_SIZE, num_workers=1)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    if given.threads:
        print(json.dumps(measure(given.threads, given.images)))
    else:
        main(given.images)
