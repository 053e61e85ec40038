"""The promotions log: one JSON line per move of the champion, appended and synced, never changed.

The registry's aliases keep no history, so this file is the truth on which model was champion when, and the alias follows
it. An event counts once its whole line, line end included, stands on the disk.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path

PROMOTED, ROLLED_BACK = "promoted", "rolled_back"


@dataclass(frozen=True)
class Event:
    """One move of the champion. `previous`: the candidate id of the champion before it, None for the first one."""

    event: str  # promoted | rolled_back
    name: str  # of the model in the registry
    candidate: str
    version: str
    previous: str | None
    by: str
    role: str
    reason: str
    time: str  # ISO 8601 with its offset
    review_id: str
    report_sha256: str


def read_promotions(path: Path, name: str) -> list[Event]:
    """The model's events, oldest first; none without a file. ValueError names every line that is damaged."""
    if not path.exists():
        return []
    content = path.read_bytes()
    *lines, unfinished = content.split(b"\n")
    found = [_event(line) for line in lines]
    problems = [f"line {number}: {event}" for number, event in enumerate(found, 1) if isinstance(event, str)]
    if problems:
        raise ValueError(
            f"{path} is damaged: {'; '.join(problems)}; nobody but `acclimate` may write it: restore it from a backup"
        )
    if unfinished:
        raise ValueError(
            f"{path}: line {len(found) + 1} is cut off: writing it was interrupted, and its event never took effect; "
            "mend the file with `acclimate registry sync`"
        )
    return [event for event in found if isinstance(event, Event) and event.name == name]


def append_promotion(path: Path, event: Event) -> None:
    """The event stands on the disk afterwards. The caller holds the promotions' lock and has read the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(asdict(event), ensure_ascii=False) + "\n"
    with path.open("ab") as handle:
        handle.write(line.encode())
        handle.flush()
        os.fsync(handle.fileno())
    _sync_folder(path.parent)


def mend_promotions(path: Path) -> str | None:
    """What was mended: a cut-off last line, an event that never took effect, goes to a file beside. None if all is whole."""
    if not path.exists():
        return None
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole == len(content):
        return None
    cut_off = path.with_suffix(".cut_off")
    with cut_off.open("ab") as handle:  # first kept, then taken away: killed in between, it is kept twice
        handle.write(content[whole:] + b"\n")
        handle.flush()
        os.fsync(handle.fileno())
    with path.open("rb+") as handle:
        handle.truncate(whole)
        os.fsync(handle.fileno())
    return f"the last line of {path} was cut off; its event never took effect; the line lies in {cut_off.name} now"


def standing(events: Sequence[Event]) -> list[Event]:
    """The champions that a rollback can go back through, the present one last.

    A promotion stands on the champion before it. A rollback takes away what stands above its candidate, so that a second
    rollback goes further back and never returns to what was left.
    """
    found: list[Event] = []
    for event in events:
        at = [place for place, earlier in enumerate(found) if earlier.candidate == event.candidate]
        if event.event == ROLLED_BACK and at:
            found = found[: at[-1]]
        found.append(event)
    return found


def champion_at(events: Sequence[Event], moment: datetime) -> Event | None:
    """The last event up to that moment (aware), None before the first."""
    past = [event for event in events if datetime.fromisoformat(event.time) <= moment]
    return past[-1] if past else None


def _event(line: bytes) -> Event | str:
    """The event, or what is wrong with its line."""
    try:
        said = json.loads(line)
    except ValueError:
        return "no JSON"
    names = {field.name for field in fields(Event)}
    if not isinstance(said, dict) or set(said) != names:
        return "its keys are not those of an event"
    if any(not isinstance(value, str) for key, value in said.items() if key != "previous" or value is not None):
        return "a value is no text"
    if said["event"] not in (PROMOTED, ROLLED_BACK):
        return f"the event {said['event']!r} is neither {PROMOTED} nor {ROLLED_BACK}"
    try:
        has_offset = datetime.fromisoformat(said["time"]).utcoffset() is not None
    except ValueError:
        has_offset = False
    return Event(**said) if has_offset else f"{said['time']!r} is no time with its offset"


def _sync_folder(folder: Path) -> None:
    """A new file's name is on the disk only once its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
