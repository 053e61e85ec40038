"""What a run left behind, for people: read from the files of the stages, computed nowhere else."""

import json
import shutil
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPORT = Path("data/audit/report.html")
VALIDATION_PAGE = Path("data/validation.html")
BUNDLE = Path("data/bundle")
MAX_LINES, WIDTH = 4, 100
DECIDES = {"fail": "broken", "inconclusive": "undecided"}
FILES = {
    "metrics": Path("data/metrics.json"),
    "audit": Path("data/audit/verdict.json"),
    "decision": Path("data/adoption.json"),
    "gate": Path("data/gate.json"),
}


@dataclass(frozen=True)
class Results:
    """Parsed files; None where the stage has not made its file."""

    metrics: dict[str, Any] | None
    audit: dict[str, Any] | None
    decision: dict[str, Any] | None
    gate: dict[str, Any] | None


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


def data_sentence(gate: dict[str, Any]) -> str:
    """Whether the data was accepted; results beside blocked data are those of an earlier run."""
    if not gate["blocked_by"]:
        return f"accepted; see {VALIDATION_PAGE}"
    return f"blocked: {'; '.join(gate['blocked_by'])}; see {VALIDATION_PAGE}; other results are of an earlier run"


def audit_paragraph(audit: dict[str, Any]) -> str:
    """Why the verdict is what it is, in four lines at most with "audit: VERDICT: " before it; the report says all.

    It is told by the first of the required rules that make the verdict, and the others are named.
    """
    verdict, why = audit["verdict"], audit["reason"]
    required = [rule for rule in audit.get("rules", []) if rule.get("required")]
    named = [f"{rule['name']} ({rule['column'] or 'all images'})" for rule in required if rule["verdict"] == verdict]
    if named and verdict in DECIDES:
        first = next(rule for rule in required if rule["verdict"] == verdict)
        also = f"; also {', '.join(named[1:])}" if named[1:] else ""
        why = f"{len(named)} of {len(required)} required rules {DECIDES[verdict]}: {named[0]}: {first['reason']}{also}"
    indent = " " * len(f"audit: {verdict}: ")
    lines = textwrap.wrap(
        why, WIDTH, initial_indent=indent, max_lines=MAX_LINES, placeholder=" …", break_on_hyphens=False
    )
    return " ".join(lines).strip()


def decision_sentence(decision: dict[str, Any]) -> str:
    """Which model the run ended with, and why."""
    guard = decision["guard"]
    return f"{guard['decision']}, the model is {decision['adopted'].replace('_', ' ')}: {guard['reason']}"


def register_again() -> str | None:
    """One line, or None without a bundle. A register stage that DVC restored has not executed, so the drivers call this."""
    if not BUNDLE.exists():
        return None
    from flows.registry import sync

    manifest = json.loads((BUNDLE / "manifest.json").read_text(encoding="utf-8"))
    return sync(BUNDLE, manifest["name"])


def report_path() -> Path:
    """The audit report's absolute path. FileNotFoundError names the stage that makes it."""
    return _page(REPORT, "audit_bias")


def validation_path() -> Path:
    """The validation page's absolute path. FileNotFoundError names the stage that makes it."""
    return _page(VALIDATION_PAGE, "validate_data")


def data_docs() -> Path:
    """Great Expectations' Data Docs of the last facts, built anew in the ignored folder; the path of their first page."""
    from tasks.core.checks import checked_columns
    from tasks.core.facts import read_facts
    from tasks.core.manifest import read_manifest
    from tasks.core.runtime import acclimate_home, quiet_tools
    from tasks.params import read_params
    from tasks.validate_data import build_data_docs

    quiet_tools()
    rules = read_params().validate_data.rules
    manifest, facts = read_manifest(Path("data/manifest.csv")), read_facts(Path("data/facts.csv"))
    folder = acclimate_home() / "data_docs"
    shutil.rmtree(folder, ignore_errors=True)
    return build_data_docs(checked_columns(manifest, facts, rules.unique_pictures.max_bits), rules, folder)


def _page(page: Path, stage: str) -> Path:
    if not page.exists():
        raise FileNotFoundError(f"{page} is missing: it is made by the stage {stage}; run `acclimate run`")
    return page.absolute()


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _share(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"
