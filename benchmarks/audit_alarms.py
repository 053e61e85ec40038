"""How often does the bias audit cry wolf where no group is worse, and how often does it see a gap of 10 points?

    python benchmarks/audit_alarms.py [n_runs]      default 2,000; five minutes on one idle core

No disparity: 10 groups of 400 images drawn from one population (4 classes, accuracy .8, probabilities that are somewhat too
high), 8 required rules on 8 metrics with limit 0, the hardest case: any difference that is held for real breaks the rule.
Counted: runs in which each rule fails by itself, in which any of the eight fails as they are judged (one family), and in which
any would fail if each were judged by itself. A gap planted: accuracy .8 in one group, .9 in nine. Intervals: Wilson, 95 %.
Some group fails if and only if Holm's first step finds one, so no more is computed; the first runs are judged in full as well,
and have to agree. Writes benchmarks/results/audit_alarms.json.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from pipeline import ROOT, machine

sys.path.insert(0, str(ROOT))
from tasks.core.bias.asking import Asked, ask
from tasks.core.bias.counts import Settings
from tasks.core.bias.judging import FAIL, conclude
from tasks.core.bias.rules import Rule
from tasks.core.bias.table import AuditTable, table_of
from tasks.core.intervals import wilson
from tasks.core.runtime import address_rng

N_GROUPS, N, N_CLASSES = 10, 400, 4
METRICS = (
    "accuracy", "balanced_accuracy", "worst_class_recall", "recall:c0", "precision:c0", "false_positive_rate:c0",
    "selection_rate:c0", "calibration_error",
)  # fmt: skip
LIMITS = (0.0, 0.05)
N_JUDGED_IN_FULL = 50
EVERY = 500


def main(n_runs: int) -> None:
    """What was counted so far is written every EVERY runs."""
    seen: list[dict[str, bool]] = []
    for k in range(n_runs):
        seen.append(run(k))
        if (k + 1) % EVERY == 0 or k + 1 == n_runs:
            write(seen)


def write(seen: list[dict[str, bool]]) -> None:
    shares = {}
    for name in seen[0]:
        share = wilson(sum(one[name] for one in seen), len(seen), 0.95)
        shares[name] = {"share": share.value, "low": share.low, "high": share.high}
        print(f"{len(seen)} {share.value:6.4f}  ({share.low:.4f} to {share.high:.4f})  {name}", flush=True)
    result = {
        "n_runs": len(seen),
        "n_groups": N_GROUPS,
        "n_per_group": N,
        "metrics": METRICS,
        **machine(),
        "shares": shares,
    }
    path = ROOT / "benchmarks/results/audit_alarms.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def run(k: int) -> dict[str, bool]:
    settings = Settings(confidence=0.95, min_group_size=20, n_bootstrap=2000, seed=k, ask_below=None)
    return no_disparity(settings) | planted_gap(settings)


def no_disparity(settings: Settings) -> dict[str, bool]:
    table = table_with(np.full(N_GROUPS, 0.8), settings.seed, probabilities=True)
    rules = [Rule(metric, metric, "site", "difference", "others", 0.0, True) for metric in METRICS]
    measured = [one for rule in rules for one in ask(rule, table, settings, {})]
    found = {}
    for limit in LIMITS:
        asked = [replace(one, rule=replace(one.rule, limit=limit)) for one in measured]
        alone = [any(breaches([one], settings)) for one in asked]
        found[f"no disparity, limit {limit}: eight rules, one family"] = any(breaches(asked, settings))
        found[f"no disparity, limit {limit}: eight rules, each by itself"] = any(alone)
        if limit == 0:
            found |= {
                f"no disparity, limit 0: {metric} by itself": fails
                for metric, fails in zip(METRICS, alone, strict=True)
            }
    return found


def breaches(asked: Sequence[Asked], settings: Settings) -> list[bool]:
    """Per group of the rules as one family: does its interval lie wholly beyond the limit at Holm's first level?"""
    judged = [(one.rule, seen) for one in asked for seen in one.comparisons]
    level = (1 - settings.confidence) / len(judged)
    found = [is_beyond(rule, seen.interval(1 - level)) for rule, seen in judged]
    if settings.seed < N_JUDGED_IN_FULL:
        assert any(found) == any(entry["verdict"] == FAIL for entry in conclude(asked, settings))
    return found


def is_beyond(rule: Rule, ends: tuple[float, float]) -> bool:
    least, most = rule.allowed
    return ends[1] < least or ends[0] > most


def planted_gap(settings: Settings) -> dict[str, bool]:
    table = table_with(np.array([0.8] + [0.9] * (N_GROUPS - 1)), settings.seed, probabilities=False)
    found = {}
    for limit in LIMITS:
        (asked,) = ask(Rule("a", "accuracy", "site", "difference", "others", limit, True), table, settings, {})
        if limit == 0:
            (worse,) = (seen for seen in asked.comparisons if seen.group == "g0")
            found["10 points planted: interval of the group excludes 0"] = worse.interval(settings.confidence)[1] < 0
            found["10 points planted: another group fails too"] = any(
                group["verdict"] == FAIL and group["group"] != "g0"
                for group in conclude([asked], settings)[0]["groups"]
            )
        found[f"10 points planted, limit {limit}: fail"] = any(breaches([asked], settings))
    return found


def table_with(accuracy_G: np.ndarray, seed: int, *, probabilities: bool) -> AuditTable:
    """Groups of N images; a wrong answer is any other class; the highest probability is about .07 above the share of right."""
    rng = address_rng(seed, "alarms", *accuracy_G.tolist())
    group_N = np.repeat(np.arange(len(accuracy_G)), N)
    true_N = rng.integers(0, N_CLASSES, len(group_N))
    is_right_N = rng.random(len(group_N)) < accuracy_G[group_N]
    pred_N = np.where(is_right_N, true_N, (true_N + rng.integers(1, N_CLASSES, len(group_N))) % N_CLASSES)
    names = np.array([f"c{k}" for k in range(N_CLASSES)])
    rows = pd.DataFrame({"site": [f"g{g}" for g in group_N], "y_true": names[true_N], "y_pred": names[pred_N]})
    if probabilities:
        # right ones Beta(9, 1), wrong ones Beta(6, 2): over all .9 .8 + .75 .2 = .87 against .8 right
        sure_N = np.where(is_right_N, rng.beta(9, 1, len(group_N)), rng.beta(6, 2, len(group_N)))
        sure_N = np.maximum(sure_N, 1 / N_CLASSES)
        for k, name in enumerate(names):
            rows[f"p_{name}"] = np.where(pred_N == k, sure_N, (1 - sure_N) / (N_CLASSES - 1))
    return table_of(rows, columns=["site"])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
