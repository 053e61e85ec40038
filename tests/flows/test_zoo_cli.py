"""`acclimate zoo`: tables and one-sentence errors."""

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from flows.zoo_cli import add_commands
from tasks.core.model import SmallResNet

ENTRY = {
    "name": "small", "arch": "acclimate.small_resnet", "num_classes": 3, "mean": [0.5] * 3, "std": [0.2] * 3,
    "input_size": [3, 32, 32], "interpolation": "bilinear", "source_domain": "digits [bold]", "license": "MIT",
}  # fmt: skip


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing: tests print nothing."""


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "served").mkdir()
    torch.save(SmallResNet(3).state_dict(), tmp_path / "served/net.pth")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served"))) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def acclimate(*words: str) -> tuple[int, str]:
    """Exit code and all that was printed."""
    app = typer.Typer()
    add_commands(app)
    done = CliRunner().invoke(app, ["zoo", *words], env={"COLUMNS": "200"}, prog_name="acclimate")
    return done.exit_code, done.output


def test_weights_behind_an_address_are_fetched_pinned_and_listed(tmp_path: Path, address: str) -> None:
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    (zoo / "zoo.json").write_text(json.dumps({"models": [ENTRY | {"url": f"{address}/net.pth"}]}))
    assert "not pulled" in acclimate("list", "--zoo", str(zoo))[1]
    code, told = acclimate("pull", "all", "--zoo", str(zoo))
    assert (code, "sha256 in zoo.json" in told) == (0, True)
    code, told = acclimate("list", "--zoo", str(zoo))
    assert code == 0
    for words in ("small", "ok", "0.3", "32", "MIT", "digits [bold]"):
        assert words in told


def test_an_unreachable_address_is_one_sentence(tmp_path: Path, address: str) -> None:
    (tmp_path / "zoo.json").write_text(json.dumps({"models": [ENTRY | {"url": f"{address}/absent.pth"}]}))
    code, told = acclimate("pull", "small", "--zoo", str(tmp_path))
    assert code == 1
    assert told.startswith(f"error: {address}/absent.pth could not be fetched (HTTP Error 404")
    assert told.count("\n") == 1


def test_adding_and_what_cannot_be_added(tmp_path: Path) -> None:
    weights = "MobileNet_V2_Weights.IMAGENET1K_V2"
    code, told = acclimate("add", "torchvision.mobilenet_v2", weights, "--zoo", str(tmp_path))
    assert (code, "`acclimate zoo pull mobilenet_v2_imagenet1k_v2`" in told) == (0, True)
    code, told = acclimate("add", "torchvision.mobilenet_v2", "--zoo", str(tmp_path))
    assert (code, "it has MobileNet_V2_Weights" in told) == (1, True)
    assert acclimate("list", "--zoo", str(tmp_path / "nowhere"))[1].startswith("error: --zoo ")
