"""Class shares as a person states them: counts or shares for every class, or those of the source."""

import pytest

from tasks.core.stated_shares import stated_shares

CLASSES = ["bird", "cat", "dog"]


def test_counts_and_shares_say_the_same() -> None:
    """60, 30 and 10 of 100."""
    for stated in ({"cat": 30, "dog": 10, "bird": 60}, {"bird": 0.6, "cat": 0.3, "dog": 0.1}):
        assert stated_shares(stated, CLASSES, []) == pytest.approx([0.6, 0.3, 0.1])


def test_shares_of_the_source_are_counted() -> None:
    assert stated_shares("source", CLASSES, ["dog", "cat", "", "dog", "bird"]) == pytest.approx([0.25, 0.25, 0.5])


def test_what_nobody_knows_is_none() -> None:
    assert stated_shares(None, CLASSES, ["dog"]) is None


def test_every_class_needs_its_number() -> None:
    with pytest.raises(
        ValueError, match=r"for each class of the source \(missing: 'bird', 'dog'; no class: 'cow'\); quote"
    ):
        stated_shares({"cat": 1, "cow": 2}, CLASSES, [])


def test_a_sentence_names_ten_classes() -> None:
    classes = [f"c{k:02}" for k in range(13)]
    with pytest.raises(ValueError, match=r"missing: 'c00', .*'c09' and 2 more; no class: 'no'\)"):
        stated_shares({"c12": 1, "no": 1}, classes, [])
