"""finetune_model: source-only, few-label plans, scratch and SHOT are trained; labels nothing else read decide on adoption.

reads   data/manifest_valid.csv, data/gate.json, data/guard_labels.csv, data/selection.json, data/features,
        data/augmentation/policy.json, the images, the zoo
writes  data/model (weights, model.json, decision.json), data/history.csv

A killed run continues: finished networks and the last epoch's checkpoint lie under $ACCLIMATE_HOME/state/finetune_model.
"""

from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.augment_images import read_view
from tasks.core.batches import ImageList, View
from tasks.core.choice import choose_method, choose_plan
from tasks.core.features import Features, read_features
from tasks.core.files import file_sha256, read_json, read_table, text_sha256, whole_folder, write_json, write_table
from tasks.core.guard import ADOPT, decide
from tasks.core.images import ImageFiles
from tasks.core.intervals import paired_gain
from tasks.core.manifest import classes_of, part, read_valid_manifest
from tasks.core.model import ImageModel, save_weights
from tasks.core.plans import History, Phase, Trained, run_once, run_plan
from tasks.core.runtime import ResumeState, address_seed, run_stage, use_machine
from tasks.core.shot import PseudoLabels, shot_loss
from tasks.core.training import FitSettings, HeadPhase, Job, NetPhase, fit_phase, probabilities
from tasks.core.zoo import load_candidate, untrained
from tasks.core.zoo_file import Candidate, read_zoo
from tasks.params import HeadPhase as HeadPhaseParams
from tasks.params import Params, read_params
from tasks.params import Phase as PhaseParams

SOURCE_ONLY, FINETUNED, SHOT, SCRATCH = "source_only", "finetuned", "shot", "scratch"
INPUTS = ("manifest_valid.csv", "guard_labels.csv", "selection.json", "augmentation/policy.json")
HISTORY_COLUMNS = ["model", "phase", "epoch", "loss", "val_accuracy"]


@dataclass(frozen=True)
class Workshop:
    """All that the runs of this stage share."""

    params: Params
    settings: FitSettings
    candidate: Candidate
    classes: list[str]
    manifest: pd.DataFrame
    files: ImageFiles
    features: Features
    view: View
    folder: Path

    def images(self, rows: pd.DataFrame) -> ImageList:
        index = {name: number for number, name in enumerate(self.classes)}
        labels = tuple(index.get(label, -1) for label in rows["label"])
        scaling = (self.candidate.mean, self.candidate.std)
        return ImageList(self.files, tuple(rows["image_id"]), tuple(rows["path"]), labels, *scaling)

    def part(self, domain: str, *splits: str) -> ImageList:
        return self.images(part(self.manifest, domain, *splits))

    def unlabelled_target(self) -> ImageList:
        """All target images that may be learnt from, without their labels."""
        return self.images(part(self.manifest, "target", "train", "unlabelled").assign(label=""))

    def guard_images(self) -> ImageList:
        labels = read_table(Path("data/guard_labels.csv"), made_by="validate_data")
        rows = part(self.manifest, "target", "guard").drop(columns="label")
        return self.images(rows.merge(labels, on="image_id", validate="one_to_one"))

    def pretrained(self, name: str) -> ImageModel:
        seed = address_seed(self.params.seed, "head", name)
        return load_candidate(self.candidate, len(self.classes), seed).model.to(self.settings.device)


def main() -> None:
    params = read_params()
    device = use_machine(params.runtime.device, params.runtime.n_threads)
    manifest = read_valid_manifest(Path("data/manifest_valid.csv"), Path("data/gate.json"))
    chosen = read_json(Path("data/selection.json"), made_by="select_model")["chosen"]
    candidate = next(c for c in read_zoo(Path(params.zoo.folder), params.zoo.candidates) if c.name == chosen)
    features_path = Path("data/features") / chosen
    with ResumeState("finetune_model", resume_key(params, candidate, features_path)) as state:
        workshop = Workshop(
            params=params,
            settings=fit_settings(params, device),
            candidate=candidate,
            classes=classes_of(manifest),
            manifest=manifest,
            files=ImageFiles(
                Path(params.build_manifest.root),
                params.zoo.image_px or candidate.native_px,
                candidate.interpolation,
                candidate.crop_share,
            ),
            features=read_features(features_path),
            view=read_view(params.seed),
            folder=state.folder,
        )
        runs, not_run = train_all(workshop)
        decision = decisions(workshop, runs, not_run)
        write_results(workshop, runs, decision)


def resume_key(params: Params, candidate: Candidate, features_path: Path) -> str:
    """Changes with every input, parameter and line of code, so that no run continues somebody else's."""
    code = [file_sha256(path) for path in sorted(Path(__file__).parent.rglob("*.py"))]
    features = [features_path / name for name in ("index.csv", "x.npy")]
    inputs = [file_sha256(path) for path in [*(Path("data") / name for name in INPUTS), *features]]
    sections = [params.runtime, params.zoo, params.finetune_model]
    own = [str(params.seed), *(section.model_dump_json() for section in sections)]
    return text_sha256("\n".join([*own, candidate.sha256, *inputs, *code]))[:16]


def fit_settings(params: Params, device: str) -> FitSettings:
    own = params.finetune_model
    return FitSettings(
        batch_size=own.batch_size,
        label_smoothing=own.label_smoothing.target,
        weight_decay=own.weight_decay,
        evaluate_every=own.evaluate_every,
        seed=params.seed,
        device=device,
    )


def train_all(shop: Workshop) -> tuple[dict[str, Trained], dict[str, str]]:
    """All networks by name (plans as plan_<name>), and what was not run, with the reason."""
    own = shop.params.finetune_model
    few, unlabelled = shop.part("target", "train"), shop.unlabelled_target()
    source = (shop.part("source", "train"), shop.part("source", "val"))
    runs = {SOURCE_ONLY: train_plan(shop, SOURCE_ONLY, own.source, source)}
    not_run: dict[str, str] = {}
    if len(few):
        labelled = (few, shop.part("target", "val"))
        for name, phases in own.plans.items():
            runs[f"plan_{name}"] = train_plan(shop, f"plan_{name}", phases, labelled)
    else:
        labelled = source
        not_run[FINETUNED] = "the target has no training labels"
    runs[SCRATCH] = train_plan(shop, SCRATCH, own.scratch, labelled)
    if len(unlabelled) >= own.shot.min_images:
        runs[SHOT] = train_shot(shop, runs[SOURCE_ONLY].model, unlabelled)
    else:
        not_run[SHOT] = (
            f"{len(unlabelled)} target images to learn from, finetune_model.shot.min_images asks for {own.shot.min_images}"
        )
    return runs, not_run


def train_plan(shop: Workshop, name: str, phases: list[PhaseParams], images: tuple[ImageList, ImageList]) -> Trained:
    """One network through the phases, on (training, validation) images; scratch starts from random weights."""

    def start() -> ImageModel:
        if name == SCRATCH:
            seed = address_seed(shop.params.seed, "scratch")
            return untrained(shop.candidate, len(shop.classes), seed).to(shop.settings.device)
        return shop.pretrained(name)

    def train(model: ImageModel) -> History:
        job = Job(name, *images, shop.view, shop.folder)
        core_phases = [core_phase(phase) for phase in phases]
        settings = shop.settings
        if name == SOURCE_ONLY:
            settings = replace(settings, label_smoothing=shop.params.finetune_model.label_smoothing.source)
        return run_plan(model, core_phases, job=job, settings=settings, features=shop.features)

    return run_once(shop.folder, name, start, train)


def train_shot(shop: Workshop, source_model: ImageModel, images: ImageList) -> Trained:
    """SHOT from the source-only network; validation labels only draw its curve, they stop nothing."""
    own = shop.params.finetune_model.shot
    settings = replace(shop.settings, batch_size=own.batch_size)
    phase = NetPhase("backbone", own.n_epochs, own.lr, own.block_decay, "train")
    job = Job(SHOT, images, shop.part("target", "val"), shop.view, shop.folder)

    def train(model: ImageModel) -> History:
        pseudo = PseudoLabels.none_yet(images, own.batch_size, settings.device)
        loss_of = shot_loss(pseudo, own.pseudo_label_weight)
        return fit_phase(model, phase, job=job, settings=settings, loss_of=loss_of, before_epoch=pseudo.refresh)

    return run_once(shop.folder, SHOT, lambda: deepcopy(source_model), train)


def core_phase(phase: PhaseParams) -> Phase:
    if isinstance(phase, HeadPhaseParams):
        return HeadPhase(phase.inverse_l2)
    return NetPhase(phase.trains, phase.n_epochs, phase.lr, phase.block_decay, phase.batch_norm)


def decisions(shop: Workshop, runs: dict[str, Trained], not_run: dict[str, str]) -> dict[str, Any]:
    """Plan and method by validation labels, adoption by guard labels: each with its numbers and its reason."""
    own, val = shop.params.finetune_model, shop.part("target", "val")
    right = {name: is_right(shop, run.model, val) for name, run in runs.items()}
    decision: dict[str, Any] = {"not_run": not_run, "n_val_labels": len(val)}
    methods = {}
    if FINETUNED not in not_run:
        by_plan = {name: right[f"plan_{name}"] for name in own.plans}
        plan, entries, why = choose_plan(by_plan, own.default_plan, own.guard.confidence)
        decision["plan"] = {"chosen": plan, "reason": why, "plans": entries}
        runs[FINETUNED] = runs[f"plan_{plan}"]
        methods[FINETUNED] = right[f"plan_{plan}"]
        decision["scratch"] = against_scratch(right[f"plan_{plan}"], right[SCRATCH], own.guard.confidence)
    if SHOT in runs:
        methods[SHOT] = right[SHOT]
    if not methods:
        reason = "no adaptation could be run: " + "; ".join(not_run.values())
        return decision | {"adopted": SOURCE_ONLY, "guard": {"decision": "keep", "reason": reason}}
    method, why = choose_method(methods)
    decision["method"] = {"chosen": method, "reason": why}
    guard = shop.guard_images()
    verdict = decide(
        is_right(shop, runs[method].model, guard), is_right(shop, runs[SOURCE_ONLY].model, guard),
        margin=own.guard.margin, confidence=own.guard.confidence,
    )  # fmt: skip
    return decision | {"adopted": method if verdict.decision == ADOPT else SOURCE_ONLY, "guard": asdict(verdict)}


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


def is_right(shop: Workshop, model: ImageModel, images: ImageList) -> np.ndarray:
    """(N,) bool on the plain images."""
    guessed = probabilities(model, images, shop.settings.batch_size, shop.settings.device).argmax(1)
    return np.asarray(guessed == np.array(images.labels, dtype=int))


def write_results(shop: Workshop, runs: dict[str, Trained], decision: dict[str, Any]) -> None:
    kept = [name for name in (SOURCE_ONLY, FINETUNED, SHOT, SCRATCH) if name in runs]
    description = {
        "candidate": shop.candidate.name,
        "architecture": shop.candidate.architecture,
        "classes": shop.classes,
        "image_px": shop.files.side_px,
        "interpolation": shop.candidate.interpolation,
        "crop_share": shop.candidate.crop_share,
        "mean": shop.candidate.mean,
        "std": shop.candidate.std,
        "models": kept,
        "adopted": decision["adopted"],
    }
    with whole_folder(Path("data/model")) as folder:
        for name in kept:
            save_weights(runs[name].model, folder / f"{name}.safetensors")
        write_json(folder / "model.json", description)
        write_json(folder / "decision.json", decision)
    rows = [row for name, run in runs.items() if name != FINETUNED for row in run.history]
    write_table(Path("data/history.csv"), pd.DataFrame(rows, columns=HISTORY_COLUMNS))


if __name__ == "__main__":
    run_stage(main)
