"""The model card: what the bundle is, in Markdown with Hugging Face's front matter, from the same facts as the report."""

from typing import Any


def model_card(name: str, description: dict[str, Any], metrics: dict[str, Any], evidence: dict[str, Any]) -> str:
    """`evidence` holds verdict, decision, selection and validation as their stages wrote them."""
    adopted, verdict, decision = metrics["adopted"], evidence["verdict"], evidence["decision"]
    chosen = next(entry for entry in evidence["selection"]["candidates"] if entry["chosen"])
    labels = evidence["validation"]["n_target_labels"]
    gain = adopted.get("gain_over_source_only")
    gain_line = (
        f"- Against the source-only model on the same images: {gain['value']:+.3f} "
        f"({gain['low']:+.3f} to {gain['high']:+.3f}), n = {gain['n']}\n"
        if gain and description["adopted"] != "source_only"
        else "- The source-only model stayed: no adaptation was adopted\n"
    )
    return f"""---
license: {chosen["licence"].lower()}
library_name: torch
pipeline_tag: image-classification
tags: [domain-adaptation]
---

# {name}

{description["architecture"]} for {len(description["classes"])} classes ({", ".join(description["classes"])}),
{description["image_px"]} px, from the pretrained candidate {description["candidate"]}
({chosen["source_domain"]}; licence {chosen["licence"]}).

## Evidence
- Accuracy on target test images: {adopted["accuracy"]:.3f} ({adopted["accuracy_low"]:.3f} to \
{adopted["accuracy_high"]:.3f}), n = {adopted["n"]}
{gain_line}- Adaptation: {decision["guard"]["decision"]} ({decision["guard"]["reason"]})
- Bias audit: **{verdict["verdict"]}** ({verdict["reason"]})
- Target labels used: {labels["train"]} for training, {labels["val"]} for choices, {labels["guard"]} for the guard,
  {labels["test"]} for the test

## Limits
Groups outside the audit's columns, other domains and later changes of the target were not tested.
The weights carry the licence and the biases of what the candidate was pretrained on.
"""
