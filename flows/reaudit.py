"""The audit again, on labels that came later: the rules behind a bundle's verdict, and whether it still holds."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from tasks.core.bias.rules import Rule

FAIL, PASS, INCONCLUSIVE = "fail", "pass", "inconclusive"
TIMES, SLICED = " × ", " (thirds)"
SEED = 0  # of the bootstrap draws; each is addressed by column and metric


@dataclass(frozen=True)
class Asked:
    """The bundle's rules that can be asked again, what they said, and a sentence on each that can't."""

    rules: "list[Rule]"
    entries: list[dict[str, Any]]
    left_out: list[str]


def reaudited(rows: "pd.DataFrame", columns: tuple[str, ...], bundle: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(was, is, is_worse, reason, changed, left_out, n_required, n), and the new verdict. ValueError: the bundle has no rules.

    `rows` need y_true, y_pred, p_<class>, image_id, group_id and the columns. Both verdicts are by the rules that could be
    asked again: a rule on a column that isn't given, or against a model that isn't here, says nothing of a change. Where none
    of these is required there is no verdict to compare, and `reason` says why.
    """
    from tasks.core.bias.counts import Settings
    from tasks.core.bias.table import table_of, with_intersections
    from tasks.core.bias.verdict import audit, overall
    from tasks.core.files import read_json

    before = read_json(bundle / "verdict.json", made_by="audit_bias")
    ask_below = read_json(bundle / "model.json", made_by="register_model").get("ask_below")
    asked = asked_again(before, columns)
    order = max([rule.column.count(TIMES) + 1 for rule in asked.rules], default=1)
    settings = Settings(before["confidence"], before["min_group_size"], before["n_bootstrap"], SEED, ask_below)
    table = with_intersections(table_of(rows, columns=columns), order)
    verdict = audit(table, asked.rules, settings).verdict
    was, now = overall(asked.entries)[0], verdict["verdict"]
    changed = [
        {
            "name": old["name"],
            "column": old["column"],
            "required": old["required"],
            "was": old["verdict"],
            "is": new["verdict"],
        }
        for old, new in zip(asked.entries, verdict["rules"], strict=True)
        if old["verdict"] != new["verdict"]
    ]
    n_required = sum(rule.required for rule in asked.rules)
    reason = verdict["reason"] if n_required else without_required(before["rules"])
    told = {"was": was, "is": now, "is_worse": now == FAIL != was, "reason": reason, "changed": changed}
    return told | {"left_out": asked.left_out, "n_required": n_required, "n": len(rows)}, verdict


def without_required(rules: list[dict[str, Any]]) -> str:
    """Why no verdict can be compared, where no required rule could be asked again."""
    if n := sum(rule["required"] for rule in rules):
        return f"none of the {n} required rule(s) of the registered audit can be asked again, so its verdict is not confirmed"
    return "the registered audit has no required rule, so it gave no verdict that these labels could change"


def asked_again(before: dict[str, Any], columns: tuple[str, ...]) -> Asked:
    """The rules of a verdict that these columns allow. ValueError where it holds no rules."""
    from tasks.core.bias.rules import Rule

    if not before.get("rules"):
        raise ValueError(
            "the bundle's verdict.json holds no rules, so the audit can't be repeated; use `acclimate audit` with rules of "
            "your own"
        )
    rules, entries, left_out = [], [], []
    for entry in before["rules"]:
        missing = [name for name in entry["column"].split(TIMES) if name not in ("", *columns)]
        if entry["column"].endswith(SLICED):
            why = "slices of this set would be cut at other values"
        elif entry["comparison"] == "change":
            why = f"no predictions of {entry['reference']} are known for these images"
        elif missing:
            why = f"no column {' and '.join(missing)} was given"
        else:
            rules.append(Rule(**{field.name: entry[field.name] for field in fields(Rule)}))
            entries.append(entry)
            continue
        left_out.append(f"{entry['name']} ({entry['column'] or 'all images'}): {why}")
    return Asked(rules, entries, left_out)
