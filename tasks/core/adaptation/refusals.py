"""Why a method is not run on this job, in words: each condition says one sentence, each method names its conditions."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """What is known before a method starts."""

    n_unlabelled: int  # target images to learn from
    n_classes: int
    batch_size: int
    n_batch_norm_layers: int
    n_labelled_target: int
    n_labelled_source: int
    label_shift: str | None  # the reason, where it is suspected


@dataclass(frozen=True)
class Limits:
    min_unlabelled: int
    min_used_share: float  # of the unlabelled images, by FixMatch


Condition = Callable[[Facts, Limits], str | None]


def why_not(method: str, facts: Facts, limits: Limits) -> str | None:
    """All reasons in one sentence, or None where the method may run. ValueError for an unknown method."""
    if method not in CONDITIONS:
        raise ValueError(f"adaptation method {method!r} is unknown; allowed are {', '.join(sorted(CONDITIONS))}")
    reasons = [condition(facts, limits) for condition in CONDITIONS[method]]
    return "; ".join(reason for reason in reasons if reason) or None


def few_images(facts: Facts, limits: Limits) -> str | None:
    if facts.n_unlabelled >= limits.min_unlabelled:
        return None
    return (
        f"{facts.n_unlabelled} target images to learn from, at least {limits.min_unlabelled} are asked for "
        "(min_unlabelled): add images of the target, labels are not needed"
    )


def no_batch_norm(facts: Facts, _limits: Limits) -> str | None:
    if facts.n_batch_norm_layers:
        return None
    return "the network keeps no BatchNorm statistics, so nothing would change: take another network or method"


def no_source(facts: Facts, _limits: Limits) -> str | None:
    if facts.n_labelled_source:
        return None
    return "it learns from labelled source images, and there are none: take shot, which needs only the source's network"


def small_batch(facts: Facts, _limits: Limits) -> str | None:
    if facts.batch_size >= facts.n_classes:
        return None
    return (
        f"a batch of {facts.batch_size} images cannot show {facts.n_classes} classes, whose confusion is measured within the "
        f"batch: set batch_size to {facts.n_classes} or more"
    )


def few_labels(facts: Facts, _limits: Limits) -> str | None:
    if facts.n_labelled_target >= facts.n_classes:
        return None
    return (
        f"{facts.n_labelled_target} labelled target images for {facts.n_classes} classes: label at least one image of each "
        "class"
    )


def shifted_labels(facts: Facts, _limits: Limits) -> str | None:
    if facts.label_shift is None:
        return None
    return f"{facts.label_shift}: to make both domains look alike would then mix classes up; take shot with the estimated shares"


CONDITIONS: dict[str, tuple[Condition, ...]] = {
    "adabn": (few_images, no_batch_norm, shifted_labels),
    "frozen": (few_images, shifted_labels),
    "mcc": (few_images, no_source, small_batch),
    "deep_coral": (few_images, no_source, shifted_labels),
    "dann": (few_images, no_source, shifted_labels),
    "shot": (few_images,),
    "fixmatch": (few_images, few_labels),
}


def why_idle(used_share: float, limits: Limits) -> str | None:
    """Of a FixMatch that has run: why its result is not one of FixMatch. NaN (no epoch was run) counts as idle."""
    if used_share >= limits.min_used_share:
        return None
    return (
        f"fixmatch used {used_share:.1%} of the unlabelled images in its last epoch, at least {limits.min_used_share:.1%} are "
        "asked for (min_used_share), so it learnt from the labelled ones alone: lower its threshold"
    )
