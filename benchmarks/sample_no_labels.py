"""The embedded sample without any target label: does the label-free choice beat source-only, and does it ever fall below?

    python benchmarks/sample_no_labels.py [n_seeds [first_seed]]

No target label is used for training, for choosing or by the guard; `guard_adaptation.without_labels: gates`, and the
digits are stated to be as frequent as in the source. Test labels measure the result and nothing else. Some two minutes a
seed; writes benchmarks/results/sample_no_labels.json.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from pipeline import ROOT, machine, run_pipeline
from sample_seeds import summary


def main(n_seeds: int, first_seed: int) -> None:
    rows = []
    for seed in range(first_seed, first_seed + n_seeds):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(
                row_of(
                    seed,
                    run_pipeline(Path(folder) / "run", ROOT / "params.yaml", lambda p, s=seed: without_labels(p, s)),
                )
            )
        print(rows[-1], flush=True)
        result = {"machine": machine(), "seeds": rows}
        if len(rows) > 1:
            result |= {name: summary([row[name] for row in rows]) for name in ("adopted - source_only", "regret")}
        path = ROOT / "benchmarks/results/sample_no_labels.json"
        path.write_text(json.dumps(result, indent=1) + "\n")


def without_labels(params: dict[str, Any], seed: int) -> None:
    params["seed"] = seed
    data = params["validate_data"]
    data.update(target_labels_per_class=0, n_guard_labels=0)
    data["splits"]["target_val_share"] = 0.0
    params["build_manifest"]["columns"]["split"] = (
        None  # the table gives validation labels: here test writers are drawn instead
    )
    params["guard_adaptation"].update(without_labels="gates", class_shares="source")


def row_of(seed: int, run: dict[str, Any]) -> dict[str, Any]:
    """Test accuracies; regret: how far the chosen method lies below the best one, which only test labels know."""
    accuracy = {name: values["accuracy"] for name, values in run["metrics"].items()}
    methods = {name: value for name, value in accuracy.items() if name not in ("adopted", "scratch")}
    chosen = run["decision"]["method"]["chosen"]
    return {
        "seed": seed,
        "candidate": run["selection"]["chosen"],
        "chosen": chosen,
        "decision": run["decision"]["guard"]["decision"],
        "adopted": run["decision"]["adopted"],
        "adopted - source_only": accuracy["adopted"] - accuracy["source_only"],
        "regret": max(methods.values()) - accuracy[chosen],
        "accuracy": accuracy,
        "reason": run["decision"]["guard"]["reason"],
    }


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    main(given[0] if given else 3, given[1] if len(given) > 1 else 0)
