"""Real photographs: PACS with the testbed's MobileNetV2 candidates at 128 px, with docs/examples/pacs_photo_to_art.yaml.

    python benchmarks/pacs.py [source target [n_seeds]]      default: photo art_painting 1; a few minutes a seed

Needs the testbed (ACCLIMATE_TESTBED, default ../shared/testbed); writes benchmarks/results/pacs_<source>_<target>.json.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from pipeline import ROOT, machine, run_pipeline

TESTBED = Path(os.environ.get("ACCLIMATE_TESTBED", ROOT / "../shared/testbed")).resolve()


def main(source: str, target: str, n_seeds: int) -> None:
    runs = []
    for seed in range(n_seeds):
        with tempfile.TemporaryDirectory() as folder:
            example = ROOT / "docs/examples/pacs_photo_to_art.yaml"
            run = run_pipeline(Path(folder) / "run", example, lambda p, s=seed: use(p, source, target, s))
        for name, values in run["metrics"].items():
            print(
                f"{name:12s} {values['accuracy']:.3f} ({values['accuracy_low']:.3f} to {values['accuracy_high']:.3f})"
            )
        print(run["selection"]["reason"], "|", run["decision"]["guard"]["reason"], "|", run["seconds"], flush=True)
        runs.append(run)
    path = ROOT / f"benchmarks/results/pacs_{source}_{target}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), "runs": runs}, indent=1) + "\n")


def use(params: dict[str, Any], source: str, target: str, seed: int) -> None:
    """Points the example at the testbed and at this pair of domains."""
    params["seed"] = seed
    params["zoo"]["folder"] = str(TESTBED / "zoo")
    own = params["build_manifest"]
    own.update(root=str(TESTBED / "pacs"), table=str(TESTBED / "pacs/manifest.csv"))
    own.update(source_domains=[source], target_domain=target)


if __name__ == "__main__":
    given = sys.argv[1:]
    main(given[0] if given else "photo", given[1] if given else "art_painting", int(given[2]) if len(given) > 2 else 1)
