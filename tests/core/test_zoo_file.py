"""zoo.json: every problem at once, before anything is loaded."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tasks.core.bundle import write_bundle
from tasks.core.files import file_sha256, write_json
from tasks.core.model import SmallResNet, save_weights, split_head
from tasks.core.zoo_file import Pretraining, allowed, read_zoo

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
    other = ENTRY | {"interpolation": "nearest"}
    zoo(tmp_path, first, other, ENTRY | {"name": "a/b", "mean": 0.5})
    with pytest.raises(ValueError, match=r"zoo.json: ") as caught:
        read_zoo(tmp_path, ["large"])
    for words in [
        "model 'small': sha256 is 'missing', wanted is 64 hexadecimal digits",
        "model 'small': interpolation is 'nearest', wanted is bilinear or bicubic",
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
        ({"name": "a\0b"}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"file": "../other.safetensors"}, "below the zoo's folder"),
        ({"file": "/dev/zero"}, "below the zoo's folder"),
        ({"file": "a/../../b"}, "below the zoo's folder"),
        ({"file": "..\\b"}, "below the zoo's folder"),
        ({"file": "a\0"}, "below the zoo's folder"),
        ({"state_dict": "../net.pth"}, "below the zoo's folder"),
        ({"bundle": "/somewhere"}, "below the workspace"),
        ({"url": "file:///dev/zero"}, "http"),
        ({"url": "http://x/\ny"}, "http"),
        ({"num_classes": 10**12}, "num_classes"),
        ({"feature_dim": 10**12}, "feature_dim"),
        ({"input_size": [3, 10**6, 10**6]}, "input_size"),
        ({"mean": [float("nan"), 0.5, 0.5]}, "mean"),
        ({"std": [float("inf"), 0.5, 0.5]}, "std"),
        ({"crop_pct": 0}, "crop_pct"),
        ({"crop_pct": 1.01}, "crop_pct"),
        ({"seed": -1}, "seed"),
        ({"seed": True}, "seed"),
        ({"published_accuracy": 72.1}, "published_accuracy is 72.1, wanted is a number above 0, at most 1"),
        ({"n_multiply_adds": 0.3}, "n_multiply_adds"),
        ({"pretraining": {"gaps": "none"}}, "data, n_images, known_gaps, url"),
        ({"pretraining": "photos"}, "data, n_images, known_gaps, url"),
        ({"like": ["x"]}, "like"),
        ({"like": "nobody"}, "like is 'nobody', which is no model with weights of this file"),
        ({"licence": "MIT"}, "the key 'licence' is unknown; did you mean 'license'?"),
        ({"interpolaton": "bicubic"}, "did you mean 'interpolation'?"),
        ({"zzz": 1}, "the key 'zzz' is unknown; allowed are name, arch"),
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
    "content",
    [
        "[" * 100_000,
        "[1e5",
        '{"models": [' + "9" * 5000 + "]}",
        "\ud800",
        "",
        "[]",
        "{}",
        '{"models": 3}',
        '{"models": {"a": 1}}',
        '{"models": ["a"]}',
        '{"models": null}',
    ],
)
def test_what_is_no_zoo_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "zoo.json").write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(ValueError, match=r"zoo.json is not JSON of the form|it names no model"):
        read_zoo(tmp_path, None)


def test_an_empty_zoo_and_a_missing_one_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"zoo.json is missing: zoo.folder must hold zoo.json"):
        read_zoo(tmp_path, None)
    with pytest.raises(ValueError, match="it names no model"):
        read_zoo(zoo(tmp_path), None)


def test_what_is_told_beyond_the_needed_is_read_and_absent_is_not_known(tmp_path: Path) -> None:
    told: dict[str, Any] = {
        "interpolation": "bicubic", "crop_pct": 0.875, "published_accuracy": 0.72, "n_parameters": 3, "n_multiply_adds": 4,
        "pretraining": {"data": "photos", "n_images": 7, "known_gaps": "no night"}, "dtype": "float16", "labels": None,
        "origin": "x",
    }  # fmt: skip
    full, bare = read_zoo(zoo(tmp_path, ENTRY | told, ENTRY | {"name": "bare"}), None)
    assert (full.interpolation, full.crop_share, full.published_accuracy) == ("bicubic", 0.875, 0.72)
    assert (full.n_parameters, full.n_multiply_adds) == (3, 4)
    assert full.pretraining == Pretraining("photos", 7, "no night", None)
    assert (bare.interpolation, bare.crop_share, bare.published_accuracy, bare.pretraining) == (
        "bilinear",
        1,
        None,
        None,
    )


def test_scratch_is_a_candidate_like_another_one_without_a_file(tmp_path: Path) -> None:
    scratch = {"name": "scratch", "like": "small", "seed": 3}
    small, found, other = read_zoo(zoo(tmp_path, ENTRY, scratch, scratch | {"name": "again", "seed": 4}), None)
    assert (found.is_scratch, found.weights_path, found.n_source_classes) == (True, None, 0)
    assert (found.architecture, found.mean, found.native_px) == (small.architecture, small.mean, small.native_px)
    assert (found.feature_dim, found.licence, found.source_domain) == (128, "none needed", "none: random weights")
    assert len({small.sha256, found.sha256, other.sha256}) == 3
    assert not small.is_scratch


def test_scratch_may_have_an_architecture_of_its_own_and_needs_a_seed(tmp_path: Path) -> None:
    own = {key: ENTRY[key] for key in ("arch", "feature_dim", "mean", "std", "input_size", "interpolation")}
    (found,) = read_zoo(zoo(tmp_path, {"name": "scratch", "seed": 0, **own}), None)
    assert (found.architecture, found.seed) == ("acclimate.small_resnet", 0)
    with pytest.raises(ValueError, match="model 'scratch': seed is 'missing', wanted is a whole number"):
        read_zoo(zoo(tmp_path, {"name": "scratch", **own}), None)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_weights(split_head(SmallResNet(3), 3), tmp_path / "w.safetensors")
    description = {"architecture": "acclimate.small_resnet", "classes": ["a", "b", "c"], "image_px": 48}
    write_json(tmp_path / "m.json", description | {"mean": [0.4] * 3, "std": [0.3] * 3})
    files = {"model.safetensors": tmp_path / "w.safetensors", "model.json": tmp_path / "m.json"}
    write_bundle(Path("given/start"), files, {"name": "x"})
    return Path("given/start")


START = {"name": "champion", "bundle": "given/start", "source_domain": "our last run", "license": "own"}


def test_a_registered_bundle_says_itself_what_it_is(tmp_path: Path, bundle: Path) -> None:
    (found,) = read_zoo(zoo(tmp_path, START), None)
    assert (found.architecture, found.n_source_classes, found.feature_dim) == ("acclimate.small_resnet", 3, 128)
    assert (found.mean, found.std, found.native_px) == ((0.4,) * 3, (0.3,) * 3, 48)
    assert (found.interpolation, found.bundle) == ("bilinear", bundle)
    assert found.sha256 == file_sha256(bundle / "model.safetensors")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("manifest.json", "[]", "not a registered bundle"),
        ("model.json", "{}", "not a registered bundle"),
        (
            "model.json",
            '{"architecture": "a", "classes": [1], "image_px": 1e9, "mean": 1, "std": 1}',
            "mean 1; std 1; input_",
        ),
        ("model.safetensors", "<html>", "not a registered bundle"),
        ("model.json", None, "has no model.json"),
    ],
)
def test_a_folder_that_is_no_bundle_is_told(tmp_path: Path, bundle: Path, name: str, content: str, words: str) -> None:
    (bundle / name).unlink()
    if content is not None:
        (bundle / name).write_text(content)
    with pytest.raises(ValueError, match=r"model 'champion': .*given/start") as caught:
        read_zoo(zoo(tmp_path, START), None)
    assert words in str(caught.value)


def test_an_entry_that_waits_to_be_pulled_disturbs_only_those_who_want_it(tmp_path: Path) -> None:
    waiting = {"name": "far", "arch": "torchvision.resnet18", "weights": "ResNet18_Weights.IMAGENET1K_V1"}
    zoo(tmp_path, ENTRY, waiting)
    assert [c.name for c in read_zoo(tmp_path, ["small"])] == ["small"]
    with pytest.raises(ValueError, match=r"model 'far': its weights were not pulled .*; run `acclimate zoo pull far`"):
        read_zoo(tmp_path, None)


def test_a_key_that_stands_twice_and_a_huge_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "zoo.json").write_text('{"models": [{"name": "a", "name": "b"}]}')
    with pytest.raises(ValueError, match="the key 'name' stands twice in one object"):
        read_zoo(tmp_path, None)
    (tmp_path / "zoo.json").write_bytes(b" " * 10_000_001)
    with pytest.raises(ValueError, match="10000001 bytes, at most 10000000 are read"):
        read_zoo(tmp_path, None)


def test_a_long_value_is_told_in_short(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="file is ") as caught:
        read_zoo(zoo(tmp_path, ENTRY | {"file": "../" + "x" * 100_000}), None)
    assert len(str(caught.value)) < 500


def test_candidates_are_left_out_by_licence_with_the_reason(tmp_path: Path) -> None:
    scratch = {"name": "scratch", "like": "small", "seed": 3}
    candidates = read_zoo(zoo(tmp_path, ENTRY, ENTRY | {"name": "free", "license": " mit"}, scratch), None)
    kept, left_out = allowed(candidates, ["MIT", "BSD"])
    assert [c.name for c in kept] == ["free", "scratch"]
    assert left_out == {"small": "its licence is 'Apache-2.0', allowed are: MIT, BSD"}
    assert allowed(candidates, None) == (candidates, {})


def test_licences_that_leave_no_pretrained_candidate_are_refused(tmp_path: Path) -> None:
    candidates = read_zoo(zoo(tmp_path, ENTRY, {"name": "scratch", "like": "small", "seed": 3}), None)
    refusal = (
        "zoo.licences leaves no pretrained candidate (small: its licence is 'Apache-2.0', allowed are: MIT, BSD); add"
    )
    with pytest.raises(ValueError, match=re.escape(refusal)):
        allowed(candidates, ["MIT", "BSD"])
    assert [c.name for c in allowed(candidates[1:], ["MIT"])[0]] == ["scratch"]  # told by select_model
