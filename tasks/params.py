"""params.yaml as typed, frozen values. Every problem is reported at once; there are no defaults here."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Confidence = Annotated[float, Field(gt=0.5, lt=1)]
Name = Annotated[str, Field(min_length=1, pattern=r"^[\w.\- ]+$")]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Runtime(Section):
    device: Literal["cpu", "cuda"]
    n_threads: Count


class Zoo(Section):
    folder: str
    candidates: list[Name] | None
    image_px: Annotated[int, Field(ge=16)] | None


class MakeSample(Section):
    n_source_images: Annotated[int, Field(ge=100)]
    zoo_batch_size: Annotated[int, Field(ge=2)]
    zoo_lr: Positive
    zoo_val_images: Count
    zoo_images: dict[Name, Count]
    zoo_epochs: dict[Name, Count]


class Columns(Section):
    path: str
    label: str | None
    domain: str | None
    split: str | None
    group: str | None


class PerDomain(Section):
    source: Count | None
    target: Count | None


class BuildManifest(Section):
    root: str
    table: str
    columns: Columns
    audit_columns: list[Name]
    source_domains: Annotated[list[str], Field(min_length=1)]
    target_domain: str
    max_per_class: PerDomain


Severity = Literal["drop", "warn", "block"]


class Rule(Section):
    severity: Severity


class ImageRule(Section):
    severity: Literal["drop", "warn"]


class SideRule(ImageRule):
    min: Count
    max: Count


class MaxRule(ImageRule):
    max: Positive


class MinRule(ImageRule):
    min: Share


class Rules(Section):
    readable: ImageRule
    single_frame: ImageRule
    side_px: SideRule
    aspect_ratio: MaxRule
    contrast: MinRule
    extension_matches: ImageRule
    known_label: Rule
    unique_pixels: ImageRule
    one_label_per_pixels: Rule
    duplicates_across_splits: Rule

    @model_validator(mode="after")
    def unreadable_images_are_dropped(self) -> "Rules":
        if self.readable.severity != "drop":
            raise ValueError("readable must have severity drop: an unreadable image can't be used")
        return self


class Splits(Section):
    source_val_share: Annotated[float, Field(gt=0, le=0.5)]
    target_val_share: Share
    target_test_share: Annotated[float, Field(gt=0, lt=1)]

    @model_validator(mode="after")
    def leaves_training_images(self) -> "Splits":
        if self.target_val_share + self.target_test_share >= 1:
            raise ValueError(
                "target_val_share + target_test_share must stay below 1, or no target image is left to learn from"
            )
        return self


class ValidateData(Section):
    min_source_per_class: Count
    max_rejected_share: Share
    rules: Rules
    splits: Splits
    target_labels_per_class: Annotated[int, Field(ge=0)] | None
    n_guard_labels: Annotated[int, Field(ge=0)]


class Transform(Section):
    name: Name
    p: Share
    arguments: dict[str, Any]


class Preview(Section):
    n_images: Count
    n_views: Count


class AugmentImages(Section):
    transforms: list[Transform]
    preview: Preview


class ExtractFeatures(Section):
    batch_size: Count
    n_views: Annotated[int, Field(ge=0)]
    max_images: PerDomain


class Weights(Section):
    knn: Annotated[float, Field(ge=0)]
    linear_probe: Annotated[float, Field(ge=0)]
    logme: Annotated[float, Field(ge=0)]
    h_score: Annotated[float, Field(ge=0)]
    proxy_a_distance: Annotated[float, Field(ge=0)]
    linear_mmd: Annotated[float, Field(ge=0)]


class SelectModel(Section):
    weights: Weights
    n_neighbors: Count
    probe_inverse_l2: Positive
    min_labels: Annotated[int, Field(ge=10)]
    max_per_domain: Annotated[int, Field(ge=20)]
    n_bootstrap: Annotated[int, Field(ge=50)]
    tie_p_best: Annotated[float, Field(gt=0, lt=0.5)]
    confidence: Confidence


class HeadPhase(Section):
    trains: Literal["head"]
    inverse_l2: Positive


class NetPhase(Section):
    trains: Literal["last_block", "all"]
    n_epochs: Count
    lr: Positive
    block_decay: Annotated[float, Field(gt=0, le=1)]
    batch_norm: Literal["train", "frozen"]


Phase = Annotated[HeadPhase | NetPhase, Field(discriminator="trains")]
Plan = Annotated[list[Phase], Field(min_length=1)]


class Shot(Section):
    n_epochs: Count
    batch_size: Annotated[int, Field(ge=2)]
    lr: Positive
    block_decay: Annotated[float, Field(gt=0, le=1)]
    pseudo_label_weight: Annotated[float, Field(ge=0)]
    min_images: Annotated[int, Field(ge=10)]


class Guard(Section):
    margin: Annotated[float, Field(ge=-1, le=1)]
    confidence: Confidence


class FinetuneModel(Section):
    batch_size: Annotated[int, Field(ge=2)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    evaluate_every: Count
    source: Plan
    plans: Annotated[dict[Name, Plan], Field(min_length=1)]
    default_plan: str
    scratch: Plan
    shot: Shot
    guard: Guard
    n_bootstrap: Annotated[int, Field(ge=200)]

    @model_validator(mode="after")
    def phases_fit_together(self) -> "FinetuneModel":
        problems = []
        if self.default_plan not in self.plans:
            problems.append(f"default_plan {self.default_plan!r} is not one of the plans: {', '.join(self.plans)}")
        for name, phases in {**self.plans, "source": self.source, "scratch": self.scratch}.items():
            if any(phase.trains == "head" for phase in phases[1:]):
                problems.append(f"plan {name}: the head phase uses cached features, so it can only come first")
        if any(phase.trains != "all" for phase in self.scratch):
            problems.append("scratch: a random network has no features worth keeping, so every phase must train all")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class EvaluateModel(Section):
    batch_size: Count
    confidence: Confidence
    n_bootstrap: Annotated[int, Field(ge=200)]


class AuditRule(Section):
    name: Name
    metric: Literal["accuracy", "recall_worst_class"]
    column: Name
    max_gap: Annotated[float, Field(gt=0, lt=1)]
    required: bool


class AuditBias(Section):
    confidence: Confidence
    n_bootstrap: Annotated[int, Field(ge=200)]
    min_group_size: Annotated[int, Field(ge=2)]
    rules: list[AuditRule]


class RegisterModel(Section):
    name: Name


class Params(Section):
    seed: Annotated[int, Field(ge=0)]
    runtime: Runtime
    zoo: Zoo
    make_sample: MakeSample
    build_manifest: BuildManifest
    validate_data: ValidateData
    augment_images: AugmentImages
    extract_features: ExtractFeatures
    select_model: SelectModel
    finetune_model: FinetuneModel
    evaluate_model: EvaluateModel
    audit_bias: AuditBias
    register_model: RegisterModel

    @model_validator(mode="after")
    def audited_columns_exist(self) -> "Params":
        for rule in self.audit_bias.rules:
            if rule.column not in self.build_manifest.audit_columns:
                raise ValueError(
                    f"audit_bias.rules: column {rule.column!r} is not in build_manifest.audit_columns "
                    f"({', '.join(self.build_manifest.audit_columns) or 'none'})"
                )
        return self


def read_params(path: Path = Path("params.yaml")) -> Params:
    """The checked parameters. ValueError lists every problem: key, value, what is allowed, nearest known key."""
    try:
        # YAML 1.2, as DVC reads it: 1e-3 is a number, `no` is a word, a key given twice is an error.
        content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: run from the project's folder") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from None
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        lines = [_sentence(detail) for detail in error.errors()]
        raise ValueError(f"{path} has {len(lines)} problem(s):\n  - " + "\n  - ".join(lines)) from None


def _sentence(detail: ErrorDetails) -> str:
    location = [part for part in detail["loc"] if part not in ("head", "last_block", "all")]
    key = ".".join(str(part) for part in location) or "the file"
    if detail["type"] == "extra_forbidden":
        known = _keys_beside(detail["loc"])
        near = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1, cutoff=0.5)
        advice = f"did you mean {near[0]!r}?" if near else f"allowed are {', '.join(known) or 'no keys'}"
        return f"{key} is not a known key; {advice}"
    if detail["type"] == "missing":
        return f"{key} is missing; add it (there are no defaults in code)"
    if detail["type"] == "value_error":
        return f"{key}: {detail['ctx']['error']}"
    return f"{key} is {detail['input']!r}; {detail['msg'][0].lower()}{detail['msg'][1:]}"


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    """The known keys of the section in which the unknown key stands."""
    kinds: list[type[Section]] = [Params]
    for part in location[:-1]:
        kinds = [below for kind in kinds for below in _kinds_below(kind, part)]
    return sorted({name for kind in kinds for name in kind.model_fields})


def _kinds_below(kind: type[Section], part: int | str) -> list[type[Section]]:
    field = kind.model_fields.get(str(part))
    return _sections(field.annotation) if field else [kind]  # else: a list's index, a dict's key or a union's tag


def _sections(annotation: Any) -> list[type[Section]]:
    """The section classes inside an annotation: unions, lists and dicts are looked through."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [below for argument in get_args(annotation) for below in _sections(argument)]
