"""The manifest: one row per image, the same whatever the order; what is wrong with the rows is told at once."""

import hashlib
import itertools
import os
from pathlib import Path
from zipfile import ZipFile

import pandas as pd
import pytest

from tasks.core.files import write_json, write_table
from tasks.core.listing import rows_from_entries
from tasks.core.manifest import (
    COLUMNS,
    checked_paths,
    classes_of,
    content_id_of,
    part,
    read_manifest,
    read_valid_manifest,
    sampled_rows,
    with_domains,
    with_ids,
)
from tasks.core.store import open_store


def sha16(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def rows_of(*rows: tuple[str, str, str, str]) -> pd.DataFrame:
    """path, domain, split, label; no groups, no problems; the domain is its own origin."""
    table = pd.DataFrame(rows, columns=["path", "domain", "split", "label"])
    return table.assign(origin=table["domain"], group_id="", problem="")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for place, content in {"ink/a/1.jpg": "1", "ink/a/2.PNG": "2", "ink/b/deep/3.png": "3", "pen/4.png": "1"}.items():
        (tmp_path / "root" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / place).write_text(content)
    return tmp_path / "root"


def listed(root: Path) -> pd.DataFrame:
    return rows_from_entries(open_store(root).entries(), "domain/label").assign(domain="source")


def test_domains_become_source_and_target_and_others_are_left_out() -> None:
    rows = pd.DataFrame({"path": list("abcd"), "origin": ["ink", "pen", "chalk", "oil"]})
    found = with_domains(rows, ["ink", "oil"], "pen")
    assert found[["path", "domain"]].to_numpy().tolist() == [["a", "source"], ["b", "target"], ["d", "source"]]
    assert found.index.tolist() == [0, 1, 2]


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


def test_an_image_is_one_row() -> None:
    rows = rows_of(*((f"{name}.png", "source", "", "a") for name in "dabcabdeeea"))
    words = r"4 path\(s\) are listed more than once, the first: 'a.png', 'b.png', 'd.png'; .*keep one"
    with pytest.raises(ValueError, match=words) as caught:
        checked_paths(rows)
    assert "\n" not in str(caught.value)
    once = rows.drop_duplicates("path")
    assert checked_paths(once).equals(once)


def test_place_and_bytes_have_ids_of_their_own(root: Path) -> None:
    manifest = with_ids(listed(root), open_store(root)).set_index("path")
    assert manifest["image_id"].to_dict() == {path: sha16(path) for path in manifest.index}
    assert manifest["content_id"].to_dict() == {
        "ink/a/1.jpg": sha16("1"), "ink/a/2.PNG": sha16("2"), "ink/b/deep/3.png": sha16("3"), "pen/4.png": sha16("1"),
    }  # fmt: skip
    assert (manifest["group_id"] == manifest["image_id"]).all(), "a row without a group is its own"
    assert content_id_of(b"1") == sha16("1")


def test_given_groups_are_kept(root: Path) -> None:
    manifest = with_ids(listed(root).assign(group_id=["w1", "", "w1", "w2"]), open_store(root))
    assert manifest["group_id"].tolist() == ["w1", sha16("ink/a/2.PNG"), "w1", "w2"]


def test_ids_are_the_same_in_a_folder_and_in_an_archive_of_it(root: Path) -> None:
    with ZipFile(root.parent / "packed.zip", "w") as archive:
        for entry in open_store(root).entries():
            archive.write(root / entry.path, entry.path)
    packed = root.parent / "packed.zip"
    assert with_ids(listed(packed), open_store(packed)).equals(with_ids(listed(root), open_store(root)))


def test_what_cannot_be_read_has_a_place_but_no_content(root: Path) -> None:
    """Missing, a folder, a loop of links, outside: told later as facts of the image, never a crash here."""
    (root / "loop.png").symlink_to("loop.png")
    paths = ["gone.png", "ink", "loop.png", "../root/pen/4.png", "a\x00b.png", "", "pen/4.png"]
    manifest = with_ids(rows_of(*((path, "source", "", "a") for path in paths)), open_store(root)).set_index("path")
    assert manifest["content_id"].to_dict() == dict.fromkeys(paths, "") | {"pen/4.png": sha16("1")}
    assert manifest["image_id"].is_unique


def test_a_row_with_a_problem_is_never_opened(root: Path) -> None:
    """A pipe would hang whoever opens it; and a readable file stays unread where the row says so."""
    os.mkfifo(root / "pipe.png")
    rows = listed(root)
    assert rows.set_index("path").at["pipe.png", "problem"] == "is a pipe, socket or device"
    rows.loc[rows["path"] == "pen/4.png", "problem"] = "was found odd"
    manifest = with_ids(rows, open_store(root)).set_index("path")
    assert manifest.loc[["pipe.png", "pen/4.png"], "content_id"].tolist() == ["", ""]
    assert manifest.loc[["pipe.png", "pen/4.png"], "problem"].tolist() == [
        "is a pipe, socket or device",
        "was found odd",
    ]
    problems = with_ids(rows.assign(problem="odd"), open_store(root))
    assert set(problems["content_id"]) == {""}


def test_no_rows_are_an_empty_manifest(root: Path) -> None:
    assert list(with_ids(listed(root).head(0), open_store(root)).columns) == COLUMNS


def test_the_manifest_does_not_depend_on_the_order_of_the_rows(root: Path) -> None:
    table = listed(root).assign(audit_slant=list("wxyz"), other="left out")
    first = with_ids(table, open_store(root))
    for order in itertools.permutations(range(4)):
        assert with_ids(table.iloc[list(order)], open_store(root)).equals(first)
    assert list(first.columns) == [*COLUMNS, "audit_slant"]
    assert list(first["path"]) == sorted(first["path"])
    assert first["audit_slant"].tolist() == list("wxyz")


def test_a_manifest_is_read_as_it_was_written(root: Path, tmp_path: Path) -> None:
    manifest = with_ids(listed(root).assign(audit_slant=["NA", "007", 'a,"b"\nc', ""], label="null"), open_store(root))
    write_table(tmp_path / "manifest.csv", manifest)
    assert read_manifest(tmp_path / "manifest.csv").to_dict("list") == manifest.to_dict("list")


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


def test_every_source_gives_its_own_share_of_a_draw() -> None:
    """Two sources of 20 and 4 images of a class, at most 5 of each: 5 and 4, not 5 of both together."""
    rows = rows_of(*((f"{i:02d}.png", "source", "", "a") for i in range(24)))
    rows["origin"] = ["ink"] * 20 + ["oil"] * 4
    found = sampled_rows(rows, {"source": 5, "target": 5}, 0)
    assert found["origin"].value_counts().to_dict() == {"ink": 5, "oil": 4}


def test_images_without_label_are_drawn_like_a_class() -> None:
    rows = rows_of(*((f"{i:02d}.png", "target", "", "a" if i % 2 else "") for i in range(24)))
    assert sampled_rows(rows, {"source": None, "target": 3}, 0)["label"].value_counts().to_dict() == {"a": 3, "": 3}


def test_a_draw_keeps_what_was_drawn_when_a_class_is_added() -> None:
    rows = rows_of(*((f"s{i}.png", "source", "", "ab"[i % 2]) for i in range(40)))
    more = pd.concat([rows_of(("new.png", "source", "", "c")), rows])
    limits = {"source": 3, "target": 3}
    drawn = sampled_rows(rows, limits, 0)["path"]
    assert set(sampled_rows(more.reset_index(drop=True), limits, 0)["path"]) == {*drawn, "new.png"}


def test_without_limits_everything_is_drawn() -> None:
    rows = rows_of(("1", "source", "", "a"), ("2", "target", "", ""))
    assert sampled_rows(rows, {"source": None, "target": None}, 0).equals(rows)
    assert len(sampled_rows(rows.head(0), {"source": 1, "target": 1}, 0)) == 0


def test_reading_blocked_data_is_refused_with_the_reasons(tmp_path: Path) -> None:
    write_table(tmp_path / "m.csv", rows_of(("1.png", "source", "train", "a")))
    write_json(tmp_path / "gate.json", {"blocked_by": ["class a is empty", "no test"]})
    words = r"the data is blocked: class a is empty; no test; see data/validation.html, mend the data and run again"
    with pytest.raises(ValueError, match=words) as caught:
        read_valid_manifest(tmp_path / "m.csv", tmp_path / "gate.json")
    assert "\n" not in str(caught.value)


def test_accepted_data_is_read(tmp_path: Path) -> None:
    write_table(tmp_path / "m.csv", rows_of(("1.png", "source", "train", "a")))
    write_json(tmp_path / "gate.json", {"blocked_by": []})
    assert len(read_valid_manifest(tmp_path / "m.csv", tmp_path / "gate.json")) == 1


def test_without_a_gate_nothing_is_read(tmp_path: Path) -> None:
    write_table(tmp_path / "m.csv", rows_of(("1.png", "source", "train", "a")))
    with pytest.raises(FileNotFoundError, match=r"gate.json is missing: it is made by the stage validate_data"):
        read_valid_manifest(tmp_path / "m.csv", tmp_path / "gate.json")


def test_classes_and_parts() -> None:
    rows = rows_of(
        ("1", "source", "train", "b"),
        ("2", "source", "val", "a"),
        ("3", "target", "train", "z"),
        ("4", "target", "test", ""),
        ("5", "source", "train", ""),
    )
    assert classes_of(rows) == ["a", "b"]
    assert list(part(rows, "target", "train", "test")["path"]) == ["3", "4"]
    assert list(part(rows, "source", "train").index) == [0, 1]
