"""CPU seconds and peak memory of the audit: many images, classes, groups; seconds per replicate against MetricFrame.

    python benchmarks/audit_speed.py [--quick]        default: 1,000,000 images; some minutes; --quick: 100,000

Each case runs in a process of its own, so that its peak memory is its own; what the process holds before the case (libraries,
the table itself) is given beside. MetricFrame bootstraps balanced accuracy of 8 groups of 5,000 such images; ours
makes the same intervals with 2,000 replicates. Writes benchmarks/results/audit_speed.json.
"""

import argparse
import json
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from pipeline import ROOT, machine

sys.path.insert(0, str(ROOT))
from tasks.core.bias.counts import Settings, class_counts, class_rates
from tasks.core.bias.estimates import compare, own_intervals
from tasks.core.bias.table import AuditTable, Grouping

N_REPLICATES = 2000
SETTINGS = Settings(confidence=0.95, min_group_size=30, n_bootstrap=N_REPLICATES, seed=0, ask_below=0.5)
CASES = {  # groups, classes, share of the images, images per cluster (0: none)
    "50 groups, 10 classes": (50, 10, 1.0, 0),
    "50 groups, 100 classes": (50, 100, 1.0, 0),
    "50 groups, 10 classes, clusters of 20": (50, 10, 1.0, 20),
    "10,000 groups, 10 classes": (10_000, 10, 1.0, 0),
    "10,000 groups, 100 classes": (10_000, 100, 0.5, 0),
}
METRICS = ["accuracy", "recall:c000", "balanced_accuracy", "worst_class_recall", "mean_confidence", "calibration_error"]


def main(n_images: int) -> None:
    results: dict[str, Any] = {"machine": machine(), "n_images": n_images, "n_replicates": N_REPLICATES, "cases": {}}
    for name in CASES:
        command = [sys.executable, __file__, "--case", name, "--images", str(n_images)]
        results["cases"][name] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(name, json.dumps(results["cases"][name]), flush=True)
    results["metric_frame"] = against_metric_frame(5_000)
    print(json.dumps(results["metric_frame"], indent=1))
    (ROOT / "benchmarks/results/audit_speed.json").write_text(json.dumps(results, indent=1) + "\n")


def case(name: str, n_images: int) -> None:
    """Prints seconds per metric: every group's value and its difference to all others, both with their intervals."""
    n_groups, n_classes, share, cluster_size = CASES[name]
    table = made(int(n_images * share), n_groups, n_classes, cluster_size)
    found: dict[str, Any] = {"n": len(table.y_true_N), "mib_before": peak_mib(), "seconds": {}}
    for metric in METRICS:
        start = time.process_time()
        intervals(table, metric)
        found["seconds"][metric] = round(time.process_time() - start, 2)
    start = time.process_time()
    class_rates(class_counts(table, "g"))
    found["seconds"]["all rates by class"] = round(time.process_time() - start, 2)
    print(json.dumps(found | {"mib_peak": peak_mib()}))


def intervals(table: AuditTable, metric: str) -> list[tuple[float, float]]:
    own = own_intervals(table, "g", metric, SETTINGS)
    gaps = compare(table, "g", metric, "difference", "others", SETTINGS)
    return [one.interval(0.95) for one in (*own, *gaps)]


def made(n: int, n_groups: int, n_classes: int, cluster_size: int) -> AuditTable:
    """Random predictions, nine in ten right."""
    rng = np.random.default_rng(0)
    y_true, right = rng.integers(0, n_classes, n), rng.random(n) < 0.9
    y_pred = np.where(right, y_true, rng.integers(0, n_classes, n))
    probs = np.full((n, n_classes), 0.0, np.float32)
    probs[np.arange(n), y_pred] = rng.beta(8, 1, n)
    return AuditTable(
        image_ids_N=None, classes=tuple(f"c{c:03d}" for c in range(n_classes)), y_true_N=y_true, y_pred_N=y_pred, probs_NC=probs,
        columns={"g": Grouping(rng.integers(0, n_groups, n), tuple(f"g{g}" for g in range(n_groups)))},
        clusters_N=np.arange(n) // cluster_size if cluster_size else None, baselines={},
    )  # fmt: skip


def against_metric_frame(n: int) -> dict[str, float]:
    """Seconds per replicate of both, balanced accuracy of 8 groups, in this process; CPU time, since others may run."""
    from fairlearn.metrics import MetricFrame
    from sklearn.metrics import balanced_accuracy_score

    warnings.simplefilter("ignore")  # scikit-learn, on replicates that lack a class
    table = made(n, 8, 10, 0)
    start = time.process_time()
    MetricFrame(
        metrics={"balanced_accuracy": balanced_accuracy_score}, y_true=table.y_true_N, y_pred=table.y_pred_N,
        sensitive_features=table.columns["g"].codes_N, n_boot=20, ci_quantiles=[0.025, 0.975], random_state=0,
    )  # fmt: skip
    theirs = (time.process_time() - start) / 20
    start = time.process_time()
    for one in own_intervals(table, "g", "balanced_accuracy", SETTINGS):
        one.interval(0.95)
    ours = (time.process_time() - start) / N_REPLICATES
    return {"n": n, "theirs_seconds": theirs, "ours_seconds": ours, "ratio": theirs / ours}


def peak_mib() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--case")
    parser.add_argument("--images", type=int, default=1_000_000)
    given = parser.parse_args()
    if given.case:
        case(given.case, given.images)
    else:
        main(100_000 if given.quick else given.images)
