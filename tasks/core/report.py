"""The report: one self-contained HTML page (own styles and pictures, no network, no clock)."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tasks.core.charts import comparison_chart, confusion_chart, group_chart, learning_chart, map_chart, selection_chart

TEMPLATE = "report.html.jinja"
GUARD_CLASSES = {"adopt": "pass", "keep": "fail", "inconclusive": "inconclusive"}


@dataclass(frozen=True)
class ReportFacts:
    """Everything the page shows, as the stages wrote it."""

    name: str
    verdict: dict[str, Any]
    groups: pd.DataFrame
    adopted: pd.DataFrame
    metrics: dict[str, Any]
    decision: dict[str, Any]
    selection: dict[str, Any]
    validation: dict[str, Any]
    history: pd.DataFrame
    preview: bytes
    to_label: pd.DataFrame
    to_label_sheet: bytes
    lineage: dict[str, str]


def render(facts: ReportFacts) -> str:
    """The page as HTML; everything that comes from data is escaped, charts are our own SVG."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    failed = [
        f"{r['rule'].replace('_', ' ')}: {r['n_failed']} ({r['severity']})"
        for r in facts.validation["rules"]
        if r["n_failed"] and r["severity"] != "note"
    ]
    return environment.get_template(TEMPLATE).render(
        f=facts,
        groups=facts.groups.to_dict("records"),
        guard_word=guard_word(facts.decision["guard"]),
        guard_class=GUARD_CLASSES[facts.decision["guard"]["decision"]],
        failed_rules="; ".join(failed),
        preview=base64.b64encode(facts.preview).decode(),
        to_label=facts.to_label.to_dict("records"),
        to_label_sheet=base64.b64encode(facts.to_label_sheet).decode(),
        charts=_charts(facts),
        num=_number,
        plus=_signed,
        percent=lambda share: f"{share:.0%}",
    )


def guard_word(guard: dict[str, Any]) -> str:
    """adopt (proven, at which one-sided level) | adopt (unproven) | keep source-only | inconclusive."""
    if guard["decision"] == "adopt":
        return f"adopt (proven, {guard['level']:.0%} one-sided)" if guard["is_proven"] else "adopt (unproven)"
    return "keep source-only" if guard["decision"] == "keep" else "inconclusive, source-only stays"


def _charts(facts: ReportFacts) -> dict[str, Markup]:
    # matplotlib escapes text in its SVG, so class and group names can't smuggle markup in
    limits = {rule["column"]: rule["max_gap"] for rule in facts.verdict["rules"]}
    charts = {
        "comparison": comparison_chart(facts.metrics),
        "selection": selection_chart(facts.selection["candidates"]),
        "map": map_chart(facts.selection["map"]["points"]),
        "learning": learning_chart(facts.history),
        "confusion": confusion_chart(
            list(facts.adopted["y_true"]), list(facts.adopted["y_pred"]), facts.validation["classes"]
        ),
        "groups": group_chart(facts.groups, limits) if len(facts.groups) else "",
    }
    return {name: Markup(svg) for name, svg in charts.items()}


def _number(value: float | None) -> str:
    return "not measured" if value is None or value != value else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "not measured" if value is None or value != value else f"{value:+.3f}"
