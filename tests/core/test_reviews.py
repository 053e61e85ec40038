"""Reviews: the first decision stands, reasons are kept, and what may not be approved can't be."""

import multiprocessing
import threading
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from tasks.core.reviews import (
    APPROVE,
    PENDING,
    REJECT,
    WITHDRAW,
    ReviewRules,
    Subject,
    Vote,
    cast_vote,
    closed,
    read_review,
)

CANDIDATE, REPORT = "a" * 64, "b" * 64
SUBJECT = Subject(CANDIDATE, REPORT, started_by="sam", concerns=())
ALONE, STRICT = ReviewRules(1, allow_starter=True), ReviewRules(1, allow_starter=False)
TWO = ReviewRules(2, allow_starter=False)


def ballot(reviewer: str = "ann", decision: str = APPROVE, **changes: str) -> Vote:
    said = {"role": "owner", "reason": "good on every group", "override": "", "report_sha256": REPORT}
    time = "2026-11-20T10:00:00+00:00"
    return Vote(CANDIDATE, decision, reviewer, **(said | changes), time=time, n_approvals=1)


@pytest.mark.parametrize("decision", [APPROVE, REJECT, WITHDRAW])
def test_a_decision_comes_back_as_it_was_made_and_no_other_follows(tmp_path: Path, decision: str) -> None:
    assert read_review(tmp_path, CANDIDATE).decision == PENDING
    made = cast_vote(tmp_path, ballot(decision=decision), SUBJECT, ALONE)
    assert made == read_review(tmp_path, CANDIDATE)
    assert made.decision == decision
    assert made.votes == (ballot(decision=decision),)
    before = (tmp_path / f"{CANDIDATE}.json").read_bytes()
    for later in (APPROVE, REJECT, WITHDRAW):
        with pytest.raises(
            ValueError, match=r"by ann at 2026-11-20T10.*: good on every group; the first decision stands"
        ):
            cast_vote(tmp_path, ballot("bob", later), SUBJECT, ALONE)
    assert [path.name for path in tmp_path.iterdir()] == [f"{CANDIDATE}.json"]
    assert (tmp_path / f"{CANDIDATE}.json").read_bytes() == before


def test_all_that_speaks_against_a_vote_is_told_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    wrong = replace(ballot(" ", "maybe", reason="\n", report_sha256="d" * 64), candidate="e" * 64)
    with pytest.raises(ValueError, match="candidate aaaaaaaaaaaa: ") as caught:
        cast_vote(tmp_path, wrong, SUBJECT, ALONE)
    for told in (
        "the decision is 'maybe'; it must be one of approve, reject, withdraw",
        "the vote is about candidate eeeeeeeeeeee",
        "it is not said who decides; name the reviewer",
        "a decision needs a reason; write one",
        "the reviewer was shown the report dddddddddddddddd, the bundle holds bbbbbbbbbbbbbbbb; read that one",
    ):
        assert told in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_reason_of_several_lines_stays_within_the_sentence(tmp_path: Path) -> None:
    vote = ballot("bob", REJECT, reason="no\nreview: approved by ann")
    said = closed(cast_vote(tmp_path, vote, SUBJECT, ALONE))
    assert said.endswith(": no review: approved by ann; the first decision stands")


def test_a_concern_needs_a_written_override_that_is_kept(tmp_path: Path) -> None:
    subject = replace(SUBJECT, concerns=("the audit's verdict is fail", "its adoption is unproven"))
    told = (
        "the audit's verdict is fail and its adoption is unproven: to approve it all the same, write why as an override, "
        "`--override`"
    )
    with pytest.raises(ValueError, match=told):
        cast_vote(tmp_path, ballot(override="  "), subject, ALONE)
    made = cast_vote(tmp_path, ballot(override=" the group is 3 images "), subject, ALONE)
    assert made.votes[0].override == "the group is 3 images"


@pytest.mark.parametrize("decision", [REJECT, WITHDRAW])
def test_saying_no_needs_no_override_and_the_starter_may(tmp_path: Path, decision: str) -> None:
    subject = replace(SUBJECT, concerns=("the audit's verdict is fail",))
    assert cast_vote(tmp_path, ballot("sam", decision), subject, STRICT).decision == decision


def test_the_starter_alone_may_approve_only_where_the_rules_say_so(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="SAM started its run and can't be the only one to approve it; ask another person"
    ):
        cast_vote(tmp_path, ballot(" SAM "), SUBJECT, STRICT)
    with pytest.raises(ValueError, match="who started its run is not recorded, so nobody alone may approve it"):
        cast_vote(tmp_path, ballot("ann"), replace(SUBJECT, started_by=None), STRICT)
    assert cast_vote(tmp_path / "a", ballot("sam"), SUBJECT, ALONE).decision == APPROVE
    assert cast_vote(tmp_path / "b", ballot("ann"), SUBJECT, STRICT).decision == APPROVE


def test_four_eyes_are_two_people_of_whom_one_may_have_started_the_run(tmp_path: Path) -> None:
    first = cast_vote(tmp_path, ballot("sam"), SUBJECT, TWO)
    assert first.decision == PENDING
    with pytest.raises(ValueError, match="Sam has approved it already; the next approval is another person's"):
        cast_vote(tmp_path, ballot("Sam"), SUBJECT, TWO)
    both = cast_vote(tmp_path, ballot("ann"), SUBJECT, TWO)
    assert both.decision == APPROVE
    assert [vote.reviewer for vote in both.votes] == ["sam", "ann"]
    assert first.review_id != both.review_id


def test_one_rejection_ends_a_review_of_two(tmp_path: Path) -> None:
    cast_vote(tmp_path, ballot("sam"), SUBJECT, TWO)
    assert cast_vote(tmp_path, ballot("ann", REJECT), SUBJECT, TWO).decision == REJECT
    with pytest.raises(ValueError, match="was rejected by ann"):
        cast_vote(tmp_path, ballot("bob"), SUBJECT, TWO)


def test_the_number_of_approvals_that_the_first_vote_met_stands(tmp_path: Path) -> None:
    cast_vote(tmp_path, ballot("sam"), SUBJECT, TWO)
    assert read_review(tmp_path, CANDIDATE).decision == PENDING
    assert cast_vote(tmp_path, ballot("ann"), SUBJECT, ALONE).votes[1].n_approvals == 2
    done = cast_vote(tmp_path / "other", ballot("ann"), SUBJECT, ALONE)
    assert done.decision == APPROVE  # and stays so when the rules get stricter
    with pytest.raises(ValueError, match="was approved"):
        cast_vote(tmp_path / "other", ballot("bob"), SUBJECT, TWO)


def test_no_approvals_are_no_rule() -> None:
    with pytest.raises(ValueError, match=r"review.n_approvals is 0; at least 1"):
        ReviewRules(0, allow_starter=True)


def test_a_changed_or_foreign_file_is_no_vote(tmp_path: Path) -> None:
    cast_vote(tmp_path, ballot(), SUBJECT, ALONE)
    path = tmp_path / f"{CANDIDATE}.json"
    other = tmp_path / f"{'c' * 64}.json"
    other.write_bytes(path.read_bytes())
    for broken, candidate in [(other, "c" * 64), (path, CANDIDATE)]:
        if broken is path:
            path.write_text("{}")
        with pytest.raises(ValueError, match=r"is no vote on candidate .*; restore it from a backup"):
            read_review(tmp_path, candidate)


def test_what_a_killed_vote_left_is_no_vote(tmp_path: Path) -> None:
    (tmp_path / f".{CANDIDATE}.json.77.1.part").write_text("{")
    assert read_review(tmp_path, CANDIDATE).decision == PENDING
    assert cast_vote(tmp_path, ballot(), SUBJECT, ALONE).decision == APPROVE


def vote_at_once(folder: Path, reviewer: str, rules: ReviewRules, barrier: Barrier) -> bool:
    """Whether the vote was taken."""
    barrier.wait(timeout=30)
    try:
        cast_vote(folder, ballot(reviewer, APPROVE if reviewer < "m" else REJECT), SUBJECT, rules)
    except ValueError:
        return False
    return True


def in_process(folder: Path, reviewer: str, barrier: Barrier, taken: "multiprocessing.Queue[bool]") -> None:
    for number in range(30):
        taken.put(vote_at_once(folder / str(number), reviewer, ALONE, barrier))


def test_of_two_processes_that_decide_at_once_exactly_one_does(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    queues = {name: context.Queue() for name in ("ann", "zoe")}
    processes = [
        context.Process(target=in_process, args=(tmp_path, name, barrier, queue)) for name, queue in queues.items()
    ]
    for process in processes:
        process.start()
    taken = {name: [queue.get(timeout=60) for _ in range(30)] for name, queue in queues.items()}
    for process in processes:
        process.join(timeout=30)
        assert process.exitcode == 0
    assert [sum(pair) for pair in zip(taken["ann"], taken["zoe"], strict=True)] == [1] * 30
    for number, ann in enumerate(taken["ann"]):
        review = read_review(tmp_path / str(number), CANDIDATE)
        assert len(review.votes) == 1
        assert review.decision == (APPROVE if ann else REJECT)
        assert [path.name for path in (tmp_path / str(number)).iterdir()] == [f"{CANDIDATE}.json"]


def test_two_approvals_at_once_are_both_kept_where_two_are_asked_for(tmp_path: Path) -> None:
    for number in range(30):
        folder, barrier = tmp_path / str(number), threading.Barrier(3)
        threads = [threading.Thread(target=vote_at_once, args=(folder, name, TWO, barrier)) for name in ("ann", "bob")]
        for thread in threads:
            thread.start()
        barrier.wait(timeout=30)
        for thread in threads:
            thread.join(timeout=30)
        review = read_review(folder, CANDIDATE)
        assert sorted(vote.reviewer for vote in review.votes) == ["ann", "bob"]
        assert review.decision == APPROVE
