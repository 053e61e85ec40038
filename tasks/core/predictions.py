"""Predictions: one row per test image and model, with its true class and audit columns.

Axes: N images, C classes.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from tasks.core.files import read_table

ADOPTED = "adopted"
CHAMPION = "champion"


def prediction_rows(model: str, rows: pd.DataFrame, probs_NC: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """`rows` needs image_id, group_id, split, y_true and the audit columns, in the order of the probabilities."""
    audit = [name for name in rows.columns if name.startswith("audit_")]
    table = rows[["image_id", "group_id", "split", "y_true", *audit]].reset_index(drop=True)
    table.insert(0, "model", model)
    table.insert(5, "y_pred", [classes[i] for i in probs_NC.argmax(1)])
    shares = pd.DataFrame(probs_NC.round(6), columns=[f"p_{name}" for name in classes])
    return pd.concat([table, shares], axis=1)


def read_predictions(path: Path) -> pd.DataFrame:
    """Probabilities as numbers, all else as text."""
    table = read_table(path, made_by="evaluate_model")
    return table.assign(**{name: pd.to_numeric(table[name]) for name in table.columns if name.startswith("p_")})


def of_model(predictions: pd.DataFrame, model: str) -> pd.DataFrame:
    return predictions[predictions["model"] == model].reset_index(drop=True)


def right(rows: pd.DataFrame) -> np.ndarray:
    """(N,) bool."""
    return (rows["y_true"] == rows["y_pred"]).to_numpy()
