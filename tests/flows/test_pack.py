"""`acclimate pack`: the same images in few files; what is there is never overwritten."""

import json
import os
import zipfile
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from flows.data_cli import add_commands
from tasks.core.store import open_store

IMAGES = {"ink/cat/1.png": b"one", "ink/dog/2.JPG": b"two", "pen/ü, 3.png": b"three"}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for place, content in IMAGES.items():
        (tmp_path / "root" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / place).write_bytes(content)
    return Path("root")


def acclimate(*arguments: str) -> Result:
    app = typer.Typer(pretty_exceptions_enable=False)
    add_commands(app)
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def refused(*arguments: str) -> str:
    done = acclimate("pack", *arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return str(done.stderr)


def test_a_pack_holds_the_same_images_and_says_how_to_use_it(root: Path) -> None:
    (root / "notes.txt").touch()
    done = acclimate("pack", "root", "out/packed", "--images-per-shard", "2")
    assert (done.exit_code, done.stderr) == (0, "")
    store = open_store(Path("out/packed"))
    assert {entry.path: store.read(entry.path) for entry in store.entries()} == IMAGES
    assert len(json.loads(Path("out/packed/pack.json").read_text())["shards"]) == 2
    size_mb = sum(path.stat().st_size for path in Path("out/packed").iterdir()) / 1e6
    assert done.stdout.splitlines() == [
        f"3 images written to out/packed (4 files, {size_mb:.1f} MB)",
        "to use them, write into params.yaml: build_manifest.root: out/packed; a table's paths must be relative to it",
        "left out, being no images: 1 .txt",
    ]
    assert os.listdir("out") == ["packed"]


def test_an_archive_is_packed_like_its_folder(root: Path) -> None:
    with zipfile.ZipFile("images.zip", "w") as archive:
        for path in sorted(root.rglob("*.*")):
            archive.write(path, path.relative_to(root))
    assert acclimate("pack", "images.zip", "from_zip").exit_code == 0
    assert acclimate("pack", "root", "from_folder").exit_code == 0
    for path in Path("from_folder").iterdir():
        assert path.read_bytes() == (Path("from_zip") / path.name).read_bytes()


def test_what_is_there_is_never_overwritten(root: Path) -> None:
    Path("full").mkdir()
    Path("full/mine").write_text("mine")
    assert "full is not empty; name a folder that does not exist yet, or empty it first" in refused("root", "full")
    assert "full/mine is a file; name a folder that does not exist yet" in refused("root", "full/mine")
    assert Path("full/mine").read_text() == "mine"
    Path("dangling").symlink_to("nowhere")
    Path("empty").mkdir()
    Path("linked").symlink_to("empty")
    for out in ("empty", "dangling", "linked"):
        assert acclimate("pack", "root", out).exit_code == 0
        assert (Path(out) / "pack.json").is_file()
        for path in Path(out).iterdir():
            path.unlink()


def test_a_pack_among_its_own_images_is_refused(root: Path) -> None:
    Path("link").symlink_to("root")
    for out in ("root", "root/packed", "link/packed", "root/../root/ink/x"):
        told = refused("root", out)
        assert "lies in root, whose images are to be packed" in told or "root is not empty" in told
    assert {p.relative_to(root).as_posix() for p in root.rglob("*.*")} == set(IMAGES)


def test_images_that_cannot_be_packed_are_all_told_and_nothing_is_left(root: Path) -> None:
    (root / "gone_1.png").symlink_to("nowhere")
    (root / "gone_2.png").symlink_to("nowhere")
    os.mkfifo(root / "pipe.png")
    told = refused("root", "packed")
    for name in ("gone_1.png", "gone_2.png", "pipe.png"):
        assert name in told
    assert sorted(os.listdir()) == ["root"]


def test_no_image_no_folder_and_no_archive_are_told(root: Path) -> None:
    Path("empty").mkdir()
    assert "empty holds no image, so there is nothing to pack" in refused("empty", "packed")
    assert "nowhere" in refused("nowhere", "packed")
    Path("text.zip").write_text("no archive")
    assert "text.zip" in refused("text.zip", "packed")
    assert not Path("packed").exists()


def test_a_shard_holds_at_least_one_image(root: Path) -> None:
    assert acclimate("pack", "root", "packed", "--images-per-shard", "0").exit_code == 2
