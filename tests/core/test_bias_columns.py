"""What the page says of columns and draws: where each comes from, what a person wrote, what nobody did."""

from typing import Any

from made_audit import audited, predictions

from tasks.core.bias_columns import FACTS, NOT_EXPLAINED, Origin, column_words, draws_words
from tasks.core.facts import NUMBERS

VERDICT: dict[str, Any] = {
    "n": 600,
    "columns": ["site", "age", "site × age", "brightness (thirds)", "made_up (thirds)"],
}


def sampling(unit: str, n_clusters: int | None) -> dict[str, Any]:
    is_limiting = unit == "image" and n_clusters is not None
    return {"unit": unit, "n_clusters": n_clusters, "is_limiting": is_limiting, "sentence": "-"}


def test_each_column_has_its_origin_and_what_a_person_wrote() -> None:
    explained = {"site": "Hospital, from the order form", "brightness": "Lamps differ.", "group_id": "One patient."}
    told = dict(column_words(VERDICT, Origin("eyes.csv", "Column of eyes.csv.", 1234, explained)))
    assert list(told) == ["site", "age", "a × b", "brightness (thirds)", "made_up (thirds)", "group_id"]
    assert told["site"] == "Column of eyes.csv. Hospital, from the order form."
    assert told["age"] == f"Column of eyes.csv. {NOT_EXPLAINED}"
    assert told["brightness (thirds)"] == (
        "Measured on each image (mean grey value, 0 dark to 1 bright) and cut into three groups of equal size. Lamps differ."
    )
    assert told["made_up (thirds)"] == "Measured on each image and cut into three groups of equal size."
    assert told["group_id"] == "Column of eyes.csv. One patient. These 600 images hold 1,234 of them."


def test_a_table_without_group_id_is_said_to_have_none() -> None:
    told = dict(column_words(VERDICT | {"columns": ["site"]}, Origin("eyes.csv")))
    assert list(told) == ["site", "group_id"]
    assert told["group_id"].startswith("There is no such column")


def test_every_measured_number_is_explained() -> None:
    assert set(FACTS) == set(NUMBERS)


def test_columns_of_one_kind_share_a_sentence() -> None:
    found = {"site": sampling("group", 12), "age": sampling("image", 3), "light": sampling("image", 1)}
    allowed, limited = draws_words(found, Origin(together="Column of eyes.csv."))
    assert allowed.startswith("The intervals of site (12) allow for images of one group_id being alike.")
    assert limited.startswith(
        "The intervals of age (3), light (1) take each image as drawn by itself and may be too narrow"
    )
    assert "fewer than 10 group_ids" in limited


def test_without_shared_group_ids_nothing_is_repeated() -> None:
    alone = {"site": sampling("image", None), "age": sampling("image", None)}
    assert draws_words(alone, Origin(together="Column of eyes.csv.")) == [
        "No two images share a group_id, so the intervals take each image as drawn by itself."
    ]
    assert draws_words(alone, Origin()) == []
    assert draws_words({}, Origin(together="Column of eyes.csv.")) == []


def test_a_real_audit_has_words_for_all_its_columns() -> None:
    facts = audited(predictions({"A": (30, 30, 40), "B": (20, 20, 30)}).assign(light=["dark", "bright"] * 35))
    assert [name for name, _ in column_words(facts.verdict, facts.origin)] == ["site", "light", "a × b", "group_id"]
