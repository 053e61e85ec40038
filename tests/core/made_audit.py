"""Audits of small made tables, and the facts of a made pipeline run, for the tests of the page and its summary."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from tasks.core.bias.composition import composition, gaps
from tasks.core.bias.counts import Settings
from tasks.core.bias.rules import Rule
from tasks.core.bias.table import table_of, with_intersections
from tasks.core.bias.verdict import audit
from tasks.core.bias_page import BiasFacts
from tasks.core.report import ReportFacts

SETTINGS = Settings(confidence=0.95, min_group_size=20, n_bootstrap=100, seed=0, ask_below=None)
ACCURACY = Rule("as good as the others", "accuracy", "site", "difference", "others", 0.05, True)
LOSS = Rule("nobody loses", "accuracy", "site", "change", "before", 0.02, False)
SMALL_PNG = bytes.fromhex("89504e470d0a1a0a")
HOSTILE = "<script>alert(1)</script>\"'&|*x*`_[a](http://evil.example)\u202egnp\u05d0 $\\frac$ @all"

# site: (right now, right before, images); before, B was right on 10 more images, and on all that it's right on now
SITES = {"A": (180, 150, 200), "B": (60, 70, 100)}


def predictions(sites: dict[str, tuple[int, int, int]], which: int = 0) -> pd.DataFrame:
    """Cats: those that are right are predicted as cat, the first ones of each site; which: 0 = now, 1 = before."""
    rows = [(site, "cat" if k < seen[which] else "dog") for site, seen in sites.items() for k in range(seen[2])]
    return pd.DataFrame({"site": [r[0] for r in rows], "y_true": "cat", "y_pred": [r[1] for r in rows]})


def audited(
    rows: pd.DataFrame, rules: Sequence[Rule] = (ACCURACY,), before: pd.DataFrame | None = None, **more: Any
) -> BiasFacts:
    """The rows' own columns are those of groups; `clusters` in `more`: the images that belong together."""
    columns = [name for name in rows.columns if name not in ("y_true", "y_pred") and not name.startswith("p_")]
    if "clusters" in more:
        rows = rows.assign(group_id=more.pop("clusters"))
    table = table_of(rows, columns=columns, baselines={} if before is None else {"before": before})
    found = audit(with_intersections(table, 2), rules, SETTINGS)
    return BiasFacts(
        name=more.pop("name", "made"), verdict=found.verdict, by_group=found.by_group, by_class=found.by_class,
        changes=found.changes, **more,
    )  # fmt: skip


def of_sites(sites: dict[str, tuple[int, int, int]] = SITES, **more: Any) -> BiasFacts:
    """Accuracy by site, and the change against the model before."""
    return audited(predictions(sites), (ACCURACY, LOSS), predictions(sites, 1), **more)


def data_side() -> dict[str, Any]:
    manifest = pd.DataFrame({
        "domain": "target", "split": ["train"] * 6 + ["test"] * 2, "label": ["cat", "cat", "dog", "cat", "", "dog", "", ""],
        "site": ["A", "A", "A", "A", "B", "B", "A", "B"],
    })  # fmt: skip
    composed = composition(manifest, ["site"])
    return {"composition": composed, "gaps": gaps(composed)}


def models() -> pd.DataFrame:
    return pd.DataFrame([
        {
            "model": name, "n": 300, "accuracy": accuracy, "accuracy_low": accuracy - 0.04, "accuracy_high": accuracy + 0.04,
            "column": "site", "worst_group": "B", "worst_n": 100, "worst": worst, "worst_low": worst - 0.1,
            "worst_high": worst + 0.1,
        }
        for name, accuracy, worst in (("plain", 0.8, 0.6), ("group_dro", 0.78, 0.7))
    ])  # fmt: skip


def pipeline_run() -> ReportFacts:
    """A run that adopted a method, all of it literal."""
    gain = {"value": 0.067, "low": 0.02, "high": 0.11}
    measured = {
        "n": 300, "accuracy": 0.8, "accuracy_low": 0.75, "accuracy_high": 0.84, "balanced_accuracy": 0.8,
        "worst_class": "dog", "worst_class_recall": 0.7, "calibration_error": 0.05,
    }  # fmt: skip
    guard = {
        "decision": "adopt", "is_proven": True, "level": 0.95, "n_labels": 17, "n_asked": 0, "n_waiting": 0,
        "reason": "better than source-only: 95.0% one-sided bound +0.045",
        "by": {"site": [{"part": "B", "n": 9, "n_disagreements": 4, "n_labels": 3, "is_worse": True, "gain": -0.1, "low": -0.2,
                         "high": -0.01}]},
    }  # fmt: skip
    method = {
        "name": "shot", "val_accuracy": 0.8, "minus_source_only": gain, "source_accuracy": 0.9, "mean_rank": 1.5, "passes": False,
        "gates": [{"is_passed": False, "reason": "forgets the source"}],
    }  # fmt: skip
    candidate = {
        "name": "resnet", "source_domain": "photos", "pretraining": {"known_gaps": "few night scenes"}, "p_best": 0.9,
        "mean_rank": 1.1, "against_random": {**gain, "gain": 0.067, "is_better": True}, "n_parameters": 1000,
        "n_multiply_adds": 2000, "published_accuracy": None, "licence": "MIT", "chosen": True, "tied": False,
        "gaps": [{"column": "site", "worst": "B", "n_worst": 9, "gap": 0.1, "low": 0.0, "high": 0.2, "wider": True}],
        "scores": {"knn": {"value": 0.7, "low": 0.6, "high": 0.8, "higher_is_better": True}},
    }  # fmt: skip
    validation = {
        "classes": ["cat", "dog"], "status": "warn", "n_images": 400, "n_rejected": 1, "n_set_aside": 2,
        "n_target_labels": {"train": 6, "val": 10, "guard": 5, "test": 20}, "n_target_unlabelled": 9, "n_target_holdout": 4,
        "rules": [{"rule": "class_balance", "severity": "warn", "n_checked": 9, "n_failed": 1}],
    }  # fmt: skip
    return ReportFacts(
        adopted=pd.DataFrame({"y_true": ["cat", "dog"], "y_pred": ["cat", "cat"]}),
        metrics={"adopted": {**measured, "gain_over_source_only": gain}, "source_only": measured},
        decision={
            "adopted": "shot", "guard": guard, "champion": None, "method": {"reason": "fits", "chosen": "shot",
            "candidates": [method]}, "calibration": {"shot": None}, "label_shift": None, "foreignness": None, "n_synthetic": 0,
            "not_run": {"mcc": "switched off"},
        },
        selection={
            "reason": "Clearly first", "n_labels": 6, "by_labels": True, "rule": "A rule.", "left_out": [],
            "candidates": [candidate],
            "confidence": 0.95, "chosen": "resnet", "map": {"explained": 0.4, "points": {"source": [[0.0, 1.0]]}},
        },
        validation=validation,
        history=pd.DataFrame({"model": ["shot"], "loss": [1.0], "val_accuracy": [0.5]}),
        preview=SMALL_PNG, to_label=pd.DataFrame({"path": ["a.png"], "source_only": ["cat"], "adapted": ["dog"]}),
        to_label_sheet=SMALL_PNG,
    )  # fmt: skip
