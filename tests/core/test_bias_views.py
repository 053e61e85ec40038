"""The views for two laws: impact ratios by hand, and headings that lead somewhere."""

import pandas as pd
import pytest
from made_audit import audited, of_sites, pipeline_run

from tasks.core.bias.rules import Rule
from tasks.core.bias_page import render
from tasks.core.bias_views import MAX_CLASSES, annex_iv, impact_ratios

SELECT = Rule("called alike", "selection_rate:yes", "sex", "four_fifths", "highest", 0.8, False)
HIRE = {"metric": "selection_rate:yes"}


def tables(
    groups: dict[str, tuple[int, float, bool]], rates: dict[str, dict[str, float]]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """groups: (n, share, is masked); rates: selection rate by group and class."""
    by_group = pd.DataFrame([
        {"column": "sex", "group": name, "n": n, "share": share, "is_masked": masked}
        for name, (n, share, masked) in groups.items()
    ])  # fmt: skip
    by_class = pd.DataFrame([
        {"column": "sex", "group": name, "class": label, "selection_rate": rate}
        for name, own in rates.items()
        for label, rate in own.items()
    ])  # fmt: skip
    return by_group, by_class


GROUPS = {"A": (500, 0.5, False), "B": (440, 0.44, False), "C": (10, 0.01, False), "(not known)": (50, 0.05, False)}
RATES = {
    name: {"yes": rate, "no": 1 - rate} for name, rate in (("A", 0.6), ("B", 0.3), ("C", 0.9), ("(not known)", 0.95))
}


def test_ratios_are_taken_to_the_highest_known_category_of_two_percent() -> None:
    (table,) = impact_ratios(*tables(GROUPS, RATES), [HIRE])
    assert table["classes"] == ["yes"]
    assert table["is_named"]
    assert [row["cells"][0]["rate"] for row in table["rows"]] == [0.6, 0.3, 0.9, 0.95]
    assert [row["cells"][0]["ratio"] for row in table["rows"]] == pytest.approx([1.0, 0.5, 1.5, None])
    assert [row["is_small"] for row in table["rows"]] == [False, False, True, False]
    assert table["n_not_known"] == 50


def test_without_a_rule_on_selection_every_class_is_shown() -> None:
    (table,) = impact_ratios(*tables(GROUPS, RATES), [{"metric": "accuracy"}])
    assert table["classes"] == ["yes", "no"]
    assert not table["is_named"]
    assert [cell["ratio"] for cell in table["rows"][1]["cells"]] == pytest.approx([0.5, 1.0])


def test_a_rate_that_was_not_measured_or_nobody_has_makes_no_ratio() -> None:
    rates = {"A": {"yes": 0.0}, "B": {"yes": float("nan")}, "C": {"yes": 0.0}, "(not known)": {"yes": 0.0}}
    (table,) = impact_ratios(*tables(GROUPS, rates), [])
    assert [row["cells"][0]["ratio"] for row in table["rows"]] == [None] * 4


def test_of_many_classes_those_with_the_lowest_ratio_are_shown() -> None:
    rates = {name: {f"c{k:02}": (1 if name == "A" else k / 100) for k in range(30)} for name in GROUPS}
    (table,) = impact_ratios(*tables(GROUPS, rates), [])
    assert table["classes"] == [f"c{k:02}" for k in range(MAX_CLASSES)]
    assert table["n_more_classes"] == 30 - MAX_CLASSES


def test_slices_of_image_facts_are_no_categories_of_people() -> None:
    by_group, by_class = tables(GROUPS, RATES)
    thirds = [frame.assign(column="brightness (thirds)") for frame in (by_group, by_class)]
    assert impact_ratios(*thirds, []) == []
    assert impact_ratios(by_group, by_class.iloc[:0], []) == []


def test_a_real_audit_gives_the_rates_counted_by_hand() -> None:
    rows = pd.DataFrame({
        "sex": ["m"] * 100 + ["f"] * 50 + [""] * 3, "y_true": "yes",
        "y_pred": ["yes"] * 80 + ["no"] * 20 + ["yes"] * 20 + ["no"] * 33,
    })  # fmt: skip
    facts = audited(rows, ())
    (table,) = impact_ratios(facts.by_group, facts.by_class, [HIRE])
    found = {row["group"]: row for row in table["rows"]}
    assert found["f"]["cells"][0] == pytest.approx({"rate": 0.4, "ratio": 0.5})
    assert found["(not known)"]["is_masked"]
    assert table["n_not_known"] == 3


@pytest.mark.parametrize("has_pipeline", [True, False])
def test_all_nine_points_of_the_annex_lead_to_a_part_of_the_page(has_pipeline: bool) -> None:
    headings = annex_iv(has_pipeline=has_pipeline)
    page = render(of_sites(pipeline=pipeline_run() if has_pipeline else None))
    assert [heading.number for heading in headings] == list(range(1, 10))
    assert all(heading.to_add for heading in headings)
    assert all(f'id="{anchor}"' in page for heading in headings for _, anchor in heading.answered)
    assert page.count("Not legal advice") == 1


def test_tables_of_no_favourable_class_are_folded_away() -> None:
    page = render(of_sites())
    folded = page.index("Selection rates and impact ratios of every class")
    assert folded < page.index("t-impact-1") < page.index("</details>", folded)
    facts = audited(
        pd.DataFrame({"sex": ["m", "f"] * 50, "y_true": "yes", "y_pred": ["yes"] * 60 + ["no"] * 40}), (SELECT,)
    )
    named = render(facts)
    assert "of every class" not in named
    assert "t-impact-1" in named


def test_the_law_counts_people_and_scores_too() -> None:
    page = render(of_sites())
    assert "individuals, not images, are counted" in page
    assert "scoring rates (the share above the sample's median score), which aren't computed here" in page.replace(
        "&#39;", "'"
    )
