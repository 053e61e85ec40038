"""Listing: tables as people really save them, paths that may not be opened, folders whose levels mean something."""

import unicodedata
from pathlib import Path
from zipfile import ZipFile

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core.listing import (
    ABSOLUTE,
    OUTSIDE,
    ROW_COLUMNS,
    ColumnNames,
    audit_name,
    guessed_layout,
    layout_levels,
    read_image_table,
    rows_from_entries,
    rows_from_table,
    with_split_words,
)
from tasks.core.store import Entry, open_store

NAMES = ColumnNames(path="file", label="class", domain="place", split="fold", group="writer", audit=("slant",))
ONLY_PATH = ColumnNames(path="file", label=None, domain=None, split=None, group=None, audit=())
CONTROL = "has a control character in its name; rename it"


def table_of(tmp_path: Path, content: str | bytes, name: str = "images.csv") -> pd.DataFrame:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_image_table(tmp_path / name)


def entries(*paths: str) -> list[Entry]:
    return [Entry(path, "") for path in paths]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("above", ["", "two"])
def test_a_table_is_read_however_a_program_saves_it(
    tmp_path: Path, separator: str, end: str, mark: str, above: str
) -> None:
    lines = [["file", "class", "slant"], ["1.png", "NA", "007"], ["ü.png", "nan", ""]]
    text = mark + (2 * end if above else "") + end.join(separator.join(line) for line in lines)
    found = table_of(tmp_path, text)
    assert list(found.columns) == lines[0]
    assert found.to_numpy().tolist() == lines[1:]


def test_quotes_hold_separators_line_ends_and_quotes(tmp_path: Path) -> None:
    found = table_of(tmp_path, 'file,class\n"a,b;c.png","line\nend"\n"say ""x"".png",plain\n')
    assert found.to_numpy().tolist() == [["a,b;c.png", "line\nend"], ['say "x".png', "plain"]]


def test_a_single_column_is_a_table(tmp_path: Path) -> None:
    assert table_of(tmp_path, "file\n1.png\n\n2.png\n")["file"].tolist() == ["1.png", "2.png"]


@pytest.mark.parametrize("content", ["file,class", "file,class\n", "file,class\r\n\r\n"])
def test_a_table_without_rows_is_empty(tmp_path: Path, content: str) -> None:
    found = table_of(tmp_path, content)
    assert list(found.columns) == ["file", "class"]
    assert len(found) == 0
    rows = rows_from_table(found, ColumnNames("file", "class", None, None, None, ()), tmp_path, open_store(tmp_path))
    assert list(rows.columns) == ROW_COLUMNS
    assert len(rows) == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", r"is not a whole CSV table \(it has no header\); mend it"),
        ("\n \n", r"is not a whole CSV table \(it has no header\); mend it"),
        ('file,class\n"1.png,a\n2.png,b\n', r"is not a whole CSV table \(.*\); mend it"),
        ('file,class\n"1"2.png,a\n', r"is not a whole CSV table \(.*\); mend it"),
        (
            "file,class\n1,a\n2,b,c\n",
            r"1 line\(s\) have not as many fields as the header \(2\), the first: line 3 \(3\)",
        ),
        ("file,class\n1,a,\n2,b,\n", r"2 line\(s\) have not as .* line 2 \(3\), line 3 \(3\); mend the table"),
        ("file,class,fold\n1,a,x\n\n2,b\n3,c,x\n", r"header \(3\), the first: line 4 \(2\); mend the table"),
        ("file,class,fold\n1,a,x\n2,b,x\n3", r"header \(3\), the first: line 4 \(1\); mend the table"),
        ("file,class,class\n1,a,b\n", r"the header names 'class' more than once; rename or remove one"),
        ('"file";class;file;class\n1;a;2;b\n', r"the header names 'class', 'file' more than once"),
        (b"file,class\n1,caf\xe9\n", r"is not text in UTF-8 \(line 2\); save it as CSV UTF-8"),
        ("file,class\n1,a\n".encode("utf-16"), r"is not text in UTF-8 \(line 1\); save it as CSV UTF-8"),
        (b"file,class\n" + 60_000 * b"1.png,a\n" + b"caf\xe9.png,b\n", r"is not text in UTF-8 \(line 60002\)"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", r"is not text in UTF-8"),
        ("x" * 300_000, r"is not a whole CSV table"),
    ],
)
def test_a_broken_table_is_one_sentence_with_its_name(tmp_path: Path, content: str | bytes, words: str) -> None:
    with pytest.raises(ValueError, match=rf"images.csv.*{words}") as caught:
        table_of(tmp_path, content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["none.csv", "none.parquet", "folder.csv"])
def test_a_table_that_is_no_file_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ValueError, match=rf"the image table .*{name} is not a file; name a CSV or Parquet file"):
        read_image_table(tmp_path / name)


def test_nameless_columns_are_nobodys_business(tmp_path: Path) -> None:
    """An index that pandas wrote, and a spreadsheet's empty columns."""
    assert table_of(tmp_path, ",file,,\n0,1.png,,\n")["file"].tolist() == ["1.png"]


@pytest.mark.parametrize("name", ["images.parquet", "images.PQ"])
def test_every_kind_of_parquet_column_is_text(tmp_path: Path, name: str) -> None:
    pd.DataFrame(
        {
            "file": ["1.png", "2.png"],
            "whole": [7, 8],
            "gaps": [3.0, None],
            "part": [0.5, 2.25],
            "nullable": pd.array([1, None], dtype="Int64"),
            "flag": [True, False],
            "flag_gaps": pd.array([True, None], dtype="boolean"),
            "kind": pd.Categorical(["x", None]),
            "numbers": pd.Categorical([5, 6]),
            "text": ["007", None],
            "none": [None, None],
        }
    ).to_parquet(tmp_path / name)
    assert read_image_table(tmp_path / name).to_dict("list") == {
        "file": ["1.png", "2.png"], "whole": ["7", "8"], "gaps": ["3", ""], "part": ["0.5", "2.25"],
        "nullable": ["1", ""], "flag": ["True", "False"], "flag_gaps": ["True", ""], "kind": ["x", ""],
        "numbers": ["5", "6"], "text": ["007", ""], "none": ["", ""],
    }  # fmt: skip


def test_parquet_rows_count_from_zero_whatever_the_index_was(tmp_path: Path) -> None:
    pd.DataFrame({"file": list("abcd")}).query("file > 'b'").to_parquet(tmp_path / "t.parquet")
    found = read_image_table(tmp_path / "t.parquet")
    rows = rows_from_table(found, ONLY_PATH, tmp_path, open_store(tmp_path))
    assert rows.index.tolist() == [0, 1]
    assert rows["path"].tolist() == ["c", "d"]


def test_broken_parquet_is_one_sentence_with_its_name(tmp_path: Path) -> None:
    pd.DataFrame({"file": ["a"] * 999}).to_parquet(tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    for content in (b"", b"file,class\n1,a\n", whole[: len(whole) // 2], whole[:-4] + b"XXXX"):
        with pytest.raises(ValueError, match=r"cut.parquet is not a whole Parquet table \(.*\)") as caught:
            table_of(tmp_path, content, "cut.parquet")
        assert "\n" not in str(caught.value)
    pq.write_table(pa.table([["a"], ["b"]], names=["file", "file"]), tmp_path / "twice.parquet")
    with pytest.raises(ValueError, match=r"twice.parquet is not a whole Parquet table .*file"):
        read_image_table(tmp_path / "twice.parquet")


def test_a_table_becomes_rows_under_our_names(tmp_path: Path) -> None:
    given = table_of(tmp_path, "class,file,slant,fold,writer,place,extra\nNA,x/1.png,007,,w1,ink,?\n")
    assert rows_from_table(given, NAMES, tmp_path, open_store(tmp_path)).to_dict("records") == [
        {
            "path": "x/1.png", "label": "NA", "origin": "ink", "split": "", "group_id": "w1", "problem": "",
            "audit_slant": "007",
        }
    ]  # fmt: skip


def test_columns_that_are_not_there_are_empty(tmp_path: Path) -> None:
    rows = rows_from_table(table_of(tmp_path, "file\n1.png\n"), ONLY_PATH, tmp_path, open_store(tmp_path))
    assert rows.to_dict("records") == [dict.fromkeys(ROW_COLUMNS, "") | {"path": "1.png"}]


def test_one_column_may_mean_two_things(tmp_path: Path) -> None:
    names = ColumnNames(path="file", label="class", domain=None, split=None, group="class", audit=("class", "file"))
    given = table_of(tmp_path, "file,class\n1.png,a\n")
    row = rows_from_table(given, names, tmp_path, open_store(tmp_path)).iloc[0]
    assert row[["label", "group_id", "audit_class", "audit_file"]].tolist() == ["a", "a", "a", "1.png"]


def test_an_audit_column_cannot_hide_one_of_ours(tmp_path: Path) -> None:
    names = ColumnNames(path="path", label="label", domain=None, split=None, group=None, audit=("problem", "split"))
    given = table_of(tmp_path, "path,label,problem,split\n1.png,a,none,odd\n")
    row = rows_from_table(given, names, tmp_path, open_store(tmp_path)).iloc[0]
    assert row.to_dict() == dict.fromkeys(ROW_COLUMNS, "") | {
        "path": "1.png", "label": "a", "audit_problem": "none", "audit_split": "odd",
    }  # fmt: skip
    assert audit_name("split") == "audit_split"


def test_all_missing_columns_are_told_with_those_that_exist(tmp_path: Path) -> None:
    given = table_of(tmp_path, "file,class,place\n1.png,a,ink\n")
    words = "has no column 'fold', 'writer', 'slant'; it has file, class, place; mend build_manifest.columns"
    with pytest.raises(ValueError, match=words):
        rows_from_table(given, NAMES, tmp_path, open_store(tmp_path))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for place in ("root/a/b.jpg", "root/c d.png", "root/back\\slash.png", "root/画像\u3000一.png", "outside.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(b"x")
    return tmp_path / "root"


def placed(root: Path, path: str) -> tuple[str, str]:
    rows = rows_from_table(pd.DataFrame({"file": [path]}), ONLY_PATH, root, open_store(root))
    return rows.at[0, "path"], rows.at[0, "problem"]


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("a/b.jpg", "a/b.jpg"), ("./a/b.jpg", "a/b.jpg"), ("./a//b.jpg", "a/b.jpg"), ("a/./b.jpg", "a/b.jpg"),
        ("a/../a/b.jpg", "a/b.jpg"), ("a/x/../../c d.png", "c d.png"), ("a\\b.jpg", "a/b.jpg"), (".\\a\\b.jpg", "a/b.jpg"),
        ("a\\\\b.jpg", "a/b.jpg"), ("back\\slash.png", "back\\slash.png"), ("gone\\x.png", "gone\\x.png"),
        ("gone.png", "gone.png"), ("画像\u3000一.png", "画像\u3000一.png"), ("n\u00a0b\u200d.png", "n\u00a0b\u200d.png"),
        ("...", "..."), ("..a/b.png", "..a/b.png"), (" a.png", " a.png"), ("a/b.jpg/", "a/b.jpg"),
    ],
)  # fmt: skip
def test_a_path_in_a_table_is_told_as_the_stores_own(root: Path, given: str, path: str) -> None:
    assert placed(root, given) == (path, "")


@pytest.mark.parametrize(
    "path", ["../outside.png", "..", "a/../../outside.png", "./../root/a/b.jpg", "/etc/passwd", "//a/b.jpg", "/"]
)
def test_a_path_that_leads_outside_is_a_problem_and_stays_as_it_was_written(root: Path, path: str) -> None:
    assert placed(root, path) == (path, ABSOLUTE if path.startswith("/") else OUTSIDE)


def test_a_neighbour_whose_name_begins_like_the_root_is_outside(root: Path) -> None:
    assert placed(root, f"{root}_old/a.png") == (f"{root}_old/a.png", ABSOLUTE)
    assert placed(root, f"{root}/../outside.png") == (f"{root}/../outside.png", ABSOLUTE)


@pytest.mark.parametrize("path", ["", " ", "\t", "\n"])
def test_an_empty_path_is_a_problem(root: Path, path: str) -> None:
    assert placed(root, path)[1] == "is empty"


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("a\nb.png", r"a\nb.png"), ("a\tb.png", r"a\tb.png"), ("a\x00b.png", r"a\x00b.png"),
        ("a\x1b[31m.png", r"a\x1b[31m.png"), ("a\x85.png", r"a\x85.png"), ("a\u2028.png", r"a\u2028.png"),
    ],
)  # fmt: skip
def test_control_characters_are_shown_and_are_a_problem(root: Path, given: str, path: str) -> None:
    assert placed(root, given) == (path, CONTROL)


def test_an_absolute_path_below_the_root_becomes_relative(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ("a/b.jpg", "")
    assert placed(root, f"{root}/a/b.jpg") == wanted
    assert placed(root, f"{root}/./a//b.jpg") == wanted
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert placed(Path("../root"), f"{root}/a/b.jpg") == wanted, "the root may be written with dots"
    (tmp_path / "link").symlink_to(root)
    assert placed(tmp_path / "link", f"{root}/a/b.jpg") == wanted, "the root may be a link"
    assert placed(tmp_path / "link", f"{tmp_path}/link/a/b.jpg") == wanted


def test_paths_in_archives_are_found_as_in_folders(root: Path) -> None:
    with ZipFile(root / "old.zip", "w") as archive:
        archive.writestr("cat/1.png", b"x")
    assert placed(root, "old.zip\\cat\\1.png") == ("old.zip/cat/1.png", "")
    assert placed(root, f"{root}/old.zip/cat/1.png") == ("old.zip/cat/1.png", "")
    assert placed(root / "old.zip", f"{root}/old.zip/cat/1.png") == ("cat/1.png", "")


def test_one_file_under_many_spellings_is_one_path(root: Path) -> None:
    spellings = ["a/b.jpg", "./a/b.jpg", "a//b.jpg", "a\\b.jpg", f"{root}/a/b.jpg", "x/../a/b.jpg"]
    rows = rows_from_table(pd.DataFrame({"file": spellings}), ONLY_PATH, root, open_store(root))
    assert set(rows["path"]) == {"a/b.jpg"}


@pytest.mark.parametrize(
    ("layout", "path", "expected"),
    [
        ("domain/label", "ink/cat/1.png", {"origin": "ink", "label": "cat"}),
        ("domain/label", "ink/cat/deep/er/1.png", {"origin": "ink", "label": "cat"}),
        ("domain/label", "ink/1.png", {"origin": "ink"}),
        ("domain/label", "1.png", {}),
        ("domain/label", "ink.zip/cat/1.png", {"origin": "ink", "label": "cat"}),
        ("domain/label", "ink.tar.gz/ink/cat/1.png", {"origin": "ink", "label": "cat"}),
        ("split/label", "val/cat/1.png", {"split": "val", "label": "cat"}),
        ("domain/-/label", "ink/anything/cat/1.png", {"origin": "ink", "label": "cat"}),
        ("-/-", "ink/cat/1.png", {}),
        ("label/group", "cat/w1/1.png", {"label": "cat", "group_id": "w1"}),
        ("domain/split/label/group", "ink/dev/cat/w1/1.png",
         {"origin": "ink", "split": "dev", "label": "cat", "group_id": "w1"}),
    ],
)  # fmt: skip
def test_levels_mean_what_the_layout_says(layout: str, path: str, expected: dict[str, str]) -> None:
    rows = rows_from_entries(entries(path), layout)
    assert rows.to_dict("records") == [dict.fromkeys(ROW_COLUMNS, "") | {"path": path} | expected]


def test_problems_of_entries_stay_with_them() -> None:
    rows = rows_from_entries([Entry("ink/cat/1.png", ""), Entry("ink/bad.zip", "is an archive that …")], "domain/label")
    assert rows[["path", "origin", "label", "problem"]].to_numpy().tolist() == [
        ["ink/cat/1.png", "ink", "cat", ""],
        ["ink/bad.zip", "ink", "", "is an archive that …"],
    ]


def test_no_entries_are_no_rows() -> None:
    rows = with_split_words(rows_from_entries([], "domain/label"))
    assert list(rows.columns) == ROW_COLUMNS
    assert len(rows) == 0


@pytest.mark.parametrize(
    "layout", ["domain/class", "label/label", "Domain", "domain\\label", " domain/label", "domain,label"]
)
def test_a_layout_that_is_not_understood_is_told(layout: str) -> None:
    with pytest.raises(
        ValueError, match=r"is not understood; name each folder level once, .*e.g. domain/label"
    ) as caught:
        layout_levels(layout)
    assert repr(layout) in str(caught.value)


@pytest.mark.parametrize(
    ("paths", "layout"),
    [
        (["cat/1.png", "dog/2.png"], "label"),
        (["cat/1.png"], "label"),
        (["1.png", "2.png"], "label"),
        ([], "label"),
        (["train/cat/1.png", "train/dog/2.png", "val/cat/3.png", "test/dog/4.png"], "split/label"),
        (["Training/cat/1.png", "VALID/cat/2.png"], "split/label"),
        (["train/cat/1.png", "loose.png"], "split/label"),
        (["ink/cat/1.png", "ink/dog/2.png", "pen/cat/3.png", "pen/dog/4.png"], "domain/label"),
        (["ink/cat/1.png", "pen/cat/3.png"], "domain/label"),
        (["ink.zip/cat/1.png", "pen.tar.gz/cat/3.png"], "domain/label"),
        (["ink.zip/ink/cat/1.png", "pen.zip/pen/cat/3.png"], "domain/label"),
        (["ink/cat/1.png", "oil/cat/2.png", "oil/dog/2.png", "pen/3.png", "pen/4.png"], "domain/label"),
        (["ink/train/cat/1.png", "ink/test/cat/2.png", "pen/train/cat/3.png"], "domain/split/label"),
        (["train/1.png", "test/2.png"], "split/label"),
        (["cat/a/1.png", "dog/b/2.png"], "label"),
        (["train/cat/1.png", "cat/2.png"], "label"),
    ],
)  # fmt: skip
def test_the_layout_of_usual_folders_is_guessed(paths: list[str], layout: str) -> None:
    assert guessed_layout(entries(*paths)) == layout
    assert guessed_layout(entries(*reversed(paths))) == layout


def test_entries_with_a_problem_tell_nothing_about_the_layout() -> None:
    good = entries("train/cat/1.png", "val/cat/2.png")
    assert (
        guessed_layout([*good, Entry("odd\\xff/cat/1.png", "has a name that is not UTF-8; rename it")]) == "split/label"
    )


def test_what_is_guessed_can_be_read() -> None:
    paths = ["ink/Train/cat/1.png", "ink/test/cat/2.png", "pen/valid/dog/3.png", "pen/4.png"]
    rows = with_split_words(rows_from_entries(entries(*paths), guessed_layout(entries(*paths))))
    assert rows[["origin", "split", "label"]].to_numpy().tolist() == [
        ["ink", "train", "cat"],
        ["ink", "test", "cat"],
        ["pen", "val", "dog"],
        ["pen", "", ""],
    ]


@pytest.mark.parametrize(
    ("word", "split"),
    [
        ("train", "train"), ("Training", "train"), (" TRAIN ", "train"), ("val", "val"), ("valid", "val"), ("dev", "val"),
        ("Validation", "val"), ("test", "test"), ("testing", "test"), ("unlabelled", "unlabelled"),
        ("unlabeled", "unlabelled"), ("", ""), ("  ", ""),
    ],
)  # fmt: skip
def test_the_usual_words_for_splits_are_known(word: str, split: str) -> None:
    rows = pd.DataFrame({"split": [word]})
    assert with_split_words(rows)["split"].tolist() == [split]
    assert rows["split"].tolist() == [word], "the argument is not changed"


def test_unknown_splits_are_told_together() -> None:
    rows = pd.DataFrame({"split": ["train", "trian", "fold 1", "trian", "guard"]})
    with pytest.raises(
        ValueError, match=r"split 'fold 1', 'guard', 'trian' is unknown; allowed are train, val, test, unlab"
    ):
        with_split_words(rows)


def test_audit_columns_that_name_single_images_are_refused_together(tmp_path: Path) -> None:
    ids = [f"id {i}" for i in range(500)]
    given = pd.DataFrame({"path": ids, "label": ids, "who": ids, "half": [text[:-1] for text in ids], "sex": "f"})
    names = ColumnNames("path", "label", None, None, None, ("who", "half", "sex"))
    words = (
        "'who' has 500 different values, which with 500 labels makes 250,000 groups to count, more than 100,000; name"
    )
    with pytest.raises(ValueError, match=words):
        rows_from_table(given, names, tmp_path, open_store(tmp_path))
    few = given.assign(label=["ab"[i % 2] for i in range(500)])
    assert len(rows_from_table(few, names, tmp_path, open_store(tmp_path))) == 500
    unlabelled = ColumnNames("path", None, None, None, None, ("who",))
    assert len(rows_from_table(given, unlabelled, tmp_path, open_store(tmp_path))) == 500


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_name_is_found_in_either_spelling_of_its_letters(root: Path, form: str) -> None:
    """A Mac writes ü as u and two dots."""
    (root / unicodedata.normalize(form, "gr\u00fcn.png")).write_bytes(b"1")
    for written in ("NFC", "NFD"):
        path, problem = placed(root, unicodedata.normalize(written, "gr\u00fcn.png"))
        assert (path, problem) == (unicodedata.normalize(form, "gr\u00fcn.png"), "")
