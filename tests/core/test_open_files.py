"""Open files: no more is read than allowed, each file is opened once, and threads don't disturb each other."""

import hashlib
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from made_stores import put, put_any, put_tar, put_zip

from tasks.core import entries, open_files
from tasks.core.store import open_store, write_pack


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_no_more_than_the_limit_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: int) -> None:
    monkeypatch.setattr(entries, "MAX_FILE_BYTES", 1000)
    root = put(tmp_path / "r", {"fits.jpg": bytes(1000), "large.jpg": bytes(1001)})
    for file in (put_zip(tmp_path / "a.zip", [("x.jpg", bytes(1001)), ("y.jpg", bytes(1000))], method),):
        file.rename(root / "a.zip")
    put_tar(root / "b.tar", [("x.jpg", bytes(1001)), ("y.jpg", bytes(1000))])
    store = open_store(root)
    for path in ("large.jpg", "a.zip/x.jpg", "b.tar/x.jpg"):
        with pytest.raises(ValueError, match=rf"^{path} has 1,001 bytes; a file of more than 1,000 bytes is not read"):
            store.read(path)
    assert [len(store.read(path)) for path in ("fits.jpg", "a.zip/y.jpg", "b.tar/y.jpg")] == [1000] * 3


def test_a_file_that_grows_is_read_to_its_end_but_not_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    status = "/proc/self/status"  # claims 0 bytes
    if not os.path.exists(status):
        pytest.skip("needs a file of unknown length")
    assert open_files.read_whole(status, "x").startswith(b"Name:")
    monkeypatch.setattr(entries, "MAX_FILE_BYTES", 100)
    with pytest.raises(ValueError, match="more than 100 bytes is not read"):
        open_files.read_whole(status, "x")


def test_an_archive_that_is_replaced_while_in_use_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_files, "MAX_OPEN_FILES", 1)
    put_zip(tmp_path / "a.zip", [("x.jpg", b"1")])
    put_zip(tmp_path / "b.zip", [("x.jpg", b"2")])
    store = open_store(tmp_path)
    assert [store.read(path) for path in ("a.zip/x.jpg", "b.zip/x.jpg", "a.zip/x.jpg", "b.zip/x.jpg")] == [
        b"1",
        b"2",
    ] * 2
    put_zip(tmp_path / "c.zip", [("x.jpg", b"123")]).replace(tmp_path / "a.zip")
    with pytest.raises(ValueError, match=r"a.zip changed while it was in use; run again"):
        store.read("a.zip/x.jpg")


def test_an_archive_is_opened_once_and_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(20):
        put_zip(tmp_path / f"{k:02d}.zip", [("x.jpg", str(k).encode())])
    opened: list[str] = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda file, *rest: opened.append(str(file)) or real(file, *rest))
    monkeypatch.setattr(open_files, "MAX_OPEN_FILES", 5)
    n_before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else None
    store = open_store(tmp_path)
    assert [store.read(f"{k:02d}.zip/x.jpg") for k in range(20)] == [str(k).encode() for k in range(20)]
    if n_before is not None:
        assert len(os.listdir("/proc/self/fd")) == n_before + 5
    opened.clear()
    for _ in range(1000):
        store.read("19.zip/x.jpg")
    assert opened == []


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "pack"])
def test_many_threads_read_at_once(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"{k % 7}/{k}.jpg": hashlib.sha256(str(k).encode()).digest() * (1 + k % 50) for k in range(300)}
    root = put(tmp_path / "folder", files)
    if kind == "pack":
        monkeypatch.setattr(open_files, "MAX_OPEN_FILES", 3)  # files are closed and opened under the readers
        write_pack(open_store(root), list(files), tmp_path / "pack", 30)
    elif kind != "folder":
        root = tmp_path
        put_any(tmp_path / f"x.{kind}", list(files.items()))
    above = f"x.{kind}/" if kind in ("zip", "tar") else ""
    store = open_store(tmp_path / "pack" if kind == "pack" else root)
    wanted = list(files) * 10
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda path: store.read(above + path), wanted)) == [files[path] for path in wanted]
