"""Peak memory of writing and reading features, for N images and for a quarter of them: it should not depend on N.

    python benchmarks/features_memory.py [--images N]        default: 100000 images x 1280 features; a minute or two

The real writer, cache and reader; the network is one matrix product on 8 px images, so that memory is theirs and not a network's.
Writes benchmarks/results/features_memory.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pipeline import ROOT, machine
from torch import nn

sys.path.insert(0, str(ROOT))
from tasks.core.batches import ImageList
from tasks.core.extraction import Sight, extract
from tasks.core.features import read_features, row_file, write_index
from tasks.core.features_cache import FeaturesCache
from tasks.core.images import ImageFiles

N_FEATURES, SIDE_PX, N_FILES, BATCH_SIZE, N_READ = 1280, 8, 64, 64, 1000


def main(n_images: int) -> None:
    results = {"machine": machine(), "n_features": N_FEATURES, "peak_mib": {}}
    for n in (n_images // 4, n_images):
        for way in ("write", "cached", "read"):
            command = [sys.executable, __file__, "--part", way, "--images", str(n)]
            told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            results["peak_mib"].setdefault(str(n), {})[way] = json.loads(told)
            print(n, way, told, flush=True)
    results["array_mib"] = n_images * N_FEATURES * 4 / 2**20
    (ROOT / "benchmarks/results/features_memory.json").write_text(json.dumps(results, indent=1) + "\n")


def part(way: str, n_images: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        os.environ["ACCLIMATE_HOME"] = f"{place}/home"
        folder = Path(place) / "features"
        if way == "write":
            write(folder, n_images)
        else:  # what came before is another process's memory
            subprocess.run([sys.executable, "-c", BEFORE, str(folder), str(n_images)], check=True, cwd=ROOT)
            before = mib("VmRSS")
            if way == "cached":
                write(folder, n_images)
            else:
                read(folder, n_images)
            print(json.dumps({"peak": mib("VmHWM"), "at_start": before, "anonymous_at_end": mib("RssAnon")}))
            return
        print(json.dumps({"peak": mib("VmHWM"), "anonymous_at_end": mib("RssAnon")}))


BEFORE = f"""
import sys; sys.path[:0] = [{str(ROOT / "benchmarks")!r}]
from pathlib import Path
from features_memory import write
write(Path(sys.argv[1]), int(sys.argv[2]))
"""


def write(folder: Path, n_images: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for k in range(N_FILES):
        Image.fromarray(rng.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)).save(folder / f"{k}.png")
    ids = tuple(f"id{k}" for k in range(n_images))
    paths = tuple(f"{k % N_FILES}.png" for k in range(n_images))
    images = ImageList(ImageFiles(folder, SIDE_PX), ids, paths, (-1,) * n_images, (0.5,) * 3, (0.5,) * 3)
    sight = Sight(images, ids, np.arange(n_images), np.zeros(n_images, int))
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE_PX**2, N_FEATURES))
    begin = time.perf_counter()
    with row_file(folder / "x.npy", n_images, N_FEATURES, "float32") as out:
        done = extract(
            net, sight, out, open_cache=lambda size: FeaturesCache("benchmark", N_FEATURES, "float32"),
            batch_size=BATCH_SIZE, name="benchmark",
        )  # fmt: skip
    write_index(folder, ids, sight.view)
    print(done, round(time.perf_counter() - begin, 1), "s", file=sys.stderr)


def read(folder: Path, n_images: int) -> None:
    features = read_features(folder)
    chosen = np.random.default_rng(0).choice(n_images, N_READ, replace=False)
    assert features.plain_rows([f"id{k}" for k in chosen]).shape == (N_READ, N_FEATURES)


def mib(name: str) -> float:
    return round(int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) / 1024, 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--part", choices=["write", "cached", "read"])
    given = parser.parse_args()
    if given.part:
        part(given.part, given.images)
    else:
        main(given.images)
