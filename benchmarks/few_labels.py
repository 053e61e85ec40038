"""Few target labels on PACS: logistic regression on frozen features, fastai's fine-tuning, our adapted head.

    python benchmarks/few_labels.py [--n-fastai 3] [--targets art_painting,cartoon,photo]      some 25 CPU minutes

imagenet MobileNetV2 of the testbed, 128 px; same images, same backbone. A draw (target, seed) is 500 test images, the
labels, and all other target images without labels; no method sees a test image. Settings were found on other test
images: each domain is halved, and test images come only from the half that development never tested on.

"20 a class": both other domains are source. "pairs": one source domain, with 0 labels, 20 in all and 10 a class. Differences
come with Student's 95 % interval over the seeds, paired by draw. Seconds are CPU seconds of one thread. fastai is dev-only;
where it is absent that part is left out and said so.

Needs the testbed (ACCLIMATE_TESTBED, default ../shared/testbed); writes benchmarks/results/few_labels.json.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pipeline import ROOT, machine
from scipy.stats import t as student
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(ROOT))
from tasks.core.adaptation.frozen import FrozenSettings, Labelled, fit_adapted_head
from tasks.core.batches import ImageList, plain_batches
from tasks.core.images import ImageFiles
from tasks.core.runtime import address_rng, use_machine
from tasks.core.zoo import load_candidate
from tasks.core.zoo_file import read_zoo

TESTBED = Path(os.environ.get("ACCLIMATE_TESTBED", ROOT / "../shared/testbed")).resolve()
DOMAINS = ("photo", "art_painting", "cartoon")
PAIRS = [("photo", "art_painting"), ("photo", "cartoon"), ("art_painting", "photo"), ("cartoon", "photo")]
IN_ALL = -20  # 20 labels drawn from all classes together
N_SEEDS, N_PAIR_SEEDS, N_TEST, N_PER_CLASS, SIDE_PX = 10, 5, 500, 20, 128
SETTINGS = FrozenSettings(7, l2_per_feature=2e-4, source_per_class=10, confidence=0.6, pseudo_weight=1.0, n_rounds=3)


@dataclass(frozen=True)
class Pictures:
    """Every image of the testbed: its path, class, domain and features."""

    paths: np.ndarray
    y_N: np.ndarray
    domain_N: np.ndarray
    x_ND: np.ndarray
    n_classes: int
    seconds_per_image: float

    def at(self, places: np.ndarray) -> Labelled:
        return Labelled(self.x_ND[places], self.y_N[places], self.domain_N[places])


@dataclass(frozen=True)
class Draw:
    """Places of the images."""

    source: np.ndarray
    labelled: np.ndarray
    unlabelled: np.ndarray
    test: np.ndarray


def main(n_fastai: int, targets: list[str]) -> None:
    use_machine("cpu", 1)
    pictures = read_pictures()
    found: dict[str, Any] = {"machine": machine(), "clock": "CPU seconds", "settings": vars(SETTINGS)}
    found["extraction_images_per_second"] = round(1 / pictures.seconds_per_image, 1)
    found["20 a class"] = {target: twenty_a_class(pictures, target, n_fastai) for target in targets}
    found["pairs"] = {
        f"{source} to {target}, {told}": pair(pictures, source, target, n_labels)
        for source, target in PAIRS
        for told, n_labels in {"0": 0, "20 in all": IN_ALL, "10 a class": 10}.items()
    }
    path = ROOT / "benchmarks/results/few_labels.json"
    path.write_text(json.dumps(found, indent=1) + "\n")


def read_pictures() -> Pictures:
    table = pd.read_csv(TESTBED / "pacs/manifest.csv")
    classes, y_N = np.unique(table["label"], return_inverse=True)
    (candidate,) = read_zoo(TESTBED / "zoo", ["imagenet_mobilenet_v2"])
    backbone = load_candidate(candidate, 2, 0).model.backbone.eval().to(memory_format=torch.channels_last)
    files = ImageFiles(TESTBED / "pacs", SIDE_PX, candidate.interpolation)
    paths = tuple(table["path"])
    images = ImageList(files, paths, paths, tuple(y_N.tolist()), candidate.mean, candidate.std)
    start = time.process_time()
    with torch.inference_mode():
        x_ND = np.concatenate([backbone(x_NCHW).numpy() for x_NCHW in plain_batches(images, 32)])
    seconds = (time.process_time() - start) / len(images)
    return Pictures(table["path"].to_numpy(str), y_N, table["domain"].to_numpy(str), x_ND, len(classes), seconds)


def drawn(pictures: Pictures, sources: list[str], target: str, n_labels: int, seed: int) -> Draw:
    """n_labels of each class, or IN_ALL."""
    own = np.flatnonzero(pictures.domain_N == target)
    held_back = np.sort(address_rng("half", target).permutation(own)[: len(own) // 2])
    rng = address_rng("few labels", target, seed)
    test = rng.permutation(held_back)[:N_TEST]
    pool = rng.permutation(np.setdiff1d(own, test))
    of_class = [pool[pictures.y_N[pool] == c][: max(n_labels, 0)] for c in range(pictures.n_classes)]
    labelled = pool[:-IN_ALL] if n_labels == IN_ALL else np.concatenate(of_class)
    source = np.flatnonzero(np.isin(pictures.domain_N, sources))
    return Draw(source, labelled, np.setdiff1d(pool, labelled), test)


# accuracy on the test images and CPU seconds of one method on one draw
Figures = tuple[float, float]


def frozen(pictures: Pictures, draw: Draw, probe: Callable[[Pictures, Draw], np.ndarray]) -> Figures:
    start = time.process_time()
    guessed = probe(pictures, draw)
    seconds = time.process_time() - start
    return float((guessed == pictures.y_N[draw.test]).mean()), seconds


def logistic_regression(pictures: Pictures, draw: Draw) -> np.ndarray:
    """On the labelled target images; without any, on the source. As in the testbed's notes."""
    rows = pictures.at(draw.labelled if len(draw.labelled) else draw.source)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)).fit(rows.x_ND, rows.y_N)
    found: np.ndarray = probe.predict(pictures.x_ND[draw.test])
    return found


def adapted(how: str, settings: FrozenSettings = SETTINGS) -> Callable[[Pictures, Draw], np.ndarray]:
    def probe(pictures: Pictures, draw: Draw) -> np.ndarray:
        source, labelled = pictures.at(draw.source), pictures.at(draw.labelled)
        head = fit_adapted_head(source, labelled, pictures.x_ND[draw.unlabelled], how, settings)
        return head.probabilities(pictures.x_ND[draw.test]).argmax(1)

    return probe


METHODS: dict[str, Callable[[Pictures, Draw], np.ndarray]] = {
    "logistic regression": logistic_regression,
    "ours": adapted("standardise"),
    "ours without pseudo-labels": adapted("standardise", replace(SETTINGS, n_rounds=0)),
    "ours with coral": adapted("coral"),
    "ours with none": adapted("none"),
}


def twenty_a_class(pictures: Pictures, target: str, n_fastai: int) -> dict[str, Any]:
    sources = [domain for domain in DOMAINS if domain != target]
    draws = [drawn(pictures, sources, target, N_PER_CLASS, seed) for seed in range(N_SEEDS)]
    figures = {name: [frozen(pictures, draw, probe) for draw in draws] for name, probe in METHODS.items()}
    fastai = fastai_or_why_not()
    if isinstance(fastai, str):
        print(fastai)
    elif n_fastai:
        figures["fastai"] = [fastai(pictures, draw, seed) for seed, draw in enumerate(draws[:n_fastai])]
    found = told(figures) | {"n_source": len(draws[0].source), "n_unlabelled": len(draws[0].unlabelled)}
    if "fastai" in figures:
        n_seen = len(draws[0].source) + len(draws[0].unlabelled) + len(draws[0].labelled)
        found |= seconds_per_fastai(figures, n_seen * pictures.seconds_per_image)
    print(f"{target}, {N_PER_CLASS} a class", json.dumps(found), flush=True)
    return found


def pair(pictures: Pictures, source: str, target: str, n_labels: int) -> dict[str, Any]:
    draws = [drawn(pictures, [source], target, n_labels, seed) for seed in range(N_PAIR_SEEDS)]
    found = told({name: [frozen(pictures, draw, probe) for draw in draws] for name, probe in METHODS.items()})
    print(f"{source} to {target}, {n_labels}", json.dumps(found), flush=True)
    return found


def told(figures: dict[str, list[Figures]]) -> dict[str, Any]:
    """Per method accuracy, each seed's, CPU seconds; and how far ours is above each other method on the draws both saw."""
    found: dict[str, Any] = {}
    ours = np.array([accuracy for accuracy, _ in figures["ours"]])
    for name, rows in figures.items():
        accuracy = np.array([row[0] for row in rows])
        found[name] = {"accuracy": round(float(accuracy.mean()), 4), "per_seed": accuracy.round(3).tolist()}
        found[name]["seconds"] = round(float(np.median([row[1] for row in rows])), 2)
        if name != "ours":
            found[name]["ours_above"] = interval(ours[: len(accuracy)] - accuracy)
    return found


def interval(differences: np.ndarray) -> list[float]:
    """Mean and Student's 95 % interval."""
    mean = float(differences.mean())
    n = len(differences)
    half = float(student.ppf(0.975, n - 1) * differences.std(ddof=1) / n**0.5) if n > 1 else float("nan")
    return [round(value, 4) for value in (mean, mean - half, mean + half)]


def seconds_per_fastai(figures: dict[str, list[Figures]], extraction: float) -> dict[str, float]:
    """Ours against fastai's: with the features at hand, and with those of all images that it uses extracted for it."""
    ours, fastai = (float(np.median([row[1] for row in figures[name]])) for name in ("ours", "fastai"))
    return {
        "extraction_seconds": round(extraction, 1),
        "seconds_per_fastai": round(ours / fastai, 3),
        "seconds_per_fastai_with_extraction": round((ours + extraction) / fastai, 3),
    }


def fastai_or_why_not() -> Callable[[Pictures, Draw, int], Figures] | str:
    try:
        import fastai.vision.all  # noqa: F401  seconds to import, and only for developers
    except ImportError as error:
        return f"fastai is left out: it is not installed here ({error})"
    return fine_tuned


def fine_tuned(pictures: Pictures, draw: Draw, seed: int) -> Figures:
    """fastai's fine_tune: its head 3 epochs, then everything 5 epochs, its augmentation and rates; no validation pass."""
    from fastai.vision import all as fastai
    from fastai.vision.learner import create_head

    (candidate,) = read_zoo(TESTBED / "zoo", ["imagenet_mobilenet_v2"])
    fastai.set_seed(seed, reproducible=True)
    body = load_candidate(candidate, 2, 0).model.backbone.features
    model = torch.nn.Sequential(body, create_head(candidate.feature_dim, pictures.n_classes))
    labelled = pd.DataFrame({"path": pictures.paths[draw.labelled], "label": pictures.y_N[draw.labelled]})
    start = time.process_time()
    loaders = fastai.ImageDataLoaders.from_df(
        labelled, TESTBED / "pacs", valid_pct=0, bs=16, num_workers=0, device=torch.device("cpu"),
        item_tfms=fastai.Resize(SIDE_PX),
        batch_tfms=[*fastai.aug_transforms(), fastai.Normalize.from_stats(candidate.mean, candidate.std)],
    )  # fmt: skip
    learner = fastai.Learner(loaders, model, fastai.CrossEntropyLossFlat(), splitter=fastai.default_split)
    fastai.apply_init(model[1], torch.nn.init.kaiming_normal_)
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(5, freeze_epochs=3)
    seconds = time.process_time() - start
    test = loaders.test_dl([TESTBED / "pacs" / path for path in pictures.paths[draw.test]])
    with learner.no_bar():
        guessed = np.array(loaders.vocab)[learner.get_preds(dl=test)[0].argmax(1).numpy()]
    return float((guessed == pictures.y_N[draw.test]).mean()), seconds


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--n-fastai", type=int, default=3, help="draws of each target for fastai")
    parser.add_argument("--targets", default="art_painting,cartoon,photo")
    asked = parser.parse_args()
    main(asked.n_fastai, asked.targets.split(","))
