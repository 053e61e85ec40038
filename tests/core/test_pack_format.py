"""Packs: the same images by the same paths in files that any tar program reads; anything wrong is refused."""

import csv
import hashlib
import json
import os
import tarfile
from pathlib import Path

import pytest
from made_stores import FILES, NOISE, all_bytes, paths_of, put, put_tar, put_zip

from tasks.core.store import FolderStore, Store, open_store, write_pack


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Four images of 3, 2997, 5 and 0 bytes in shards of three."""
    write_pack(open_store(put(tmp_path / "raw", FILES)), list(FILES), tmp_path / "pack", 3)
    return tmp_path / "pack"


def test_a_pack_holds_the_same_images_by_the_same_paths(packed: Path, tmp_path: Path) -> None:
    store, folder = open_store(packed), open_store(tmp_path / "raw")
    assert store.entries() == folder.entries()
    assert all_bytes(store) == FILES
    assert store.ignored() == {}
    assert store.has("top.webp")
    assert not store.has("cat")
    for path in ("zzz.jpg", "aaa.jpg", "cat/1.jp"):
        with pytest.raises(FileNotFoundError, match=f"^{path} is missing"):
            store.read(path)


def test_any_tar_program_reads_the_shards_and_the_index_is_right(packed: Path) -> None:
    assert sorted(path.name for path in packed.iterdir()) == [
        "index.csv",
        "pack.json",
        "shard-00000.tar",
        "shard-00001.tar",
    ]
    found = {}
    for k in range(2):
        with tarfile.open(packed / f"shard-{k:05d}.tar") as shard:
            for info in shard:
                assert (info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode) == (0, 0, 0, "", "", 0o644)
                found[info.name] = shard.extractfile(info).read()  # type: ignore[union-attr]
    assert found == FILES
    assert list(found) == sorted(FILES)
    with (packed / "index.csv").open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["path"] for row in rows] == sorted(FILES)
    for row in rows:
        data = (packed / row["shard"]).read_bytes()[int(row["offset"]) :][: int(row["n_bytes"])]
        assert data == FILES[row["path"]]
        assert row["content_id"] == hashlib.sha256(data).hexdigest()[:16]
    head = json.loads((packed / "pack.json").read_text())
    shards = [packed / f"shard-{k:05d}.tar" for k in range(2)]
    assert head == {
        "format": "acclimate-pack", "version": 1, "n_images": 4, "images_per_shard": 3,
        "shards": [
            {"file": f.name, "n_bytes": f.stat().st_size, "sha256": hashlib.sha256(f.read_bytes()).hexdigest()} for f in shards
        ],
    }  # fmt: skip


def test_the_same_images_give_the_same_pack(packed: Path, tmp_path: Path) -> None:
    put_tar(tmp_path / "raw.tar", list(reversed(FILES.items())))
    write_pack(open_store(tmp_path / "raw.tar"), list(reversed(FILES)), tmp_path / "again", 3)
    for file in packed.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()
    write_pack(open_store(packed), list(FILES), tmp_path / "third", 3)  # a pack of a pack
    assert (tmp_path / "third" / "pack.json").read_bytes() == (packed / "pack.json").read_bytes()


def test_long_names_survive_a_pack(tmp_path: Path) -> None:
    files = {f"{'ordner/' * 40}日本 {'x' * 200}.jpg": b"long", f"{'a' * 101}.jpg": b"101"}
    write_pack(open_store(put(tmp_path / "raw", files)), list(files), tmp_path / "pack", 10)
    assert all_bytes(open_store(tmp_path / "pack")) == files
    with tarfile.open(tmp_path / "pack" / "shard-00000.tar") as shard:
        assert sorted(shard.getnames()) == sorted(files)


@pytest.mark.parametrize("path", ["cat/1.jpg", "cat/2.PNG", "dog/ä b,\"c'.jpeg"])
def test_a_flipped_bit_in_a_shard_is_noticed(packed: Path, path: str) -> None:
    shard = next(f for f in sorted(packed.glob("*.tar")) if FILES[path] in f.read_bytes())
    data = bytearray(shard.read_bytes())
    data[data.index(FILES[path]) + 1] ^= 1
    shard.write_bytes(data)
    store = open_store(packed)
    with pytest.raises(
        ValueError, match=r"in shard-0000\d.tar is not what the pack's index tells \(content_id\)"
    ) as error:
        store.read(path)
    assert str(error.value).startswith(path)
    assert store.read("top.webp") == b""


def test_columns_of_ones_own_and_another_order_of_columns_are_fine(packed: Path) -> None:
    with (packed / "index.csv").open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    with (packed / "index.csv").open("w", newline="", encoding="utf-8") as handle:
        table = csv.DictWriter(handle, ["label", "content_id", "n_bytes", "path", "offset", "shard", "note"])
        table.writeheader()
        table.writerows(row | {"label": "a,b", "note": "two\nlines"} for row in rows)
    assert all_bytes(open_store(packed)) == FILES


HEADS: dict[str, tuple[dict[str, object] | str, str]] = {
    "not json": ("{", r"pack.json can't be read \(JSONDecodeError\)"),
    "deep": ("[" * 100_000, r"pack.json can't be read \(RecursionError\)"),
    "a list": ("[]", 'is not of format "acclimate-pack"; a folder of images must hold no other file of that name'),
    "another format": ({"format": "x"}, 'is not of format "acclimate-pack"'),
    "a later version": ({"version": 2}, "has version 2; this program reads version 1; take a newer program"),
    "no version": ({"version": None}, "has version None; this program reads version 1"),
    "another count": ({"n_images": 5}, "index.csv has 4 rows where pack.json counts 5 images; copy or make the pack again"),
    "no count": ({"n_images": True}, "pack.json must have n_images and shards"),
    "no shards": ({"shards": {}}, "pack.json must have n_images and shards"),
    "a shard outside": ({"shards": [{"file": "../x", "n_bytes": 1, "sha256": ""}]}, "pack.json must have n_images and shards"),
    "a shard of no name": ({"shards": [{"n_bytes": 1, "sha256": ""}]}, "pack.json must have n_images and shards"),
    "two shards absent": (
        {"shards": [{"file": f, "n_bytes": 1, "sha256": ""} for f in "ab"]}, "damaged: a is missing; b is missing; copy or make"),
    "fewer shards": ({"shards": []}, "index.csv line 2 is not shard, offset, n_bytes, content_id of an image"),
}  # fmt: skip


@pytest.mark.parametrize("case", HEADS)
def test_a_pack_with_a_wrong_head_is_refused(packed: Path, case: str) -> None:
    change, told = HEADS[case]
    head = json.loads((packed / "pack.json").read_text())
    (packed / "pack.json").write_text(change if isinstance(change, str) else json.dumps(head | change))
    with pytest.raises(ValueError, match=told):
        open_store(packed)


def test_a_pack_without_a_whole_shard_is_refused(packed: Path) -> None:
    shard = packed / "shard-00001.tar"
    n_bytes = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"shard-00001.tar has {n_bytes - 1:,} bytes where {n_bytes:,} are told"):
        open_store(packed)
    shard.unlink()
    with pytest.raises(
        ValueError, match=r"the pack .* is damaged: shard-00001.tar is missing; copy or make the pack again"
    ):
        open_store(packed)
    os.mkfifo(shard)
    with pytest.raises(ValueError, match=r"shard-00001.tar is missing"):
        open_store(packed)


ID = "0" * 16
INDEXES = {
    "": "must have one column path, shard, offset, n_bytes, content_id",
    "path,shard,offset\n": "must have one column n_bytes, content_id",
    "path,path,shard,offset,n_bytes,content_id\n": "must have one column path;",
    f"HEAD\na.jpg,S,0,1,{ID}\na.jpg,S,0,1,{ID}\n": "line 3: 'a.jpg' stands there twice",
    f"HEAD\nb.jpg,S,0,1,{ID}\na.jpg,S,0,1,{ID}\n": "line 3: 'a.jpg' is not in the order of the paths",
    f"HEAD\n../a.jpg,S,0,1,{ID}\n": r"line 2: '../a.jpg' is not a plain path",
    f"HEAD\n/a.jpg,S,0,1,{ID}\n": "line 2: '/a.jpg' is not a plain path",
    f'HEAD\n"a\nb.jpg",S,0,1,{ID}\n': "is not a plain path",
    f"HEAD\n,S,0,1,{ID}\n": "line 2: '' is not a plain path",
    f"HEAD\na.jpg,shard-9.tar,0,1,{ID}\n": "line 2 is not shard, offset",
    f"HEAD\na.jpg,S,-1,1,{ID}\n": "line 2 is not shard, offset",
    f"HEAD\na.jpg,S,0,1.0,{ID}\n": "line 2 is not shard, offset",
    f"HEAD\na.jpg,S,0,{'9' * 30},{ID}\n": "line 2 is not shard, offset",
    f"HEAD\na.jpg,S,0,1,{ID[1:]}\n": "line 2 is not shard, offset",
    f"HEAD\na.jpg,S,0,999999,{ID}\n": "line 2: 'a.jpg' lies beyond the end of shard-00000.tar",
    f"HEAD\na.jpg,S,0,1,{ID},more\n": "line 2 has 6 of 5 fields",
    "HEAD\na.jpg,S\n": "line 2 has 2 of 5 fields",
    'HEAD\n"a.jpg': r"index.csv can't be read \(Error\)",
    "HEAD\n\udcff,S,0,1,2\n": r"index.csv can't be read \(UnicodeDecodeError\)",
}


@pytest.mark.parametrize("text", INDEXES)
def test_a_pack_with_a_wrong_index_is_refused(packed: Path, text: str) -> None:
    text_in_full = text.replace("HEAD", "path,shard,offset,n_bytes,content_id").replace(",S", ",shard-00000.tar")
    (packed / "index.csv").write_bytes(text_in_full.encode("utf-8", "surrogateescape"))
    with pytest.raises(
        ValueError, match=r"the pack .* is damaged: index.csv .*; copy or make the pack again$"
    ) as error:
        open_store(packed)
    error.match(INDEXES[text])


def test_a_pack_without_its_index_is_refused(packed: Path) -> None:
    (packed / "index.csv").unlink()
    with pytest.raises(ValueError, match=r"index.csv can't be read \(FileNotFoundError\); copy or make the pack again"):
        open_store(packed)


def test_everything_that_cannot_be_packed_is_told_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    root = put(tmp_path / "raw", {"ok.jpg": b"", "twice.jpg": b""})
    os.mkfifo(root / "pipe.jpg")
    put_tar(root / "bad.tar", [("x.jpg", b"1")]).write_bytes(b"no tar")
    store = open_store(root)
    paths = [*paths_of(store), "twice.jpg", "gone.jpg", "../out.jpg"]
    with pytest.raises(ValueError, match=r"^5 image\(s\) can't be packed, and no pack was written: ") as error:
        write_pack(store, paths, tmp_path / "pack", 10)
    for told in ("'../out.jpg' is not a plain path", "bad.tar is an archive that can't", "gone.jpg is missing",
                 "pipe.jpg is a pipe", "twice.jpg is named twice"):  # fmt: skip
        error.match(told)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


def test_images_that_turn_out_unreadable_leave_no_pack(tmp_path: Path) -> None:
    file = put_zip(tmp_path / "x.zip", [("x.jpg", NOISE), ("y.jpg", b"y"), ("z.jpg", NOISE)])
    data = bytearray(file.read_bytes())
    data[500] ^= 1
    data[-1000] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"^2 image\(s\) can't be packed.* x.jpg is damaged .*; z.jpg is damaged"):
        write_pack(open_store(file), ["x.jpg", "y.jpg", "z.jpg"], tmp_path / "pack", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


def test_a_pack_is_never_written_over_something(tmp_path: Path) -> None:
    root = put(tmp_path / "raw", FILES)
    store: Store = FolderStore(root)
    for out in (root, root / "top.webp"):
        with pytest.raises(ValueError, match=r"is not empty; name a folder that does not exist yet$"):
            write_pack(store, list(FILES), out, 10)
    assert all_bytes(FolderStore(root)) == FILES
    (tmp_path / "empty").mkdir()
    write_pack(store, list(FILES), tmp_path / "empty", 10)
    assert all_bytes(open_store(tmp_path / "empty")) == FILES


def test_a_pack_of_nothing_or_of_no_shards_is_refused(tmp_path: Path) -> None:
    store = open_store(put(tmp_path / "raw", FILES))
    with pytest.raises(ValueError, match="there is no image to pack; name at least one"):
        write_pack(store, [], tmp_path / "pack", 10)
    with pytest.raises(ValueError, match="images_per_shard is 0; at least 1 image stands in a shard"):
        write_pack(store, list(FILES), tmp_path / "pack", 0)
