"""People's labels: what was entered is read back, the last entry counts, every problem is told with its place."""

import csv
from pathlib import Path

import pandas as pd
import pytest

from tasks.core.labels import (
    LABEL_COLUMNS,
    added_labels,
    asked_labels,
    asked_of_latest,
    read_labels,
    read_wanted_labels,
    unentered,
    with_given_labels,
    write_labels,
)

HOSTILE = [
    "a,b", 'say "cat"', "two\nlines", "\r", "cr\rlf\r\n", "=1+1", "@SUM(A1)", "-2", "+3", " blank ", "\ttab", "ümläut",
    "猫", "NA", "nan", "None", "1e3", "007", "#x", "'", "\x1a", "\x85", "\u2028", "\ufeff", "\0", "x" * 5000,
]  # fmt: skip


DAY = "2026-03-01"


def entries(*rows: tuple[str, str]) -> pd.DataFrame:
    """path and label; always by ann on one day, and ordinary."""
    return answers(*((*row, "") for row in rows))


def answers(*rows: tuple[str, str, str]) -> pd.DataFrame:
    """path, label and asked_of; always by ann on one day."""
    return pd.DataFrame([(path, label, "ann", DAY, of) for path, label, of in rows], columns=LABEL_COLUMNS, dtype=str)


def rows_of(*rows: tuple[str, str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["path", "domain", "split", "label"], dtype=str)


ROWS = rows_of(
    ("pen/1.png", "target", "", ""), ("pen/2.png", "target", "", ""), ("pen/3.png", "target", "", ""),
    ("ink/1.png", "source", "", "dog"),
)  # fmt: skip


def pairs(labels: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(labels["path"], labels["label"], strict=True))


def add(labels: pd.DataFrame, new: pd.DataFrame, *, allow: bool = False) -> pd.DataFrame:
    rows = with_given_labels(ROWS, labels)
    return added_labels(labels, new, rows=rows, known_classes={"cat", "dog"}, allow_new_classes=allow)


def problem(new: pd.DataFrame, *, allow: bool = False) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        add(entries(), new, allow=allow)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_any_name_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "given/labels.csv"
    columns = {"path": HOSTILE, "label": HOSTILE[::-1], "by": HOSTILE, "on": DAY, "asked_of": [*HOSTILE[1:], ""]}
    table = pd.DataFrame(columns, dtype=str)
    write_labels(path, table)
    assert read_labels(path).to_numpy().tolist() == table.to_numpy().tolist()
    with path.open(encoding="utf-8", newline="") as handle:  # and another reader sees the same
        assert list(csv.reader(handle)) == [LABEL_COLUMNS, *table.to_numpy().tolist()]


def test_the_file_is_plain_text_line_by_line(tmp_path: Path) -> None:
    write_labels(tmp_path / "labels.csv", entries(("b,1.png", "cat"), ("a.png", "")))
    assert (tmp_path / "labels.csv").read_bytes() == (
        b'path,label,by,on,asked_of\n"b,1.png",cat,ann,2026-03-01,\na.png,,ann,2026-03-01,\n'
    )


def test_a_header_alone_holds_no_entries(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,label,by,on,asked_of\n")
    labels = read_labels(tmp_path / "labels.csv")
    assert (list(labels.columns), len(labels)) == (LABEL_COLUMNS, 0)
    rows = rows_of(("pen/1.png", "target", "", ""), ("ink/1.png", "source", "", "cat"))
    assert with_given_labels(rows, labels).equals(rows)
    assert pairs(add(labels, entries(("pen/1.png", "cat")))) == [("pen/1.png", "cat")]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfpath,label,by,on\npen/1.png,cat,ann,2026-03-01\n",
        b"path,label,by,on\r\npen/1.png,cat,ann,2026-03-01\r\n\r\n",
        b'"path","label","by","on"\n\n"pen/1.png","cat","ann","2026-03-01"',
        b"path,label,by,on,asked_of\npen/1.png,cat,ann,2026-03-01,\n",
    ],
)
def test_what_a_spreadsheet_or_editor_saves_is_read_the_same(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    assert read_labels(tmp_path / "labels.csv").to_numpy().tolist() == [["pen/1.png", "cat", "ann", DAY, ""]]


def test_a_missing_file_says_how_to_restore_it(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"is missing: it holds people's labels; .*git, or .*path,label,by,on,asked_of"
    ):
        read_labels(tmp_path / "labels.csv")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "line 1 must be the header path,label,by,on,asked_of, not ''"),
        (b"pen/1.png,cat,ann,2026-03-01\n", "line 1 must be the header"),
        (b"path;label;by;on\n", "not 'path;label;by;on'"),
        (b"path,label,by\n", "not 'path,label,by'"),
        (b"path,label,by,asked_of,on\n", "not 'path,label,by,asked_of,on'"),
        (b"path,label,by,on,asked_of\na,cat,ann,2026-03-01\n", "line 2 has 4 columns instead of 5 ('a'…)"),
        (b"path,label,by,on\na,cat,ann,2026-03-01\nb,cat\n", "line 3 has 2 columns instead of 4 ('b'…)"),
        (b"path,label,by,on\na,cat,ann,2026-03-01,x\n", "line 2 has 5 columns instead of 4"),
        (b"path,label,by,on\n<<<<<<< HEAD\n", "line 2 has 1 columns instead of 4 ('<<<<<<< HEAD'…)"),
        (b"path,label,by,on\n,cat,ann,2026-03-01\n", "line 2, column path, is empty"),
        (b"path,label,by,on\na,cat,,2026-03-01\n", "line 2, column by, is empty"),
        (b"path,label,by,on\na,cat,ann,01.03.2026\n", "line 2, column on, is no date YYYY-MM-DD: '01.03.2026'"),
        (b"path,label,by,on\na,cat,ann,2026-02-30\n", "column on, is no date YYYY-MM-DD: '2026-02-30'"),
        (b"path,label,by,on\na,cat,ann,20260301\n", "column on, is no date"),
        (b"path,label,by,on\na,cat,ann,\n", "line 2, column on, is no date YYYY-MM-DD;"),
        (b'path,label,by,on\n"a\nb",cat,ann,2026-03-01\nc\n', "line 4 has 1 columns"),
        (b'path,label,by,on\n"a,cat,ann,2026-03-01\nb,cat,ann,2026-03-01\n', "line 2 is not CSV"),
        (b'path,label,by,on\n"a"b,cat,ann,2026-03-01\n', "line 2 is not CSV"),
        (b"path,label,by,on\na,cat,ann,2026-03-01\n\xff,cat,ann,2026-03-01\n", "line 3 is not UTF-8"),
        (b"path,label,by,on\n1\n2\n3\n4\n5\n", "line 4 has 1 columns instead of 4 ('3'…); and 2 more problems; mend"),
    ],
)
def test_a_damaged_file_is_told_with_line_and_column(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"labels\.csv: ") as caught:
        read_labels(tmp_path / "labels.csv")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_last_entry_of_an_image_counts_and_an_empty_one_takes_its_label_back() -> None:
    rows = rows_of(
        ("a", "target", "", ""), ("b", "target", "", "dog"), ("c", "target", "", "dog"), ("d", "source", "", "dog"),
        ("e", "target", "", "dog"),
    )  # fmt: skip
    labels = entries(("a", "dog"), ("b", "cat"), ("a", "cat"), ("c", ""), ("d", ""), ("d", "cat"), ("elsewhere", "cat"))
    labelled = with_given_labels(rows, labels)
    assert pairs(labelled) == [("a", "cat"), ("b", "cat"), ("c", ""), ("d", "cat"), ("e", "dog")]
    assert with_given_labels(labelled, labels).equals(labelled)
    assert pairs(rows)[0] == ("a", ""), "the argument is left as it was"


def test_an_image_given_as_unlabelled_is_learnt_from_once_a_person_labels_it() -> None:
    rows = rows_of(
        ("a", "target", "unlabelled", ""), ("b", "target", "unlabelled", "dog"), ("c", "target", "unlabelled", "dog"),
        ("d", "target", "test", "dog"),
    )  # fmt: skip
    labels = entries(("a", "cat"), ("b", ""), ("d", "cat"))
    assert list(with_given_labels(rows, labels)["split"]) == ["", "unlabelled", "unlabelled", "test"]


def test_the_order_of_the_rows_changes_nothing() -> None:
    rows = rows_of(("a", "target", "", ""), ("b", "target", "", ""), ("c", "target", "", ""))
    labels = entries(("c", "cat"), ("a", "dog"))
    assert pairs(with_given_labels(rows[::-1], labels))[::-1] == pairs(with_given_labels(rows, labels))


def test_new_entries_stand_behind_the_old_ones() -> None:
    before = entries(("pen/1.png", "cat"), ("pen/9.png", "of an image that is no longer sampled"))
    after = add(before, entries(("pen/1.png", "dog"), ("pen/2.png", "cat")))
    assert pairs(after) == [*pairs(before), ("pen/1.png", "dog"), ("pen/2.png", "cat")]
    assert list(after.columns) == LABEL_COLUMNS


def test_what_the_last_entry_says_is_not_written_again() -> None:
    before = entries(("pen/1.png", "cat"), ("pen/1.png", "dog"), ("pen/2.png", ""))
    again = entries(("pen/1.png", "dog"), ("pen/3.png", "cat"), ("pen/3.png", "cat"))
    assert pairs(add(before, again))[3:] == [("pen/3.png", "cat")]
    assert pairs(add(before, entries(("pen/1.png", "cat"))))[3:] == [("pen/1.png", "cat")]


def test_all_problems_of_new_entries_are_told_at_once() -> None:
    told = problem(
        entries(
            ("pen/11.png", "cat"), ("pencil/1.png", "cat"), ("pen/2.png", "cta"), ("pen/3.png", "cat"), ("pen/3.png", "dog"),
            ("", "cat"), ("zzz", "cat"), ("zzzz", "cat"),
        )
    )  # fmt: skip
    assert "an image's path is empty" in told
    assert (
        "4 images are not in the manifest, the first: 'pen/11.png' (did you mean 'pen/1.png'?); 'pencil/1.png'" in told
    )
    assert "1 images are given two labels in one call, the first: 'pen/3.png'" in told
    assert "1 labels are no class, the first: 'cta' (did you mean 'cat'?); the classes are 'cat', 'dog'" in told


def test_a_new_class_must_be_asked_for() -> None:
    assert "'zebra'; the classes are 'cat', 'dog'" in problem(entries(("pen/1.png", "zebra")))
    assert pairs(add(entries(), entries(("pen/1.png", "zebra")), allow=True)) == [("pen/1.png", "zebra")]


@pytest.mark.parametrize("name", [" zebra", "zebra ", "ze\nbra", "ze\0bra", "\u200bzebra"])
def test_a_new_class_whose_name_looks_like_another_is_refused(name: str) -> None:
    assert "1 new labels begin or end with a blank or hold" in problem(entries(("pen/1.png", name)), allow=True)


def test_an_odd_class_that_images_carry_already_may_be_given() -> None:
    after = added_labels(
        entries(), entries(("pen/1.png", " cat\n")), rows=ROWS, known_classes=[" cat\n"], allow_new_classes=False
    )
    assert pairs(after) == [("pen/1.png", " cat\n")]


def test_who_labels_must_be_said() -> None:
    assert "it is not said who gives the label" in problem(entries(("pen/1.png", "cat")).assign(by=""))


def test_nearest_path_is_quick_among_very_many() -> None:
    rows = rows_of(*((f"pen/{i // 1000:04d}/{i:07d}.png", "target", "", "") for i in range(200_000)))
    new = entries(("pencil/0003/0003141.png", "cat"), *((f"no/{i}", "cat") for i in range(1000)))
    with pytest.raises(ValueError, match=r"1001 images are not in the manifest") as caught:
        added_labels(entries(), new, rows=rows, known_classes=["cat"], allow_new_classes=False)
    assert len(str(caught.value)) < 500


def test_labels_that_the_pipeline_needs_are_not_taken_back_nor_source_images_labelled() -> None:
    rows = rows_of(
        ("a", "target", "", ""), ("b", "target", "test", "dog"), ("c", "source", "", "dog"), ("d", "target", "val", "dog"),
        ("e", "target", "train", "dog"), ("f", "target", "", "dog"), ("g", "source", "", ""), ("h", "source", "val", "dog"),
    )  # fmt: skip
    free = entries(("e", ""), ("f", ""), ("a", "dog"), ("b", "cat"), ("h", "cat"))
    known = {"known_classes": ["cat", "dog"], "allow_new_classes": False}
    assert len(added_labels(entries(), free, rows=rows, **known)) == 5
    with pytest.raises(ValueError, match=r".") as caught:
        added_labels(entries(), entries(*((path, "") for path in "abcde"), ("g", "dog")), rows=rows, **known)
    assert str(caught.value) == (
        "1 images carry no label that could be taken back, the first: 'a'; "
        "1 images are source images, which can't be without a label; give the right one instead, the first: 'c'; "
        "2 images are given as split val or test, which can't be without a label; give the right one instead, "
        "the first: 'b', 'd'; "
        "1 images are source images without a label; label them where they are listed, the first: 'g'"
    )


def test_a_persons_own_table_may_have_further_columns(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("note,label,path\n?,cat,pen/1.png\n,=1,pen/2.png\n")
    wanted = read_wanted_labels(tmp_path / "mine.csv")
    assert wanted.to_dict("list") == {"path": ["pen/1.png", "pen/2.png"], "label": ["cat", "=1"], "asked_of": ["", ""]}


def test_rows_of_an_asking_table_without_a_label_are_open_questions(tmp_path: Path) -> None:
    header = "path,label,source_only,adapted,asked_of\n"
    (tmp_path / "to_label.csv").write_text(header + "pen/1.png,,cat,dog,p1\npen/2.png,dog,cat,dog,p1\n")
    wanted = read_wanted_labels(tmp_path / "to_label.csv")
    assert wanted.to_numpy().tolist() == [["pen/1.png", "", "p1"], ["pen/2.png", "dog", "p1"]]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "the header must name the columns path and label once each; it is ''"),
        ("path;label\na;cat\n", "it is 'path;label'; write them there, with commas"),
        ("path,label,path\na,cat,b\n", "once each"),
        ("path,label\n", "holds no label"),
        ("path,label\na,cat\nb,\n", "line 3, column label, is empty; mend the lines or leave them out"),
        ("path,label\n,cat\na,\n", "line 2, column path, is empty; line 3, column label, is empty"),
        ("path,label\na,cat,dog\n", "line 2 has 3 columns instead of 2"),
        ("path,label,asked_of\na,,p1\nb,cat,\n", "line 3, column asked_of, is empty; mend"),
        (
            "path,label,asked_of\na,,p1\nb,,p1\n",
            "none of its 2 rows has a label yet; write the class of the images that you",
        ),
    ],
)
def test_a_persons_damaged_table_is_told(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "mine.csv").write_text(content)
    with pytest.raises(ValueError, match=r"mine\.csv") as caught:
        read_wanted_labels(tmp_path / "mine.csv")
    assert told in str(caught.value)


def test_a_persons_missing_table_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"mine\.csv is no file; name a CSV file with the columns path and label"
    ):
        read_wanted_labels(tmp_path / "mine.csv")


def test_an_answer_to_the_guard_changes_no_row() -> None:
    rows = rows_of(("a", "target", "unlabelled", ""), ("b", "target", "", "dog"), ("c", "source", "", "dog"))
    asked = answers(("a", "cat", "p1"), ("b", "cat", "p1"), ("b", "", "p2"), ("c", "cat", "p1"))
    assert with_given_labels(rows, asked).equals(rows)
    between = pd.concat(
        [answers(("a", "dog", "p1")), entries(("a", "cat")), answers(("a", "", "p1"), ("a", "dog", "p2"))]
    )
    labelled = with_given_labels(rows, between)
    assert pairs(labelled)[0] == ("a", "cat"), "its ordinary label counts, whatever is answered before or after"
    assert labelled["split"].tolist()[0] == ""


def test_the_last_answer_to_each_question_counts_and_an_empty_one_is_none() -> None:
    labels = answers(
        ("b", "cat", "p2"), ("a", "cat", "p1"), ("a", "dog", "p2"), ("a", "dog", "p1"), ("a", "owl", ""), ("c", "cat", "p1"),
        ("c", "", "p1"), ("d", "", "p1"), ("d", "cat", "p1"),
    )  # fmt: skip
    assert asked_labels(labels).to_dict("list") == {
        "path": ["a", "a", "b", "d"],
        "label": ["dog", "dog", "cat", "cat"],
        "asked_of": ["p1", "p2", "p2", "p1"],
    }


@pytest.mark.parametrize("labels", [entries(), entries(("a", "cat")), answers(("a", "cat", "p1"), ("a", "", "p1"))])
def test_where_nothing_is_answered_the_table_is_empty(labels: pd.DataFrame) -> None:
    asked = asked_labels(labels)
    assert (list(asked.columns), len(asked)) == (["path", "label", "asked_of"], 0)


def test_an_answer_and_an_ordinary_label_stand_beside_each_other() -> None:
    before = entries(("pen/1.png", "cat"))
    new = answers(("pen/1.png", "cat", "p1"))
    after = add(before, new)
    assert after["asked_of"].tolist() == ["", "p1"]
    assert len(add(after, new)) == len(add(after, before)) == 2, "said again, neither is written again"
    assert len(add(after, answers(("pen/1.png", "cat", "p2")))) == 3
    assert pairs(add(after, answers(("pen/1.png", "dog", "p1"))))[2:] == [("pen/1.png", "dog")]


def test_one_image_can_answer_two_pairs_of_models_in_one_call() -> None:
    after = add(entries(), answers(("pen/1.png", "cat", "p1"), ("pen/1.png", "cat", "p2"), ("pen/1.png", "cat", "p1")))
    assert after["asked_of"].tolist() == ["p1", "p2"]


def test_an_answer_is_taken_back_also_where_the_image_has_no_label_of_its_own() -> None:
    before = answers(("pen/1.png", "cat", "p1"))
    after = add(before, answers(("pen/1.png", "", "p1")))
    assert pairs(after)[1:] == [("pen/1.png", "")]
    assert asked_labels(after).empty


def test_answers_are_checked_like_other_labels() -> None:
    told = problem(
        answers(
            ("pen/1.png", "cta", "p1"),
            ("pen/9.png", "cat", "p1"),
            ("pen/2.png", "cat", "p1"),
            ("pen/2.png", "dog", "p2"),
        )
    )
    assert "1 images are not in the manifest, the first: 'pen/9.png'" in told
    assert "1 images are given two labels in one call, the first: 'pen/2.png'" in told
    assert "'cta' (did you mean 'cat'?)" in told


def test_the_label_that_was_entered_last_is_the_first_to_be_taken_back() -> None:
    labels = answers(("a", "cat", ""), ("a", "cat", "p1"), ("b", "cat", "p1"), ("b", "dog", ""), ("c", "cat", "p1"))
    assert asked_of_latest(labels) == {"a": "p1", "b": "", "c": "p1"}
    without = pd.concat([labels, answers(("a", "", "p1"), ("b", "", ""), ("c", "", "p1"))])
    assert asked_of_latest(without) == {"a": "", "b": "p1"}
    again = pd.concat([without, answers(("a", "dog", "p1"), ("a", "owl", ""))])
    assert asked_of_latest(again)["a"] == ""


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("path,label,source_only,adapted,asked_of\na.png,,cat,dog,p1\nb.png, ,cat,dog,p1\n", 0),  # nothing filled in
        ("path,label,source_only,adapted,asked_of\na.png,cat,cat,dog,p1\nb.png,dog,cat,dog,p1\n", 1),  # a is entered
        ("path,label,source_only,adapted,asked_of\na.png,dog,cat,dog,p1\n", 1),  # entered, then changed
        ("path,label,source_only,adapted,asked_of\na.png,cat,cat,dog,p2\n", 1),  # entered for another pair
        ("path,label,source_only,adapted,asked_of\na.png,cat,or,dog,cat,dog,p1\n", 1),  # a comma too many
        ("path;label;source_only;adapted;asked_of\na.png;cat;cat;dog;p1\n", 1),  # a spreadsheet's semicolons
    ],
)
def test_answers_that_a_run_would_lose_are_counted(tmp_path: Path, text: str, n: int) -> None:
    (tmp_path / "to_label.csv").write_text(text)
    write_labels(tmp_path / "labels.csv", answers(("a.png", "cat", "p1")))
    assert unentered(tmp_path / "to_label.csv", tmp_path / "labels.csv") == n


def test_without_a_list_nothing_can_be_lost(tmp_path: Path) -> None:
    assert unentered(tmp_path / "to_label.csv", tmp_path / "labels.csv") == 0
