"""Could the guard keep more with 20 labels? Other labels, other tests, and what label-free figures say before any label.

    python benchmarks/guard_labels.py [n_seeds]      default 5; the fresh shifts get at most two

The stored predictions of guard_simulation.py and, judged once at the end, shifts to four made domains that no rule was
chosen on. Chances are exact: all outcomes of n labels are enumerated, drawn with replacement. A rule that is fitted or has
a limit takes both from the other shifts: its wrong adoptions there may be SLACK of the 1.2 % (5 % without labels) that are
allowed. Intervals: bootstrap over shifts. Features are kept as in guard_simulation.py, the fresh ones in ..._fresh.npz
beside. Writes benchmarks/results/guard_labels.json.

Axes: R runs (the method that label-free ranks choose in a cell), O outcomes (won, lost, neither), K figures.
"""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch
from guard_predictions import FRESH, features, predictions
from guard_simulation import FEATURES, KNOWN, STATED, WORSE, ends, runs_of, scored_models
from pipeline import ROOT, machine
from scipy.optimize import minimize
from scipy.special import betainc, betaincinv, betaln, expit, gammaln
from scipy.stats import binom

sys.path.insert(0, str(ROOT))
from tasks.core.runtime import address_rng

N_LABELS, MORE_LABELS = 20, (25, 28, 30, 40, 50)
ALLOWED, ALLOWED_WITHOUT, SLACK = 0.012, 0.05, 0.8
ERROR, ERROR_WITH_GATES = 0.05, 0.2  # one-sided, of the first round: what .9 and .6 allow
N_BOOTSTRAP, N_NODES = 2000, 32
FIGURES = ["gates", "sides", "d_information_maximisation", "d_ensemble_agreement", "certainty"]
Weigh = Callable[[np.ndarray], np.ndarray]


def surer_half(either_D: np.ndarray) -> np.ndarray:
    return (either_D >= np.median(either_D)).astype(float)


# weight of a disagreement by the probability that one of the two guesses is right, as all networks have it on average
ASKED: dict[str, Weigh] = {
    "at random": np.ones_like, "by square": np.square, "by fourth power": lambda x: x**4, "surer half": surer_half,
}  # fmt: skip


def main(n_seeds: int) -> None:
    torch.set_num_threads(1)
    known = table(predictions(features(FEATURES), n_seeds))
    path = FEATURES.with_name(f"{FEATURES.stem}_fresh.npz")
    fresh = table(predictions(features(path, FRESH), min(n_seeds, 2), FRESH))
    results = {"machine": machine(), "n_seeds": n_seeds, "where": where(known), "known": judged(known, known)}
    results["fresh"] = judged(fresh, known)
    (ROOT / "benchmarks/results/guard_labels.json").write_text(json.dumps(results, indent=1) + "\n")


def table(cells: list[dict[str, Any]]) -> pd.DataFrame:
    """One row per run with its label-free figures, and `P/<asked>`: shares won, lost and neither of what is asked."""
    return pd.DataFrame([row for cell in cells for row in rows_of(cell)])


def rows_of(cell: dict[str, Any]) -> list[dict[str, Any]]:
    (scored, n_classes), runs = scored_models(cell), list(runs_of(cell))
    p_MNC, y_N, rows = cell["held_out"], cell["y"], []
    guess_MN, mean_NC = p_MNC.argmax(2), p_MNC.mean(0)
    for m, run in enumerate(runs, start=1):
        places = np.flatnonzero(guess_MN[m] != guess_MN[0])
        own_D, its_D = (mean_NC[places, guess_MN[k][places]] for k in (m, 0))
        said, base = scored[m].scores, scored[0].scores
        row = asdict(run) | {"gain": run.gain, "n_differ": len(places), "gates": float(run.do_gates_agree)}
        row["sides"] = float((own_D - its_D).mean()) if len(places) else 0.0
        for name in ("information_maximisation", "ensemble_agreement"):
            row[f"d_{name}"] = said[name] - base[name]
        row["certainty"] = said["information_maximisation"] / math.log(n_classes)
        won_D, lost_D = (guess_MN[k][places] == y_N[places] for k in (m, 0))
        for name, weigh in ASKED.items():
            weight_D = weigh(own_D + its_D)
            shares = [weight_D @ won_D, weight_D @ lost_D] / weight_D.sum() if len(places) else np.zeros(2)
            row[f"P/{name}"] = (*shares, 1 - shares.sum())
        rows.append(row)
    return rows


def judged(runs: pd.DataFrame, known: pd.DataFrame) -> list[dict[str, Any]]:
    """Each rule on the chosen runs; limits and fits from `known`, without the shift that is judged."""
    chosen, others = (found[found["is_chosen"]].reset_index(drop=True) for found in (runs, known))
    o_O3, gates_R = outcomes(N_LABELS), chosen["do_gates_agree"].to_numpy()
    lines = [told("gates, no labels", 0, gates_R.astype(float), chosen)]
    for how in STATED:
        agree_R = np.array([chance[how] for chance in chosen["with_shares"]])
        lines.append(told(f"gates, class shares {how}", 0, agree_R, chosen))
    knowing = chosen.assign(do_gates_agree=[chance[KNOWN] == 1 for chance in chosen["with_shares"]])
    lines.append(told("guard .9 / .6, class shares known", N_LABELS, guard(knowing, "at random", N_LABELS), chosen))
    for name in ASKED:
        lines.append(told(f"guard .9 / .6, asked {name}", N_LABELS, guard(chosen, name, N_LABELS), chosen))
    lines += [told("guard .9 / .6", n, guard(chosen, "at random", n), chosen) for n in MORE_LABELS]
    for name in ("at random", "by square", "surer half"):
        pair = [posterior(prior(found, known, name), o_O3) for found in (chosen, others)]
        shares = by_limit(chosen, others, *pair, name=name, allowed=ALLOWED)
        lines.append(told(f"five figures before the labels, asked {name}", N_LABELS, shares, chosen))
    for name, score in {"sign test": sign, "mid-p": middle, "worse by a point, flat prior": flat}.items():
        for halved in (1, 4):
            pair = [score(found, o_O3) / easier(found, halved) for found in (chosen, others)]
            shares = by_limit(chosen, others, *pair, name="at random", allowed=ALLOWED)
            lines.append(told(f"{name}, gates lower it {halved} times", N_LABELS, shares, chosen))
    pair = [posterior(prior(found, known, "at random"), np.zeros((1, 3))) for found in (chosen, others)]
    shares = by_limit(chosen, others, *pair, name=None, allowed=ALLOWED_WITHOUT)
    lines.append(told("five figures, no labels", 0, shares, chosen))
    for line in lines:
        print(line, flush=True)
    return lines


def guard(runs: pd.DataFrame, asked: str, n: int) -> np.ndarray:
    """(R,) chance of adoption by the shipped rule."""
    error_R1 = np.where(runs["do_gates_agree"], ERROR_WITH_GATES, ERROR)[:, None]
    return (chances(runs, asked, n) * (sign(runs, outcomes(n)) < error_R1)).sum(1)


def outcomes(n: int) -> np.ndarray:
    return np.array([(won, lost, n - won - lost) for won in range(n + 1) for lost in range(n + 1 - won)])


def chances(runs: pd.DataFrame, asked: str | None, n: int) -> np.ndarray:
    """(R, O) multinomial; without labels the one outcome is certain."""
    if asked is None:
        return np.ones((len(runs), 1))
    shares_R3, o_O3 = np.stack(list(runs[f"P/{asked}"])).clip(1e-300, 1), outcomes(n)
    ways_O = gammaln(n + 1) - gammaln(o_O3 + 1).sum(1)
    return np.asarray(np.exp(ways_O + np.log(shares_R3) @ o_O3.T))


def sign(runs: pd.DataFrame, o_O3: np.ndarray) -> np.ndarray:
    return np.tile(binom.sf(o_O3[:, 0] - 1, o_O3[:, :2].sum(1), 0.5), (len(runs), 1))


def middle(runs: pd.DataFrame, o_O3: np.ndarray) -> np.ndarray:
    return sign(runs, o_O3) - binom.pmf(o_O3[:, 0], o_O3[:, :2].sum(1), 0.5) / 2


def flat(runs: pd.DataFrame, o_O3: np.ndarray) -> np.ndarray:
    """(R, O) probability that the gain lies below minus a point, from equal shares of won, lost and neither."""
    a_O3, u = o_O3 + 1.0, (np.arange(N_NODES) + 0.5) / N_NODES
    tells_OU = betaincinv(a_O3[:, :2].sum(1)[:, None], a_O3[:, 2:], u)
    found = np.empty((len(runs), len(o_O3)))
    for r, differ in enumerate(runs["differ"]):
        even_OU = ((1 - WORSE / max(differ, 1e-4) / np.maximum(tells_OU, 1e-9)) / 2).clip(0, 1)
        found[r] = betainc(a_O3[:, :1], a_O3[:, 1:2], even_OU).mean(1)
    return found


def easier(runs: pd.DataFrame, times: int) -> np.ndarray:
    return np.where(runs["do_gates_agree"], times, 1)[:, None]


def prior(runs: pd.DataFrame, known: pd.DataFrame, asked: str) -> np.ndarray:
    """(R, 2) wins and losses that the figures are worth, fitted on all methods of the known runs of other shifts."""
    found_R2, shift_R = np.empty((len(runs), 2)), runs["shift"].to_numpy()
    shared = set(known["shift"])
    for held_out in np.unique(shift_R):
        fit = fitted(known[known["shift"] != held_out] if held_out in shared else known, asked)
        inside = shift_R == held_out
        found_R2[inside] = worth(runs[inside], fit)
    return found_R2


def fitted(known: pd.DataFrame, asked: str) -> dict[str, np.ndarray]:
    """Beta-binomial regression of wins among wins and losses: mean logistic in the figures, one concentration."""
    known = known[known["n_differ"] > 0]
    shares_R3, n_R = np.stack(list(known[f"P/{asked}"])), known["n_differ"].to_numpy()
    won_R, lost_R = shares_R3[:, 0] * n_R, shares_R3[:, 1] * n_R
    x_RK = known[FIGURES].to_numpy(float)
    scale = {"mean": x_RK.mean(0), "spread": x_RK.std(0) + 1e-9}

    def loss(v: np.ndarray) -> float:
        a_R, b_R = worth(known, scale | {"v": v}).T
        return float(-(betaln(won_R + a_R, lost_R + b_R) - betaln(a_R, b_R)).sum() + (v[1:-1] ** 2).sum())

    start = np.append(np.zeros(len(FIGURES) + 1), 1.0)
    return scale | {"v": minimize(loss, start, method="L-BFGS-B").x}


def worth(runs: pd.DataFrame, fit: dict[str, np.ndarray]) -> np.ndarray:
    z_RK = ((runs[FIGURES].to_numpy(float) - fit["mean"]) / fit["spread"]).clip(-3, 3)
    share_R = expit(fit["v"][0] + z_RK @ fit["v"][1:-1]).clip(1e-5, 1 - 1e-5)
    return np.stack([share_R, 1 - share_R], axis=1) * np.exp(fit["v"][-1])


def posterior(prior_R2: np.ndarray, o_O3: np.ndarray) -> np.ndarray:
    """(R, O) probability that losses are more frequent than wins."""
    return np.asarray(betainc(o_O3[:, 0] + prior_R2[:, :1], o_O3[:, 1] + prior_R2[:, 1:], 0.5))


def by_limit(
    runs: pd.DataFrame, others: pd.DataFrame, own_RO: np.ndarray, its_RO: np.ndarray, *, name: str | None, allowed: float
) -> np.ndarray:  # fmt: skip
    """(R,) chance of adoption where a figure is at most the largest limit that other shifts allow."""
    own, its = (chances(found, name, N_LABELS) for found in (runs, others))
    adopted_R, shift_R = np.zeros(len(runs)), runs["shift"].to_numpy()
    is_worse_R = (others["gain"] < -WORSE).to_numpy()
    for held_out in np.unique(shift_R):
        rest, inside = (others["shift"] != held_out).to_numpy(), shift_R == held_out
        limit = largest(its_RO[rest], its[rest], is_worse_R[rest], allowed * SLACK)
        adopted_R[inside] = (own[inside] * (own_RO[inside] <= limit)).sum(1)
    return adopted_R


def largest(figure_RO: np.ndarray, chance_RO: np.ndarray, is_worse_R: np.ndarray, allowed: float) -> float:
    order = figure_RO.ravel().argsort(kind="stable")
    figure, adopted = figure_RO.ravel()[order], chance_RO.ravel()[order].cumsum()
    worse = (chance_RO * is_worse_R[:, None]).ravel()[order].cumsum()
    is_last = np.append(figure[1:] != figure[:-1], True)
    fits = np.flatnonzero((worse <= allowed * adopted) & is_last)
    return float(figure[fits[-1]]) if len(fits) else -math.inf


def told(rule: str, n: int, adopted_R: np.ndarray, runs: pd.DataFrame) -> dict[str, Any]:
    """Adopted share, share of the adopted that are worse and gain kept, with intervals; the latter two also less today's."""
    today_R, gain_R = guard(runs, "at random", N_LABELS), runs["gain"].to_numpy()
    names, shift_R = np.unique(runs["shift"], return_inverse=True)
    columns = [gain_R.clip(0)]
    for share_R in (adopted_R, today_R):
        columns += [share_R, share_R * (gain_R < -WORSE), share_R * gain_R]
    sums = np.stack([np.bincount(shift_R, weights=column, minlength=len(names)) for column in columns])
    rng = address_rng(0, "shifts", rule, n)
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=N_BOOTSTRAP).T
    worse, kept, more_worse, more_kept = shares_of(np.column_stack([sums.sum(1), sums @ draws]))
    return {"rule": rule, "n_labels": n, "adopted": round(float(adopted_R.mean()), 4)} | {
        name: ends(x[0], x[1:])
        for name, x in zip(
            ("worse", "kept", "worse_less_todays", "kept_less_todays"),
            (worse, kept, more_worse, more_kept),
            strict=True,
        )
    }


def shares_of(sums_7B: np.ndarray) -> list[np.ndarray]:
    possible, adopted, worse, gained, *today = sums_7B
    with np.errstate(invalid="ignore", divide="ignore"):
        wrong, kept = worse / adopted, gained / possible
        return [wrong, kept, wrong - today[1] / today[0], kept - today[2] / possible]


def where(known: pd.DataFrame) -> dict[str, Any]:
    """Of the chosen runs' possible gain: the share in each part, and the share that the guard leaves there."""
    runs = known[known["is_chosen"]].reset_index(drop=True)
    runs["adopted"], runs["possible"] = guard(runs, "at random", N_LABELS), runs["gain"].clip(lower=0)
    runs["missed"] = runs["possible"] * (1 - runs["adopted"])
    runs["size"] = pd.cut(runs["gain"], [-1, -WORSE, 0, 0.02, 0.04, 0.08, 0.16, 1]).astype(str)
    runs["neither"] = [shares[2] for shares in runs["P/at random"]]
    found: dict[str, Any] = {}
    for part in ("size", "kind", "backbone", "shares", "do_gates_agree", "method"):
        by = runs.groupby(part).agg(
            n=("gain", "size"), adopted=("adopted", "mean"), neither=("neither", "mean"), differ=("differ", "mean"),
            possible=("possible", "sum"), missed=("missed", "sum"),
        )  # fmt: skip
        by[["possible", "missed"]] /= runs["possible"].sum()
        found[part] = by.round(3).reset_index().astype({part: str}).to_dict("records")
        print(by.round(3), flush=True)
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
