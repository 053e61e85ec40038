"""Files are whole or absent, and JSON is strict."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.core.files import (
    file_sha256,
    read_json,
    read_table,
    text_sha256,
    whole_file,
    whole_folder,
    write_json,
    write_table,
    write_text,
)


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_an_interrupted_file_leaves_the_old_content_and_no_litter(tmp_path: Path, stop: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def work() -> None:
        with whole_file(path) as part:
            part.write_text("half")
            raise stop

    with pytest.raises(stop):
        work()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_whole_file_appears_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "below" / "a.txt"
    with whole_file(path) as part:
        part.write_text("new")
        assert not path.exists()
        assert part.parent == path.parent, "a rename is atomic within one folder only"
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_an_interrupted_folder_leaves_the_old_content_and_no_litter(tmp_path: Path, stop: type[BaseException]) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "a").write_text("old")

    def work() -> None:
        with whole_folder(path) as part:
            (part / "a").write_text("new")
            raise stop

    with pytest.raises(stop):
        work()
    assert (path / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_whole_folder_replaces_all_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "gone").write_text("old")
    with whole_folder(path) as part:
        write_text(part / "a", "new")
        assert (path / "gone").exists()
    assert [p.name for p in path.iterdir()] == ["a"]
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_not_a_number_becomes_null(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    values = {
        "nan": float("nan"), "inf": [1.5, float("-inf")], "numpy": np.float32("nan"), 7: (np.int64(3), np.bool_(True)),
        "text": "NaN", "ü": None, "deep": {"x": [{"y": np.float64("inf")}]},
    }  # fmt: skip
    write_json(path, values)
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {
        "nan": None, "inf": [1.5, None], "numpy": None, "7": [3, True], "text": "NaN", "ü": None, "deep": {"x": [{"y": None}]},
    }  # fmt: skip


def test_what_json_cannot_hold_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path, made_by="x") == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_table_comes_back_as_text_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = pd.DataFrame({"a": ["NA", "", "001", "1e3"], "b": ["x,y", 'say "so"', "two\nlines", "ü "]})
    write_table(path, rows)
    assert read_table(path, made_by="x").equals(rows)
    assert b"\r" not in path.read_bytes()


def test_a_table_without_rows_keeps_its_columns(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", pd.DataFrame(columns=["a", "b"]))
    assert list(read_table(tmp_path / "a.csv", made_by="x").columns) == ["a", "b"]


@pytest.mark.parametrize("read", [read_json, read_table])
def test_a_missing_file_names_the_stage_that_makes_it(tmp_path: Path, read: object) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"facts.csv is missing.*stage measure_images.*dvc repro measure_images"
    ):
        read(tmp_path / "facts.csv", made_by="measure_images")  # type: ignore[operator]


def test_hashes_are_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, example B.1
    assert file_sha256(tmp_path / "a") == text_sha256("abc") == known


@pytest.mark.parametrize("text", ["a\rb", "a\r\nb", "a\nb", 'a"b,c', " a ", "\r"])
def test_any_text_survives_a_table(tmp_path: Path, text: str) -> None:
    write_table(tmp_path / "t.csv", pd.DataFrame({"label": [text, "c"], "n": [1, 2]}))
    assert list(read_table(tmp_path / "t.csv", made_by="x")["label"]) == [text, "c"]
