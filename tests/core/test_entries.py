"""Entries: the folders above an image, and names that are shown as text and never twice."""

import pytest

from tasks.core.entries import Entry, distinct, levels, shown_name


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("1.jpg", []),
        ("a/b/1.jpg", ["a", "b"]),
        ("old_camera.zip/cat/1.jpg", ["old_camera", "cat"]),
        ("old_camera.zip/old_camera/cat/1.jpg", ["old_camera", "cat"]),
        ("a/old.tar.gz/old/old/1.jpg", ["a", "old", "old"]),
        ("a/OLD.TGZ/old/1.jpg", ["a", "OLD", "old"]),
        ("cat/cat/1.jpg", ["cat", "cat"]),
        ("x.tar/1.zip.jpg", ["x"]),
    ],
)
def test_levels_are_the_folders_above(path: str, expected: list[str]) -> None:
    assert levels(path) == expected


def test_usable_entries_keep_their_paths_and_problems_step_aside() -> None:
    found = [Entry("a", "p"), Entry("a", ""), Entry("a (2)", ""), Entry("a", "q"), Entry("b", "p")]
    assert distinct(found) == [
        Entry("a", ""), Entry("a (2)", ""), Entry("a (3)", "p"), Entry("a (4)", "q"), Entry("b", "p"),
    ]  # fmt: skip
    many = distinct([Entry("a", "p")] * 20_000)  # an archive of one name must not take for ever
    assert len({entry.path for entry in many}) == 20_000


@pytest.mark.parametrize(
    ("name", "shown"), [("a b.jpg", "a b.jpg"), ("\u2028.jpg", r"\u2028.jpg"), ("\x7f", r"\x7f"), ("\udce4ü", r"\xe4ü")]
)
def test_shown_names_are_one_line_of_text(name: str, shown: str) -> None:
    assert shown_name(name)[0] == shown
    assert bool(shown_name(name)[1]) == (name != shown)
