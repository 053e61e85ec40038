"""validate_data: checks every image by rule, rejects bad rows, draws splits, hides labels that must not be seen.

reads   data/manifest.csv, data/facts.csv
writes  data/validation.json, data/rejected.csv, data/manifest_valid.csv, data/test_labels.csv, data/guard_labels.csv

Bad data is a result, not an error: the stage ends well and its readers refuse blocked data.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from tasks.core.facts import read_facts
from tasks.core.files import write_json, write_table
from tasks.core.manifest import classes_of, read_manifest
from tasks.core.runtime import run_stage
from tasks.core.splits import LabelBudget, SplitShares, hidden_labels, joined_groups, labels_of, with_splits
from tasks.core.validation import checked_columns, count_problems, counts, finding, rejected_rows
from tasks.params import Rules, ValidateData, read_params


def main() -> None:
    params = read_params()
    settings = params.validate_data
    manifest = read_manifest(Path("data/manifest.csv"))
    rows = checked_columns(manifest, read_facts(Path("data/facts.csv")))
    findings = check_rules(rows, settings.rules, classes_of(rows))
    rejected = rejected_rows(rows, findings)
    rows["group_id"] = joined_groups(rows["group_id"], rows["pixel_hash"])
    accepted = rows.loc[~rows["image_id"].isin(rejected["image_id"]), list(manifest.columns)]
    accepted = split_rows(accepted, settings, params.seed)
    held_out = accepted[accepted["split"] == "held_out"]
    accepted = accepted[accepted["split"] != "held_out"]
    reason = "unlabelled image of a group that is held out for validation or test"
    rejected = pd.concat([rejected, held_out[["image_id", "path"]].assign(reasons=reason)])

    write_json(
        Path("data/validation.json"),
        summary(findings, accepted, classes_of(rows), settings) | {"n_set_aside": len(held_out)},
    )
    write_table(Path("data/rejected.csv"), rejected)
    write_table(Path("data/manifest_valid.csv"), hidden_labels(accepted))
    write_table(Path("data/test_labels.csv"), labels_of(accepted, "test"))
    write_table(Path("data/guard_labels.csv"), labels_of(accepted, "guard"))


def split_rows(accepted: pd.DataFrame, settings: ValidateData, seed: int) -> pd.DataFrame:
    shares = SplitShares(
        source_val=settings.splits.source_val_share,
        target_val=settings.splits.target_val_share,
        target_test=settings.splits.target_test_share,
    )
    return with_splits(accepted, shares, LabelBudget(settings.target_labels_per_class, settings.n_guard_labels), seed)


def summary(
    findings: list[dict[str, Any]], accepted: pd.DataFrame, classes: list[str], settings: ValidateData
) -> dict[str, Any]:
    blocked_by = [
        f"rule {found['rule']} fails for {found['n_failed']} image(s), the first: {found['images'][0]['path']}"
        for found in findings
        if found["severity"] == "block" and found["n_failed"]
    ]
    unknown = sorted(set(accepted["label"]) - {"", *classes})
    if unknown and settings.rules.known_label.severity == "block":
        blocked_by.append(f"target label {', '.join(map(repr, unknown))} is no source class ({', '.join(classes)})")
    n_all = max(findings[0]["n_checked"], 1)
    n_rejected = len({image["image_id"] for f in findings if f["severity"] == "drop" for image in f["images"]})
    if n_rejected > settings.max_rejected_share * n_all:
        blocked_by.append(
            f"{n_rejected} of {n_all} images are rejected, more than the allowed share {settings.max_rejected_share}"
        )
    blocked_by += count_problems(accepted, classes, settings.min_source_per_class)
    target = accepted[accepted["domain"] == "target"]
    return {
        "status": "blocked" if blocked_by else "warn" if any(f["n_failed"] for f in findings) else "pass",
        "blocked_by": blocked_by,
        "n_images": n_all,
        "n_rejected": n_rejected,
        "classes": classes,
        "n_target_labels": {name: int((target["split"] == name).sum()) for name in ("train", "val", "guard", "test")},
        "n_target_unlabelled": int((target["split"] == "unlabelled").sum()),
        "rules": findings,
        "counts": counts(hidden_labels(accepted)),
    }


def check_rules(rows: pd.DataFrame, rules: Rules, classes: list[str]) -> list[dict[str, Any]]:
    """One finding per rule, by Great Expectations: which images fail it."""
    import great_expectations as gx  # 4 seconds to import: only here
    from great_expectations.data_context.types.base import ProgressBarsConfig

    expectations = _expectations(rules, classes)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("images").add_dataframe_asset("facts")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": rows})
    result_format = {"result_format": "COMPLETE", "unexpected_index_column_names": ["image_id"]}
    findings = []
    for rule, checks in expectations.items():
        failed: list[str] = []
        for check in checks:
            result = batch.validate(check, result_format=result_format)
            if result.exception_info.get("raised_exception"):
                raise RuntimeError(f"rule {rule}: Great Expectations could not check it: {result.exception_info}")
            failed += [entry["image_id"] for entry in result.result.get("unexpected_index_list") or []]
        findings.append(finding(rule, getattr(rules, rule).severity, rows, failed))
    return findings


def _expectations(rules: Rules, classes: list[str]) -> dict[str, list[Any]]:
    import great_expectations.expectations as gxe

    between, in_set = gxe.ExpectColumnValuesToBeBetween, gxe.ExpectColumnValuesToBeInSet
    return {
        "readable": [in_set(column="error", value_set=[""])],
        "single_frame": [between(column="n_frames", max_value=1)],
        "side_px": [
            between(column="short_side_px", min_value=rules.side_px.min),
            between(column="long_side_px", max_value=rules.side_px.max),
        ],
        "aspect_ratio": [between(column="aspect_ratio", max_value=rules.aspect_ratio.max)],
        "contrast": [between(column="contrast", min_value=rules.contrast.min)],
        "extension_matches": [in_set(column="extension_matches", value_set=[True])],
        "known_label": [in_set(column="label", value_set=["", *classes])],
        "unique_pixels": [in_set(column="is_copy", value_set=[False])],
        "one_label_per_pixels": [between(column="n_labels_of_pixels", max_value=1)],
        "duplicates_across_splits": [
            between(column="n_splits_of_pixels", max_value=1),
            between(column="n_splits_of_group", max_value=1),
        ],
    }


if __name__ == "__main__":
    run_stage(main)
