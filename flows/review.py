"""Decisions on candidates, and what follows from them: one function each, for the command line and for Prefect's form.

A champion moves in steps that a kill may part: the event is appended to the promotions log, the alias follows the log, the
workspace's given files follow the log. Only the first step decides; `settle` does the others, again if need be.
"""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flows.chosen_model import CHAMPION
from flows.pins import holds, pin
from flows.registry import Version, find, move_alias, part_challenger, promotions_path
from flows.run_lock import run_lock
from tasks.core.files import read_json
from tasks.core.promotions import (
    PROMOTED,
    ROLLED_BACK,
    Event,
    append_promotion,
    mend_promotions,
    read_promotions,
    standing,
)
from tasks.core.reviews import APPROVE, DONE, Review, ReviewRules, Subject, Vote, cast_vote, read_review
from tasks.core.runtime import acclimate_home

REPORT = "report.html"
CHAMPION_FOLDER, ACCEPTED_PROFILE = Path("data/given/champion"), Path("data/given/accepted_profile.json")
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Statement:
    """Who says it, and why."""

    by: str
    role: str
    reason: str


def reviews_folder() -> Path:
    return acclimate_home() / "reviews"


def subject_of(version: Version) -> Subject:
    """What a vote on the version is about. ValueError where its bundle's bytes were changed."""
    folder = version.checked_folder()
    manifest = read_json(folder / "manifest.json", made_by="register_model")
    started_by = version.tags.get("started_by", UNKNOWN)
    return Subject(
        candidate=version.candidate,
        report_sha256=manifest["files"][REPORT],
        started_by=None if started_by == UNKNOWN else started_by,
        concerns=concerns(folder, manifest["verdict"]),
    )


def concerns(folder: Path, verdict: str) -> tuple[str, ...]:
    """Why approving the bundle needs a written override; none for a pass and a proven (or no) adoption."""
    found = [] if verdict == "pass" else [f"the audit's verdict is {verdict}"]
    adoption = folder / "adoption.json"
    guard = read_json(adoption, made_by="guard_adaptation")["guard"] if adoption.exists() else None
    if guard is None:
        found.append("whether its adoption is proven is not recorded")
    elif guard["decision"] == "adopt" and not guard["is_proven"]:
        found.append("its adoption is unproven")
    return tuple(found)


def decide(version: Version, vote: Vote, rules: ReviewRules) -> Review:
    """The review with this vote in it. ValueError says all that speaks against it; nothing is written then."""
    return cast_vote(reviews_folder(), vote, subject_of(version), rules)


def promote(version: Version, words: Statement, *, time: str, tell: Callable[[str], None]) -> str:
    """One line on what was done. ValueError without an approval of exactly these bytes; a second call changes nothing."""
    review = approved(version)
    with promotions_lock():
        events = read_promotions(promotions_path(), version.name)
        before = events[-1].candidate if events else None
        if before != version.candidate:
            event = event_of(PROMOTED, version, words, previous=before, time=time)
            append_promotion(promotions_path(), event)
    settle(version.name, tell=tell)
    if before == version.candidate:
        return f"{version.name} version {version.number} is the champion already"
    return f"{version.name} version {version.number} is the champion, by review {review.review_id}"


def approved(version: Version) -> Review:
    """The approving review. ValueError where there is none, or where it isn't about the bundle as it stands."""
    review, subject = read_review(reviews_folder(), version.candidate), subject_of(version)
    if review.decision != APPROVE:
        state = f"was {DONE[review.decision]}" if review.decision in DONE else "waits for its review"
        raise ValueError(
            f"{version.name} version {version.number} {state}: only an approved candidate may be promoted; "
            f"see `acclimate review show {version.number}`"
        )
    for vote in review.votes:
        if vote.report_sha256 != subject.report_sha256:
            raise ValueError(
                f"{vote.reviewer} approved the report {vote.report_sha256[:16]}, but the bundle of version "
                f"{version.number} holds {subject.report_sha256[:16]}: the approval is not for these bytes"
            )
        if subject.concerns and not vote.override:
            raise ValueError(
                f"{' and '.join(subject.concerns)}, and the approval by {vote.reviewer} holds no override: "
                f"version {version.number} can't be promoted"
            )
    return review


def rollback(name: str, to: Version | None, words: Statement, *, time: str, tell: Callable[[str], None]) -> str:
    """One line on what was done: the champion before this one, or the former champion `to`, is champion again.

    A call after one that was interrupted completes that one and goes back no further.
    """
    with promotions_lock():
        events = read_promotions(promotions_path(), name)
        if not events:
            raise ValueError(f"{name} never had a champion: there is nothing to go back to")
        now = find(name, events[-1].candidate)
        is_complete = CHAMPION in now.aliases and holds(CHAMPION_FOLDER, now.checked_folder())
        is_repeated = to.candidate == now.candidate if to else not is_complete
        if not is_repeated:
            version = find(name, former(events, to).candidate)
            version.checked_folder()
            event = event_of(ROLLED_BACK, version, words, previous=now.candidate, time=time)
            append_promotion(promotions_path(), event)
    done = settle(name, tell=tell)
    if not is_repeated:
        return f"{name} version {version.number} is the champion again"
    told = "; ".join(done) or f"{name} version {now.number} is the champion"
    return f"{told}; nothing was rolled back" + ("" if to else ": to go back from there, say it once more")


def former(events: list[Event], wanted: Version | None) -> Event:
    """The event that made the rollback's target champion. ValueError where there is none."""
    now, stack = events[-1], standing(events)
    if wanted is None:
        if len(stack) == 1:
            raise ValueError(f"{now.name} version {now.version} has no champion before it to go back to")
        return stack[-2]
    found = [event for event in events if event.candidate == wanted.candidate]
    if not found:
        raise ValueError(
            f"{now.name} version {wanted.number} was never champion: a rollback goes to a former one; "
            f"use `acclimate promote {wanted.number}`"
        )
    return found[-1]


def settle(name: str, *, tell: Callable[[str], None]) -> list[str]:
    """What was done to make aliases and given files agree with the promotions log; nothing where they do."""
    with promotions_lock():
        done = [told] if (told := mend_promotions(promotions_path())) else []
        events = read_promotions(promotions_path(), name)
        if not events:
            return done
        version = find(name, events[-1].candidate)
        if CHAMPION not in version.aliases:
            move_alias(version, CHAMPION)
            done.append(f"{name} version {version.number} is the {CHAMPION}, as the promotions log says")
        if told := part_challenger(name):
            done.append(told)
    with run_lock(acclimate_home(), Path.cwd(), tell=tell):  # a run reads them
        candidate = read_promotions(promotions_path(), name)[-1].candidate
        if pin(find(name, candidate).checked_folder(), CHAMPION_FOLDER, ACCEPTED_PROFILE):
            done.append(f"champion and accepted profile in data/given are those of candidate {candidate[:12]}")
    return done


def event_of(kind: str, version: Version, words: Statement, *, previous: str | None, time: str) -> Event:
    """ValueError where it isn't said who orders it, or why."""
    if not words.by.strip() or not words.reason.strip():
        raise ValueError("moving the champion needs who orders it, and a reason; write them")
    review = read_review(reviews_folder(), version.candidate)
    return Event(
        event=kind,
        name=version.name,
        candidate=version.candidate,
        version=version.number,
        previous=previous,
        by=words.by.strip(),
        role=words.role.strip(),
        reason=words.reason.strip(),
        time=time,
        review_id=review.review_id,
        report_sha256=subject_of(version).report_sha256,
    )


@contextmanager
def promotions_lock() -> Iterator[None]:
    """Held from reading the log to appending to it."""
    path = acclimate_home() / "locks" / "promotions.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
