"""finetune_model: source-only, few-label plans, scratch and adaptation methods are trained; validation chooses among them.

reads   data/manifest_valid.csv, data/gate.json, data/selection.json, data/features, data/synthetic,
        data/augmentation/policy.json, data/given/champion, the images, the zoo
writes  data/model (weights, model.json, decision.json, held_out.csv, lr_range.csv), data/history.csv

No guard label is seen here: `guard_adaptation` decides what is adopted. A killed run continues: finished networks and the
last epoch's checkpoint lie under $ACCLIMATE_HOME/state/finetune_model.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from tasks.augment_images import read_view
from tasks.core import parallel
from tasks.core.adaptation.frozen import FrozenSettings
from tasks.core.adaptation.label_shift import LabelShift
from tasks.core.adaptation.refusals import Limits, why_idle, why_not
from tasks.core.batches import ImageList
from tasks.core.champion import CHAMPION_PATH, champion_description, champion_probabilities
from tasks.core.features import read_features
from tasks.core.files import file_sha256, read_json, text_sha256, whole_folder, write_json, write_table
from tasks.core.images import ImageFiles
from tasks.core.lr_range import LrRange
from tasks.core.manifest import classes_of, read_valid_manifest
from tasks.core.method_choice import SOURCE_ONLY, choose_plan
from tasks.core.method_runs import (
    MethodSettings,
    Start,
    facts_of,
    run_adabn,
    run_frozen,
    run_method,
    used_share,
    why_no_plan,
)
from tasks.core.model import save_weights
from tasks.core.outcomes import (
    Outcome,
    Sample,
    against_scratch,
    calibration_of,
    chosen_method,
    foreignness_of,
    held_out_table,
    is_right,
    label_shift_of,
    outcomes_of,
    with_mixval,
)
from tasks.core.phases import FitSettings, HeadPhase, NetPhase
from tasks.core.plans import Phase, Trained, within_budget
from tasks.core.predictions import CHAMPION
from tasks.core.runtime import ResumeState, run_stage, use_machine
from tasks.core.synthesis import manifest_rows, read_synthetic
from tasks.core.training import HISTORY_COLUMNS
from tasks.core.workshop import Balance, Lesson, Workshop, range_test, supervised_run
from tasks.core.zoo_file import read_zoo
from tasks.params import HeadPhase as HeadPhaseParams
from tasks.params import NetPhase as NetPhaseParams
from tasks.params import Params, read_params

FINETUNED, SCRATCH, ON_SYNTHETIC = "finetuned", "scratch", "synthetic"
SYNTHETIC = Path("data/synthetic")
INPUTS = ("manifest_valid.csv", "selection.json", "augmentation/policy.json", "synthetic/images.csv")

Runs = dict[str, Trained]
Outcomes = dict[str, Outcome]


def main() -> None:
    params = read_params()
    own = params.finetune_model
    if own.machine.n_processes > 1 and "RANK" not in os.environ:
        sys.exit(parallel.launch(own.machine.n_processes, "tasks.finetune_model"))
    device = parallel.join(use_machine(params.runtime.device, params.runtime.n_threads))
    manifest = read_valid_manifest(Path("data/manifest_valid.csv"), Path("data/gate.json"))
    champion_description(CHAMPION_PATH, classes_of(manifest))  # one that can't be compared is refused at once
    chosen = read_json(Path("data/selection.json"), made_by="select_model")["chosen"]
    candidate = next(c for c in read_zoo(Path(params.zoo.folder), params.zoo.candidates) if c.name == chosen)
    features_path = Path("data/features") / chosen
    with resume_folder(resume_key(params, candidate.sha256, features_path)) as folder:
        root, side_px = Path(params.build_manifest.root), params.zoo.image_px or candidate.native_px
        shop = Workshop(
            seed=params.seed,
            settings=fit_settings(params, device),
            balance=Balance(**own.regularisers.model_dump(include=set(Balance.__dataclass_fields__))),
            candidate=candidate,
            classes=classes_of(manifest),
            manifest=manifest,
            synthetic=manifest_rows(read_synthetic(SYNTHETIC / "images.csv"), manifest),
            files=ImageFiles(root, side_px, candidate.interpolation, candidate.crop_share, SYNTHETIC),
            features=read_features(features_path),
            view=read_view(params.seed),
            folder=folder,
        )
        phase = next((phase for phase in own.source if isinstance(phase, NetPhaseParams)), None)
        sweep = None
        if own.lr_range_steps and phase is not None:
            sweep = range_test(shop, core_net_phase(phase), own.lr_range_steps, own.label_smoothing.source)
        runs, outcomes, decision = train_all(shop, params)
        decision |= choices(shop, runs, outcomes, params)
        if parallel.is_first():
            write_results(shop, runs, outcomes, decision, sweep)
    parallel.leave()


@contextmanager
def resume_folder(key: str) -> Iterator[Path]:
    """Where the run keeps what it has finished. Of several processes the first holds its lock, the others use it."""
    state = ResumeState("finetune_model", key)
    with state if parallel.is_first() else nullcontext():
        parallel.wait()
        yield state.folder
        parallel.wait()


def resume_key(params: Params, sha256: str, features_path: Path) -> str:
    """Changes with every input, parameter and line of code, so that no run continues somebody else's."""
    code = [file_sha256(path) for path in sorted(Path(__file__).parent.rglob("*.py"))]
    features = [features_path / name for name in ("index.csv", "x.npy")]
    inputs = [file_sha256(path) for path in [*(Path("data") / name for name in INPUTS), *features]]
    own = [str(params.seed), *(s.model_dump_json() for s in (params.runtime, params.zoo, params.finetune_model))]
    return text_sha256("\n".join([*own, sha256, *inputs, *code]))[:16]


def fit_settings(params: Params, device: str) -> FitSettings:
    own, names = params.finetune_model, set(FitSettings.__dataclass_fields__)
    given = [section.model_dump(include=names) for section in (own, own.regularisers, own.machine)]
    return FitSettings(seed=params.seed, device=device, **given[0], **given[1], **given[2])


def train_all(shop: Workshop, params: Params) -> tuple[Runs, Outcomes, dict[str, Any]]:
    """All networks by name (plans as plan_<name>), their outcomes; what was not run and why, what is known of label shift."""
    own = params.finetune_model
    source, few = ((of("train"), of("val")) for of in (shop.source, shop.target))
    smoothing = own.label_smoothing
    runs = {SOURCE_ONLY: supervised(shop, SOURCE_ONLY, own.source, source, smoothing.source)}
    not_run: dict[str, str] = {}
    if (reason := why_no_plan(few[0], shop.classes)) is None:
        plans = {name: [core_phase(phase) for phase in plan.phases] for name, plan in own.plans.items()}
        taken, not_run = within_budget(plans, own.default_plan, own.max_plan_epochs)
        for name in taken:
            is_further = own.plans[name].start == SOURCE_ONLY
            start = deepcopy(runs[SOURCE_ONLY].model) if is_further else shop.pretrained(f"plan_{name}")
            lesson = Lesson(f"plan_{name}", start, *few)
            runs[lesson.name] = supervised_run(shop, lesson, plans[name], smoothing.target)
        runs[SCRATCH] = supervised(shop, SCRATCH, own.scratch, few, smoothing.target)
    else:
        not_run[FINETUNED] = reason
        runs[SCRATCH] = supervised(shop, SCRATCH, own.scratch, source, smoothing.source)
    if len(shop.synthetic) and any(isinstance(phase, HeadPhaseParams) for phase in own.source):
        not_run[ON_SYNTHETIC] = "the source plan has a head phase on cached features; synthetic images have none"
    elif len(shop.synthetic):
        images = (shop.with_synthetic(), source[1])
        runs[ON_SYNTHETIC] = supervised(shop, ON_SYNTHETIC, own.source, images, smoothing.source)
    sample = Sample.of(shop)
    outcomes = {SOURCE_ONLY: Outcome.of(runs[SOURCE_ONLY].model, sample, shop)}
    found = outcomes[SOURCE_ONLY], sample, shop.classes
    shift = label_shift_of(*found, confidence=own.calibration.confidence, seed=shop.seed)
    adapted, refused = adapt_all(shop, runs[SOURCE_ONLY], shift, params)
    runs |= adapted
    others = {name: run.model for name, run in runs.items() if name != SOURCE_ONLY}
    frozen_how = own.methods.frozen.how if own.methods.frozen else None
    outcomes |= outcomes_of(shop, sample, others, runs[SOURCE_ONLY].model, frozen_how)
    told_shift = None if shift is None else asdict(shift) | {"prior_C": shift.prior_C.tolist()}
    told = {"not_run": not_run | refused, "label_shift": told_shift, "n_synthetic": len(shop.synthetic)}
    return runs, outcomes, told


def supervised(
    shop: Workshop, name: str, plan: list[HeadPhaseParams | NetPhaseParams], images: tuple[ImageList, ImageList], smoothing: float
) -> Trained:  # fmt: skip
    """A network through the plan's phases, on (training, validation) images; scratch starts from random weights."""
    start = shop.from_scratch() if name == SCRATCH else shop.pretrained(name)
    return supervised_run(shop, Lesson(name, start, *images), [core_phase(phase) for phase in plan], smoothing)


def adapt_all(
    shop: Workshop, source_only: Trained, shift: LabelShift | None, params: Params
) -> tuple[Runs, dict[str, str]]:
    """The networks of all methods that may run, and why others were not."""
    own = params.finetune_model
    is_shifted = shift is not None and shift.suspected
    prior_C = torch.from_numpy(shift.prior_C).float() if shift is not None and is_shifted else None
    start = Start(source_only.model, own.label_smoothing.source, prior_C)
    limits = Limits(own.min_unlabelled, own.min_used_share)
    runs: Runs = {}
    refused: dict[str, str] = {}
    for name in type(own.methods).model_fields:
        settings = getattr(own.methods, name)
        if settings is None:
            continue
        at_once = getattr(settings, "batch_size", own.batch_size) // (own.machine.accumulate * own.machine.n_processes)
        facts = facts_of(shop, source_only.model, at_once, shift)
        if reason := why_not(name, facts, limits):
            refused[name] = reason
            continue
        run = run_named(shop, name, start, settings)
        if name == "fixmatch" and (reason := why_idle(used_share(run), limits)):
            refused[name] = reason
        else:
            runs[name] = run
    return runs, refused


def run_named(shop: Workshop, name: str, start: Start, settings: Any) -> Trained:
    if name == "adabn":
        return run_adabn(shop, start)
    values = settings.model_dump(exclude={"phase"})
    if name == "frozen":
        return run_frozen(shop, values.pop("how"), FrozenSettings(n_classes=len(shop.classes), **values))
    batch_size, weight = values.pop("batch_size"), values.pop("weight")
    return run_method(shop, name, start, MethodSettings(core_net_phase(settings.phase), batch_size, weight, values))


def core_phase(phase: HeadPhaseParams | NetPhaseParams) -> Phase:
    return HeadPhase(phase.inverse_l2) if isinstance(phase, HeadPhaseParams) else core_net_phase(phase)


def core_net_phase(phase: NetPhaseParams) -> NetPhase:
    return NetPhase(**phase.model_dump())


def choices(shop: Workshop, runs: Runs, outcomes: Outcomes, params: Params) -> dict[str, Any]:
    """Plan and method, each with its numbers and its reason; calibration of every network. `runs` gets the chosen plan."""
    own, sample = params.finetune_model, Sample.of(shop)
    confidence = params.guard_adaptation.confidence
    found: dict[str, Any] = {"n_val_labels": len(sample.target_val)}
    plans = [name for name in runs if name.startswith("plan_")]
    if plans:
        right = {
            name.removeprefix("plan_"): is_right(outcomes[name].target_val_NC, sample.target_val) for name in plans
        }
        plan, entries, why = choose_plan(right, own.default_plan, confidence)
        found["plan"] = {"chosen": plan, "reason": why, "plans": entries}
        runs[FINETUNED], outcomes[FINETUNED] = runs[f"plan_{plan}"], outcomes[f"plan_{plan}"]
        scratch_N = is_right(outcomes[SCRATCH].target_val_NC, sample.target_val)
        found["scratch"] = against_scratch(right[plan], scratch_N, confidence)
    rivals = {
        name: with_mixval(outcome, runs[name].model, sample, shop)
        for name, outcome in outcomes.items()
        if name != SCRATCH and name not in plans
    }
    found["method"] = chosen_method(rivals, sample, len(shop.classes), confidence)
    calibration = own.calibration.model_dump()
    found["calibration"] = {name: calibration_of(outcome, sample, **calibration) for name, outcome in rivals.items()}
    found["foreignness"] = foreignness_of(runs[SOURCE_ONLY].model, shop, sample, confidence)
    return found


def write_results(
    shop: Workshop, runs: Runs, outcomes: Outcomes, decision: dict[str, Any], sweep: LrRange | None
) -> None:
    names = dict.fromkeys((SOURCE_ONLY, FINETUNED, *outcomes))
    kept = [name for name in names if name in runs and not name.startswith("plan_")]
    temperature = {
        name: found["temperature"]["value"] if (found := decision["calibration"].get(name)) else 1.0 for name in kept
    }
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
        "temperature": temperature,
    }
    sample, said = Sample.of(shop), {name: outcomes[name].held_out_NC for name in kept}
    machine: Any = {"batch_size": shop.settings.batch_size, "device": shop.settings.device}
    if (champion := champion_probabilities(CHAMPION_PATH, sample.held_out, shop.classes, **machine)) is not None:
        said[CHAMPION] = champion
    held_out = held_out_table(said, sample, shop.classes)
    with whole_folder(Path("data/model")) as folder:
        for name in kept:
            save_weights(runs[name].model, folder / f"{name}.safetensors")
        if sweep:
            decision["lr_range"] = {name: getattr(sweep, name) for name in ("suggested", "diverging", "reason")}
            write_table(folder / "lr_range.csv", sweep.table)
        write_table(folder / "held_out.csv", held_out)
        write_json(folder / "model.json", description)
        write_json(folder / "decision.json", decision)
    rows = [row for name, run in runs.items() if name != FINETUNED for row in run.history]
    write_table(Path("data/history.csv"), pd.DataFrame(rows, columns=HISTORY_COLUMNS))


if __name__ == "__main__":
    run_stage(main)
