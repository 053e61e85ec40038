"""What `acclimate label` warns of: answers to the guard that the next run won't count."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    import pandas as pd

MODEL = Path("data/model")


def warn_of_answers(entered: "pd.DataFrame") -> None:
    """One line on stderr where answers won't count."""
    if warning := told_of_answers(entered):
        typer.echo(f"warning: {warning}", err=True)


def told_of_answers(entered: "pd.DataFrame") -> str:
    """A sentence, or "": answers just entered are of other models, or labels changed since these models were trained.

    `entered`: path, label, asked_of as given in this call, which data/given/labels.csv holds by now.
    """
    from flows.data_cli import LABELS
    from tasks.core.labels import asked_labels, read_labels

    labels = read_labels(LABELS)
    standing = asked_labels(labels)["asked_of"]
    if standing.empty or (pair := pair_here()) is None:
        return ""
    answers = entered[(entered["label"] != "") & (entered["asked_of"] != "")]
    if n_void := int((answers["asked_of"] != pair).sum()):
        return (
            f"{n_void} of the {len(answers)} answers won't count: they were asked of two models that said other "
            "things than those in data/model now; answer the questions of data/to_label.csv as it is now"
        )
    n_answers, n_changed = int((standing == pair).sum()), changed_labels(labels)
    if not n_answers or not n_changed:
        return ""
    return (
        f"{n_changed} ordinary label(s) changed since the last run, so the next one trains anew, and the {n_answers} "
        "answer(s) to the guard won't count if its models say other things; to have them weighed first, enter those labels as "
        "they were, run, and change them again"
    )


def pair_here() -> str | None:
    """Which two models the guard compares, by what they say; None where no training has ended here."""
    held_out, decision = MODEL / "held_out.csv", MODEL / "decision.json"
    if not held_out.exists() or not decision.exists():
        return None
    from tasks.core.files import read_json, read_table
    from tasks.guard_adaptation import pair_of

    chosen = read_json(decision, made_by="finetune_model")["method"]["chosen"]
    return pair_of(read_table(held_out, made_by="finetune_model"), chosen)


def changed_labels(labels: "pd.DataFrame") -> int:
    """How many images that models learn or choose by have another label now than the last run read; test images have no part."""
    from flows.data_cli import MANIFEST, target_paths
    from tasks.core.labels import with_given_labels
    from tasks.core.manifest import read_manifest

    rows = read_manifest(MANIFEST)
    is_changed = with_given_labels(rows, labels)["label"] != rows["label"]
    return int((is_changed & ~rows["path"].isin(target_paths(rows, "test"))).sum())
