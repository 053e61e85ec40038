"""`acclimate audit` on any model's predictions: exit 0 pass, 1 fail, 3 inconclusive, 2 could not run, and never a traceback."""

import json
import re
import shlex
import signal
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

from flows.audit_cli import AUDIT, MAX_REASON, RULES, rule_line
from flows.audit_table import MAX_GROUPS
from flows.cli import app

PROJECT = Path(__file__).parents[2]
SCRIPT, ARABIC = "<script>alert(1)</script>", "\u202eمجموعة"

NUMBERS = "write numbers from 0 to 1, or leave the cell empty"
SAME = "give the same images in the same order, or the same labels"
WORDS = "have no class in common; write classes with the same words in both"
TWICE = "table.csv: image_id is not unique"
NO_GROUP = "which are counted by themselves; name a column of groups"
SUM = "to 1 within 0.02"
SOFTMAX = "write the probabilities of all classes with 3 decimals or more, or leave the cells empty"
DIFFERS = "differs from the audited table's in 2 rows, the first: row 1"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)


def predictions(n_right: dict[str, int], n: int = 1000) -> pd.DataFrame:
    """Two classes in turn; of each group's n images the first n_right are right, so both classes are equally hard."""
    parts = []
    for group, right in n_right.items():
        true = np.array(["cat", "dog"] * (n // 2))
        wrong = np.where(true == "cat", "dog", "cat")
        parts.append(
            pd.DataFrame({"y_true": true, "y_pred": np.where(np.arange(n) < right, true, wrong), "site": group})
        )
    return pd.concat(parts, ignore_index=True)


def save(name: str, table: pd.DataFrame | str) -> str:
    if isinstance(table, str):
        Path(name).write_text(table, encoding="utf-8")
    elif name.endswith(".parquet"):
        table.to_parquet(name, index=False)
    else:
        table.to_csv(name, index=False)
    return name


def rules(*changes: dict[str, Any], name: str = "rules.yaml", **settings: Any) -> str:
    """A file of the first default rule with these changes, one rule for each."""
    content = YAML(typ="safe").load(RULES.read_text())
    content["rules"] = [content["rules"][0] | {"name": f"rule {i}"} | change for i, change in enumerate(changes)]
    YAML(typ="safe").dump(content | {"n_bootstrap": 200} | settings, Path(name))
    return name


def acclimate(*words: str) -> Result:
    return CliRunner().invoke(app, ["audit", *words], env={"COLUMNS": "200"}, catch_exceptions=False)


def audited(table: pd.DataFrame | str, *words: str, columns: str = "site", code: int) -> dict[str, Any]:
    """The verdict; checks the exit code, that all files are there, and that the page neither acts nor loads anything."""
    words = ("--rules", rules({}), *words) if "--rules" not in words else words
    done = acclimate(save("table.csv", table), "--group-columns", columns, "--out", "out", *words)
    assert (done.stderr, done.exit_code) == ("", code)
    assert {path.name for path in Path("out").iterdir()} == set(AUDIT.names)
    found: dict[str, Any] = json.loads(Path("out/verdict.json").read_text())
    assert {"pass": 0, "fail": 1, "inconclusive": 3}[found["verdict"]] == code
    assert f"{found['verdict']}: " in done.stdout
    page = Page()
    page.feed(Path("out/audit.html").read_text(encoding="utf-8"))
    assert page.tags.isdisjoint({"script", "iframe", "object", "form"})
    assert page.loaded == []
    return found


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        loads = {"src", "href", "srcset", "data", "action"}
        inside = ("#", "data:")
        self.loaded += [value or "" for key, value in attrs if key in loads and not (value or "").startswith(inside)]
        self.loaded += [key for key, _ in attrs if key.startswith("on")]


def test_the_page_is_looked_through() -> None:
    page = Page()
    page.feed("<a href='#x'></a><img src='data:image/png;base64,A'><img src=http://a/b onload='x()'><script></script>")
    assert (page.loaded, "script" in page.tags) == (["http://a/b", "onload"], True)


def refused(*words: str) -> list[str]:
    """The sentences on stderr of a run that could not be; it leaves nothing."""
    done = acclimate(*words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert not Path("out").exists()
    lines = done.stderr.splitlines()
    assert all(line.startswith(("error: ", "  - ")) for line in lines)
    return [line.removeprefix("error: ") for line in lines]


def refused_table(table: pd.DataFrame | str, *words: str, columns: str = "site") -> list[str]:
    return refused(save("table.csv", table), "--group-columns", columns, "--out", "out", *words)


def test_equal_groups_pass() -> None:
    found = audited(predictions({"a": 900, "b": 900}), code=0)
    assert [rule["verdict"] for rule in found["rules"]] == ["pass"]


def test_a_group_that_is_far_worse_fails() -> None:
    """.9 and .5: .4 below the others, the limit is .05."""
    found = audited(predictions({"a": 900, "b": 500}), code=1)
    groups = {group["group"]: group for group in found["rules"][0]["groups"]}
    assert (groups["a"]["verdict"], groups["b"]["verdict"]) == ("pass", "fail")
    assert groups["b"]["estimate"] == pytest.approx(-0.4)


def test_few_images_decide_nothing() -> None:
    found = audited(predictions({"a": 18, "b": 16}, n=20), code=3)
    assert found["rules"][0]["verdict"] == "inconclusive"


def test_without_rules_the_shipped_ones_apply_and_the_page_prints_them() -> None:
    found = audited(predictions({"a": 900, "b": 900}), "--rules", str(RULES), code=0)
    shipped = YAML(typ="safe").load(RULES.read_text())["rules"]
    names = [rule["name"] for rule in shipped if rule["comparison"] != "change"]
    assert [rule["name"].partition(":")[0] for rule in found["rules"]] == names
    page = Path("out/audit.html").read_text()
    assert all(name in page for name in names)


def test_the_page_says_what_the_columns_are_and_who_chose_the_rules() -> None:
    table = predictions({"a": 900, "b": 900}).assign(group_id=lambda rows: rows.index // 2)
    audited(table, "--rules", rules({}, columns_explained={"site": "Hospital <b>", "group_id": "One patient."}), code=0)
    page = Path("out/audit.html").read_text(encoding="utf-8")
    assert "Column of table.csv. Hospital &lt;b&gt;." in page
    assert "Column of table.csv. One patient. These 2,000 images hold 1,000 of them." in page
    assert "As rules.yaml has them; whether they were written before" in page
    assert "before this run" not in page
    audited(predictions({"a": 900, "b": 900}), "--rules", str(RULES), code=0)
    assert "nobody chose them for this use (sha256" in Path("out/audit.html").read_text(encoding="utf-8")


def test_an_explanation_of_no_column_is_refused() -> None:
    (told,) = refused_table(predictions({"a": 90}, n=100), "--rules", rules({}, columns_explained={"sit": "x"}))[1:]
    assert told == "  - columns_explained names 'sit', which is no column of groups; did you mean 'site'?"


def test_a_baseline_shows_who_gets_worse_although_all_get_better() -> None:
    """a gains 30 points and b loses 8: b fails the rule on change, whose limit is 2 points."""
    save("old.csv", predictions({"a": 600, "b": 980}))
    change = {"comparison": "change", "reference": "baseline", "limit": 0.02}
    found = audited(predictions({"a": 900, "b": 900}), "--baseline", "old.csv", "--rules", rules(change), code=1)
    groups = {group["group"]: group for group in found["rules"][0]["groups"]}
    assert groups["b"]["estimate"] == pytest.approx(-0.08)
    assert groups["a"]["verdict"] == "pass"


def test_a_baseline_in_another_order_is_matched_by_image() -> None:
    table = predictions({"a": 900, "b": 900}).assign(image_id=lambda rows: "i" + rows.index.astype(str))
    save("old.csv", predictions({"a": 600, "b": 980}).assign(image_id=table["image_id"]).iloc[::-1])
    change = {"comparison": "change", "reference": "baseline", "limit": 0.02}
    found = audited(table, "--baseline", "old.csv", "--rules", rules(change), code=1)
    assert [group["estimate"] for group in found["rules"][0]["groups"]] == [pytest.approx(0.3), pytest.approx(-0.08)]


def test_a_change_without_a_baseline_is_not_shown_to_be_small() -> None:
    change = {"comparison": "change", "reference": "baseline", "limit": 0.02}
    assert audited(predictions({"a": 900, "b": 900}), "--rules", rules(change), code=3)


def test_parquet_tables_and_several_columns_are_read() -> None:
    table = predictions({"a": 900, "b": 900}).assign(
        age=[30, 60] * 1000, y_true=lambda rows: (rows["y_true"] == "dog") * 1
    )
    table["y_pred"] = np.where(table["y_pred"] == "dog", 1, 0)
    save("table.parquet", table)
    done = acclimate("table.parquet", "--group-columns", "site, age", "--out", "out", "--rules", rules({}))
    assert (done.exit_code, done.stderr) == (0, "")
    assert {"site", "age"} <= set(json.loads(Path("out/verdict.json").read_text())["columns"])


def test_the_same_table_gives_the_same_bytes() -> None:
    table = predictions({"a": 900, "b": 880})
    audited(table, code=0)
    first = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    audited(table, code=0)
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == first


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"column": "brightness (thirds)"}, "brightness (thirds)"),
        ({"metric": "calibration_error"}, "probabilities"),
        ({"column": "", "comparison": "change", "reference": "champion"}, "champion"),
    ],
)
def test_what_is_absent_never_passes(change: dict[str, Any], why: str) -> None:
    found = audited(predictions({"a": 900, "b": 900}), "--rules", rules(change, slices=["brightness"]), code=3)
    assert why in found["reason"] + found["rules"][0]["reason"]


def test_one_group_alone_is_compared_with_nothing() -> None:
    audited(predictions({"a": 900}), code=3)


def test_a_missing_attribute_is_a_group_that_is_seen() -> None:
    found = audited(predictions({"a": 900, "": 500}), code=1)
    assert "(not known)" in {group["group"] for group in found["rules"][0]["groups"]}


def test_equal_predictions_for_all_images_are_judged() -> None:
    table = predictions({"a": 900, "b": 900}).assign(y_pred="cat")
    assert audited(table, code=0)["overall"]["accuracy"]["value"] == pytest.approx(0.5)


def test_images_of_few_clusters_decide_nothing() -> None:
    """The same images pass where each stands for itself; two patients a site are too few to pass on."""
    table = predictions({"a": 900, "b": 900})
    found = audited(table.assign(group_id=table.index // 500), code=3)
    assert found["rules"][0]["sampling"]["unit"] == "image"
    audited(table.assign(group_id=table.index), code=0)


def test_absent_probabilities_are_not_measured() -> None:
    table = predictions({"a": 900, "b": 900}).assign(p_cat="", p_dog="NaN")
    found = audited(table, "--rules", rules({"metric": "calibration_error"}), code=3)
    assert any("2,000 of 2,000 rows" in told for told in found["not_tested"])


def test_probabilities_are_calibrated_by_group() -> None:
    """Sure by .9 and right in 90 %: a calibration error of 0 in both groups."""
    table = predictions({"a": 900, "b": 900})
    table = table.assign(**{f"p_{name}": np.where(table["y_pred"] == name, 0.9, 0.1) for name in ("cat", "dog")})
    found = audited(table, "--rules", rules({"metric": "calibration_error"}), code=0)
    assert [group["value"] for group in found["rules"][0]["groups"]] == [pytest.approx(0, abs=1e-9)] * 2


def test_names_act_nowhere() -> None:
    table = predictions({SCRIPT: 900, ARABIC: 900, "| a | `b` |": 900, "=cmd|' /C calc'!A0": 900})
    audited(table, code=0)
    text = Path("out/audit.md").read_text(encoding="utf-8")
    assert "<script" not in text


def test_ten_thousand_groups_are_told_and_not_judged() -> None:
    table = predictions({"a": 9000, "b": 9000}, n=10_000).assign(site=np.repeat(np.arange(10_000), 2).astype(str))
    found = audited(table, code=3)
    assert len(found["rules"][0]["groups"]) == 10_000


def test_an_earlier_result_is_replaced_and_a_refused_run_leaves_none_behind() -> None:
    audited(predictions({"a": 900, "b": 900}), code=0)
    audited(predictions({"a": 900, "b": 500}), code=1)
    done = acclimate("absent.csv", "--group-columns", "site", "--out", "out")
    assert (done.exit_code, list(Path("out").iterdir())) == (2, [])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"p_cat": ["0.5", "0.6"], "p_dog": ["0.5", "0.45"]},
            f"table.csv: probabilities do not sum {SUM} in row 2 (1.05); {SOFTMAX}",
        ),
        (
            {"p_cat": ["0", "0"], "p_dog": ["0", "0"]},
            f"table.csv: probabilities do not sum {SUM} in 2 rows, the first: row 1 (0); {SOFTMAX}",
        ),
        (
            {"p_cat": ["0.5", "1"], "p_dog": ["0.5", "0"], "p_value": ["0", "0.03"]},
            f"table.csv: probabilities do not sum {SUM} in row 2 (1.03); {SOFTMAX}; no image is of class 'value': "
            "take such a column out if it is no class",
        ),
        (
            {"site": ["(not known)", "b"]},
            "table.csv: column 'site' says '(not known)' in row 1, which is what an empty cell is called; leave the cells "
            "empty, or write another word",
        ),
        ({"y_true": None, "y_pred": None}, "table.csv has no column 'y_true', 'y_pred'; it has 'site'"),
        ({"site": None}, "table.csv has no column 'site'; it has 'y_true', 'y_pred'"),
        ({"y_pred": ["cat", ""]}, "table.csv: y_pred is empty in row 2; fill the cells, or leave those rows out"),
        ({"y_pred": ["1.0", "0.0"], "y_true": ["1", "0"]}, f"table.csv: y_pred ('0.0', '1.0') and y_true ('0', '1') {WORDS}"),
        ({"image_id": ["i", "i"]}, f"{TWICE} in 2 rows, the first: row 1; keep one row per image"),
        ({"image_id": ["i", "i"], "model": ["m", "n"]}, f"{TWICE} in 2 rows, the first: row 1; keep the rows of one model"),
        ({"image_id": ["i", ""]}, "table.csv: image_id is empty in row 2; fill the cells, or leave those rows out"),
        ({"p_cat": ["0.5", "high"], "p_dog": 0.5}, f"table.csv: 'p_cat' is no probability in row 2 ('high'); {NUMBERS}"),
        ({"p_cat": [0.5, 1.5], "p_dog": 0.5}, f"table.csv: 'p_cat' is no probability in row 2 ('1.5'); {NUMBERS}"),
        ({"p_cat": ["-inf", ""], "p_dog": 0.5}, f"table.csv: 'p_cat' is no probability in row 1 ('-inf'); {NUMBERS}"),
        ({"p_cat": 0.5}, "table.csv has probabilities but no column 'p_dog'; write one for each class, or none at all"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_audited_is_told(change: dict[str, Any], sentence: str) -> None:
    table = pd.DataFrame({"y_true": ["cat", "dog"], "y_pred": ["cat", "cat"], "site": ["a", "b"]}).assign(**change)
    table = table.drop(columns=[name for name, value in change.items() if value is None])
    assert refused_table(table) == [sentence]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("y_true,y_pred,site\n", "table.csv has a header and no rows; write one row per image"),
        ("", "table.csv is not a whole CSV table (it has no header); mend it"),
        ("y_true,y_pred,site\ncat,cat\n", "table.csv: 1 line(s) have not as many fields as the header (3), the first: line 2"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_table_is_told(text: str, sentence: str) -> None:
    (found,) = refused_table(text)
    assert found.startswith(sentence)


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        (" , ", "--group-columns names no column; name at least one column of groups"),
        ("p_age", "--group-columns 'p_age': a name that begins with 'p_' marks probabilities; rename the column"),
        ("*", "--group-columns '*': this means every column in the rules; rename the column"),
        ("a × b", "--group-columns 'a × b': a name with ' × ' marks an intersection; rename the column"),
        (
            "x (thirds)",
            "--group-columns 'x (thirds)': a name that ends with ' (thirds)' marks a slice; rename the column",
        ),
        ("y_true", f"--group-columns 'y_true': it holds the true classes, {NO_GROUP}"),
        ("y_pred", f"--group-columns 'y_pred': it holds the predicted classes, {NO_GROUP}"),
        ("image_id", f"--group-columns 'image_id': it holds the images' names, {NO_GROUP}"),
    ],
)
def test_columns_that_cannot_be_groups_are_told(columns: str, sentence: str) -> None:
    assert sentence in refused_table(predictions({"a": 2}, n=2), columns=columns)


def test_ids_are_no_groups() -> None:
    n = MAX_GROUPS + 2
    table = predictions({"a": n}, n=n).assign(site=np.arange(n))
    assert refused_table(table) == [
        f"table.csv: column 'site' has {n:,} different values, more than the {MAX_GROUPS:,} that are told apart; "
        "name a column of groups, such as bands of age, not of ids"
    ]


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"image_id": ["i", "k"]}, "lacks 1 image(s), such as 'j'; a baseline needs the very same images"),
        ({"image_id": ["j", "i"]}, f"y_true of the same images {DIFFERS}; {SAME}"),
        ({"y_true": ["dog", "cat"], "image_id": None}, f"y_true row by row (no image_id in both tables) {DIFFERS}; {SAME}"),
        ({"y_pred": None}, "has no column 'y_pred'; it has 'y_true', 'image_id'"),
    ],
)  # fmt: skip
def test_a_baseline_on_other_images_is_told(other: dict[str, Any], sentence: str) -> None:
    table = pd.DataFrame({"y_true": ["cat", "dog"], "y_pred": ["cat", "cat"], "image_id": ["i", "j"]})
    dropped = [name for name, value in other.items() if value is None]
    save("old.csv", table.assign(**other).drop(columns=dropped))
    assert any(
        told.startswith("old.csv") and told.endswith(sentence)
        for told in refused_table(table.assign(site=["a", "b"]), "--baseline", "old.csv")
    )


def test_a_baseline_with_other_rows_is_told() -> None:
    save("old.csv", predictions({"a": 4}, n=4))
    assert refused_table(predictions({"a": 2}, n=2), "--baseline", "old.csv") == [
        "old.csv has 4 rows, not 2; a baseline needs one row for each audited row, or an image_id in both tables"
    ]


def test_every_problem_is_told_at_once() -> None:
    found = refused_table(
        predictions({"a": 2}, n=2).drop(columns="y_true"),
        "--baseline", "absent.csv", "--rules", rules({"metric": "acuracy"}, confidenc=1), columns="site,age",
    )  # fmt: skip
    assert found == [
        "--rules: rules.yaml has 2 problem(s):",
        "  - rules.0.metric is 'acuracy'; did you mean 'accuracy'?",
        "  - confidenc is not a known key; did you mean 'confidence'?",
        "table.csv has no column 'y_true', 'age'; it has 'y_pred', 'site'",
        "absent.csv is not a file; name a table of predictions (.csv, .tsv, .txt, .parquet, .pq)",
    ]


def test_absent_files_are_told() -> None:
    assert refused("absent.csv", "--group-columns", "a", "--out", "out", "--rules", "absent.yaml") == [
        "--rules: absent.yaml is missing: name a YAML file of rules, or a params.yaml",
        "absent.csv is not a file; name a table of predictions (.csv, .tsv, .txt, .parquet, .pq)",
    ]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"column": "sit"}, "column is 'sit'; did you mean 'site'?"),
        ({"column": "qqq"}, "column is 'qqq'; allowed are 'age', 'site', 'site × age', '*' for each column of groups, '' for"),
        ({"column": "age × site"}, "column is 'age × site'; did you mean 'site × age'?"),
        ({"column": "brightness (thirds)"}, "column is 'brightness (thirds)'; allowed are"),
        ({"column": "site", "reference": "group:A"}, "reference is 'group:A'; did you mean 'group:a'?"),
        ({"column": "site", "reference": "group:old"}, "reference is 'group:old'; the groups of 'site' are 'a', 'b'"),
        ({"reference": "group:zzz"}, "reference is 'group:zzz'; the groups are 'a', 'b', 'old', 'young'"),
        ({"column": "site × age", "reference": "group:a"}, "reference is 'group:a'; the groups of 'site × age' are 'a × old',"),
        ({"metric": "recall:Dog"}, "metric is 'recall:Dog'; did you mean 'recall:dog'?"),
        ({"metric": "recall:c99"}, "metric is 'recall:c99'; the classes are 'cat', 'dog'"),
    ],
)  # fmt: skip
def test_rules_that_do_not_fit_the_table_are_told(change: dict[str, Any], told: str) -> None:
    table = predictions({"a": 2, "b": 2}, n=2).assign(age=["old", "young"] * 2)
    found = refused_table(table, "--rules", rules({}, change), columns="site,age")
    assert found[0] == "--rules: rules.yaml does not fit table.csv, 1 problem(s):"
    assert found[1].startswith(f"  - rules.1.{told}")
    assert len(found) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"column": "site × age", "reference": "group:a × old"}, {"reference": "group:old"}, {"metric": "recall:dog"},
        {"column": "", "comparison": "floor", "reference": ""},
    ],
)  # fmt: skip
def test_rules_that_fit_the_table_are_judged(change: dict[str, Any]) -> None:
    table = predictions({"a": 2, "b": 2}, n=2).assign(age=["old", "young"] * 2)
    audited(table, "--rules", rules(change), columns="site,age", code=3)


def test_no_rule_is_told() -> None:
    assert refused_table(predictions({"a": 2}, n=2), "--rules", rules()) == [
        "--rules: rules.yaml has 1 problem(s):",
        "  - rules is []; no rule is asked, so nothing could be judged: write at least one",
    ]


def notes(table: pd.DataFrame, columns: str = "site") -> list[str]:
    """The notes that are printed; each stands on the page's list of what was not tested, too."""
    done = acclimate(save("table.csv", table), "--group-columns", columns, "--out", "out", "--rules", rules({}))
    assert (done.exit_code, done.stderr) == (3, "")
    told = [line.removeprefix("note: ") for line in done.stdout.splitlines() if line.startswith("note: ")]
    assert set(told) <= set(json.loads(Path("out/verdict.json").read_text())["not_tested"])
    return told


PLAIN = pd.DataFrame(
    {"y_true": ["cat", "dog", "cat", "dog"], "y_pred": ["cat", "cat", "cat", "dog"], "site": ["a", "a", "b", "b"]}
).assign(image_id=["i", "j", "k", "l"])


def test_nothing_odd_gives_no_note() -> None:
    assert notes(PLAIN.assign(p_cat=[0.9, 0.5, 0.8, 0.495], p_dog=[0.1, 0.5, 0.2, 0.515])) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"p_cat": [0.9, 0.4, 0.8, 0.1], "p_dog": [0.1, 0.6, 0.2, 0.9]},
            "table.csv: y_pred is not the class with the largest probability in row 2; right only where thresholds are meant.",
        ),
        (
            {"p_cat": ["", 0.6, "", 0.1], "p_dog": ["", 0.4, 0.9, 0.9]},
            "table.csv: probabilities are not known in 2 of 4 rows, the first: row 1; calibration and confidence leave them out.",
        ),
        (
            {"p_cat": [0.9, 0.6, 0.8, 0.1], "p_dog": [0.1, 0.4, 0.1, 0.9], "p_emu": [0, 0, 0.1, 0]},
            "table.csv has probabilities of 'emu', and no image is of that class or taken for it.",
        ),
        (
            {"y_pred": ["cat", "dog ", "Cat", "dog"]},
            "table.csv: y_pred names 'Cat' (near 'cat'), 'dog ' (near 'dog'), which y_true never does, so each such "
            "answer counts as wrong: 2 rows, the first: row 2.",
        ),
        (
            {"site": ["a", "A", "b", "b "]},
            "table.csv: groups of 'site' differ in nothing but capitals and blanks and are counted apart: 'A' and 'a'; "
            "'b' and 'b '.",
        ),
        (
            {"y_true": ["cat", "Cat", "cat", "dog"], "y_pred": ["Cat", "cat", "cat", "dog"]},
            "table.csv: classes of 'y_true' differ in nothing but capitals and blanks and are counted apart: 'Cat' and 'cat'.",
        ),
        (
            {"site": ["a", "a", "a", "b"], "image_id": None},
            "table.csv: 1 of 4 rows, row 3 equals an earlier row in every column; without image_id copies "
            "can't be told from different images, and copies make intervals too narrow.",
        ),
    ],
)  # fmt: skip
def test_what_may_not_be_meant_is_noted(change: dict[str, Any], told: str) -> None:
    dropped = [name for name, value in change.items() if value is None]
    assert notes(PLAIN.assign(**change).drop(columns=dropped)) == [told]


def test_classes_of_the_baseline_are_noted() -> None:
    save("old.csv", PLAIN.assign(y_pred=["cat", "cow", "cat", "dog"]))
    save("table.csv", PLAIN.assign(site=["a", "A", "b", "b"]))
    files = (str(Path("table.csv").absolute()), "--baseline", str(Path("old.csv").absolute()))
    done = acclimate(*files, "--group-columns", "site", "--out", "out")
    assert "note: old.csv: y_pred names 'cow', which y_true never does" in done.stdout
    assert "note: table.csv: groups of 'site' differ" in done.stdout  # no place of a machine gets onto the page


def test_a_group_that_grows_does_not_drag_its_reference_along() -> None:
    """Ten times the images of a in the same state: the gap to the others stays 8 points, whoever makes up the whole."""
    small, large = predictions({"a": 820, "b": 900}), predictions({"a": 8200}, n=10_000)
    before = audited(small, "--rules", str(RULES), code=3)
    after = audited(pd.concat([large, small[small["site"] == "b"]]), "--rules", str(RULES), code=1)
    estimates = [
        {group["group"]: group["estimate"] for group in found["rules"][0]["groups"]} for found in (before, after)
    ]
    assert estimates == [{"a": pytest.approx(-0.08), "b": pytest.approx(0.08)}] * 2


def test_a_place_that_cannot_be_written_to_is_told() -> None:
    done = acclimate(save("table.csv", PLAIN), "--group-columns", "site", "--out", "/proc/x")
    (line,) = done.stderr.splitlines()
    assert done.exit_code == 2
    assert line.startswith("error: --out /proc/x")
    assert line.endswith("name another one")
    assert "Errno" not in line


def test_results_that_break_off_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "out/by_class.csv")

    monkeypatch.setattr("tasks.core.files.write_table", is_full)
    done = acclimate(save("table.csv", PLAIN), "--group-columns", "site", "--out", "out")
    assert (done.exit_code, list(Path("out").iterdir())) == (2, [])
    assert done.stderr == (
        "error: --out out: the results cannot be written there (No space left on device); make room, or name another one\n"
    )


def test_each_example_of_the_guide_runs() -> None:
    """The printed commands on made tables, with the printed rules; and the rules hold nothing that does not fit."""
    guide = (PROJECT / "docs/AUDIT.md").read_text(encoding="utf-8")
    blocks = [
        "\n".join(line[4:] for line in b.splitlines()) for b in re.findall(r"(?:^(?:    .*)?\n)*^    .*\n", guide, re.M)
    ]
    books = [block for block in blocks if "confidence:" in block]
    commands = [line for block in blocks for line in block.splitlines() if line.startswith("acclimate audit ")]
    assert (len(books), len(commands)) == (1, 2)
    assert [block for block in blocks if re.search(r"^\s*rules:", block, re.M)] == books
    table = predictions({"a": 60, "b": 60}, n=60).replace({"cat": "ill", "dog": "well"})
    table = table.assign(sex=["f", "m", "m", "f"] * 30, age=["old", "old", "young"] * 40)
    for name in ("predictions.csv", "predictions.parquet", "old_model.csv"):
        save(name, table)
    save("rules.yaml", books[0])
    for command in commands:
        done = acclimate(*shlex.split(command)[2:])
        assert (done.stderr, done.exit_code) == ("", 3)


def test_other_peoples_files_and_the_pipelines_are_kept() -> None:
    Path("mine").mkdir()
    save("mine/by_group.csv", "own")
    save("table.csv", predictions({"a": 2}, n=2))
    done = acclimate("table.csv", "--group-columns", "site", "--out", "mine")
    assert (done.exit_code, Path("mine/by_group.csv").read_text()) == (2, "own")
    assert done.stderr == (
        "error: --out mine holds by_group.csv that `acclimate audit` has not written; name another folder, or remove them\n"
    )
    save("dvc.yaml", "stages: {}")
    done = acclimate("table.csv", "--group-columns", "site", "--out", "data/audit")
    assert (done.exit_code, done.stderr) == (
        2, "error: --out data/audit belongs to the stage audit_bias of the pipeline; name another folder\n",
    )  # fmt: skip


def test_required_rules_come_first_with_their_whole_reason() -> None:
    table = predictions(
        {f"hospital {k} of the northern province": 700 + 20 * k for k in range(10)}, n=1000
    ).reset_index(names="image_id")
    names = ["first", "advice", "second", "hint"]
    changes = [{"name": name, "required": name in ("first", "second")} for name in names]
    changes[3] |= {"limit": 0.9}
    done = acclimate(save("table.csv", table), "--group-columns", "site", "--out", "out", "--rules", rules(*changes))
    reasons = {rule["name"]: rule["reason"] for rule in json.loads(Path("out/verdict.json").read_text())["rules"]}
    lines = done.stdout.splitlines()
    assert len(reasons["first"]) > 200
    assert lines[:2] == [f"fail: {name} (site, required): {reasons[name]}" for name in ("first", "second")]
    assert lines[2] == "fail: advice (site, advisory): group hospital 0 of the northern province"
    assert lines[3] == "pass: hint (site, advisory)"
    assert re.fullmatch(r"fail: 2 of 2 required rules fail; see out.audit.html", lines[4])
    assert len(lines) == 5


def test_a_rule_on_all_images_and_an_endless_label_are_told() -> None:
    rule = {"name": "r", "verdict": "fail", "column": "", "required": True, "reason": "x" * 5000}
    line = rule_line(rule)
    assert line.startswith("fail: r (all images, required): x")
    assert len(line) == MAX_REASON + 1


def test_without_a_required_rule_the_last_line_says_so() -> None:
    done = acclimate(
        save("table.csv", predictions({"a": 10, "b": 10}, n=40)), "--group-columns", "site", "--out", "out",
        "--rules", rules({"required": False}),
    )  # fmt: skip
    assert done.stdout.splitlines()[-1].startswith("inconclusive: no rule is required")


def test_group_id_as_a_column_of_groups_is_noted() -> None:
    told = notes(PLAIN.assign(group_id=["p", "p", "q", "q"]), columns="site,group_id")
    assert told == ["table.csv: group_id is the unit of sampling, not an attribute; its groups are no kinds of people."]
