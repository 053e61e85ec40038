"""Near-duplicates on real images: recall of planted copies, false pairs, PACS' own pairs, growth of the search.

    python benchmarks/near_duplicates.py [n_planted]

Reads the testbed (ACCLIMATE_TESTBED, default ../shared/testbed). Peer in the same run: the usual 64-bit DCT hash, at
most 4 bits apart. Writes benchmarks/results/near_duplicates.json.
"""

import io
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from tasks.core.duplicates import N_BITS, clusters, near_pairs, perceptual_hash
from tasks.core.images import open_upright

PROJECT = Path(__file__).parents[1]
RESULT = PROJECT / "benchmarks/results/near_duplicates.json"
LIMITS = (16, 24, 32, 40, 48, 56, 64)
PEER_BITS = 4
SIZES = (10_000, 30_000, 100_000, 300_000)


def encoded(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def scaled(image: Image.Image, factor: float) -> Image.Image:
    size = (round(image.width * factor), round(image.height * factor))
    return encoded(image.resize(size, Image.Resampling.BICUBIC), 90)


def cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    left, top, right, bottom = np.eye(4, dtype=int)[rng.integers(4)]
    return encoded(image.crop((int(left), int(top), image.width - int(right), image.height - int(bottom))), 90)


PLANTED: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "JPEG quality 75": lambda image, _: encoded(image, 75),
    "JPEG quality 30": lambda image, _: encoded(image, 30),
    "one pixel cropped from one side": cropped,
    "one pixel cropped from all sides": lambda image, _: encoded(
        image.crop((1, 1, image.width - 1, image.height - 1)), 90
    ),
    "half the size": lambda image, _: scaled(image, 0.5),
    "twice the size": lambda image, _: scaled(image, 2),
    "brightness + 5 %": lambda image, _: encoded(image.point(lambda v: min(255, round(v * 1.05))), 90),
}


def grey_of(image: Image.Image) -> np.ndarray:
    return cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2GRAY)


def usual_hash(grey_HW: np.ndarray) -> int:
    """The peer: signs of the lowest 8 x 8 frequencies of a 32 x 32 thumbnail against their median."""
    small = cv2.resize(grey_HW, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].ravel()
    return int.from_bytes(np.packbits(low > np.median(low[1:])).tobytes(), "big")


def own_pairs(images: pd.DataFrame, hashes: list[str]) -> list[dict[str, object]]:
    """The pairs that the set itself holds, nearest first."""
    pairs = near_pairs(hashes, max(LIMITS))
    rows = [
        {
            "bits": int(n_bits),
            "paths": [images["path"][i], images["path"][j]],
            "same_class": bool(images["label"][i] == images["label"][j]),
            "same_domain": bool(images["domain"][i] == images["domain"][j]),
        }
        for i, j, n_bits in pairs
    ]
    return sorted(rows, key=lambda row: (row["bits"], row["paths"]))  # type: ignore[arg-type,return-value]


def planted_rows(folder: Path, paths: list[str], hashes: list[str], n_planted: int) -> list[dict[str, object]]:
    """Per kind of copy and limit: found, and pairs of a copy with anything that is not its original or that one's own copies."""
    rng = np.random.default_rng(0)
    chosen = sorted(rng.choice(len(paths), n_planted, replace=False))
    families = clusters(len(paths), near_pairs(hashes, max(LIMITS))[:, :2])
    usual = np.array([usual_hash(grey_of(open_upright(folder / path))) for path in paths], np.uint64)
    rows = []
    for kind, change in PLANTED.items():
        copies = [change(open_upright(folder / paths[i]), rng) for i in chosen]
        pairs = near_pairs([*hashes, *(perceptual_hash(grey_of(copy)) for copy in copies)], max(LIMITS))
        mixed = pairs[(pairs[:, 0] < len(paths)) & (pairs[:, 1] >= len(paths))]
        of_copy = np.array(chosen)[mixed[:, 1] - len(paths)]
        is_own = mixed[:, 0] == of_copy
        is_family = is_own | ((families[mixed[:, 0]] >= 0) & (families[mixed[:, 0]] == families[of_copy]))
        peer = np.array([usual_hash(grey_of(copy)) for copy in copies], np.uint64)
        distance = np.bitwise_count(peer[:, None] ^ usual[None])
        peer_found = int((distance[np.arange(n_planted), chosen] <= PEER_BITS).sum())
        row: dict[str, object] = {"kind": kind, "n": n_planted, "peer_recall": peer_found / n_planted}
        for limit in LIMITS:
            within = mixed[:, 2] <= limit
            row[f"recall_{limit}"] = float((is_own & within).sum() / n_planted)
            row[f"false_{limit}"] = int((~is_family & within).sum())
        rows.append(row)
    return rows


def growth(hashes: list[str]) -> list[dict[str, float]]:
    """Seconds of the search for sets as skewed as the real one: its hashes with 30 % of the bits flipped."""
    known = np.array([list(bytes.fromhex(text)) for text in hashes if text], np.uint8)
    rng = np.random.default_rng(0)
    rows = []
    for n in SIZES:
        flips = np.packbits(rng.random((n, N_BITS)) < 0.3, axis=1)
        made = [row.tobytes().hex() for row in known[rng.integers(0, len(known), n)] ^ flips]
        start = time.perf_counter()
        near_pairs(made, 40)
        rows.append({"n": n, "seconds": round(time.perf_counter() - start, 2)})
    return rows


def main() -> None:
    testbed = Path(os.environ.get("ACCLIMATE_TESTBED", PROJECT.parent / "shared/testbed")) / "pacs"
    n_planted = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    images = pd.read_csv(testbed / "manifest.csv")
    hashes = [perceptual_hash(grey_of(open_upright(testbed / path))) for path in images["path"]]
    own = own_pairs(images, hashes)
    result = {
        "n_images": len(images),
        "n_pairs_compared": len(images) * (len(images) - 1) // 2,
        "own_pairs": own,
        "n_own_pairs": {limit: sum(row["bits"] <= limit for row in own) for limit in LIMITS},  # type: ignore[operator]
        "planted": planted_rows(testbed, list(images["path"]), hashes, n_planted),
        "growth": growth(hashes),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{len(images)} images, {result['n_pairs_compared']} pairs; own pairs within {result['n_own_pairs']}")
    print(pd.DataFrame(result["planted"]).to_string(index=False))
    print(pd.DataFrame(result["growth"]).to_string(index=False))
    for row in own:
        print(row["bits"], *row["paths"], "" if row["same_class"] and row["same_domain"] else "OTHER CLASS OR DOMAIN")


if __name__ == "__main__":
    main()
