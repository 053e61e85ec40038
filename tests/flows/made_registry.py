"""Bundles made of a few bytes, and their versions in the registry."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from flows.registry import Version, find
from tasks.core.bundle import candidate_id, write_bundle
from tasks.register_model import sync_registry

NAME = "digits"
EMPTY_PROFILE = '{"format": 1, "n_images": 0, "origins": {}, "groups": {}}\n'


def made_bundle(folder: Path, weights: str, *, verdict: str = "pass", guard: dict[str, Any] | None = None) -> Path:
    """A bundle with every file that the registry, the review and a promotion read; `weights` tell it from others."""
    parts = folder / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    rule = {"name": "gap", "column": "site", "required": True, "verdict": verdict, "reason": "group a is worse"}
    contents: dict[str, Any] = {
        "model.safetensors": weights,
        "report.html": f"<p>report on {weights}: {verdict}</p>",
        "profile.json": EMPTY_PROFILE.replace("0", str(len(weights))),
        "verdict.json": json.dumps({"verdict": verdict, "reason": "as told", "rules": [rule]}),
        "metrics.json": json.dumps({"adopted": {"n": 10, "accuracy": len(weights) / 10}}),
        "adoption.json": json.dumps({"guard": guard or {"decision": "adopt", "is_proven": True}}),
    }
    for name, content in contents.items():
        (parts / name).write_text(content)
    facts = {"name": NAME, "verdict": verdict, "decision": "adopt", "adopted": "shot", "accuracy": len(weights) / 10}
    write_bundle(folder / "bundle", {name: parts / name for name in contents}, facts)
    return folder / "bundle"


def registered(folder: Path, weights: str, **changes: Any) -> Version:
    """The version of a new bundle."""
    bundle = made_bundle(folder / weights, weights, **changes)
    sync_registry(bundle, NAME)
    return find(NAME, candidate_id(bundle))


def git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments], check=True, capture_output=True, text=True,
        env=os.environ | {"GIT_CONFIG_GLOBAL": os.devnull},
    )  # fmt: skip
    return done.stdout
