"""The page of a selection on its own: one HTML file, no network, no clock."""

import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tasks.core.charts import map_chart, selection_chart

TEMPLATE = "selection.html.jinja"
MEANING = {
    "knn": "share right of a vote of nearest neighbours",
    "linear_probe": "share right of a linear classifier, cross-validated",
    "transfer_probe": "the same, of one that learns from the source as well",
    "logme": "how well a linear model explains the labels",
    "h_score": "how far the classes lie apart for their spread",
    "leep": "how well the network's own classes foretell the labels",
    "source_probe": "share right of a linear classifier on the source",
    "static_prior": "published accuracy, or the number of parameters",
    "proxy_a_distance": "how well a classifier tells the domains apart, 0 to 2",
    "linear_mmd": "distance of the means",
    "kid": "distance of means, spreads and skews",
    "coral_distance": "distance of the covariances",
    "frechet_distance": "distance of means and covariances",
}


def selection_page(selection: dict[str, Any]) -> str:
    """The page as HTML; everything that comes from data is escaped, charts are our own SVG."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    # matplotlib escapes text in its SVG, so names can't smuggle markup in
    return environment.get_template(TEMPLATE).render(
        s=selection,
        gaps=[(entry["name"], gap) for entry in selection["candidates"] for gap in entry["gaps"]],
        chart=Markup(selection_chart(selection["candidates"])),
        map=Markup(map_chart(selection["map"]["points"])),
        meaning=MEANING,
        digits=digits,
        num=lambda value: "not measured" if value is None or value != value else f"{value:.3f}",
        plus=lambda value: "not measured" if value is None or value != value else f"{value:+.3f}",
        percent=lambda share: f"{share:.0%}",
    )


def digits(value: float, score: dict[str, Any]) -> str:
    """A number of a score, with as many decimals as give the ends of its interval three digits."""
    end = max(abs(score["low"]), abs(score["high"]))
    n_decimals = min(max(2 - math.floor(math.log10(end)), 0), 9) if end else 3
    return f"{round(value, n_decimals) + 0.0:,.{n_decimals}f}"  # + 0.0: no minus before a zero
