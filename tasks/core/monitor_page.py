"""The page of one monitoring run and its history: one HTML file, no network, no clock of its own."""

import math
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tasks.core.charts import CYCLE, _figure, _quiet_svg
from tasks.core.monitoring import WORDS
from tasks.core.validation_page import cut

TEMPLATE = "monitor.html.jinja"
MAX_RUNS = 60  # drawn and listed; older ones stay in the history
MAX_DRAWN = 6  # lines: one colour each


def monitor_page(found: dict[str, Any], history: list[dict[str, Any]]) -> str:
    """The page as HTML, `history` oldest first and ending with this run; all text is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=_finalized,
    )  # fmt: skip
    return environment.get_template(TEMPLATE).render(
        m=found, runs=history[-MAX_RUNS:][::-1], n_runs=len(history), words=WORDS, num=_number,
        chart=Markup(history_chart(history[-MAX_RUNS:])),  # matplotlib escapes the text in its SVG
    )  # fmt: skip


def history_chart(runs: list[dict[str, Any]]) -> str:
    """Accuracy (estimated, and on labels) and the largest shifts over time, as SVG; "" for a single run or none.

    Runs stand evenly, in order, each with its date: of two on one day neither hides the other.
    """
    if len(runs) < 2:
        return ""
    figure = _figure(9.5, 5.2)
    accuracy_axis, shift_axis = figure.subplots(2, 1, sharex=True)
    for name, key, shape in (("estimated", "estimate", "o"), ("on labels", "accuracy", "D")):
        values = [run.get(key) for run in runs]
        _line(accuracy_axis, [v and (v["value"], v["low"], v["high"]) for v in values], name, shape)
    for number, name in enumerate(_largest(runs)):
        _line(shift_axis, [run["checks"].get(name) for run in runs], name, "os^vDP"[number % 6])
    for axis, title in ((accuracy_axis, "accuracy"), (shift_axis, "shifts and shares, the largest ones")):
        axis.set_title(title)
        if axis.get_legend_handles_labels()[1]:
            axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    shift_axis.set_xticks(range(len(runs)), [_day(run["time"]) for run in runs], rotation=90 if len(runs) > 12 else 0)
    return _quiet_svg(figure)


def _line(axis: Any, values: list[Any], name: str, shape: str) -> None:
    """One measure over the runs, with its intervals; runs in which it was not measured leave a gap."""
    ends = np.array([v[:3] if v and None not in v[:3] else [math.nan] * 3 for v in values], float)
    if np.isnan(ends[:, 0]).all():
        return
    spread = np.nan_to_num(np.maximum([ends[:, 0] - ends[:, 1], ends[:, 2] - ends[:, 0]], 0))
    colour = CYCLE[len(axis.containers) % len(CYCLE)]
    axis.errorbar(
        range(len(values)), ends[:, 0], yerr=spread, fmt=f"{shape}-", color=colour, capsize=2, markersize=4, label=name
    )


def _largest(runs: list[dict[str, Any]]) -> list[str]:
    """The checks that were largest in any run, drops of the accuracy left out: those stand above."""
    size: dict[str, float] = {}
    for run in runs:
        for name, (value, *_) in run["checks"].items():
            if value is not None and not name.startswith("drop"):
                size[name] = max(size.get(name, 0.0), abs(value))
    return sorted(size, key=lambda name: (-size[name], name))[:MAX_DRAWN]


def _day(time: str) -> str:
    try:
        return datetime.fromisoformat(time).strftime("%m-%d %H:%M")
    except ValueError:
        return "?"


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{round(value, 3) + 0.0:.3f}"  # + 0.0: no minus before a zero


def _finalized(value: object) -> object:
    return "not measured" if value is None else cut(value)
