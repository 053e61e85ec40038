"""Where weights come from: the libraries' own words, files that run nothing, and one sentence where nothing is reachable."""

import hashlib
import importlib.util
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch import nn

from tasks.core import origins
from tasks.core.origins import described, fetched, read_state_dict, tensors_of


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing: tests print nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address under which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch/hub/checkpoints"


class Runs:
    """Unpickled, it makes a file: what a hostile state dict could do with anything."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_what_torchvision_says_of_its_weights_is_taken_over() -> None:
    found = described("torchvision.mobilenet_v2", "MobileNet_V2_Weights.IMAGENET1K_V2")
    # from torchvision's documentation of these weights
    assert found["mean"] == [0.485, 0.456, 0.406]
    assert found["std"] == [0.229, 0.224, 0.225]
    assert (found["input_size"], found["crop_pct"]) == ([3, 224, 224], round(224 / 232, 6))
    assert (found["interpolation"], found["num_classes"]) == ("bilinear", 1000)
    assert found["published_accuracy"] == 0.72154
    assert found["url"].endswith("/mobilenet_v2-7ebf99e0.pth")
    assert found["license"] == "not stated"
    assert "ImageNet-1K" in found["source_domain"]


def test_other_weights_have_other_preprocessing_and_licence() -> None:
    found = described("torchvision.vit_b_16", "ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1")
    assert (found["interpolation"], found["input_size"]) == ("bicubic", [3, 384, 384])
    assert found["license"].endswith("SWAG/blob/main/LICENSE")
    assert "SWAG" in found["pretraining"]["data"]


@pytest.mark.parametrize(
    ("architecture", "weights", "words"),
    [
        (
            "torchvision.mobilenet_v2",
            "IMAGENET1K_V2",
            "it has MobileNet_V2_Weights.IMAGENET1K_V1, MobileNet_V2_Weights.IM",
        ),
        ("torchvision.mobilenet_v2", None, "has no weights None; it has"),
        ("torchvision.nothing", "x", "is no classifier of the installed torchvision"),
        ("torchvision.deeplabv3_resnet50", "x", "is no classifier of the installed torchvision"),
        ("torchvision.vgg16", "VGG16_Weights.IMAGENET1K_FEATURES", "come without a classifier"),
        ("acclimate.small_resnet", None, "comes with no weights; only torchvision.<name> and timm.<name> do"),
    ],
)
def test_what_is_not_known_is_told(architecture: str, weights: str | None, words: str) -> None:
    with pytest.raises(ValueError, match=r"^.+$") as caught:
        described(architecture, weights)
    assert words in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="says what is told where timm is absent")
def test_timm_is_asked_for_where_it_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run `pip install timm`"):
        described("timm.resnet18", None)
    with pytest.raises(ValueError, match="run `pip install timm`"):
        tensors_of(tmp_path, {"name": "a", "arch": "timm.resnet18"})


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s, "epoch": 3}])
@pytest.mark.parametrize("as_zip", [True, False])
def test_state_dicts_are_read(tmp_path: Path, wrap: Callable[[object], object], as_zip: bool) -> None:
    state = nn.Linear(2, 3).state_dict()
    torch.save(wrap(state), tmp_path / "net.pth", _use_new_zipfile_serialization=as_zip)
    found = read_state_dict(tmp_path / "net.pth")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path: Path, as_zip: bool) -> None:
    hostile = {"weight": torch.zeros(2), "more": Runs(tmp_path / "ran")}
    torch.save(hostile, tmp_path / "net.pth", _use_new_zipfile_serialization=as_zip)
    with pytest.raises(ValueError, match=r"net.pth holds more than tensors: it was not read, because .* run code"):
        read_state_dict(tmp_path / "net.pth")
    assert not (tmp_path / "ran").exists()


def test_the_hostile_file_is_one(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Runs(tmp_path / "ran"))).close()
    assert (tmp_path / "ran").exists()


def test_plain_pickles_and_whole_networks_are_refused(tmp_path: Path) -> None:
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Runs(tmp_path / "ran")))
    torch.save(nn.Linear(2, 2), tmp_path / "net.pth")
    for name in ("plain.pth", "net.pth"):
        with pytest.raises(ValueError, match=f"{name} .*[^\n]+$"):
            read_state_dict(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04", b"\x80\x02}q\x00.", b"PK\x03\x04" + bytes(100)])
def test_what_is_no_state_dict_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"net\.pth [^\n]+$"):
        read_state_dict(tmp_path / "net.pth")


@pytest.mark.parametrize(
    "content", [[torch.zeros(1)], {}, {"a": 1}, {1: torch.zeros(1)}, torch.zeros(2), {"model": {}}]
)
def test_tensors_in_another_form_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"net\.pt is not a state dict: wanted is name → tensor"):
        read_state_dict(tmp_path / "net.pt")


def test_a_file_is_fetched_once_and_checked_against_the_hash_in_its_name(server: tuple[Path, str], hub: Path) -> None:
    folder, address = server
    torch.save({"a": torch.ones(2)}, folder / "raw")
    digest = hashlib.sha256((folder / "raw").read_bytes()).hexdigest()
    name = f"net-{digest[:8]}.pth"
    (folder / "raw").rename(folder / name)
    assert fetched(f"{address}/{name}", Path("x")) == hub / name
    (folder / name).unlink()
    assert torch.equal(read_state_dict(fetched(f"{address}/{name}", Path("x")))["a"], torch.ones(2))
    (hub / name).write_bytes(b"changed")
    with pytest.raises(
        ValueError, match=rf"{name} has sha256 .*, its name says {digest[:8]}…; remove it and pull again"
    ):
        fetched(f"{address}/{name}", Path("x"))


def test_another_file_than_the_name_says_is_not_kept(server: tuple[Path, str], hub: Path) -> None:
    folder, address = server
    (folder / "net-00000000.pth").write_bytes(b"other")
    with pytest.raises(ValueError, match="could not be fetched"):
        fetched(f"{address}/net-00000000.pth", Path("x"))
    assert list(hub.iterdir()) == []


def test_an_address_that_is_not_reachable_is_one_sentence_with_a_way_out(hub: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ValueError, match="could not be fetched") as caught:
        fetched(f"http://127.0.0.1:{port}/net-12345678.pth", Path("zoo/net.safetensors"))
    for words in (str(hub / "net-12345678.pth"), "zoo/net.safetensors", "sha256 begins with 12345678"):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origins, "SILENCE_S", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(ValueError, match="could not be fetched"):
            fetched(f"http://127.0.0.1:{silent.getsockname()[1]}/net.pth", Path("x"))
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("end", ["", "/..", "/a%2Fb.pth", "/.hidden", "/a b"])
def test_an_address_without_a_plain_file_name_is_refused(end: str) -> None:
    with pytest.raises(ValueError, match="does not end in a plain file name"):
        fetched(f"http://127.0.0.1:1{end}", Path("x"))
