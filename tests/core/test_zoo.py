"""The zoo: only the reviewed file is loaded, and only where it fits."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tasks.core.files import file_sha256
from tasks.core.model import network, save_weights
from tasks.core.zoo import check_weights, load_candidate, untrained
from tasks.core.zoo_file import Candidate

ARCHITECTURE = "acclimate.small_resnet"
THIRD = (0.3, 0.3, 0.3)


@pytest.fixture
def candidate(tmp_path: Path) -> Candidate:
    torch.manual_seed(0)
    path = tmp_path / "small.safetensors"
    save_weights(network(ARCHITECTURE, 7), path)
    return Candidate("small", ARCHITECTURE, path, file_sha256(path), 7, 128, THIRD, THIRD, 32, "digits", "Apache-2.0")


def of_file(candidate: Candidate, path: Path) -> Candidate:
    return replace(candidate, weights_path=path, sha256=file_sha256(path))


def test_backbone_and_source_head_are_the_stored_ones_and_the_head_is_new(candidate: Candidate) -> None:
    torch.manual_seed(0)
    stored = network(ARCHITECTURE, 7)
    loaded = load_candidate(candidate, 3, head_seed=1)
    assert torch.equal(loaded.model.backbone.stem[0].weight, stored.stem[0].weight)
    assert torch.equal(loaded.source_head.weight, stored.fc.weight)
    images = torch.rand(2, 3, 32, 32)
    assert loaded.model(images).shape == (2, 3)
    assert loaded.model.features(images).shape == (2, 128)


def test_the_new_head_depends_on_its_seed_alone(candidate: Candidate) -> None:
    heads = [load_candidate(candidate, 3, head_seed=seed).model.head.weight for seed in (1, 1, 2)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_an_untrained_network_depends_on_its_seed_alone(candidate: Candidate) -> None:
    stems = [untrained(candidate, 3, seed).backbone.stem[0].weight for seed in (1, 1, 2)]
    assert torch.equal(stems[0], stems[1])
    assert not torch.equal(stems[0], stems[2])


def test_a_changed_file_is_refused_with_both_hashes(candidate: Candidate) -> None:
    content = bytearray(candidate.weights_path.read_bytes())
    content[-1] ^= 1
    candidate.weights_path.write_bytes(content)
    found = file_sha256(candidate.weights_path)
    refusal = f"candidate small: .* has sha256 {found}, zoo.json says {candidate.sha256}; .* so it is not loaded"
    with pytest.raises(ValueError, match=refusal):
        load_candidate(candidate, 3, head_seed=0)


def test_a_missing_file_is_told(candidate: Candidate) -> None:
    candidate.weights_path.unlink()
    with pytest.raises(ValueError, match=r"candidate small: the weight file .*small.safetensors is missing"):
        check_weights(candidate)


@pytest.mark.parametrize("change", [{"n_source_classes": 10}, {"architecture": "torchvision.mobilenet_v3_small"}])
def test_weights_that_do_not_fit_are_refused_by_file(candidate: Candidate, change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"small.safetensors: the weights do not fit") as caught:
        load_candidate(replace(candidate, **change), 3, head_seed=0)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_safetensors_is_refused_by_name(candidate: Candidate) -> None:
    candidate.weights_path.write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match=r"small.safetensors"):
        load_candidate(of_file(candidate, candidate.weights_path), 3, head_seed=0)


@pytest.mark.parametrize(
    "name", ["small_resnet", "timm.resnet18", "torchvision.none", "torchvision.", "acclimate.", ""]
)
def test_an_unknown_architecture_is_told(candidate: Candidate, name: str) -> None:
    with pytest.raises(ValueError, match=r"is unknown: allowed are acclimate.small_resnet"):
        load_candidate(replace(candidate, architecture=name), 3, head_seed=0)


def test_an_architecture_without_a_linear_head_is_refused(candidate: Candidate) -> None:
    with pytest.raises(ValueError, match="squeezenet1_1"):
        untrained(replace(candidate, architecture="torchvision.squeezenet1_1"), 3, 0)
