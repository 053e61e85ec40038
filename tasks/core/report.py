"""What the reviewer's page tells of the run: selection, training, the guard's decision, the data."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from tasks.core.charts import comparison_chart, confusion_chart, learning_chart, map_chart, selection_chart

GUARD_CLASSES = {"adopt": "pass", "keep": "fail", "inconclusive": "inconclusive"}


@dataclass(frozen=True)
class ReportFacts:
    """What the stages before the audit wrote."""

    adopted: pd.DataFrame
    metrics: dict[str, Any]
    decision: dict[str, Any]
    selection: dict[str, Any]
    validation: dict[str, Any]
    history: pd.DataFrame
    preview: bytes
    to_label: pd.DataFrame
    to_label_sheet: bytes


def pipeline_context(facts: ReportFacts) -> dict[str, Any]:
    """What the sections on the pipeline say beside the facts themselves."""
    failed = [
        f"{r['rule'].replace('_', ' ')}: {r['n_failed']} ({r['severity']})"
        for r in facts.validation["rules"]
        if r["n_failed"] and r["severity"] != "note"
    ]
    return {
        "guard_word": guard_word(facts.decision["guard"]),
        "guard_class": GUARD_CLASSES[facts.decision["guard"]["decision"]],
        "failed_rules": "; ".join(failed),
        "to_label": facts.to_label.to_dict("records"),
    }


def guard_word(guard: dict[str, Any]) -> str:
    """adopt (proven, at which one-sided level) | adopt (unproven) | keep source-only | inconclusive."""
    if guard["decision"] == "adopt":
        return f"adopt (proven, {guard['level']:.0%} one-sided)" if guard["is_proven"] else "adopt (unproven)"
    return "keep source-only" if guard["decision"] == "keep" else "inconclusive, source-only stays"


def pipeline_charts(facts: ReportFacts) -> dict[str, str]:
    """SVG by name; "" where there is nothing to draw."""
    return {
        "comparison": comparison_chart(facts.metrics),
        "selection": selection_chart(facts.selection["candidates"]),
        "map": map_chart(facts.selection["map"]["points"]),
        "learning": learning_chart(facts.history),
        "confusion": confusion_chart(
            list(facts.adopted["y_true"]), list(facts.adopted["y_pred"]), facts.validation["classes"]
        ),
    }
