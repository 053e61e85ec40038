"""What validation found: a finding per rule, rejected rows, what blocks, and the summary that people read."""

from typing import Any

import pandas as pd

from tasks.core.checks import reasons

SEVERITIES = ("block", "warn", "note")


def image_finding(rule: str, settings: dict[str, Any], rows: pd.DataFrame, failed_ids: list[str]) -> dict[str, Any]:
    """The images that fail a rule, each with its path and why."""
    failed = rows[rows["image_id"].isin(set(failed_ids))]
    images = [
        {"image_id": i, "path": p, "why": why}
        for i, p, why in zip(failed["image_id"], failed["path"], reasons(rule, rows, failed), strict=True)
    ]
    return {"rule": rule, **settings, "n_checked": len(rows), "n_failed": len(images), "images": images}


def cell_finding(rule: str, settings: dict[str, Any], cells: pd.DataFrame, failed: list[int]) -> dict[str, Any]:
    """The cells that fail a rule on the set as a whole; n_checked 0 = there was nothing to check."""
    own = cells[cells["rule"] == rule]
    told = [
        {"cell": cells.at[i, "cell"], "value": cells.at[i, "value"], "why": cells.at[i, "why"]} for i in sorted(failed)
    ]
    return {"rule": rule, **settings, "n_checked": len(own), "n_failed": len(told), "cells": told}


def rejected_rows(rows: pd.DataFrame, findings: list[dict[str, Any]]) -> pd.DataFrame:
    """image_id, path, reasons: images that a rule with policy drop or keep_one rejects."""
    said: dict[str, list[str]] = {}
    for found in findings:
        if found.get("policy", "keep") != "keep":
            for image in found["images"]:
                said.setdefault(image["image_id"], []).append(f"{found['rule']} ({image['why']})")
    rejected = rows.loc[rows["image_id"].isin(said), ["image_id", "path"]]
    return rejected.assign(reasons=["; ".join(said[i]) for i in rejected["image_id"]])


def counts(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """n per origin × split × label, hidden labels too: for people, and for no stage that trains."""
    cells = rows.groupby(["domain", "origin", "split", "label"]).size().rename("n").reset_index()
    return [dict(zip(cells.columns, values, strict=True)) for values in cells.itertuples(index=False)]


def structure_problems(rows: pd.DataFrame, *, n_to_label: int) -> list[str]:
    """Sentences that always block: what no later stage could do without. The splits are drawn."""
    source, target = rows[rows["domain"] == "source"], rows[rows["domain"] == "target"]
    n_classes = source.loc[(source["split"] == "train") & (source["label"] != ""), "label"].nunique()
    problems = []
    if n_classes < 2:
        problems.append(f"the source holds {n_classes} class(es) to train on, at least 2 are needed")
    if not (source["split"] == "val").any():
        problems.append("no source image is left for validation; set validate_data.splits.source_val_share higher")
    problems += problems_of_the_test(rows, n_to_label=n_to_label)
    if not target["split"].isin(("train", "unlabelled")).any():
        problems.append("no target image is left to learn from; mend the split column or the shares")
    return problems


def problems_of_the_test(rows: pd.DataFrame, *, n_to_label: int) -> list[str]:
    """The sentence that blocks where no target label is in the test, or could be drawn for it (no split is given)."""
    may_be_tested = (rows["domain"] == "target") & (rows["label"] != "") & rows["split"].isin(("test", ""))
    if may_be_tested.any():
        return []
    return [
        f"no labelled target image is left for the test; label at least {n_to_label} of each class (in several groups, if "
        "you name groups), or mend the split column"
    ]


def blocking(findings: list[dict[str, Any]]) -> list[str]:
    """A sentence per failed rule of severity block: how many, the first one and why."""
    said = []
    for found in findings:
        if found["severity"] == "block" and found["n_failed"]:
            if "images" in found:
                first = found["images"][0]
                what = f"{found['n_failed']} image(s), the first: {first['path']} ({first['why']})"
            else:
                more = f" and {found['n_failed'] - 1} more" if found["n_failed"] > 1 else ""
                what = f"{found['cells'][0]['why']}{more}{limit_words(found)}"
            said.append(f"rule {found['rule']} fails: {what}")
    return said


def limit_words(found: dict[str, Any]) -> str:
    """The rule's limits in words, e.g. "; at least 10 is asked for"."""
    ends = [f"{word} {found[key]:g}" for key, word in (("min", "at least"), ("max", "at most")) if key in found]
    return f"; {' and '.join(ends)} is asked for" if ends else ""


def status_of(findings: list[dict[str, Any]], blocked_by: list[str]) -> str:
    """blocked, else the severest failed rule (warn or note), else pass."""
    if blocked_by:
        return "blocked"
    failed = {found["severity"] for found in findings if found["n_failed"]}
    return next((severity for severity in SEVERITIES if severity in failed), "pass")


def label_sets(rows: pd.DataFrame) -> dict[str, Any]:
    """Which labels only one side has, and a sentence; for sets without roles there is nothing to compare."""
    source, target = (set(rows.loc[rows["domain"] == side, "label"]) - {""} for side in ("source", "target"))
    only_source, only_target = sorted(source - target), sorted(target - source)
    if not source or not target:
        sentence = "the label sets can't be compared: a side has no labels" if source or target else ""
    elif not only_source and not only_target:
        sentence = f"source and target have the same {len(source)} labels"
    else:
        parts = [f"only the source has {', '.join(map(repr, only_source))}"] if only_source else []
        parts += [f"only the target has {', '.join(map(repr, only_target))}"] if only_target else []
        sentence = "; ".join(parts)
    return {"only_in_source": only_source, "only_in_target": only_target, "sentence": sentence}
