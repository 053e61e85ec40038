"""Rules of an audit outside the pipeline: a file of their own, or the section of a whole params.yaml; checked against a table."""

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from tasks.params.auditing import (
    CLASS_METRICS,
    ONE_GROUP,
    AuditRule,
    AuditRules,
    Thresholds,
    problems_between_audit_rules,
    problems_of_explanations,
)
from tasks.params.reading import _read_yaml, _sentence
from tasks.params.training import Name

EVERY_COLUMN, ALL_IMAGES, TIMES = "*", "", " × "
N_NAMED = 10


class TableRules(AuditRules):
    """The same keys in a file of their own.

    A table has no facts of images and no predictions of other images, so its rules need not speak of slices and thresholds.
    """

    slices: list[Name] = Field(default_factory=list)
    threshold_optimizer: Thresholds | None = None
    columns_explained: dict[str, Annotated[str, Field(min_length=1)]] = Field(default_factory=dict)


def read_audit_rules(path: Path) -> AuditRules:
    """The checked rules. ValueError lists every problem: key, value, what is allowed, nearest known key."""
    content = _read_yaml(path, "name a YAML file of rules, or a params.yaml")
    kind: type[AuditRules] = TableRules
    if isinstance(content, dict) and "audit_bias" in content:
        content, kind = content["audit_bias"], AuditRules
    found, problems = None, []
    try:
        found = kind.model_validate(content)
    except ValidationError as error:
        problems = [_sentence(detail, kind) for detail in error.errors()]
    if found and not found.rules:
        problems.append("rules is []; no rule is asked, so nothing could be judged: write at least one")
    problems += problems_between_audit_rules(content, "")
    if problems or found is None:
        raise ValueError(f"{path} has {len(problems)} problem(s):\n  - " + "\n  - ".join(problems))
    return found


def problems_with_table(book: AuditRules, groups: Mapping[str, Collection[str]], classes: Collection[str]) -> list[str]:
    """Sentences on rules that name a column, group or class that the table lacks, and on explanations of no column.

    groups: names of groups by column, intersections included. Slices that the book asks for are absent, and no typing error.
    """
    columns = [name for name in groups if TIMES not in name]
    problems = problems_of_explanations(book.columns_explained, [*columns, *book.slices], "")
    for i, rule in enumerate(book.rules):
        for key, told in (
            ("metric", _problem_of_class(rule, classes)),
            ("column", _problem_of_column(rule, book, groups)),
            ("reference", _problem_of_group(rule, groups)),
        ):
            if told:
                problems.append(f"rules.{i}.{key} is {getattr(rule, key)!r}; {told}")
    return problems


def _problem_of_class(rule: AuditRule, classes: Collection[str]) -> str:
    name, _, label = rule.metric.partition(":")
    if name not in CLASS_METRICS or label in classes:
        return ""
    near = nearest(label, classes)
    return f"did you mean '{name}:{near}'?" if near else f"the classes are {_listed(classes)}"


def _problem_of_column(rule: AuditRule, book: AuditRules, groups: Mapping[str, Collection[str]]) -> str:
    if rule.column in (EVERY_COLUMN, ALL_IMAGES, *groups, *(f"{name} (thirds)" for name in book.slices)):
        return ""
    if near := nearest(rule.column, groups):
        return f"did you mean {near!r}?"
    return (
        f"allowed are {_listed(groups)}, '*' for each column of groups, '' for all images together, and 'a{TIMES}b' up to "
        f"max_intersection_order ({book.max_intersection_order})"
    )


def _problem_of_group(rule: AuditRule, groups: Mapping[str, Collection[str]]) -> str:
    if not rule.reference.startswith(ONE_GROUP) or rule.column not in (EVERY_COLUMN, *groups):
        return ""
    columns = [name for name in groups if TIMES not in name] if rule.column == EVERY_COLUMN else [rule.column]
    known = {name for column in columns for name in groups[column]}
    group = rule.reference.removeprefix(ONE_GROUP)
    if group in known:
        return ""
    if near := nearest(group, known):
        return f"did you mean '{ONE_GROUP}{near}'?"
    where = "" if rule.column == EVERY_COLUMN else f" of {rule.column!r}"
    return f"the groups{where} are {_listed(known)}"


def nearest(word: str, known: Collection[str]) -> str | None:
    """The name that differs in capitals, blanks or the order of an intersection only; else one that is spelled alike."""
    same = [name for name in sorted(known) if _bare(name) == _bare(word)]
    return next(iter(same or difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.5)), None)


def look_alikes(names: Collection[str]) -> list[list[str]]:
    """The names that differ in nothing but capitals and blanks, together."""
    alike: dict[str, list[str]] = {}
    for name in sorted(names):
        alike.setdefault(_plain(name), []).append(name)
    return [found for found in alike.values() if len(found) > 1]


def _plain(word: str) -> str:
    return "".join(word.casefold().split())


def _bare(word: str) -> list[str]:
    return sorted(_plain(part) for part in word.split(TIMES))


def _listed(names: Collection[str]) -> str:
    return ", ".join(map(repr, sorted(names)[:N_NAMED])) + (" …" if len(names) > N_NAMED else "")
