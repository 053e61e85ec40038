"""What the rules look at, and what is said of a set that is too small."""

import numpy as np
import pandas as pd
import pytest

from tasks.core.facts import COLUMNS, NUMBERS
from tasks.core.manifest import classes_of
from tasks.core.validation import checked_columns, count_problems, counts, finding, rejected_rows

MEASURED = {"width_px": 8, "height_px": 16, "n_frames": 1, "contrast": 0.5, "format": "png", "error": ""}


def rows_of(*rows: dict[str, object]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Manifest and facts; what a row leaves out is measured, unlabelled and unique."""
    manifest, facts = [], []
    for number, row in enumerate(rows):
        own = {
            "image_id": f"i{number}",
            "path": f"{number}.png",
            "domain": "source",
            "split": "",
            "group_id": f"g{number}",
        }
        manifest.append(own | {"label": ""} | {k: v for k, v in row.items() if k in (*own, "label")})
        measured = {} if row.get("error") else MEASURED | {"pixel_hash": f"h{number}"}
        facts.append({"image_id": f"i{number}"} | measured | {k: v for k, v in row.items() if k in COLUMNS})
    table = pd.DataFrame(facts, columns=COLUMNS)
    text = {name: table[name].astype(object).fillna("").astype(str) for name in COLUMNS if name not in NUMBERS}
    return pd.DataFrame(manifest), table.assign(**text)


def test_sides_and_their_ratio() -> None:
    rows = checked_columns(*rows_of({}, {"width_px": 40, "height_px": 10}))
    assert rows[["short_side_px", "long_side_px", "aspect_ratio"]].to_numpy().tolist() == [[8, 16, 2], [10, 40, 4]]


@pytest.mark.parametrize(
    ("path", "fmt", "matches"),
    [
        ("a.png", "png", True), ("a.PNG", "png", True), ("a.jpg", "jpeg", True), ("a.jpg", "mpo", True),
        ("a.jpg", "png", False), ("a.tif", "tiff", True), ("a.pgm", "ppm", True), ("a", "png", False),
        ("a.png.jpg", "jpeg", True), ("a.gif", "gif", True),
    ],
)  # fmt: skip
def test_extensions(path: str, fmt: str, *, matches: bool) -> None:
    assert list(checked_columns(*rows_of({"path": path, "format": fmt}))["extension_matches"]) == [matches]


def test_the_first_of_equal_pixels_is_no_copy() -> None:
    rows = checked_columns(*rows_of({"pixel_hash": "x"}, {}, {"pixel_hash": "x"}, {"error": "bad"}, {"error": "bad"}))
    assert list(rows["is_copy"]) == [False, False, True, False, False]


def test_labels_and_splits_of_equal_pixels_are_counted() -> None:
    same = {"pixel_hash": "x"}
    rows = checked_columns(
        *rows_of(
            {**same, "label": "a", "split": "train"}, {**same, "label": "b", "split": "test"}, {**same}, {"label": "a"}
        )
    )
    assert list(rows["n_labels_of_pixels"]) == [2, 2, 2, 1]
    assert list(rows["n_splits_of_pixels"][:2]) == [2, 2]


def test_a_group_in_two_given_splits_is_counted_per_domain() -> None:
    target = {"domain": "target", "group_id": "g"}
    rows = checked_columns(
        *rows_of({**target, "split": "test"}, {**target, "split": "train"}, {"group_id": "g", "split": "train"})
    )
    assert list(rows["n_splits_of_group"]) == [2, 2, 1]


def test_training_with_and_without_label_is_no_leak() -> None:
    """Both are learnt from: a person may label half of a writer's images."""
    target = {"domain": "target", "group_id": "g"}
    rows = checked_columns(*rows_of({**target, "split": "train", "label": "a"}, {**target, "split": "unlabelled"}))
    assert list(rows["n_splits_of_group"]) == [1, 1]


def test_an_image_without_facts_was_never_measured() -> None:
    manifest, facts = rows_of({}, {})
    assert list(checked_columns(manifest, facts.head(1))["error"]) == ["", "never measured"]


def test_nothing_readable_is_no_crash() -> None:
    rows = checked_columns(*rows_of({"error": "bad"}, {"error": "bad"}))
    assert not rows["is_copy"].any()
    assert rows["short_side_px"].isna().all()


def test_rejected_are_those_of_dropping_rules_with_all_their_reasons() -> None:
    rows = checked_columns(*rows_of({}, {}, {"error": "cut"}, {}))
    findings = [
        finding("readable", "drop", rows, ["i2"]), finding("side_px", "drop", rows, ["i1", "i1", "i2"]),
        finding("contrast", "warn", rows, ["i0"]), finding("known_label", "block", rows, ["i3"]),
    ]  # fmt: skip
    assert [found["n_failed"] for found in findings] == [1, 2, 1, 1]
    assert rejected_rows(rows, findings).to_numpy().tolist() == [
        ["i1", "1.png", "side_px"],
        ["i2", "2.png", "readable; side_px (cut)"],
    ]


def test_nothing_rejected_is_an_empty_table() -> None:
    rows = checked_columns(*rows_of({}))
    assert list(rejected_rows(rows, []).columns) == ["image_id", "path", "reasons"]


def split_rows(**n: int) -> pd.DataFrame:
    """n rows per <domain>_<split>_<label>."""
    keys = np.repeat(list(n), list(n.values()))
    return pd.DataFrame([key.split("_") for key in keys], columns=["domain", "split", "label"])


ENOUGH = {"source_train_a": 5, "source_train_b": 5, "source_val_a": 1, "target_test_a": 1, "target_unlabelled_": 1}


def test_enough_is_no_problem() -> None:
    assert count_problems(split_rows(**ENOUGH), ["a", "b"], 5) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"source_train_a": 4}, "class 'a' has 4 readable source training images, at least 5 are needed"),
        ({"source_train_b": 0, "source_val_b": 2}, "class 'b' has 0 readable source training images"),
        ({"source_train_b": 0}, "the source holds 1 class(es), at least 2 are needed"),
        ({"source_val_a": 0}, "no source image is left for validation"),
        ({"target_test_a": 0}, "no labelled target image is left for the test"),
        ({"target_unlabelled_": 0}, "no target image is left to learn from"),
    ],
)
def test_what_is_too_little_is_told(change: dict[str, int], sentence: str) -> None:
    rows = split_rows(**{**ENOUGH, **change})
    problems = count_problems(rows, classes_of(rows), 5)
    assert len(problems) == 1
    assert problems[0].startswith(sentence)


def test_a_class_of_which_every_image_was_rejected_is_told() -> None:
    problems = count_problems(split_rows(**ENOUGH), ["a", "b", "c"], 5)
    assert problems == ["class 'c' has 0 readable source training images, at least 5 are needed"]


def test_nothing_at_all_is_told_too() -> None:
    assert len(count_problems(split_rows(**dict.fromkeys(ENOUGH, 0)), [], 5)) == 4


def test_cells_are_counted() -> None:
    assert counts(split_rows(source_train_a=2, target_test_=1)) == [
        {"domain": "source", "split": "train", "label": "a", "n": 2},
        {"domain": "target", "split": "test", "label": "", "n": 1},
    ]
