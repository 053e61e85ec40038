"""Checkpoints: one file with the whole state of a phase, from which a killed run goes on to the same bytes."""

import time
from pathlib import Path

import torch

from tasks.core import parallel
from tasks.core.files import whole_file
from tasks.core.loop import Loop

SECONDS_BETWEEN_CHECKPOINTS = 5.0


class Checkpoint:
    """Saved at most every few seconds: an epoch may be a single step. Of several processes the first one writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._saved_at = time.monotonic()

    def restore(self, loop: Loop) -> None:
        """The loop is as it was when it was saved last; where nothing was saved it stays as it is."""
        if self.path.exists():
            loop.load(torch.load(self.path, map_location="cpu", weights_only=True))
            loop.saved_epoch = loop.next_epoch

    def save(self, loop: Loop, *, at_once: bool) -> None:
        """Unless the last time is only seconds ago, or `at_once`."""
        is_due = at_once or time.monotonic() - self._saved_at >= SECONDS_BETWEEN_CHECKPOINTS
        if not is_due or not parallel.is_first():
            return
        with whole_file(self.path) as part:
            torch.save(loop.state(), part)
        self._saved_at, loop.saved_epoch = time.monotonic(), loop.next_epoch
