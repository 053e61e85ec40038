"""MCC, Deep CORAL and DANN beside skada's on the same frozen features, network, optimiser and number of steps.

    pip install --target SOMEWHERE --no-deps skada==0.6.0 pot skorch tabulate
    PYTHONPATH=SOMEWHERE python benchmarks/skada_peer.py [n_seeds]        default 5; a few minutes

PACS at 128 px, the testbed's ImageNet MobileNetV2 (1,280 features): 75 images of each class and domain, of which 50, drawn
by the seed, are learnt from (source with labels, target without) and the target's other 25 are judged. Both sides: one
hidden layer of 256 without and with BatchNorm, Adam at 0.001, 64 + 64 images a step, 100 steps, the same weights of the
methods, MCC's temperature 2.5. What is left to differ: skada aligns the hidden layer's covariances (its layer_name), ours
those of the logits, as the paper does; DANN's discriminators are each side's own, but the last layer of skada 0.6.0's, a
softmax over its one output and so always 1, is replaced by a sigmoid.

Needs the testbed (ACCLIMATE_TESTBED, default ../shared/testbed); writes benchmarks/results/skada_peer.json.
Axes: N images, D features, C classes.
"""

import copy
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pipeline import ROOT, machine
from scipy.stats import t
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

sys.path.insert(0, str(ROOT))
from tasks.core.adaptation.dann import Dann
from tasks.core.adaptation.deep_coral import DeepCoral
from tasks.core.adaptation.mcc import Mcc
from tasks.core.adaptation.two_domains import Labels
from tasks.core.batches import ImageList, plain_batches
from tasks.core.images import ImageFiles
from tasks.core.model import ImageModel
from tasks.core.objective import Batch, Objective
from tasks.core.runtime import address_rng, address_seed
from tasks.core.zoo import load_candidate
from tasks.core.zoo_file import read_zoo

TESTBED = Path(os.environ.get("ACCLIMATE_TESTBED", ROOT / "../shared/testbed")).resolve()
PAIRS = [("photo", "art_painting"), ("photo", "cartoon"), ("art_painting", "photo"), ("cartoon", "photo")]
N_LEARN, N_JUDGE, HIDDEN, BATCH, N_STEPS, LR = 50, 25, 256, 64, 100, 0.001
WEIGHTS = {"mcc": 1.0, "deep_coral": 1.0, "dann": 0.1}
TEMPERATURE = 2.5


class ForSkada(nn.Module):
    """The same network with the names and the call that skada asks for."""

    def __init__(self, model: ImageModel) -> None:
        super().__init__()
        self.hidden, self.head = model.backbone, model.head

    def forward(self, x_ND: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        return self.head(self.hidden(x_ND))


class Shift:
    """Labelled source, unlabelled target and judged target images of one pair and seed, scaled as the source is."""

    def __init__(self, x_ND: np.ndarray, table: pd.DataFrame, pair: tuple[str, str], seed: int) -> None:
        (source, _), (target, judged) = (self._drawn(table, domain, seed) for domain in pair)
        scaler = StandardScaler().fit(x_ND[source])
        self.source, self.target, self.judged = (
            torch.from_numpy(scaler.transform(x_ND[rows])).float() for rows in (source, target, judged)
        )
        label_N = table["class"].to_numpy()
        self.labels, self.truth = torch.from_numpy(label_N[source]), label_N[judged]

    @staticmethod
    def _drawn(table: pd.DataFrame, domain: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
        learnt, judged = [], []
        for name, rows in table[table["domain"] == domain].groupby("label"):
            order = address_rng(seed, "skada_peer", domain, name).permutation(rows.index.to_numpy())
            learnt.append(order[:N_LEARN])
            judged.append(order[N_LEARN:])
        return np.concatenate(learnt), np.concatenate(judged)


def main(n_seeds: int) -> None:
    theirs = peers()
    x_ND, table = features()
    rows = []
    for norm, pair, seed in product(NORMS, PAIRS, range(n_seeds)):
        shift = Shift(x_ND, table, pair, seed)
        start = perceptron(norm, seed, x_ND.shape[1], table["class"].nunique())
        found = {"source_only": judge(partial(ours, start, shift, None, seed), shift.truth)}
        for name in MINE:
            found[f"{name} ours"] = judge(partial(ours, start, shift, name, seed), shift.truth)
            found[f"{name} skada"] = judge(partial(skadas, start, shift, theirs[name], seed), shift.truth)
        rows.append({"norm": norm, "pair": "→".join(pair), "seed": seed, **found})
        print(norm, *pair, seed, {name: round(accuracy, 3) for name, (accuracy, _) in found.items()}, flush=True)
    report(rows)


def peers() -> dict[str, Callable[..., Any]]:
    """skada's networks by our names. SystemExit where it is not installed."""
    try:
        from skada.deep import DANN, MCC, DeepCoral
        from skada.deep.modules import DomainClassifier
    except ImportError:
        sys.exit(
            "skada is not installed: pip install --target SOMEWHERE --no-deps skada==0.6.0 pot skorch tabulate, "
            "then run with PYTHONPATH=SOMEWHERE"
        )

    def dann(net: nn.Module, **how: Any) -> Any:
        judge_of_domains = DomainClassifier(HIDDEN)
        judge_of_domains.classifier[-1] = nn.Sigmoid()
        # its loss is the sum of both domains', ours the mean
        return DANN(net, "hidden", reg=WEIGHTS["dann"] / 2, domain_classifier=judge_of_domains, **how)

    return {
        "mcc": lambda net, **how: MCC(net, "hidden", reg=WEIGHTS["mcc"], T=TEMPERATURE, **how),
        "deep_coral": lambda net, **how: DeepCoral(net, "hidden", reg=WEIGHTS["deep_coral"], **how),
        "dann": dann,
    }


MINE: dict[str, Callable[[Labels, int], Objective]] = {
    "mcc": lambda labels, _seed: Mcc(labels, WEIGHTS["mcc"], TEMPERATURE),
    "deep_coral": lambda labels, _seed: DeepCoral(labels, WEIGHTS["deep_coral"]),
    "dann": lambda labels, seed: Dann(labels, n_features=HIDDEN, weight=WEIGHTS["dann"], seed=seed),
}
NORMS: dict[str, Callable[[], nn.Module]] = {"no norm": nn.Identity, "batch norm": lambda: nn.BatchNorm1d(HIDDEN)}


def features() -> tuple[np.ndarray, pd.DataFrame]:
    """(N, D) of N_LEARN + N_JUDGE images of each class and domain, and their rows."""
    table = pd.read_csv(TESTBED / "pacs/manifest.csv")
    order = pd.Series([address_rng(0, "skada_peer", path).random() for path in table["path"]])
    kept = order.groupby([table["domain"], table["label"]]).rank() <= N_LEARN + N_JUDGE
    table = table[kept].reset_index(drop=True)
    table["class"] = np.unique(table["label"], return_inverse=True)[1]
    candidate = next(c for c in read_zoo(TESTBED / "zoo", None) if c.name.startswith("imagenet"))
    net = load_candidate(candidate, 2, 0).model.eval()
    paths, none = tuple(table["path"]), (-1,) * len(table)
    images = ImageList(ImageFiles(TESTBED / "pacs", 128), paths, paths, none, candidate.mean, candidate.std)
    with torch.inference_mode():
        return np.concatenate([net.features(x_NCHW).numpy() for x_NCHW in plain_batches(images, BATCH)]), table


def perceptron(norm: str, seed: int, n_features: int, n_classes: int) -> ImageModel:
    torch.manual_seed(address_seed(seed, "skada_peer", "network"))
    hidden = nn.Sequential(nn.Linear(n_features, HIDDEN), NORMS[norm](), nn.ReLU())
    return ImageModel(hidden, nn.Linear(HIDDEN, n_classes))


def judge(predict: Callable[[], np.ndarray], truth_N: np.ndarray) -> tuple[float, float]:
    """Accuracy and CPU seconds."""
    start = time.process_time()
    return float((predict() == truth_N).mean()), time.process_time() - start


def ours(start: ImageModel, shift: Shift, name: str | None, seed: int) -> np.ndarray:
    model, labels = copy.deepcopy(start), Labels(shift.labels, 0.0)
    objective = Mcc(labels, 0.0, TEMPERATURE) if name is None else MINE[name](labels, seed)
    extra = objective.extra()
    parameters = [*model.parameters(), *([] if extra is None else extra.parameters())]
    optimizer, rng = torch.optim.Adam(parameters, LR), address_rng(seed, "skada_peer", "order")
    for step in range(N_STEPS):
        i, j = (rng.permutation(len(x))[:BATCH].tolist() for x in (shift.source, shift.target))
        batch = Batch(shift.source[i], i, (seed, step), shift.target[j])
        optimizer.zero_grad()
        objective.loss(model.train(), batch, step / N_STEPS).backward()
        optimizer.step()
    with torch.no_grad():
        return np.asarray(model.eval()(shift.judged).argmax(1).numpy())


def skadas(start: ImageModel, shift: Shift, make: Callable[..., Any], seed: int) -> np.ndarray:
    n_epochs = N_STEPS // (len(shift.source) // BATCH)
    torch.manual_seed(address_seed(seed, "skada_peer", "skada"))
    net = make(
        ForSkada(copy.deepcopy(start)), max_epochs=n_epochs, batch_size=BATCH, optimizer=torch.optim.Adam, lr=LR,
        train_split=None, verbose=0,
    )  # fmt: skip
    x_ND = torch.cat([shift.source, shift.target]).numpy()
    label_N = np.concatenate([shift.labels.numpy(), np.full(len(shift.target), -1)])
    domain_N = np.repeat([1, -2], [len(shift.source), len(shift.target)])
    net.fit(x_ND, label_N, sample_domain=domain_N)
    return np.asarray(net.predict(shift.judged.numpy(), sample_domain=np.full(len(shift.judged), -2)))


def report(rows: list[dict[str, Any]]) -> None:
    names = [name for name in rows[0] if name not in ("norm", "pair", "seed")]
    seconds = {name: round(float(np.mean([row[name][1] for row in rows])), 2) for name in names}
    result: dict[str, Any] = {"machine": machine(), "cpu_seconds": seconds}
    print("CPU seconds:", seconds)
    for norm in NORMS:
        own = [row for row in rows if row["norm"] == norm]
        accuracy = pd.DataFrame([{"pair": row["pair"], **{name: row[name][0] for name in names}} for row in own])
        by_pair = accuracy.groupby("pair").mean().round(4)
        gaps = {name: gap(accuracy[f"{name} ours"] - accuracy[f"{name} skada"]) for name in MINE}
        result[norm] = {"accuracy": by_pair.to_dict(), "ours_minus_skada": gaps}
        print(norm, by_pair.T.to_string(), sep="\n")
        for name, found in gaps.items():
            print(
                f"{name}: ours - skada {found['mean']:+.3f}, 95% t interval {found['low']:+.3f} to {found['high']:+.3f}"
            )
    path = ROOT / "benchmarks/results/skada_peer.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result | {"runs": rows}, indent=1, ensure_ascii=False) + "\n")


def gap(values: pd.Series) -> dict[str, float]:
    """Mean with Student's t interval over pairs and seeds."""
    found = values.to_numpy()
    half = float(t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found)))
    mean = float(found.mean())
    return {"mean": round(mean, 4), "low": round(mean - half, 4), "high": round(mean + half, 4)}


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
