"""Archives: read where they lie, whatever stands in them; hostile and damaged ones do no harm and are named."""

import hashlib
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from made_stores import NOISE, Members, all_bytes, paths_of, problems_of, put, put_any, put_tar, put_zip

from tasks.core import archives
from tasks.core.store import open_store


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("ACCLIMATE_HOME", str(folder))
    return folder


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
@pytest.mark.parametrize("told", [10, 2**20 - 1])
def test_a_member_that_is_larger_than_it_says_is_not_unpacked(tmp_path: Path, method: int, told: int) -> None:
    file = put_zip(tmp_path / "bomb.zip", [("x.jpg", bytes(2**20))], method)
    assert file.stat().st_size < 3000
    file.write_bytes(file.read_bytes().replace(struct.pack("<I", 2**20), struct.pack("<I", told)))
    with pytest.raises(ValueError, match=r"x.jpg is damaged in its archive \(size or checksum are wrong\)"):
        open_store(file).read("x.jpg")


def test_a_compressed_tar_may_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    put_tar(tmp_path / "x.tar.gz", [("x.jpg", bytes(10**6))], "w:gz")
    monkeypatch.setattr(archives, "SHARE_OF_FREE_DISK", 1e-12)
    told = r"^x.tar.gz unpacks to more than 0 bytes, 0% of what is free in .*; free some space, set ACCLIMATE_HOME"
    with pytest.raises(ValueError, match=told):
        open_store(tmp_path / "x.tar.gz")
    with pytest.raises(ValueError, match=told):  # no quirk of the machine becomes a fact of the data
        open_store(tmp_path).entries()
    assert list((home / "archives").iterdir()) == []


def test_a_compressed_tar_is_unpacked_once_and_never_beside_the_archive(tmp_path: Path, home: Path) -> None:
    file = put_tar(tmp_path / "x.tgz", [("x.jpg", b"x")], "w:gz")
    assert open_store(tmp_path).read("x.tgz/x.jpg") == b"x"
    copy = home / "archives" / f"{hashlib.sha256(file.read_bytes()).hexdigest()}.tar"
    before = copy.stat()
    assert open_store(file).read("x.jpg") == b"x"
    assert copy.stat().st_mtime_ns == before.st_mtime_ns
    assert copy.stat().st_ino == before.st_ino
    assert [path.name for path in tmp_path.iterdir()] == ["x.tgz"]
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


def test_the_first_bytes_tell_how_a_tar_is_compressed(tmp_path: Path) -> None:
    put_tar(tmp_path / "a.tar", [("x.jpg", b"a")], "w:gz")
    put_tar(tmp_path / "b.tar.gz", [("x.jpg", b"b")], "w")  # some browsers unpack and keep the name
    assert all_bytes(open_store(tmp_path)) == {"a.tar/x.jpg": b"a", "b.tar.gz/x.jpg": b"b"}


# hostile and damaged archives

HOSTILE = [
    ("/etc/x.jpg", b"1"),
    ("../x.jpg", b"2"),
    ("a/../../x.jpg", b"3"),
    ("ok.jpg", b"4"),
    ("x.jpg", b"5"),
    ("//x.jpg", b"6"),
]


@pytest.mark.parametrize("make", [put_zip, put_tar])
def test_names_that_lead_outside_are_problems(tmp_path: Path, make: Callable[[Path, Members], Path]) -> None:
    file = make(tmp_path / ("h.zip" if make is put_zip else "h.tar"), HOSTILE)
    store = open_store(file)
    outside = "has a name that leads outside its archive; make the archive again"
    shown = [r"\x2e\x2e/x.jpg", r"\x2fetc/x.jpg", r"\x2fx.jpg", r"a/\x2e\x2e/\x2e\x2e/x.jpg"]
    assert problems_of(store) == dict.fromkeys(shown, outside)
    assert [path for path in paths_of(store) if path not in shown] == ["ok.jpg", "x.jpg"]
    assert store.read("x.jpg") == b"5"
    for path in shown:
        with pytest.raises(ValueError, match="leads outside its archive; make the archive again; it was not opened"):
            store.read(path)
    assert problems_of(open_store(tmp_path)) == {f"{file.name}/{path}": outside for path in shown}
    with pytest.raises(ValueError, match="leads outside its archive"):
        open_store(tmp_path).read(f"{file.name}/{shown[0]}")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("make", [put_zip, put_tar])
def test_the_first_of_two_members_of_one_name_is_used(tmp_path: Path, make: Callable[[Path, Members], Path]) -> None:
    members = [("x.jpg", b"1"), ("x.jpg", b"2"), ("./x.jpg", b"3"), ("x.jpg (2)/y.jpg", b"4"), ("a//y.jpg", b"5")]
    store = open_store(make(tmp_path / ("d.zip" if make is put_zip else "d.tar"), members))
    assert sorted(problems_of(store)) == ["x.jpg (2)", "x.jpg (3)"]
    assert problems_of(store)["x.jpg (2)"] == "has the same name as an earlier file in its archive; rename one of them"
    assert store.read("x.jpg") == b"1"
    assert store.read("x.jpg (2)/y.jpg") == b"4"
    assert store.read("a/y.jpg") == b"5"
    with pytest.raises(ValueError, match=r"^x.jpg \(3\) has the same name"):
        store.read("x.jpg (3)")


def test_links_devices_and_sparse_files_in_a_tar_are_problems(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "l.tar", "w") as archive:
        archive.addfile(_sized("real.jpg", 4), io.BytesIO(b"real"))
        for name, kind in [("sym.jpg", tarfile.SYMTYPE), ("hard.jpg", tarfile.LNKTYPE), ("fifo.jpg", tarfile.FIFOTYPE),
                           ("dev.jpg", tarfile.CHRTYPE), ("dir.jpg", tarfile.DIRTYPE), ("sym.txt", tarfile.SYMTYPE)]:  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        sparse = _sized("sparse.jpg", 4)
        sparse.pax_headers = {"GNU.sparse.map": "0,4", "GNU.sparse.size": "9", "GNU.sparse.numblocks": "1"}
        archive.addfile(sparse, io.BytesIO(b"data"))
    store = open_store(tmp_path / "l.tar")
    link = "is a link or device in an archive; put the file itself there"
    assert problems_of(store) == {
        "sym.jpg": link, "hard.jpg": link, "fifo.jpg": link, "dev.jpg": link,
        "sparse.jpg": "is a sparse file in a tar; make the tar again without --sparse",
    }  # fmt: skip
    assert store.read("real.jpg") == b"real"
    assert store.ignored() == {".txt": 1}
    with pytest.raises(ValueError, match=r"^sym.jpg is a link or device in an archive.*; it was not opened"):
        store.read("sym.jpg")


def _sized(name: str, n_bytes: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = n_bytes
    return info


def test_links_in_a_zip_and_unknown_compression_are_problems(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "l.zip", "w") as archive:
        link = zipfile.ZipInfo("link.jpg")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("lzma.jpg", b"x", zipfile.ZIP_LZMA)
        archive.writestr("folder.jpg/", b"")
        archive.writestr("ok.jpg", b"ok")
    store = open_store(tmp_path / "l.zip")
    assert problems_of(store) == {
        "link.jpg": "is a link or device in an archive; put the file itself there",
        "lzma.jpg": "is compressed by method 14; make the zip again with the usual one (deflate)",
    }
    assert paths_of(store) == ["link.jpg", "lzma.jpg", "ok.jpg"]


def test_odd_names_in_archives_are_problems(tmp_path: Path) -> None:
    put_tar(
        tmp_path / "t.tar", [("\udcff.jpg", b"1"), ("a\nb.jpg", b"2"), (r"\xff.jpg", b"3")], form=tarfile.GNU_FORMAT
    )
    file = put_zip(tmp_path / "z.zip", [("nXl.jpg.txt", b"1"), ("tab\t.jpg", b"2"), ("p" * 300 + "/ü.jpg", b"3")])
    file.write_bytes(file.read_bytes().replace(b"nXl.jpg.txt", b"n\0l.jpg.jpg"))
    store = open_store(tmp_path)
    not_utf8, control = "has a name that is not UTF-8; rename it", "has a control character in its name; rename it"
    assert problems_of(store) == {
        r"t.tar/\xff.jpg (2)": not_utf8, r"t.tar/a\nb.jpg": control,
        r"z.zip/n\x00l.jpg.jpg": control, r"z.zip/tab\t.jpg": control,
    }  # fmt: skip
    assert store.read(r"t.tar/\xff.jpg") == b"3"
    assert store.read("z.zip/" + "p" * 300 + "/ü.jpg") == b"3"
    with pytest.raises(ValueError, match="not UTF-8; rename it; it was not opened"):
        store.read(r"t.tar/\xff.jpg (2)")


def test_zip_names_without_the_utf8_flag_are_taken_as_zipfile_reads_them(tmp_path: Path) -> None:
    file = put_zip(tmp_path / "z.zip", [("X.jpg", b"1")])
    file.write_bytes(file.read_bytes().replace(b"X.jpg", b"\x81.jpg"))  # ü in code page 437
    assert all_bytes(open_store(file)) == {"ü.jpg": b"1"}


def encrypted(file: Path) -> Path:
    """A zip whose members claim to be encrypted: bit 0 of the flags in both headers."""
    data = bytearray(put_zip(file, [("x.jpg", b"secret")]).read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    file.write_bytes(data)
    return file


def cut(file: Path, n_kept: int) -> Path:
    file.write_bytes(file.read_bytes()[:n_kept])
    return file


def spoilt(file: Path, offset: int) -> Path:
    data = bytearray(file.read_bytes())
    data[offset] ^= 0xFF
    file.write_bytes(data)
    return file


def negative(file: Path) -> Path:
    """A tar whose second header tells a size of -1024: a reader that trusts it never ends."""
    info = _sized("b.jpg", 0)
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    head[124:136] = (-1024).to_bytes(12, "big", signed=True)
    head[148:156] = b" " * 8
    head[148:156] = f"{sum(head[:512]):06o}\0 ".encode()
    put_tar(file, [("a.jpg", b"1")])
    data = file.read_bytes()
    file.write_bytes(data[:1024] + bytes(head) + data[1024:])
    return file


BROKEN: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "encrypted": ("x.zip", encrypted, "it is encrypted"),
    "a cut zip": ("x.zip", lambda f: cut(put_zip(f, [("x.jpg", NOISE)]), 30_000), "File is not a zip file"),
    "an empty zip": ("x.zip", lambda f: cut(put_zip(f, []), 0), "File is not a zip file"),
    "text as zip": ("x.zip", lambda f: put(f.parent, {f.name: b"text"}) / f.name, "File is not a zip file"),
    "a wrong name in UTF-8": (
        "x.zip", lambda f: put(f.parent, {f.name: put_zip(f, [("ü.jpg", b"")]).read_bytes().replace("ü".encode(), b"\xff\xff")})
        / f.name, "'utf-8' codec can't decode"),
    "text as tar": ("x.tar", lambda f: put(f.parent, {f.name: b"text" * 999}) / f.name, ""),
    "an empty tar": ("x.tar", lambda f: put(f.parent, {f.name: b""}) / f.name, "empty file"),
    "a tar cut in a file": ("x.tar", lambda f: cut(put_tar(f, [("x.jpg", NOISE)]), 30_000), "it is cut off"),
    "a tar cut between files": ("x.tar", lambda f: cut(put_tar(f, [("x.jpg", b"1"), ("y.jpg", b"2")]), 1024), "it is cut off"),
    "a spoilt header": ("x.tar", lambda f: spoilt(put_tar(f, [("x.jpg", b"1"), ("y.jpg", b"2")]), 1030), "damaged in its middle"),
    "two tars in one": (
        "x.tar",
        lambda f: put(f.parent, {f.name: put_tar(f, [("x.jpg", b"1")]).read_bytes() * 2}) / f.name,
        "something follows its end; two archives in one file must be taken apart",
    ),
    "a negative size": ("x.tar", negative, "a header tells a wrong size"),
    "a cut tar.gz": ("x.tar.gz", lambda f: cut(put_tar(f, [("x.jpg", NOISE)], "w:gz"), 30_000), "ended before"),
    "a spoilt tar.gz": ("x.tar.gz", lambda f: spoilt(put_tar(f, [("x.jpg", NOISE)], "w:gz"), 30_000), ""),
    "a cut tar.bz2": ("x.tar.bz2", lambda f: cut(put_tar(f, [("x.jpg", NOISE)], "w:bz2"), 30_000), "ended before"),
    "a cut tar.xz": ("x.tar.xz", lambda f: cut(put_tar(f, [("x.jpg", NOISE)], "w:xz"), 30_000), "ended before"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_archive_is_one_problem_in_a_folder_and_refused_as_a_root(
    tmp_path: Path, case: str, home: Path
) -> None:
    name, make, reason = BROKEN[case]
    make(tmp_path / name)
    put(tmp_path, {"ok.jpg": b"ok"})
    store = open_store(tmp_path)
    assert paths_of(store) == ["ok.jpg", name]
    problem = problems_of(store)[name]
    assert problem.startswith("is an archive that can't be opened (")
    assert reason in problem
    assert str(tmp_path) not in problem
    assert "\n" not in problem
    assert not store.has(f"{name}/x.jpg")
    with pytest.raises(ValueError, match=rf"^{name} is an archive that can't be opened \(.*\); make or copy it again$"):
        store.read(f"{name}/x.jpg")
    with pytest.raises(ValueError, match=rf"^the archive .*/{name} can't be opened \(.*\); make or copy it again$"):
        open_store(tmp_path / name)
    assert not list(home.glob("archives/.*"))  # nothing half unpacked


@pytest.mark.parametrize("n_kept", range(0, 700, 7))
def test_an_archive_cut_anywhere_never_passes_as_whole(tmp_path: Path, n_kept: int) -> None:
    members = [("a.jpg", NOISE[:100]), ("b.jpg", b"")]
    for name in ("x.zip", "x.tar.gz"):
        file = put_any(tmp_path / name, members)
        if n_kept < file.stat().st_size:
            with pytest.raises(ValueError, match="can't be opened"):
                open_store(cut(file, n_kept))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
@pytest.mark.parametrize("offset", [0, 40, 5000, 40_000])
def test_a_spoilt_member_is_noticed_when_it_is_read(tmp_path: Path, method: int, offset: int) -> None:
    file = spoilt(put_zip(tmp_path / "x.zip", [("x.jpg", NOISE), ("y.jpg", b"y")], method), offset)
    store = open_store(file)
    with pytest.raises(ValueError, match=r"^x.jpg is damaged in its archive \(.*\); restore the archive$"):
        store.read("x.jpg")
    assert store.read("y.jpg") == b"y"


def test_a_zip_with_something_before_it_is_read(tmp_path: Path) -> None:
    file = put_zip(tmp_path / "x.zip", [("x.jpg", b"1")])
    file.write_bytes(b"#!/bin/sh\n" + file.read_bytes())
    assert all_bytes(open_store(file)) == {"x.jpg": b"1"}
