"""Composition and representation gaps on a table of twelve images, by hand and against scipy."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import entropy

from tasks.core.bias.composition import COMPOSITION, GAPS, composition, gaps


def rows() -> pd.DataFrame:
    """Training: site a 6 images (4 cat, 2 dog), site b 2 (1 cat, 1 dog); test: a 1, "" 1; unlabelled: b 2."""
    cells = [
        ("source", "train", "cat", "a", 4), ("target", "train", "dog", "a", 2), ("source", "train", "cat", "b", 1),
        ("target", "train", "dog", "b", 1), ("target", "test", "cat", "a", 1), ("target", "test", "dog", "", 1),
        ("target", "unlabelled", "", "b", 2),
    ]  # fmt: skip
    flat = [cell[:4] for cell in cells for _ in range(cell[4])]
    return pd.DataFrame(flat, columns=["domain", "split", "label", "site"])


def gap_table(table: pd.DataFrame) -> pd.DataFrame:
    return gaps(composition(table, ["site"])).set_index("group")


def test_every_image_is_counted_once_per_column() -> None:
    composed = composition(rows(), ["site"])
    assert list(composed) == COMPOSITION
    assert composed["n"].sum() == 12
    cell = composed[(composed["group"] == "a") & (composed["domain"] == "source")].iloc[0]
    assert (cell["split"], cell["label"], cell["n"]) == ("train", "cat", 4)


@pytest.mark.parametrize("missing", ["", None, np.nan])
def test_a_missing_attribute_is_a_group_of_its_own(missing: object) -> None:
    table = rows()
    table["site"] = table["site"].astype(object).mask(table["site"] == "", missing)
    composed = composition(table, ["site"])
    assert composed.loc[composed["group"] == "(not known)", "n"].tolist() == [1]


def test_an_absent_column_has_no_row() -> None:
    assert composition(rows(), ["age"]).empty
    assert list(gaps(composition(rows(), ["age"]))) == GAPS


def test_shares_and_imbalance() -> None:
    table = gap_table(rows())
    assert table["n"].to_dict() == {"(not known)": 1, "a": 7, "b": 4}
    assert table["share_train"].to_dict() == pytest.approx({"(not known)": 0, "a": 6 / 8, "b": 2 / 8})
    assert table["share_test"].to_dict() == pytest.approx({"(not known)": 0.5, "a": 0.5, "b": 0})
    # (rest - group) / all in training: (2 - 6) / 8, (6 - 2) / 8, (8 - 0) / 8
    assert table["imbalance"].to_dict() == pytest.approx({"(not known)": 1, "a": -0.5, "b": 0.5})


def test_label_differences_to_the_rest_of_training() -> None:
    table = gap_table(rows())
    # a: cat 4/6, dog 2/6; rest (b): 1/2, 1/2
    assert table.loc["a", "label_distance"] == pytest.approx(1 / 6)
    assert table.loc["a", "label_kl"] == pytest.approx(entropy([4, 2], [1, 1]))
    assert table.loc["b", "label_kl"] == pytest.approx(entropy([1, 1], [4, 2]))
    assert table.loc["a", "class_imbalance"] == pytest.approx((4 - 2) / 6)
    assert table.loc["b", "class_imbalance"] == 0


def test_a_group_without_labelled_training_images_has_no_label_measures() -> None:
    measures = gap_table(rows()).loc["(not known)", ["class_imbalance", "label_distance", "label_kl"]]
    assert measures.isna().all()


def test_a_class_that_only_one_group_has_is_infinitely_far() -> None:
    table = rows()
    table.loc[(table["site"] == "a") & (table["split"] == "train") & (table["label"] == "dog"), "label"] = "fox"
    assert table["label"].eq("fox").sum() == 2
    found = gap_table(table)
    assert math.isinf(found.loc["a", "label_kl"])
    assert found.loc["a", "label_distance"] == pytest.approx((abs(4 / 6 - 1 / 2) + 2 / 6 + 1 / 2) / 2)


def test_one_group_alone_has_no_rest() -> None:
    table = rows().assign(site="a")
    found = gap_table(table).loc["a"]
    assert found["imbalance"] == -1
    assert math.isnan(found["label_distance"])


def test_no_training_image_leaves_shares_unmeasured() -> None:
    found = gap_table(rows().query("split == 'test'"))
    assert found["share_train"].isna().all()
    assert found["share_test"].sum() == 1


def test_names_with_markup_and_right_to_left_text_stay_as_they_are() -> None:
    table = rows()
    table["site"] = table["site"].replace({"a": "<script>alert(1)</script>", "b": "עברית"})
    assert set(composition(table, ["site"])["group"]) == {"(not known)", "<script>alert(1)</script>", "עברית"}


def test_ten_thousand_groups() -> None:
    n = 30_000
    table = pd.DataFrame({
        "domain": "target", "split": "train", "label": [f"c{k % 10}" for k in range(n)],
        "site": [f"g{k % 10_000}" for k in range(n)],
    })  # fmt: skip
    found = gaps(composition(table, ["site"]))
    assert len(found) == 10_000
    assert found["share_train"].sum() == pytest.approx(1)
