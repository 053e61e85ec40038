"""zoo.json: every problem at once, before anything is loaded."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.core.zoo_file import read_zoo

ENTRY: dict[str, Any] = {
    "name": "small", "arch": "acclimate.small_resnet", "file": "small.safetensors", "sha256": "0" * 64, "num_classes": 3,
    "feature_dim": 128, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "input_size": [3, 32, 48],
    "interpolation": "bilinear", "source_domain": "digits", "license": "Apache-2.0", "note": "not asked for",
}  # fmt: skip


def zoo(folder: Path, *entries: object) -> Path:
    (folder / "zoo.json").write_text(json.dumps({"models": entries}))
    return folder


def test_a_candidate_is_what_its_entry_says(tmp_path: Path) -> None:
    (found,) = read_zoo(zoo(tmp_path, ENTRY), None)
    assert (found.name, found.architecture, found.n_source_classes) == ("small", "acclimate.small_resnet", 3)
    assert found.weights_path == tmp_path / "small.safetensors"
    assert (found.mean, found.native_px, found.licence) == ((0.5, 0.5, 0.5), 48, "Apache-2.0")


def test_the_wanted_ones_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    zoo(tmp_path, *(ENTRY | {"name": name} for name in "cab"))
    assert [c.name for c in read_zoo(tmp_path, None)] == ["c", "a", "b"]
    assert [c.name for c in read_zoo(tmp_path, ["b", "c"])] == ["c", "b"]


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    first = {key: value for key, value in ENTRY.items() if key != "sha256"}
    other = ENTRY | {"interpolation": "bicubic"}
    zoo(tmp_path, first, other, ENTRY | {"name": "a/b", "mean": 0.5})
    with pytest.raises(ValueError, match=r"zoo.json: ") as caught:
        read_zoo(tmp_path, ["large"])
    for words in [
        "model 'small': sha256 is 'missing', wanted is 64 hexadecimal digits",
        "model 'small': interpolation is 'bicubic', wanted is bilinear, the only one supported",
        "model 'a/b': mean is 0.5, wanted is a list",
        "model 'a/b': name is 'a/b', wanted is a file name",
        "zoo.candidates names 'large', which is not there",
        "the name 'small' stands there twice",
    ]:
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean": [0.5]}, "three numbers"),
        ({"std": ["a", "b", "c"]}, "std"),
        ({"std": [0.0, 0.2, 0.2]}, "std"),
        ({"input_size": ["3", "x", "y"]}, "input_size"),
        ({"input_size": [3, 32, 0]}, "input_size"),
        ({"num_classes": True}, "num_classes"),
        ({"num_classes": 0}, "num_classes"),
        ({"sha256": "abc"}, "sha256"),
        ({"name": ""}, "name"),
        ({"name": ".."}, "name"),
        ({"name": None}, "name"),
        ({"name": ["a"]}, "name"),
    ],
)
def test_values_that_cannot_be_are_told(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=r"zoo.json: ") as caught:
        read_zoo(zoo(tmp_path, ENTRY | change, ENTRY | {"name": "other"}), None)
    assert words in str(caught.value)


def test_entries_without_a_name_are_told_too(tmp_path: Path) -> None:
    bare = {key: value for key, value in ENTRY.items() if key != "name"}
    with pytest.raises(ValueError, match="model 0: name is 'missing'"):
        read_zoo(zoo(tmp_path, bare, bare, ENTRY, ENTRY), None)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"models": 3}', '{"models": {"a": 1}}', '{"models": ["a"]}', '{"models": null}']
)
def test_what_is_no_zoo_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "zoo.json").write_text(content)
    with pytest.raises(ValueError, match=r"zoo.json"):
        read_zoo(tmp_path, None)


def test_an_empty_zoo_and_a_missing_one_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"zoo.json is missing: zoo.folder must hold zoo.json"):
        read_zoo(tmp_path, None)
    with pytest.raises(ValueError, match="it names no model"):
        read_zoo(zoo(tmp_path), None)
