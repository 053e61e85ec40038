"""The manifest: one row per image, the same whatever the order; what is wrong in the table is told at once."""

from pathlib import Path

import pandas as pd
import pytest

from tasks.core.files import text_sha256, write_table
from tasks.core.manifest import (
    COLUMNS,
    ColumnNames,
    checked_rows,
    classes_of,
    part,
    read_valid_manifest,
    rows_from_folders,
    rows_from_table,
    sampled_rows,
    with_domains,
    with_ids,
)

NAMES = ColumnNames(path="file", label="class", domain="place", split="fold", group="writer", audit=("slant",))


def rows_of(*rows: tuple[str, str, str, str]) -> pd.DataFrame:
    """path, domain, split, label; no groups."""
    table = pd.DataFrame(rows, columns=["path", "domain", "split", "label"])
    return table.assign(origin=table["domain"], group_id="")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for place, content in {"ink/a/1.jpg": "1", "ink/a/2.PNG": "2", "ink/b/deep/3.png": "3", "pen/4.png": "1"}.items():
        (tmp_path / "root" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / place).write_text(content)
    return tmp_path / "root"


def test_a_table_becomes_rows_under_our_names(tmp_path: Path) -> None:
    path = tmp_path / "images.csv"
    path.write_text("class,file,slant,fold,writer,place,extra\nNA,x/1.png,007,,w1,ink,?\n")
    assert rows_from_table(path, NAMES).to_dict("records") == [
        {"path": "x/1.png", "label": "NA", "origin": "ink", "split": "", "group_id": "w1", "audit_slant": "007"}
    ]


def test_columns_that_are_not_there_are_empty(tmp_path: Path) -> None:
    (tmp_path / "images.csv").write_text("file\n1.png\n")
    names = ColumnNames(path="file", label=None, domain=None, split=None, group=None, audit=())
    assert rows_from_table(tmp_path / "images.csv", names).to_dict("records") == [
        {"path": "1.png", "label": "", "origin": "", "split": "", "group_id": ""}
    ]


def test_all_missing_columns_are_told_with_those_that_exist(tmp_path: Path) -> None:
    (tmp_path / "images.csv").write_text("file,class,place\n1.png,a,ink\n")
    with pytest.raises(ValueError, match="has no column 'fold', 'writer', 'slant'; it has file, class, place; mend"):
        rows_from_table(tmp_path / "images.csv", NAMES)


def test_a_missing_table_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"build_manifest.table .*none.csv"):
        rows_from_table(tmp_path / "none.csv", NAMES)


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b'file,class\n"1.png,a\n', b"file,class\n\xff\xfe,a\n", b"a\n1,2\n3,4,5\n"]
)
def test_a_broken_table_is_told_by_its_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "images.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"images.csv"):
        rows_from_table(tmp_path / "images.csv", NAMES)


def test_a_byte_order_mark_is_no_part_of_a_column_name(tmp_path: Path) -> None:
    (tmp_path / "images.csv").write_bytes(b"\xef\xbb\xbffile\n1.png\n")
    names = ColumnNames(path="file", label=None, domain=None, split=None, group=None, audit=())
    assert list(rows_from_table(tmp_path / "images.csv", names)["path"]) == ["1.png"]


def test_folders_give_domain_and_class(root: Path) -> None:
    (root / "ink/a/notes.txt").touch()
    (root / "stray.png").touch()
    assert rows_from_folders(root, ())[["path", "origin", "label"]].to_numpy().tolist() == [
        ["ink/a/1.jpg", "ink", "a"],
        ["ink/a/2.PNG", "ink", "a"],
        ["ink/b/deep/3.png", "ink", "b"],
        ["pen/4.png", "pen", ""],
    ]


@pytest.mark.parametrize(
    "suffix", ["jpg", "JPEG", "jfif", "png", "bmp", "tif", "tiff", "webp", "gif", "ppm", "pgm", "pbm"]
)
def test_no_kind_of_image_that_validation_knows_is_passed_over_in_silence(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "ink/a").mkdir(parents=True)
    (tmp_path / f"ink/a/1.{suffix}").touch()
    assert len(rows_from_folders(tmp_path, ())) == 1


def test_audit_columns_need_a_table(root: Path) -> None:
    with pytest.raises(ValueError, match=r"build_manifest.audit_columns \['slant'\] need a table"):
        rows_from_folders(root, ("slant",))


def test_domains_become_source_and_target_and_others_are_left_out() -> None:
    rows = pd.DataFrame({"path": list("abcd"), "origin": ["ink", "pen", "chalk", "oil"]})
    found = with_domains(rows, ["ink", "oil"], "pen")
    assert found[["path", "domain"]].to_numpy().tolist() == [["a", "source"], ["b", "target"], ["d", "source"]]


def test_an_unknown_domain_is_told_with_those_that_exist() -> None:
    rows = pd.DataFrame({"path": ["a", "b"], "origin": ["ink", "pen"]})
    with pytest.raises(ValueError, match="no image of domain 'oil', 'Pen' was found; there are 'ink', 'pen'; mend"):
        with_domains(rows, ["ink", "oil"], "Pen")
    with pytest.raises(ValueError, match="there are no images at all"):
        with_domains(rows.head(0), ["ink"], "pen")


def test_one_domain_cannot_be_both() -> None:
    rows = pd.DataFrame({"path": ["a"], "origin": ["ink"]})
    with pytest.raises(ValueError, match="'ink' also stands in source_domains"):
        with_domains(rows, ["ink"], "ink")


def test_all_problems_of_the_rows_are_told_at_once(root: Path) -> None:
    (root.parent / "outside.png").touch()
    rows = rows_of(
        ("ink/a/1.jpg", "source", "", "a"), ("ink/a/1.jpg", "source", "", "a"), ("../outside.png", "source", "", "a"),
        ("ink/a/gone.jpg", "source", "", "a"), ("ink/a/2.PNG", "source", "trian", "a"), ("pen/4.png", "target", "test", ""),
        ("ink/b/deep/3.png", "source", "", ""), (str(root.parent / "outside.png"), "source", "", "a"),
    )  # fmt: skip
    with pytest.raises(ValueError, match="images under") as caught:
        checked_rows(rows, root)
    for words in [
        "2 paths are not plain relative paths below the root, the first: '../outside.png'",
        "1 image files are missing, the first: 'ink/a/gone.jpg'",
        "1 paths stand in the table twice, the first: 'ink/a/1.jpg'",
        "1 source images carry no label, the first: 'ink/b/deep/3.png'",
        "1 target images of split val or test carry no label, the first: 'pen/4.png'",
        "split 'trian' is unknown; allowed are train, val, test, unlabelled, empty",
    ]:
        assert words in str(caught.value)


@pytest.mark.parametrize("path", ["", "ink", "ink/a"])
def test_a_folder_is_no_image(root: Path, path: str) -> None:
    with pytest.raises(ValueError, match=r"1 (image files are missing|paths are not plain)"):
        checked_rows(rows_of((path, "source", "", "a")), root)


@pytest.mark.parametrize("path", ["./ink/a/1.jpg", "ink//a/1.jpg", "ink/../ink/a/1.jpg"])
def test_one_file_under_two_spellings_is_refused(root: Path, path: str) -> None:
    with pytest.raises(ValueError, match=r"not plain relative paths .*1.jpg"):
        checked_rows(rows_of(("ink/a/1.jpg", "source", "", "a"), (path, "source", "", "a")), root)


def test_an_absolute_path_is_refused_even_inside_the_root(root: Path) -> None:
    """Its image_id would hold the machine's folders."""
    with pytest.raises(ValueError, match=r"1.jpg"):
        checked_rows(rows_of((str(root / "ink/a/1.jpg"), "source", "", "a")), root)


def test_images_may_be_links_into_a_cache(root: Path) -> None:
    """DVC with cache.type symlink checks data out like this."""
    cached = root.parent / "cache" / "ab12"
    cached.parent.mkdir()
    (root / "ink/a/1.jpg").rename(cached)
    (root / "ink/a/1.jpg").symlink_to(cached)
    assert len(checked_rows(rows_of(("ink/a/1.jpg", "source", "", "a")), root)) == 1


def test_place_and_bytes_have_ids_of_their_own(root: Path) -> None:
    manifest = with_ids(rows_from_folders(root, ()).assign(domain="source"), root).set_index("path")
    assert manifest["image_id"].is_unique
    assert manifest.loc["ink/a/1.jpg", "image_id"] == text_sha256("ink/a/1.jpg")[:16]
    assert manifest.loc["ink/a/1.jpg", "content_id"] == manifest.loc["pen/4.png", "content_id"] == text_sha256("1")[:16]
    assert manifest["content_id"].nunique() == 3
    assert (manifest["group_id"] == manifest["image_id"]).all(), "a row without a group is its own"


def test_the_manifest_does_not_depend_on_the_order_of_the_table(root: Path) -> None:
    table = rows_from_folders(root, ()).assign(domain="source", audit_slant="x")
    first, other = with_ids(table, root), with_ids(table.iloc[::-1], root)
    assert first.equals(other)
    assert list(first.columns) == [*COLUMNS, "audit_slant"]
    assert list(first["path"]) == sorted(first["path"])


def test_a_draw_per_class_does_not_depend_on_the_order_of_the_table() -> None:
    rows = rows_of(
        *((f"s{i}.png", "source", "", "ab"[i % 2]) for i in range(40)),
        *((f"t{i}.png", "target", "", "ab"[i % 2]) for i in range(20)),
    )
    limits = {"source": 5, "target": None}
    first = sampled_rows(rows, limits, 0)
    shuffled = sampled_rows(rows.sample(frac=1, random_state=1), limits, 0)
    assert first.groupby(["domain", "label"]).size().to_dict() == {
        ("source", "a"): 5, ("source", "b"): 5, ("target", "a"): 10, ("target", "b"): 10,
    }  # fmt: skip
    assert set(first["path"]) == set(shuffled["path"])
    assert set(first["path"]) != set(sampled_rows(rows, limits, 1)["path"])


def test_a_draw_keeps_what_was_drawn_when_a_class_is_added() -> None:
    rows = rows_of(*((f"s{i}.png", "source", "", "ab"[i % 2]) for i in range(40)))
    more = pd.concat([rows_of(("new.png", "source", "", "c")), rows])
    limits = {"source": 3, "target": 3}
    assert set(sampled_rows(more, limits, 0)["path"]) == {*sampled_rows(rows, limits, 0)["path"], "new.png"}


def test_reading_blocked_data_is_refused_with_the_reasons(tmp_path: Path) -> None:
    write_table(tmp_path / "m.csv", rows_of(("1.png", "source", "train", "a")))
    (tmp_path / "v.json").write_text('{"status": "blocked", "blocked_by": ["class a is empty", "no test"]}')
    with pytest.raises(
        ValueError, match=r"the data is blocked: class a is empty; no test; see .*v.json, mend"
    ) as caught:
        read_valid_manifest(tmp_path / "m.csv", tmp_path / "v.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("status", ["pass", "warn"])
def test_accepted_data_is_read(tmp_path: Path, status: str) -> None:
    write_table(tmp_path / "m.csv", rows_of(("1.png", "source", "train", "a")))
    (tmp_path / "v.json").write_text(f'{{"status": "{status}", "blocked_by": []}}')
    assert len(read_valid_manifest(tmp_path / "m.csv", tmp_path / "v.json")) == 1


def test_classes_and_parts() -> None:
    rows = rows_of(
        ("1", "source", "train", "b"),
        ("2", "source", "val", "a"),
        ("3", "target", "train", "z"),
        ("4", "target", "test", ""),
    )
    assert classes_of(rows) == ["a", "b"]
    assert list(part(rows, "target", "train", "test")["path"]) == ["3", "4"]
    assert list(part(rows, "source", "train").index) == [0]
