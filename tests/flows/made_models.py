"""Bundles whose networks work: every image gets the same probabilities, known by hand."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from made_registry import EMPTY_PROFILE, NAME

from flows.registry import Version, find
from flows.review import Statement, decide, promote, subject_of
from tasks.core.bundle import candidate_id, write_bundle
from tasks.core.model import SmallResNet, save_weights, split_head
from tasks.core.reviews import APPROVE, ReviewRules, Vote
from tasks.register_model import sync_registry

CLASSES = ("a", "b", "c")
SURE = 0.8  # of the class that a bundle is for; the others share the rest evenly


def working_bundle(folder: Path, says: str, *, is_random: bool = False, **changes: Any) -> Path:
    """A bundle whose network gives class `says` the probability SURE for whatever image, or one of random weights."""
    parts = folder / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    net = split_head(SmallResNet(3), 3)
    if not is_random:
        probs = [SURE if name == says else (1 - SURE) / 2 for name in CLASSES]
        torch.nn.init.zeros_(net.head.weight)
        net.head.bias.data = torch.tensor(probs).log()
    save_weights(net, parts / "model.safetensors")
    sight = {"image_px": 32, "interpolation": "bilinear", "crop_share": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3}
    description = {
        "architecture": "acclimate.small_resnet",
        "classes": CLASSES,
        "temperature": 1.0,
        "ask_below": 0.5,
        **sight,
    } | changes
    contents = {
        "model.json": json.dumps(description),
        "report.html": f"<p>{says}</p>",
        "profile.json": EMPTY_PROFILE,
        "verdict.json": json.dumps({"verdict": "pass", "reason": "as told"}),
        "metrics.json": json.dumps({"adopted": {"n": 10, "accuracy": 0.5}}),
        "adoption.json": json.dumps({"guard": {"decision": "adopt", "is_proven": True}}),
    }
    for name, content in contents.items():
        (parts / name).write_text(content)
    facts = {"name": NAME, "verdict": "pass", "decision": "adopt", "adopted": "shot", "accuracy": 0.5}
    files = {name: parts / name for name in ("model.safetensors", *contents)}
    write_bundle(folder / "bundle", files, facts)
    return folder / "bundle"


def registered_model(folder: Path, says: str, *, is_approved: bool = True, **changes: Any) -> Version:
    """The version of a new bundle, approved by Bob unless told."""
    bundle = working_bundle(folder / says, says, **changes)
    sync_registry(bundle, NAME)
    version = find(NAME, candidate_id(bundle))
    if is_approved:
        report = subject_of(version).report_sha256
        time = datetime(2026, 11, 21, tzinfo=UTC).isoformat()
        vote = Vote(version.candidate, APPROVE, "bob", "owner", "looks right", "", report, time, n_approvals=1)
        decide(version, vote, ReviewRules(n_approvals=1, allow_starter=True))
    return version


def champion_model(folder: Path, says: str) -> Version:
    """A version that was approved and promoted."""
    version = registered_model(folder, says)
    time = datetime(2026, 11, 22, tzinfo=UTC).isoformat()
    promote(version, Statement("ann", "", "it is better"), time=time, tell=lambda _: None)
    return find(NAME, version.number)
