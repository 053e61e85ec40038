"""How much measuring costs beyond decoding, whether memory stays flat, what a second run costs, and the same by CleanVision.

    python benchmarks/facts_throughput.py [--images N]        default: 24000 small and N/100 large images; some minutes

Small images: the testbed's PACS files, 128 px, taken in turn until there are N. Large ones: 1-megapixel JPEGs made of them, with
noise that makes decoding cost what it does for photographs (about 6 ns a pixel and half a byte). Decoding alone gives the pixels
as an array through the same store and on as many threads as there are cores; repetitions are interleaved; the ratio is the
median of theirs, the times are the best.
CleanVision runs in this Python, or in the one that CLEANVISION_PYTHON names (it needs an environment of its own).

Needs the testbed (ACCLIMATE_TESTBED, default ../shared/testbed); writes benchmarks/results/facts_throughput.json.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from PIL import Image
from pipeline import ROOT, machine

sys.path.insert(0, str(ROOT))
from tasks.core.facts import measure_images, write_facts
from tasks.core.facts_cache import FactsCache
from tasks.core.images import open_upright
from tasks.core.manifest import content_id_of
from tasks.core.store import Store, open_store

TESTBED = Path(os.environ.get("ACCLIMATE_TESTBED", ROOT / "../shared/testbed")).resolve()
LARGE_SIZE, LARGE_NOISE, LARGE_QUALITY = (1152, 896), 10, 95
N_REPETITIONS = 5
CHUNK = 32
CLEANVISION = """
import sys, time
from cleanvision import Imagelab
if __name__ == "__main__":
    begin = time.perf_counter()
    lab = Imagelab(data_path=sys.argv[1])
    lab.find_issues(n_jobs=int(sys.argv[2]), verbose=False)
    print("SECONDS", time.perf_counter() - begin, len(lab.issues))
    print(lab.issue_summary.to_string())
"""


def main(n_images: int) -> None:
    results: dict[str, Any] = {"machine": machine(), "n_cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ACCLIMATE_HOME"] = f"{folder}/home"
        small, large = open_store(TESTBED / "pacs"), large_images(Path(folder) / "large", max(n_images // 100, 8))
        results["small"] = throughput(small, n_images)
        results["large"] = throughput(large, max(n_images // 100, 8))
        for name in ("small", "large"):
            print(name, json.dumps(results[name], indent=1), flush=True)
        results["memory"] = memory(n_images)
        print("peak memory", results["memory"], flush=True)
        results["second_run"] = second_run(small)
        print("second run", results["second_run"], flush=True)
    results["cleanvision"] = cleanvision(TESTBED / "pacs")
    print("CleanVision", results["cleanvision"])
    path = ROOT / "benchmarks/results/facts_throughput.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")


def throughput(store: Store, n_images: int) -> dict[str, Any]:
    """Microseconds an image, wall clock, all cores; and the ratio of the speeds."""
    manifest = manifest_of(store, n_images)
    n_threads = os.cpu_count() or 1
    ways: dict[str, Callable[[], object]] = {
        "decode": lambda: decode_all(store, list(manifest["path"]), n_threads),
        "facts": lambda: measure_all(store, manifest),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(N_REPETITIONS):
        for name, work in ways.items():
            begin = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - begin)
    ratios = [decode / facts for decode, facts in zip(seconds["decode"], seconds["facts"], strict=True)]
    return {
        "n_images": n_images,
        "us_per_image": {name: round(min(found) / n_images * 1e6, 1) for name, found in seconds.items()},
        "facts_per_decode": round(float(np.median(ratios)), 3),
        "facts_per_decode_of_each_repetition": [round(ratio, 3) for ratio in ratios],
    }


def decode_all(store: Store, paths: list[str], n_threads: int) -> None:
    cv2.setNumThreads(1)

    def decode(chunk: list[str]) -> None:
        for path in chunk:
            np.asarray(open_upright(io.BytesIO(store.read(path))))

    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(decode, (paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK))))


def measure_all(store: Store, manifest: pd.DataFrame) -> FactsCache:
    with tempfile.TemporaryDirectory() as folder, FactsCache() as cache:
        write_facts(Path(folder) / "facts.csv", measure_images(store, manifest, cache))
    return cache


def manifest_of(store: Store, n_images: int) -> pd.DataFrame:
    """Contents unknown, so that nothing comes from the cache."""
    paths = list(islice(cycle(entry.path for entry in store.entries()), n_images))
    return pd.DataFrame({"image_id": paths, "content_id": "", "path": paths, "problem": ""})


def large_images(folder: Path, n_images: int) -> Store:
    folder.mkdir()
    store = open_store(TESTBED / "pacs")
    paths = [entry.path for entry in store.entries()]
    width, height = LARGE_SIZE
    for number in range(n_images):
        rng = np.random.default_rng(number)
        image = open_upright(io.BytesIO(store.read(paths[number * 37 % len(paths)]))).resize(LARGE_SIZE)
        pixels = np.asarray(image) + rng.normal(0, LARGE_NOISE, (height, width, 3))
        large = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        large.save(folder / f"{number}.jpg", quality=LARGE_QUALITY)
    return open_store(folder)


def memory(n_images: int) -> dict[str, float]:
    """Peak MiB of a process that measures N small images, and a quarter of them (its workers hold one batch each)."""
    peaks = {}
    for n in (n_images // 4, n_images):
        command = [sys.executable, __file__, "--memory-of", str(n)]
        peaks[str(n)] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return peaks


def memory_of(n_images: int) -> None:
    store = open_store(TESTBED / "pacs")
    measure_all(store, manifest_of(store, n_images))
    status = Path("/proc/self/status").read_text()  # getrusage would tell the peak of the process that started this one
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def second_run(store: Store) -> dict[str, float]:
    paths = [entry.path for entry in store.entries()]
    ids = [content_id_of(store.read(path)) for path in paths]
    manifest = pd.DataFrame({"image_id": paths, "content_id": ids, "path": paths, "problem": ""})
    found: dict[str, float] = {"n_images": len(paths)}
    for name in ("first", "second"):
        begin = time.perf_counter()
        cache = measure_all(store, manifest)
        found |= {f"{name}_seconds": round(time.perf_counter() - begin, 2), f"{name}_n_known": cache.n_found}
    return found


def cleanvision(folder: Path) -> dict[str, Any]:
    python = os.environ.get("CLEANVISION_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import cleanvision"], capture_output=True, check=False).returncode:
        return {
            "absent": "make an environment, `pip install cleanvision` in it, and set CLEANVISION_PYTHON to its python"
        }
    with tempfile.TemporaryDirectory() as place:
        script = Path(place) / "run_cleanvision.py"
        script.write_text(CLEANVISION)
        command = [python, str(script), str(folder), str(os.cpu_count())]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("SECONDS"))
    seconds, n_images = float(lines[at].split()[1]), int(lines[at].split()[2])
    issues = {line.split()[1]: int(line.split()[2]) for line in lines[at + 2 :]}
    return {"n_images": n_images, "us_per_image": round(seconds / n_images * 1e6, 1), "issues": issues}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=24_000)
    parser.add_argument("--memory-of", type=int)
    given = parser.parse_args()
    if given.memory_of:
        memory_of(given.memory_of)
    else:
        main(given.images)
