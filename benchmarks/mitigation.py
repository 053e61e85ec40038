"""A slant group that training hardly sees: how far behind it falls on test writers, and what the mitigations bring.

    python benchmarks/mitigation.py [n_seeds [first_seed]]      default: 5 0

Some six CPU minutes a seed; writes benchmarks/results/mitigation.json.

The embedded sample, from a network that was pretrained on textures. Rendered digits get a slant too: terciles of their lean
within the label, as the handwriting has. All labels of the target's training writers are known. Of the group RARE 80 % are
taken out of both domains' training images (under-represented: plain, group_balanced, group_dro); "whole" keeps them.
Two networks are measured, on test writers alone: source_only, and finetuned, which learns on from it on target images.

threshold_optimizer: fairlearn's, one class against the rest, at equal recall of the slants, on the predictions of plain.
Cross-fitted: thresholds for one half of the test writers come from the labels of the other half, so it knows more than the
others. The guess is the most probable of the classes that it votes for, of all classes where it votes for none.

Intervals: each seed's on its images (Wilson, Newcombe; images of a writer count as independent); over the seeds Student's t.
The worst group's accuracy is the least of three figures, so it is told without an interval of its own on the images.

Axes: N images, C classes.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from fairlearn.postprocessing import ThresholdOptimizer
from PIL import Image
from pipeline import ROOT, STAGES, machine, run_stages
from sample_seeds import summary
from sklearn.base import BaseEstimator, ClassifierMixin

sys.path.insert(0, str(ROOT))
from tasks.core.files import write_table
from tasks.core.intervals import newcombe, wilson
from tasks.core.runtime import address_rng, address_seed
from tasks.core.sample import lean, slant_groups

RARE, LEFT_OUT, CONFIDENCE = "right", 0.8, 0.95
START = "textures"  # the zoo's network that has seen no slanted character
BALANCE: dict[str, dict[str, Any]] = {
    "whole": {},
    "plain": {},
    "group_balanced": {"sampling": "group_balanced", "group_column": "slant"},
    "group_dro": {"group_column": "slant", "group_dro_step": 0.05},
}
MODELS = ("source_only", "finetuned")
PHASE = {
    "trains": "all", "block_decay": 1.0, "batch_norm": "train", "schedule": "one_cycle", "warmup_share": 0.3,
    "patience": None,
}  # fmt: skip
TRAINING = [stage for stage in STAGES[1:] if stage in (
    "build_manifest", "measure_images", "validate_data", "augment_images", "extract_features", "select_model",
    "synthesise_images", "finetune_model", "guard_adaptation", "evaluate_model",
)]  # fmt: skip

Run = dict[str, dict[str, Any]]  # by "variant model"


def main(n_seeds: int, first_seed: int) -> None:
    runs, start = [], time.perf_counter()
    for seed in range(first_seed, first_seed + n_seeds):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(one_seed(Path(folder), seed))
        print(seed, f"{time.perf_counter() - start:.0f} s", flush=True)
        print(pd.DataFrame({name: row["shown"] for name, row in runs[-1].items()}).T.to_string(), flush=True)
    over_seeds = {**levels(runs), **effects(runs)} if n_seeds > 1 else {}
    for name, row in over_seeds.items():
        print(f"{name:60s} {row['mean']:+.3f}  95% t interval {row['low']:+.3f} to {row['high']:+.3f}")
    result = {"machine": machine(), "rare": RARE, "left_out": LEFT_OUT, "over_seeds": over_seeds, "runs": runs}
    path = ROOT / "benchmarks/results/mitigation.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


def one_seed(folder: Path, seed: int) -> Run:
    run_stages(folder / "sample", ROOT / "params.yaml", sample_settings(seed), ["make_sample"])
    made = folder / "sample/data/sample"
    table = with_slants(made)
    found: Run = {}
    for name in BALANCE:
        own = folder / f"{name}.csv"
        write_table(own, table if name == "whole" else under_represented(table, seed))
        run_stages(folder / name, ROOT / "params.yaml", settings(seed, made, own, name), TRAINING)
        predictions = pd.read_csv(folder / name / "data/predictions.csv", dtype={"y_true": str, "y_pred": str})
        for model in MODELS:
            rows = predictions[predictions["model"] == model].reset_index(drop=True)
            found[f"{name} {model}"] = figures(rows)
            if name == "plain":
                found[f"threshold_optimizer {model}"] = figures(rows.assign(y_pred=equalised(rows, seed)))
    return found


def sample_settings(seed: int) -> Callable[[dict[str, Any]], None]:
    """Of the zoo only the network that is started from is really trained."""

    def change(params: dict[str, Any]) -> None:
        own = params["make_sample"]
        params["seed"] = seed
        own["zoo_images"] |= {name: 200 for name in own["zoo_images"] if name != START}
        own["zoo_epochs"] |= {name: 1 for name in own["zoo_epochs"] if name != START}

    return change


def with_slants(made: Path) -> pd.DataFrame:
    """The sample's table, the rendered digits with their slant as well."""
    table = pd.read_csv(made / "images.csv", dtype=str, keep_default_na=False)
    is_font = table["domain"] == "fonts"
    gray_NHW = np.stack(
        [np.asarray(Image.open(made / "images" / path).convert("L")) for path in table["path"][is_font]]
    )
    slants = slant_groups(lean(gray_NHW / 255), table.loc[is_font, "label"].to_numpy())
    return table.assign(slant=table["slant"].mask(is_font, pd.Series(slants, table.index[is_font], dtype=object)))


def under_represented(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Without most of the rare group's training images: the source's, and those of the target's training writers."""
    is_rare = (table["slant"] == RARE) & ((table["domain"] == "fonts") | (table["split"] == "train"))
    draw = np.array([address_rng(seed, "mitigation", path).random() for path in table["path"]])
    return table[~is_rare | (draw >= LEFT_OUT)]


def settings(seed: int, made: Path, table: Path, variant: str) -> Callable[[dict[str, Any]], None]:
    def change(params: dict[str, Any]) -> None:
        params["seed"] = seed
        params["zoo"] |= {"folder": str(made / "zoo"), "candidates": [START]}
        params["build_manifest"] |= {"root": str(made / "images"), "table": str(table)}
        params["validate_data"]["target_labels_per_class"] = None
        params["extract_features"] |= {
            "n_views": 0,
            "max_images": {"source": 200, "target": 200},
        }  # one network to take
        own = params["finetune_model"]
        own["regularisers"] |= BALANCE[variant]
        own["methods"] = dict.fromkeys(own["methods"])
        own["source"] = [PHASE | {"n_epochs": 8, "lr": 0.002}]
        plan = {"start": "source_only", "phases": [PHASE | {"n_epochs": 8, "lr": 0.001}]}
        own |= {"plans": {"from_source": plan}, "default_plan": "from_source"}
        own["scratch"] = [PHASE | {"n_epochs": 1, "lr": 0.001}]  # not looked at here

    return change


def figures(rows: pd.DataFrame) -> dict[str, Any]:
    """Accuracy, the worst slant's and the rare slant's, and how far the rare one is above the others; n test images."""
    right, slant = (rows["y_true"] == rows["y_pred"]).to_numpy(), rows["audit_slant"].to_numpy()

    def share(of: np.ndarray) -> Any:
        return wilson(int(right[of].sum()), int(of.sum()), CONFIDENCE)

    by_slant = {name: share(slant == name) for name in np.unique(slant)}
    worst = min(by_slant, key=lambda name: by_slant[name].value)
    intervals = {
        "accuracy": share(slant != ""),
        "rare": by_slant[RARE],
        "gap": newcombe(by_slant[RARE], share(slant != RARE)),
    }
    values = {name: found.value for name, found in intervals.items()} | {"worst": by_slant[worst].value}
    return {
        "n": len(rows),
        "shown": {name: round(value, 4) for name, value in values.items()},
        "worst_slant": worst,
        "intervals": {name: [round(found.low, 4), round(found.high, 4)] for name, found in intervals.items()},
        "by_slant": {name: {"n": found.n, "accuracy": round(found.value, 4)} for name, found in by_slant.items()},
    }


class Given(ClassifierMixin, BaseEstimator):
    """A model whose probability of the class is its one feature."""

    classes_ = np.array([0, 1])

    def fit(self, x_N1: np.ndarray, y_N: np.ndarray) -> "Given":
        return self

    def predict(self, x_N1: np.ndarray) -> np.ndarray:
        return (x_N1[:, 0] >= 0.5).astype(int)

    def predict_proba(self, x_N1: np.ndarray) -> np.ndarray:
        return np.column_stack([1 - x_N1[:, 0], x_N1[:, 0]])

    def __sklearn_is_fitted__(self) -> bool:
        return True


def equalised(rows: pd.DataFrame, seed: int) -> np.ndarray:
    """(N,) guesses after fairlearn's thresholds, each half of the writers by those of the other."""
    classes = [name.removeprefix("p_") for name in rows.columns if name.startswith("p_")]
    probs_NC, slant = rows[[f"p_{name}" for name in classes]].to_numpy(float), rows["audit_slant"].to_numpy()
    is_second = np.unique(rows["audit_inferred_block"], return_inverse=True)[1] % 2 == 1
    voted_NC = np.zeros(probs_NC.shape, bool)
    for c, name in enumerate(classes):
        x_N1, is_class = probs_NC[:, [c]], (rows["y_true"] == name).to_numpy(int)
        for fold in (is_second, ~is_second):
            optimizer = ThresholdOptimizer(
                estimator=Given(), constraints="true_positive_rate_parity", objective="balanced_accuracy_score",
                prefit=True, predict_method="predict_proba",
            ).fit(x_N1[~fold], is_class[~fold], sensitive_features=slant[~fold])  # fmt: skip
            draws = address_seed(seed, "threshold_optimizer", name, fold[0]) % 2**32  # it mixes two thresholds by lot
            votes = optimizer.predict(x_N1[fold], sensitive_features=slant[fold], random_state=draws)
            voted_NC[fold, c] = np.asarray(votes, bool)
    return np.array(classes)[np.where(voted_NC, 1 + probs_NC, probs_NC).argmax(1)]


def levels(runs: list[Run]) -> dict[str, Any]:
    """Each figure of each variant and model, over the seeds."""
    return {
        f"{name}: {figure}": summary([run[name]["shown"][figure] for run in runs])
        for name in runs[0]
        for figure in runs[0][name]["shown"]
    }


def effects(runs: list[Run]) -> dict[str, Any]:
    """Each variant minus plain, paired by seed; for plain: minus whole, which is what the missing images cost."""
    pairs = [("plain", "whole"), *((name, "plain") for name in ("group_balanced", "group_dro", "threshold_optimizer"))]
    return {
        f"{one} - {other}, {model}: {figure}": summary(
            [run[f"{one} {model}"]["shown"][figure] - run[f"{other} {model}"]["shown"][figure] for run in runs]
        )
        for one, other in pairs
        for model in MODELS
        for figure in runs[0][f"{one} {model}"]["shown"]
    }


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    main(given[0] if given else 5, given[1] if len(given) > 1 else 0)
