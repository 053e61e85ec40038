"""Four shifts of PACS, three label budgets: source-only, each frozen-feature method, the guarded choice and the oracle.

    python benchmarks/pacs_grid.py [n_seeds]      default 5; some minutes of feature extraction once, then some of fits

imagenet MobileNetV2 of the testbed, 128 px, one source domain. A run (pair, seed) splits the source 80 / 20 into train and
validation, the target 60 / 20 / 20 into unlabelled, held-out (choice and guard) and test; test images come only from the
half of a domain that few_labels.py's settings were never tested on. No decision sees a test label but the oracle's.

Labels, shared out before any test accuracy was looked at. "0": ranks choose, gates alone may adopt, the class
shares of the target domain being known. "20 in all": ranks
choose, all 20 go to the guard, on disagreements. "10 a class": 70, of which 5 a class train, 15 random ones choose the
method, and 20 the guard asks for on disagreements: random ones would mostly lie where both models agree. A share of
adoptions is over 1,000 draws of the guard's labels, and "guarded" is the accuracy that these give on average.

Held-out source images are shown to an adapted head in two ways: as the product does, raw ("raw"), and aligned as the
training images were ("moved"). There are no mixed images of features, so MixVal ranks nobody. Intervals: Student's 95 %
over seeds, which share images. Needs the testbed; features are kept in ACCLIMATE_GRID_FEATURES (default: the folder for
temporary files). Writes benchmarks/results/pacs_grid.json.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from few_labels import PAIRS, SETTINGS, TESTBED, Draw, Pictures, interval, read_pictures
from guard_simulation import proves
from pipeline import ROOT, machine
from ruamel.yaml import YAML

sys.path.insert(0, str(ROOT))
from tasks.core.adaptation.frozen import ALIGNMENTS, fit_adapted_head
from tasks.core.guard import shares_gate
from tasks.core.intervals import paired_gain
from tasks.core.method_choice import SOURCE_ONLY, Seen, adoption_gates, choose_method, score_models
from tasks.core.runtime import address_rng, use_machine

FEATURES = Path(os.environ.get("ACCLIMATE_GRID_FEATURES", Path(tempfile.gettempdir()) / "pacs_grid_features.npz"))
N_SEEDS, N_DRAWS, WORSE, CONFIDENCE = 5, 1000, 0.01, 0.95
N_TRAIN_PER_CLASS, N_CHOICE = 5, 15
NONE, ALL_TO_GUARD, FEW = "0", "20 in all", "10 a class"
# guard labels per budget; where the third one's others go is said above
N_GUARD = {NONE: 0, ALL_TO_GUARD: 20, FEW: 20}
WAYS = {
    "none+pl": ("none", 3), "standardise": ("standardise", 0), "standardise+pl": ("standardise", 3),
    "coral": ("coral", 0), "coral+pl": ("coral", 3),
}  # fmt: skip
VIEWS = ("raw", "moved")
KEY = ["pair", "budget", "view", "method"]

Rule = tuple[float, float]  # adopt_confidence, adopt_confidence_with_gates


@dataclass(frozen=True)
class Told:
    """Probabilities (N, C) of one head, and which test images (T,) it gets right."""

    source_val: dict[str, np.ndarray]  # per view
    held_out: np.ndarray
    test_right: np.ndarray


@dataclass(frozen=True)
class Places:
    """Places of the images: `draw` has no labelled ones where there are none to train on, its source is train."""

    draw: Draw
    source_val: np.ndarray
    held_out: np.ndarray


@dataclass(frozen=True)
class Run:
    """All methods on one pair, seed and budget."""

    pair: tuple[str, str]
    seed: int
    budget: str
    told: dict[str, Told]
    y_val: np.ndarray
    y_held_out: np.ndarray
    prior_C: np.ndarray
    target_prior_C: np.ndarray


def main(n_seeds: int) -> None:
    use_machine("cpu", 1)
    pictures, rule = stored_pictures(), guard_rule()
    rows: list[dict[str, Any]] = []
    for pair in PAIRS:
        for seed in range(n_seeds):
            print(pair, seed, flush=True)
            for run in runs_of(pictures, pair, seed):
                rows += [row for view in VIEWS for row in judged(run, view, rule)]
    table = pd.DataFrame(rows)
    adapted = table[table["method"] != SOURCE_ONLY]
    found: dict[str, Any] = {"machine": machine(), "n_seeds": n_seeds, "settings": vars(SETTINGS), "guard_rule": rule}
    found["cells"] = [cell_of(of) for _, of in table.groupby(["pair", "budget"], sort=False)]
    found["all_pairs"] = [
        {"budget": key[0], "view": key[1]} | guarded(of) for key, of in table.groupby(["budget", "view"], sort=False)
    ]
    found["each_method"] = [of_method(key, of) for key, of in adapted.groupby(KEY, sort=False)]
    print_tables(found)
    path = ROOT / "benchmarks/results/pacs_grid.json"
    path.write_text(json.dumps(found, indent=1) + "\n")


def stored_pictures() -> Pictures:
    """The testbed's features; extracted once, and anew where the images are others."""
    table = pd.read_csv(TESTBED / "pacs/manifest.csv")
    paths = table["path"].to_numpy(str)
    if FEATURES.exists():
        with np.load(FEATURES) as stored:
            kept = dict(stored)
        if np.array_equal(kept["paths"], paths):
            classes, y_N = np.unique(table["label"], return_inverse=True)
            return Pictures(paths, y_N, table["domain"].to_numpy(str), kept["x_ND"], len(classes), float("nan"))
    pictures = read_pictures()
    np.savez(FEATURES, paths=pictures.paths, x_ND=pictures.x_ND)
    return pictures


def guard_rule() -> Rule:
    own = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))["guard_adaptation"]
    return own["adopt_confidence"], own["adopt_confidence_with_gates"]


def runs_of(pictures: Pictures, pair: tuple[str, str], seed: int) -> Iterator[Run]:
    places = split(pictures, pair, seed)
    without = told_by_all(pictures, places)
    y_val, y_held_out = pictures.y_N[places.source_val], pictures.y_N[places.held_out]
    prior_C = np.bincount(pictures.y_N[places.draw.source], minlength=pictures.n_classes) / len(places.draw.source)
    y_T = pictures.y_N[pictures.domain_N == pair[1]]
    target_prior_C = np.bincount(y_T, minlength=pictures.n_classes) / len(y_T)
    run = Run(pair, seed, NONE, without, y_val, y_held_out, prior_C, target_prior_C)
    yield run
    yield replace(run, budget=ALL_TO_GUARD)
    pool, y_pool = places.draw.unlabelled, pictures.y_N[places.draw.unlabelled]
    few = np.concatenate([pool[y_pool == c][:N_TRAIN_PER_CLASS] for c in range(pictures.n_classes)])
    draw = replace(places.draw, labelled=few, unlabelled=np.setdiff1d(pool, few))
    with_few = told_by_all(pictures, replace(places, draw=draw))
    yield replace(run, budget=FEW, told=with_few | {SOURCE_ONLY: without[SOURCE_ONLY]})


def split(pictures: Pictures, pair: tuple[str, str], seed: int) -> Places:
    source, target = (np.flatnonzero(pictures.domain_N == domain) for domain in pair)
    untested = np.sort(address_rng("half", pair[1]).permutation(target)[: len(target) // 2])  # as few_labels.py
    rng = address_rng("grid", *pair, seed)
    n_part = len(target) // 5
    test = rng.permutation(untested)[:n_part]
    held_out, unlabelled = np.split(rng.permutation(np.setdiff1d(target, test)), [n_part])
    val, train = np.split(rng.permutation(source), [len(source) // 5])
    return Places(Draw(train, np.zeros(0, int), unlabelled, test), val, held_out)


def told_by_all(pictures: Pictures, places: Places) -> dict[str, Told]:
    """Every method; with labelled target images also the two that take no unlabelled ones, else source-only."""
    draw = places.draw
    source, few, unlabelled_UD = pictures.at(draw.source), pictures.at(draw.labelled), pictures.x_ND[draw.unlabelled]
    moved = {how: moved_val(pictures, places, how) for how in ALIGNMENTS}
    tell = partial(told_by, pictures, places)
    fit = partial(fit_adapted_head, target_labelled=few, unlabelled_UD=unlabelled_UD)
    plain = replace(SETTINGS, n_rounds=0)
    both = tell(fit(source, how="none", settings=plain), moved["none"])
    found = {SOURCE_ONLY: both}
    if len(draw.labelled):
        found = {"head_only": tell(fit(None, how="none", settings=plain), moved["none"]), "joint": both}
    for name, (how, n_rounds) in WAYS.items():
        found[name] = tell(fit(source, how=how, settings=replace(SETTINGS, n_rounds=n_rounds)), moved[how])
    return found


def moved_val(pictures: Pictures, places: Places, how: str) -> np.ndarray:
    """Held-out source images (V, D) aligned with the training images, in the target's raw units."""
    draw, n_val = places.draw, len(places.source_val)
    source, few = pictures.at(np.concatenate([places.source_val, draw.source])), pictures.at(draw.labelled)
    rows = ALIGNMENTS[how](source, few, pictures.x_ND[draw.unlabelled])
    return rows.source_SD[:n_val] * rows.scale_D + rows.mean_D


def told_by(pictures: Pictures, places: Places, head: Any, moved_VD: np.ndarray) -> Told:
    val = {"raw": pictures.x_ND[places.source_val], "moved": moved_VD}
    test = places.draw.test
    return Told(
        {view: head.probabilities(x_VD) for view, x_VD in val.items()},
        head.probabilities(pictures.x_ND[places.held_out]),
        head.probabilities(pictures.x_ND[test]).argmax(1) == pictures.y_N[test],
    )


def judged(run: Run, view: str, rule: Rule) -> list[dict[str, Any]]:
    """One row per method: is it the chosen one, and what the guard makes of it, were it so."""
    n_classes = float(np.exp(-(run.prior_C * np.log(run.prior_C)).sum()))
    places = address_rng("choice", *run.pair, run.seed).permutation(len(run.y_held_out))
    val, rest = np.split(places, [N_CHOICE if run.budget == FEW else 0])
    scored = {s.name: s for s in score_models([seen(run, name, view, val) for name in run.told], run.prior_C)}
    choice = choose_method(list(scored.values()), n_classes, CONFIDENCE)
    passes = {entry["name"]: entry["passes"] for entry in choice["candidates"]}
    base_right, rows = run.told[SOURCE_ONLY].test_right, []
    for name, told in run.told.items():
        gates = adoption_gates(scored[name], scored[SOURCE_ONLY], n_classes)
        if run.budget == NONE:
            gates.append(shares_gate(told.held_out, run.told[SOURCE_ONLY].held_out, run.target_prior_C))
        gain = paired_gain(told.test_right, base_right, CONFIDENCE)
        rows.append({
            "pair": " to ".join(run.pair), "budget": run.budget, "view": view, "seed": run.seed, "method": name,
            "accuracy": float(told.test_right.mean()), "gain": gain.value, "is_worse_beyond": gain.high < -WORSE,
            "is_chosen": name == choice["chosen"], "passes": passes[name],
            "failed": [gate.name for gate in gates if not gate.is_passed],
            "adopted": adopted_share(run, name, rest, all(gate.is_passed for gate in gates), rule),
        })  # fmt: skip
    return rows


def seen(run: Run, name: str, view: str, val: np.ndarray) -> Seen:
    told = run.told[name]
    right_V = told.source_val[view].argmax(1) == run.y_val
    return Seen(name, right_V, told.held_out, told.held_out[val].argmax(1) == run.y_held_out[val])


def adopted_share(run: Run, name: str, rest: np.ndarray, do_gates_agree: bool, rule: Rule) -> float:
    """In how many of the draws of labels on disagreements the guard adopts; without labels gates decide."""
    adapted, base = (run.told[n].held_out[rest].argmax(1) for n in (name, SOURCE_ONLY))
    y, differ = run.y_held_out[rest], adapted != base
    if not differ.any() or not N_GUARD[run.budget]:
        return float(do_gates_agree and differ.any())
    n_differ, won, lost = (int(which.sum()) for which in (differ, differ & (adapted == y), differ & (base == y)))
    rng = address_rng("guard", *run.pair, run.seed, run.budget, name)
    counts, n_labels = [won, lost, n_differ - won - lost], min(N_GUARD[run.budget], n_differ)
    drawn = rng.multivariate_hypergeometric(counts, n_labels, size=N_DRAWS).tolist()
    return float(np.mean([proves(rule, *case, do_gates_agree) for case in drawn]))


def cell_of(of: pd.DataFrame) -> dict[str, Any]:
    """Accuracies with intervals over seeds; per view what the guarded choice makes of them."""
    once = of[of["view"] == VIEWS[0]].pivot(index="seed", columns="method", values="accuracy")
    accuracy = {str(name): interval(once[name].to_numpy()) for name in of["method"].unique()}
    accuracy["oracle"] = interval(once.max(axis=1).to_numpy())
    told = {"pair": of["pair"].iloc[0], "budget": of["budget"].iloc[0], "accuracy": accuracy}
    return told | {"guarded": [{"view": view} | guarded(same) for view, same in of.groupby("view", sort=False)]}


def guarded(of: pd.DataFrame) -> dict[str, Any]:
    """The chosen methods under the guard, against source-only and a gate that knows which are better; over seeds."""
    chosen = of[of["is_chosen"]]
    share, base = chosen["adopted"], of[of["method"] == SOURCE_ONLY].groupby("seed")["accuracy"].mean()
    got = (share * chosen["gain"]).groupby(chosen["seed"]).mean()
    possible = chosen["gain"].clip(lower=0).groupby(chosen["seed"]).mean()
    worse, beyond = (float((share * is_so).sum()) for is_so in (chosen["gain"] < -WORSE, chosen["is_worse_beyond"]))
    return {
        "n_runs": len(chosen), "chosen": chosen["method"].value_counts().to_dict(),
        "accuracy": interval((base + got).to_numpy()), "minus_source_only": interval(got.to_numpy()),
        "perfect_gate_minus_source_only": interval(possible.to_numpy()),
        "kept": round(float(got.sum() / possible.sum()), 3) if possible.any() else None,
        "kept_per_seed": interval((got / possible).to_numpy()) if (possible > 0).all() else None,
        "adopted": round(float(share.mean()), 3),
        "worse_of_adopted": round(worse / float(share.sum()), 4) if share.any() else None,
        "n_worse_beyond_interval": round(beyond, 3),
    }  # fmt: skip


def of_method(key: tuple[Any, ...], of: pd.DataFrame) -> dict[str, Any]:
    """How often one method is chosen, let through by the choice's gates, and would be adopted; the gates it fails."""
    found = dict(zip(KEY, key, strict=True)) | {"gain": interval(of["gain"].to_numpy()), "n": len(of)}
    found |= {"chosen": int(of["is_chosen"].sum()), "passes": int(of["passes"].sum())}
    failed = of["failed"].explode().value_counts()
    return found | {"adopted": round(float(of["adopted"].mean()), 3), "failed_gates": failed.to_dict()}


def print_tables(found: dict[str, Any]) -> None:
    for cell in found["cells"]:
        accuracies = "  ".join(f"{name} {value[0]:.3f}" for name, value in cell["accuracy"].items())
        print(f"\n{cell['pair']}, {cell['budget']}: {accuracies}")
        for line in cell["guarded"]:
            gain = "{:+.3f} ({:+.3f} to {:+.3f})".format(*line["minus_source_only"])
            words = f"guarded {line['accuracy'][0]:.3f}, {gain}, kept {line['kept']}, adopted {line['adopted']}"
            print(f"   {line['view']}: {words}, chosen {line['chosen']}")
    for line in found["all_pairs"]:
        print(line)
    for line in found["each_method"]:
        if line["budget"] == ALL_TO_GUARD:
            print(refused_or_taken(line))


def refused_or_taken(line: dict[str, Any]) -> str:
    """Was a method that gains taken, and one that loses refused? In words, of the cell where the guard has 20 labels."""
    gain, n = "{:+.3f} ({:+.3f} to {:+.3f})".format(*line["gain"]), line["n"]
    words = f"passes the choice's gates in {line['passes']} of {n} runs, is chosen in {line['chosen']}"
    return (
        f"{line['pair']}, {line['view']}, {line['method']}: {gain}; {words}, would be adopted in {line['adopted']:.0%}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else N_SEEDS)
