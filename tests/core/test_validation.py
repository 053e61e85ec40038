"""Findings and what follows from them: which images are rejected, what blocks, the words people read."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.core.validation import (
    SEVERITIES,
    blocking,
    cell_finding,
    counts,
    image_finding,
    label_sets,
    limit_words,
    problems_of_the_test,
    rejected_rows,
    status_of,
    structure_problems,
)


def images(n: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(n)],
            "path": [f"{k}.png" for k in range(n)],
            "contrast": 0.01,
            "error": "cut",
        }
    )


def finding(rule: str, policy: str, rows: pd.DataFrame, ids: list[str], severity: str = "warn") -> dict[str, Any]:
    return image_finding(rule, {"severity": severity, "policy": policy}, rows, ids)


def cells(*rows: tuple[str, str, float, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["rule", "cell", "value", "why"])


def test_an_image_finding_tells_paths_and_reasons_in_the_order_of_the_images() -> None:
    settings = {"severity": "warn", "policy": "drop", "min": 0.02}
    assert image_finding("contrast", settings, images(4), ["i3", "i1", "i3"]) == {
        "rule": "contrast", "severity": "warn", "policy": "drop", "min": 0.02, "n_checked": 4, "n_failed": 2,
        "images": [
            {"image_id": "i1", "path": "1.png", "why": "contrast 0.0100"},
            {"image_id": "i3", "path": "3.png", "why": "contrast 0.0100"},
        ],
    }  # fmt: skip


@pytest.mark.parametrize("n", [0, 3])
def test_a_rule_that_nobody_fails_is_a_finding_too(n: int) -> None:
    found = finding("contrast", "keep", images(n), [])
    assert (found["n_checked"], found["n_failed"], found["images"]) == (n, 0, [])


def test_a_cell_finding_tells_cells_values_and_reasons() -> None:
    table = cells(("size", "class 'a'", 3.0, "few"), ("other", "x", 1.0, "odd"), ("size", "class 'b'", 2.0, "fewer"))
    assert cell_finding("size", {"severity": "block", "min": 5}, table, [2, 0]) == {
        "rule": "size", "severity": "block", "min": 5, "n_checked": 2, "n_failed": 2,
        "cells": [
            {"cell": "class 'a'", "value": 3.0, "why": "few"},
            {"cell": "class 'b'", "value": 2.0, "why": "fewer"},
        ],
    }  # fmt: skip


def test_a_rule_without_cells_had_nothing_to_check() -> None:
    found = cell_finding("size", {"severity": "block", "min": 5}, cells(("other", "x", 1.0, "odd")), [])
    assert (found["n_checked"], found["n_failed"], found["cells"]) == (0, 0, [])


def test_rejected_are_those_of_dropping_rules_with_all_their_reasons() -> None:
    rows = images(5)
    findings = [
        finding("readable", "drop", rows, ["i2"]), finding("contrast", "drop", rows, ["i1", "i2"]),
        finding("readable", "keep", rows, ["i0"]), finding("readable", "keep", rows, ["i3"], "block"),
        finding("contrast", "keep_one", rows, ["i4"], "note"),
        cell_finding("size", {"severity": "block", "min": 5}, cells(("size", "x", 1.0, "few")), [0]),
    ]  # fmt: skip
    assert rejected_rows(rows, findings).to_numpy().tolist() == [
        ["i1", "1.png", "contrast (contrast 0.0100)"],
        ["i2", "2.png", "readable (cut); contrast (contrast 0.0100)"],
        ["i4", "4.png", "contrast (contrast 0.0100)"],
    ]


@pytest.mark.parametrize("n", [0, 2])
def test_nothing_rejected_is_an_empty_table(n: int) -> None:
    rejected = rejected_rows(images(n), [finding("contrast", "drop", images(n), [])])
    assert list(rejected.columns) == ["image_id", "path", "reasons"]
    assert len(rejected) == 0


def test_what_blocks_is_told_with_the_first_image_and_why() -> None:
    rows = images(4)
    table = cells(("size", "a", 3.0, "class 'a' has 3"), ("size", "b", 2.0, "class 'b' has 2"))
    settings = {"severity": "block", "min": 5}
    assert blocking(
        [
            finding("readable", "keep", rows, ["i3", "i2"], "block"), finding("contrast", "drop", rows, ["i1"], "warn"),
            finding("contrast", "keep", rows, [], "block"), cell_finding("size", settings, table, [1, 0]),
            cell_finding("size", settings, table, [1]), cell_finding("size", settings, table, []),
            cell_finding("size", {"severity": "note", "min": 5}, table, [0]),
            cell_finding("distinct", {"severity": "block"}, table, [0]),
        ]
    ) == [
        "rule readable fails: 2 image(s), the first: 2.png (cut)",
        "rule size fails: class 'a' has 3 and 1 more; at least 5 is asked for",
        "rule size fails: class 'b' has 2; at least 5 is asked for",
        "rule distinct fails: class 'a' has 3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, ""), ({"severity": "block", "max_bits": 40}, ""), ({"min": 10}, "; at least 10 is asked for"),
        ({"max": 0.2}, "; at most 0.2 is asked for"), ({"min": 8, "max": 20000}, "; at least 8 and at most 20000 is asked for"),
        ({"max": 10.0}, "; at most 10 is asked for"), ({"min": 0.0}, "; at least 0 is asked for"),
    ],
)  # fmt: skip
def test_limits_are_told_in_words(settings: dict[str, Any], words: str) -> None:
    assert limit_words(settings) == words


@pytest.mark.parametrize(
    ("failed", "passed", "blocked_by", "status"),
    [
        ([], [], [], "pass"), ([], ["block", "warn", "note"], [], "pass"), (["note"], ["warn"], [], "note"),
        (["note", "warn"], [], [], "warn"), (["warn"], ["note"], [], "warn"), (["note"], [], ["no test"], "blocked"),
        ([], [], ["no test"], "blocked"), (["warn", "block", "note"], [], ["rule x fails"], "blocked"),
    ],
)  # fmt: skip
def test_the_status_is_the_severest(failed: list[str], passed: list[str], blocked_by: list[str], status: str) -> None:
    findings = [finding("contrast", "keep", images(1), ["i0"], severity) for severity in failed]
    findings += [finding("contrast", "keep", images(1), [], severity) for severity in passed]
    assert status_of(findings, blocked_by) == status


def test_a_failed_rule_that_blocks_is_never_a_pass() -> None:
    for severity in SEVERITIES:
        findings = [finding("contrast", "keep", images(1), ["i0"], severity)]
        assert (status_of(findings, blocking(findings)) == "blocked") == (severity == "block")


def rows_of(**n: int) -> pd.DataFrame:
    """n rows per <domain>_<split>_<label>."""
    keys = np.repeat(list(n), list(n.values()))
    rows = pd.DataFrame([str(key).split("_") for key in keys], columns=["domain", "split", "label"])
    return rows.assign(origin=rows["domain"].map({"source": "ink", "target": "pen"}))


ENOUGH = {"source_train_a": 5, "source_train_b": 5, "source_val_a": 1, "target_test_a": 1, "target_unlabelled_": 1}


@pytest.mark.parametrize("change", [{}, {"target_unlabelled_": 0, "target_train_a": 1}, {"source_train_c": 1}])
def test_enough_is_no_problem(change: dict[str, int]) -> None:
    assert structure_problems(rows_of(**{**ENOUGH, **change}), n_to_label=7) == []


NO_CLASSES = "the source holds {n} class(es) to train on, at least 2 are needed"
NO_VAL = "no source image is left for validation; set validate_data.splits.source_val_share higher"
NO_TEST = (
    "no labelled target image is left for the test; label at least 7 of each class (in several groups, if you name "
    "groups), or mend the split column"
)
NO_LEARNING = "no target image is left to learn from; mend the split column or the shares"


@pytest.mark.parametrize(
    ("change", "sentences"),
    [
        ({"source_train_b": 0, "source_val_b": 2}, [NO_CLASSES.format(n=1)]),
        ({"source_train_b": 0, "source_train_": 9}, [NO_CLASSES.format(n=1)]),
        ({"source_train_b": 0, "target_train_b": 9}, [NO_CLASSES.format(n=1)]),
        ({"source_val_a": 0, "target_val_a": 2}, [NO_VAL]),
        ({"target_test_a": 0, "source_test_a": 3}, [NO_TEST]),
        ({"target_unlabelled_": 0, "target_val_a": 4}, [NO_LEARNING]),
        ({"source_val_a": 0, "target_test_a": 0}, [NO_VAL, NO_TEST]),
        (dict.fromkeys(ENOUGH, 0), [NO_CLASSES.format(n=0), NO_VAL, NO_TEST, NO_LEARNING]),
    ],
)
def test_what_no_stage_could_do_without_is_told_at_once(change: dict[str, int], sentences: list[str]) -> None:
    assert structure_problems(rows_of(**{**ENOUGH, **change}), n_to_label=7) == sentences


@pytest.mark.parametrize(
    ("rows", "sentences"),
    [
        (rows_of(target__=5, source__a=9), [NO_TEST]),
        (rows_of(target_train_a=5, target__=5), [NO_TEST]),
        (rows_of(target_unlabelled_a=5, target_val_b=5), [NO_TEST]),
        (rows_of(target_test_=5), [NO_TEST]),
        (rows_of(source_test_a=5), [NO_TEST]),
        (rows_of(target__a=1, target__=5), []),
        (rows_of(target_test_a=1, target_train_a=5), []),
    ],
)
def test_a_test_needs_labels_that_may_be_drawn_or_were_given(rows: pd.DataFrame, sentences: list[str]) -> None:
    assert problems_of_the_test(rows, n_to_label=7) == sentences


def test_cells_are_counted() -> None:
    rows = rows_of(source_train_a=2, target_test_=1)
    rows.loc[1, "origin"] = "oil"
    assert counts(rows) == [
        {"domain": "source", "origin": "ink", "split": "train", "label": "a", "n": 1},
        {"domain": "source", "origin": "oil", "split": "train", "label": "a", "n": 1},
        {"domain": "target", "origin": "pen", "split": "test", "label": "", "n": 1},
    ]
    assert counts(rows.head(0)) == []


@pytest.mark.parametrize(
    ("rows", "only_source", "only_target", "sentence"),
    [
        (
            rows_of(source__a=2, source__b=1, target__b=1, target__a=4),
            [],
            [],
            "source and target have the same 2 labels",
        ),
        (rows_of(source__a=1, source__c=1, source__b=1, target__a=1), ["b", "c"], [], "only the source has 'b', 'c'"),
        (rows_of(source__a=1, target__a=1, target__z=1), [], ["z"], "only the target has 'z'"),
        (rows_of(source__a=1, target__z=1), ["a"], ["z"], "only the source has 'a'; only the target has 'z'"),
        (rows_of(source__a=1, target__=3), ["a"], [], "the label sets can't be compared: a side has no labels"),
        (rows_of(target__a=3), [], ["a"], "the label sets can't be compared: a side has no labels"),
        (rows_of(source__=1, target__=3), [], [], ""),
        (rows_of(), [], [], ""),
        (rows_of(source__a=1, source__b=1).assign(domain=""), [], [], ""),
    ],
)
def test_label_sets_are_compared(
    rows: pd.DataFrame, only_source: list[str], only_target: list[str], sentence: str
) -> None:
    assert label_sets(rows) == {"only_in_source": only_source, "only_in_target": only_target, "sentence": sentence}
