"""Rules of the audit: what may be asked of a group, and every mistake told at once with what is allowed."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from setuptools import find_namespace_packages

from flows.audit_cli import BASELINE, RULES
from tasks.params.audit_file import read_audit_rules
from tasks.params.auditing import AuditRules, problems_between_audit_rules, problems_of_explanations

PROJECT = Path(__file__).parents[1]
RULE = {
    "name": "a", "metric": "accuracy", "column": "site", "comparison": "difference", "reference": "overall", "limit": 0.05,
    "required": True,
}  # fmt: skip
BOOK = {
    "confidence": 0.95,
    "min_group_size": 20,
    "n_bootstrap": 2000,
    "max_intersection_order": 2,
    "slices": [],
    "threshold_optimizer": None,
    "columns_explained": {},
}
CHANGE = {"comparison": "change", "reference": "source_only"}
FLOOR = {"comparison": "floor", "reference": ""}


@pytest.fixture
def told(tmp_path: Path) -> Callable[..., str]:
    """What the reader says of a file with these rules ("" = nothing to say)."""

    def tell(*rules: dict[str, Any], **changes: Any) -> str:
        path = tmp_path / "rules.yaml"
        YAML(typ="safe").dump({**BOOK, "rules": list(rules), **changes}, path)
        try:
            read_audit_rules(path)
        except ValueError as error:
            return str(error).removeprefix(str(path))
        return ""

    return tell


def test_the_default_asks_one_thing_and_advises_on_the_rest() -> None:
    rules = read_audit_rules(RULES).rules
    required = [rule for rule in rules if rule.required]
    assert [(r.metric, r.column, r.comparison, r.reference, r.limit) for r in required] == [
        ("accuracy", "*", "difference", "others", 0.05)
    ]
    assert {rule.reference for rule in rules if rule.comparison == "difference"} == {"others"}
    assert not any("overall" in rule.name for rule in rules)
    assert {rule.column for rule in rules} == {"*"}
    assert [rule.reference for rule in rules if rule.comparison == "change"] == [BASELINE]


def test_the_section_of_a_whole_params_file_does_as_well(tmp_path: Path) -> None:
    book = {**BOOK, "rules": [RULE]}
    YAML(typ="safe").dump({"seed": 0, "audit_bias": book}, tmp_path / "params.yaml")
    assert read_audit_rules(tmp_path / "params.yaml") == AuditRules.model_validate(book)


def test_slices_may_be_left_out_of_a_file_for_tables_and_not_of_the_pipelines(tmp_path: Path) -> None:
    book = {key: value for key, value in BOOK.items() if key != "slices"} | {"rules": [RULE]}
    path = tmp_path / "rules.yaml"
    YAML(typ="safe").dump(book, path)
    assert read_audit_rules(path).slices == []
    YAML(typ="safe").dump({"audit_bias": book}, path)
    with pytest.raises(ValueError, match=r"1 problem\(s\):\n  - slices is missing"):
        read_audit_rules(path)


def test_thresholds_are_left_out_of_a_file_for_tables_and_told_where_they_are_no_such_thing(
    tmp_path: Path, told: Callable[..., str]
) -> None:
    path = tmp_path / "rules.yaml"
    YAML(typ="safe").dump({**{key: BOOK[key] for key in BOOK if key != "threshold_optimizer"}, "rules": [RULE]}, path)
    assert read_audit_rules(path).threshold_optimizer is None
    asked = {"column": "site", "positive": "", "constraint": "parity", "objective": "accuracy"}
    message = told(RULE, threshold_optimizer=asked)
    assert "2 problem(s)" in message
    assert "threshold_optimizer.positive is ''" in message
    assert "threshold_optimizer.constraint is 'parity'; input should be 'true_positive_rate_parity', " in message


def test_no_rule_is_told(told: Callable[..., str]) -> None:
    assert told().endswith("rules is []; no rule is asked, so nothing could be judged: write at least one")


@pytest.mark.parametrize(
    "change",
    [
        {"metric": "recall:cat"}, {"metric": "selection_rate:a:b"}, {"metric": "worst_class_recall"},
        {"column": "*"}, {"column": "site × age"},
        {"reference": "others"}, {"reference": "pairwise"}, {"reference": "group:<b>x</b>"}, {"limit": 0},
        {"comparison": "ratio", "reference": "largest"}, {"comparison": "four_fifths", "reference": "highest", "limit": 0.8},
        FLOOR, {**FLOOR, "column": ""}, CHANGE, {**CHANGE, "column": ""}, {**FLOOR, "limit": 1},
    ],
)  # fmt: skip
def test_what_may_be_asked(told: Callable[..., str], change: dict[str, Any]) -> None:
    assert told(RULE | change) == ""


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"metric": "acuracy"}, "rules.0.metric is 'acuracy'; did you mean 'accuracy'?"),
        ({"metric": "recal:cat"}, "rules.0.metric is 'recal:cat'; did you mean 'recall'?"),
        ({"metric": "auc"}, "rules.0.metric is 'auc'; allowed are accuracy, balanced_accuracy, worst_class_recall, abstention,"),
        ({"metric": "recall"}, "rules.0.metric is 'recall'; it is counted class by class: write 'recall:<class>'"),
        ({"metric": "recall:"}, "rules.0.metric is 'recall:'; it is counted class by class: write 'recall:<class>'"),
        ({"metric": "accuracy:cat"}, "rules.0.metric is 'accuracy:cat'; it is counted over all classes: write 'accuracy'"),
        ({"reference": "rest"}, "rules.0.reference is 'rest'; allowed are others, overall, largest, highest, pairwise, or '"),
        ({"reference": "group:"}, "rules.0.reference is 'group:'; allowed are"),
        ({"comparison": "diff"}, "rules.0.comparison is 'diff'; input should be 'difference', 'ratio', 'four_fifths', 'floor'"),
        ({"comparison": "floor"}, "rules.0.reference is 'overall'; a floor is asked of each group by itself: write ''"),
        ({"comparison": "change"}, "rules.0.reference is 'overall'; a change is measured against another model: name it"),
        ({**CHANGE, "reference": ""}, "rules.0.reference is ''; a change is measured against another model: name it"),
        ({"comparison": "four_fifths", "limit": 0.8}, "rules.0.reference is 'overall'; four_fifths compares with the group that"),
        ({"comparison": "four_fifths", "reference": "highest"}, "rules.0.limit is 0.05; four_fifths means 0.8; use ratio"),
        ({"comparison": "ratio", "limit": 0}, "rules.0.limit is 0; every ratio is above 0, so nothing could fail"),
        ({"limit": 1}, "rules.0.limit is 1; no two values differ by more than 1, so nothing could fail"),
        ({**CHANGE, "limit": 1.0}, "rules.0.limit is 1.0; no two values differ by more than 1, so nothing could fail"),
        ({"limit": 5}, "rules.0.limit is 5; input should be less than or equal to 1"),
        ({"limit": "0.05"}, "rules.0.limit is '0.05'; input should be a valid number"),
        ({"column": ""}, "rules.0.comparison is 'difference'; column '' is all images as one group: only a floor or a change"),
        (
            {**CHANGE, "metric": "calibration_error"},
            "rules.0.comparison is 'change'; of the other model only predictions are known, no probabilities",
        ),
        ({"requird": True}, "rules.0.requird is not a known key; did you mean 'required'?"),
        ({"required": "yes"}, "rules.0.required is 'yes'; input should be a valid boolean"),
        ({"name": ""}, "rules.0.name is ''; string should have at least 1 character"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_meant_is_told(told: Callable[..., str], change: dict[str, Any], sentence: str) -> None:
    assert told(RULE | change).startswith(f" has 1 problem(s):\n  - {sentence}")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"min_group_size": 1}, "min_group_size is 1; input should be greater than or equal to 2"),
        ({"n_bootstrap": 99}, "n_bootstrap is 99; input should be greater than or equal to 100"),
        ({"max_intersection_order": 0}, "max_intersection_order is 0; input should be greater than or equal to 1"),
        ({"confidence": 1.0}, "confidence is 1.0; input should be less than 1"),
        ({"confidance": 0.9}, "confidance is not a known key; did you mean 'confidence'?"),
    ],
)
def test_settings_that_cannot_be_meant_are_told(
    told: Callable[..., str], changes: dict[str, Any], sentence: str
) -> None:
    assert told(RULE, **changes) == f" has 1 problem(s):\n  - {sentence}"


def test_every_problem_is_told_at_once(told: Callable[..., str]) -> None:
    found = told(
        RULE | {"metric": "auc", "limit": 2}, RULE | FLOOR, RULE | {"name": "b", "reference": "x"}, slices="all"
    )
    assert [line.split(" ")[3] for line in found.splitlines()[1:]] == [
        "slices", "rules.0.metric", "rules.0.limit", "rules.2.reference", "rules",
    ]  # fmt: skip
    assert found.endswith("rules names 'a' more than once; give each rule a name of its own")


@pytest.mark.parametrize("content", [None, [], "rules", {"rules": None}, {"rules": [1, {"name": 2}, {"name": 2}]}])
def test_names_are_looked_for_in_anything(content: Any) -> None:
    assert problems_between_audit_rules(content, "audit_bias.") == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the file is None; input should be a valid dictionary"),
        ("rules: [", "is not readable YAML"),
        ("confidence: 0.9\nconfidence: 0.8", "is not readable YAML: found duplicate key"),
    ],
)
def test_a_file_that_is_no_rules_is_told(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=sentence):
        read_audit_rules(path)


def test_the_rules_travel_with_the_package() -> None:
    """The folder of the rules is found as a package, and its files match a pattern of package data."""
    told = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = find_namespace_packages(str(PROJECT), include=told["packages"]["find"]["include"])
    assert ".".join(RULES.parent.relative_to(PROJECT).parts) in packages
    assert any(RULES.match(pattern) for pattern in told["package-data"]["*"])


def test_columns_may_be_explained_in_a_sentence_and_only_those_that_are_there(told: Callable[..., str]) -> None:
    assert told(RULE, columns_explained={"site": "Hospital."}) == ""
    assert "columns_explained.site is ''; string should have at least 1 character" in told(
        RULE, columns_explained={"site": ""}
    )


def test_an_explanation_of_no_column_is_told() -> None:
    columns = ["site", "age", "brightness"]
    assert problems_of_explanations({"site": "a", "group_id": "b", "brightness": "c"}, columns, "") == []
    assert problems_of_explanations({"sit": "a", "zzz": "b"}, columns, "audit_bias.") == [
        "audit_bias.columns_explained names 'sit', which is no column of groups; did you mean 'site'?",
        "audit_bias.columns_explained names 'zzz', which is no column of groups; there are 'site', 'age', 'brightness', "
        "'group_id'",
    ]
