"""Refusals: every condition of every method trips with its sentence, and a job that lacks nothing is refused nothing."""

import math
from dataclasses import replace

import pytest

from tasks.core.adaptation.refusals import CONDITIONS, Facts, Limits, why_idle, why_not

LIMITS = Limits(min_unlabelled=100, min_used_share=0.01)
GOOD = Facts(
    n_unlabelled=100, n_classes=7, batch_size=7, n_batch_norm_layers=1, n_labelled_target=7, n_labelled_source=1,
    label_shift=None,
)  # fmt: skip
BAD = {
    "n_unlabelled": (
        99,
        "99 target images to learn from, at least 100 are asked for (min_unlabelled): add images of the target, labels are "
        "not needed",
    ),
    "n_batch_norm_layers": (
        0, "the network keeps no BatchNorm statistics, so nothing would change: take another network or method",
    ),
    "n_labelled_source": (
        0,
        "it learns from labelled source images, and there are none: take shot, which needs only the source's network",
    ),
    "batch_size": (
        6,
        "a batch of 6 images cannot show 7 classes, whose confusion is measured within the batch: set batch_size to 7 or "
        "more",
    ),
    "n_labelled_target": (6, "6 labelled target images for 7 classes: label at least one image of each class"),
    "label_shift": (
        "owls are everywhere",
        "owls are everywhere: to make both domains look alike would then mix classes up; take shot with the estimated shares",
    ),
}  # fmt: skip
REFUSED_FOR = {
    "adabn": {"n_unlabelled", "n_batch_norm_layers", "label_shift"},
    "frozen": {"n_unlabelled", "label_shift"},
    "mcc": {"n_unlabelled", "n_labelled_source", "batch_size"},
    "deep_coral": {"n_unlabelled", "n_labelled_source", "label_shift"},
    "dann": {"n_unlabelled", "n_labelled_source", "label_shift"},
    "shot": {"n_unlabelled"},
    "fixmatch": {"n_unlabelled", "n_labelled_target"},
}


def test_the_table_is_complete() -> None:
    assert set(REFUSED_FOR) == set(CONDITIONS)
    assert set().union(*REFUSED_FOR.values()) == set(BAD)


@pytest.mark.parametrize("method", list(CONDITIONS))
def test_a_job_that_lacks_nothing_is_not_refused(method: str) -> None:
    assert why_not(method, GOOD, LIMITS) is None


@pytest.mark.parametrize("fact", list(BAD))
@pytest.mark.parametrize("method", list(CONDITIONS))
def test_each_lack_is_told_where_it_matters(method: str, fact: str) -> None:
    value, sentence = BAD[fact]
    told = why_not(method, replace(GOOD, **{fact: value}), LIMITS)
    assert told == (sentence if fact in REFUSED_FOR[method] else None)


def test_all_lacks_are_told_at_once() -> None:
    facts = replace(GOOD, n_unlabelled=5, batch_size=2)
    told = why_not("mcc", facts, LIMITS)
    assert told is not None
    assert told.startswith("5 target images to learn from")
    assert "; a batch of 2 images cannot show 7 classes" in told


def test_an_unknown_method_is_named() -> None:
    message = "adaptation method 'dan' is unknown; allowed are adabn, dann, deep_coral, fixmatch, frozen, mcc, shot"
    with pytest.raises(ValueError, match=message):
        why_not("dan", GOOD, LIMITS)


def test_an_idle_fixmatch_is_told() -> None:
    assert why_idle(0.01, LIMITS) is None
    assert why_idle(0.004, LIMITS) == (
        "fixmatch used 0.4% of the unlabelled images in its last epoch, at least 1.0% are asked for (min_used_share), so it "
        "learnt from the labelled ones alone: lower its threshold"
    )
    assert why_idle(math.nan, LIMITS) is not None
