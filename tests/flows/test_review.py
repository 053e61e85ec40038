"""Review, promotion and rollback: only what a person approved becomes champion, and a kill loses and doubles nothing."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from made_registry import NAME, registered
from typer.testing import CliRunner

from flows.chosen_model import CHAMPION
from flows.pins import holds, pin
from flows.registry import CHALLENGER, Version, find, move_alias, promotions_path, sync, versions
from flows.registry_cli import add_commands as add_registry_commands
from flows.review import (
    ACCEPTED_PROFILE,
    CHAMPION_FOLDER,
    Statement,
    concerns,
    decide,
    event_of,
    promote,
    reviews_folder,
    rollback,
    settle,
    subject_of,
)
from flows.review_cli import add_commands
from flows.run_lock import run_lock
from tasks.core.promotions import PROMOTED, ROLLED_BACK, Event, append_promotion, champion_at, read_promotions
from tasks.core.reviews import APPROVE, PENDING, ReviewRules, Vote, read_review

pytest_plugins = ("registry_fixtures",)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")  # its own use of SQLAlchemy
PROJECT = Path(__file__).parents[2]
ALONE = ReviewRules(1, allow_starter=True)
WORDS = Statement("ann", "owner", "better on every group")
TIMES = [f"2026-11-2{day}T10:00:00+00:00" for day in range(1, 8)]


def say_nothing(_: str) -> None:
    """A run that waits is not what these tests are about."""


def approve(version: Version, reviewer: str = "bob", **changes: Any) -> None:
    said = {"role": "", "reason": "looks right", "override": "", "report_sha256": subject_of(version).report_sha256}
    vote = Vote(version.candidate, APPROVE, reviewer, **(said | changes), time=TIMES[0], n_approvals=1)
    decide(version, vote, ALONE)


def champion(tmp_path: Path, weights: str, day: int = 0) -> Version:
    version = registered(tmp_path, weights)
    approve(version)
    promote(version, WORDS, time=TIMES[day], tell=say_nothing)
    return version


def events() -> list[Event]:
    return read_promotions(promotions_path(), NAME)


def state() -> tuple[str, list[tuple[str, str]], bool, bytes]:
    """Alias, log, whether the pinned bundle is the champion's, accepted profile."""
    now = find(NAME, CHAMPION)
    moves = [(event.event, event.version) for event in events()]
    return now.number, moves, holds(CHAMPION_FOLDER, now.folder), ACCEPTED_PROFILE.read_bytes()


def test_what_nobody_approved_is_not_promoted(home: Path, tmp_path: Path) -> None:
    version = registered(tmp_path, "aa")
    with pytest.raises(ValueError, match=r"digits version 1 waits for its review: only an approved candidate may be"):
        promote(version, WORDS, time=TIMES[0], tell=say_nothing)
    vote = Vote(version.candidate, "reject", "bob", "", "worse", "", subject_of(version).report_sha256, TIMES[0], 1)
    decide(version, vote, ALONE)
    with pytest.raises(ValueError, match="digits version 1 was rejected: only an approved candidate may be promoted"):
        promote(version, WORDS, time=TIMES[0], tell=say_nothing)
    assert events() == []
    with pytest.raises(ValueError, match="alias"):
        find(NAME, CHAMPION)
    assert [path.name for path in CHAMPION_FOLDER.iterdir()] == [".gitkeep"]


def test_a_promotion_moves_the_alias_writes_the_log_and_pins_the_given_files(home: Path, tmp_path: Path) -> None:
    version = registered(tmp_path, "aa")
    approve(version)
    told = promote(version, WORDS, time=TIMES[1], tell=say_nothing)
    review = read_review(reviews_folder(), version.candidate)
    assert told == f"digits version 1 is the champion, by review {review.review_id}"
    assert find(NAME, CHAMPION).candidate == version.candidate
    assert events() == [
        Event(
            PROMOTED, NAME, version.candidate, "1", None, "ann", "owner", "better on every group", TIMES[1],
            review.review_id, subject_of(version).report_sha256,
        )
    ]  # fmt: skip
    pinned = {path.name: path.read_bytes() for path in CHAMPION_FOLDER.iterdir()}
    assert pinned == {path.name: path.read_bytes() for path in version.folder.iterdir()} | {".gitkeep": b""}
    assert ACCEPTED_PROFILE.read_bytes() == (version.folder / "profile.json").read_bytes()


def bearer(alias: str) -> str | None:
    """The number of the version that has the alias."""
    return next((each.number for each in versions(NAME) if alias in each.aliases), None)


def test_what_is_or_was_champion_is_no_challenger(home: Path, tmp_path: Path) -> None:
    champion(tmp_path, "a")
    assert (bearer(CHAMPION), bearer(CHALLENGER)) == ("1", None)
    first, second = tmp_path / "a/bundle", tmp_path / "bb/bundle"
    assert sync(first, NAME).endswith("version 1; it is the champion")
    assert (bearer(CHAMPION), bearer(CHALLENGER)) == ("1", None)
    waiting = registered(tmp_path, "bb")
    assert sync(first, NAME).endswith("version 1; it is the champion")
    assert (bearer(CHAMPION), bearer(CHALLENGER)) == ("1", "2")  # who waits for a decision still does
    approve(waiting)
    promote(waiting, WORDS, time=TIMES[1], tell=say_nothing)
    rollback(NAME, None, WORDS, time=TIMES[2], tell=say_nothing)
    assert sync(second, NAME).endswith("version 2; it was champion, so it is no challenger")
    assert (bearer(CHAMPION), bearer(CHALLENGER)) == ("1", None)
    move_alias(waiting, CHALLENGER)  # as a stage leaves it that a bare `dvc repro` runs
    assert settle(NAME, tell=say_nothing) == ["digits version 2 is or was champion, so it is no challenger"]
    assert settle(NAME, tell=say_nothing) == []


def test_a_cut_off_log_does_not_keep_a_bundle_from_being_registered(home: Path, tmp_path: Path) -> None:
    champion(tmp_path, "a")
    with promotions_path().open("ab") as handle:
        handle.write(b'{"event": "promo')
    assert sync(tmp_path / "a/bundle", NAME).endswith("version 1; it is the champion")


def test_promoting_again_changes_nothing(home: Path, tmp_path: Path) -> None:
    version = champion(tmp_path, "aa")
    before, inode = state(), CHAMPION_FOLDER.stat().st_ino
    assert promote(version, WORDS, time=TIMES[5], tell=say_nothing) == "digits version 1 is the champion already"
    assert state() == before
    assert CHAMPION_FOLDER.stat().st_ino == inode


@pytest.mark.parametrize("name", ["model.safetensors", "report.html", "manifest.json"])
def test_one_flipped_byte_is_refused_by_review_and_promotion(home: Path, tmp_path: Path, name: str) -> None:
    version = registered(tmp_path, "aa")
    approve(version)
    other = registered(tmp_path, "bbb")
    for each in (version, other):
        content = bytearray((each.folder / name).read_bytes())
        content[0] ^= 1
        (each.folder / name).write_bytes(content)
    with pytest.raises(ValueError, match="sha256"):
        promote(version, WORDS, time=TIMES[0], tell=say_nothing)
    with pytest.raises(ValueError, match="sha256"):
        approve(other, report_sha256="0" * 64)
    assert events() == []
    assert read_review(reviews_folder(), other.candidate).decision == PENDING


def test_an_approval_of_another_report_does_not_promote(home: Path, tmp_path: Path) -> None:
    version = registered(tmp_path, "aa")
    with pytest.raises(ValueError, match="the reviewer was shown the report 0000000000000000, the bundle holds"):
        approve(version, report_sha256="0" * 64)
    approve(version)
    path = reviews_folder() / f"{version.candidate}.json"
    path.write_text(path.read_text().replace(subject_of(version).report_sha256, "0" * 64))
    with pytest.raises(ValueError, match=r"bob approved the report 0000000000000000, .* not for these bytes"):
        promote(version, WORDS, time=TIMES[0], tell=say_nothing)
    assert events() == []


@pytest.mark.parametrize(
    ("changes", "concern"),
    [
        ({"verdict": "fail"}, "the audit's verdict is fail"),
        ({"verdict": "inconclusive"}, "the audit's verdict is inconclusive"),
        ({"guard": {"decision": "adopt", "is_proven": False}}, "its adoption is unproven"),
        ({"guard": {"decision": "keep", "is_proven": False}}, ""),  # source-only stayed: nothing to prove
        ({}, ""),
    ],
)
def test_what_is_not_shown_to_be_good_needs_an_override_that_stays(
    home: Path, tmp_path: Path, changes: dict[str, Any], concern: str
) -> None:
    version = registered(tmp_path, "aa", **changes)
    assert subject_of(version).concerns == ((concern,) if concern else ())
    if concern:
        with pytest.raises(ValueError, match=f"{concern}: to approve it all the same, write why as an override"):
            approve(version)
        approve(version, override="the group is 3 images")
        path = reviews_folder() / f"{version.candidate}.json"
        kept = path.read_text()
        path.write_text(kept.replace("the group is 3 images", ""))
        with pytest.raises(ValueError, match=f"{concern}, and the approval by bob holds no override"):
            promote(version, WORDS, time=TIMES[0], tell=say_nothing)
        path.write_text(kept)
    else:
        approve(version)
    promote(version, WORDS, time=TIMES[0], tell=say_nothing)
    assert find(NAME, CHAMPION).candidate == version.candidate


def test_a_bundle_that_does_not_say_whether_it_is_proven_is_a_concern(home: Path, tmp_path: Path) -> None:
    version = registered(tmp_path, "aa")
    (version.folder / "adoption.json").unlink()
    assert concerns(version.folder, "pass") == ("whether its adoption is proven is not recorded",)


def test_a_rollback_goes_back_one_champion_and_never_forth(home: Path, tmp_path: Path) -> None:
    for day, weights in enumerate(["a", "bb", "ccc"]):
        champion(tmp_path, weights, day)
    assert rollback(NAME, None, WORDS, time=TIMES[3], tell=say_nothing) == "digits version 2 is the champion again"
    assert state()[0] == "2"
    rollback(NAME, None, WORDS, time=TIMES[4], tell=say_nothing)
    number, moves, is_pinned, profile = state()
    assert (number, is_pinned) == ("1", True)
    assert profile == (find(NAME, "1").folder / "profile.json").read_bytes()
    assert moves == [(PROMOTED, "1"), (PROMOTED, "2"), (PROMOTED, "3"), (ROLLED_BACK, "2"), (ROLLED_BACK, "1")]
    assert events()[-1].previous == find(NAME, "2").candidate
    with pytest.raises(ValueError, match="digits version 1 has no champion before it to go back to"):
        rollback(NAME, None, WORDS, time=TIMES[5], tell=say_nothing)
    found = champion_at(events(), datetime(2026, 11, 23, 12, tzinfo=UTC))
    assert found is not None
    assert found.version == "3"


def test_a_rollback_to_a_version_may_be_repeated_and_goes_to_former_champions_only(home: Path, tmp_path: Path) -> None:
    for day, weights in enumerate(["a", "bb", "ccc"]):
        champion(tmp_path, weights, day)
    registered(tmp_path, "dddd")
    with pytest.raises(ValueError, match=r"version 4 was never champion: .*; use `acclimate promote 4`"):
        rollback(NAME, find(NAME, "4"), WORDS, time=TIMES[3], tell=say_nothing)
    with pytest.raises(ValueError, match="moving the champion needs who orders it, and a reason"):
        rollback(NAME, find(NAME, "1"), Statement("ann", "", " "), time=TIMES[3], tell=say_nothing)
    rollback(NAME, find(NAME, "1"), WORDS, time=TIMES[3], tell=say_nothing)
    again = rollback(NAME, find(NAME, "1"), WORDS, time=TIMES[4], tell=say_nothing)
    assert again == "digits version 1 is the champion; nothing was rolled back"
    assert [event.event for event in events()] == [PROMOTED] * 3 + [ROLLED_BACK]
    with pytest.raises(ValueError, match="letters never had a champion"):
        rollback("letters", None, WORDS, time=TIMES[3], tell=say_nothing)


def test_a_rollback_to_a_damaged_bundle_is_refused_before_anything_moves(home: Path, tmp_path: Path) -> None:
    first = champion(tmp_path, "a")
    champion(tmp_path, "bb", 1)
    before = state()
    (first.folder / "model.safetensors").write_text("x")
    with pytest.raises(ValueError, match=r"model.safetensors has sha256"):
        rollback(NAME, None, WORDS, time=TIMES[3], tell=say_nothing)
    assert state() == before


def no_step(version: Version, kind: str) -> None:
    """Killed before anything was written."""


def log_step(version: Version, kind: str) -> None:
    event = event_of(kind, version, WORDS, previous=events()[-1].candidate, time=TIMES[3])
    append_promotion(promotions_path(), event)


def alias_step(version: Version, kind: str) -> None:
    log_step(version, kind)
    move_alias(version, CHAMPION)


def folder_step(version: Version, kind: str) -> None:
    """Killed between the folder's removal and the new one's coming."""
    alias_step(version, kind)
    CHAMPION_FOLDER.rename(CHAMPION_FOLDER.parent / ".champion.77.part")


def profile_step(version: Version, kind: str) -> None:
    alias_step(version, kind)
    before = ACCEPTED_PROFILE.read_bytes()
    pin(version.folder, CHAMPION_FOLDER, ACCEPTED_PROFILE)
    ACCEPTED_PROFILE.write_bytes(before)


STEPS = [log_step, alias_step, folder_step, profile_step]


@pytest.mark.parametrize("step", [no_step, *STEPS])
@pytest.mark.parametrize("mended_by", ["sync", "again"])
def test_a_promotion_that_was_killed_at_any_step_is_completed_once(
    home: Path, tmp_path: Path, step: Callable[[Version, str], None], mended_by: str
) -> None:
    champion(tmp_path, "a")
    version = registered(tmp_path, "bb")
    approve(version)
    step(version, PROMOTED)
    if mended_by == "again" or step is no_step:
        promote(version, WORDS, time=TIMES[4], tell=say_nothing)
    else:
        assert settle(NAME, tell=say_nothing)
    assert state() == (
        "2", [(PROMOTED, "1"), (PROMOTED, "2")], True, (version.folder / "profile.json").read_bytes(),
    )  # fmt: skip
    assert sorted(path.name for path in CHAMPION_FOLDER.parent.iterdir()) == ["accepted_profile.json", "champion"]
    assert settle(NAME, tell=say_nothing) == []


@pytest.mark.parametrize("step", STEPS[:3])
def test_a_rollback_that_was_killed_is_completed_and_said_again_goes_back_no_further(
    home: Path, tmp_path: Path, step: Callable[[Version, str], None]
) -> None:
    versions = [champion(tmp_path, weights, day) for day, weights in enumerate(["a", "bb", "ccc"])]
    step(versions[1], ROLLED_BACK)
    told = rollback(NAME, None, WORDS, time=TIMES[4], tell=say_nothing)
    assert told.endswith("nothing was rolled back: to go back from there, say it once more")
    assert state()[:3] == ("2", [(PROMOTED, "1"), (PROMOTED, "2"), (PROMOTED, "3"), (ROLLED_BACK, "2")], True)


def test_a_log_whose_last_write_was_cut_off_is_mended_and_the_alias_stays(home: Path, tmp_path: Path) -> None:
    version = champion(tmp_path, "a")
    with promotions_path().open("ab") as handle:
        handle.write(b'{"event": "promo')
    with pytest.raises(ValueError, match="cut off"):
        promote(version, WORDS, time=TIMES[4], tell=say_nothing)
    (told,) = settle(NAME, tell=say_nothing)
    assert "was cut off; its event never took effect" in told
    assert state()[:2] == ("1", [(PROMOTED, "1")])


def test_an_alias_moved_by_hand_follows_the_log_again(home: Path, tmp_path: Path) -> None:
    champion(tmp_path, "a")
    move_alias(registered(tmp_path, "bb"), CHAMPION)
    assert settle(NAME, tell=say_nothing) == ["digits version 1 is the champion, as the promotions log says"]
    assert find(NAME, CHAMPION).number == "1"


def test_given_files_wait_for_the_run_that_reads_them(home: Path, tmp_path: Path) -> None:
    version = registered(tmp_path, "a")
    approve(version)
    waits, told = threading.Event(), list[str]()

    def hear(message: str) -> None:
        told.append(message)
        waits.set()

    thread = threading.Thread(target=promote, args=(version, WORDS), kwargs={"time": TIMES[1], "tell": hear})
    with run_lock(home, Path.cwd(), tell=say_nothing):
        thread.start()
        assert waits.wait(timeout=60)
        assert [path.name for path in CHAMPION_FOLDER.iterdir()] == [".gitkeep"]
        assert find(NAME, CHAMPION).candidate == version.candidate
    thread.join(timeout=60)
    assert "waiting for the run that holds" in told[0]
    assert holds(CHAMPION_FOLDER, version.folder)


def acclimate(*arguments: str, code: int = 0) -> str:
    app = typer.Typer()
    add_commands(app)
    add_registry_commands(app)
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == code, done.output
    return done.stdout + done.stderr


def test_the_commands_tell_the_whole_story(home: Path, tmp_path: Path) -> None:
    first = registered(tmp_path, "a", verdict="fail")
    second = registered(tmp_path, "bb")
    listed = acclimate("review", "list")
    assert first.candidate[:12] in listed
    assert "fail" in listed
    shown = acclimate("review", "show", "1")
    assert f"report sha256: {subject_of(first).report_sha256}" in shown
    assert "audit: fail: 1 of 1 required rules broken: gap (site): group a is worse\n" in shown
    assert "an approval needs an override: the audit's verdict is fail" in shown
    assert "write why as an override" in acclimate("review", "approve", "1", "--reason", "fine", code=1)
    said = ["--reason", "fine", "--reviewer", "bob", "--role", "owner"]
    acclimate("review", "approve", "1", *said, "--override", "the group is 3 images")
    assert "was approved by bob" in acclimate("review", "reject", "1", "--reason", "no", code=1)
    assert "override: the group is 3 images" in acclimate("review", "show", "1")
    assert "waits for its review" in acclimate("promote", "2", code=1)
    acclimate("promote", "1")
    acclimate("review", "approve", second.candidate[:8], "--reason", "better", "--report-sha256", "0" * 12, code=1)
    acclimate("review", "approve", second.candidate[:8], "--reason", "better")
    acclimate("promote", "2", "--reason", "release of the week")
    acclimate("registry", "rollback", "--reason", "complaints")
    history = acclimate("registry", "history")
    for told in ("promoted", "rolled back", "fine", "release of the week", "complaints", "ann", "bob (owner)"):
        assert told in history
    assert "override: the group is 3 images" in acclimate("registry", "show", "champion")
    assert "digits version 1" in acclimate("registry", "at", "2100-01-01")
    assert "had no champion at 2000-01-01" in acclimate("registry", "at", "2000-01-01", code=1)
    assert "approved by bob" in acclimate("review", "list", "--all")


def test_who_decides_must_be_known(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registered(tmp_path, "a")
    monkeypatch.setenv("USER", "")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    told = acclimate("review", "approve", "1", "--reason", "fine", code=1)
    assert "it is not known who you are; say it with --reviewer NAME" in told


@pytest.mark.slow
def test_two_people_at_two_terminals_make_one_decision(home: Path, tmp_path: Path) -> None:
    version = registered(tmp_path, "a")
    code = "import typer, flows.review_cli as c; app = typer.Typer(); c.add_commands(app); app()"
    said = {"approve": "ann", "reject": "bob"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, "review", decision, "1", "--reason", "so", "--reviewer", reviewer],
            env=os.environ | {"PYTHONPATH": str(PROJECT)}, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for decision, reviewer in said.items()
    ]  # fmt: skip
    told = [process.communicate(timeout=120)[1] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 1], told
    assert sum("the first decision stands" in text for text in told) == 1
    (vote,) = read_review(reviews_folder(), version.candidate).votes
    assert said[vote.decision] == vote.reviewer
