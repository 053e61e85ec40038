"""What synthetic images bring a source-only model: PACS photo → art_painting, frozen MobileNetV2 features, 128 px.

    python benchmarks/synthesis_gain.py [n_seeds [source target]]      default: 5 photo art_painting

A minute a seed on a quiet core, five on a busy one.

Of each class 75 source images are trained on and 75 target images lend their look; the other target images are the test.
A seed changes both draws and the synthesis. Each training set also with the first 10 of its 75 images a class (scarce), and
each with a control: looks lent by other *source* images, which are no step towards the target.

Needs the testbed (ACCLIMATE_TESTBED, default ../shared/testbed); writes benchmarks/results/synthesis_gain.json.

Axes: N images, D features.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pipeline import ROOT, machine
from sample_seeds import summary
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(ROOT))
from tasks.core.batches import ImageList, plain_batches
from tasks.core.images import ImageFiles
from tasks.core.intervals import paired_gain
from tasks.core.runtime import address_rng, use_machine
from tasks.core.store import open_store
from tasks.core.synthesis import Recipe, drawn, read_synthetic, write_synthetic
from tasks.core.zoo import load_candidate
from tasks.core.zoo_file import read_zoo

TESTBED = Path(os.environ.get("ACCLIMATE_TESTBED", ROOT / "../shared/testbed")).resolve()
N_PER_CLASS, SCARCE, SIDE_PX, BATCH, INVERSE_L2 = 75, 10, 128, 50, 0.01
METHODS = ("statistics", "fourier")
LOOKS = {"target": "", "source": "_control"}  # whose look is lent: name of the model


class Seen:
    """Features by path, computed once."""

    def __init__(self) -> None:
        self.candidate = next(c for c in read_zoo(TESTBED / "zoo", None) if c.name.startswith("imagenet"))
        self.model = load_candidate(self.candidate, 2, 0).model.eval().to(memory_format=torch.channels_last)
        self.known: dict[str, np.ndarray] = {}

    @torch.inference_mode()
    def features(self, root: Path, paths: list[str]) -> np.ndarray:
        """(N, D) float32."""
        new = tuple(path for path in paths if str(root / path) not in self.known)
        scaling = (self.candidate.mean, self.candidate.std)
        images = ImageList(ImageFiles(root, SIDE_PX), new, new, (-1,) * len(new), *scaling)
        rows = [self.model.features(x_NCHW).numpy() for x_NCHW in plain_batches(images, BATCH)]
        self.known |= zip((str(root / path) for path in new), np.concatenate(rows), strict=True) if new else {}
        return np.stack([self.known[str(root / path)] for path in paths])


def main(n_seeds: int, source: str, target: str) -> None:
    use_machine("cpu", torch.get_num_threads())
    seen, start = Seen(), time.perf_counter()
    rows = []
    for seed in range(n_seeds):
        rows += one_seed(seen, seed, source, target)
        print(
            pd.DataFrame(rows[-2:]).drop(columns="on_images").to_string(),
            f"{time.perf_counter() - start:.0f} s",
            flush=True,
        )
    result = {"machine": machine(), "source": source, "target": target, "gain": gains(rows), "runs": rows}
    for name, row in result["gain"].items():
        print(f"{name:30s} {row['mean']:+.4f}  95% t interval {row['low']:+.4f} to {row['high']:+.4f}  {row['values']}")
    path = ROOT / "benchmarks/results/synthesis_gain.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


def one_seed(seen: Seen, seed: int, source: str, target: str) -> list[dict[str, Any]]:
    """Test accuracy of each model, for 75 and for 10 source images a class; the gain also with its interval on the images."""
    manifest = split(seed, source, target)
    train = manifest[(manifest["split"] == "train")]
    test = manifest[manifest["split"] == "test"]
    x_train, x_test = (seen.features(TESTBED / "pacs", list(part["path"])) for part in (train, test))
    extra = {
        f"{method}{name}": synthetic(seen, manifest, method, look, seed)
        for method in METHODS
        for look, name in LOOKS.items()
    }
    rows = []
    for n_per_class in (N_PER_CLASS, SCARCE):
        kept = (train["rank"] <= n_per_class).to_numpy()
        of_kept = set(train.loc[kept, "image_id"])
        real = (x_train[kept], train.loc[kept, "label"].to_numpy())
        right = {"source_only": is_right(real, x_test, test)}
        for name, (table, x_ND) in extra.items():
            own = table["parent_id"].isin(of_kept).to_numpy()
            both = (np.concatenate([real[0], x_ND[own]]), np.concatenate([real[1], table.loc[own, "label"].to_numpy()]))
            right[name] = is_right(both, x_test, test)
        accuracy = {name: round(float(r.mean()), 4) for name, r in right.items()}
        on_images = {name: paired_gain(right[name], right["source_only"], 0.95).__dict__ for name in extra}
        rows.append({"seed": seed, "n_per_class": n_per_class, "n_test": len(test), **accuracy, "on_images": on_images})
    return rows


def split(seed: int, source: str, target: str) -> pd.DataFrame:
    """A manifest: of each class and domain 75 drawn images are train or unlabelled, the target's others the test."""
    table = pd.read_csv(TESTBED / "pacs/manifest.csv").rename(columns={"domain": "origin"})
    table = table[table["origin"].isin([source, target])].reset_index(drop=True)
    order = pd.Series([address_rng(seed, "synthesis_gain", path).random() for path in table["path"]])
    table["rank"] = order.groupby([table["origin"], table["label"]]).rank()
    table["domain"] = table["origin"].map({source: "source", target: "target"})
    learnt = table["domain"].map({"source": "train", "target": "unlabelled"})
    rest = table["domain"].map({"source": "", "target": "test"})
    return table.assign(image_id=table["path"], split=learnt.where(table["rank"] <= N_PER_CLASS, rest))


def synthetic(seen: Seen, manifest: pd.DataFrame, method: str, look: str, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """The table of synthetic images, one of each parent, and their features (N, D)."""
    if look == "source":
        lenders = manifest[manifest["split"] == "train"].assign(domain="target", split="unlabelled")
        manifest = pd.concat([manifest[manifest["domain"] == "source"], lenders])
    recipe = Recipe(method, 1, None, strength=1.0, fourier_share=0.05, short_side_px=SIDE_PX, seed=seed)
    with tempfile.TemporaryDirectory() as place:
        write_synthetic(Path(place), drawn(manifest, recipe), open_store(TESTBED / "pacs"), recipe)
        table = read_synthetic(Path(place) / "images.csv")
        return table, seen.features(Path(place), list(table["path"]))


def is_right(train: tuple[np.ndarray, np.ndarray], x_ND: np.ndarray, test: pd.DataFrame) -> np.ndarray:
    """(N,) bool."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=INVERSE_L2, max_iter=1000)).fit(*train)
    return np.asarray(model.predict(x_ND) == test["label"].to_numpy())


def gains(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Paired by seed: with synthetic images minus without, and with the target's look minus with the source's."""
    found = {}
    for n_per_class in (N_PER_CLASS, SCARCE):
        own = pd.DataFrame([row for row in rows if row["n_per_class"] == n_per_class])
        for method in METHODS:
            for name, than in (
                (method, "source_only"),
                (f"{method}_control", "source_only"),
                (method, f"{method}_control"),
            ):
                found[f"{name} - {than}, {n_per_class}"] = summary(list(own[name] - own[than]))
    return found


if __name__ == "__main__":
    given = sys.argv[1:]
    main(int(given[0]) if given else 5, *(given[1:3] if len(given) > 2 else ("photo", "art_painting")))
