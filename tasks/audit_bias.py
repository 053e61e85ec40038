"""audit_bias: for whom is the adopted model worse, since when, and the page that a reviewer decides from.

reads   data/predictions.csv, data/errors, data/model (held_out.csv, model.json) and what the page shows: data/manifest.csv,
        data/manifest_valid.csv, data/facts.csv, data/validation.json, data/selection.json, data/adoption.json,
        data/to_label.csv, data/to_label.png, data/history.csv, data/metrics.json, data/augmentation
writes  data/audit (verdict.json, by_group.csv, by_class.csv, changes.csv, composition.csv, report.html, summary.md),
        data/audit_metrics.json

A failed audit is a result, not an error.
"""

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.core.bias.agreement import differences, rates_of_cells
from tasks.core.bias.breakdown import worst_by_column
from tasks.core.bias.composition import composition, gaps
from tasks.core.bias.counts import Settings
from tasks.core.bias.mitigation import Binary, Plan, mitigation
from tasks.core.bias.rules import Rule
from tasks.core.bias.table import AuditTable, table_of, with_intersections, with_slices
from tasks.core.bias.verdict import audit
from tasks.core.bias_columns import Origin
from tasks.core.bias_markdown import markdown
from tasks.core.bias_page import BiasFacts, ErrorSheet, render
from tasks.core.calibration import recalibrated
from tasks.core.files import (
    file_sha256,
    read_json,
    read_table,
    text_sha256,
    whole_folder,
    write_json,
    write_table,
    write_text,
)
from tasks.core.method_choice import SOURCE_ONLY
from tasks.core.predictions import ADOPTED, CHAMPION, of_model, read_predictions
from tasks.core.report import ReportFacts
from tasks.core.runtime import run_stage
from tasks.params import Params, read_params

DATA = Path("data")
LINEAGE_FILES = {
    "manifest": "manifest.csv",
    "accepted manifest": "manifest_valid.csv",
    "augmentation policy": "augmentation/policy.json",
    "selection": "selection.json",
    "decision": "adoption.json",
    "predictions": "predictions.csv",
}
MAX_CHECKED = 10_000  # rows; fairlearn's frames take seconds beyond
Mitigated = tuple[pd.DataFrame | None, dict[str, Any] | None]
AUDIT = "audit_"


def main() -> None:
    params = read_params()
    own, columns = params.audit_bias, params.build_manifest.audit_columns
    predictions = read_predictions(DATA / "predictions.csv")
    manifest = read_table(DATA / "manifest_valid.csv", made_by="validate_data")
    settings = Settings(own.confidence, own.min_group_size, own.n_bootstrap, params.seed, ask_below())
    baselines = [name for name in (SOURCE_ONLY, CHAMPION) if name in set(predictions["model"])]
    plain = table_of(
        audited_rows(predictions, ADOPTED), columns=columns,
        baselines={name: audited_rows(predictions, name) for name in baselines},
    )  # fmt: skip
    check_against_fairlearn(plain, settings)
    table = with_slices(with_intersections(plain, own.max_intersection_order), facts_of(plain), own.slices)
    rules = [Rule(**rule.model_dump()) for rule in own.rules]
    result = audit(table, rules, settings, known_groups(manifest, columns))
    thresholds, told = mitigated(predictions, manifest, params, settings)
    result.verdict["mitigation"] = told
    models = worst_groups(pd.concat([predictions, *([] if thresholds is None else [thresholds])]), columns, settings)
    composed = composition(composed_rows(manifest, predictions, columns), columns)
    facts = BiasFacts(
        name=params.register_model.name, verdict=result.verdict, by_group=result.by_group, by_class=result.by_class,
        changes=result.changes, composition=composed, gaps=gaps(composed), error_sheets=error_sheets(), models=models,
        rules_text=own.model_dump_json(indent=1, exclude={"columns_explained"}), lineage=lineage(params),
        origin=origin(params, table), pipeline=report_facts(predictions),
    )  # fmt: skip
    with whole_folder(DATA / "audit") as folder:
        write_json(folder / "verdict.json", result.verdict)
        tables = {
            "by_group": result.by_group,
            "by_class": result.by_class,
            "changes": result.changes,
            "composition": composed,
        }
        for name, rows in tables.items():
            write_table(folder / f"{name}.csv", rows)
        write_text(folder / "report.html", render(facts))
        write_text(folder / "summary.md", markdown(facts))
    write_json(DATA / "audit_metrics.json", short_metrics(result.verdict, models))
    print(f"audit: {result.verdict['verdict']}")  # noqa: T201  news


def ask_below() -> float | None:
    """The adopted model's confidence below which a person is asked; None where none was found."""
    decision = read_json(DATA / "adoption.json", made_by="guard_adaptation")
    calibration = decision["calibration"].get(decision["adopted"])
    threshold = calibration["ask_below"]["threshold"] if calibration else None
    return None if threshold is None else float(threshold)


def audited_rows(predictions: pd.DataFrame, model: str) -> pd.DataFrame:
    """One model's predictions, with the audit columns under their plain names."""
    return of_model(predictions, model).rename(columns=lambda name: str(name).removeprefix(AUDIT))


def facts_of(table: AuditTable) -> dict[str, np.ndarray]:
    """Every measured number of the test images, in the table's order."""
    if table.image_ids_N is None:
        return {}
    facts = read_table(DATA / "facts.csv", made_by="measure_images").set_index("image_id").loc[list(table.image_ids_N)]
    numbers = {str(name): pd.to_numeric(facts[name], errors="coerce") for name in facts.columns}
    return {name: values.to_numpy(float) for name, values in numbers.items() if values.notna().any()}


def known_groups(manifest: pd.DataFrame, columns: list[str]) -> dict[str, list[str]]:
    """Per column the groups of all target images: one that the test lacks can't pass.

    A group that is one group_id (such as a person) lies in one split by design, and can't be asked of the test.
    """
    target = manifest[manifest["domain"] == "target"]
    n_ids = {name: target.groupby(AUDIT + name)["group_id"].nunique() for name in columns}
    return {name: sorted(set(n.index[n > 1]) - {""}) for name, n in n_ids.items()}


def origin(params: Params, table: AuditTable) -> Origin:
    """Where the columns come from: the table that build_manifest read, or the folders' names."""
    own = params.build_manifest
    name = Path(own.table).name
    is_table = Path(own.table) != Path(own.root)
    if is_table and own.columns.group:
        given = f"Column “{own.columns.group}” of {name}"
    elif not is_table and "group" in own.layout.split("/"):
        given = f"Name of a folder (the level “group” of {own.layout})"
    else:
        given = "No column says which images belong together"
    together = f"{given}; copies and near-copies that the checks of the data found share one too."
    n_clusters = None if table.clusters_N is None else int(table.clusters_N.max()) + 1
    return Origin(name, together, n_clusters, params.audit_bias.columns_explained)


def composed_rows(manifest: pd.DataFrame, predictions: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """The accepted images with plain column names, and the test's labels, which their own file holds."""
    true = of_model(predictions, ADOPTED).set_index("image_id")["y_true"]
    rows = manifest.rename(columns={AUDIT + name: name for name in columns})
    return rows.assign(label=rows["image_id"].map(true).fillna(rows["label"]))


def worst_groups(predictions: pd.DataFrame, columns: list[str], settings: Settings) -> pd.DataFrame:
    """One row per model and column: accuracy of all images and of the least accurate group that is large enough."""
    rows = []
    for model in predictions["model"].unique():
        table = table_of(audited_rows(predictions, model), columns=columns)
        rows += [{"model": model} | row for row in worst_by_column(table, settings)]
    return pd.DataFrame(rows)


def short_metrics(verdict: dict[str, Any], models: pd.DataFrame) -> dict[str, Any]:
    """What `dvc metrics show` and `dvc exp show` compare: the verdict, and each column's worst group."""
    adopted = models[models["model"] == ADOPTED] if len(models) else models
    worst = {
        row["column"]: {"group": row["worst_group"], "accuracy": row["worst"]} for row in adopted.to_dict("records")
    }
    rules = {rule["name"]: rule["verdict"] for rule in verdict["rules"]}
    return {"verdict": verdict["verdict"], "worst_group": worst, "rules": rules}


def error_sheets() -> tuple[ErrorSheet, ...]:
    """The sheets of explain_errors, each with what it shows."""
    index = read_table(DATA / "errors/index.csv", made_by="explain_errors")
    sheets = []
    for (name, column, group), lines in index.groupby(["sheet", "column", "group"], sort=False):
        where = f"{group} ({column})" if column else "all images"
        told = "; ".join(
            f"{row['line']}: {row['y_true']} taken for {row['y_pred']} ({float(row['confidence']):.2f} sure)"
            for row in lines.to_dict("records")
        )
        sheets.append(ErrorSheet(where, (DATA / "errors" / str(name)).read_bytes(), told))
    return tuple(sheets)


def check_against_fairlearn(table: AuditTable, settings: Settings) -> None:
    """fairlearn's MetricFrame, with scikit-learn's counts, defines the point values; ours, counted faster, must equal them.

    Only up to 10,000 rows.
    """
    from fairlearn.metrics import MetricFrame, count
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, multilabel_confusion_matrix

    if len(table.y_true_N) > MAX_CHECKED:
        return
    cells = partial(multilabel_confusion_matrix, labels=np.arange(len(table.classes)))
    for column, grouping in table.columns.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a group that lacks a class
            frame = MetricFrame(
                metrics={"accuracy": accuracy_score, "balanced_accuracy": balanced_accuracy_score, "n": count, "cells": cells},
                y_true=table.y_true_N, y_pred=table.y_pred_N, sensitive_features=pd.Series(grouping.codes_N, name=column),
            )  # fmt: skip
            theirs = frame.by_group.loc[np.arange(len(grouping.names))]
        values = {name: theirs[name].to_numpy(float) for name in ("accuracy", "balanced_accuracy", "n")}
        if differing := differences(table, column, settings, values | rates_of_cells(np.stack([*theirs["cells"]]))):
            raise AssertionError(f"{', '.join(differing)} by {column}: ours differ from fairlearn's MetricFrame")


def mitigated(predictions: pd.DataFrame, manifest: pd.DataFrame, params: Params, settings: Settings) -> Mitigated:
    """The test's rows under thresholds per group as one more model, and what the verdict says of them; None where not asked."""
    asked = params.audit_bias.threshold_optimizer
    if asked is None:
        return None, None
    test = audited_rows(predictions, ADOPTED)
    y_pred, told = mitigation(labelled_validation(manifest), test, Plan(**asked.model_dump()), votes, settings)
    rows = of_model(predictions, ADOPTED).assign(model=f"{ADOPTED}, thresholds by {asked.column}", y_pred=y_pred)
    return (None if told["reason"] else rows), told


def labelled_validation(manifest: pd.DataFrame) -> pd.DataFrame:
    """What the adopted model says of the target's validation images, at its temperature, with their labels.

    Nothing was learnt from these images; their labels chose the method and the temperature, and neither the guard's nor the
    test's are among them.
    """
    adopted = read_json(DATA / "adoption.json", made_by="guard_adaptation")["adopted"]
    temperature = read_json(DATA / "model/model.json", made_by="finetune_model")["temperature"][adopted]
    held_out = of_model(read_table(DATA / "model/held_out.csv", made_by="finetune_model"), adopted)
    labelled = manifest[(manifest["domain"] == "target") & (manifest["split"] == "val") & (manifest["label"] != "")]
    rows = (
        labelled.rename(columns=lambda name: str(name).removeprefix(AUDIT))
        .drop(columns="split")
        .merge(held_out, on="image_id")
    )
    shares = [name for name in held_out.columns if name.startswith("p_")]
    rows[shares] = recalibrated(rows[shares].to_numpy(float), temperature)
    return rows.assign(y_true=rows["label"])


def votes(asked: Binary, plan: Plan, seed: int) -> np.ndarray:
    """(N,) yes or no by fairlearn's thresholds (Hardt et al. 2016), which mix two of them by lot to meet the constraint."""
    from fairlearn.postprocessing import ThresholdOptimizer
    from sklearn.linear_model import LinearRegression

    score = LinearRegression()
    score.coef_, score.intercept_ = np.ones(1), 0.0  # as fitted: its one feature is the score already
    optimizer = ThresholdOptimizer(
        estimator=score, constraints=plan.constraint, objective=f"{plan.objective}_score", prefit=True, predict_method="predict"
    ).fit(asked.score_V[:, None], asked.is_yes_V, sensitive_features=asked.group_V)  # fmt: skip
    said = optimizer.predict(asked.score_N[:, None], sensitive_features=asked.group_N, random_state=seed)
    return np.asarray(said, bool)


def report_facts(predictions: pd.DataFrame) -> ReportFacts:
    return ReportFacts(
        adopted=of_model(predictions, ADOPTED),
        metrics=read_json(DATA / "metrics.json", made_by="evaluate_model"),
        decision=read_json(DATA / "adoption.json", made_by="guard_adaptation"),
        to_label=read_table(DATA / "to_label.csv", made_by="guard_adaptation"),
        to_label_sheet=(DATA / "to_label.png").read_bytes(),
        selection=read_json(DATA / "selection.json", made_by="select_model"),
        validation=read_json(DATA / "validation.json", made_by="validate_data"),
        history=read_table(DATA / "history.csv", made_by="finetune_model"),
        preview=(DATA / "augmentation/preview.png").read_bytes(),
    )


def lineage(params: Params) -> dict[str, str]:
    """What the numbers came from, by content; nothing here depends on the clock."""
    hashes = {what: file_sha256(DATA / path) for what, path in LINEAGE_FILES.items()}
    return {
        "seed": str(params.seed),
        "device": f"{params.runtime.device}, {params.runtime.n_threads} thread(s)",
        "parameters": text_sha256(params.model_dump_json(exclude={"review"})),
        "environment lock": file_sha256(Path("requirements.lock")),
    } | hashes


if __name__ == "__main__":
    run_stage(main)
