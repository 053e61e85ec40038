"""What the page picks of many rows: the findings it begins with, and which rows of a long table are shown."""

from typing import Any

import pandas as pd
import pytest

from tasks.core.bias_tables import class_tables, group_tables, worst_findings
from tasks.core.bias_words import found_words, picked_words

NO_CLASSES = pd.DataFrame(columns=["column", "group", "class", "recall_high"])


def groups(*rows: tuple[str, str, float, float, str]) -> pd.DataFrame:
    """(column, group, gap, its upper end, its mark); the lower end lies as far on the other side."""
    return pd.DataFrame([
        {"column": column, "group": group, "n": 50, "share": 0.1, "is_masked": False, "accuracy": 0.8, "gap": gap,
         "gap_low": 2 * gap - high, "gap_high": high, "gap_mark": mark}
        for column, group, gap, high, mark in rows
    ])  # fmt: skip


def cells(*rows: tuple[str, str, str, float | None, float | None]) -> pd.DataFrame:
    """(column, group, class, recall, its upper end)."""
    names = ["column", "group", "class", "recall", "recall_high"]
    found = pd.DataFrame(rows, columns=names).astype({"recall": float, "recall_high": float})
    return found.assign(recall_low=0.1, n_true=30, precision=float("nan"))


def picked(by_group: pd.DataFrame, by_class: pd.DataFrame = NO_CLASSES) -> dict[str, tuple[int, int, list[Any]]]:
    found = worst_findings(by_group, by_class, 0.9)
    return {one["kind"]: (one["n_judged"], one["n_worse"], [row["group"] for row in one["rows"]]) for one in found}


def test_the_surest_finding_comes_first_not_the_largest_gap() -> None:
    table = groups(
        ("site", "tiny", -0.3, -0.01, "worse"), ("site", "sure", -0.1, -0.08, "worse"), ("site", "good", 0.1, 0.2, "better"),
        ("site", "nan", float("nan"), float("nan"), ""),
    )  # fmt: skip
    assert picked(table) == {"groups": (3, 2, ["sure", "tiny"])}


def test_groups_intersections_and_slices_are_picked_apart() -> None:
    table = groups(
        ("site", "A", -0.1, -0.05, ""), ("site", "B", 0.1, 0.15, ""), ("site × age", "A × old", -0.2, -0.1, "worse"),
        ("light (thirds)", "low", 0.0, 0.1, ""),
    )  # fmt: skip
    assert picked(table) == {"groups": (2, 0, ["A"]), "crossed": (1, 1, ["A × old"]), "slices": (1, 0, ["low"])}


def test_at_most_three_of_a_kind_are_named() -> None:
    table = groups(*(("site", f"g{k}", -0.2, -0.1 - k / 100, "worse") for k in range(6)))
    assert picked(table) == {"groups": (6, 6, ["g5", "g4", "g3"])}


def test_recalls_wholly_below_the_accuracy_are_told_for_plain_columns() -> None:
    table = cells(
        ("site", "A", "cat", 0.5, 0.6), ("site", "B", "cat", 0.85, 0.95), ("site", "C", "dog", None, None),
        ("site × age", "A × old", "cat", 0.1, 0.2), ("light (thirds)", "low", "cat", 0.1, 0.2),
    )  # fmt: skip
    assert picked(groups().reindex(columns=["column"]), table) == {"classes": (2, 1, ["A"])}


def test_a_table_without_groups_has_no_finding() -> None:
    assert worst_findings(pd.DataFrame(columns=["column", "group", "n"]), NO_CLASSES, None) == []


@pytest.mark.parametrize(
    ("kind", "n_worse", "words"),
    [
        (
            "groups",
            0,
            "of 1,200, none is shown to be worse than all other images; the largest gap, which chance may explain",
        ),
        ("groups", 1, "of 1,200, 1 is worse than all other images beyond what chance explains"),
        ("crossed", 2, "of 1,200, 2 are worse than all other images beyond what chance explains"),
        ("classes", 1, "of 1,200 recalls, 1 lies wholly below the accuracy over all, each by itself"),
        ("classes", 0, "of 1,200 recalls, 0 lie wholly below the accuracy over all, each by itself"),
    ],
)
def test_a_finding_tells_out_of_how_many(kind: str, n_worse: int, words: str) -> None:
    assert picked_words({"kind": kind, "n_judged": 1200, "n_worse": n_worse}) == words


def test_a_finding_is_one_line_with_interval_and_n() -> None:
    (row,) = groups(("site", "A", -0.1, -0.04, "")).to_dict("records")
    assert found_words(row) == "accuracy 80.0 %, 10.0 points below all other images (−16.0 to −4.0), n = 50"
    (row,) = cells(("site", "A", "cat", 0.5, 0.6)).to_dict("records")
    assert found_words(row) == "recall 50.0 % (10.0 to 60.0), n = 30"


def test_cells_too_small_for_any_rate_are_counted_not_listed() -> None:
    table = cells(("site", "A", "cat", 0.5, 0.6), ("site", "A", "dog", None, None))
    (found,) = class_tables(table)
    assert ([row["class"] for row in found["rows"]], found["n_small"], found["n_more"]) == (["cat"], 1, 0)


def test_of_many_groups_the_worst_are_shown_column_by_column() -> None:
    rows = [(f"c{k % 2}", f"g{k}", k / 100, 0.9, "") for k in range(70)]
    found = group_tables(groups(*rows), [])["groups"]
    assert found["n_more"] == 10
    assert [row["group"] for row in found["rows"]] == [f"g{k}" for k in (*range(0, 60, 2), *range(1, 60, 2))]
