"""What serving costs beside the model: `acclimate serve`'s app over a real socket against a bare loop, in one run.

    python benchmarks/serve_speed.py BUNDLE IMAGES [--requests N] [--batch B]

One client, one request after the other, B images a request, decoded from their files' bytes by both. The bare loop decodes,
stacks and runs the same network; the difference is HTTP, the form, and JSON. Ways take turns. Writes
benchmarks/results/serve_speed.json.
"""

import argparse
import json
import sys
import threading
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from pipeline import ROOT, machine

sys.path.insert(0, str(ROOT))
from flows.registry import Version
from flows.serve import make_server
from flows.served_model import Loaded, ServedModel, Wanted
from flows.uploads import Limits
from tasks.core.bundle import candidate_id, check_bundle
from tasks.core.classifier import Classifier, load_classifier
from tasks.core.reviews import Review
from tasks.core.runtime import use_machine

N_WARM = 5


def main(bundle: Path, folder: Path, n_requests: int, batch: int) -> None:
    use_machine("cpu", 1)
    contents = [path.read_bytes() for path in sorted(folder.iterdir())[:batch]]
    served = standing(bundle)
    server = make_server(served, Limits(2**24, 10**8, batch, 2**26, 16, 60.0), 2)
    server.config.port = 0
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    seconds: dict[str, list[float]] = {"bare": [], "served": []}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        files = [("images", (f"{k}.png", content)) for k, content in enumerate(contents)]
        for number in range(n_requests + N_WARM):
            taken = {"bare": timed(lambda: bare(served.current.classifier, contents))}
            taken["served"] = timed(lambda: client.post("/predict", files=files).raise_for_status())
            if number >= N_WARM:
                for name, value in taken.items():
                    seconds[name].append(value)
    server.should_exit = True
    thread.join()
    results = {"machine": machine(), "n_requests": n_requests, "images_per_request": batch}
    results |= {name: told(np.array(found)) for name, found in seconds.items()}
    results["served_per_bare"] = round(float(np.median(seconds["served"]) / np.median(seconds["bare"])), 2)
    print(json.dumps(results, indent=1))
    (ROOT / "benchmarks/results/serve_speed.json").write_text(json.dumps(results, indent=1) + "\n")


def standing(bundle: Path) -> ServedModel:
    """The bundle as a served model without a registry behind it."""
    manifest, candidate = check_bundle(bundle), candidate_id(bundle)
    served = ServedModel.__new__(ServedModel)
    served.wanted, served.problem, served.looked = Wanted("bench", "champion", "cpu", True), None, ""
    version = Version("bench", "1", candidate, "", (), {})
    served.current = Loaded(version, load_classifier(bundle, "cpu"), manifest, Review(candidate, ()), "")
    return served


def bare(classifier: Classifier, contents: list[bytes]) -> np.ndarray:
    return classifier.probabilities([classifier.read(BytesIO(content)) for content in contents])


def timed(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def told(seconds: np.ndarray) -> dict[str, float]:
    p50, p99 = np.quantile(seconds, (0.5, 0.99))
    return {
        "requests_per_s": round(float(1 / seconds.mean()), 1),
        "p50_ms": round(1000 * float(p50), 2),
        "p99_ms": round(1000 * float(p99), 2),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    said = parser.parse_args()
    main(said.bundle, said.images, said.requests, said.batch)
