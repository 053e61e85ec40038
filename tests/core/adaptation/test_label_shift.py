"""Label shift: the estimate against the matrix inverse, and suspicion only where misreading cannot explain what is seen."""

import numpy as np
import pytest

from tasks.core.adaptation.label_shift import LEAST_SHIFT, label_shift, target_shares

CLASSES = ("cat", "dog", "owl")
READS = np.array([[0.8, 0.1, 0.1], [0.1, 0.7, 0.2], [0.1, 0.2, 0.7]])  # P(predicted | true), columns sum to 1
SOURCE = np.array([0.5, 0.3, 0.2])


def counts(n: int, target: np.ndarray, reads: np.ndarray = READS) -> tuple[np.ndarray, np.ndarray]:
    """What n source and n target images would be counted as, without noise."""
    return np.rint(n * READS * SOURCE).astype(int), np.rint(n * reads @ target).astype(int)


@pytest.mark.parametrize("target", [[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.0, 0.5, 0.5]])
def test_shares_are_found_where_the_network_misreads_both_domains_alike(target: list[float]) -> None:
    confusion, predictions = counts(10_000, np.array(target))
    found = target_shares(confusion, predictions)
    assert found == pytest.approx(target, abs=1e-3)
    solved = np.linalg.solve(confusion / confusion.sum(), predictions / predictions.sum()) * SOURCE
    assert found == pytest.approx(solved, abs=1e-3)


def test_shares_lie_on_the_simplex() -> None:
    # the inverse would say (1.2, -.1, -.1) or so: more is read as cat than any target of cats could be
    found = target_shares(counts(1000, SOURCE)[0], np.array([95, 3, 2]))
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1)
    assert found[0] == pytest.approx(1)


def test_a_class_without_source_images_gets_no_share() -> None:
    confusion = np.array([[9, 1, 0], [1, 9, 0], [0, 0, 0]])
    found = target_shares(confusion, np.array([50, 30, 20]))
    assert found[2] == 0
    assert np.isfinite(found).all()


def test_a_shift_beyond_the_misread_share_is_suspected() -> None:
    confusion, predictions = counts(1000, np.array([0.1, 0.1, 0.8]))
    found = label_shift(confusion, predictions, 0.25, classes=CLASSES, seed=0)
    # predictions .17, .24, .59 against .5, .3, .2: total variation .39
    assert found.least_shift.value == pytest.approx(0.39 - 0.25, abs=1e-6)
    assert found.least_shift.low < 0.14 < found.least_shift.high
    assert found.suspected == (found.least_shift.low >= LEAST_SHIFT)
    assert found.suspected
    assert found.ratio.value == pytest.approx(4.0, abs=0.02)
    assert found.ratio.low < 4 < found.ratio.high
    assert found.reason.startswith("the classes' shares differ between source and target for at least 1")
    assert "class owl seems to be 4.0 times as common (" in found.reason


def test_what_misreading_can_explain_is_not_suspected() -> None:
    confusion, predictions = counts(1000, np.array([0.1, 0.1, 0.8]))
    found = label_shift(confusion, predictions, 0.45, classes=CLASSES, seed=0)
    assert not found.suspected
    assert found.reason == (
        "no label shift can be told from the predictions: about 45% of the target images are misread, which explains all "
        "but 0% (at the least 0%) of the difference"
    )


def test_a_few_images_prove_nothing() -> None:
    confusion, predictions = counts(20, np.array([0.1, 0.1, 0.8]))
    found = label_shift(confusion, predictions, 0.25, classes=CLASSES, seed=0)
    assert found.least_shift.value > 0.1
    assert not found.suspected


@pytest.mark.parametrize("seed", range(5))
def test_without_shift_nothing_is_suspected(seed: int) -> None:
    rng = np.random.default_rng(seed)
    joint = (READS * SOURCE).ravel()
    confusion = rng.multinomial(200, joint).reshape(3, 3)
    predictions = rng.multinomial(150, READS @ SOURCE)
    assert not label_shift(confusion, predictions, 0.0, classes=CLASSES, seed=0).suspected


def test_the_same_seed_draws_the_same() -> None:
    confusion, predictions = counts(100, np.array([0.1, 0.1, 0.8]))
    one, same, other = (label_shift(confusion, predictions, 0.2, classes=CLASSES, seed=s) for s in (0, 0, 1))
    assert one.least_shift == same.least_shift
    assert one.least_shift != other.least_shift


def test_nothing_to_count_is_refused() -> None:
    message = r"label shift cannot be estimated from 4 labelled source validation image\(s\) and 0 target image\(s\)"
    with pytest.raises(ValueError, match=message):
        label_shift(np.eye(4, dtype=int), np.zeros(4, dtype=int), 0.1, classes=(*CLASSES, "emu"), seed=0)
    with pytest.raises(ValueError, match="from 0 labelled source"):
        label_shift(np.zeros((3, 3), dtype=int), np.ones(3, dtype=int), 0.1, classes=CLASSES, seed=0)
