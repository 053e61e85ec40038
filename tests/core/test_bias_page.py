"""The reviewer's page: what has to be found on it and where, what no data may do to it, and that anybody can use it."""

import base64
import re
from collections import Counter
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_audit import (
    ACCURACY,
    HOSTILE,
    LOSS,
    SMALL_PNG,
    audited,
    data_side,
    models,
    of_sites,
    pipeline_run,
    predictions,
)

import tasks.core.bias_page
from tasks.core.bias.rules import Rule
from tasks.core.bias_columns import Origin
from tasks.core.bias_page import MAX_RULE_GROUPS, PARTS, TEMPLATE, BiasFacts, ErrorSheet, render, told_rules
from tasks.core.bias_tables import MAX_ROWS

VOID = {"meta", "img", "br"}
BLOCKS = {"p", "li", "td", "th", "br", "h1", "h2", "h3", "figcaption", "summary", "caption", "div", "dt", "dd", "tr"}
ON_EVERY_PAGE = [
    "verdict", "worst", "rules", "columns", "rule-groups", "change", "groups", "classes", "not-given", "laws", "ll144", "annex",
    "lineage", "limits", "signature",
]  # fmt: skip
WITH_DATA = ["data", "explanations", "trade"]
OF_THE_PIPELINE = ["adaptation", "guard", "selection", "training", "errors", "validation"]


class Outline(HTMLParser):
    """Tags with their attributes, those that don't close as they should, and the text of the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        self.wrong += self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self.wrong += [f"{tag} {name}" for name, _ in attrs if name.startswith("on")]
        self.text += " " if tag in BLOCKS else ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data

    def all(self, *names: str) -> list[dict[str, str]]:
        return [attrs for tag, attrs in self.tags if tag in names]


def faults(page: str) -> list[str]:
    """What no page may have; [] = nothing."""
    found = Outline(page)
    told = list(found.wrong)
    ids = Counter(attrs["id"] for _, attrs in found.tags if "id" in attrs)
    told += [f"id {name} twice" for name, n in ids.items() if n > 1]
    links = [attrs[name] for _, attrs in found.tags for name in ("src", "href", "action", "srcset") if name in attrs]
    told += [f"leads outside: {x}" for x in links if not x.startswith(("#", "data:image/"))]
    told += [f"no such part: {x}" for x in links if x.startswith("#") and x[1:] not in ids]
    named = [attrs["aria-labelledby"] for _, attrs in found.tags if "aria-labelledby" in attrs]
    told += [f"no such name: {x}" for x in named if x not in ids]
    tags = Counter(tag for tag, _ in found.tags)
    told += [f"holds {tag}" for tag in ("script", "iframe", "object", "link", "form", "svg") if tags[tag]]
    told += ["a table without caption"] * (tags["table"] != tags["caption"])
    told += [f"a head without scope: {attrs}" for attrs in found.all("th") if "scope" not in attrs]
    told += ["a picture without words" for attrs in found.all("img") if not attrs.get("alt")]
    wide = [a for a in found.all("div") if a.get("class") in ("wide", "chart")]
    told += ["no keyboard reaches it" for a in wide if a.get("tabindex") != "0" or a.get("role") != "region"]
    told += [] if tags["main"] == tags["h1"] == tags["nav"] == 1 else ["landmarks are missing"]
    told += [f"says {word}" for word in re.findall(r"\b(?:NaN|nan|None|inf|Undefined)\b", found.text)]
    told += [f"hidden character {c!r}" for c in sorted(set("\x00\x1b\u202e\u2028") & set(page))]
    return told


def text_of(facts: BiasFacts) -> str:
    page = render(facts)
    assert faults(page) == []
    return " ".join(Outline(page).text.split())


def part(text: str, start: str, end: str) -> str:
    return text[text.index(start) : text.index(end, text.index(start))]


@cache
def of_two_sites() -> tuple[str, str]:
    """The page on A and B, of whom B lost, and its text."""
    return render(of_sites()), text_of(of_sites())


@cache
def of_all() -> tuple[str, str]:
    return render(everything()), text_of(everything())


def everything() -> BiasFacts:
    sheet = ErrorSheet("B (site)", SMALL_PNG, "1: cat taken for dog")
    return of_sites(
        pipeline=pipeline_run(),
        models=models(),
        error_sheets=(sheet,),
        rules_text="rules:\n- one",
        **data_side(),
    )


def test_every_part_has_its_place() -> None:
    ids = re.findall(r'<h[23] id="([\w-]+)"', of_all()[0])
    place = ON_EVERY_PAGE.index("classes") + 1
    assert ids == ON_EVERY_PAGE[:place] + WITH_DATA + OF_THE_PIPELINE + ON_EVERY_PAGE[place:]
    assert re.findall(r'<h[23] id="([\w-]+)"', of_two_sites()[0]) == ON_EVERY_PAGE


def linked(page: str) -> list[str]:
    return re.findall(r'href="#([\w-]+)"', part(page, '<nav aria-label="On this page">', "</nav>"))


def test_the_links_stand_right_after_the_verdict_and_lead_to_every_section() -> None:
    for page, _ in (of_two_sites(), of_all()):
        sections = re.findall(r'<h2 id="([\w-]+)"', page)
        assert linked(page) == sections[1:]
        assert page.index('id="verdict"') < page.index("<nav ") < page.index('id="worst"')


def test_sections_without_content_are_folded_into_one() -> None:
    page, text = of_two_sites()
    folded = part(page, 'id="not-given"', "</section>")
    assert re.findall(r'<dt id="([\w-]+)"', folded) == ["crossed", "slices", "data", "explanations", "trade"]
    assert "Not given for this table Intersections No audit columns were crossed." in text
    assert "composition of the data by group" not in page  # Annex IV answers nothing by a section that is empty
    assert re.findall(r'<dt id="([\w-]+)"', of_all()[0]) == ["crossed", "slices"]
    assert "composition of the data by group" in of_all()[0]


def test_group_id_as_an_attribute_is_told_once_with_a_note() -> None:
    rows = predictions(SITES_ONE).assign(group_id=[f"p{k // 2}" for k in range(70)])
    own = part(
        text_of(audited(rows, origin=Origin("t.csv", "Column of t.csv.", 35))), "What the groups are", "Images whose"
    )
    assert own.count("group_id Column of t.csv.") == 1
    assert "It is the unit of sampling, not an attribute:" in own
    assert "unit of sampling" not in of_two_sites()[1]


def test_the_verdict_is_a_word_and_a_question() -> None:
    verdict = part(of_two_sites()[1], "Verdict", "Rules Set in params.yaml")
    assert "✗ fail At least one required rule is broken, by more than chance explains." in verdict
    assert "as good as the others (site): B 60.0 % against 90.0 %: −30.0 points (" in verdict
    assert ", widened for the number of groups, allowed at least −5.0 points, n = 100" in verdict
    assert "To decide: Is the model held back" in verdict


def test_the_worst_of_each_kind_stands_before_the_rules() -> None:
    rows = predictions({"A": (900, 900, 1000), "B": (480, 480, 600)}).assign(light=["dark", "bright"] * 800)
    worst = part(text_of(audited(rows)), "Where it is worst", "Rules Set")
    # A .9, B .8, in the dark as in the light
    assert (
        "Groups: of 4, 1 is worse than all other images beyond what chance explains: B of site: accuracy 80.0 %, 10.0"
        in worst
    )
    assert "Intersections: of 4, 2 are worse than all other images beyond what chance explains:" in worst
    assert "B × dark of site × light: accuracy 80.0 %, 7.7 points below" in worst  # the others: 1140 of 1300
    assert "may be too narrow" not in worst


def test_too_few_group_ids_are_told_once_and_beside_what_they_hold_up() -> None:
    rows = predictions({"A": (180, 150, 200), "B": (60, 70, 100)})
    text = text_of(audited(rows, clusters=rows.index // 50, origin=Origin("eyes.csv", "Column of eyes.csv.")))
    assert "a fail if each image were drawn by itself, but some group's images come from only 2 group_ids" in text
    assert "Intervals that take each image as drawn by itself may be too narrow: see what the groups are." in text
    assert text.count("The intervals of site (2) take each image as drawn by itself and may be too narrow") == 1
    assert "group n group_ids value at Holm's level" in text
    assert "in 2 clusters" not in text


def test_the_groups_are_explained_before_anything_is_counted() -> None:
    facts = of_sites(origin=Origin("eyes.csv", "Column of eyes.csv.", 7, {"site": "Where it was taken"}))
    groups = part(text_of(facts), "What the groups are", "Rules, group by group Why")
    assert "site Column of eyes.csv. Where it was taken." in groups
    assert "These 300 images hold 7 of them." in groups


def test_who_set_the_rules_is_said_by_case() -> None:
    assert "Rules Set in params.yaml before this run (sha256" in of_two_sites()[1]
    asked = text_of(of_sites(rules_from="As rules.yaml has them"))
    assert "Rules As rules.yaml has them (sha256" in asked
    assert "before this run" not in asked


def test_a_rule_is_told_with_value_limit_group_and_n() -> None:
    table = part(of_two_sites()[1], "rule outcome value", "Rules, group by group")
    row = part(table, "The accuracy of no group of site", "No group of site may lose")
    assert "below that of all other images together. (as good as the others; required) ✗ fail −30.0 points (" in row
    assert "at least −5.0 points B 60.0 % against 90.0 % 100 nothing is open" in row


def test_required_rules_come_first_then_failed_ones() -> None:
    entry = of_sites().verdict["rules"][0]
    outcomes = [(False, "fail"), (True, "pass"), (False, "pass"), (True, "inconclusive")]
    told = told_rules([entry | {"required": required, "verdict": verdict} for required, verdict in outcomes])
    assert [(rule["required"], rule["verdict"]) for rule in told] == [outcomes[k] for k in (3, 1, 0, 2)]


def test_each_verdict_has_its_words() -> None:
    equal = {"A": (190, 190, 200), "B": (190, 190, 200)}
    assert "✓ pass Every required rule is met" in text_of(
        of_sites({k: (v[0] * 10, v[1] * 10, 2000) for k, v in equal.items()})
    )
    undecided = text_of(of_sites({"A": (27, 27, 30), "B": (26, 26, 30)}))
    assert "? inconclusive These images can't settle at least one required rule" in undecided
    assert "more of B" in part(undecided, "rule outcome value", "Rules, group by group")


def test_a_loss_behind_a_gain_stands_on_page_one() -> None:
    verdict = part(of_two_sites()[1], "Verdict", "Rules Set in params.yaml")
    assert "Better over all, worse for some. The change hides a loss, beyond what chance explains:" in verdict
    assert "all images +6.7 points, B −10.0 points (" in verdict
    change = part(of_two_sites()[1], "Change against other models", "Groups All images together")
    assert "all images 300 +6.7 (" in change
    assert "✗ worse, though better over all" in change


def test_a_loss_that_may_be_chance_is_told_as_such() -> None:
    verdict = part(text_of(of_sites({"A": (180, 150, 200), "B": (69, 70, 100)})), "Verdict", "Rules Set in params.yaml")
    assert "The change may hide a loss; these images can't say for sure:" in verdict
    assert "B −1.0 points" in verdict


def test_no_loss_is_no_alarm() -> None:
    assert "Better over all" not in text_of(of_sites({"A": (180, 150, 200), "B": (70, 60, 100)}))
    assert "it isn't known who gained and who lost" in text_of(audited(predictions(SITES_ONE)))


SITES_ONE = {"A": (30, 30, 40), "B": (20, 20, 30)}


def test_small_groups_are_named_without_their_values() -> None:
    groups = part(
        text_of(of_sites({"A": (180, 150, 200), "tiny": (1, 1, 3)})), "Groups All images", "Classes With more"
    )
    assert "tiny 3 1.5 % fewer than 20 images: not shown, not judged" in groups
    assert "33.3 %" not in groups


def test_a_missing_attribute_is_a_group_of_its_own() -> None:
    rows = predictions({"A": (30, 30, 40), "": (20, 20, 60)})
    text = text_of(audited(rows))
    assert "site (not known) 60 60.0 %" in text
    assert "whose attribute is missing, in an intersection any of them: site 60.0 %." in text


def test_an_image_of_a_crossed_column_is_unknown_where_any_part_is() -> None:
    # sex is empty in 20 of A's 40 and in 10 of B's 30 images, site in none, light in the first 10
    sex = ["f"] * 20 + [""] * 20 + ["m"] * 20 + [""] * 10
    light = [""] * 10 + ["dark"] * 30 + ["bright"] * 30
    text = text_of(audited(predictions(SITES_ONE).assign(sex=sex, light=light)))
    told = part(text, "in an intersection any of them:", ". ")
    assert "site 0.0 %, sex 42.9 %, light 14.3 %, site × sex 42.9 %, site × light 14.3 %, sex × light 57.1 %" in told


def test_no_column_no_rule_and_an_absent_column_never_pass() -> None:
    bare = text_of(audited(predictions(SITES_ONE)[["y_true", "y_pred"]], ()))
    assert "? inconclusive" in bare
    assert "carries no audit columns: nothing is known about groups" in bare
    assert "No rule was set, so nothing was judged." in bare
    absent = text_of(
        audited(predictions(SITES_ONE), [Rule("age", "accuracy", "age", "difference", "others", 0.05, True)])
    )
    assert "? inconclusive" in part(absent, "rule outcome value", "Rules, group by group")
    assert "none was judged 0" in absent
    assert "Absent from the data, so nothing is known about: age." in absent


def test_every_rule_is_told_group_by_group() -> None:
    own = part(of_two_sites()[1], "Rules, group by group Why", "Change against")
    assert "group n value at Holm's level outcome more images that would decide n to decide B 100 −30.0 (" in own


def test_crossed_columns_stand_apart() -> None:
    rows = predictions(SITES_ONE).assign(light=(["dark", "bright"] * 35))
    text = text_of(audited(rows))
    assert "site × light A × bright 20" in part(text, "Intersections Groups of two", "Slices by facts")
    assert "A × bright" not in part(text, "Groups All images together", "Classes With more")


def test_data_models_and_sheets_are_shown() -> None:
    page, text = of_all()
    data = part(text, "What the data hold", "Errors looked at")
    assert "group target test target train A 1 4 B 1 2" in data
    assert "A cat 0 3 A dog 0 1 B (no label) 1 1 B dog 0 1" in data
    # of 6 training images 4 are A: (2 - 4) / 6; A has 3 cats and 1 dog, B's only label is dog
    assert "site A 5 66.7 % 50.0 % −0.33 4 0.50 0.75 endless" in data
    assert "B 3 33.3 % 50.0 % 0.33 1 1.00 0.75 1.39" in data
    trade = part(text, "Accuracy against the worst group Every", "Adapted against doing nothing")
    assert "group dro 300 78.0 % (74.0 to 82.0) B 100 70.0 % (60.0 to 80.0)" in trade
    assert (
        f'src="data:image/png;base64,{base64.b64encode(SMALL_PNG).decode()}" alt="Errors in B (site). 1: cat taken'
        in page
    )
    assert "rules: - one" in text


def test_the_pipeline_is_told_where_there_is_one() -> None:
    _, text = of_all()
    assert (
        "Adaptation: adopt (proven, 95% one-sided). The model in this bundle is shot, named for the method that" in text
    )
    assert "Data validation says warn: class balance: 1 (warn)." in text
    assert "site B 9 4 3 −10.0 (−20.0 to −1.0) worse" in text
    assert "Labels that would tell most: 1 held-out images" in text
    assert "Adaptation" not in of_two_sites()[1]


def test_a_comparison_that_was_not_made_is_not_claimed() -> None:
    """Where source-only was chosen the guard looked at none of its labels; where labels were too few no score used them."""
    assert "were compared on target images that neither learnt from. 17 of them carry labels" in of_all()[1]
    assert "6 target labels were used." in of_all()[1]
    facts = everything()
    run = facts.pipeline
    assert run is not None
    run.decision["method"]["chosen"] = "source_only"
    run.selection["by_labels"] = False
    text = text_of(facts)
    assert (
        "No comparison was made: no adapted model came out ahead of source-only, so the guard's 17 labels were" in text
    )
    assert "were compared on" not in text
    assert "6 target labels were there." in text


def test_stated_class_shares_and_gates_are_told() -> None:
    assert "checked by nobody" not in of_all()[1]
    assert "Figures that need no label" not in of_all()[1]
    facts = everything()
    assert facts.pipeline is not None
    guard = facts.pipeline.decision["guard"]
    guard["class_shares"] = {"cat": 0.25, "dog": 0.75}
    guard["gates"] = [
        {"is_passed": passed, "reason": f"reason {k}"} for k, passed in enumerate((True, True, False, None))
    ]
    text = text_of(facts)
    assert "checked by nobody: dog 75.0 %, cat 25.0 %." in text
    assert "2 of 4 speak for the adapted model" in text
    assert "✓ reason 0 ✓ reason 1 ✗ reason 2 ? reason 3" in text
    guard["class_shares"] = {f"class {k:02}": k / 300 for k in range(25)}
    assert "class 06 2.0 %, class 05 1.7 % and 5 more." in text_of(facts)


def test_answers_that_no_longer_count_are_told() -> None:
    told = "3 answer(s) in data/given/labels.csv don't count"
    assert told not in of_all()[1]
    facts = everything()
    assert facts.pipeline is not None
    facts.pipeline.decision["guard"]["void_answers"] = told
    assert f"{told}." in text_of(facts)


def test_names_cannot_act_on_the_page() -> None:
    rows = predictions({HOSTILE: (30, 30, 40), "B": (20, 20, 30)}).assign(y_true=HOSTILE)
    rows = rows.rename(columns={"site": HOSTILE})
    facts = audited(
        rows, [replace(ACCURACY, name=HOSTILE, column=HOSTILE), replace(LOSS, column=HOSTILE)], rows, name=HOSTILE,
        error_sheets=(ErrorSheet(HOSTILE, SMALL_PNG, HOSTILE),), rules_text=HOSTILE, lineage={HOSTILE: HOSTILE},
        rules_from=HOSTILE, origin=Origin(HOSTILE, HOSTILE, 2, {HOSTILE: HOSTILE, "group_id": HOSTILE}),
    )  # fmt: skip
    page = render(facts)
    assert faults(page) == []
    assert "alert(1)</script>" not in page
    assert "\\u202egnp" in page


@pytest.mark.parametrize(
    ("planted", "fault"),
    [
        ("<script>1</script>", "holds script"), ("<img src='https://x.example/a.png' alt='a'>", "leads outside"),
        ("<p onclick='x'></p>", "p onclick"), ("<a href='#gone'>x</a>", "no such part"),
        ("<img src='data:image/png' alt=''>", "words"),
        ("<table></table>", "without caption"), ("<th>x</th>", "without scope"), ("<div class='wide'></div>", "keyboard"),
        ("<p>nan</p>", "says nan"), ("<p>\u202e</p>", "hidden character"), ("<i>", "/"), ("<p id='rules'></p>", "twice"),
    ],
)  # fmt: skip
def test_each_fault_is_seen(planted: str, fault: str) -> None:
    page = of_two_sites()[0].replace("</main>", f"{planted}</main>")
    assert any(fault in told for told in faults(page))


def test_ten_thousand_groups_make_a_page_that_opens() -> None:
    facts = of_sites()
    names = [f"g{k:05}" for k in range(10_000)]
    by_group, rule = facts.by_group.iloc[:1], facts.verdict["rules"][0]
    many = rule | {"groups": [rule["groups"][0] | {"group": name} for name in names]}
    page = render(
        replace(
            facts,
            by_group=by_group.loc[by_group.index.repeat(10_000)].assign(group=names),
            by_class=facts.by_class.iloc[:0],
            verdict=facts.verdict | {"rules": [many]},
        )
    )
    assert faults(page) == []
    assert len(page) < 500_000
    assert f"… and {10_000 - MAX_ROWS:,} more: see by_group.csv" in page
    assert f"… and {10_000 - MAX_RULE_GROUPS:,} more: see verdict.json" in page
    assert "too many groups to list their classes" in page


def test_the_same_facts_make_the_same_bytes() -> None:
    assert render(everything()) == of_all()[0]


def colours(css: str) -> dict[str, str]:
    return dict(re.findall(r"--(\w+): (#\w{6})", css))


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    shares = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_counted_as_wcag_does() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_stands_out_in_light_and_dark(scheme: int) -> None:
    own = colours(re.findall(r":root \{ color-scheme.*?\}", of_two_sites()[0])[scheme])
    for ink in ("ink", "soft", "link", "pass", "fail", "open"):
        for ground in ("paper", "tint"):
            assert contrast(own[ink], own[ground]) >= 4.5, (ink, ground)


def test_every_template_is_named_where_it_is_read() -> None:
    """DVC sees a template only through the name in the code."""
    folder = Path(tasks.core.bias_page.__file__).parent
    used = {
        name
        for path in folder.glob("bias*.jinja")
        for name in re.findall(r'(?:include|from) "(.+?)"', path.read_text())
    }
    assert used | {TEMPLATE} == {TEMPLATE, *PARTS} == {path.name for path in folder.glob("bias*.jinja")}
