"""Entries are made, fetched, converted and pinned; what does not fit leaves nothing behind."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tasks.core.files import file_sha256
from tasks.core.model import SmallResNet
from tasks.core.zoo import load_candidate
from tasks.core.zoo_file import read_zoo
from tasks.core.zoo_pull import add_entry, overview, pull

WORDS: dict[str, Any] = {
    "arch": "acclimate.small_resnet", "num_classes": 3, "mean": [0.5] * 3, "std": [0.2] * 3, "input_size": [3, 32, 32],
    "interpolation": "bilinear", "source_domain": "digits", "license": "MIT",
}  # fmt: skip


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """A state dict and an entry that names it."""
    torch.manual_seed(0)
    torch.save({"state_dict": SmallResNet(3).state_dict()}, tmp_path / "net.pth")
    return with_entries(tmp_path, {"name": "small", "state_dict": "net.pth", **WORDS})


def with_entries(folder: Path, *entries: dict[str, Any]) -> Path:
    (folder / "zoo.json").write_text(json.dumps({"models": entries}))
    return folder


def entry_of(folder: Path, name: str) -> dict[str, Any]:
    entries = json.loads((folder / "zoo.json").read_text())["models"]
    return next(entry for entry in entries if entry["name"] == name)


def test_a_state_dict_is_converted_pinned_and_then_loaded(zoo: Path) -> None:
    (told,) = pull(zoo, ["small"])
    assert told.startswith("small: ")
    pinned = entry_of(zoo, "small")
    assert pinned["file"] == "small.safetensors"
    assert pinned["sha256"] == file_sha256(zoo / "small.safetensors")
    assert pinned["feature_dim"] == 128
    assert pinned["n_parameters"] == sum(p.numel() for p in SmallResNet(3).parameters())
    (candidate,) = read_zoo(zoo, None)
    stem = load_candidate(candidate, 2, 0).model.backbone.stem[0].weight
    torch.manual_seed(0)
    assert torch.equal(stem, SmallResNet(3).stem[0].weight)


def test_the_same_pull_gives_the_same_bytes_and_a_second_one_does_nothing(zoo: Path) -> None:
    list(pull(zoo, ["all"]))
    before = [(zoo / name).read_bytes() for name in ("zoo.json", "small.safetensors")]
    assert "is there and is the one that was reviewed" in next(iter(pull(zoo, ["all"])))
    (zoo / "small.safetensors").unlink()
    list(pull(zoo, ["small"]))
    assert [(zoo / name).read_bytes() for name in ("zoo.json", "small.safetensors")] == before


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (
            SmallResNet(4).state_dict(),
            r"model 'small': the weights do not fit the architecture \(2 of another shape: fc.w",
        ),
        (nn.Linear(2, 2).state_dict(), "missing: stem.0.weight"),
        ({name: t * float("nan") for name, t in SmallResNet(3).state_dict().items()}, "hold NaN or infinity"),
    ],
)
def test_weights_that_do_not_fit_leave_nothing_behind(zoo: Path, state: dict[str, torch.Tensor], words: str) -> None:
    torch.save(state, zoo / "net.pth")
    before = (zoo / "zoo.json").read_bytes()
    with pytest.raises(ValueError, match=words):
        list(pull(zoo, ["small"]))
    assert (zoo / "zoo.json").read_bytes() == before
    assert sorted(path.name for path in zoo.iterdir()) == ["net.pth", "zoo.json"]


def test_other_weights_than_the_pinned_ones_are_refused(zoo: Path) -> None:
    list(pull(zoo, ["small"]))
    (zoo / "small.safetensors").unlink()
    torch.save(SmallResNet(3).state_dict(), zoo / "net.pth")
    with pytest.raises(ValueError, match=r"model 'small': .* zoo.json says .*; it is not the one that was reviewed"):
        list(pull(zoo, ["small"]))
    assert not (zoo / "small.safetensors").exists()


def test_a_changed_file_is_refused(zoo: Path) -> None:
    list(pull(zoo, ["small"]))
    (zoo / "small.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="it is not the one that was reviewed: remove the file and pull again"):
        list(pull(zoo, ["small"]))


def test_a_file_that_nobody_knows_the_origin_of_is_told_with_its_sha256(tmp_path: Path) -> None:
    entry = {"name": "small", "file": "s.safetensors", "sha256": "0" * 64, "feature_dim": 128, **WORDS}
    with pytest.raises(ValueError, match=rf"s.safetensors is missing .* put it there \(sha256 {'0' * 64}\)"):
        list(pull(with_entries(tmp_path, entry), ["all"]))


def test_unknown_names_and_absent_state_dicts_are_told(zoo: Path) -> None:
    with pytest.raises(ValueError, match="'large' is not there; it has small"):
        list(pull(zoo, ["large"]))
    (zoo / "net.pth").unlink()
    with pytest.raises(ValueError, match=r"model 'small': the state dict .*net.pth is missing"):
        list(pull(zoo, ["small"]))


def test_an_added_entry_holds_what_the_library_says_and_is_pulled_with_its_own_preprocessing(tmp_path: Path) -> None:
    from torchvision.models import shufflenet_v2_x0_5

    weights = "ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1"
    name = add_entry(tmp_path, "torchvision.shufflenet_v2_x0_5", weights, None)
    assert name == "shufflenet_v2_x0_5_imagenet1k_v1"
    entry = entry_of(tmp_path, name)
    assert "sha256" not in entry
    torch.save(shufflenet_v2_x0_5().state_dict(), tmp_path / "by_hand.pth")
    with_entries(tmp_path, entry | {"state_dict": "by_hand.pth", "mean": [0.0] * 3, "license": "as our lawyer says"})
    list(pull(tmp_path, ["all"]))
    (candidate,) = read_zoo(tmp_path, None)
    assert candidate.mean == (0.485, 0.456, 0.406)
    assert candidate.licence == "as our lawyer says"
    assert (candidate.crop_share, candidate.native_px) == (0.875, 224)
    assert (candidate.feature_dim, candidate.n_parameters) == (1024, 1366792)  # torchvision's model table
    assert candidate.n_multiply_adds == pytest.approx(0.04e9, rel=0.03)
    with pytest.raises(
        ValueError, match="has a model 'shufflenet_v2_x0_5_imagenet1k_v1' already; say another with --name"
    ):
        add_entry(tmp_path, "torchvision.shufflenet_v2_x0_5", weights, None)


def test_an_entry_that_could_not_be_used_is_not_added(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name is 'a/b', wanted is a file name"):
        add_entry(tmp_path, "torchvision.resnet18", "ResNet18_Weights.IMAGENET1K_V1", "a/b")
    with pytest.raises(ValueError, match="take another"):
        add_entry(tmp_path, "torchvision.squeezenet1_1", "SqueezeNet1_1_Weights.IMAGENET1K_V1", None)
    assert not (tmp_path / "zoo.json").exists()


def test_the_overview_tells_each_file_s_state(zoo: Path) -> None:
    list(pull(zoo, ["small"]))
    pinned = entry_of(zoo, "small")
    with_entries(
        zoo, pinned, pinned | {"name": "gone", "file": "gone.safetensors"}, pinned | {"name": "other", "sha256": "0" * 64},
        {"name": "far", "state_dict": "net.pth", **WORDS}, {"name": "scratch", "like": "small", "seed": 5},
        {"name": "start", "bundle": "given/start", "source_domain": "ours", "license": "own"},
    )  # fmt: skip
    rows = {row["name"]: row for row in overview(zoo)}
    states = {name: row["weights"] for name, row in rows.items()}
    assert states == {
        "small": "ok", "gone": "missing", "other": "another sha256", "far": "not pulled", "scratch": "random, seed 5",
        "start": "missing",
    }  # fmt: skip
    assert rows["far"]["n_parameters"] == rows["small"]["n_parameters"] == pinned["n_parameters"]
    assert rows["far"]["n_multiply_adds"] == pinned["n_multiply_adds"]
    assert (rows["scratch"]["arch"], rows["scratch"]["licence"]) == ("acclimate.small_resnet", "none needed")
    assert list(pull(zoo, ["scratch"])) == ["scratch: nothing to pull, it is from scratch"]


def test_one_that_cannot_be_had_does_not_stop_the_others(zoo: Path) -> None:
    bad = {"name": "bad", "state_dict": "gone.pth", **WORDS}
    with_entries(zoo, bad, {"name": "small", "state_dict": "net.pth", **WORDS})
    with pytest.raises(ValueError, match=r"^model 'bad': the state dict .*gone.pth is missing"):
        list(pull(zoo, ["all"]))
    assert (zoo / "small.safetensors").exists()
    assert "sha256" in entry_of(zoo, "small")


def test_what_is_no_zoo_is_told_as_elsewhere(tmp_path: Path) -> None:
    for act in (lambda: list(pull(tmp_path, ["all"])), lambda: overview(tmp_path)):
        with pytest.raises(ValueError, match=r"zoo.json is missing"):
            act()
