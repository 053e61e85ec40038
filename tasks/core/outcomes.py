"""What trained networks are worth, as far as validation tells: no guard label and no test label is seen here.

Axes: N images, C classes, M models, D features.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from tasks.core.adaptation.label_shift import LabelShift, label_shift
from tasks.core.batches import ImageList, plain_batches
from tasks.core.calibration import ask_below, calibrated, fit_temperature
from tasks.core.intervals import paired_gain
from tasks.core.method_choice import Seen, choose_method, score_models
from tasks.core.method_runs import frozen_source_right, in_source_statistics
from tasks.core.model import ImageModel
from tasks.core.ood import foreignness
from tasks.core.training import probabilities
from tasks.core.validators import FIRST_SHARE, estimated_accuracy, mix_pairs, mixval
from tasks.core.workshop import Workshop

MIN_TO_CALIBRATE = 50  # labelled images of the target; below, the source's are taken
LEAST_TO_CALIBRATE = 10  # of either
N_DRAWS = 200
MAX_MIXED = 500  # pairs of each kind
TINY = 1e-12
HELD_OUT_COLUMNS = ["model", "image_id", "split", "y_pred"]


@dataclass(frozen=True)
class Sample:
    """The images that validation looks at, in one order."""

    source_val: ImageList
    target_val: ImageList
    held_out_rows: pd.DataFrame
    held_out: ImageList

    @classmethod
    def of(cls, shop: Workshop) -> "Sample":
        rows = shop.held_out_rows()
        return cls(shop.source("val"), shop.target("val"), rows, shop.images(rows))


@dataclass(frozen=True)
class Outcome:
    """One network's probabilities (N, C) on each part of the sample.

    source_right_V: which source validation images it gets right, shown to it in the source's own way; None where that tells
    nothing. The MixVal scores: NaN without pairs, None where no mixed images were shown to it.
    """

    source_val_NC: np.ndarray
    held_out_NC: np.ndarray
    target_val_NC: np.ndarray
    source_right_V: np.ndarray | None
    mixval_intra: float | None = None
    mixval_inter: float | None = None

    @classmethod
    def of(cls, model: ImageModel, sample: Sample, shop: Workshop) -> "Outcome":
        batch_size, device = shop.settings.batch_size, shop.settings.device
        held_out_NC = probabilities(model, sample.held_out, batch_size, device)
        is_val = (sample.held_out_rows["split"] == "val").to_numpy()
        assert list(sample.held_out_rows["image_id"][is_val]) == list(sample.target_val.image_ids)
        source_NC = probabilities(model, sample.source_val, batch_size, device)
        return cls(source_NC, held_out_NC, held_out_NC[is_val], is_right(source_NC, sample.source_val))

    def seen(self, name: str, sample: Sample) -> Seen:
        """As the choice among methods looks at it."""
        val_L = is_right(self.target_val_NC, sample.target_val)
        return Seen(name, self.source_right_V, self.held_out_NC, val_L, self.mixval_intra, self.mixval_inter)


def outcomes_of(
    shop: Workshop, sample: Sample, models: dict[str, ImageModel], source_only: ImageModel, frozen_how: str | None
) -> dict[str, Outcome]:
    """Of every network, source images shown to it as in its training. `source_only`: where adaptation starts.

    `frozen_how`: how the frozen run's head was aligned; None where there is none. With the source's own statistics AdaBN's
    network is source-only, so source images can't tell what it lost.
    """
    found, starts = {}, (source_only, shop.pretrained("statistics"))
    for name, model in models.items():
        found[name] = Outcome.of(model, sample, shop)
        if name == "adabn":
            right_V = None
        elif name == "frozen" and frozen_how is not None:
            right_V = frozen_source_right(shop, model, frozen_how)
        elif (shown := in_source_statistics(shop, model, starts)) is model:
            continue
        else:
            right_V = None if shown is None else source_right(shown, sample, shop)
        found[name] = replace(found[name], source_right_V=right_V)
    return found


def source_right(model: ImageModel, sample: Sample, shop: Workshop) -> np.ndarray:
    """(V,) bool."""
    probs_NC = probabilities(model, sample.source_val, shop.settings.batch_size, shop.settings.device)
    return is_right(probs_NC, sample.source_val)


def with_mixval(outcome: Outcome, model: ImageModel, sample: Sample, shop: Workshop) -> Outcome:
    """The network's outcome with its scores on mixed images: dear, so for rivals of the choice only."""
    guess_N = outcome.held_out_NC.argmax(1)
    intra, inter = (
        _mixval(model, sample.held_out, guess_N, pairs[:MAX_MIXED], shop) for pairs in mix_pairs(guess_N, shop.seed)
    )
    return replace(outcome, mixval_intra=intra, mixval_inter=inter)


def _mixval(model: ImageModel, images: ImageList, guess_N: np.ndarray, pairs_P2: np.ndarray, shop: Workshop) -> float:
    model.eval()
    chunks = [pairs_P2[i : i + shop.settings.batch_size] for i in range(0, len(pairs_P2), shop.settings.batch_size)]
    found = [np.zeros((0, len(shop.classes)))]
    with torch.inference_mode():
        for chunk in chunks:
            first, second = (images.batch(chunk[:, side].tolist()) for side in (0, 1))
            x_NCHW = FIRST_SHARE * first + (1 - FIRST_SHARE) * second
            found.append(model(x_NCHW.to(shop.settings.device)).cpu().numpy())
    return mixval(np.concatenate(found), guess_N[pairs_P2[:, 0]])


def is_right(probs_NC: np.ndarray, images: ImageList) -> np.ndarray:
    """(N,) bool."""
    return np.asarray(probs_NC.argmax(1) == np.array(images.labels, dtype=int))


def held_out_table(probs_of: dict[str, np.ndarray], sample: Sample, classes: list[str]) -> pd.DataFrame:
    """One row per model and held-out target image, with the probabilities and no label: what the guard compares."""
    tables = []
    for name, probs_NC in probs_of.items():
        guess = [classes[i] for i in probs_NC.argmax(1)]
        rows = sample.held_out_rows[["image_id", "split"]].assign(model=name, y_pred=guess)
        shares = pd.DataFrame(probs_NC.round(6), columns=[f"p_{c}" for c in classes])
        tables.append(pd.concat([rows[HELD_OUT_COLUMNS].reset_index(drop=True), shares], axis=1))
    return pd.concat(tables, ignore_index=True)


def calibration_of(outcome: Outcome, sample: Sample, *, accuracy: float, confidence: float) -> dict[str, Any] | None:
    """Temperature and the confidence below which a person is asked, from the target's validation labels.

    Where the target has fewer than 50 of them, from the source's: said so in `on`. None where neither has ten.
    """
    is_enough = len(sample.target_val) >= MIN_TO_CALIBRATE or len(sample.source_val) < LEAST_TO_CALIBRATE
    on = "target" if is_enough else "source"
    images, probs_NC = (
        (sample.target_val, outcome.target_val_NC) if on == "target" else (sample.source_val, outcome.source_val_NC)
    )
    if len(images) < LEAST_TO_CALIBRATE:
        return None
    log_probs_NC, y_N = np.log(probs_NC.clip(min=TINY)), np.array(images.labels)
    temperature = fit_temperature(log_probs_NC, y_N)
    after_NC = calibrated(log_probs_NC, temperature.value)
    ask = ask_below(after_NC.max(1), is_right(after_NC, images), accuracy=accuracy, confidence=confidence)
    return {"on": on, "temperature": asdict(temperature), "ask_below": asdict(ask)}


def chosen_method(outcomes: dict[str, Outcome], sample: Sample, n_classes: int, confidence: float) -> dict[str, Any]:
    """The method that goes to the guard, with every figure that led to it."""
    prior_C = np.bincount(sample.source_val.labels, minlength=n_classes) / max(len(sample.source_val), 1)
    known_C = prior_C[prior_C > 0]
    scored = score_models([outcome.seen(name, sample) for name, outcome in outcomes.items()], prior_C)
    return choose_method(scored, float(np.exp(-(known_C * np.log(known_C)).sum())), confidence)


def label_shift_of(
    outcome: Outcome, sample: Sample, classes: list[str], *, confidence: float, seed: int
) -> LabelShift | None:
    """Whether the target's classes seem to be of other sizes than the source's; None where there is nothing to count.

    How many target images are misread is estimated without labels (`estimated_accuracy`); the upper end is taken.
    """
    if not len(sample.source_val) or not len(sample.held_out):
        return None
    right_N, y_N = is_right(outcome.source_val_NC, sample.source_val), np.array(sample.source_val.labels)
    accuracy = estimated_accuracy(
        outcome.source_val_NC, right_N, outcome.held_out_NC, n_draws=N_DRAWS, confidence=confidence, seed=seed
    )
    confusion_CC = np.zeros((len(classes), len(classes)))
    np.add.at(confusion_CC, (outcome.source_val_NC.argmax(1), y_N), 1)
    predictions_C = np.bincount(outcome.held_out_NC.argmax(1), minlength=len(classes))
    return label_shift(confusion_CC, predictions_C, 1 - accuracy.low, classes=classes, seed=seed)


def foreignness_of(model: ImageModel, shop: Workshop, sample: Sample, confidence: float) -> dict[str, Any] | None:
    """How foreign the held-out target images look to a network, against held-out source images."""
    parts = [shop.source("train"), sample.source_val, sample.held_out]
    if len(parts[0]) < 10 or min(map(len, parts)) < 2:
        return None
    seen = [features_of(model, images, shop.settings.batch_size, shop.settings.device) for images in parts]
    found = foreignness(seen[0], seen[1], seen[2], confidence)
    return {"auroc": asdict(found.auroc), "foreign_share": found.foreign_share}


def features_of(model: ImageModel, images: ImageList, batch_size: int, device: str) -> np.ndarray:
    """(N, D) of the plain images."""
    model.eval()
    with torch.inference_mode():
        return np.concatenate([model.features(x.to(device)).cpu().numpy() for x in plain_batches(images, batch_size)])


def against_scratch(plan_N: np.ndarray, scratch_N: np.ndarray, confidence: float) -> dict[str, Any]:
    """Is the pretrained network worth its weights? The few-label plan against the same network from random weights.

    On the same validation images; a pretrained start that is not better beyond the interval is marked.
    """
    gain = paired_gain(plan_N, scratch_N, confidence)
    is_better = bool(gain.low > 0)
    words = "better than" if is_better else "not shown to be better than"
    return {
        "gain": gain.value,
        "low": gain.low,
        "high": gain.high,
        "n": gain.n,
        "is_better": is_better,
        "reason": f"the pretrained network, fine-tuned, is {words} the same network trained from random weights",
    }
