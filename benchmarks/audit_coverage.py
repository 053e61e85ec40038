"""How often the audit's 95 % intervals hold the truth, in simulation, and how near they are to MetricFrame's bootstrap.

    python benchmarks/audit_coverage.py [--quick]        default: 1,000 runs a case, some minutes; --quick: 200

Shares and their differences from the rest: images drawn independently. Clusters: beta-binomial, intra-cluster correlation .2, 20
images each, or 2 to 39. Ten classes: the mean and the lowest recall, beside plain percentiles of a bootstrap of the same counts.
Calibration: probabilities that are right, 5 and 15 points too high. MetricFrame: three data sets in which each cell of group and
class holds at least 30 images. Writes benchmarks/results/audit_coverage.json.
"""

import argparse
import json
import sys
import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from pipeline import ROOT, machine

sys.path.insert(0, str(ROOT))
from tasks.core.bias.counts import Settings, point
from tasks.core.bias.estimates import compare, own_intervals
from tasks.core.bias.table import AuditTable, Grouping, table_of

SETTINGS = Settings(confidence=0.95, min_group_size=20, n_bootstrap=1000, seed=0, ask_below=None)
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
FRAME_REPLICATES = 300


def main(n_runs: int) -> None:
    results: dict[str, Any] = {"machine": machine(), "n_runs": n_runs}
    for name, measure in {
        "shares": shares, "clusters": clusters, "classes": classes, "calibration": calibration, "metric_frame": metric_frame,
    }.items():  # fmt: skip
        results[name] = measure(n_runs)
        print(name, json.dumps(results[name], indent=1), flush=True)
    (ROOT / "benchmarks/results/audit_coverage.json").write_text(json.dumps(results, indent=1) + "\n")


def table(right_N: np.ndarray, group_N: np.ndarray, **more: Any) -> AuditTable:
    """One class, so that accuracy is all there is; more: y_true_N, probs_NC, clusters_N, classes."""
    given: dict[str, Any] = {
        "image_ids_N": None, "classes": ("x", "y"), "y_true_N": np.zeros(len(right_N), int), "probs_NC": None,
        "clusters_N": None, "baselines": {},
    } | more  # fmt: skip
    y_pred_N = np.where(right_N, given["y_true_N"], (given["y_true_N"] + 1) % len(given["classes"]))
    names = tuple(f"g{g}" for g in range(group_N.max() + 1))
    return AuditTable(columns={"g": Grouping(group_N, names)}, y_pred_N=y_pred_N, **given)


def own_and_gap(made: AuditTable, metric: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Intervals of the first group's value and of its difference from the rest."""
    gap = compare(made, "g", metric, "difference", "others", SETTINGS)[0]
    return own_intervals(made, "g", metric, SETTINGS)[0].interval(0.95), gap.interval(0.95)


def holds(interval: tuple[float, float], truth: float) -> bool:
    return interval[0] <= truth <= interval[1]


def shares(n_runs: int) -> dict[str, Any]:
    """Two groups of n images each and one share."""
    rng, found = np.random.default_rng(0), {}
    for n in (30, 100, 2000):
        group_N = np.repeat([0, 1], n)
        for share in SHARES:
            made = [own_and_gap(table(rng.random(2 * n) < share, group_N), "accuracy") for _ in range(n_runs)]
            found[f"n {n}, share {share}"] = {
                "share": np.mean([holds(own, share) for own, _ in made]),
                "difference": np.mean([holds(gap, 0) for _, gap in made]),
            }
    return found


def clusters(n_runs: int) -> dict[str, Any]:
    """The first group has n clusters, the rest three times as many."""
    rng, found = np.random.default_rng(1), {}
    for n_clusters in (10, 30):
        for are_equal in (True, False):
            for share in (0.5, 0.7, 0.9, 0.95):
                held = []
                for _ in range(n_runs):
                    size = rng.integers(2, 40, 4 * n_clusters) if not are_equal else np.full(4 * n_clusters, 20)
                    cluster_N = np.repeat(np.arange(4 * n_clusters), size)
                    chance = rng.beta(share * 4, (1 - share) * 4, 4 * n_clusters)
                    right_N, group_N = (
                        rng.random(len(cluster_N)) < chance[cluster_N],
                        (cluster_N >= n_clusters).astype(int),
                    )
                    own, gap = own_and_gap(table(right_N, group_N, clusters_N=cluster_N), "accuracy")
                    by_images, _ = own_and_gap(table(right_N, group_N), "accuracy")
                    held.append([holds(own, share), holds(gap, 0), holds(by_images, share)])
                sizes = "of 20" if are_equal else "of 2 to 39"
                names = ("share", "difference", "share, images as draws")
                found[f"{n_clusters} clusters {sizes}, share {share}"] = dict(zip(names, np.mean(held, 0), strict=True))
    return found


def classes(n_runs: int) -> dict[str, Any]:
    """Ten classes of n images: balanced accuracy and the worst recall, beside percentiles of the bootstrap."""
    rng, found = np.random.default_rng(2), {}
    for name, recall_C in {
        "all .9": np.full(10, 0.9),
        "all .98": np.full(10, 0.98),
        ".6 to .97": np.linspace(0.6, 0.97, 10),
    }.items():
        for n in (30, 100, 400):
            y_true_N, held = np.repeat(np.arange(10), n), []
            for _ in range(n_runs):
                right_N = rng.random(10 * n) < recall_C[y_true_N]
                made = table(right_N, np.zeros(10 * n, int), y_true_N=y_true_N, classes=tuple("abcdefghij"))
                drawn = rng.binomial(n, right_N.reshape(10, n).mean(1), (1000, 10)) / n
                ends = [
                    own_intervals(made, "g", m, SETTINGS)[0].interval(0.95)
                    for m in ("balanced_accuracy", "worst_class_recall")
                ]
                plain = [tuple(np.quantile(x, [0.025, 0.975])) for x in (drawn.mean(1), drawn.min(1))]
                truths = (recall_C.mean(), recall_C.min()) * 2
                held.append([holds(one, truth) for one, truth in zip((*ends, *plain), truths, strict=True)])
            names = ("balanced", "worst", "balanced, percentiles", "worst, percentiles")
            found[f"{name}, n {n}"] = dict(zip(names, np.mean(held, 0), strict=True))
    return found


def calibration(n_runs: int) -> dict[str, Any]:
    """The error's own coverage and, from 20 times as many images of the same model, how often a difference is alleged."""
    rng, found, n_runs = np.random.default_rng(3), {}, n_runs // 4
    for excess in (0.0, 0.05, 0.15):
        truth = point(sure_table(rng, 1_000_000, excess), "", "calibration_error", SETTINGS)[0][0]
        for n in (30, 100, 400):
            made = [own_and_gap(sure_table(rng, 21 * n, excess, n), "calibration_error") for _ in range(n_runs)]
            found[f"{excess} too sure, n {n}"] = {
                "error": np.mean([holds(own, truth) for own, _ in made]),
                "a difference alleged": np.mean([not holds(gap, 0) for _, gap in made]),
            }
    return found


def sure_table(rng: np.random.Generator, n: int, excess: float, n_first: int = 0) -> AuditTable:
    sure_N = 0.2 + 0.8 * rng.beta(8, 2, n)
    right_N = rng.random(n) < sure_N - excess
    return table(
        right_N,
        (np.arange(n) >= n_first).astype(int),
        probs_NC=np.stack([sure_N, 1 - sure_N], 1).clip(0, sure_N[:, None]),
    )


def metric_frame(n_runs: int) -> dict[str, Any]:
    """Largest distance between ends of balanced accuracy and accuracy by group, ours and MetricFrame's, three data sets."""
    from fairlearn.metrics import MetricFrame
    from sklearn.metrics import accuracy_score, balanced_accuracy_score

    warnings.simplefilter("ignore")
    found = {}
    for seed, (n, n_classes, edges) in enumerate(
        [(1500, 3, (0, 0.6, 0.85, 1)), (3000, 5, (0, 0.3, 0.6, 0.9, 1)), (2000, 2, (0, 0.8, 1))]
    ):
        rng = np.random.default_rng(seed)
        rows = pd.DataFrame({"g": "", "y_true": rng.integers(0, n_classes, n)})
        place = rng.random(n)
        for k, (low, high) in enumerate(pairwise(edges)):
            rows.loc[(low <= place) & (place < high), "g"] = f"g{k}"
        rows["y_pred"] = np.where(
            rng.random(n) < 0.8 + 0.02 * rows["y_true"], rows["y_true"], rng.integers(0, n_classes, n)
        )
        assert rows.groupby(["g", "y_true"]).size().min() >= 30
        frame = MetricFrame(
            metrics={"accuracy": accuracy_score, "balanced_accuracy": balanced_accuracy_score}, y_true=rows["y_true"],
            y_pred=rows["y_pred"], sensitive_features=rows["g"], n_boot=FRAME_REPLICATES, ci_quantiles=[0.025, 0.975],
            random_state=0,
        )  # fmt: skip
        far = {}
        for metric in ("accuracy", "balanced_accuracy"):
            theirs = np.stack([ci[metric].to_numpy(float) for ci in frame.by_group_ci], 1)
            ours = [one.interval(0.95) for one in own_intervals(table_of(rows, columns=["g"]), "g", metric, SETTINGS)]
            far[metric] = float(np.abs(np.array(ours) - theirs).max())
        found[f"{n} images, {n_classes} classes, {len(edges) - 1} groups"] = far
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    main(200 if parser.parse_args().quick else 1000)
