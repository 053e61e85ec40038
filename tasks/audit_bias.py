"""audit_bias: for whom is the adopted model worse, since when, and the page that says so.

reads   data/predictions.csv and what the page shows: data/manifest.csv, data/manifest_valid.csv, data/validation.json,
        data/selection.json, data/adoption.json, data/to_label.csv, data/to_label.png, data/history.csv, data/metrics.json,
        data/augmentation
writes  data/audit (verdict.json, by_group.csv, report.html)

A failed audit is a result, not an error.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.core.audit import AuditRule, AuditSettings, by_group, groups_of, judge, overall
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
from tasks.core.predictions import ADOPTED, of_model, read_predictions, right
from tasks.core.report import ReportFacts, render
from tasks.core.runtime import run_stage
from tasks.params import Params, read_params

LINEAGE_FILES = {
    "manifest": "manifest.csv",
    "accepted manifest": "manifest_valid.csv",
    "augmentation policy": "augmentation/policy.json",
    "selection": "selection.json",
    "decision": "adoption.json",
    "predictions": "predictions.csv",
}


def main() -> None:
    params = read_params()
    own = params.audit_bias
    settings = AuditSettings(own.confidence, own.min_group_size)
    predictions = read_predictions(Path("data/predictions.csv"))
    adopted, source_only = of_model(predictions, ADOPTED), of_model(predictions, "source_only")
    tables = {name: by_group(adopted, source_only, name, settings) for name in params.build_manifest.audit_columns}
    for column, table in tables.items():
        check_against_fairlearn(adopted, column, table)
    rules = [judge(AuditRule(**rule.model_dump()), tables[rule.column], settings) for rule in own.rules]
    verdict, reason = overall(rules)
    groups = pd.concat(tables.values(), ignore_index=True) if tables else pd.DataFrame()
    result = {
        "verdict": verdict,
        "reason": reason,
        "rules_sha256": text_sha256(own.model_dump_json()),
        "confidence": own.confidence,
        "min_group_size": own.min_group_size,
        "rules": rules,
    }
    facts = report_facts(result, groups, adopted, params)
    with whole_folder(Path("data/audit")) as folder:
        write_json(folder / "verdict.json", result)
        write_table(folder / "by_group.csv", groups)
        write_text(folder / "report.html", render(facts))


def check_against_fairlearn(adopted: pd.DataFrame, column: str, table: pd.DataFrame) -> None:
    """fairlearn defines the point values; ours, counted faster, must equal them."""
    from fairlearn.metrics import MetricFrame, count
    from sklearn.metrics import accuracy_score

    frame = MetricFrame(
        metrics={"accuracy": accuracy_score, "n": count},
        y_true=adopted["y_true"], y_pred=adopted["y_pred"], sensitive_features=groups_of(adopted, column),
    )  # fmt: skip
    theirs = frame.by_group.loc[table["group"]]
    if not (
        np.allclose(theirs["accuracy"].astype(float), table["accuracy"])
        and (theirs["n"] == table["n"].to_numpy()).all()
    ):
        raise AssertionError(f"accuracy by {column} differs from fairlearn's MetricFrame: {theirs} against {table}")
    if not np.isclose(float(frame.overall["accuracy"]), right(adopted).mean()):
        raise AssertionError("overall accuracy differs from fairlearn's MetricFrame")


def report_facts(result: dict[str, Any], groups: pd.DataFrame, adopted: pd.DataFrame, params: Params) -> ReportFacts:
    data = Path("data")
    return ReportFacts(
        name=params.register_model.name,
        verdict=result,
        groups=groups,
        adopted=adopted,
        metrics=read_json(data / "metrics.json", made_by="evaluate_model"),
        decision=read_json(data / "adoption.json", made_by="guard_adaptation"),
        to_label=read_table(data / "to_label.csv", made_by="guard_adaptation"),
        to_label_sheet=(data / "to_label.png").read_bytes(),
        selection=read_json(data / "selection.json", made_by="select_model"),
        validation=read_json(data / "validation.json", made_by="validate_data"),
        history=read_table(data / "history.csv", made_by="finetune_model"),
        preview=(data / "augmentation/preview.png").read_bytes(),
        lineage=lineage(params),
    )


def lineage(params: Params) -> dict[str, str]:
    """What the numbers came from, by content; nothing here depends on the clock."""
    hashes = {what: file_sha256(Path("data") / path) for what, path in LINEAGE_FILES.items()}
    return {
        "seed": str(params.seed),
        "device": f"{params.runtime.device}, {params.runtime.n_threads} thread(s)",
        "parameters": text_sha256(params.model_dump_json()),
        "environment lock": file_sha256(Path("requirements.lock")),
    } | hashes


if __name__ == "__main__":
    run_stage(main)
