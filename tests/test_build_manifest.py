"""build_manifest from params.yaml to data/manifest.csv, and what it says where that cannot be."""

import hashlib
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pandas as pd
import pytest

from tasks import build_manifest
from tasks.core.manifest import read_manifest
from tasks.core.store import open_store, write_pack

Go = Callable[[dict[str, Any]], Path]
MANIFEST, LABELS = Path("data/manifest.csv"), Path("data/given/labels.csv")
HEADER = "path,label,domain,split,group,slant\n"


def sha16(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.fixture
def params(shipped: dict[str, Any]) -> dict[str, Any]:
    """Domains ink and pen under images/, named by images.csv with an audit column."""
    shipped["build_manifest"] |= {
        "root": "images", "table": "images.csv", "audit_columns": ["slant"], "source_domains": ["ink"], "target_domain": "pen",
    }  # fmt: skip
    shipped["audit_bias"] |= {"rules": [], "columns_explained": {}, "threshold_optimizer": None}
    return shipped


@pytest.fixture
def of_folders(params: dict[str, Any]) -> dict[str, Any]:
    """The same without a table: the folders of images/ are domain and class."""
    params["build_manifest"] |= {"table": "images", "layout": "domain/label", "audit_columns": []}
    return params


def images(folder: Path, *paths: str) -> None:
    for path in paths:
        place = folder / "images" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(path)


def built(*columns: str) -> list[list[str]]:
    build_manifest.main()
    return read_manifest(MANIFEST)[list(columns)].to_numpy().tolist()


def test_a_table_becomes_the_manifest(params: dict[str, Any], go_with: Go) -> None:
    folder = go_with(params)
    images(folder, "2.png", "1.png", "3.png")
    table = "2.png,b,pen,Testing,w1,left\n1.png,a,ink,,,\n3.png,c,chalk,,,left\n"
    (folder / "images.csv").write_text(HEADER + table)
    build_manifest.main()
    assert MANIFEST.read_text().splitlines() == [
        "image_id,content_id,path,domain,origin,split,group_id,label,problem,audit_slant",
        f"{sha16('1.png')},{sha16('1.png')},1.png,source,ink,,{sha16('1.png')},a,,",
        f"{sha16('2.png')},{sha16('2.png')},2.png,target,pen,test,w1,b,,left",
    ]


def test_parquet_and_csv_give_the_same_manifest(params: dict[str, Any], go_with: Go) -> None:
    folder = go_with(params)
    images(folder, "1.png", "2.png")
    (folder / "images.csv").write_text(HEADER + "1.png,7,ink,,,\n2.png,8,pen,train,3,\n")
    build_manifest.main()
    from_csv = MANIFEST.read_bytes()
    table = pd.DataFrame(
        {"path": ["2.png", "1.png"], "label": [8, 7], "domain": ["pen", "ink"], "split": ["train", None]}
    )
    table.assign(group=[3.0, None], slant=[None, None]).to_parquet(folder / "images.parquet")
    params["build_manifest"]["table"] = "images.parquet"
    go_with(params)
    build_manifest.main()
    assert MANIFEST.read_bytes() == from_csv


def test_folders_become_the_manifest(of_folders: dict[str, Any], go_with: Go) -> None:
    images(go_with(of_folders), "ink/a/1.jpg", "ink/b/2.jpg", "pen/3.jpg", "pen/a/4.jpg", "chalk/a/5.jpg")
    assert built("path", "domain", "label") == [
        ["ink/a/1.jpg", "source", "a"],
        ["ink/b/2.jpg", "source", "b"],
        ["pen/3.jpg", "target", ""],
        ["pen/a/4.jpg", "target", "a"],
    ]


@pytest.mark.parametrize(
    ("layout", "paths", "rows"),
    [
        ("domain/split/label", ["ink/train/a/1.png", "ink/valid/b/2.png", "pen/test/a/3.png"],
         [["source", "train", "a", ""], ["source", "val", "b", ""], ["target", "test", "a", ""]]),
        ("split/domain/label", ["train/ink/a/1.png", "test/pen/a/3.png"],
         [["target", "test", "a", ""], ["source", "train", "a", ""]]),
        ("-/domain/label/group", ["x/ink/a/w1/1.png", "y/pen/b/w2/deep/2.png"],
         [["source", "", "a", "w1"], ["target", "", "b", "w2"]]),
    ],
)  # fmt: skip
def test_folder_levels_mean_what_the_layout_says(
    of_folders: dict[str, Any], go_with: Go, layout: str, paths: list[str], rows: list[list[str]]
) -> None:
    of_folders["build_manifest"]["layout"] = layout
    images(go_with(of_folders), *paths)
    found = built("domain", "split", "label", "group_id", "image_id")
    assert [[*row[:3], "" if row[3] == row[4] else row[3]] for row in found] == rows


def test_folders_archives_and_packs_of_the_same_images_differ_in_no_byte(
    of_folders: dict[str, Any], go_with: Go
) -> None:
    folder = go_with(of_folders)
    images(folder, "ink/a/1.jpg", "ink/b/2.jpg", "pen/a/3.jpg")
    build_manifest.main()
    plain = MANIFEST.read_bytes()
    store = open_store(folder / "images")
    write_pack(store, [entry.path for entry in store.entries()], folder / "pack", 2)
    with ZipFile(folder / "images.zip", "w") as archive:
        for entry in store.entries():
            archive.write(folder / "images" / entry.path, entry.path)
    with tarfile.open(folder / "images.tar.gz", "w:gz") as archive:
        archive.add(folder / "images", "images")
    for root in ("pack", "images.zip", "images.tar.gz"):
        of_folders["build_manifest"] |= {"root": root, "table": root}
        go_with(of_folders)
        build_manifest.main()
        assert MANIFEST.read_bytes() == plain, root


def test_archives_in_the_root_are_domains(of_folders: dict[str, Any], go_with: Go) -> None:
    folder = go_with(of_folders)
    images(folder, "ink/a/1.jpg")
    with ZipFile(folder / "images/pen.zip", "w") as archive:
        archive.writestr("pen/a/2.jpg", "2")
        archive.writestr("pen/../../evil.jpg", "3")
    assert built("path", "origin", "label")[0] == ["ink/a/1.jpg", "ink", "a"]
    rows = read_manifest(MANIFEST).set_index("path")
    assert rows.loc["pen.zip/pen/a/2.jpg", ["origin", "label", "content_id"]].tolist() == ["pen", "a", sha16("2")]
    odd = rows[rows["problem"] != ""]
    assert len(odd) == 1
    assert set(odd["content_id"]) == {""}
    assert not (folder.parent / "evil.jpg").exists()


def test_a_damaged_archive_is_a_row_with_its_problem(of_folders: dict[str, Any], go_with: Go) -> None:
    of_folders["build_manifest"] |= {"layout": "domain/label"}
    folder = go_with(of_folders)
    images(folder, "ink/a/1.jpg", "pen/a/2.jpg", "pen/more.zip")
    rows = {row[0]: row[1:] for row in built("path", "content_id", "problem")}
    assert rows["pen/more.zip"][0] == ""
    assert rows["pen/more.zip"][1].startswith("is an archive that can't be opened")


def test_files_that_are_no_images_are_counted_aloud(
    of_folders: dict[str, Any], go_with: Go, capsys: pytest.CaptureFixture[str]
) -> None:
    images(go_with(of_folders), "ink/a/1.jpg", "pen/2.jpg", "ink/x.TXT", "y.txt", "pen/README", ".hidden.txt")
    build_manifest.main()
    assert "files that are no images were left out: 1 without ending, 2 .txt" in capsys.readouterr().out


def test_odd_places_become_rows_with_a_problem_and_are_never_opened(params: dict[str, Any], go_with: Go) -> None:
    folder = go_with(params)
    images(folder, "a/1.png", "2.png")
    (folder / "secret.png").write_text("secret")
    places = ["a/1.png", "../secret.png", f"{folder}/secret.png", '"new\nline.png"', "", "gone.png", "a"]
    lines = [f"{place},x,{'pen' if k else 'ink'},,,\n" for k, place in enumerate(places)]
    (folder / "images.csv").write_text(HEADER + "".join(lines) + f"{folder}/images/2.png,x,pen,,,\n")
    rows = {row[0]: row[1:] for row in built("path", "content_id", "problem")}
    outside = "leads outside the root; it was not opened"
    absolute = "leads outside the root: it is absolute, so write it relative to the root; it was not opened"
    assert rows == {
        "a/1.png": [sha16("a/1.png"), ""], "2.png": [sha16("2.png"), ""], "gone.png": ["", ""], "a": ["", ""],
        "": ["", "is empty"], "../secret.png": ["", outside], f"{folder}/secret.png": ["", absolute],
        r"new\nline.png": ["", "has a control character in its name; rename it"],
    }  # fmt: skip


def test_people_s_later_labels_are_taken_in(params: dict[str, Any], go_with: Go) -> None:
    folder = go_with(params)
    images(folder, "1.png", "2.png", "3.png")
    table = "1.png,a,ink,,,\n2.png,,pen,unlabelled,,\n3.png,b,pen,test,,\n"
    (folder / "images.csv").write_text(HEADER + table)
    LABELS.write_text(
        "path,label,by,on\n2.png,c,Ada,2026-01-01\n2.png,a,Ada,2026-01-02\n3.png,,Ada,2026-01-02\nx.png,a,Ada,2026-01-02\n"
    )
    assert built("path", "label", "split") == [["1.png", "a", ""], ["2.png", "a", ""], ["3.png", "", "test"]]


def test_answers_to_the_guard_leave_every_byte_of_the_manifest(params: dict[str, Any], go_with: Go) -> None:
    folder = go_with(params)
    images(folder, "1.png", "2.png", "3.png")
    (folder / "images.csv").write_text(HEADER + "1.png,a,ink,,,\n2.png,,pen,unlabelled,,\n3.png,b,pen,test,,\n")
    header, ordinary = "path,label,by,on,asked_of\n", "3.png,a,Ada,2026-01-01,\n"
    LABELS.write_text(header + ordinary)
    build_manifest.main()
    before = MANIFEST.read_bytes()
    LABELS.write_text(
        header + "3.png,b,Ada,2026-01-01,p1\n" + ordinary + "2.png,a,Ada,2026-01-02,p1\n3.png,,Ada,2026-01-02,p1\n"
    )
    build_manifest.main()
    assert MANIFEST.read_bytes() == before
    assert read_manifest(MANIFEST)["label"].tolist() == ["a", "", "a"]


def test_missing_given_labels_are_told(params: dict[str, Any], go_with: Go) -> None:
    folder = go_with(params)
    images(folder, "1.png", "2.png")
    (folder / "images.csv").write_text(HEADER + "1.png,a,ink,,,\n2.png,a,pen,,,\n")
    LABELS.unlink()
    with pytest.raises(FileNotFoundError, match=r"data/given/labels.csv is missing: it holds people's labels"):
        build_manifest.main()


def test_the_manifest_does_not_depend_on_the_order_of_the_table(params: dict[str, Any], go_with: Go) -> None:
    params["build_manifest"]["max_per_class"]["source"] = 3
    folder = go_with(params)
    rows = [f"{d}{i}.png,{'ab'[i % 2]},{d},,," for d in ("ink", "pen") for i in range(12)]
    images(folder, *(row.split(",")[0] for row in rows))
    written = []
    for order in (rows, rows[::-1]):
        (folder / "images.csv").write_text("\n".join([HEADER.strip(), *order]) + "\n")
        build_manifest.main()
        written.append(MANIFEST.read_bytes())
    assert written[0] == written[1]
    assert written[0].count(b",source,") == 6


def test_the_manifest_holds_nothing_of_the_machine(params: dict[str, Any], go_with: Go) -> None:
    folder = go_with(params)
    images(folder, "1.png", "2.png")
    (folder / "images.csv").write_text(HEADER + f"{folder}/images/1.png,a,ink,,,\n./2.png,a,pen,,,\n")
    build_manifest.main()
    assert str(folder) not in MANIFEST.read_text()
    assert read_manifest(MANIFEST)["path"].tolist() == ["1.png", "2.png"]


def test_audit_columns_need_a_table(of_folders: dict[str, Any], go_with: Go) -> None:
    of_folders["build_manifest"]["audit_columns"] = ["slant"]
    images(go_with(of_folders), "ink/a/1.jpg", "pen/2.jpg")
    with pytest.raises(
        ValueError, match=r"build_manifest.audit_columns \['slant'\] need a table: folders carry no columns"
    ):
        build_manifest.main()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "build_manifest.root: images does not exist; name a folder of images, a pack, or an archive"),
        ("just text", "build_manifest.root: images is neither a folder, an archive nor a pack; name"),
    ],
)
def test_a_root_that_is_none_is_told(params: dict[str, Any], go_with: Go, content: str | None, words: str) -> None:
    folder = go_with(params)
    if content:
        (folder / "images").write_text(content)
    with pytest.raises(ValueError, match=words):
        build_manifest.main()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (None, r"the image table images.csv is not a file; name a CSV or Parquet file"),
        (
            "path,label\n1.png,a\n",
            r"the image table has no column 'domain', 'split', 'group', 'slant'; it has path, label",
        ),
        (
            HEADER + "1.png,a,ink,,,\n2.png,a,Pen,,,\n",
            r"no image of domain 'pen' was found; there are 'Pen', 'ink'; mend",
        ),
        (HEADER + "1.png,a,ink,trian,,\n2.png,a,pen,,,\n", r"split 'trian' is unknown; allowed are train, val"),
        (HEADER + "1.png,a,ink,,,\n./1.png,a,pen,,,\n", r"1 path\(s\) are listed more than once, the first: '1.png'"),
        (HEADER + "1.png,a,ink,,,\n2.png,a,pen,,\n", r"images.csv: 1 line\(s\) have not as many fields as the header"),
        (HEADER, r"no image of domain 'ink', 'pen' was found; there are no images at all"),
    ],
)
def test_a_problem_is_told_and_leaves_the_old_manifest(
    params: dict[str, Any], go_with: Go, table: str | None, words: str
) -> None:
    folder = go_with(params)
    images(folder, "1.png", "2.png")
    MANIFEST.write_text("old")
    if table is not None:
        (folder / "images.csv").write_text(table)
    with pytest.raises(ValueError, match=words) as caught:
        build_manifest.main()
    assert "\n" not in str(caught.value)
    assert MANIFEST.read_text() == "old"
