"""The model card: what the bundle is, in Markdown with Hugging Face's front matter, from the same facts as the report."""

import json
from typing import Any

from tasks.core.bias.table import TIMES
from tasks.core.bias_words import VERDICTS, plain

DATASET = "target test images"


def model_card(name: str, description: dict[str, Any], metrics: dict[str, Any], evidence: dict[str, Any]) -> str:
    """`evidence` holds verdict, decision, selection and validation as their stages wrote them.

    Text from data can't act as markup: the front matter is written as JSON, which YAML reads as it is; the rest is escaped.
    """
    adopted, decision = metrics["adopted"], evidence["decision"]
    chosen = next(entry for entry in evidence["selection"]["candidates"] if entry["chosen"])
    labels = evidence["validation"]["n_target_labels"]
    gain = adopted.get("gain_over_source_only")
    gain_line = (
        f"- Against the source-only model on the same images: {gain['value']:+.3f} "
        f"({gain['low']:+.3f} to {gain['high']:+.3f}), n = {gain['n']}\n"
        if gain and description["adopted"] != "source_only"
        else "- The source-only model stayed: no adaptation was adopted\n"
    )
    words, to_decide = VERDICTS[evidence["verdict"]["verdict"]]
    columns = ", ".join(plain(name) for name in evidence["verdict"]["columns"] if TIMES not in name) or "no column"
    classes = ", ".join(plain(label) for label in description["classes"])
    return f"""---
{front_matter(name, chosen, adopted)}
---

# {plain(name)}

{plain(description["architecture"])} for {len(description["classes"])} classes ({classes}),
{description["image_px"]} px, from the pretrained candidate {plain(description["candidate"])}
({plain(chosen["source_domain"])}; licence {plain(chosen["licence"])}).

## Intended use
Images of the target domain that `params.yaml` named. {asked(description["ask_below"])}

## Evaluation
- Accuracy on {DATASET}: {adopted["accuracy"]:.3f} ({adopted["accuracy_low"]:.3f} to \
{adopted["accuracy_high"]:.3f}), n = {adopted["n"]}
- Balanced accuracy {adopted["balanced_accuracy"]:.3f}; worst class {plain(adopted["worst_class"])} with a recall of \
{adopted["worst_class_recall"]:.3f}; calibration error {adopted["calibration_error"]:.3f}
{gain_line}- Adaptation: {decision["guard"]["decision"]} ({plain(decision["guard"]["reason"], 600)})
- Bias audit of groups by {columns}: **{evidence["verdict"]["verdict"]}**. {words} {to_decide} The \
rules stand in `audit.md`, all of it in `report.html`.

## Training data
Target labels used: {labels["train"]} for training, {labels["val"]} for choices, {labels["guard"]} for the guard,
{labels["test"]} for the test. What is known of the pretraining: {plain(known(chosen), 600)}

## Limits
Groups outside the audit's columns, other domains and later changes of the target were not tested.
The weights carry the licence and the biases of what the candidate was pretrained on.
"""


def asked(threshold: float | None) -> str:
    if threshold is None:
        return "No confidence was found above which it is right often enough: a person is always asked."
    if threshold <= 0:
        return "At every confidence it was right often enough, so no person is asked."
    return f"Below a confidence of {threshold:.2f} a person is asked."


def known(chosen: dict[str, Any]) -> str:
    """What the zoo says of the candidate's pretraining data."""
    told = {key: value for key, value in (chosen.get("pretraining") or {}).items() if value}
    return "; ".join(f"{key.replace('_', ' ')}: {value}" for key, value in told.items()) or "nothing"


def front_matter(name: str, chosen: dict[str, Any], adopted: dict[str, Any]) -> str:
    """Hugging Face's metadata, one key a line."""
    measured = [("accuracy", adopted["accuracy"]), ("balanced_accuracy", adopted["balanced_accuracy"])]
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"type": "private", "name": DATASET},
        "metrics": [{"type": kind, "value": round(value, 4)} for kind, value in measured],
    }
    told = {
        "license": chosen["licence"].lower(),
        "library_name": "pytorch",
        "pipeline_tag": "image-classification",
        "tags": ["domain-adaptation", "bias-audit"],
        "metrics": [kind for kind, _ in measured],
        "model-index": [{"name": name, "results": [result]}],
    }
    return "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in told.items())
