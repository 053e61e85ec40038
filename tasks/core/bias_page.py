"""The reviewer's page: one self-contained HTML file that says what was found, for whom, how sure, and what to decide.

It needs no network and no clock. It serves the pipeline and a table of predictions from anywhere, where the pipeline's sections
are absent. Everything that comes from data is escaped, hidden characters are spelled out, long tables are cut with a word on it.
"""

import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from tasks.core.bias.breakdown import WORSE
from tasks.core.bias.rules import Rule
from tasks.core.bias.sentences import metric_words, shown
from tasks.core.bias.table import is_not_known
from tasks.core.bias_columns import Origin, column_words, draws_words
from tasks.core.bias_tables import (
    change_tables,
    class_tables,
    composition_tables,
    data_uri,
    gap_table,
    group_tables,
    model_tables,
    picture,
    worst_findings,
)
from tasks.core.bias_views import annex_iv, impact_ratios
from tasks.core.bias_words import (
    CLUSTER,
    DEFINITIONS,
    KINDS,
    NOT_GIVEN,
    NOT_JUDGED,
    NOT_MEASURED,
    ORDER,
    OUTCOMES,
    UNIT_NOTE,
    VERDICTS,
    by_badness,
    deciding_ends,
    deciding_group,
    ends_words,
    estimate_words,
    found_words,
    interval,
    is_number,
    limit_words,
    n_more_words,
    number,
    percent,
    picked_words,
    points,
    rule_of,
    rule_words,
    signed_points,
    spelled,
    unit_of,
    unless_words,
    what_would_decide,
)
from tasks.core.report import ReportFacts, pipeline_charts, pipeline_context

TEMPLATE = "bias.html.jinja"
PARTS = (
    "bias_macros.html.jinja", "bias_groups.html.jinja", "bias_mitigation.html.jinja", "bias_pipeline.html.jinja",
    "bias_views.html.jinja",
)  # fmt: skip
CORRECTIONS = {"holm": "Holm"}
MAX_RULE_GROUPS, MAX_ALERTS = 30, 4


@dataclass(frozen=True)
class ErrorSheet:
    """A contact sheet of one group's errors."""

    group: str
    png: bytes
    caption: str


@dataclass(frozen=True)
class BiasFacts:
    """What the page shows.

    verdict, by_group, by_class, changes: as `tasks.core.bias.verdict.audit` returns them; composition and gaps as
    `tasks.core.bias.composition`. models: one row per model and column: model, n, accuracy, accuracy_low, accuracy_high, column,
    worst_group, worst_n, worst, worst_low, worst_high (accuracy of the worst group). rules_text: the rules as they were read,
    and `rules_from` a clause on where they come from. origin: where the columns come from.
    """

    name: str
    verdict: dict[str, Any]
    by_group: pd.DataFrame
    by_class: pd.DataFrame
    changes: pd.DataFrame
    composition: pd.DataFrame | None = None
    gaps: pd.DataFrame | None = None
    error_sheets: tuple[ErrorSheet, ...] = ()
    models: pd.DataFrame | None = None
    rules_text: str = ""
    rules_from: str = "Set in params.yaml before this run"
    origin: Origin = field(default_factory=Origin)
    lineage: dict[str, str] = field(default_factory=dict)
    pipeline: ReportFacts | None = None


def render(facts: BiasFacts) -> str:
    """The page as HTML."""
    pipeline, rules = facts.pipeline, told_rules(facts.verdict["rules"])
    parts = group_tables(facts.by_group, facts.verdict["rules"])
    context: dict[str, Any] = {"f": pipeline, "charts": {}}
    if pipeline is not None:
        context |= pipeline_context(pipeline)
        context |= {
            "preview": data_uri(pipeline.preview, "image/png"),
            "to_label_sheet": data_uri(pipeline.to_label_sheet, "image/png"),
            "charts": {name: picture(svg) for name, svg in pipeline_charts(pipeline).items()},
        }
    return _environment().get_template(TEMPLATE).render(
        b=facts,
        v=facts.verdict,
        verdict_words=VERDICTS[facts.verdict["verdict"]],
        rules=rules,
        open_rules=deciding_rules(facts.verdict),
        level=percent(facts.verdict["confidence"], 0),
        correction=CORRECTIONS.get(facts.verdict["correction"], facts.verdict["correction"]),
        changes=change_tables(facts.changes),
        alert=losses_behind_a_gain(facts.changes),
        parts=parts,
        absent=absent_sections(facts, parts),
        unknown=facts.verdict["unknown_share"],
        class_tables=class_tables(facts.by_class),
        compositions=[] if facts.composition is None else composition_tables(facts.composition),
        data_gaps=gap_table(facts.gaps),
        sheets=[(sheet, data_uri(sheet.png, "image/png")) for sheet in facts.error_sheets],
        models=model_tables(facts.models),
        findings=findings_of(facts),
        columns=columns_told(facts),
        draws=draws_words(facts.verdict["sampling"], facts.origin),
        impact=impact_ratios(facts.by_group, facts.by_class, facts.verdict["rules"]),
        annex=annex_iv(has_pipeline=pipeline is not None),
        lineage=facts.lineage,
        **context,
    )  # fmt: skip


def absent_sections(facts: BiasFacts, parts: dict[str, dict[str, Any]]) -> dict[str, tuple[str, str]]:
    """Title and sentence of each section that would hold nothing, by its anchor."""
    is_there = {
        "change": len(facts.changes) > 0,
        "crossed": bool(parts["crossed"]["rows"]),
        "slices": bool(parts["slices"]["rows"]),
        "data": any(table is not None and len(table) > 0 for table in (facts.composition, facts.gaps)),
        "explanations": bool(facts.error_sheets),
        "trade": facts.verdict["mitigation"] is not None or (facts.models is not None and len(facts.models) > 0),
    }
    return {name: told for name, told in NOT_GIVEN.items() if not is_there[name]}


def columns_told(facts: BiasFacts) -> list[tuple[str, str]]:
    """Each column with a sentence on what it is; group_id once, with a note where it was asked for as if it were an attribute."""
    told = dict(column_words(facts.verdict, facts.origin))
    if CLUSTER in facts.verdict["columns"]:
        told[CLUSTER] += f" {UNIT_NOTE}"
    return list(told.items())


def findings_of(facts: BiasFacts) -> list[dict[str, Any]]:
    """Where the model is worst, per kind of group."""
    return worst_findings(facts.by_group, facts.by_class, facts.verdict["overall"]["accuracy"]["value"])


def losses_behind_a_gain(changes: pd.DataFrame) -> dict[str, Any]:
    """Groups that lose although all images together gain: those marked as worse, else those that may have lost."""
    whole = changes[changes["column"] == ""].set_index("baseline")["change"]
    hidden = changes[changes["is_hidden_loss"].astype(bool)].sort_values("change", kind="stable")
    is_shown = hidden["change_mark"] == WORSE
    told = (hidden[is_shown] if is_shown.any() else hidden).head(MAX_ALERTS)
    return {
        "is_shown": bool(is_shown.any()),
        "rows": [row | {"overall": whole[row["baseline"]]} for row in told.to_dict("records")],
        "n_more": len(hidden) - len(told),
    }


def _environment() -> Environment:
    folder = Path(__file__).parent
    environment = Environment(
        loader=DictLoader({name: (folder / name).read_text(encoding="utf-8") for name in (TEMPLATE, *PARTS)}),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_finalized,
    )  # fmt: skip
    own = (
        percent, points, signed_points, number, ends_words, spelled, n_more_words, shown, metric_words, is_not_known,
        found_words, picked_words,
    )  # fmt: skip
    environment.globals |= {function.__name__: function for function in own}
    environment.globals |= {
        "measured": is_number, "outcomes": OUTCOMES, "definitions": DEFINITIONS, "kinds": KINDS, "infinity": math.inf,
    }  # fmt: skip
    return environment


def _finalized(value: object) -> object:
    """Whatever the page prints goes through here: what is absent is said in words, nothing is hidden or endless."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return NOT_MEASURED
    return spelled(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def told_rules(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rules as the page tells them: required ones first, of each kind the failed ones on top."""
    return [_rule(entry) for entry in sorted(entries, key=lambda e: (not e["required"], ORDER.index(e["verdict"])))]


def deciding_rules(verdict: dict[str, Any]) -> list[dict[str, Any]]:
    """The required rules that keep the verdict from being a pass."""
    rules = told_rules(verdict["rules"])
    return [rule for rule in rules if rule["required"] and rule["verdict"] == verdict["verdict"] != "pass"]


def _rule(entry: dict[str, Any]) -> dict[str, Any]:
    rule, worst, groups = rule_of(entry), deciding_group(entry), by_badness(entry)
    return entry | {
        "words": rule_words(rule),
        "limit_words": limit_words(rule),
        "worst": worst,
        "unless": unless_words(entry, worst),
        "worst_words": _worst_words(rule, worst) if worst else NOT_JUDGED,
        "decided_by": what_would_decide(entry),
        "shown_groups": [
            g | {
                "told": _estimate(rule, g, (g["low"], g["high"])),
                "told_adjusted": _estimate(rule, g, (g["adjusted_low"], g["adjusted_high"])),
            }
            for g in groups[:MAX_RULE_GROUPS]
        ],
        "n_more_groups": max(len(groups) - MAX_RULE_GROUPS, 0),
    }  # fmt: skip


def _worst_words(rule: Rule, worst: dict[str, Any]) -> str:
    words = _estimate(rule, worst, deciding_ends(worst), unit_of(rule))
    return f"{words}, widened for the number of groups" if worst["verdict"] == "fail" else words


def _estimate(rule: Rule, group: dict[str, Any], ends: tuple[Any, Any], unit: str = "") -> str:
    return interval(group["estimate"], ends, partial(estimate_words, rule), unit)
