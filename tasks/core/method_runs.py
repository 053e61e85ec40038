"""The runs of the adaptation methods: what each starts from, sees and minimises.

Axes: N images, U unlabelled target images, D features, C classes.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tasks.core.adaptation.adabn import adapt_batch_norm, batch_norm_layers, has_other_statistics
from tasks.core.adaptation.dann import Dann
from tasks.core.adaptation.deep_coral import DeepCoral
from tasks.core.adaptation.fixmatch import FixMatch
from tasks.core.adaptation.frozen import FrozenSettings, Labelled, as_target, fit_adapted_head
from tasks.core.adaptation.label_shift import LabelShift
from tasks.core.adaptation.mcc import Mcc
from tasks.core.adaptation.refusals import Facts
from tasks.core.adaptation.shot import Shot
from tasks.core.adaptation.two_domains import Labels
from tasks.core.batches import ImageList
from tasks.core.manifest import part
from tasks.core.model import ImageModel
from tasks.core.objective import Objective
from tasks.core.phases import NetPhase
from tasks.core.plans import Trained, run_once
from tasks.core.runtime import address_rng
from tasks.core.workshop import Lesson, Workshop, adaptation_run, labels_of

MAX_FOR_STATISTICS = 500  # source images that give a network's BatchNorm statistics of the source


@dataclass(frozen=True)
class MethodSettings:
    """What every method has; what else one needs stands in `own`, by its name."""

    phase: NetPhase
    batch_size: int
    weight: float
    own: dict[str, float]


@dataclass(frozen=True)
class Start:
    """Where the methods begin: the source-only network, and the target's class shares where they are believed to differ."""

    model: ImageModel
    label_smoothing: float
    prior_C: Tensor | None


MakeObjective = Callable[[Workshop, Start, MethodSettings, ImageList, ImageList], Objective]


def facts_of(shop: Workshop, source_only: ImageModel, batch_size: int, shift: LabelShift | None) -> Facts:
    """What decides whether a method may run."""
    return Facts(
        n_unlabelled=len(shop.unlabelled()),
        n_classes=len(shop.classes),
        batch_size=batch_size,
        n_batch_norm_layers=len(batch_norm_layers(source_only)),
        n_labelled_target=len(shop.target("train")),
        n_labelled_source=len(shop.source("train")),
        label_shift=shift.reason if shift is not None and shift.suspected else None,
    )


def why_no_plan(few: ImageList, classes: list[str]) -> str | None:
    """Why nothing can be learnt from the target's few labels alone; None where it can."""
    told = set(few.labels)
    if not told:
        return "the target has no training labels"
    if len(told) == 1:
        return (
            f"the target's training labels ({len(few)}) all say {classes[min(told)]!r}, and from one class alone no "
            "difference can be learnt: label images of other classes"
        )
    return None


def used_share(run: Trained) -> float:
    """Of the unlabelled images in FixMatch's last epoch, as its history tells; NaN where it does not."""
    figures = dict(pair.split("=") for pair in str(run.history[-1].get("figures", "")).split("; ") if "=" in pair)
    return float(figures.get("used_share", "nan"))


def run_adabn(shop: Workshop, start: Start) -> Trained:
    """The source-only network with the target's BatchNorm statistics."""

    def train(model: ImageModel) -> list[dict[str, object]]:
        adapt_batch_norm(model, shop.unlabelled(), shop.settings.batch_size, shop.settings.device)
        return []

    return run_once(shop.folder, "adabn", lambda: deepcopy(start.model), train)


def run_frozen(shop: Workshop, how: str, settings: FrozenSettings) -> Trained:
    """The pretrained network, untouched, under a head for the target: from cached features, in seconds."""

    def train(model: ImageModel) -> list[dict[str, object]]:
        source, few = (rows_of(shop, part(shop.manifest, domain, "train")) for domain in ("source", "target"))
        fit_adapted_head(source, few, unlabelled_rows(shop), how, settings).set_on(model)
        return []

    return run_once(shop.folder, "frozen", lambda: shop.pretrained("frozen"), train)


def frozen_source_right(shop: Workshop, model: ImageModel, how: str) -> np.ndarray | None:
    """(V,) bool: which source validation images the frozen run's head gets right, shown to it as in its training."""
    source = rows_of(shop, part(shop.manifest, "source", "val"))
    if source is None:
        return None
    few = rows_of(shop, part(shop.manifest, "target", "train"))
    shown_VD = torch.from_numpy(as_target(source, few, unlabelled_rows(shop), how)).float()
    with torch.inference_mode():
        guess_V = model.head(shown_VD.to(shop.settings.device)).argmax(1).cpu().numpy()
    return np.asarray(guess_V == source.y_N)


def in_source_statistics(shop: Workshop, model: ImageModel, starts: Sequence[ImageModel]) -> ImageModel | None:
    """The network with BatchNorm statistics of source training images in place of the target's that it keeps.

    Two domains are shown to a network in turn, each normalised by itself (`see_both`); what one lost on the source is seen
    where source images are normalised as they were then. The network itself where its statistics are still those of one of
    the networks that trainings start from; None without source images.
    """
    if not all(has_other_statistics(model, start) for start in starts):
        return model
    rows = part(shop.manifest, "source", "train")
    if len(rows) < 2:
        return None
    drawn = rows.iloc[np.sort(address_rng("source statistics").permutation(len(rows))[:MAX_FOR_STATISTICS])]
    shown, settings = deepcopy(model), shop.settings
    adapt_batch_norm(shown, shop.images(drawn), settings.batch_size, settings.device, prior_images=0)
    return shown


def unlabelled_rows(shop: Workshop) -> np.ndarray:
    """(U, D) features of the unlabelled target images that have some."""
    seen = shop.features.among(part(shop.manifest, "target", "unlabelled"))
    return shop.features.plain_rows(list(seen["image_id"]))


def rows_of(shop: Workshop, rows: pd.DataFrame) -> Labelled | None:
    """Features and labels of those of the rows that have features; the source's domains by their names."""
    rows = shop.features.among(rows)
    if rows.empty:
        return None
    y_N = np.searchsorted(shop.classes, rows["label"].to_numpy(str))
    return Labelled(shop.features.plain_rows(list(rows["image_id"])), y_N, rows["origin"].to_numpy(str))


def run_method(shop: Workshop, name: str, start: Start, settings: MethodSettings) -> Trained:
    """The source-only network after the method's phase. SHOT opens no labelled image, the others open all of them."""
    unlabelled = shop.unlabelled()
    images = unlabelled if name == "shot" else shop.labelled()
    objective = OBJECTIVES[name](shop, start, settings, images, unlabelled)
    lesson = Lesson(name, deepcopy(start.model), images, shop.target("val"), None if name == "shot" else unlabelled)
    return adaptation_run(shop, lesson, settings.phase, objective, settings.batch_size)


def _labels(start: Start, images: ImageList) -> Labels:
    return Labels(labels_of(images), start.label_smoothing)


def _mcc(_: Workshop, start: Start, of: MethodSettings, images: ImageList, __: ImageList) -> Objective:
    return Mcc(_labels(start, images), of.weight, of.own["temperature"])


def _deep_coral(_: Workshop, start: Start, of: MethodSettings, images: ImageList, __: ImageList) -> Objective:
    return DeepCoral(_labels(start, images), of.weight)


def _dann(shop: Workshop, start: Start, of: MethodSettings, images: ImageList, _: ImageList) -> Objective:
    return Dann(_labels(start, images), n_features=start.model.head.in_features, weight=of.weight, seed=shop.seed)  # fmt: skip


def _shot(shop: Workshop, start: Start, of: MethodSettings, images: ImageList, _: ImageList) -> Objective:
    return Shot(images, of.batch_size, shop.settings.device, of.weight, start.prior_C)


def _fixmatch(_: Workshop, start: Start, of: MethodSettings, images: ImageList, unlabelled: ImageList) -> Objective:
    return FixMatch(
        _labels(start, images), start.model, n_unlabelled=len(unlabelled), weight=of.weight,
        threshold=of.own["threshold"], decay=of.own["teacher_decay"],
    )  # fmt: skip


OBJECTIVES: dict[str, MakeObjective] = {
    "mcc": _mcc, "deep_coral": _deep_coral, "dann": _dann, "shot": _shot, "fixmatch": _fixmatch,
}  # fmt: skip
