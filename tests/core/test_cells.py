"""Rules on the set as a whole: every cell of small hand-made sets, with and without roles, labels or images."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.core.cells import COLUMNS, WholeSet, cells_of, coverage, shifts_of
from tasks.core.drift import PROPERTIES, profile_of
from tasks.core.manifest import classes_of

NEVER = {"format": 1, "n_images": 0, "origins": {}, "groups": {}}
RULES = {
    "distinct_labels", "same_label_set", "source_class_size", "class_in_every_split", "class_balance", "unlabelled_share",
    "rejected_share", "group_coverage", "source_to_target", "like_accepted",
}  # fmt: skip


def rows_of(**n: int) -> pd.DataFrame:
    """n rows per <domain>_<split>_<label>; "all" is the domain of sets without roles. Properties 0, 1, 2…"""
    keys = np.repeat(list(n), list(n.values()))
    rows = pd.DataFrame([str(key).split("_") for key in keys], columns=["domain", "split", "label"])
    rows["domain"] = rows["domain"].replace("all", "")
    rows["origin"] = rows["domain"].map({"source": "ink", "target": "pen", "": ""})
    rows["image_id"] = [f"i{k:03d}" for k in range(len(rows))]
    for name in PROPERTIES:
        rows[name] = np.arange(len(rows), dtype=float)
    return rows


def whole_of(rows: pd.DataFrame, accepted: pd.DataFrame | None = None, before: pd.DataFrame | None = None) -> WholeSet:
    kept = rows if accepted is None else accepted
    past = NEVER if before is None else profile_of(before)
    return WholeSet(rows, kept, len(rows) - len(kept), classes_of(rows), past, profile_of(kept), 0.95)


def cells(rule: str, *of: Any) -> dict[str, float]:
    """cell → value of one rule."""
    table = cells_of(whole_of(*of))
    assert list(table.columns) == COLUMNS
    assert set(table["rule"]) <= RULES
    assert table["value"].notna().all()
    own = table[table["rule"] == rule]
    assert own["cell"].is_unique
    return dict(zip(own["cell"], own["value"], strict=True))


def why(rule: str, *of: Any) -> list[str]:
    table = cells_of(whole_of(*of))
    return table.loc[table["rule"] == rule, "why"].tolist()


FULL = {
    "source_train_a": 12, "source_train_b": 4, "source_val_a": 3, "source_val_b": 1, "target_train_a": 2,
    "target_unlabelled_": 6, "target_val_a": 2, "target_val_b": 1, "target_guard_b": 1, "target_test_a": 3,
}  # fmt: skip


@pytest.mark.parametrize(
    "rows",
    [
        rows_of(), rows_of(all__=5), rows_of(source__=3, target__=3), rows_of(source_train_a=1), rows_of(target_test_a=1),
        rows_of(all__a=1), rows_of(target_unlabelled_=2),
    ],
)  # fmt: skip
def test_sets_with_little_in_them_are_no_crash(rows: pd.DataFrame) -> None:
    for accepted in (rows, rows.head(0)):
        table = cells_of(whole_of(rows, accepted))
        assert list(table.columns) == COLUMNS
        assert table["value"].dtype == float


def test_nothing_at_all_has_no_cells() -> None:
    assert len(cells_of(whole_of(rows_of()))) == 0
    assert shifts_of(whole_of(rows_of())) == []


def test_every_rule_has_cells_in_a_full_set() -> None:
    rows = rows_of(**FULL).assign(audit_hand="left")
    table = cells_of(whole_of(rows, rows, rows))
    assert set(table["rule"]) == RULES
    assert not table.duplicated(["rule", "cell"]).any()
    assert (table["why"] != "").all()


def test_labels_that_differ_only_in_case_or_blanks_share_a_cell() -> None:
    rows = rows_of(all__x=5).assign(label=["Cat", "cat ", "dog", "", "sea  lion"])
    assert cells("distinct_labels", rows) == {"'Cat', 'cat '": 2, "'dog'": 1, "'sea  lion'": 1}
    assert why("distinct_labels", rows)[0] == "labels 'Cat', 'cat ' differ only in case or blanks"


@pytest.mark.parametrize("alike", [["Straße", "STRASSE"], ["sea lion", " Sea\tLion"], ["x", "X", " x "]])
def test_labels_alike_in_any_alphabet(alike: list[str]) -> None:
    rows = rows_of(all__x=len(alike)).assign(label=alike)
    assert list(cells("distinct_labels", rows).values()) == [len(alike)]


def test_labels_of_images_that_are_rejected_count_as_labels() -> None:
    rows = rows_of(source_train_a=1, source_train_A=1)
    assert cells("distinct_labels", rows, rows.head(1)) == {"'A', 'a'": 2}


def test_every_source_class_is_counted_among_the_targets_labels() -> None:
    rows = rows_of(source_train_a=2, source_train_b=1, target_test_a=3, target_train_z=1, target_unlabelled_=5)
    assert cells("same_label_set", rows) == {"class 'a'": 3, "class 'b'": 0}
    assert why("same_label_set", rows)[1] == "class 'b' has 0 labelled target image(s)"


@pytest.mark.parametrize(
    "rows", [rows_of(source_train_a=2, target_unlabelled_=5), rows_of(source_train_a=2), rows_of(all__a=4)]
)
def test_without_target_labels_no_class_is_missing_there(rows: pd.DataFrame) -> None:
    assert cells("same_label_set", rows) == {}


def test_source_classes_are_counted_in_training_alone_and_with_those_rejected_left_out() -> None:
    rows = rows_of(
        source_train_a=3, source_val_a=9, source_train_b=2, source_val_c=1, target_train_a=5, source_train_=4
    )
    assert cells("source_class_size", rows) == {"class 'a'": 3, "class 'b'": 2, "class 'c'": 0}
    assert cells("source_class_size", rows, rows[rows["label"] != "b"])["class 'b'"] == 0
    assert cells("source_class_size", rows, rows.head(0)) == {"class 'a'": 0, "class 'b'": 0, "class 'c'": 0}
    assert why("source_class_size", rows)[0] == "class 'a' has 3 readable source training image(s)"


def test_outside_the_pipeline_source_images_without_a_split_are_trained_on() -> None:
    assert cells("source_class_size", rows_of(source__a=3, source__b=1, target__a=9)) == {
        "class 'a'": 3,
        "class 'b'": 1,
    }


def test_sets_without_roles_have_no_source_classes() -> None:
    assert cells("source_class_size", rows_of(all_train_a=3)) == {}


def test_a_class_is_looked_for_in_every_split_that_there_is() -> None:
    rows = rows_of(**FULL)
    assert cells("class_in_every_split", rows) == {
        "source train, class 'a'": 12, "source train, class 'b'": 4, "source val, class 'a'": 3, "source val, class 'b'": 1,
        "target val, class 'a'": 2, "target val, class 'b'": 1, "target test, class 'a'": 3, "target test, class 'b'": 0,
    }  # fmt: skip
    assert why("class_in_every_split", rows)[-1] == "0 image(s) of class 'b' in target test"


def test_splits_of_sets_without_roles_are_looked_at_too() -> None:
    rows = rows_of(all_train_a=2, all_train_b=1, all_test_a=1, all__c=5)
    assert cells("class_in_every_split", rows) == {
        "train, class 'a'": 2, "train, class 'b'": 1, "test, class 'a'": 1, "test, class 'b'": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    "rows", [rows_of(all__a=3), rows_of(all_train_=3), rows_of(target_train_a=3), rows_of(target_test_=2)]
)
def test_without_splits_or_labels_no_class_is_missing_from_a_split(rows: pd.DataFrame) -> None:
    assert cells("class_in_every_split", rows) == {}


def test_balance_is_the_largest_by_the_smallest_class_of_a_domain() -> None:
    rows = rows_of(source_train_a=12, source_train_b=4, source_train_=99, target_test_a=5)
    assert cells("class_balance", rows) == {"ink": 3, "pen": 1}
    assert why("class_balance", rows)[0] == "class 'a' has 12 images, class 'b' 4: 3.0 times"
    assert cells("class_balance", rows_of(all__a=3, all__b=2)) == {"all images": 1.5}
    assert cells("class_balance", rows_of(all__=3)) == {}


def test_two_sources_are_balanced_each_for_itself() -> None:
    rows = rows_of(source_train_a=6, source_train_b=6)
    rows["origin"] = ["ink"] * 5 + ["oil"] + ["ink"] + ["oil"] * 5
    assert cells("class_balance", rows) == {"ink": 5, "oil": 5}


def test_unlabelled_images_are_counted_in_the_target_alone() -> None:
    rows = rows_of(source_train_a=7, source_train_=2, target_train_a=1, target_unlabelled_=3)
    assert cells("unlabelled_share", rows) == {"target images": 0.75}
    assert why("unlabelled_share", rows) == ["3 of 4 images carry no label"]


def test_unlabelled_images_of_sets_without_roles() -> None:
    assert cells("unlabelled_share", rows_of(all__a=1, all__=4)) == {"all images": 0.8}
    assert cells("unlabelled_share", rows_of(all__=4)) == {}, "a set of pictures alone is not asked for labels"
    assert cells("unlabelled_share", rows_of(source_train_a=4)) == {}, "there is no target"


def test_rejected_images_are_counted() -> None:
    rows = rows_of(all__a=8)
    assert cells("rejected_share", rows, rows.head(6)) == {"all images": 0.25}
    assert why("rejected_share", rows, rows.head(6)) == ["2 of 8 images are rejected"]
    assert cells("rejected_share", rows) == {"all images": 0}


def test_coverage_counts_every_group_and_class() -> None:
    rows = rows_of(source_train_a=4, source_train_b=4, target_train_a=3, target_test_z=1, target_unlabelled_=2)
    rows["audit_hand"] = ["left"] * 8 + ["left", "right", "", "right", "both", "both"]
    found = {(cell["group"], cell["label"]): cell["n"] for cell in coverage(rows, classes_of(rows))}
    assert found == {
        ("", "a"): 1, ("", "b"): 0, ("", "z"): 0, ("left", "a"): 1, ("left", "b"): 0, ("left", "z"): 0,
        ("right", "a"): 1, ("right", "b"): 0, ("right", "z"): 1,
    }  # fmt: skip
    assert {cell["column"] for cell in coverage(rows, classes_of(rows))} == {"hand"}
    assert cells("group_coverage", rows)["hand (not given) x class 'a'"] == 1
    assert cells("group_coverage", rows)["hand 'right' x class 'b'"] == 0
    assert why("group_coverage", rows)[0] == "hand (not given) x class 'a': 1 image(s)"


def test_coverage_of_a_set_without_roles_is_that_of_all_images() -> None:
    rows = rows_of(all__a=3, all__b=1).assign(audit_hand=["left", "left", "right", "left"], audit_x="one")
    assert [(cell["column"], cell["group"], cell["label"], cell["n"]) for cell in coverage(rows, [])] == [
        ("hand", "left", "a", 2), ("hand", "left", "b", 1), ("hand", "right", "a", 1), ("hand", "right", "b", 0),
        ("x", "one", "a", 3), ("x", "one", "b", 1),
    ]  # fmt: skip


def test_without_audit_columns_or_labels_there_is_nothing_to_cover() -> None:
    assert coverage(rows_of(target_test_a=3), ["a"]) == []
    assert coverage(rows_of(target_unlabelled_=3).assign(audit_hand="left"), ["a"]) == []


def test_the_shift_from_source_to_target_is_its_smallest_likely_size() -> None:
    """Rows are numbered through, so all target values are above the source's: -> (10 - z²) / (10 + z²) = 0.4449."""
    rows = rows_of(source_train_a=10, target_test_a=12).assign(contrast=0.5, entropy=np.nan)
    found = cells("source_to_target", rows)
    assert found["side_px, ink → pen"] == pytest.approx(0.4449, abs=1e-4)
    assert found["contrast, ink → pen"] == 0
    assert "entropy, ink → pen" not in found, "what was not measured is not compared"
    words = "side_px, ink → pen: effect +1.00 (+0.44 to +1.00), 4.5 → 15.5"
    assert words in why("source_to_target", rows)


def test_domains_without_roles_are_compared_with_the_largest() -> None:
    rows = rows_of(all__a=12).assign(origin=["x"] * 3 + ["y"] * 9)
    assert set(cells("source_to_target", rows)) == {f"{name}, y → x" for name in PROPERTIES}
    assert cells("source_to_target", rows_of(all__a=12)) == {}


def test_nothing_is_compared_with_data_that_was_never_accepted() -> None:
    rows = rows_of(**FULL)
    assert cells("like_accepted", rows) == {}
    assert {shift["rule"] for shift in shifts_of(whole_of(rows))} == {"source_to_target"}


def test_the_data_is_compared_with_the_accepted_one() -> None:
    before = rows_of(all__a=6, all__b=6)
    rows = rows_of(all__a=6, all__c=6).assign(brightness=100.0)
    found = cells("like_accepted", rows, rows, before)
    assert found["class 'b' of all images is gone (6 images before)"] == 1
    assert found["class 'c' of all images is new (6 images)"] == 1
    assert found["brightness, all images, accepted → all images, now"] == pytest.approx(0.5150, abs=1e-4)
    assert found["contrast, all images, accepted → all images, now"] == 0
    assert found["share of class 'a', all images, accepted → all images, now"] == 0
    assert len(found) == len(PROPERTIES) + 3


def test_every_shift_stands_with_the_rule_that_looks_at_it() -> None:
    rows = rows_of(**FULL)
    found = shifts_of(whole_of(rows, rows, rows))
    assert {(shift["rule"], shift["from"], shift["to"]) for shift in found} == {
        ("source_to_target", "ink", "pen"),
        ("like_accepted", "ink, accepted", "ink, now"),
        ("like_accepted", "pen, accepted", "pen, now"),
    }
    assert all(shift["effect"] == pytest.approx(0, abs=1e-9) for shift in found if shift["rule"] == "like_accepted")
