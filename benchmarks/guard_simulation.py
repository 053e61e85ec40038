"""How often does the guard adopt a model that is worse, and how much of a perfect gate's gain does it keep?

    python benchmarks/guard_simulation.py [n_seeds]      default 5; some minutes of feature extraction, then some of fits

Ten methods on frozen features, good and bad ones, over 32 shifts with even and with skewed class shares; see
guard_predictions.py and guard_methods.py. For each stored prediction 2,000 draws of labels, with replacement, so that the
held-out images stand for a population whose accuracy is known: "worse" is source-only minus adapted > 1 point there.
Scopes: every method by itself, and the one that label-free ranks choose. The limits of the gates and the
confidences were chosen with all shifts in sight, so the figures flatter a little. Intervals: bootstrap over shifts.
Gates without labels with and without stated class shares: those that the target's images are drawn by, counts of 50 or 200
images (mean over 20 counts), or wrongly the source's. Beside that: which method validation labels should choose, the most
accurate one or the best rank among those that labels can't tell from it. Needs the testbed; the features are kept in
ACCLIMATE_GUARD_FEATURES (default: the folder for temporary files). Writes benchmarks/results/guard_simulation.json.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from guard_methods import METHODS
from guard_predictions import MADE, features, predictions
from pipeline import ROOT, machine
from scipy.stats import binom

sys.path.insert(0, str(ROOT))
from tasks.core.guard import ADOPT, Evidence, GuardSettings, by_labels, evidence_of, shares_gate
from tasks.core.method_choice import SOURCE_ONLY, Scored, Seen, adoption_gates, choose_method, score_models
from tasks.core.runtime import address_rng
from tasks.core.validators import mixval

FEATURES = Path(os.environ.get("ACCLIMATE_GUARD_FEATURES", Path(tempfile.gettempdir()) / "guard_features.npz"))
N_LABELS, N_DRAWS, N_BOOTSTRAP = (10, 20, 50), 2000, 2000
WORSE = 0.01
N_CHOICES, TIED = 50, 0.95  # draws of validation labels; level of the one-sided sign test that calls two methods tied
# adopt_confidence / adopt_confidence_with_gates; equal ones: the gates are not asked
CONFIDENCES = [
    (0.95, 0.95),
    (0.95, 0.7),
    (0.95, 0.6),
    (0.9, 0.9),
    (0.9, 0.6),
    (0.9, 0.5),
    (0.9, 0.2),
    (0.8, 0.8),
    (0.8, 0.5),
    (0.6, 0.6),
]
DEFAULT = (0.9, 0.6)
KNOWN, OF_SOURCE = "known", "taken for the source's"
COUNTED = {f"counted on {n} images": n for n in (50, 200)}
NAMES = ("backbone", "source", "target", "shares", "seed")  # of a cell
STATED, N_COUNTS = (KNOWN, *COUNTED, OF_SOURCE), 20
WITH_SHARES = f"guard {DEFAULT[0]:g} / {DEFAULT[1]:g}, class shares known"
LARGE = 100_000  # images of the population that the labels are drawn from
Rule = Callable[[int, int, int, bool], bool]  # wins, losses, neither, do the gates agree → adopted?


@dataclass(frozen=True)
class Run:
    """One method on one target: shares of held-out images, and what the label-free gates say."""

    shift: str
    backbone: str
    kind: str  # real | made | digits
    shares: str
    method: str
    is_chosen: bool  # by label-free ranks among all methods
    differ: float
    won: float
    lost: float
    do_gates_agree: bool
    with_shares: dict[str, float]  # class shares being stated so: chance that all gates agree, that on them too

    @property
    def gain(self) -> float:
        return self.won - self.lost


def main(n_seeds: int) -> None:
    torch.set_num_threads(1)
    cells = predictions(features(FEATURES), n_seeds)
    runs = [run for cell in cells for run in runs_of(cell)]
    results: dict[str, Any] = {"machine": machine(), "n_runs": len(runs), "n_draws": N_DRAWS, "n_seeds": n_seeds}
    results["methods"] = {name: method_figures([run for run in runs if run.method == name]) for name in METHODS}
    results["choice_by_labels"] = choice_by_labels(cells)
    print(results["choice_by_labels"], flush=True)
    results["scopes"] = {}
    adopted = adopted_shares(runs)
    for name, is_in in scopes(runs).items():
        results["scopes"][name] = figures(
            [run for run, inside in zip(runs, is_in, strict=True) if inside],
            {key: shares_R[is_in] for key, shares_R in adopted.items()},
        )
        for line in results["scopes"][name]["rules"]:
            print(name, line, flush=True)
    path = ROOT / "benchmarks/results/guard_simulation.json"
    path.write_text(json.dumps(results, indent=1) + "\n")


def runs_of(cell: dict[str, Any]) -> Iterator[Run]:
    scored, n_classes = scored_models(cell)
    chosen = choose_method(scored, n_classes, 0.95)["chosen"]
    guess_MN, right_MN = cell["held_out"].argmax(2), cell["held_out"].argmax(2) == cell["y"]
    for m, name in enumerate(METHODS):
        if name == SOURCE_ONLY:
            continue
        evidence, n = evidence_of(guess_MN[m], guess_MN[0], cell["y"]), len(cell["y"])
        assert evidence.wins - evidence.losses == right_MN[m].sum() - right_MN[0].sum()
        gates = adoption_gates(scored[m], scored[0], n_classes)
        agree, said = all(gate.is_passed for gate in gates), (cell["held_out"][m], cell["held_out"][0])
        with_shares = {
            how: float(np.mean([agree and bool(shares_gate(*said, stated_C).is_passed) for stated_C in stated_DC]))
            for how, stated_DC in stated(cell).items()
        }
        kind = "digits" if cell["backbone"] == "pixels" else "made" if cell["target"] in MADE else "real"
        yield Run(
            f"{cell['source']}→{cell['target']}", cell["backbone"], kind, cell["shares"], name, name == chosen,
            evidence.n_disagreements / n, evidence.wins / n, evidence.losses / n, agree, with_shares,
        )  # fmt: skip


def stated(cell: dict[str, Any]) -> dict[str, np.ndarray]:
    """(draws, C) shares of the target's classes as a person may come to know them, or believe to."""
    known_C, rng = cell["target_prior"], address_rng(0, "counted", *(cell[name] for name in NAMES))
    counted = {how: rng.multinomial(n, known_C, size=N_COUNTS) / n for how, n in COUNTED.items()}
    return {KNOWN: known_C[None], OF_SOURCE: cell["prior"][None]} | counted


def scored_models(cell: dict[str, Any]) -> tuple[list[Scored], float]:
    """The figures of all methods, as the product has them, and the source's effective number of classes."""
    prior_C, seen = cell["prior"], []
    first_MP, second_MP = cell["first"].argmax(2), cell["second"].argmax(2)
    for m, name in enumerate(METHODS):
        same = first_MP[m] == second_MP[m]
        of_kind = [mixval(cell["mixed"][m][pairs], first_MP[m][pairs]) for pairs in (same, ~same)]
        is_right = cell["source_val"][m].argmax(1) == cell["y_val"]
        seen.append(Seen(name, is_right, cell["held_out"][m], np.empty(0, bool), *of_kind))
    return score_models(seen, prior_C), float(np.exp(-(prior_C * np.log(prior_C)).sum()))


def choice_by_labels(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean gain over source-only of the method that n validation labels choose: most accurate, or best rank of the tied."""
    gains: dict[tuple[int, str], list[float]] = {}
    for number, cell in enumerate(cells):
        rank_M = np.array([entry["mean_rank"] for entry in choose_method(*scored_models(cell), 0.95)["candidates"]])
        right_MN = cell["held_out"].argmax(2) == cell["y"]
        gain_M = right_MN.mean(1) - right_MN[0].mean()
        for n in N_LABELS:
            for draw in range(N_CHOICES):
                labelled = right_MN[:, address_rng(0, "val", number, n, draw).integers(right_MN.shape[1], size=n)]
                n_right_M = labelled.sum(1)
                first = int(np.lexsort((rank_M, -n_right_M))[0])
                wins_M, losses_M = (labelled & ~labelled[first]).sum(1), (~labelled & labelled[first]).sum(1)
                is_tied_M = binom.cdf(wins_M, wins_M + losses_M, 0.5) > 1 - TIED
                tied = int(np.where(is_tied_M, rank_M, np.inf).argmin())
                for name, m in (("most accurate", first), ("best rank of the tied", tied)):
                    gains.setdefault((n, name), []).append(float(gain_M[m]))
    return [
        {"n_labels": n, "by": name, "mean_gain": mean(np.array(g)), "worse_share": mean(np.array(g) < -WORSE)}
        for (n, name), g in gains.items()
    ]


def method_figures(runs: list[Run]) -> dict[str, float]:
    gains = np.array([run.gain for run in runs])
    return (
        {"mean_gain": mean(gains), "worse_share": mean(gains < -WORSE), "lowest": float(gains.min().round(4))}
        if len(gains)
        else {}
    )


def scopes(runs: list[Run]) -> dict[str, np.ndarray]:
    """(R,) bool each."""
    chosen, kind = np.array([run.is_chosen for run in runs]), np.array([run.kind for run in runs])
    shares, imagenet = np.array([run.shares for run in runs]), np.array([run.backbone == "imagenet" for run in runs])
    found = {"every method": np.ones(len(runs), bool), "chosen": chosen}
    for name in ("real", "made"):
        found |= {f"every method, {name} shifts": kind == name, f"chosen, {name} shifts": chosen & (kind == name)}
    found |= {f"chosen, {name} shares": chosen & (shares == name) for name in ("even", "skewed")}
    return found | {"chosen, real shifts, imagenet": chosen & (kind == "real") & imagenet}


def figures(runs: list[Run], adopted: dict[tuple[str, int], np.ndarray]) -> dict[str, Any]:
    """What each rule does on these runs, with intervals over shifts; `adopted`: share of draws per rule and run."""
    gains = np.array([run.gain for run in runs])
    lines = [told("adopt always", 0, np.ones(len(runs)), runs), told("perfect", 0, (gains > 0).astype(float), runs)]
    lines.append(told("gates", 0, np.array([run.do_gates_agree for run in runs], float), runs))
    for how in STATED:
        agree_R = np.array([run.with_shares[how] for run in runs])
        lines.append(told(f"gates, class shares {how}", 0, agree_R, runs))
    lines += [told(name, n, share_R, runs) for (name, n), share_R in adopted.items()]
    return {"n_runs": len(runs), "worse_share": mean(gains < -WORSE), "rules": lines}


def adopted_shares(runs: list[Run]) -> dict[tuple[str, int], np.ndarray]:
    """(R,) share of the draws in which a rule adopts, for each rule and number of labels."""
    found: dict[tuple[str, int], list[float]] = {}
    for run in runs:
        for n in N_LABELS:
            for at_random in (False, True):
                cases, counts = cases_of(run, n, at_random)
                for name, rule in (AT_RANDOM if at_random else RULES).items():
                    adopts = [rule(*case, run.do_gates_agree) for case in cases]
                    found.setdefault((name, n), []).append(float(counts[adopts].sum() / N_DRAWS))
                if not at_random:
                    adopts = [proves(DEFAULT, *case, run.with_shares[KNOWN] == 1) for case in cases]
                    found.setdefault((WITH_SHARES, n), []).append(float(counts[adopts].sum() / N_DRAWS))
    return {key: np.array(shares) for key, shares in found.items()}


def cases_of(run: Run, n: int, at_random: bool) -> tuple[list[list[int]], np.ndarray]:
    """Distinct (wins, losses, neither) among draws of n labels, on disagreements or on any images, and how often each is."""
    base = 1.0 if at_random or run.differ == 0 else run.differ
    chances = np.array([run.won, run.lost, run.differ - run.won - run.lost, base - run.differ]).clip(0) / base
    rng = address_rng(0, "labels", run.shift, run.backbone, run.shares, run.method, run.gain, n, at_random)
    drawn = rng.multinomial(n, chances / chances.sum(), size=N_DRAWS)[:, :3]
    codes, counts = np.unique(drawn @ [(n + 1) ** 2, n + 1, 1], return_counts=True)
    return np.stack([codes // (n + 1) ** 2, codes // (n + 1) % (n + 1), codes % (n + 1)], axis=1).tolist(), counts


@cache
def proves(confidences: tuple[float, float], wins: int, losses: int, neither: int, do_gates_agree: bool) -> bool:
    settings = GuardSettings(0.95, *confidences, margin=0.0, without_labels="gates")
    evidence = Evidence(LARGE, LARGE // 5, wins, losses, neither)
    return evidence.n_labels > 0 and by_labels(evidence, settings, do_gates_agree, 1)[0] == ADOPT


RULES: dict[str, Rule] = {f"guard {pair[0]:g} / {pair[1]:g}": partial(proves, pair) for pair in CONFIDENCES} | {
    "point estimate": lambda wins, losses, *_: wins > losses,
    "point estimate and gates": lambda wins, losses, _, do_agree: wins > losses and do_agree,
}
AT_RANDOM: dict[str, Rule] = {"guard, labels at random": partial(proves, DEFAULT)}


def told(rule: str, n: int, adopted_R: np.ndarray, runs: list[Run]) -> dict[str, Any]:
    """Adopted share, share of the adopted that are worse, and gain kept of a perfect gate's, each over shifts."""
    gain_R = np.array([run.gain for run in runs])
    names, shift_R = np.unique([run.shift for run in runs], return_inverse=True)
    columns = np.stack(
        [np.ones(len(runs)), adopted_R, adopted_R * (gain_R < -WORSE), adopted_R * gain_R, gain_R.clip(0)]
    )
    sums_4S = np.stack([np.bincount(shift_R, weights=column, minlength=len(names)) for column in columns])
    draws = address_rng(0, "shifts", rule, n).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=N_BOOTSTRAP
    )
    _, adopted, worse, gained, possible = sums_4S.sum(1)
    n_B, adopted_B, worse_B, gained_B, possible_B = sums_4S @ draws.T
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "rule": rule, "n_labels": n, "adopted": round(float(adopted) / len(runs), 4),
            "worse": ends(worse / adopted if adopted else 0.0, worse_B / adopted_B),
            "kept": ends(gained / possible, gained_B / possible_B),
            "mean_gain": ends(gained / len(runs), gained_B / n_B),
        }  # fmt: skip


def ends(value: float, draws_B: np.ndarray) -> list[float]:
    """The value and the ends of its 95 % interval."""
    return [round(float(x), 4) for x in (value, *np.nanquantile(draws_B, [0.025, 0.975]))]


def mean(values: np.ndarray) -> float:
    return round(float(values.mean()), 4)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
