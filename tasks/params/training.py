"""The sections of params.yaml on training, adaptation and the guard."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from tasks.params.rules import Confidence, Count, Positive, Section, Share

Name = Annotated[str, Field(min_length=1, pattern=r"^\w[\w.\- ]*$")]
Weight = Annotated[float, Field(ge=0)]
BatchSize = Annotated[int, Field(ge=2)]
WHERE, BLOCKS = r"^(last_block|backbone|all|blocks:.+)$", "blocks:"
MAX_COUNT, ROUNDING = 1e12, 0.02  # of images of a class; of shares that add up to 1
MIN_RANGE_STEPS = 40  # a range test on fewer takes noise for a fall (tasks.core.lr_range)


def with_readable_pattern(trains: str) -> str:
    try:
        re.compile(trains.removeprefix(BLOCKS))
    except re.error as error:
        told = {"error": str(error)}
        raise PydanticCustomError("pattern", "what follows blocks: is no regular expression ({error})", told) from None
    return trains


def with_enough_steps(n_steps: int) -> int:
    if 0 < n_steps < MIN_RANGE_STEPS:
        told = {"least": MIN_RANGE_STEPS}
        raise PydanticCustomError("n_steps", "write 0 (no range test) or at least {least} steps", told)
    return n_steps


def with_a_number_per_class(given: Any) -> Any:
    """Names as words: YAML reads the class 7 as a number."""
    if given is None or given == "source":
        return given
    if problem := problem_of_shares(given):
        form = "null (not known), source (as in the source) or a count or share per class, e.g. {cat: 30, dog: 10}"
        raise PydanticCustomError("class_shares", "write {form}; {problem}", {"form": form, "problem": problem})
    return {str(name): float(value) for name, value in given.items()}


def problem_of_shares(given: Any) -> str:
    """In words; "" where each class has a number."""
    if not isinstance(given, dict) or not given:
        return "this names no class"
    for name, value in given.items():
        if type(value) not in (int, float) or not 0 <= value <= MAX_COUNT:
            return f"{name!r}: {value!r} is no number from 0 to {MAX_COUNT:.0e}"
    if len({isinstance(name, str) for name in given}) > 1:  # DVC sorts them
        return "some names are words, others numbers or true and false: quote all of them"
    total = sum(given.values())
    if not total:
        return "not all can be 0"
    are_shares = max(given.values()) <= 1 and any(type(value) is float for value in given.values())
    if are_shares and abs(total - 1) > ROUNDING:
        return f"these shares add up to {total:.3g}, not to 1"
    return ""


class HeadPhase(Section):
    trains: Literal["head"]
    inverse_l2: Positive


class NetPhase(Section):
    trains: Annotated[str, Field(pattern=WHERE), AfterValidator(with_readable_pattern)]
    n_epochs: Count
    lr: Positive
    block_decay: Annotated[float, Field(gt=0, le=1)]
    batch_norm: Literal["train", "frozen", "adapted"]
    schedule: Literal["one_cycle", "cosine", "constant"]
    warmup_share: Annotated[float, Field(ge=0, lt=1)]
    patience: Count | None


def kind_of_phase(given: Any) -> str:
    trains = given.get("trains") if isinstance(given, dict) else getattr(given, "trains", None)
    return "head" if trains == "head" else "network"


Phase = Annotated[Annotated[HeadPhase, Tag("head")] | Annotated[NetPhase, Tag("network")], Discriminator(kind_of_phase)]
Plan = Annotated[list[Phase], Field(min_length=1)]


class TargetPlan(Section):
    """Phases on the target's few labels, from the pretrained network or from the one that was trained on the source."""

    start: Literal["pretrained", "source_only"]
    phases: Plan


class Smoothing(Section):
    source: Annotated[float, Field(ge=0, lt=1)]
    target: Annotated[float, Field(ge=0, lt=1)]


class Regularisers(Section):
    dropout: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Weight
    l2_sp: Weight
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None
    mixup_alpha: Weight
    cutmix_alpha: Weight
    sampling: Literal["shuffled", "class_balanced", "group_balanced"]
    group_column: Name | None
    group_dro_step: Weight


class Machine(Section):
    precision: Literal["float32", "bfloat16", "float16"]
    compile: bool
    accumulate: Count
    n_processes: Count


class Calibration(Section):
    accuracy: Annotated[float, Field(gt=0, lt=1)]
    confidence: Confidence


class Adabn(Section):
    """Nothing to set: {} tries it."""


class Frozen(Section):
    how: Literal["none", "standardise", "coral"]
    l2_per_feature: Positive
    source_per_class: Weight
    confidence: Annotated[float, Field(gt=0, lt=1)]
    pseudo_weight: Weight
    n_rounds: Annotated[int, Field(ge=0)]


class Mcc(Section):
    phase: NetPhase
    batch_size: BatchSize
    weight: Positive
    temperature: Positive


class DeepCoral(Section):
    phase: NetPhase
    batch_size: BatchSize
    weight: Positive


class Dann(Section):
    phase: NetPhase
    batch_size: BatchSize
    weight: Positive


class Shot(Section):
    phase: NetPhase
    batch_size: BatchSize
    weight: Weight


class FixMatch(Section):
    phase: NetPhase
    batch_size: BatchSize
    weight: Positive
    threshold: Annotated[float, Field(gt=0, lt=1)]
    teacher_decay: Annotated[float, Field(gt=0, lt=1)]


class Methods(Section):
    """Each is tried where its settings are given; null = left out."""

    adabn: Adabn | None
    frozen: Frozen | None
    mcc: Mcc | None
    deep_coral: DeepCoral | None
    dann: Dann | None
    shot: Shot | None
    fixmatch: FixMatch | None


class FinetuneModel(Section):
    batch_size: BatchSize
    label_smoothing: Smoothing
    evaluate_every: Count
    regularisers: Regularisers
    machine: Machine
    lr_range_steps: Annotated[int, Field(ge=0), AfterValidator(with_enough_steps)]
    source: Plan
    plans: Annotated[dict[Name, TargetPlan], Field(min_length=1)]
    default_plan: str
    max_plan_epochs: Count | None
    scratch: Plan
    methods: Methods
    min_unlabelled: Annotated[int, Field(ge=10)]
    min_used_share: Share
    calibration: Calibration


class GuardAdaptation(Section):
    confidence: Confidence
    adopt_confidence: Confidence
    adopt_confidence_with_gates: Confidence
    margin: Annotated[float, Field(ge=-1, le=1)]
    without_labels: Literal["keep", "gates"]
    class_shares: Annotated[str | dict[str, float] | None, BeforeValidator(with_a_number_per_class)]
    n_to_label: Count
