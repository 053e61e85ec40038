"""The sections of params.yaml: one class each, strict and frozen; there are no defaults here."""

from typing import Annotated, Any, Literal

from pydantic import Field

from tasks.params.auditing import AuditRules
from tasks.params.rules import Confidence, Count, Positive, Rules, Section, Share
from tasks.params.training import FinetuneModel, GuardAdaptation, Name

LAYOUT = r"^(domain|split|label|group|-)(/(domain|split|label|group|-))*$"


class Runtime(Section):
    device: Literal["cpu", "cuda"]
    n_threads: Count


class Zoo(Section):
    folder: str
    candidates: Annotated[list[Name], Field(min_length=1)] | None
    image_px: Annotated[int, Field(ge=16)] | None
    licences: Annotated[list[str], Field(min_length=1)] | None


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
    layout: Annotated[str, Field(pattern=LAYOUT)]
    columns: Columns
    audit_columns: list[Name]
    source_domains: Annotated[list[str], Field(min_length=1)]
    target_domain: str
    max_per_class: PerDomain


class Splits(Section):
    source_val_share: Annotated[float, Field(gt=0, le=0.5)]
    target_val_share: Share
    target_test_share: Annotated[float, Field(gt=0, lt=1)]
    target_holdout_share: Annotated[float, Field(ge=0, le=0.5)]


class ValidateData(Section):
    confidence: Confidence
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
    dtype: Literal["float32", "float16"]
    n_views: Annotated[int, Field(ge=0)]
    max_images: PerDomain


Weight = Annotated[float, Field(ge=0)] | None


class Distances(Section):
    proxy_a_distance: Weight
    linear_mmd: Weight
    kid: Weight
    coral_distance: Weight
    frechet_distance: Weight


class Weights(Distances):
    knn: Weight
    linear_probe: Weight
    transfer_probe: Weight
    logme: Weight
    h_score: Weight
    leep: Weight


class WeightsWithoutLabels(Distances):
    source_probe: Weight
    static_prior: Weight


class SelectModel(Section):
    weights: Weights
    weights_without_labels: WeightsWithoutLabels
    n_neighbors: Count
    probe_inverse_l2: Positive
    min_labels: Annotated[int, Field(ge=10)]
    max_labels: Annotated[int, Field(ge=20)]
    max_per_domain: Annotated[int, Field(ge=20)]
    n_bootstrap: Annotated[int, Field(ge=50)]
    tie_p_best: Annotated[float, Field(gt=0, lt=0.5)]
    gap_min_images: Annotated[int, Field(ge=2)]
    confidence: Confidence
    take: Name | None


class SynthesiseImages(Section):
    method: Literal["statistics", "fourier"]
    n_per_image: Annotated[int, Field(ge=0)]
    n_max: Count | None
    strength: Annotated[float, Field(gt=0, le=1)]
    fourier_share: Annotated[float, Field(gt=0, le=0.5)]
    short_side_px: Annotated[int, Field(ge=16)]


class EvaluateModel(Section):
    batch_size: Count
    confidence: Confidence


class ExplainErrors(Section):
    n_per_group: Count
    max_groups: Count
    window_share: Annotated[float, Field(gt=0, le=1)]
    batch_size: Count


class RegisterModel(Section):
    name: Name


class Review(Section):
    n_approvals: Count
    allow_starter: bool


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
    synthesise_images: SynthesiseImages
    finetune_model: FinetuneModel
    guard_adaptation: GuardAdaptation
    evaluate_model: EvaluateModel
    explain_errors: ExplainErrors
    audit_bias: AuditRules
    register_model: RegisterModel
    review: Review


class SelectionZoo(Section):
    """As `zoo`; the folder may be named by the command instead."""

    folder: str | None
    candidates: Annotated[list[Name], Field(min_length=1)] | None
    image_px: Annotated[int, Field(ge=16)] | None
    licences: Annotated[list[str], Field(min_length=1)] | None


class SelectionFeatures(Section):
    batch_size: Count
    dtype: Literal["float32", "float16"]


class SelectionBook(Section):
    """What a selection outside the pipeline needs: a file of its own, or these keys of a whole params.yaml."""

    seed: Annotated[int, Field(ge=0)]
    runtime: Runtime
    zoo: SelectionZoo
    extract_features: SelectionFeatures
    select_model: SelectModel
