"""Reviews: what people decided about a candidate, one file per vote, each created whole or not at all, none ever changed.

`<candidate>.json` is the first vote; where several approvals are asked for, `<candidate>.2.json` and so on follow. A vote
takes the next free number by an exclusive link, so of two at once exactly one gets it; the other is judged anew, against
what now stands. The decision is a function of the votes: a kill leaves nothing to repair.
"""

import json
import os
import threading
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from tasks.core.files import text_sha256

APPROVE, REJECT, WITHDRAW = "approve", "reject", "withdraw"
PENDING = "pending"
DONE = {APPROVE: "approved", REJECT: "rejected", WITHDRAW: "withdrawn"}


@dataclass(frozen=True)
class Vote:
    """What one person said of one candidate."""

    candidate: str
    decision: str  # approve | reject | withdraw
    reviewer: str
    role: str
    reason: str
    override: str  # why it may be approved in spite of its concerns; empty where there are none
    report_sha256: str  # of the report that the reviewer was shown
    time: str  # ISO 8601 with its offset
    n_approvals: int  # how many approvals the review asks for, as its first vote found them


@dataclass(frozen=True)
class Subject:
    """What the vote is about: the bundle as it stands."""

    candidate: str
    report_sha256: str
    started_by: str | None  # None where it isn't recorded
    concerns: tuple[str, ...]  # why approving needs a written override


@dataclass(frozen=True)
class ReviewRules:
    """`allow_starter`: may the person who started the run be the only one to approve its model?"""

    n_approvals: int
    allow_starter: bool

    def __post_init__(self) -> None:
        if self.n_approvals < 1:
            raise ValueError(f"review.n_approvals is {self.n_approvals}; at least 1 approval must be asked for")


@dataclass(frozen=True)
class Review:
    """All votes on a candidate, in their order."""

    candidate: str
    votes: tuple[Vote, ...]

    @property
    def decision(self) -> str:
        """approve | reject | withdraw | pending. The number of approvals that the first vote asked for stands."""
        if self.votes and (last := self.votes[-1].decision) != APPROVE:
            return last
        return APPROVE if self.votes and len(self.votes) >= self.votes[0].n_approvals else PENDING

    @property
    def review_id(self) -> str:
        """Names these votes, to the letter."""
        return text_sha256(json.dumps([asdict(vote) for vote in self.votes], sort_keys=True))[:16]


def read_review(folder: Path, candidate: str) -> Review:
    """The review, without votes where nobody has voted. ValueError where a file is damaged or speaks of another one."""
    votes: list[Vote] = []
    while (path := _vote_path(folder, candidate, len(votes) + 1)).exists():
        votes.append(_read_vote(path, candidate))
    return Review(candidate, tuple(votes))


def cast_vote(folder: Path, vote: Vote, subject: Subject, rules: ReviewRules) -> Review:
    """The review with the vote in it. ValueError lists all that speaks against the vote; the review stays as it was."""
    while True:
        review = read_review(folder, subject.candidate)
        if review.decision != PENDING:
            raise ValueError(closed(review))
        n_approvals = review.votes[0].n_approvals if review.votes else rules.n_approvals
        texts = {name: getattr(vote, name).strip() for name in ("reviewer", "role", "reason", "override")}
        vote = replace(vote, n_approvals=n_approvals, **texts)
        if problems := vote_problems(vote, review, subject, rules.allow_starter):
            raise ValueError(f"candidate {subject.candidate[:12]}: {'; '.join(problems)}")
        if _create(_vote_path(folder, subject.candidate, len(review.votes) + 1), vote):
            return read_review(folder, subject.candidate)


def closed(review: Review) -> str:
    """One sentence on who decided, when and why."""
    last = review.votes[-1]
    return (
        f"candidate {review.candidate[:12]} was {DONE[last.decision]} by {last.reviewer} at {last.time}: "
        f"{one_line(last.reason)}; the first decision stands"
    )


def one_line(text: str) -> str:
    """What somebody wrote, without the breaks that would make it look like lines of ours."""
    return " ".join(text.split())


def vote_problems(vote: Vote, review: Review, subject: Subject, allow_starter: bool) -> list[str]:
    """Sentences on why the vote can't be taken, none if it can."""
    problems = []
    if vote.decision not in DONE:
        problems.append(f"the decision is {vote.decision!r}; it must be one of {', '.join(DONE)}")
    if vote.candidate != subject.candidate:
        problems.append(f"the vote is about candidate {vote.candidate[:12]}")
    if not vote.reviewer:
        problems.append("it is not said who decides; name the reviewer")
    if not vote.reason:
        problems.append("a decision needs a reason; write one")
    if vote.report_sha256 != subject.report_sha256:
        problems.append(
            f"the reviewer was shown the report {vote.report_sha256[:16]}, the bundle holds {subject.report_sha256[:16]}; "
            "read that one"
        )
    if vote.decision == APPROVE:
        problems += _approval_problems(vote, review, subject, allow_starter)
    return problems


def _approval_problems(vote: Vote, review: Review, subject: Subject, allow_starter: bool) -> list[str]:
    problems = []
    if _person(vote.reviewer) in {_person(earlier.reviewer) for earlier in review.votes}:
        problems.append(f"{vote.reviewer} has approved it already; the next approval is another person's")
    if vote.n_approvals == 1 and not allow_starter:
        if subject.started_by is None:
            problems.append("who started its run is not recorded, so nobody alone may approve it; ask for 2 approvals")
        elif _person(vote.reviewer) == _person(subject.started_by):
            problems.append(
                f"{vote.reviewer} started its run and can't be the only one to approve it; ask another person"
            )
    if subject.concerns and not vote.override:
        problems.append(
            f"{' and '.join(subject.concerns)}: to approve it all the same, write why as an override, `--override`"
        )
    return problems


def _person(name: str) -> str:
    return " ".join(name.split()).casefold()


def _vote_path(folder: Path, candidate: str, number: int) -> Path:
    return folder / (f"{candidate}.json" if number == 1 else f"{candidate}.{number}.json")


def _create(path: Path, vote: Vote) -> bool:
    """Whether the file was made, whole and synced; False where somebody else has taken its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        with part.open("w", encoding="utf-8") as handle:
            handle.write(json.dumps(asdict(vote), indent=1, ensure_ascii=False) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        os.link(part, path)
    except FileExistsError:
        return False
    finally:
        part.unlink(missing_ok=True)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return True


def _read_vote(path: Path, candidate: str) -> Vote:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        is_ours = set(said) == {field.name for field in fields(Vote)} and said["candidate"] == candidate
    except (ValueError, TypeError):
        is_ours = False
    if not is_ours:
        raise ValueError(f"{path} is no vote on candidate {candidate[:12]}; restore it from a backup")
    return Vote(**said)
