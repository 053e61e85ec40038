"""The promotions log: what was champion when, and what a write that was cut off leaves behind."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks.core.promotions import (
    PROMOTED,
    ROLLED_BACK,
    Event,
    append_promotion,
    champion_at,
    mend_promotions,
    read_promotions,
    standing,
)

FIRST = Event(
    event=PROMOTED, name="digits", candidate="a" * 64, version="1", previous=None, by="ann", role="owner",
    reason="büro – first", time="2026-11-20T10:00:00+00:00", review_id="r1", report_sha256="c" * 64,
)  # fmt: skip


def moved(kind: str, letter: str, hour: int) -> Event:
    return replace(FIRST, event=kind, candidate=letter * 64, time=f"2026-11-20T{hour}:00:00+00:00")


def letters(events: list[Event]) -> str:
    return "".join(event.candidate[0] for event in events)


def test_events_come_back_as_they_were_written_and_only_those_of_the_model(tmp_path: Path) -> None:
    path = tmp_path / "home/promotions.jsonl"
    assert read_promotions(path, "digits") == []
    for event in (FIRST, replace(FIRST, name="photos"), moved(PROMOTED, "b", 11)):
        append_promotion(path, event)
    assert read_promotions(path, "digits") == [FIRST, moved(PROMOTED, "b", 11)]
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3


def test_appending_leaves_the_earlier_bytes_alone(tmp_path: Path) -> None:
    path = tmp_path / "promotions.jsonl"
    append_promotion(path, FIRST)
    before = path.read_bytes()
    append_promotion(path, moved(PROMOTED, "b", 11))
    assert path.read_bytes().startswith(before)


def test_a_cut_off_last_line_is_told_and_mended_wherever_it_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "promotions.jsonl"
    append_promotion(path, FIRST)
    whole = path.read_bytes()
    append_promotion(path, moved(PROMOTED, "b", 11))
    both = path.read_bytes()
    for end in range(len(whole) + 1, len(both)):
        path.write_bytes(both[:end])
        with pytest.raises(
            ValueError, match=r"line 2 is cut off: .* never took effect; mend .* `acclimate registry sync`"
        ):
            read_promotions(path, "digits")
        assert mend_promotions(path)
        assert path.read_bytes() == whole
        assert read_promotions(path, "digits") == [FIRST]
    kept = path.with_suffix(".cut_off").read_bytes().splitlines()
    assert kept[-1] == both[len(whole) : -1]
    assert mend_promotions(path) is None
    assert mend_promotions(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2: no JSON"),
        ("[]", "line 2: its keys are not"),
        (json.dumps({"event": "promoted"}), "line 2: its keys are not"),
        (json.dumps(vars(FIRST) | {"version": 1}), "line 2: a value is no text"),
        (json.dumps(vars(FIRST) | {"event": "moved"}), "line 2: the event 'moved' is neither promoted nor rolled_back"),
        (json.dumps(vars(FIRST) | {"time": "2026-11-20T10:00:00"}), "is no time with its offset"),
        (json.dumps(vars(FIRST) | {"time": "soon"}), "'soon' is no time with its offset"),
    ],
)
def test_a_damaged_line_is_told_by_its_number_and_never_skipped(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "promotions.jsonl"
    append_promotion(path, FIRST)
    with path.open("a") as handle:
        handle.write(f"{line}\n")
    append_promotion(path, moved(PROMOTED, "b", 11))
    with pytest.raises(ValueError, match="is damaged") as caught:
        read_promotions(path, "digits")
    assert told in str(caught.value)
    assert "restore it from a backup" in str(caught.value)


def test_the_champion_at_a_moment_is_the_last_one_up_to_it() -> None:
    events = [FIRST, moved(PROMOTED, "b", 12), moved(ROLLED_BACK, "a", 14)]
    start = datetime(2026, 11, 20, 10, tzinfo=UTC)
    assert champion_at(events, start - timedelta(seconds=1)) is None
    for hours, letter in [(0, "a"), (1, "a"), (2, "b"), (3.9, "b"), (4, "a"), (400, "a")]:
        found = champion_at(events, start + timedelta(hours=hours))
        assert found is not None
        assert found.candidate[0] == letter
    assert champion_at([], start) is None


@pytest.mark.parametrize(
    ("moves", "left"),
    [
        ("", ""),
        ("A", "a"),
        ("ABC", "abc"),
        ("ABCb", "ab"),  # capital: promoted, small: rolled back to
        ("ABCba", "a"),  # a second rollback goes further back, not to what was left
        ("ABCa", "a"),
        ("ABaC", "ac"),
        ("ABac", "ac"),  # back to one that does not stand: it stands on what was there
        ("ABAb", "ab"),
        ("ABADa", "aba"),  # the later of two
    ],
)
def test_a_rollback_takes_away_what_stood_above_its_target(moves: str, left: str) -> None:
    kinds = [(PROMOTED if letter.isupper() else ROLLED_BACK, letter.lower()) for letter in moves]
    assert letters(standing([moved(kind, letter, 12) for kind, letter in kinds])) == left
