"""The page of a selection on its own: one HTML file, no network, no clock."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tasks.core.charts import map_chart, selection_chart

TEMPLATE = "selection.html.jinja"


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
        num=lambda value: "not measured" if value is None or value != value else f"{value:.3f}",
        plus=lambda value: "not measured" if value is None or value != value else f"{value:+.3f}",
        percent=lambda share: f"{share:.0%}",
    )
