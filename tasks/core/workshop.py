"""The workshop of fine-tuning: the images, the network and the settings that all its runs share.

Axes: N images.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from tasks.core.batches import ImageList, View
from tasks.core.features import Features
from tasks.core.images import MADE, ImageFiles
from tasks.core.lr_range import LrRange, Sweep, lr_range
from tasks.core.manifest import HELD_OUT, part
from tasks.core.model import ImageModel
from tasks.core.objective import Objective
from tasks.core.phases import FitSettings, Job, NetPhase
from tasks.core.plans import History, Phase, Trained, run_once, run_plan
from tasks.core.regularisers import Supervised
from tasks.core.runtime import address_seed
from tasks.core.training import fit_phase
from tasks.core.zoo import load_candidate, untrained
from tasks.core.zoo_file import Candidate

RANGE = (1e-6, 1.0)  # learning rates that a range test goes through


@dataclass(frozen=True)
class Balance:
    """How labelled images are drawn and weighed, and what is mixed; `group_column` names an audit column."""

    sampling: str
    group_column: str | None
    group_dro_step: float
    mixup_alpha: float
    cutmix_alpha: float


@dataclass(frozen=True)
class Workshop:
    """ValueError where no target image is held out: nothing could be chosen, nor proven later."""

    seed: int
    settings: FitSettings
    balance: Balance
    candidate: Candidate
    classes: list[str]
    manifest: pd.DataFrame
    synthetic: pd.DataFrame  # made images, in rows as the manifest's
    files: ImageFiles
    features: Features
    view: View
    folder: Path

    def __post_init__(self) -> None:
        if part(self.manifest, "target", *HELD_OUT).empty:
            raise ValueError(
                f"no target image is held out (split {', '.join(HELD_OUT)}), so no model could be compared with another; set "
                "validate_data.splits.target_holdout_share above 0, or add target images"
            )

    def images(self, rows: pd.DataFrame) -> ImageList:
        index = {name: number for number, name in enumerate(self.classes)}
        labels = tuple(index.get(label, -1) for label in rows["label"])
        scaling = (self.candidate.mean, self.candidate.std)
        return ImageList(self.files, tuple(rows["image_id"]), tuple(rows["path"]), labels, *scaling)

    def source(self, split: str) -> ImageList:
        return self.images(part(self.manifest, "source", split))

    def target(self, split: str) -> ImageList:
        """Labelled ones: train (the few labels) or val."""
        return self.images(part(self.manifest, "target", split))

    def labelled(self) -> ImageList:
        """All labelled images that may be learnt from: the source's, then the target's few."""
        rows = [part(self.manifest, domain, "train") for domain in ("source", "target")]
        return self.images(pd.concat(rows, ignore_index=True))

    def with_synthetic(self) -> ImageList:
        """The source's images, and those that were made of them."""
        made = self.synthetic.assign(path=MADE + self.synthetic["path"])
        return self.images(pd.concat([part(self.manifest, "source", "train"), made], ignore_index=True))

    def unlabelled(self) -> ImageList:
        """All target images that may be learnt from, without their labels."""
        return self.images(part(self.manifest, "target", "train", "unlabelled").assign(label=""))

    def held_out_rows(self) -> pd.DataFrame:
        """Target images that nothing is learnt from and that are no test, without their labels."""
        return part(self.manifest, "target", *HELD_OUT).assign(label="")

    def groups(self, images: ImageList) -> tuple[object, ...]:
        """Each image's group, as the balance's column says (a made one's is its parent's); none where it names no column."""
        if self.balance.group_column is None:
            return ()
        column = f"audit_{self.balance.group_column}"
        if column not in self.manifest:
            raise ValueError(
                f"finetune_model.regularisers.group_column is {self.balance.group_column!r}, which is no audit column; "
                "name it in build_manifest.audit_columns"
            )
        rows = pd.concat([self.manifest, self.synthetic]) if len(self.synthetic) else self.manifest
        return tuple(rows.set_index("image_id")[column].loc[list(images.image_ids)])

    def pretrained(self, name: str) -> ImageModel:
        seed = address_seed(self.seed, "head", name)
        return load_candidate(self.candidate, len(self.classes), seed).model.to(self.settings.device)

    def from_scratch(self) -> ImageModel:
        seed = address_seed(self.seed, "scratch")
        return untrained(self.candidate, len(self.classes), seed).to(self.settings.device)


def labels_of(images: ImageList) -> Tensor:
    return torch.tensor(images.labels, dtype=torch.long)


@dataclass(frozen=True)
class Lesson:
    """One network to be trained: its name, where it starts, and what it sees."""

    name: str
    start: ImageModel
    images: ImageList
    validation: ImageList
    unlabelled: ImageList | None = None


def supervised_run(shop: Workshop, lesson: Lesson, phases: list[Phase], label_smoothing: float) -> Trained:
    """The network after the phases, on labelled images."""
    balance, groups = shop.balance, shop.groups(lesson.images)
    objective = Supervised(
        labels_of(lesson.images),
        label_smoothing,
        mixup_alpha=balance.mixup_alpha,
        cutmix_alpha=balance.cutmix_alpha,
        groups_N=_numbered(groups) if balance.group_dro_step else None,
        group_step=balance.group_dro_step,
    )
    job = replace(job_of(shop, lesson), sampling=balance.sampling, groups=groups)

    def train(model: ImageModel) -> History:
        return run_plan(model, phases, job=job, settings=shop.settings, features=shop.features, objective=objective)

    return run_once(shop.folder, lesson.name, lambda: lesson.start, train)


def adaptation_run(shop: Workshop, lesson: Lesson, phase: NetPhase, objective: Objective, batch_size: int) -> Trained:
    """The network after one phase of an adaptation method; validation labels only draw its curve, they stop nothing."""
    settings, job = replace(shop.settings, batch_size=batch_size), job_of(shop, lesson)

    def train(model: ImageModel) -> History:
        return fit_phase(model, phase, job=job, settings=settings, objective=objective)

    return run_once(shop.folder, lesson.name, lambda: lesson.start, train)


def job_of(shop: Workshop, lesson: Lesson) -> Job:
    return Job(
        lesson.name, lesson.images, lesson.validation, shop.view, shop.folder, lesson.unlabelled, shop.unlabelled()
    )


def range_test(shop: Workshop, phase: NetPhase, n_steps: int, label_smoothing: float) -> LrRange:
    """The learning-rate range test of a phase on the source, from the pretrained network."""
    images = shop.source("train")
    lesson = Lesson("lr_range", shop.pretrained("lr_range"), images, shop.source("val"))
    return lr_range(
        lesson.start, phase, job=job_of(shop, lesson), settings=shop.settings,
        objective=Supervised(labels_of(images), label_smoothing), sweep=Sweep(*RANGE, n_steps),
    )  # fmt: skip


def _numbered(groups: tuple[object, ...]) -> Tensor:
    """(N,) the groups as numbers, -1 for an empty one."""
    names = {group: number for number, group in enumerate(sorted({str(g) for g in groups if g != ""}))}
    return torch.tensor([names.get(str(group), -1) for group in groups])
