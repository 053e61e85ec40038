"""The summary as Markdown, read back by another library: what it says, and that no name acts as markup."""

import pandas as pd
import pytest
from made_audit import ACCURACY, HOSTILE, audited, of_sites
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tasks.core.bias_columns import Origin
from tasks.core.bias_markdown import markdown, plain


def tokens(text: str) -> list[Token]:
    found = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        found += [token, *(token.children or [])]
    return found


def words(text: str) -> str:
    return "".join(t.content for t in tokens(text) if t.type in ("text", "text_special", "code_inline"))


def test_verdict_rules_and_limits_are_told() -> None:
    text = markdown(of_sites())
    assert "**✗ fail** – At least one required rule is broken" in text
    assert "To decide: Is the model held back" in text
    read = words(text)
    assert (
        "The accuracy of no group of site may lie more than 5.0 points below that of all other images together." in read
    )
    assert "B −30.0 points (" in read
    assert "n = 300 images" in read
    assert [t.content for t in tokens(text) if t.type == "inline"].count("required") == 1
    assert sum(t.type == "tr_open" for t in tokens(text)) == 1 + 2
    assert "What a wrong answer costs the people concerned" in read


def test_the_worst_and_the_columns_are_told_in_short() -> None:
    facts = of_sites(origin=Origin("eyes.csv", explained={"site": "Where it was taken"}))
    read = words(markdown(facts))
    assert (
        "Groups: of 2, 1 is worse than all other images beyond what chance explains: B of site: accuracy 60.0 %" in read
    )
    assert "site: Column of eyes.csv. Where it was taken." in read


def test_a_loss_behind_a_gain_is_told_before_the_rules() -> None:
    text = markdown(of_sites())
    assert text.index("Better over all, worse for some") < text.index("## Rules")
    assert "all images +6.7 points, **B −10.0 points**" in text
    assert "Better over all" not in markdown(of_sites({"A": (180, 150, 200), "B": (70, 60, 100)}))


def test_no_rule_is_no_table() -> None:
    facts = audited(pd.DataFrame({"site": ["A"] * 30, "y_true": "cat", "y_pred": "cat"}), ())
    assert "No rule was set, so nothing was judged." in markdown(facts)


@pytest.mark.parametrize(
    "name", [HOSTILE, "1. x", "- x", "# x", "a\n\n| b |", "www.evil.example", "![a](b)", "~~a~~", "&lt;"]
)
def test_a_name_is_shown_as_it_is(name: str) -> None:
    shown = name.replace("\u202e", "\\u202e").replace("\n", "\\n")
    assert words(f"| {plain(name, 500)} |\n|---|\n") == shown
    kinds = {token.type for token in tokens(plain(name, 500))}
    assert kinds <= {"paragraph_open", "paragraph_close", "inline", "text", "text_special"}


def test_hostile_names_leave_the_table_whole() -> None:
    rows = pd.DataFrame(
        {"site": [HOSTILE] * 100 + ["A"] * 100, "y_true": "cat", "y_pred": ["dog"] * 50 + ["cat"] * 150}
    )
    origin = Origin(HOSTILE, HOSTILE, 2, {"site": HOSTILE, "group_id": HOSTILE})
    text = markdown(audited(rows, (ACCURACY,), name=HOSTILE, origin=origin))
    found = tokens(text)
    assert not {"html_inline", "html_block", "link_open", "image", "em_open"} & {token.type for token in found}
    assert sum(token.type == "td_open" for token in found) == 7
    assert "\u202e" not in text
    assert "@all" not in text  # would call people
