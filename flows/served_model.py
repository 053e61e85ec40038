"""The model that answers now, and how it follows the registry: the old one serves until the new one is checked and loaded."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from flows.chosen_model import chosen_version
from flows.registry import Version
from flows.review import approved, reviews_folder
from tasks.core.classifier import Classifier, load_classifier
from tasks.core.files import read_json
from tasks.core.reviews import DONE, PENDING, Review, read_review

RETRY_S = 30  # what was refused is hashed and loaded anew no sooner than this


@dataclass(frozen=True)
class Wanted:
    """What is to be served: the model's name, which version of it, and how."""

    name: str
    said: str  # alias, version or candidate id
    device: str
    allows_unapproved: bool


@dataclass(frozen=True)
class Loaded:
    """A version in memory; its manifest and review are those of the moment when it was loaded."""

    version: Version
    classifier: Classifier
    manifest: dict[str, Any]
    review: Review
    since: str  # ISO 8601, UTC


class ServedModel:
    """`current` answers; `problem` says why what the registry names isn't served, None while it is."""

    def __init__(self, wanted: Wanted) -> None:
        """ValueError where there is nothing that may be served."""
        self.wanted = wanted
        self.current = load(chosen_version(wanted.name, wanted.said), wanted)
        self.problem: str | None = None
        self.looked = now()
        self._refused = ("", 0.0)  # a candidate, and the monotonic second from which it is tried again

    def look(self) -> str | None:
        """One line where something changed: the version that serves now, or why the one that is meant doesn't."""
        before, candidate = self.problem, ""
        try:
            version = chosen_version(self.wanted.name, self.wanted.said)
            candidate = version.candidate
            self.looked = now()
            if candidate == self.current.version.candidate:
                self.problem = None
                return "the registry names the served version again" if before else None
            if candidate == self._refused[0] and time.monotonic() < self._refused[1]:
                return None
            self.current = load(version, self.wanted)  # one assignment: a request sees the old one or the new one
        except Exception as error:  # whatever it is, the old model goes on; /health says so
            self._refused = (candidate, time.monotonic() + RETRY_S)
            self.problem = f"version {self.current.version.number} goes on: {' '.join(str(error).split())}"
            return self.problem if self.problem != before else None
        self.problem = None
        return f"version {version.number} serves now, candidate {candidate[:12]}"


def follow(served: ServedModel, every_s: float, stop: threading.Event, tell: Callable[[str], None]) -> None:
    """Looks at the registry until told to stop."""
    while not stop.wait(every_s):
        if told := served.look():
            tell(told)


def load(version: Version, wanted: Wanted) -> Loaded:
    """ValueError without an approval of exactly these bytes, or where a byte isn't what it was, or where it can't work."""
    folder = version.checked_folder()
    if not wanted.allows_unapproved:
        try:
            approved(version)
        except ValueError as error:
            raise ValueError(f"{error}; to serve it all the same, say `--unapproved`") from None
    classifier = load_classifier(folder, wanted.device)
    side = classifier.description["image_px"]
    probs_NC = classifier.probabilities([np.zeros((side, side, 3), np.uint8)])  # warms up, too
    if probs_NC.shape != (1, len(classifier.classes)) or not np.isfinite(probs_NC).all():
        raise ValueError(
            f"{version.name} version {version.number} gives no probabilities for a black image; train it anew"
        )
    version.checked_folder()  # once more: what was read in between is what was registered
    manifest = read_json(folder / "manifest.json", made_by="register_model")
    return Loaded(version, classifier, manifest, read_review(reviews_folder(), version.candidate), now())


def review_state(loaded: Loaded) -> str:
    """approved | rejected | withdrawn | pending."""
    return DONE.get(loaded.review.decision, PENDING)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
