"""The audit's table: codes, missing attributes, clusters, intersections, thirds."""

import numpy as np
import pandas as pd
import pytest

from tasks.core.bias.table import (
    ALL_IMAGES,
    NOT_KNOWN,
    AuditTable,
    grouping_of,
    table_of,
    with_intersections,
    with_slices,
)

ROWS = pd.DataFrame({
    "y_true": ["cat", "dog", "cat", "dog"],
    "y_pred": ["cat", "cat", "cat", "emu"],
    "p_cat": [0.9, 0.6, np.nan, 0.2],
    "p_fox": [0.1, 0.4, np.nan, 0.8],
    "site": ["b", "a", "", "b"],
    "sex": ["f", None, "m", "f"],
})  # fmt: skip


def words(table: AuditTable, column: str) -> list[str]:
    grouping = table.columns[column]
    return [grouping.names[code] for code in grouping.codes_N]


def test_codes_stand_for_all_classes_that_anything_names() -> None:
    baseline = pd.DataFrame({"y_pred": ["gnu", "cat", "cat", "dog"]})
    table = table_of(ROWS, columns=["site"], baselines={"old": baseline})
    assert table.classes == ("cat", "dog", "emu", "fox", "gnu")
    assert table.y_true_N.tolist() == [0, 1, 0, 1]
    assert table.y_pred_N.tolist() == [0, 0, 0, 2]
    assert table.baselines["old"].tolist() == [4, 0, 0, 1]
    assert table.probs_NC is not None
    assert table.probs_NC[:, [0, 3]] == pytest.approx(ROWS[["p_cat", "p_fox"]].to_numpy(), nan_ok=True)
    assert table.image_ids_N is None
    assert table.clusters_N is None


@pytest.mark.parametrize("missing", ["", None, np.nan])
def test_a_missing_attribute_is_a_group(missing: object) -> None:
    rows = ROWS.assign(site=pd.Series(["b", "a", missing, "b"], dtype=object))
    assert words(table_of(rows, columns=["site"]), "site") == ["b", "a", NOT_KNOWN, "b"]


def test_names_are_kept_as_they_are_written() -> None:
    odd = ["<script>alert(1)</script>", "مجموعة", "a × b", "1"]
    assert words(table_of(ROWS.assign(site=odd), columns=["site"]), "site") == odd
    assert words(table_of(ROWS.assign(site=[1, 2, 1, 2]), columns=["site"]), "site") == ["1", "2", "1", "2"]


def test_an_absent_column_is_left_out_and_named_when_asked_for() -> None:
    table = table_of(ROWS, columns=["site", "slant"])
    assert list(table.columns) == ["site"]
    with pytest.raises(ValueError, match="no audit column 'slant'; it has site"):
        grouping_of(table, "slant")
    assert grouping_of(table, "").names == (ALL_IMAGES,)


def test_an_image_without_group_id_is_a_cluster_of_its_own() -> None:
    clusters = table_of(ROWS.assign(group_id=["w1", "", "w1", None]), columns=[]).clusters_N
    assert clusters is not None
    assert clusters[0] == clusters[2]
    assert len(set(clusters.tolist())) == 3


@pytest.mark.parametrize("group_ids", [["", "", "", ""], ["a", "b", "c", "d"], [None] * 4])
def test_clusters_of_one_image_are_no_clusters(group_ids: list[str | None]) -> None:
    assert table_of(ROWS.assign(group_id=group_ids), columns=[]).clusters_N is None


def test_intersections_keep_cells_that_are_not_known() -> None:
    table = with_intersections(table_of(ROWS.assign(age="old"), columns=["site", "sex", "age"]), 2)
    assert list(table.columns) == ["site", "sex", "age", "site × sex", "site × age", "sex × age"]
    assert words(table, "site × sex") == ["b × f", f"a × {NOT_KNOWN}", f"{NOT_KNOWN} × m", "b × f"]
    assert (
        "site × sex × age"
        in with_intersections(table_of(ROWS.assign(age="old"), columns=["site", "sex", "age"]), 3).columns
    )
    assert list(with_intersections(table_of(ROWS, columns=["site", "sex"]), 1).columns) == ["site", "sex"]


def test_facts_are_cut_into_thirds() -> None:
    rows = pd.concat([ROWS] * 2, ignore_index=True).iloc[:7]
    values = {"brightness": np.array([1.0, 2, 3, 4, 5, 6, np.nan])}
    table = with_slices(table_of(rows, columns=[]), values, ["brightness", "ink"])
    assert list(table.columns) == ["brightness (thirds)"]
    cuts = np.quantile(values["brightness"][:6], [1 / 3, 2 / 3])  # 2.667 and 4.333
    low, middle, high = f"low (below {cuts[0]:.4g})", "middle (2.667 to 4.333)", "high (4.333 and above)"
    assert words(table, "brightness (thirds)") == [low, low, middle, middle, high, high, NOT_KNOWN]
    assert table.columns["brightness (thirds)"].names == (low, middle, high, NOT_KNOWN)


def test_facts_that_are_all_equal_or_all_absent_make_one_group() -> None:
    values = {"same": np.ones(4), "none": np.full(4, np.nan)}
    table = with_slices(table_of(ROWS, columns=[]), values, ["same", "none"])
    assert [len(grouping.names) for grouping in table.columns.values()] == [1, 1]
    assert table.columns["none (thirds)"].names == (NOT_KNOWN,)


def test_an_empty_table_is_no_accident() -> None:
    table = with_intersections(table_of(ROWS.iloc[:0].assign(group_id=""), columns=["site", "sex"]), 2)
    assert [grouping.names for grouping in table.columns.values()] == [(), (), ()]


@pytest.mark.parametrize(
    ("rows", "baseline", "problem"),
    [
        (ROWS.assign(y_pred=["cat", "", None, "dog"]), None, "2 of 4 rows have no y_pred"),
        (ROWS, ROWS.iloc[:3], "baseline old has 3 rows, the predictions have 4"),
        (ROWS, ROWS.assign(y_true="cat"), "baseline old differs from the predictions in y_true"),
        (ROWS.assign(image_id=list("abcd")), ROWS.assign(image_id=list("abdc")), "differs from the predictions in image_id"),
        (ROWS, ROWS.assign(y_pred=""), "baseline old has rows without y_pred"),
    ],
)  # fmt: skip
def test_what_cannot_be_audited_is_refused(rows: pd.DataFrame, baseline: pd.DataFrame | None, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        table_of(rows, columns=["site"], baselines={} if baseline is None else {"old": baseline})
