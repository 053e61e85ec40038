"""Charts as SVG text: deterministic bytes, no network, colours that print.

matplotlib is imported inside the functions: core must import on a box that trains but draws nothing.
"""

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

SOURCE_ONLY = "source_only"
CYCLE = ["#0b6e99", "#d1495b", "#3a7d44", "#e1a730", "#6d4c91", "#5f6b6d", "#00a6a6", "#a05c2c"]


def _figure(width: float, height: float) -> Any:
    import matplotlib as mpl
    from cycler import cycler
    from matplotlib.figure import Figure

    mpl.rcParams.update({
        "svg.hashsalt": "acclimate", "svg.fonttype": "none", "font.size": 9,
        "axes.spines.top": False, "axes.spines.right": False, "axes.prop_cycle": cycler(color=CYCLE),
    })  # fmt: skip
    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def selection_chart(candidates: list[dict[str, Any]]) -> str:
    """How often each candidate comes first, and each score with its interval; the null of a distance is a grey tick."""
    names = [entry["name"] for entry in candidates]
    scores = list(candidates[0]["scores"])
    figure = _figure(9.5, (0.8 + 0.25 * len(names)) * ((len(scores) + 3) // 3))
    axes = figure.subplots((len(scores) + 3) // 3, 3, squeeze=False).ravel()
    rows = np.arange(len(names))[::-1]
    axes[0].barh(rows, [entry["p_best"] for entry in candidates], color=CYCLE[0])
    axes[0].set(title="first in the draws", xlim=(0, 1))
    for axis, score in zip(axes[1:], scores, strict=False):
        entries = [entry["scores"][score] for entry in candidates]
        value = np.array([e["value"] for e in entries])
        spread = [value - [e["low"] for e in entries], np.array([e["high"] for e in entries]) - value]
        axis.errorbar(value, rows, xerr=spread, fmt="o", color=CYCLE[0], capsize=3)
        if "null" in entries[0]:
            axis.plot([e["null"] for e in entries], rows, "|", color="#777777", markersize=12)
        better = "higher is better" if entries[0]["higher_is_better"] else "lower is nearer; grey: null"
        axis.set(title=score.replace("_", " "), xlabel=better)
    for axis in axes[: len(scores) + 1]:
        axis.set_yticks(rows, names)
        axis.set_ylim(-0.6, len(names) - 0.4)
    for axis in axes[len(scores) + 1 :]:
        axis.set_axis_off()
    return _svg(figure)


def map_chart(points: dict[str, list[list[float]]]) -> str:
    """Domains as clouds of points; "" where there are none."""
    if not any(points.values()):
        return ""
    figure = _figure(6.5, 4.2)
    axis = figure.subplots()
    for number, (name, cloud) in enumerate(points.items()):
        x, y = np.array(cloud or np.empty((0, 2))).T[:2]
        axis.plot(x, y, "o", markersize=3, alpha=0.6, color=CYCLE[number % len(CYCLE)], label=_plain_text(name))
    axis.set(xticks=[], yticks=[], xlabel="first component", ylabel="second component")
    axis.legend(frameon=False, fontsize=8)
    return _svg(figure)


def learning_chart(history: pd.DataFrame) -> str:
    """Training loss by epoch, and validation accuracy where it was measured; phases of a model follow each other."""
    figure = _figure(9.5, 3.2)
    loss_axis, accuracy_axis = figure.subplots(1, 2)
    for number, (name, rows) in enumerate(history.groupby("model", sort=False)):
        epochs = np.arange(1, len(rows) + 1)
        colour = CYCLE[number % len(CYCLE)]
        loss_axis.plot(epochs, pd.to_numeric(rows["loss"]), color=colour, label=str(name).replace("_", " "))
        accuracy = pd.to_numeric(rows["val_accuracy"]).to_numpy()
        measured = ~np.isnan(accuracy)
        if name == SOURCE_ONLY:
            continue  # measured on source images, so it is no match for the others
        accuracy_axis.plot(epochs[measured], accuracy[measured], "o-", markersize=3, color=colour)
    loss_axis.set(title="training loss", xlabel="epoch")
    loss_axis.legend(frameon=False, fontsize=8)
    accuracy_axis.set(title="accuracy on target validation", xlabel="epoch")
    return _svg(figure)


def comparison_chart(metrics: dict[str, dict[str, Any]]) -> str:
    """Test accuracy of each model with its interval."""
    names = list(metrics)[::-1]
    value = np.array([metrics[name]["accuracy"] for name in names])
    spread = [
        value - [metrics[name]["accuracy_low"] for name in names],
        np.array([metrics[name]["accuracy_high"] for name in names]) - value,
    ]
    figure = _figure(6.5, 0.7 + 0.35 * len(names))
    axis = figure.subplots()
    axis.errorbar(value, range(len(names)), xerr=spread, fmt="o", color=CYCLE[0], capsize=3)
    axis.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axis.set(xlabel="accuracy on the target test images")
    return _svg(figure)


def confusion_chart(actual: list[str], predicted: list[str], classes: list[str]) -> str:
    """Rows: true class; columns: predicted class; numbers are images."""
    index = {name: number for number, name in enumerate(classes)}
    table = np.zeros((len(classes), len(classes)), int)
    for true, guess in zip(actual, predicted, strict=True):
        table[index[true], index[guess]] += 1
    side = min(2.2 + 0.32 * len(classes), 9)
    figure = _figure(side, side)
    axis = figure.subplots()
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(table), strict=True):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axis.text(column, row, table[row, column], ha="center", va="center", fontsize=7, color=colour)
    axis.set_xticks(range(len(classes)), classes, rotation=90)
    axis.set_yticks(range(len(classes)), classes)
    axis.set(xlabel="predicted", ylabel="true")
    return _svg(figure)


def forest_chart(names: list[str], effects: pd.DataFrame, limit: float) -> str:
    """Effects (columns effect, low, high, verdict) with their intervals, and the limit on both sides.

    The verdict is told by shape as well as by colour: a diamond lies beyond the limit, a hollow circle is open.
    """
    figure = _figure(8, 1.0 + 0.24 * len(names))
    axis = figure.subplots()
    rows = np.arange(len(names))[::-1]
    looks = {
        "fail": ("D", CYCLE[1], CYCLE[1]),
        "inconclusive": ("o", CYCLE[5], "white"),
        "pass": ("o", CYCLE[0], CYCLE[0]),
    }
    for verdict, (shape, colour, fill) in looks.items():
        of = (effects["verdict"] == verdict).to_numpy()
        value, low, high = (effects.loc[of, name].to_numpy(float) for name in ("effect", "low", "high"))
        spread = np.maximum([value - low, high - value], 0)
        axis.errorbar(
            value, rows[of], xerr=spread, fmt=shape, color=colour, markerfacecolor=fill, markersize=5, capsize=3
        )
    axis.axvline(0, color="#999999", linewidth=0.8)
    for end in (-limit, limit):
        axis.axvline(end, color=CYCLE[1], linewidth=0.9, linestyle="--")
    axis.set_yticks(rows, [_plain_text(name) for name in names])
    axis.set(xlim=(-1.05, 1.05), ylim=(-0.7, len(names) - 0.3))
    axis.set_xlabel("effect")
    return _quiet_svg(figure)


def balance_chart(n_CO: np.ndarray, classes: list[str], origins: list[str]) -> str:
    """Images per class (C, rows) and origin (O, colours) as bars, in the order given."""
    figure = _figure(8, 1.0 + len(classes) * (0.12 + 0.12 * len(origins)))
    axis = figure.subplots()
    rows = np.arange(len(classes))[::-1]
    height = 0.8 / len(origins)
    bars = [
        axis.barh(
            rows + 0.4 - height * (o + 0.5),
            n_CO[:, o],
            height,
            color=CYCLE[o % len(CYCLE)],
            edgecolor="white",
            linewidth=0.4,
        )
        for o in range(len(origins))
    ]
    if len(origins) > 1:
        names = [_plain_text(f"domain {origin}") for origin in origins]
        figure.legend(bars, names, frameon=False, fontsize=8, loc="outside upper left", ncols=3)
    axis.set_yticks(rows, [_plain_text(name) for name in classes])
    axis.set(xlabel="accepted images with a label", ylim=(-0.7, len(classes) - 0.3))
    return _quiet_svg(figure)


def interval_chart(table: pd.DataFrame, names: Sequence[str], x_label: str) -> str:
    """Value, low and high (shares, drawn in points) of each row with a line at zero; red diamonds where `is_worse`.

    An optional column `limit` (NaN = none) draws the row's limit below zero. "" without a measured row.
    """
    measured = table["value"].notna().to_numpy()
    is_worse, names = (
        table["is_worse"].to_numpy(bool)[measured],
        [name for name, keep in zip(names, measured, strict=True) if keep],
    )
    table = 100 * table[measured].drop(columns="is_worse")
    if not names:
        return ""
    figure = _figure(8, 0.9 + 0.26 * len(names))
    axis = figure.subplots()
    rows = np.arange(len(names))[::-1]
    for these, shape, colour in ((~is_worse, "o", CYCLE[0]), (is_worse, "D", CYCLE[1])):
        value, low, high = (table.loc[these, name].to_numpy(float) for name in ("value", "low", "high"))
        spread = np.nan_to_num(np.maximum([value - low, high - value], 0))
        axis.errorbar(value, rows[these], xerr=spread, fmt=shape, color=colour, markersize=5, capsize=3)
    if "limit" in table:
        limit = -table["limit"].to_numpy(float)
        axis.vlines(limit, rows - 0.45, rows + 0.45, color=CYCLE[1], linestyle="--", linewidth=1.2)
    axis.axvline(0, color="#777777", linewidth=0.8)
    axis.set_yticks(rows, [_plain_text(name) for name in names])
    axis.set(xlabel=x_label, ylim=(-0.7, len(names) - 0.3))
    return _quiet_svg(figure)


def trade_chart(models: pd.DataFrame) -> str:
    """Accuracy over all images against that of the worst group, one point per model (row); "" below two models."""
    own = models[models["worst"].notna()]
    if len(own) < 2:
        return ""
    figure = _figure(6, 3.6)
    axis = figure.subplots()
    for number, row in enumerate(own.to_dict("records")):
        x, y = 100 * row["accuracy"], 100 * row["worst"]
        spread = [[y - 100 * row["worst_low"]], [100 * row["worst_high"] - y]]
        colour, shape = CYCLE[number % len(CYCLE)], "osD^vP*X"[number % 8]
        axis.errorbar([x], [y], yerr=spread, fmt=shape, color=colour, capsize=3, label=_plain_text(row["model"]))
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axis.set(xlabel="accuracy on all images, %", ylabel="accuracy of the worst group, %")
    return _quiet_svg(figure)


def _plain_text(name: str) -> str:
    return name.replace("$", r"\$")  # a dollar would start a formula


def _quiet_svg(figure: Any) -> str:
    """The SVG; a letter that matplotlib's own font lacks is drawn by the browser's, so it needs no warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph|Matplotlib currently does not support")
        return _svg(figure)
