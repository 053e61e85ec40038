"""The zoo: only the reviewed file is loaded, and only where it fits."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.core.bundle import write_bundle
from tasks.core.files import file_sha256, write_json
from tasks.core.model import network, save_weights, split_head
from tasks.core.zoo import check_weights, load_candidate, source_probabilities, untrained
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


@pytest.mark.parametrize("name", ["small_resnet", "timm.", "torchvision.none", "torchvision.", "acclimate.", ""])
def test_an_unknown_architecture_is_told(candidate: Candidate, name: str) -> None:
    with pytest.raises(ValueError, match=r"is unknown: allowed are acclimate.small_resnet"):
        load_candidate(replace(candidate, architecture=name), 3, head_seed=0)


def test_an_architecture_without_a_linear_head_is_refused(candidate: Candidate) -> None:
    with pytest.raises(ValueError, match="squeezenet1_1"):
        untrained(replace(candidate, architecture="torchvision.squeezenet1_1"), 3, 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(candidate: Candidate, value: float) -> None:
    tensors = load_file(candidate.weights_path)
    tensors["stem.0.weight"][0, 0, 0, 0] = value
    save_file(tensors, candidate.weights_path)
    with pytest.raises(ValueError, match=r"small.safetensors: 1 tensors hold NaN or infinity \(stem.0.weight\)"):
        load_candidate(of_file(candidate, candidate.weights_path), 3, head_seed=0)


def test_source_probabilities_are_what_the_whole_network_says(candidate: Candidate) -> None:
    torch.manual_seed(0)
    whole = network(ARCHITECTURE, 7).eval()
    loaded = load_candidate(candidate, 3, head_seed=1)
    images = torch.rand(4, 3, 32, 32)
    with torch.inference_mode():
        expected_NZ = whole(images).softmax(1).numpy()
        features_ND = loaded.model.eval().features(images).numpy()
    found_NZ = source_probabilities(loaded, features_ND)
    assert found_NZ is not None
    assert found_NZ == pytest.approx(expected_NZ, abs=1e-6)
    assert found_NZ.sum(1) == pytest.approx(1)
    with pytest.raises(ValueError, match=r"shape \(2, 5\), the source head takes \(N, 128\)"):
        source_probabilities(loaded, np.zeros((2, 5)))


def scratch_of(candidate: Candidate, seed: int) -> Candidate:
    return replace(candidate, weights_path=None, seed=seed, n_source_classes=0)


def test_scratch_depends_on_its_seed_alone_and_has_no_source_head(candidate: Candidate) -> None:
    check_weights(scratch_of(candidate, 1))
    loaded = [load_candidate(scratch_of(candidate, s), n, h) for s, n, h in [(1, 3, 0), (1, 9, 5), (2, 3, 0)]]
    a, b, c = ([*p.model.backbone.state_dict().values()] for p in loaded)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(a[0], c[0])
    assert loaded[1].model.head.out_features == 9
    assert loaded[0].source_head is None
    assert source_probabilities(loaded[0], np.zeros((2, 128))) is None


def test_a_bundle_gives_its_backbone_and_its_head_and_is_checked(candidate: Candidate, tmp_path: Path) -> None:
    torch.manual_seed(0)
    stored = split_head(network(ARCHITECTURE, 4), 4)
    save_weights(stored, tmp_path / "w.safetensors")
    write_json(tmp_path / "m.json", {"classes": list("abcd")})
    files = {"model.safetensors": tmp_path / "w.safetensors", "model.json": tmp_path / "m.json"}
    write_bundle(tmp_path / "start", files, {})
    place = tmp_path / "start/model.safetensors"
    start = replace(
        candidate, weights_path=place, sha256=file_sha256(place), n_source_classes=4, bundle=tmp_path / "start"
    )
    loaded = load_candidate(start, 3, head_seed=1)
    assert torch.equal(loaded.model.backbone.stem[0].weight, stored.backbone.stem[0].weight)
    assert loaded.source_head is not None
    assert torch.equal(loaded.source_head.weight, stored.head.weight)
    assert loaded.model.head.out_features == 3
    (tmp_path / "start/model.json").write_text("{}")
    with pytest.raises(ValueError, match=r"model.json has sha256"):
        load_candidate(start, 3, head_seed=1)
