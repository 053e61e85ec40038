"""What a run left behind, for people: read from the files of the stages, computed nowhere else."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPORT = Path("data/audit/report.html")
BUNDLE = Path("data/bundle")
FILES = {
    "metrics": Path("data/metrics.json"),
    "audit": Path("data/audit/verdict.json"),
    "decision": Path("data/model/decision.json"),
}


@dataclass(frozen=True)
class Results:
    """Parsed files; None where the stage has not made its file."""

    metrics: dict[str, Any] | None
    audit: dict[str, Any] | None
    decision: dict[str, Any] | None


def read_results() -> Results:
    return Results(**{name: _read(path) for name, path in FILES.items()})


def metric_rows(metrics: dict[str, Any]) -> list[dict[str, str]]:
    """One row per model that has an accuracy, with n and interval."""
    return [
        {
            "model": name.replace("_", " "),
            "n": str(values.get("n", "")),
            "accuracy": _share(values["accuracy"]),
            "interval": f"{_share(values.get('accuracy_low'))} to {_share(values.get('accuracy_high'))}",
            "balanced accuracy": _share(values.get("balanced_accuracy")),
        }
        for name, values in metrics.items()
        if isinstance(values, dict) and "accuracy" in values
    ]


def decision_sentence(decision: dict[str, Any]) -> str:
    """Which model the run ended with, and why."""
    guard = decision["guard"]
    return f"{guard['decision']}, the model is {decision['adopted'].replace('_', ' ')}: {guard['reason']}"


def register_again() -> str | None:
    """One line, or None without a bundle. A register stage that DVC restored has not executed, so the drivers call this."""
    if not BUNDLE.exists():
        return None
    from tasks.register_model import sync_registry

    manifest = json.loads((BUNDLE / "manifest.json").read_text(encoding="utf-8"))
    return sync_registry(BUNDLE, manifest["name"])


def report_path() -> Path:
    """The report's absolute path. FileNotFoundError names the stage that makes it."""
    if not REPORT.exists():
        raise FileNotFoundError(f"{REPORT} is missing: it is made by the stage audit_bias; run `acclimate run`")
    return REPORT.absolute()


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _share(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"
