"""build_manifest from params.yaml to data/manifest.csv, and what it says where that cannot be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks import build_manifest
from tasks.core.files import text_sha256
from tasks.core.manifest import read_manifest

Go = Callable[[dict[str, Any]], Path]
MANIFEST = Path("data/manifest.csv")


@pytest.fixture
def params(shipped: dict[str, Any]) -> dict[str, Any]:
    """Domains ink and pen under images/, named by images.csv with an audit column."""
    shipped["build_manifest"] |= {
        "root": "images", "table": "images.csv", "audit_columns": ["slant"], "source_domains": ["ink"], "target_domain": "pen",
    }  # fmt: skip
    shipped["audit_bias"]["rules"] = []
    return shipped


def images(folder: Path, *paths: str) -> None:
    for path in paths:
        place = folder / "images" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(path)


def test_a_table_becomes_the_manifest(params: dict[str, Any], go_with: Go) -> None:
    folder = go_with(params)
    images(folder, "2.png", "1.png", "3.png")
    table = "path,label,domain,split,group,slant\n2.png,b,pen,test,w1,left\n1.png,a,ink,,,\n3.png,c,chalk,,,left\n"
    (folder / "images.csv").write_text(table)
    build_manifest.main()
    assert MANIFEST.read_text().splitlines() == [
        "image_id,content_id,path,domain,origin,split,group_id,label,audit_slant",
        f"{text_sha256('1.png')[:16]},{text_sha256('1.png')[:16]},1.png,source,ink,,{text_sha256('1.png')[:16]},a,",
        f"{text_sha256('2.png')[:16]},{text_sha256('2.png')[:16]},2.png,target,pen,test,w1,b,left",
    ]


def test_folders_become_the_manifest(params: dict[str, Any], go_with: Go) -> None:
    params["build_manifest"] |= {"table": "images", "audit_columns": []}
    images(go_with(params), "ink/a/1.jpg", "ink/b/2.jpg", "pen/3.jpg", "pen/a/4.jpg", "chalk/a/5.jpg")
    build_manifest.main()
    assert read_manifest(MANIFEST)[["path", "domain", "label"]].to_numpy().tolist() == [
        ["ink/a/1.jpg", "source", "a"],
        ["ink/b/2.jpg", "source", "b"],
        ["pen/3.jpg", "target", ""],
        ["pen/a/4.jpg", "target", "a"],
    ]


def test_the_manifest_does_not_depend_on_the_order_of_the_table(params: dict[str, Any], go_with: Go) -> None:
    params["build_manifest"]["max_per_class"]["source"] = 3
    folder = go_with(params)
    rows = [f"{d}{i}.png,{'ab'[i % 2]},{d},,," for d in ("ink", "pen") for i in range(12)]
    images(folder, *(row.split(",")[0] for row in rows))
    written = []
    for order in (rows, rows[::-1]):
        (folder / "images.csv").write_text("\n".join(["path,label,domain,split,group,slant", *order]) + "\n")
        build_manifest.main()
        written.append(MANIFEST.read_bytes())
    assert written[0] == written[1]
    assert written[0].count(b",source,") == 6


def test_a_root_that_is_no_folder_is_told(params: dict[str, Any], go_with: Go) -> None:
    go_with(params)
    with pytest.raises(ValueError, match=r"build_manifest.root 'images' is not a folder; name the folder"):
        build_manifest.main()


def test_a_problem_leaves_the_old_manifest(params: dict[str, Any], go_with: Go) -> None:
    folder = go_with(params)
    images(folder, "1.png")
    MANIFEST.write_text("old")
    (folder / "images.csv").write_text("path,label,domain,split,group,slant\n1.png,a,ink,,,\ngone.png,a,pen,,,\n")
    with pytest.raises(ValueError, match=r"1 image files are missing, the first: 'gone.png'"):
        build_manifest.main()
    assert MANIFEST.read_text() == "old"
