"""Label-free validators: what probabilities on unlabelled target images say of a model. Higher is better in each.

None of them is evidence on its own: each is fooled by some confidently wrong or collapsed model, so `method_choice`
puts gates before them and averages ranks. Soft neighbourhood density and deep embedded validation are left out: they
chose worst of all scorers in SKADA-Bench's published results (48 and 53 % mean accuracy, entropy 65, no choice 67).

Axes: N images, C classes, M models, P pairs of images.
"""

import math

import numpy as np

from tasks.core.intervals import Interval
from tasks.core.runtime import address_rng

FIRST_SHARE = 0.55  # of the first image in a mixed one
TINY = 1e-12


def entropy(p_NC: np.ndarray) -> float:
    """Minus the mean entropy of the predictions, in nats: 0 where every prediction is certain."""
    return float(-_entropies(p_NC).mean())


def information_maximisation(p_NC: np.ndarray) -> float:
    """H(mean prediction) - mean H(prediction): certain and spread over the classes; 0..ln C (Shi and Sha 2012)."""
    return float(_entropies(p_NC.mean(0)[None])[0] - _entropies(p_NC).mean())


def nuclear_norm(p_NC: np.ndarray) -> float:
    """|P|_* / sqrt(N min(N, C)), 0..1: its largest value needs certain and evenly spread predictions (Cui et al. 2020)."""
    n, c = p_NC.shape
    return float(np.linalg.svd(p_NC, compute_uv=False).sum() / math.sqrt(n * min(n, c)))


def softmax_correlation(p_NC: np.ndarray) -> float:
    """Cosine of PᵀP and the identity, 1/sqrt(C)..1: 1 where predictions are certain and evenly spread (Tu et al. 2023)."""
    product_CC = p_NC.T @ p_NC
    return float(np.trace(product_CC) / (math.sqrt(p_NC.shape[1]) * np.linalg.norm(product_CC)))


def effective_classes(p_NC: np.ndarray) -> float:
    """exp(H(mean prediction)), 1..C: how many classes are in use."""
    return float(np.exp(_entropies(p_NC.mean(0)[None])[0]))


def ensemble_agreement(p_MNC: np.ndarray) -> np.ndarray:
    """(M,) share of images on which each model's guess is that of the mean over all models (EnsV, Hu et al. 2024).

    One vote per run, source-only among them. It can't see a majority that errs together.
    """
    guess_N = p_MNC.mean(0).argmax(1)
    return np.asarray((p_MNC.argmax(2) == guess_N).mean(1))


def mix_pairs(guess_N: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(P, 2) pairs of one guessed class and (P, 2) of two: each image once first, with a partner drawn by address.

    An image without a partner of that kind is left out, so a collapsed model has no pairs of two classes.
    """
    kinds: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    for first, guess in enumerate(guess_N):
        others = np.flatnonzero(np.arange(len(guess_N)) != first)
        for kind, is_same in enumerate((True, False)):
            partners = others[(guess_N[others] == guess) == is_same]
            if len(partners):
                drawn = int(address_rng(seed, "mixval", kind, first).integers(len(partners)))
                kinds[kind].append((first, int(partners[drawn])))
    return np.array(kinds[0], int).reshape(-1, 2), np.array(kinds[1], int).reshape(-1, 2)


def mixed(x_NCHW: np.ndarray, pairs_P2: np.ndarray) -> np.ndarray:
    """(P, ...) .55 of each pair's first image plus .45 of its second."""
    return FIRST_SHARE * x_NCHW[pairs_P2[:, 0]] + (1 - FIRST_SHARE) * x_NCHW[pairs_P2[:, 1]]


def mixval(p_PC: np.ndarray, first_guess_P: np.ndarray) -> float:
    """Share of mixed images on which the model says what it says of the first image alone (MixVal, Hu et al. 2023).

    NaN without pairs. Pairs of one class test how the classes hang together, pairs of two where they part; their ranks
    are averaged, not their values.
    """
    return float((p_PC.argmax(1) == first_guess_P).mean()) if len(p_PC) else math.nan


def estimated_accuracy(
    source_p_NC: np.ndarray,
    source_right_N: np.ndarray,
    target_p_NC: np.ndarray,
    *,
    n_draws: int,
    confidence: float,
    seed: int,
) -> Interval:
    """Accuracy on the target, estimated without its labels by average thresholded confidence (ATC, Garg et al. 2022).

    The threshold on negative entropy leaves as many labelled source images below it as the model gets wrong; the
    estimate is the target's share at or above it. The interval is a bootstrap over both samples: it knows the noise of
    the sample, not whether the target keeps the source's relation of certainty to truth. Calibrate before.
    ValueError without images on a side.
    """
    if not len(source_p_NC) or not len(target_p_NC):
        raise ValueError(
            f"the accuracy on the target can't be estimated from {len(source_p_NC)} source and {len(target_p_NC)} target "
            "images; at least one of each is needed"
        )
    source_N, target_N = -_entropies(source_p_NC), -_entropies(target_p_NC)
    rng = address_rng(seed, "estimated_accuracy")
    draws = np.empty(n_draws)
    for b in range(n_draws):
        rows = rng.integers(len(source_N), size=len(source_N))
        columns = rng.integers(len(target_N), size=len(target_N))
        draws[b] = _above_threshold(source_N[rows], source_right_N[rows], target_N[columns])
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(_above_threshold(source_N, source_right_N, target_N), float(low), float(high), len(target_N))


def _above_threshold(source_N: np.ndarray, right_N: np.ndarray, target_N: np.ndarray) -> float:
    n_wrong = int((~right_N).sum())
    if n_wrong == len(source_N):
        return 0.0
    return float((target_N >= np.sort(source_N)[n_wrong]).mean())


def _entropies(p_NC: np.ndarray) -> np.ndarray:
    return np.asarray(-(p_NC * np.log(np.maximum(p_NC, TINY))).sum(1))
