"""Validation of a synthetic manifest: seconds and peak memory of `validate_data`'s computation, at 10,000 and 100,000 rows.

    python benchmarks/validation_scale.py [n_rows ...]

Each size runs in a process of its own. Prints how both grow; writes benchmarks/results/validation_scale.json.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

PROJECT = Path(__file__).parents[1]
RESULT = PROJECT / "benchmarks/results/validation_scale.json"
CLASSES = [f"class_{i:02d}" for i in range(20)]


def synthetic(n_rows: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Manifest and facts: 1 % unreadable, 1 % copies, 1 % near copies, groups of about five, two audit columns."""
    rng = np.random.default_rng(0)
    ids = [f"{i:016x}" for i in range(n_rows)]
    domain = np.where(rng.random(n_rows) < 0.5, "source", "target")
    label = rng.choice(CLASSES, n_rows)
    label[(domain == "target") & (rng.random(n_rows) < 0.8)] = ""
    manifest = pd.DataFrame(
        {
            "image_id": ids,
            "content_id": ids,
            "path": [f"{d}/{i:07d}.jpg" for i, d in enumerate(domain)],
            "domain": domain,
            "origin": domain,
            "split": "",
            "group_id": [f"{d}{g}" for d, g in zip(domain, rng.integers(0, max(n_rows // 5, 1), n_rows), strict=True)],
            "label": label,
            "problem": "",
            "audit_device": rng.choice([f"device_{i}" for i in range(8)], n_rows),
            "audit_site": rng.choice(["north", "south", "east"], n_rows),
        }
    ).astype(object)
    words = rng.integers(0, 256, (n_rows, 32), np.uint8)
    near = np.flatnonzero(rng.random(n_rows) < 0.01)
    words[near] = words[np.maximum(near - 1, 0)] ^ np.packbits(rng.random((len(near), 256)) < 0.03, axis=1)
    pixels = np.arange(n_rows)
    copies = np.flatnonzero(rng.random(n_rows) < 0.01)
    pixels[copies] = np.maximum(copies - 1, 0)
    words[copies] = words[np.maximum(copies - 1, 0)]
    facts = pd.DataFrame(
        {
            "image_id": ids, "width_px": 640.0, "height_px": 480.0, "mode": "RGB", "format": "jpeg", "n_bits": 8.0,
            "has_alpha": False, "n_frames": 1.0, "exif_orientation": 1.0,
            "brightness": rng.beta(5, 5, n_rows), "contrast": rng.beta(2, 6, n_rows), "brightness_p5": 0.1, "brightness_p99": 0.9,
            "sharpness": rng.lognormal(6, 1, n_rows), "entropy": rng.uniform(4, 8, n_rows), "saturation": rng.beta(2, 4, n_rows),
            "pixel_hash": [f"{i:016x}" for i in pixels], "perceptual_hash": [row.tobytes().hex() for row in words], "error": "",
        }
    )  # fmt: skip
    bad = rng.random(n_rows) < 0.01
    numbers = [name for name in facts.columns if facts[name].dtype == float]
    facts.loc[bad, numbers] = np.nan
    facts["has_alpha"] = facts["has_alpha"].astype(object)
    facts.loc[bad, "has_alpha"] = None
    facts.loc[bad, ["pixel_hash", "perceptual_hash", "mode", "format"]] = ""
    facts.loc[bad, "error"] = "OSError: image file is truncated"
    return manifest, facts


def measure(n_rows: int) -> dict[str, float]:
    """Seconds and peak memory of the checks; the tables and the imports stand before the clock."""
    import great_expectations  # noqa: F401  its import is a constant, told apart

    from tasks.core.drift import read_profile
    from tasks.core.validation_page import validation_page
    from tasks.params import RuleBook, read_params
    from tasks.validate_data import checked_set, split_rows

    params = read_params(PROJECT / "params.yaml")
    settings = params.validate_data
    book = RuleBook(confidence=settings.confidence, rules=settings.rules)
    past = read_profile(PROJECT / "data/given/accepted_profile.json")
    manifest, facts = synthetic(n_rows)
    before_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    checked = checked_set(manifest, facts, book, past, split=lambda rows: split_rows(rows, settings, params.seed))
    checks_s = time.perf_counter() - start
    page = validation_page(checked.validation, lambda path: (_ for _ in ()).throw(FileNotFoundError(path)))
    return {
        "n_rows": n_rows,
        "checks_s": round(checks_s, 1),
        "page_s": round(time.perf_counter() - start - checks_s, 1),
        "page_mib": round(len(page) / 2**20, 2),
        "before_mib": round(before_mib),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "n_duplicate_groups": len(checked.validation["duplicate_groups"]),
    }


def main(sizes: list[int]) -> None:
    rows = []
    for n_rows in sizes:
        done = subprocess.run(
            [sys.executable, __file__, "--one", str(n_rows)], capture_output=True, text=True, check=True
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    if len(rows) > 1:
        first, last = rows[0], rows[-1]
        grown = {key: round((last[key] or 0.1) / (first[key] or 0.1), 1) for key in ("n_rows", "checks_s", "peak_mib")}
        print(f"from {first['n_rows']} to {last['n_rows']} rows, times: {grown}")
    RESULT.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    if "--one" in sys.argv:
        print(json.dumps(measure(int(sys.argv[-1]))))
    else:
        main([int(text) for text in sys.argv[1:]] or [10_000, 100_000])
