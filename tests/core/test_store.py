"""Stores: the same images by the same paths from folders and archives, and nothing else opened on the way."""

import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_stores import FILES, TARS, all_bytes, paths_of, problems_of, put, put_any, put_tar, put_zip

from tasks.core.entries import Entry
from tasks.core.store import IMAGE_SUFFIXES, OTHER_IMAGE_SUFFIXES, open_store, write_pack


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("ACCLIMATE_HOME", str(folder))
    return folder


# what is found


def test_a_folder_holds_its_images_by_path(tmp_path: Path) -> None:
    store = open_store(put(tmp_path, FILES))
    assert store.entries() == [Entry(path, "") for path in sorted(FILES)]
    assert all_bytes(store) == FILES
    assert store.ignored() == {}


@pytest.mark.parametrize("name", ["x.zip", *TARS])
def test_an_archive_as_the_root_holds_the_same_as_the_folder(tmp_path: Path, name: str) -> None:
    store = open_store(put_any(tmp_path / name, list(FILES.items())))
    assert all_bytes(store) == FILES
    assert store.entries() == [Entry(path, "") for path in sorted(FILES)]
    assert store.has("cat/1.jpg")
    assert not store.has("cat/3.jpg")
    with pytest.raises(FileNotFoundError, match=r"cat/3.jpg is missing; restore it"):
        store.read("cat/3.jpg")


@pytest.mark.parametrize("name", ["x.zip", "X.ZIP", *TARS])
def test_archives_in_a_folder_are_folders(tmp_path: Path, name: str) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    put_any(tmp_path / "a" / "b" / name, list(FILES.items()))
    put(tmp_path, {"a/own.jpg": b"own"})
    store = open_store(tmp_path)
    assert all_bytes(store) == {"a/own.jpg": b"own"} | {f"a/b/{name}/{path}": data for path, data in FILES.items()}
    assert store.has(f"a/b/{name}/cat/1.jpg")
    assert not store.has(f"a/b/{name}/cat")
    assert not store.has(f"a/b/{name}x/cat/1.jpg")
    with pytest.raises(FileNotFoundError, match="is missing"):
        store.read(f"a/b/{name}/none.jpg")
    with pytest.raises(FileNotFoundError, match="is missing"):
        store.read(f"a/none/{name}/none.jpg")


def test_reading_does_not_need_a_listing_and_takes_files_of_any_name(tmp_path: Path) -> None:
    put_zip(tmp_path / "a.zip", [("notes.txt", b"n")])
    put(tmp_path, {"x.bin": b"b", "dir.zip/y.jpg": b"y", "dir.tar/z.zip.jpg": b"z"})
    store = open_store(tmp_path)
    assert store.read("a.zip/notes.txt") == b"n"
    assert store.read("x.bin") == b"b"
    assert store.read("dir.zip/y.jpg") == b"y"  # a folder may be called so
    assert all_bytes(store) == {"dir.zip/y.jpg": b"y", "dir.tar/z.zip.jpg": b"z"}


def test_every_image_format_is_listed_whether_we_decode_it_or_not(tmp_path: Path) -> None:
    names = sorted(f"x{suffix}" for suffix in (*IMAGE_SUFFIXES, *OTHER_IMAGE_SUFFIXES))
    assert {"x.jpg", "x.heic", "x.dcm", "x.nii.gz", "x.svg", "x.cr3"} < set(names)
    put(tmp_path, dict.fromkeys([*names, "y.JpG"], b""))
    assert paths_of(open_store(tmp_path)) == sorted([*names, "y.JpG"])


def test_other_files_are_counted_and_system_litter_is_not(tmp_path: Path) -> None:
    others = ["a.TXT", "b.txt", "Makefile", "d/Thumbs.db"]
    litter = [".DS_Store", "._x.jpg", ".git/x.jpg", "__MACOSX/x.jpg", "d/__MACOSX/._x.jpg"]
    put(tmp_path, dict.fromkeys([*others, *litter, "d/x.jpg"], b""))
    put_zip(tmp_path / "z.zip", [(name, b"") for name in [*others, *litter, "inner.zip", "d/x.jpg"]])
    store = open_store(tmp_path)
    assert store.entries() == [Entry("d/x.jpg", ""), Entry("z.zip/d/x.jpg", "")]
    assert store.ignored() == {"": 2, ".db": 2, ".txt": 4, ".zip": 1}
    assert open_store(tmp_path / "z.zip").ignored() == {"": 1, ".db": 1, ".txt": 2, ".zip": 1}


def test_a_packed_folder_of_the_archives_own_name_is_the_archive_itself(tmp_path: Path) -> None:
    put_zip(
        tmp_path / "pacs.zip",
        [("pacs/a/1.jpg", b"1"), ("pacs/pacs/2.jpg", b"2"), ("README", b""), ("pacs/2.jpg", b"3")],
    )
    store = open_store(tmp_path / "pacs.zip")
    assert all_bytes(store) == {"2.jpg": b"3", "a/1.jpg": b"1", "pacs/2.jpg": b"2"}
    assert store.read("pacs/a/1.jpg") == b"1"  # as a table may name it
    with pytest.raises(FileNotFoundError, match=r"^b.jpg is missing"):
        store.read("b.jpg")
    put_zip(tmp_path / "two.zip", [("two/1.jpg", b"1"), ("other/1.jpg", b"2")])
    assert all_bytes(open_store(tmp_path / "two.zip")) == {"two/1.jpg": b"1", "other/1.jpg": b"2"}


# odd files in folders


def test_pipes_and_sockets_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe.zip")
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.png")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    store = open_store(tmp_path)
    told = "is a pipe, socket or device"
    assert store.entries() == [Entry(path, told) for path in ("pipe.jpg", "s.png", "zero.jpg")]
    for path in ("pipe.jpg", "s.png", "zero.jpg", "pipe.zip"):
        with pytest.raises(ValueError, match=rf"^{path} is a pipe, socket or device; it was not opened$"):
            store.read(path)
    with pytest.raises(FileNotFoundError, match="is missing"):
        store.read("pipe.zip/x.jpg")
    with pytest.raises(ValueError, match="is neither a folder, an archive nor a pack"):
        open_store(tmp_path / "pipe.zip")


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    root = put(tmp_path / "root", {"a/1.jpg": b"1"})
    put(tmp_path / "mount", {"2.jpg": b"2"})
    (root / "linked").symlink_to(tmp_path / "mount")
    (root / "a" / "file.jpg").symlink_to(tmp_path / "mount" / "2.jpg")
    (root / "a" / "back").symlink_to(root)
    (root / "a" / "self").symlink_to(".")
    (root / "up").symlink_to(tmp_path)
    (root / "all").symlink_to("/")
    (root / "twice").symlink_to("a")
    store = open_store(root)
    loop = "is a link that leads back to a folder above it"
    assert problems_of(store) == dict.fromkeys(["a/back", "a/self", "all", "twice/back", "twice/self", "up"], loop)
    good = ["a/1.jpg", "a/file.jpg", "linked/2.jpg", "twice/1.jpg", "twice/file.jpg"]
    assert [entry.path for entry in store.entries() if not entry.problem] == good
    assert [store.read(path) for path in good] == [b"1", b"2", b"2", b"1", b"2"]


def test_two_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    put(tmp_path, {"a/1.jpg": b"", "b/2.jpg": b""})
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    store = open_store(tmp_path)
    assert sorted(problems_of(store)) == ["a/b/a", "b/a/b"]
    assert paths_of(store) == ["a/1.jpg", "a/b/2.jpg", "a/b/a", "b/2.jpg", "b/a/1.jpg", "b/a/b"]


def test_a_broken_link_is_an_entry_whose_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    store = open_store(tmp_path)
    assert store.entries() == [Entry("gone.jpg", ""), Entry("self.jpg", "")]
    for path in paths_of(store):
        assert not store.has(path)
        with pytest.raises(FileNotFoundError, match=f"^{path} is missing"):
            store.read(path)


@pytest.fixture
def closed() -> Iterator[Path]:
    """A root with a folder, a file and an archive that can't be opened, also where the tests run as the superuser."""
    uid = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        root = put(Path(name), {"ok/1.jpg": b"1", "shut/2.jpg": b"2", "3.jpg": b"3"})
        put_zip(root / "4.zip", [("x.jpg", b"4")])
        root.chmod(0o755)
        for path in ("shut", "3.jpg", "4.zip"):
            (root / path).chmod(0)
        if uid == 0:
            os.seteuid(65534)
        yield root
        os.seteuid(uid)
        (root / "shut").chmod(0o700)


def test_what_may_not_be_opened_is_said(closed: Path) -> None:
    store = open_store(closed)
    assert problems_of(store) == {
        "shut": "is a folder that can't be opened (permission denied)",
        "4.zip": "is an archive that can't be opened (Permission denied)",
    }
    assert paths_of(store) == ["3.jpg", "4.zip", "ok/1.jpg", "shut"]
    with pytest.raises(PermissionError, match=r"'3.jpg'$"):  # without the machine's folders
        store.read("3.jpg")
    with pytest.raises(ValueError, match=r"shut can't be opened \(Permission denied\); mend its permissions"):
        open_store(closed / "shut")


def test_names_that_are_no_plain_text_are_shown_escaped_and_not_opened(tmp_path: Path) -> None:
    for name in (
        b"\xff.jpg",
        b"\\xff.jpg",
        b"new\nline.jpg",
        b"d\xe9/x.jpg",
        b"tab\t/y.png",
        b"c1\xc2\x85.jpg",
        b"bad\xff.zip",
    ):
        file = os.path.join(os.fsencode(tmp_path), name)
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, "wb") as handle:
            handle.write(name)
    put(tmp_path, {"日本 é.jpg": b"fine"})
    store = open_store(tmp_path)
    not_utf8, control = "has a name that is not UTF-8; rename it", "has a control character in its name; rename it"
    assert problems_of(store) == {
        r"\xff.jpg (2)": not_utf8,  # the other one is really called so
        r"new\nline.jpg": control,
        r"d\xe9/x.jpg": not_utf8,
        r"tab\t/y.png": control,
        r"c1\x85.jpg": control,
        r"bad\xff.zip": not_utf8,
    }
    assert store.read(r"\xff.jpg") == rb"\xff.jpg"
    assert store.read("日本 é.jpg") == b"fine"
    for path in (r"new\nline.jpg", r"d\xe9/x.jpg"):
        with pytest.raises(ValueError, match="rename it; it was not opened"):
            store.read(path)
    for path in ("new\nline.jpg", "\udcff.jpg"):
        assert not store.has(path)
        with pytest.raises(ValueError, match="is not a plain path"):
            store.read(path)
    json.dumps(paths_of(store)).encode()
    assert all("\n" not in path and path.encode() for path in paths_of(store))


def test_a_name_of_one_byte_more_than_fits_is_missing(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for path in ("x" * 256 + ".jpg", "y/" * 3000 + "x.jpg"):
        assert not store.has(path)
        with pytest.raises(FileNotFoundError, match="is missing"):
            store.read(path)


def test_folders_deeper_than_python_can_recurse_are_walked(tmp_path: Path) -> None:
    deep = [f"{tmp_path}/{'d/' * k}" for k in range(1, 1011)]
    for folder in deep:
        os.mkdir(folder)
    put(Path(deep[-1]), {"x.jpg": b"deep"})
    assert paths_of(open_store(tmp_path)) == ["d/" * 1010 + "x.jpg"]
    os.unlink(f"{deep[-1]}x.jpg")
    for folder in reversed(deep):  # pytest's own tidying recurses
        os.rmdir(folder)


@pytest.mark.parametrize("suffix", ["folder", "zip", "tar", "pack"])
@pytest.mark.parametrize(
    "path",
    ["/etc/x.jpg", "../x.jpg", "a/../../x.jpg", "a/..", "x\0.jpg", "", ".", "./a.jpg", "a//b.jpg", "a/", "/", "a\nb"],
)
def test_paths_that_are_no_plain_names_are_refused(tmp_path: Path, suffix: str, path: str) -> None:
    root = put(tmp_path / "root", {"a/b.jpg": b"", "a.jpg": b""})
    put(tmp_path, {"x.jpg": b"secret"})
    members = [("a/b.jpg", b""), ("a.jpg", b"")]
    if suffix == "zip":
        root = put_zip(tmp_path / "x.zip", members)
    elif suffix == "tar":
        root = put_tar(tmp_path / "x.tar", members)
    elif suffix == "pack":
        write_pack(open_store(root), ["a.jpg", "a/b.jpg"], tmp_path / "pack", 10)
        root = tmp_path / "pack"
    store = open_store(root)
    assert not store.has(path)
    with pytest.raises(ValueError, match=r"leads outside the root; it was not opened|is not a plain path"):
        store.read(path)


def test_three_dots_are_a_name(tmp_path: Path) -> None:
    assert open_store(put(tmp_path, {"a/...b..jpg..png": b"1"})).read("a/...b..jpg..png") == b"1"


# roots


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("none", r"none does not exist; name a folder of images, a pack, or an archive \(.zip, .tar, .*\)$"),
        ("none.zip", "none.zip does not exist"),
        ("a.jpg", "a.jpg is neither a folder, an archive nor a pack; name a folder"),
        ("a.rar", "a.rar is neither a folder"),
    ],
)
def test_a_root_of_no_known_kind_is_refused(tmp_path: Path, name: str, told: str) -> None:
    put(tmp_path, {"a.jpg": b"", "a.rar": b""})
    with pytest.raises(ValueError, match=told):
        open_store(tmp_path / name)


def test_a_store_stays_where_it_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "data", {"x.jpg": b"x"})
    write_pack(open_store(tmp_path / "data"), ["x.jpg"], tmp_path / "pack", 1)
    put_tar(tmp_path / "x.tar", [("x.jpg", b"x")])
    monkeypatch.chdir(tmp_path)
    stores = [open_store(Path(name)) for name in ("data", "pack", "x.tar")]
    monkeypatch.chdir("/")
    assert [store.read("x.jpg") for store in stores] == [b"x"] * 3


def test_an_empty_folder_and_an_empty_archive_hold_nothing(tmp_path: Path) -> None:
    (tmp_path / "e").mkdir()
    for root in (tmp_path / "e", put_zip(tmp_path / "e.zip", []), put_tar(tmp_path / "e.tar", [])):
        assert open_store(root).entries() == []
