"""The page of validate_data: which images and cells are wrong, why, and what to do (one HTML file, no network, no clock)."""

import math
from collections import Counter
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from tasks.core.advice import ADVICE, CLAIMS, limit_of, policy_of
from tasks.core.charts import balance_chart, forest_chart
from tasks.core.offenders import MAX_PATHS, PAGE_PATHS, Thumbnails, offenders
from tasks.core.validation import SEVERITIES

TEMPLATE = "validation.html.jinja"
MAX_CELLS = 40  # of one table
MAX_COUNT_ROWS, MAX_COUNT_COLUMNS = 40, 12
MAX_GROUPS, MAX_CLASSES = 30, 30  # of a coverage table; of larger ones only the small cells are shown
MAX_SHIFTS, MAX_DRAWN = 80, 40
SPLITS = ("", "train", "val", "guard", "test", "unlabelled", "holdout")
MAX_BARS, MAX_ORIGINS = 40, 6
MAX_TEXT = 300
SHIFT_RULES = {
    "source_to_target": (
        "From one domain to another",
        "that takes a source and a target, or two domains, with images that can be read",
    ),
    "like_accepted": (
        "From the data behind the last promoted model to this data",
        "no model was promoted yet, or none of its domains is left",
    ),
}
WORDS = {
    "fail": "beyond the limit",
    "inconclusive": "inconclusive: the interval straddles the limit",
    "pass": "no shift beyond {limit} shown",
    "": "not measured: fewer than two images on a side",
}


def validation_page(validation: dict[str, Any], read: Callable[[str], bytes]) -> str:
    """The page as HTML; `read` gives the bytes of an image by its path, and may fail."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=_finalized,
    )  # fmt: skip
    environment.filters |= {"cut": cut, "middle": middle, "code": _code, "number": _number, "signed": _signed}
    rules = sorted(({"says": _says(found), **found} for found in validation["rules"]), key=_order)
    return environment.get_template(TEMPLATE).render(
        v=validation,
        verdict=_verdict(validation, rules),
        rules=rules,
        sections=_sections(rules, validation["duplicate_groups"], Thumbnails(read)),
        numbers=_numbers(validation),
        coverage=_coverage(validation["coverage"], _setting(rules, "group_coverage", "min")),
        shifts=[_shifts(validation.get("shifts", []), rule, _setting(rules, rule, "max")) for rule in SHIFT_RULES],
        balance=_balance(validation["counts"]),
        max_bits=_setting(rules, "unique_pictures", "max_bits"),
    )


def cut(text: object, limit: int = MAX_TEXT) -> object:
    """Text of at most `limit` characters as HTML; hidden ones (controls, marks that turn the direction) are spelled out."""
    if not isinstance(text, str) or isinstance(text, Markup):
        return text
    spelled = _spelled(text[: limit + 1])
    fitting = _fitting(spelled, limit)
    return "".join(spelled if len(fitting) == len(spelled) else [*_fitting(spelled, limit - 1), "…"])


def middle(text: str, limit: int) -> str:
    """As `cut`, but from the middle: of a path the end tells most."""
    start, end = _spelled(text[: limit + 1]), _spelled(text[-limit:])[::-1]
    if len(_fitting(start, limit)) == len(start):
        return "".join(start)
    return "".join([*_fitting(start, limit // 2 - 1), "…", *_fitting(end, limit // 2)[::-1]])


def _spelled(text: str) -> list[str]:
    return [c if c.isprintable() else c.encode("unicode_escape").decode() for c in text]


def _fitting(characters: list[str], limit: int) -> list[str]:
    """The first of them that need at most `limit` characters as HTML, where a quote becomes five."""
    ends = accumulate(len(escape(character)) for character in characters)
    return [character for character, end in zip(characters, ends, strict=True) if end <= limit]


def _code(sentence: str) -> Markup:
    """One of our own sentences, what stands between backticks as code."""
    parts = str(escape(sentence)).split("`")
    return Markup("".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts)))


def _finalized(value: object) -> object:
    """Whatever the page prints goes through here: no text is too long, and what is absent is said in words."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "not measured"
    return cut(value)


def _number(value: float | None) -> str:
    return "not measured" if value is None or not math.isfinite(value) else f"{value:,.4g}"


def _signed(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "not measured"
    return f"{round(value, 2) + 0.0:+.2f}"  # + 0.0: no "-0.00"


def _says(found: dict[str, Any]) -> dict[str, str]:
    rule = found["rule"]
    return {"claim": CLAIMS[rule], "advice": ADVICE[rule], "limit": limit_of(found), "policy": policy_of(found)}


def _order(found: dict[str, Any]) -> int:
    """Failed rules first, the severest of them on top; rules that had nothing to check last."""
    if found["n_failed"]:
        return SEVERITIES.index(found["severity"])
    return len(SEVERITIES) + (found["n_checked"] == 0)


def _setting(rules: list[dict[str, Any]], rule: str, name: str) -> Any:
    """A limit as the run had it; None if the rule was not asked."""
    return next((found.get(name) for found in rules if found["rule"] == rule), None)


def _verdict(validation: dict[str, Any], rules: list[dict[str, Any]]) -> dict[str, Any]:
    failed = {name: [r for r in rules if r["n_failed"] and r["severity"] == name] for name in SEVERITIES}
    told = [f"rule {found['rule']} fails:" for found in failed["block"]]
    structure = [said for said in validation["blocked_by"] if not said.startswith(tuple(told))]
    if validation["status"] == "blocked":
        words, look = "Blocked: nothing is trained on this data", "fail"
    elif not validation["n_images"]:
        words, look = "No images: nothing was checked", "inconclusive"
    elif failed["warn"]:
        words, look = "Accepted with warnings", "inconclusive"
    else:
        words, look = "Accepted", "pass"
    return {"words": words, "look": look, "structure": structure, **failed}


def _sections(
    rules: list[dict[str, Any]], groups: list[dict[str, Any]], thumbnails: Thumbnails
) -> list[dict[str, Any]]:
    """The failed rules, each with what is shown of its offenders; the paths listed are shared out among them."""
    failed = [found for found in rules if found["n_failed"]]
    n_listed = min(MAX_PATHS, PAGE_PATHS // max(len(failed), 1))
    return [
        found | offenders(found, groups, thumbnails, n_listed=n_listed)
        if "images" in found
        else found | {"cells": _cells(found["cells"]), "n_more": max(len(found["cells"]) - MAX_CELLS, 0)}
        for found in failed
    ]


def _cells(cells: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Where, and what was found there without saying again where; "" if the first says it all."""
    told = []
    for cell in cells[:MAX_CELLS]:
        where, why = cell["cell"], f"{cell['why']} "
        told.append(
            (where, next((why[len(w) :] for w in (f"{where}: ", f"{where} ") if why.startswith(w)), why).strip())
        )
    return told


def _numbers(validation: dict[str, Any]) -> dict[str, Any]:
    """Totals, and the table class × (domain, origin, split); of more than 40 classes the largest and the smallest."""
    n_of, n_of_row, n_of_column = Counter[Any](), Counter[Any](), Counter[Any]()
    for cell in validation["counts"]:
        row = (not cell["label"], cell["label"] or _no_label(cell["split"]))  # images without label come last
        column = (cell["domain"], cell["origin"], cell["split"])
        for counter, key in ((n_of, (row, column)), (n_of_row, row), (n_of_column, column)):
            counter[key] += int(cell["n"])
    columns = sorted(n_of_column, key=_column_order)[:MAX_COUNT_COLUMNS]
    rows = _ends(n_of_row)
    n_accepted, n_set_aside = n_of_row.total(), int(validation["n_set_aside"])
    return {
        "n_accepted": n_accepted,
        "n_set_aside": n_set_aside,
        "n_rejected": int(validation["n_images"]) - n_accepted - n_set_aside,
        "has_target": any(domain == "target" for domain, _, _ in n_of_column),
        "columns": columns,
        "n_more_columns": len(n_of_column) - len(columns),
        "rows": [(row[1], [n_of[row, column] for column in columns], n_of_row[row]) for row in rows],
        "n_more_rows": len(n_of_row) - len(rows),
        "totals": [n_of_column[column] for column in columns],
    }


def _column_order(column: tuple[str, str, str]) -> tuple[str, str, int, str]:
    domain, origin, split = column
    return domain, origin, SPLITS.index(split) if split in SPLITS else len(SPLITS), split


def _no_label(split: str) -> str:
    """A target image that is used without label may have one that no stage is shown."""
    is_hidden = {"guard": "(hidden)", "test": "(hidden)"}
    return (is_hidden | dict.fromkeys(("unlabelled", "holdout"), "(hidden or none)")).get(split, "(no label)")


def _ends(n_of: Counter[Any]) -> list[Any]:
    """All rows by name if they are few, else the 20 largest and the 20 smallest by size."""
    if len(n_of) <= MAX_COUNT_ROWS:
        return sorted(n_of)
    by_size = sorted(n_of, key=lambda row: (-n_of[row], row))
    return [*by_size[: MAX_COUNT_ROWS // 2], *by_size[-MAX_COUNT_ROWS // 2 :]]


def _coverage(cells: list[dict[str, Any]], least: int | None) -> list[dict[str, Any]]:
    """Per audit column a table group × class, or only its small cells where it would be too large to read."""
    found = []
    for column in dict.fromkeys(cell["column"] for cell in cells):
        own = [cell for cell in cells if cell["column"] == column]
        groups, labels = (list(dict.fromkeys(cell[name] for cell in own)) for name in ("group", "label"))
        few = [cell for cell in own if least is not None and cell["n"] < least]
        entry = {"column": column, "n_cells": len(own), "n_few": len(few), "least": least, "labels": labels, "rows": []}
        if len(groups) <= MAX_GROUPS and len(labels) <= MAX_CLASSES:
            n_of = {(cell["group"], cell["label"]): cell["n"] for cell in own}
            entry["rows"] = [(group, [n_of.get((group, label), 0) for label in labels]) for group in groups]
        few.sort(key=lambda cell: cell["n"])
        found.append(entry | {"few": few[:MAX_CELLS], "n_more": max(len(few) - MAX_CELLS, 0)})
    return found


def _shifts(shifts: list[dict[str, Any]], rule: str, limit: float | None) -> dict[str, Any]:
    """The shifts that one rule looks at, those beyond its limit first, with a forest plot of the first 40."""
    own = [shift | {"verdict": _shift_verdict(shift, limit)} for shift in shifts if shift["rule"] == rule]
    own = [shift | {"words": WORDS[shift["verdict"]].format(limit=_number(limit))} for shift in own]
    own.sort(key=lambda shift: list(WORDS).index(shift["verdict"]))
    drawn = [shift for shift in own if shift["verdict"]][:MAX_DRAWN]
    is_one_pair = len({(shift["from"], shift["to"]) for shift in drawn}) == 1
    pairs = ["" if is_one_pair else f": {cut(_place(s['from']), 25)} → {cut(_place(s['to']), 25)}" for s in drawn]
    names = [f"{cut(shift['property'], 30)}{pair}" for shift, pair in zip(drawn, pairs, strict=True)]
    chart = forest_chart(names, pd.DataFrame(drawn), limit) if drawn and limit is not None else ""
    return {
        "title": SHIFT_RULES[rule][0], "why_empty": SHIFT_RULES[rule][1], "limit": limit,
        "shifts": own[:MAX_SHIFTS], "n_more": max(len(own) - MAX_SHIFTS, 0),
        "chart": Markup(chart),  # matplotlib escapes the text in its SVG
    }  # fmt: skip


def _shift_verdict(shift: dict[str, Any], limit: float | None) -> str:
    if limit is None or any(
        shift[name] is None or not math.isfinite(shift[name]) for name in ("effect", "low", "high", "at_least")
    ):
        return ""
    if shift["at_least"] > limit:
        return "fail"
    return "pass" if max(-shift["low"], shift["high"]) <= limit else "inconclusive"


def _place(origin: str) -> str:
    return origin or "all images"


def _balance(counts: list[dict[str, Any]]) -> dict[str, Any]:
    """The plot of images per class and origin; of too many classes or origins their numbers only."""
    n_of = Counter[Any]()
    for cell in counts:
        if cell["label"]:
            n_of[cell["label"], cell["origin"]] += int(cell["n"])
    classes, origins = sorted({label for label, _ in n_of}), sorted({origin for _, origin in n_of})
    chart = ""
    if 0 < len(classes) <= MAX_BARS and len(origins) <= MAX_ORIGINS:
        n_CO = np.array([[n_of[label, origin] for origin in origins] for label in classes])
        chart = balance_chart(n_CO, [str(cut(c, 30)) for c in classes], [str(cut(o, 30)) for o in origins])
    return {"n_classes": len(classes), "n_origins": len(origins), "chart": Markup(chart)}
