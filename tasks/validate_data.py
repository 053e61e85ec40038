"""validate_data: checks every image and the whole set by rule, rejects bad rows, draws splits, hides labels.

reads   data/manifest.csv, data/facts.csv, data/given/accepted_profile.json, the images (thumbnails of offenders)
writes  data/validation.json, data/validation.html, data/rejected.csv, data/profile.json for people,
        data/gate.json, data/manifest_valid.csv, data/test_labels.csv, data/guard_labels.csv for later stages

Bad data is a result, not an error: the stage ends well and the readers of data/manifest_valid.csv refuse blocked data.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.core.cells import WholeSet, cells_of, coverage, shifts_of
from tasks.core.checks import checked_columns, duplicate_groups
from tasks.core.drift import profile_of, read_profile
from tasks.core.duplicates import joined_groups
from tasks.core.facts import read_facts
from tasks.core.files import write_json, write_table, write_text
from tasks.core.manifest import classes_of, read_manifest
from tasks.core.runtime import run_stage
from tasks.core.splits import LabelBudget, SplitShares, hidden_labels, labels_of, with_splits
from tasks.core.stated_shares import stated_shares
from tasks.core.store import open_store
from tasks.core.validation import (
    blocking,
    cell_finding,
    counts,
    image_finding,
    label_sets,
    problems_of_the_test,
    rejected_rows,
    status_of,
    structure_problems,
)
from tasks.core.validation_page import validation_page
from tasks.params import RuleBook, Rules, ValidateData, read_params


@dataclass(frozen=True)
class CheckedSet:
    """What validation leaves: the summary for people, rejected rows (with reasons), and the set it was made from."""

    validation: dict[str, Any]
    rejected: pd.DataFrame
    whole: WholeSet


def main() -> None:
    params = read_params()
    settings = params.validate_data
    manifest = read_manifest(Path("data/manifest.csv"))
    checked = checked_set(
        manifest,
        read_facts(Path("data/facts.csv")),
        RuleBook(confidence=settings.confidence, rules=settings.rules),
        read_profile(Path("data/given/accepted_profile.json")),
        split=lambda rows: split_rows(rows, settings, params.seed),
    )
    blocked_by = checked.validation["blocked_by"]
    if isinstance(stated := params.guard_adaptation.class_shares, dict) and not blocked_by:
        stated_shares(stated, classes_of(checked.whole.accepted), [])  # the guard would say it only after the training
    page = validation_page(checked.validation, open_store(Path(params.build_manifest.root)).read)
    accepted = checked.whole.accepted[[name for name in manifest.columns if name != "problem"]]

    write_json(Path("data/validation.json"), checked.validation)
    write_text(Path("data/validation.html"), page)
    write_table(Path("data/rejected.csv"), checked.rejected)
    write_json(Path("data/profile.json"), checked.whole.profile)
    write_json(Path("data/gate.json"), {"blocked_by": blocked_by})
    write_table(Path("data/manifest_valid.csv"), hidden_labels(accepted))
    write_table(Path("data/test_labels.csv"), labels_of(accepted, "test"))
    write_table(Path("data/guard_labels.csv"), labels_of(accepted, "guard"))
    print(f"data: {checked.validation['status']}", *blocked_by, sep="\n  - ")  # noqa: T201  news


def checked_set(
    manifest: pd.DataFrame,
    facts: pd.DataFrame,
    book: RuleBook,
    accepted_profile: dict[str, Any],
    split: Callable[[pd.DataFrame], pd.DataFrame] | None = None,
) -> CheckedSet:
    """Everything the rules say of a set. `split` fills the splits of accepted rows; without it they stay as given."""
    rows = checked_columns(manifest, facts, book.rules.unique_pictures.max_bits)
    findings = image_findings(rows, book.rules)
    rejected = rejected_rows(rows, findings)
    rows["group_id"] = joined_groups(rows["group_id"], rows["pixels"], rows["picture"])
    accepted = rows[~rows["image_id"].isin(rejected["image_id"])]
    accepted = split(accepted) if split else accepted
    set_aside = accepted[accepted["split"] == "held_out"]
    accepted = accepted[accepted["split"] != "held_out"]
    whole = WholeSet(
        rows, accepted, len(rejected), classes_of(rows), accepted_profile, profile_of(accepted), book.confidence
    )
    findings += set_findings(whole, book.rules)
    blocked_by = blocking(findings)
    if (rows["domain"] == "target").any():  # else it is a set without roles
        n_to_label = book.rules.group_coverage.min
        blocked_by += (structure_problems if split else problems_of_the_test)(accepted, n_to_label=n_to_label)
    reason = "unlabelled image of a group that is held out for validation or test"
    return CheckedSet(
        validation=summary(whole, findings, blocked_by) | {"n_rejected": len(rejected), "n_set_aside": len(set_aside)},
        rejected=pd.concat([rejected, set_aside[["image_id", "path"]].assign(reasons=reason)]),
        whole=whole,
    )


def split_rows(accepted: pd.DataFrame, settings: ValidateData, seed: int) -> pd.DataFrame:
    shares = SplitShares(
        source_val=settings.splits.source_val_share,
        target_val=settings.splits.target_val_share,
        target_test=settings.splits.target_test_share,
        target_holdout=settings.splits.target_holdout_share,
    )
    return with_splits(accepted, shares, LabelBudget(settings.target_labels_per_class, settings.n_guard_labels), seed)


def summary(whole: WholeSet, findings: list[dict[str, Any]], blocked_by: list[str]) -> dict[str, Any]:
    """What people and the page read; labels that are hidden from later stages stand in it, so none of them may."""
    rows, accepted = whole.rows, whole.accepted
    target = accepted[accepted["domain"] == "target"]
    n_of = target["split"].value_counts()
    return {
        "format": 1,
        "status": status_of(findings, blocked_by),
        "blocked_by": blocked_by,
        "n_images": len(rows),
        "classes": whole.classes,
        "label_sets": label_sets(rows),
        "n_target_labels": {name: int(n_of.get(name, 0)) for name in ("train", "val", "guard", "test")},
        "n_target_unlabelled": int(n_of.get("unlabelled", 0)),
        "n_target_holdout": int(n_of.get("holdout", 0)),
        "rules": findings,
        "duplicate_groups": duplicate_groups(rows),
        "coverage": coverage(accepted, whole.classes),
        "shifts": shifts_of(whole),
        "counts": counts(accepted),
    }


def image_findings(rows: pd.DataFrame, rules: Rules) -> list[dict[str, Any]]:
    """One finding per rule on images, by Great Expectations: which images fail it and why."""
    failed = _failed(rows, _image_checks(rules, classes_of(rows)), index="image_id")
    return [image_finding(rule, getattr(rules, rule).model_dump(), rows, ids) for rule, ids in failed.items()]


def set_findings(whole: WholeSet, rules: Rules) -> list[dict[str, Any]]:
    """One finding per rule on the set as a whole, by Great Expectations on the table of cells."""
    cells = cells_of(whole)
    checks = _cell_checks(rules)
    values = {rule: cells["value"].where(cells["rule"] == rule) for rule in checks}
    failed = _failed(pd.DataFrame({"number": cells.index, **values}), checks, index="number")
    return [cell_finding(rule, getattr(rules, rule).model_dump(), cells, ids) for rule, ids in failed.items()]


def build_data_docs(rows: pd.DataFrame, rules: Rules, folder: Path) -> Path:
    """Great Expectations' own pages for the rules on images, rebuilt in `folder`; they hold clocks, so they are no result."""
    import great_expectations as gx
    from great_expectations.checkpoint import UpdateDataDocsAction

    context = gx.get_context(mode="file", project_root_dir=str(folder))
    _without_progress_bars(context)
    asset = context.data_sources.add_pandas("images").add_dataframe_asset("facts")
    suite = context.suites.add(
        gx.ExpectationSuite(name="images", expectations=_listed(_image_checks(rules, classes_of(rows))))
    )
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name="images", data=asset.add_batch_definition_whole_dataframe("all"), suite=suite)
    )
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(
            name="images",
            validation_definitions=[definition],
            actions=[UpdateDataDocsAction(name="docs")],
            result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["path"]},
        )
    )
    checkpoint.run(batch_parameters={"dataframe": rows})
    return next(folder.rglob("data_docs/local_site/index.html"))


def _failed(table: pd.DataFrame, checks: dict[str, list[Any]], *, index: str) -> dict[str, list[Any]]:
    """Rule → values of the index column in the rows that fail one of its expectations."""
    import great_expectations as gx  # 4 seconds to import: only here

    context = gx.get_context(mode="ephemeral")
    _without_progress_bars(context)
    asset = context.data_sources.add_pandas("images").add_dataframe_asset("facts")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": table})
    suite = gx.ExpectationSuite(name="rules", expectations=_listed(checks))
    result_format = {"result_format": "COMPLETE", "unexpected_index_column_names": [index]}
    failed: dict[str, list[Any]] = {rule: [] for rule in checks}
    results: Any = batch.validate(suite, result_format=result_format).results
    for result in results:
        rule = result.expectation_config.meta["rule"]
        if result.exception_info.get("raised_exception"):
            raise RuntimeError(f"rule {rule}: Great Expectations could not check it: {result.exception_info}")
        failed[rule] += [entry[index] for entry in result.result.get("unexpected_index_list") or []]
    return failed


def _without_progress_bars(context: Any) -> None:
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context.variables.progress_bars = ProgressBarsConfig(globally=False)


def _listed(checks: dict[str, list[Any]]) -> list[Any]:
    return [check for of_rule in checks.values() for check in of_rule]


def _image_checks(rules: Rules, classes: list[str]) -> dict[str, list[Any]]:
    def between(rule: str, column: str, **limits: float) -> Any:
        return _expectation("ExpectColumnValuesToBeBetween", rules, rule, column=column, **limits)

    def is_one_of(rule: str, column: str, *values: Any) -> Any:
        return _expectation("ExpectColumnValuesToBeInSet", rules, rule, column=column, value_set=[*values])

    side = rules.side_px
    checks = [
        is_one_of("usable_path", "problem", ""),
        is_one_of("readable", "error", ""),
        between("single_frame", "n_frames", max_value=1),
        between("eight_bit", "n_bits", max_value=8),
        is_one_of("rgb_or_grey", "is_rgb_or_grey", True),
        is_one_of("opaque", "has_alpha", False),
        between("upright", "exif_orientation", max_value=1),
        is_one_of("extension_matches", "extension_matches", True),
        between("side_px", "short_side_px", min_value=side.min),
        between("side_px", "long_side_px", max_value=side.max),
        between("aspect_ratio", "aspect_ratio", max_value=rules.aspect_ratio.max),
        between("typical_size", "size_ratio", max_value=rules.typical_size.max),
        between("not_dark", "brightness_p99", min_value=rules.not_dark.min),
        between("not_bright", "brightness_p5", max_value=rules.not_bright.max),
        between("contrast", "contrast", min_value=rules.contrast.min),
        between("sharpness", "sharpness", min_value=rules.sharpness.min),
        between("entropy", "entropy", min_value=rules.entropy.min),
        is_one_of("unique_pixels", "has_copy" if rules.unique_pixels.policy == "drop" else "is_copy", False),
        is_one_of(
            "unique_pictures", "has_near_copy" if rules.unique_pictures.policy == "drop" else "is_near_copy", False
        ),
        between("one_label_per_pixels", "n_labels_of_pixels", max_value=1),
        between("one_label_per_picture", "n_labels_of_picture", max_value=1),
        between("pixels_in_one_split", "n_splits_of_pixels", max_value=1),
        between("pictures_in_one_split", "n_splits_of_picture", max_value=1),
        between("group_in_one_split", "n_splits_of_group", max_value=1),
        between("pixels_in_one_domain", "n_domains_of_pixels", max_value=1),
        between("pictures_in_one_domain", "n_domains_of_picture", max_value=1),
        is_one_of("label_present", "label_missing", False),
        is_one_of("known_label", "target_label", *classes),
    ]
    return _by_rule(checks)


def _cell_checks(rules: Rules) -> dict[str, list[Any]]:
    limits: dict[str, dict[str, float]] = {
        "distinct_labels": {"max_value": 1},
        "same_label_set": {"min_value": 1},
        "class_in_every_split": {"min_value": 1},
        "source_class_size": {"min_value": rules.source_class_size.min},
        "class_balance": {"max_value": rules.class_balance.max},
        "unlabelled_share": {"max_value": rules.unlabelled_share.max},
        "group_coverage": {"min_value": rules.group_coverage.min},
        "rejected_share": {"max_value": rules.rejected_share.max},
        "source_to_target": {"max_value": rules.source_to_target.max},
        "like_accepted": {"max_value": rules.like_accepted.max},
    }
    kind = "ExpectColumnValuesToBeBetween"
    return _by_rule([_expectation(kind, rules, rule, column=rule, **limit) for rule, limit in limits.items()])


def _expectation(kind: str, rules: Rules, rule: str, **arguments: Any) -> Any:
    import great_expectations.expectations as gxe

    severity = {"block": "critical", "warn": "warning", "note": "info"}[getattr(rules, rule).severity]
    return getattr(gxe, kind)(**arguments, severity=severity, meta={"rule": rule})


def _by_rule(checks: list[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for check in checks:
        found.setdefault(check.meta["rule"], []).append(check)
    return found


if __name__ == "__main__":
    run_stage(main)
