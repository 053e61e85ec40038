"""What the rules on the set as a whole look at: one row per cell (a class in a split, a group and a class, a property)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tasks.core.drift import changes, shifts

COLUMNS = ["rule", "cell", "value", "why"]
Cell = tuple[str, str, float, str]


@dataclass(frozen=True)
class WholeSet:
    """The images as they were given (with facts), those accepted (with splits), and the profiles to compare."""

    rows: pd.DataFrame
    accepted: pd.DataFrame
    n_rejected: int
    classes: list[str]
    accepted_profile: dict[str, Any]
    profile: dict[str, Any]
    confidence: float


def cells_of(whole: WholeSet) -> pd.DataFrame:
    """rule, cell (words), value (what the rule limits), why (words). A rule without cells has nothing to check."""
    cells: list[Cell] = []
    for part in (_labels, _class_splits, _balance, _shares, _coverage, _source_to_target, _like_accepted):
        cells += part(whole)
    table = pd.DataFrame(cells, columns=COLUMNS)
    return table.assign(value=table["value"].astype(float))


def coverage(accepted: pd.DataFrame, classes: list[str]) -> list[dict[str, Any]]:
    """Every audit group × class with its n: labelled images of the target (of all where no target is named)."""
    rows = accepted[(accepted["domain"] != "source") & (accepted["label"] != "")]
    found = []
    for name in [name for name in rows.columns if name.startswith("audit_")]:
        n_of = rows.groupby([name, "label"]).size()
        groups, labels = sorted(rows[name].unique()), sorted({*classes, *rows["label"]})
        for group in groups:
            for label in labels:
                n = int(n_of.get((group, label), 0))
                found.append({"column": name.removeprefix("audit_"), "group": group, "label": label, "n": n})
    return found


def _labels(whole: WholeSet) -> Iterator[Cell]:
    labels = sorted(set(whole.rows["label"]) - {""})
    folded = pd.Series(labels, dtype=object).groupby([" ".join(label.split()).casefold() for label in labels])
    for _, alike in folded:
        listed = ", ".join(map(repr, alike))
        yield "distinct_labels", listed, len(alike), f"labels {listed} differ only in case or blanks"
    target = whole.accepted[(whole.accepted["domain"] == "target") & (whole.accepted["label"] != "")]
    if len(target):
        n_of = target["label"].value_counts()
        for label in whole.classes:
            n = int(n_of.get(label, 0))
            yield "same_label_set", f"class {label!r}", n, f"class {label!r} has {n} labelled target image(s)"
    trained_on = whole.accepted["split"].isin(("train", ""))  # "": outside the pipeline no split is drawn
    source = whole.accepted[(whole.accepted["domain"] == "source") & trained_on]
    for label in whole.classes if (whole.rows["domain"] == "source").any() else []:
        n = int((source["label"] == label).sum())
        why = f"class {label!r} has {n} readable source training image(s)"
        yield "source_class_size", f"class {label!r}", n, why


def _class_splits(whole: WholeSet) -> Iterator[Cell]:
    """Every class in every held-out split; of training, too, where no target is named."""
    rows = whole.accepted[(whole.accepted["label"] != "") & (whole.accepted["split"] != "")]
    for domain, members in rows.groupby("domain"):
        asked = ("val", "test") if domain == "target" else ("train", "val", "test")
        n_of = members.groupby(["split", "label"]).size()
        for split in [name for name in asked if name in set(members["split"])]:
            for label in sorted(set(members["label"])) if domain != "target" else whole.classes:
                n = int(n_of.get((split, label), 0))
                where = f"{domain} {split}".strip()
                yield (
                    "class_in_every_split",
                    f"{where}, class {label!r}",
                    n,
                    f"{n} image(s) of class {label!r} in {where}",
                )


def _balance(whole: WholeSet) -> Iterator[Cell]:
    rows = whole.accepted[whole.accepted["label"] != ""]
    for origin, members in rows.groupby("origin"):
        n_of = members["label"].value_counts().sort_index()
        largest, smallest = n_of.idxmax(), n_of.idxmin()
        ratio = n_of.max() / n_of.min()
        why = f"class {largest!r} has {n_of.max()} images, class {smallest!r} {n_of.min()}: {ratio:.1f} times"
        yield "class_balance", _place(origin), ratio, why


def _shares(whole: WholeSet) -> Iterator[Cell]:
    learnt = whole.rows[whole.rows["domain"] != "source"]
    labelled = whole.rows["label"] != ""
    if len(learnt) and labelled.any():
        n = int((learnt["label"] == "").sum())
        place = "target images" if (learnt["domain"] == "target").any() else "all images"
        yield "unlabelled_share", place, n / len(learnt), f"{n} of {len(learnt)} images carry no label"
    if n_all := len(whole.rows):
        why = f"{whole.n_rejected} of {n_all} images are rejected"
        yield "rejected_share", "all images", whole.n_rejected / n_all, why


def _coverage(whole: WholeSet) -> Iterator[Cell]:
    for cell in coverage(whole.accepted, whole.classes):
        group = repr(cell["group"]) if cell["group"] else "(not given)"
        place = f"{cell['column']} {group} x class {cell['label']!r}"
        yield "group_coverage", place, cell["n"], f"{place}: {cell['n']} image(s)"


def _source_to_target(whole: WholeSet) -> Iterator[Cell]:
    for shift in shifts(whole.rows, whole.confidence):
        yield from _shift_cell("source_to_target", shift)


def _like_accepted(whole: WholeSet) -> Iterator[Cell]:
    for change in _changes(whole):
        if "what" in change:
            yield "like_accepted", change["what"], 1.0, change["what"]
        else:
            yield from _shift_cell("like_accepted", change)


def shifts_of(whole: WholeSet) -> list[dict[str, Any]]:
    """Every shift that was measured, with the rule that looks at it."""
    between = [{"rule": "source_to_target", **shift} for shift in shifts(whole.rows, whole.confidence)]
    since = [{"rule": "like_accepted", **change} for change in _changes(whole) if "what" not in change]
    return between + since


def _changes(whole: WholeSet) -> list[dict[str, Any]]:
    if not whole.accepted_profile["origins"]:
        return []
    return list(changes(whole.accepted_profile, whole.profile, whole.confidence))


def _shift_cell(rule: str, shift: dict[str, Any]) -> Iterator[Cell]:
    if np.isnan(shift["at_least"]):
        return
    place = f"{shift['property']}, {_place(shift['from'])} → {_place(shift['to'])}"
    effect = f"effect {shift['effect']:+.2f} ({shift['low']:+.2f} to {shift['high']:+.2f})"
    why = f"{place}: {effect}, {shift['value_from']:.3g} → {shift['value_to']:.3g}"
    yield rule, place, shift["at_least"], why


def _place(origin: object) -> str:
    return str(origin) or "all images"
