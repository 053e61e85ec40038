"""The embedded sample over several seeds: every model on test writers that no choice has seen.

    python benchmarks/sample_seeds.py [n_seeds [first_seed]]

About two minutes a seed; writes benchmarks/results/sample_seeds.json (from seed 20 on: sample_seeds_20.json).

A seed changes the rendering, the zoo's pretraining, the few labels, the splits of the source and all training draws.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from pipeline import ROOT, machine, run_pipeline
from scipy.stats import t

MODELS = ["source_only", "scratch", "finetuned", "mcc", "shot", "adopted"]


def main(n_seeds: int, first_seed: int) -> None:
    runs = []
    for seed in range(first_seed, first_seed + n_seeds):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(run_pipeline(Path(folder) / "run", ROOT / "params.yaml", lambda p, s=seed: p.update(seed=s)))
        print(seed, line(runs[-1]), flush=True)
    rows = {name: summary([run["metrics"][name]["accuracy"] for run in runs]) for name in MODELS}
    rows["adopted - source_only"] = summary([gain(run, "adopted", "source_only") for run in runs])
    rows["finetuned - scratch"] = summary([gain(run, "finetuned", "scratch") for run in runs])
    for name, row in rows.items():
        print(f"{name:24s} {row['mean']:+.3f}  95% t interval {row['low']:+.3f} to {row['high']:+.3f}  {row['values']}")
    result = {
        "machine": machine(),
        "accuracy": rows,
        "chosen": [run["selection"]["chosen"] for run in runs],
        "p_best": [run["selection"]["candidates"][0]["p_best"] for run in runs],
        "adopted": [run["decision"]["adopted"] for run in runs],
        "plan": [run["decision"]["plan"]["chosen"] for run in runs],
        "guard": [run["decision"]["guard"]["reason"] for run in runs],
        "seconds": [run["seconds"] for run in runs],
    }
    path = ROOT / f"benchmarks/results/sample_seeds{f'_{first_seed}' if first_seed else ''}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def gain(run: dict[str, Any], one: str, other: str) -> float:
    return run["metrics"][one]["accuracy"] - run["metrics"][other]["accuracy"]


def line(run: dict[str, Any]) -> str:
    shares = "  ".join(f"{name} {run['metrics'][name]['accuracy']:.3f}" for name in MODELS)
    return f"{run['selection']['chosen']}  {shares}  {run['decision']['adopted']}  {sum(run['seconds'].values()):.0f} s"


def summary(values: list[float]) -> dict[str, Any]:
    """Mean over seeds with Student's t interval."""
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    mean = float(np.mean(values))
    return {"mean": mean, "low": mean - half, "high": mean + half, "values": [round(v, 4) for v in values]}


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    main(given[0] if given else 5, given[1] if len(given) > 1 else 0)
