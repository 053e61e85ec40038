"""What `acclimate run` would do here, in one sentence, from what DVC calls changed."""

import json
from collections.abc import Iterator
from typing import Any

from flows.dvc_process import dvc_output
from flows.graph import stages


def due_here() -> str:
    """The sentence on this folder."""
    found = json.loads(dvc_output("status", "--json"))
    order = stages() if found else []  # it takes DVC another two seconds
    return due({stage: found[stage] for stage in order if stage in found})


def due(status: dict[str, Any]) -> str:
    """The stages to run; or that results are only to be brought; or that there is nothing to do.

    status: stage → its changes, as `dvc status --json` tells them, in the order of the run. A merge (or a clone) brings a
    dvc.lock of other results than lie here, although no stage would compute anything: its results are in DVC's cache, or were.
    """
    if not status:
        return "nothing, all stages are up to date"
    outs = {path for stage in status for path in changed(status[stage], "changed outs")}
    computing = [
        stage
        for stage, changes in status.items()
        if set(changed(changes, "changed deps")) - outs or any(isinstance(change, str) for change in changes)
    ]
    if computing:
        return f"{', '.join(computing)} and what depends on {'it' if len(computing) == 1 else 'them'}"
    return (
        f"nothing to compute anew, but the results of {', '.join(status)} here are not those of dvc.lock, as after a merge or a "
        "clone: `acclimate run` brings them from DVC's cache, or makes them where it doesn't hold them (`dvc pull` first brings "
        "what others pushed)"
    )


def changed(changes: list[Any], kind: str) -> Iterator[str]:
    """Paths of the changes of that kind."""
    for change in changes:
        if isinstance(change, dict):
            yield from change.get(kind, {})
