"""`acclimate validate` on every layout, on what can't be read, and under attack; exit code 0 clean, 1 blocked, 2 no verdict."""

import csv
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from flows.cli import app
from flows.result_folder import RESULTS
from flows.validate import RULES
from tasks.core.files import read_table

# great_expectations imports a parser that uses old names of the standard library
pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_.*' is deprecated:DeprecationWarning")

PROJECT = Path(__file__).parents[2]
SCRIPT = "<script>alert(1)</script>"
ODD_LABELS = [
    SCRIPT, "=cmd|' /C calc'!A0", "x" * 5000, "a\nb", "\x1b[31mred", "nu\0ll", "\u202eleft", " b ", "{{7*7}}", 'say "b"',
    "b,c", "é", "None", "nan", "1e5", "`code`",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of all sets; the facts of an image are measured once for all tests."""
    folder = tmp_path_factory.mktemp("sets")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("ACCLIMATE_HOME", str(folder / "home"))
        yield folder
    signal.signal(signal.SIGTERM, before)


def pixels(key: str, side: int = 48) -> np.ndarray:
    """(side, side, 3) uint8: a random picture, its detail the weaker the finer; the same key, the same picture."""
    rng = np.random.default_rng(list(key.encode()))
    picture = np.zeros((side, side, 3), np.float32)
    for n_cells in (3, 6, 12, 24):
        cells = rng.normal(0, 120 / n_cells, (n_cells, n_cells, 3)).astype(np.float32)
        picture += cv2.resize(cells, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.clip(picture + 128 + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)


def save(path: str, of: str | Image.Image = "", **options: Any) -> Path:
    """An image file, its picture decided by its own path or by the given name."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    picture = of if isinstance(of, Image.Image) else Image.fromarray(pixels(of or path))
    picture.save(file, **options)
    return file


def put(path: str, data: bytes) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(data)
    return Path(path)


def images(*folders: str, n: int = 4) -> list[str]:
    return [str(save(f"{folder}/{i}.png")) for folder in folders for i in range(n)]


def put_table(name: str, columns: str, rows: Sequence[tuple[str, ...]], separator: str = ",") -> str:
    with Path(name).open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, delimiter=separator)
        writer.writerows([columns.split(), *rows])
    return name


def acclimate(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["validate", *arguments], catch_exceptions=False)


def validate(*arguments: str, out: str, exit_code: int) -> dict[str, Any]:
    """The validation; checks that the exit code fits it and that the files of a run agree with each other."""
    done = acclimate(*arguments, "--out", out)
    assert (done.exit_code, done.stderr) == (exit_code, "")
    found: dict[str, Any] = json.loads(Path(out, "validation.json").read_text())
    assert (found["status"] == "blocked") == (exit_code == 1)
    assert found["status"] in done.stdout
    assert {path.name for path in Path(out).iterdir()} == set(RESULTS)
    tables = {name: read_table(Path(out, f"{name}.csv"), made_by="") for name in ("manifest", "facts", "rejected")}
    assert list(tables["facts"]["image_id"]) == list(tables["manifest"]["image_id"])
    assert found["n_images"] == len(tables["manifest"])
    assert found["n_rejected"] == len(tables["rejected"])
    for rule in found["rules"]:
        failed = {image["path"] for image in rule.get("images", [])}
        assert failed <= set(tables["manifest"]["path"])
        if rule.get("policy", "keep") == "drop":
            assert failed <= set(tables["rejected"]["path"])
    check_page(Path(out, "validation.html").read_text(), found)
    return found


class Text(HTMLParser):
    """What a reader of the page sees, and whatever could act."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.said: list[str] = []
        self.acts: list[str] = []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        urls = [value or "" for name, value in attributes if name in ("src", "href")]
        if tag in ("script", "iframe", "object", "embed", "base", "form"):
            self.acts.append(tag)
        self.acts += [name for name, _ in attributes if name.startswith("on")]
        self.acts += [url for url in urls if not url.startswith(("data:image/", "#"))]


def check_page(page: str, found: dict[str, Any]) -> None:
    """Every failed rule stands on the page, every failed path of a few, and nothing in it acts or loads anything."""
    text = Text(page)
    assert text.acts == []
    whole = " ".join(text.said)
    for rule in found["rules"]:
        if rule["n_failed"]:
            assert rule["rule"] in whole
        for image in rule.get("images", [])[:3]:
            assert image["path"][:20].strip() in whole


def failed(found: dict[str, Any]) -> dict[str, set[str]]:
    """Failed rule → paths, or cells."""
    return {
        rule["rule"]: {entry.get("path", entry.get("cell")) for entry in rule.get("images", rule.get("cells"))}
        for rule in found["rules"]
        if rule["n_failed"]
    }


def why(found: dict[str, Any]) -> dict[str, str]:
    """Path → why, of the images that can't be used or read."""
    rules = {rule["rule"]: rule for rule in found["rules"]}
    return {i["path"]: i["why"] for name in ("usable_path", "readable") for i in rules[name]["images"]}


def manifest(out: str) -> pd.DataFrame:
    return read_table(Path(out, "manifest.csv"), made_by="")


def bytes_of(out: str, *names: str) -> dict[str, bytes]:
    return {name: Path(out, name).read_bytes() for name in names or RESULTS}


def refused(*arguments: str, out: str = "refused") -> str:
    """The one sentence of a run that could not run; nothing is left in the folder of results."""
    done = acclimate(*arguments, "--out", out)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, "one sentence"
    assert not any(Path(out, name).exists() for name in RESULTS)
    return str(done.stderr)


@pytest.fixture(scope="module")
def clean(place: Path) -> dict[str, Any]:
    images("clean/cat", "clean/dog")
    put("clean/notes.txt", b"")
    put("clean/.hidden.png", b"")
    return validate("clean", out="clean_out", exit_code=0)


def test_class_folders_that_are_clean_end_with_exit_code_0(clean: dict[str, Any]) -> None:
    assert (clean["status"], clean["n_images"], clean["n_rejected"], failed(clean)) == ("pass", 8, 0, {})
    assert set(manifest("clean_out")["label"]) == {"cat", "dog"}
    assert {cell["label"]: cell["n"] for cell in clean["counts"]} == {"cat": 4, "dog": 4}


def test_what_was_guessed_and_left_out_is_said(clean: dict[str, Any]) -> None:
    done = acclimate("clean", "--out", "clean_again")
    assert done.stdout.splitlines() == [
        "layout: label (guessed; say another with --layout)",
        "files that are no images were left out: 1 .txt",
        "pass: 0 of 8 images rejected; see clean_again/validation.html",
    ]


def test_a_second_run_gives_the_same_bytes_with_kept_facts_and_without(
    clean: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bytes_of("clean_out")
    validate("clean", out="clean_out", exit_code=0)
    assert bytes_of("clean_out") == first
    monkeypatch.setenv("ACCLIMATE_HOME", "another_home")
    validate("clean", out="clean_fresh", exit_code=0)
    assert bytes_of("clean_fresh") == first


def test_facts_are_kept_beside_the_results_unless_a_home_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCLIMATE_HOME", "x")  # so that it is put back afterwards
    monkeypatch.delenv("ACCLIMATE_HOME")
    images("few", n=1)
    assert acclimate("few", "--out", "few_out").exit_code == 0
    assert {path.name for path in Path("few_out").iterdir()} == {*RESULTS, ".acclimate"}
    assert not Path(".acclimate").exists()


def test_packed_and_zipped_images_give_the_same_bytes_as_their_folder(clean: dict[str, Any]) -> None:
    CliRunner().invoke(app, ["pack", "clean", "clean_pack"], catch_exceptions=False)
    files = sorted(Path("clean").rglob("*.png"))
    with zipfile.ZipFile("clean.zip", "w") as archive:
        for file in files:
            archive.write(file, file.relative_to("clean"))
    with tarfile.open("clean.tar.gz", "w:gz") as archive:
        archive.add("clean")  # with the folder itself, as people pack it
    for name in ("clean_pack", "clean.zip", "clean.tar.gz"):
        validate(name, out=f"out_of_{name}", exit_code=0)
        assert bytes_of(f"out_of_{name}") == bytes_of("clean_out"), name


def test_tables_of_every_kind_give_the_same_bytes(clean: dict[str, Any]) -> None:
    rows = [(f"{label}/{i}.png", label) for label in ("cat", "dog") for i in range(4)]
    whole = [(str(Path("clean", path).absolute()), label) for path, label in rows]
    put_table("clean/comma.csv", "path label", rows)
    put_table("clean/semicolon.csv", "Filename Class", rows[::-1], ";")
    put_table("clean/tabs.tsv", "image label", rows, "\t")
    put_table("whole.csv", "path label", whole)
    pd.DataFrame(rows, columns=["where", "what"]).to_parquet("named.parquet")
    asked: dict[str, list[str]] = {
        "clean/comma.csv": [],
        "clean/semicolon.csv": [],
        "clean/tabs.tsv": [],
        "whole.csv": ["--root", "clean"],
        "named.parquet": ["--root", "clean", "--path-column", "where", "--label-column", "what"],
    }
    for table, options in asked.items():
        validate(table, *options, out="table_out", exit_code=0)
        assert bytes_of("table_out") == bytes_of("clean_out"), table


def test_a_copy_in_two_given_splits_blocks() -> None:
    images(*(f"splits/{split}/{label}" for split in ("train", "val", "test") for label in ("cat", "dog")), n=2)
    save("splits/test/dog/copy.png", "splits/train/dog/0.png")
    found = validate("splits", out="splits_out", exit_code=1)
    both = {"test/dog/copy.png", "train/dog/0.png"}
    assert failed(found)["pixels_in_one_split"] == both
    (group,) = found["duplicate_groups"]
    assert {(member["path"], member["label"], member["split"]) for member in group["members"]} == {
        ("test/dog/copy.png", "dog", "test"), ("train/dog/0.png", "dog", "train"),
    }  # fmt: skip
    assert group["kind"] == "identical"
    assert set(manifest("splits_out")["split"]) == {"train", "val", "test"}


def test_one_picture_with_two_labels_blocks() -> None:
    images("two/cat", "two/dog", n=2)
    save("two/dog/copy.png", "two/cat/0.png")
    found = validate("two", out="two_out", exit_code=1)
    assert failed(found)["one_label_per_pixels"] == {"cat/0.png", "dog/copy.png"}
    members = found["duplicate_groups"][0]["members"]
    assert {(member["path"], member["label"]) for member in members} == {
        ("cat/0.png", "cat"), ("dog/copy.png", "dog"),
    }  # fmt: skip


def test_domains_are_told_and_need_no_roles() -> None:
    images("domains/ink/a", "domains/ink/b", "domains/pen/a", "domains/pen/b", n=2)
    found = validate("domains", out="domains_out", exit_code=0)
    assert {(cell["origin"], cell["label"], cell["n"]) for cell in found["counts"]} == {
        ("ink", "a", 2), ("ink", "b", 2), ("pen", "a", 2), ("pen", "b", 2),
    }  # fmt: skip
    for name in ("ink", "pen"):
        Path("zips").mkdir(exist_ok=True)
        with zipfile.ZipFile(f"zips/{name}.zip", "w") as archive:
            for file in sorted(Path("domains", name).rglob("*.png")):
                archive.write(file, file.relative_to(Path("domains", name)))
    validate("zips", out="zips_out", exit_code=0)
    columns = ["content_id", "domain", "origin", "split", "label"]
    assert manifest("zips_out")[columns].equals(manifest("domains_out")[columns])


def test_roles_switch_the_rules_on_that_need_them() -> None:
    images("roles/ink/a", "roles/ink/b", n=10)
    images("roles/pen/a", "roles/pen/z", "roles/oil/a", n=2)
    roles = ("--source", "ink", "--target", "pen")
    found = validate("roles", *roles, "--layout", "domain/label", out="roles_out", exit_code=1)
    assert found["classes"] == ["a", "b"]
    assert failed(found)["known_label"] == {"pen/z/0.png", "pen/z/1.png"}
    assert "source_class_size" not in failed(found), "10 images of a class are enough where no split is given"
    assert found["n_images"] == 24, "a domain without a role is left out"
    (Path("roles/ink/a/0.png")).unlink()
    found = validate("roles", *roles, "--layout", "domain/label", out="roles_out", exit_code=1)
    assert failed(found)["source_class_size"] == {"class 'a'"}


def test_a_target_without_labels_blocks_as_it_would_block_a_run() -> None:
    lines = [
        (path, f"line{1 + (i >= 20)}") for i, path in enumerate(images("bare/1/a", "bare/1/b", n=10) + images("bare/2"))
    ]
    rows = [(str(Path(path).relative_to("bare")), path[7] if line == "line1" else "", line) for path, line in lines]
    table, roles = put_table("bare/all.csv", "path label domain", rows), ("--source", "line1", "--target", "line2")
    found = validate(table, *roles, out="bare_out", exit_code=1)
    sentence = (
        "no labelled target image is left for the test; label at least 10 of each class (in several groups, if you name "
        "groups), or mend the split column"
    )
    assert found["blocked_by"] == [sentence]
    assert f"block: {sentence}" in acclimate(table, *roles, "--out", "bare_out").stdout.splitlines()
    assert sentence in " ".join(Text(Path("bare_out/validation.html").read_text()).said)
    put_table("bare/all.csv", "path label domain", [*rows[:-1], (rows[-1][0], "a", "line2")])
    assert validate(table, *roles, out="bare_out", exit_code=0)["blocked_by"] == []


def test_a_flat_folder_of_unlabelled_images_is_fine() -> None:
    images("flat", n=3)
    found = validate("flat", out="flat_out", exit_code=0)
    assert (found["status"], found["n_images"]) == ("pass", 3)
    assert set(manifest("flat_out")["label"]) == {""}


def test_coverage_and_groups_come_from_the_columns_that_are_named(clean: dict[str, Any]) -> None:
    rows = [
        (f"{label}/{i}.png", label, f"p{i // 2}", "train" if i < 3 else "test", "fm"[i % 2], ("old", "")[i == 0])
        for label in ("cat", "dog")
        for i in range(4)
    ]
    table = put_table("clean/people.csv", "path label patient split sex age", rows)
    asked = ("--group-column", "patient", "--audit-columns", "sex,age", "--audit-columns", " sex ")
    found = validate(table, *asked, out="people_out", exit_code=1)
    assert failed(found)["group_in_one_split"] == {f"{label}/{i}.png" for label in ("cat", "dog") for i in (2, 3)}
    assert {(cell["column"], cell["group"], cell["label"], cell["n"]) for cell in found["coverage"]} == {
        ("sex", "f", "cat", 2), ("sex", "m", "cat", 2), ("sex", "f", "dog", 2), ("sex", "m", "dog", 2),
        ("age", "old", "cat", 3), ("age", "", "cat", 1), ("age", "old", "dog", 3), ("age", "", "dog", 1),
    }  # fmt: skip
    assert found["status"] == "blocked"


def test_data_like_the_accepted_one_is_told_from_other_data(clean: dict[str, Any]) -> None:
    found = validate("clean", "--accepted", "clean_out/profile.json", out="like_out", exit_code=0)
    assert "like_accepted" not in failed(found)
    for i in range(8):
        save(f"dark/{'cat' if i % 2 else 'dog'}/{i}.png", Image.fromarray(pixels(f"dark {i}") // 2))
    found = validate("dark", "--accepted", "clean_out/profile.json", out="dark_out", exit_code=0)
    assert any("brightness" in cell for cell in failed(found)["like_accepted"])


def bomb() -> bytes:
    """A PNG whose header claims 50,000 x 50,000 pixels."""
    head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def put_odd_files() -> None:
    """Files that are named like images and are none, or hardly any."""
    put("odd/bomb.png", bomb())
    put("odd/empty.jpg", b"")
    put("odd/text.jpg", b"hello world\n" * 100_000)
    put("odd/photo.heic", b"\0\0\0\x18ftypheic\0\0\0\0")
    put("odd/drawing.svg", f"<svg xmlns='http://www.w3.org/2000/svg'>{SCRIPT}</svg>".encode())
    whole = save("odd/tail.jpg", "tail").read_bytes()
    put("odd/tail.jpg", whole + b"garbage" * 1000)
    put("odd/half.jpg", whole[: len(whole) // 2])
    spoilt = bytearray(save("odd/checksum.png").read_bytes())
    spoilt[spoilt.find(b"IDAT") + 20] ^= 255
    put("odd/checksum.png", bytes(spoilt))
    os.symlink("nowhere", "odd/dangling.png")
    os.symlink("circle.png", "odd/circle.png")
    os.symlink("/etc/passwd", "odd/passwords.png")


def put_odd_images() -> None:
    """Whole images, each of a kind that few people think of."""
    save("odd/dot.png", Image.new("RGB", (1, 1)))
    save("odd/line.png", Image.fromarray(np.tile(pixels("line")[:1, :, 0], (1, 625))))
    still = save("odd/film.gif", Image.fromarray(pixels("film", 8)[..., 0])).read_bytes()
    head = 13 + 3 * 2 ** ((still[10] & 7) + 1)  # the header and its colours; a frame; the end's semicolon
    put("odd/film.gif", still[:head] + still[head:-1] * 2000 + still[-1:])
    moving = [Image.fromarray(pixels(f"moving {i}")) for i in range(3)]
    moving[0].save("odd/moving.webp", save_all=True, append_images=moving[1:])
    Image.fromarray(pixels("deep")[..., 0].astype(np.uint16) * 257).save("odd/deep.tif")
    Image.fromarray(pixels("float")[..., 0].astype(np.float32)).save("odd/float.tif")
    save("odd/bits.png", Image.fromarray(pixels("bits")).convert("1"))
    Image.fromarray(pixels("palette")).convert("P").save("odd/palette.png", transparency=3)


def test_files_that_are_hardly_images_are_told_one_by_one() -> None:
    put_odd_files()
    put_odd_images()
    found = validate("odd", out="odd_out", exit_code=1)
    assert why(found).keys() == {
        "bomb.png", "empty.jpg", "text.jpg", "photo.heic", "drawing.svg", "half.jpg", "checksum.png", "dangling.png",
        "circle.png", "passwords.png",
    }  # fmt: skip
    assert "its header claims more than" in why(found)["bomb.png"]
    assert why(found)["empty.jpg"] == "the file is empty"
    assert why(found)["dangling.png"] == why(found)["circle.png"] == "the file is missing"
    assert "truncated" in why(found)["half.jpg"].lower()
    for name in ("text.jpg", "photo.heic", "drawing.svg", "passwords.png"):
        assert why(found)[name].startswith("not an image")
    rules = failed(found)
    assert rules["single_frame"] == {"film.gif", "moving.webp"}
    assert rules["eight_bit"] == {"deep.tif", "float.tif"}
    assert rules["opaque"] == {"palette.png"}
    assert rules["side_px"] == {"dot.png", "line.png", "film.gif"}
    assert rules["aspect_ratio"] == {"line.png"}
    assert failed(found)["rejected_share"], "most of it is of no use"
    assert not {"tail.jpg", "bits.png", "palette.png"} & set(
        read_table(Path("odd_out/rejected.csv"), made_by="")["path"]
    )


def test_places_that_lead_astray_are_named_and_never_opened() -> None:
    images("astray/cat", n=2)
    data = Path("astray/cat/0.png").read_bytes()
    os.symlink("..", "astray/cat/loop")
    os.symlink("../../astray", "astray/cat/up")
    os.makedirs("astray/cat/folder.jpg")
    os.mkfifo("astray/cat/pipe.png")
    os.symlink("/dev/zero", "astray/cat/zero.png")
    put("astray/cat/new\nline.png", data)
    for odd in (b"astray/cat/\xff.png", b"astray/\xe9t\xe9/1.png"):
        os.makedirs(os.path.dirname(odd), exist_ok=True)
        with open(odd, "wb") as handle:
            handle.write(data)
    found = validate("astray", out="astray_out", exit_code=1)
    assert why(found) == {
        "cat/loop": "is a link that leads back to a folder above it",
        "cat/up": "is a link that leads back to a folder above it",
        "cat/pipe.png": "is a pipe, socket or device",
        "cat/zero.png": "is a pipe, socket or device",
        "cat/new\\nline.png": "has a control character in its name; rename it",
        "cat/\\xff.png": "has a name that is not UTF-8; rename it",
        "\\xe9t\\xe9/1.png": "has a name that is not UTF-8; rename it",
    }
    assert (found["n_images"], set(failed(found))) == (9, {"usable_path"})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_told() -> None:
    images("closed", n=2)
    Path("closed/0.png").chmod(0)
    assert "ermission denied" in why(validate("closed", out="closed_out", exit_code=1))["0.png"]


def test_no_path_of_a_table_leads_outside(clean: dict[str, Any]) -> None:
    outside = ["../clean.png", "/etc/passwd", "cat/../../x.png", "/", ".."]
    inside = [
        "~/x.png",
        "file:///etc/passwd",
        "%2e%2e/x.png",
        "C:\\x.png",
        "cat",
        "x" * 5000,
        f"<img onerror={SCRIPT}>",
    ]
    rows = [(path, "cat") for path in [*outside, *inside, "", "cat\\1.png", "./cat//2.png", "a\nb.png"]]
    found = validate(put_table("clean/paths.csv", "path label", rows), out="paths_out", exit_code=1)
    for path in outside:
        assert why(found)[path].startswith("leads outside the root")
        assert why(found)[path].endswith("it was not opened")
    assert why(found)[""] == "is empty"
    assert why(found)["a\\nb.png"] == "has a control character in its name; rename it"
    assert sum(told == "the file is missing" for told in why(found).values()) == len(inside)
    assert {"cat/1.png", "cat/2.png"} <= set(manifest("paths_out")["path"]) - set(why(found))


def test_labels_stay_what_they_are_and_do_nothing(clean: dict[str, Any]) -> None:
    for i in range(len(ODD_LABELS)):
        save(f"labels/{i}.png")
    rows = [(f"{i}.png", label, label) for i, label in enumerate(ODD_LABELS)]
    table = put_table("labels/labels.csv", "path label who", rows)
    found = validate(table, "--audit-columns", "who", out="labels_out", exit_code=0)
    assert set(manifest("labels_out")["label"]) == set(ODD_LABELS)
    assert {cell["label"] for cell in found["counts"]} == set(ODD_LABELS)
    page = Path("labels_out/validation.html").read_text()
    assert "x" * 1000 not in page
    assert not {"\x1b", "\0", "\u202e"} & set(page)


def test_a_label_with_a_carriage_return_stays_one_row(clean: dict[str, Any]) -> None:
    Path("clean/return.csv").write_bytes(b'path,label\ncat/0.png,"a\rb"\ncat/1.png,c\n')
    acclimate("clean/return.csv", "--out", "return_out")
    assert list(manifest("return_out")["label"]) == ["a\rb", "c"]


def test_the_terminal_shows_odd_names_spelled_out(clean: dict[str, Any]) -> None:
    rows = [("cat/0.png", "\x1b[2J\n" + "y" * 5000, "\x1b]0;title\a"), ("gone.png", "cat", "")]
    done = acclimate(put_table("clean/odd.csv", "path label \x1bdomain", rows), "--domain-column", "\x1bdomain",
                     "--out", "odd_names_out")  # fmt: skip
    assert not {"\x1b", "\a"} & set(done.stdout)
    assert "\\x1bdomain" in done.stdout
    assert max(map(len, done.stdout.splitlines())) < 600


def test_thousands_of_classes_are_one_page(clean: dict[str, Any]) -> None:
    rows = [(f"gone/{i}.png", f"class {i}", "train" if i % 2 else "test", f"g{i % 9}") for i in range(3000)]
    rows += [("cat/0.png", "cat", "train", "g0")]
    table = put_table("clean/many.csv", "path label split who", rows)
    found = validate(table, "--audit-columns", "who", out="many_out", exit_code=1)
    assert len(failed(found)["readable"]) == 3000
    assert Path("many_out/validation.html").stat().st_size < 3e6


def refusals() -> dict[str, tuple[list[str], str]]:
    """What it is: the arguments and words of the sentence."""
    to_refuse = {
        "nothing there": (["nowhere"], "nowhere does not exist: name a folder, an archive"),
        "no image": (["hollow"], "no image was found in hollow"),
        "another kind of file": (["file.xlsx"], "file.xlsx is neither of these: name a folder"),
        "no column of paths": (["pathless.csv"], "pathless.csv has no column of paths; it has x, y; rename one to path"),
        "no such columns": (
            ["good.csv", "--label-column", "klass", "--audit-columns", "age,label"],
            "has no column 'klass', 'age'; it has path, label; mend build_manifest.columns or build_manifest.audit_columns "
            "(of `acclimate validate`: --path-column",
        ),
        "a table cut off": (["cut.csv"], "cut.csv is not a whole CSV table"),
        "a table without header": (["empty.csv"], "empty.csv is not a whole CSV table"),
        "a table without rows": (["rowless.csv"], "rowless.csv has a header and no rows"),
        "a table not in UTF-8": (["latin.csv"], "latin.csv is not text in UTF-8 (line 2)"),
        "damaged Parquet": (["damaged.parquet"], "damaged.parquet is not a whole Parquet table"),
        "a damaged archive": (["damaged.zip"], "the archive damaged.zip can't be opened"),
        "unknown splits": (["splits.csv"], "split 'foo', 'holdout' is unknown; allowed are train, val, test"),
        "a path twice": (["twice.csv"], "1 path(s) are listed more than once, the first: 'cat/0.png'"),
        "a column of names": (
            ["names.csv", "--audit-columns", "id"],
            "audit column 'id' has 400 different values, which with 400 labels makes 160,000 groups to count",
        ),
        "no such root": (["good.csv", "--root", "nowhere"], "nowhere does not exist"),
        "no such domain": (
            ["good.csv", "--domain-column", "label", "--source", "cat", "--target", "cow"],
            "--target 'cow' holds no image; the domains are 'cat', 'dog'",
        ),
        "no domain at all": (["good.csv", "--source", "a", "--target", "b"], "no image has a domain: see --domain-column"),
        "a layout that means nothing": (["clean", "--layout", "class"], "layout 'class' is not understood"),
        "options of tables": (["clean", "--label-column", "x", "--root", "."], "--label-column, --root can't be used with clean"),
        "options of folders": (["good.csv", "--layout", "label"], "--layout can't be used with good.csv"),
    }  # fmt: skip
    before_it_starts = {
        "a source without target": (["clean", "--source", "ink"], "--source and --target go together"),
        "a target without source": (["clean", "--target", "ink"], "--source and --target go together"),
        "one domain twice": (["clean", "--source", "ink", "--target", "ink"], "'ink' is named by both --source and --target"),
        "no rules": (["clean", "--rules", "nowhere.yaml"], "--rules nowhere.yaml is not a file"),
        "rules that are a folder": (["clean", "--rules", "hollow"], "--rules hollow is not a file"),
        "rules that are no YAML": (["clean", "--rules", "broken.yaml"], "broken.yaml is not readable YAML"),
        "no accepted profile": (["clean", "--accepted", "nowhere"], "--accepted nowhere is not a file"),
        "a profile that is none": (["clean", "--accepted", "good.csv"], "good.csv is no data profile of ours"),
        "several": (
            ["clean", "--rules", "x", "--source", "y"],
            "--rules x is not a file; name a copy of validate_rules.yaml, or a params.yaml; --source and --target go together",
        ),
    }  # fmt: skip
    return to_refuse | before_it_starts


@pytest.fixture(scope="module")
def bad_places(clean: dict[str, Any]) -> None:
    Path("hollow").mkdir()
    for name, text in {
        "file.xlsx": "x", "pathless.csv": "x,y\n1,2\n", "cut.csv": 'path,label\n"a,b\n', "empty.csv": "",
        "rowless.csv": "path,label\n", "damaged.parquet": "PAR1", "damaged.zip": "PK", "broken.yaml": "a: [1",
        "splits.csv": "path,split\na,holdout\nb,foo\n", "twice.csv": "path,label\ncat/0.png,a\ncat//0.png,b\n",
        "good.csv": "path,label\nclean/cat/0.png,cat\nclean/dog/0.png,dog\n",
    }.items():  # fmt: skip
        Path(name).write_text(text)
    put_table("names.csv", "path label id", [(f"{i}.png", f"class {i}", f"id {i}") for i in range(400)])
    Path("latin.csv").write_bytes("path,label\na.png,é\n".encode("latin-1"))


@pytest.mark.parametrize("case", list(refusals()))
def test_what_could_not_run_ends_with_one_sentence_and_exit_code_2(bad_places: None, case: str) -> None:
    arguments, words = refusals()[case]
    assert words in refused(*arguments)
    assert not Path("refused").exists(), "no empty folder is left behind"


def test_all_problems_of_a_file_of_rules_are_told(clean: dict[str, Any]) -> None:
    Path("rules.yaml").write_text(RULES.read_text().replace("min: 32", "min: -3").replace("opaque", "opaqe"))
    done = acclimate("clean", "--rules", "rules.yaml", "--out", "refused")
    assert done.exit_code == 2
    for words in ("rules.opaque is missing", "rules.side_px.min is -3", "did you mean 'opaque'?"):
        assert words in done.stderr


def test_other_rules_give_another_verdict(clean: dict[str, Any]) -> None:
    Path("strict.yaml").write_text(RULES.read_text().replace("min: 32", "min: 49"))
    found = validate("clean", "--rules", "strict.yaml", out="strict_out", exit_code=1)
    assert len(failed(found)["side_px"]) == 8


def test_results_that_cannot_be_written_are_refused_first(clean: dict[str, Any]) -> None:
    Path("a_file").touch()
    assert "is not a folder that can be written to" in refused("clean", out="a_file/below")
    assert acclimate("clean", "--out", "a_file").exit_code == 2
    assert Path("a_file").read_bytes() == b""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to_is_refused(clean: dict[str, Any]) -> None:
    Path("closed_folder").mkdir(mode=0o500)
    assert "is not a folder that can be written to" in refused("clean", out="closed_folder/out")


def test_an_earlier_verdict_goes_when_a_run_could_not_finish(clean: dict[str, Any], bad_places: None) -> None:
    shutil.copytree("clean_out", "stale")
    refused("damaged.zip", out="stale")
    assert list(Path("stale").iterdir()) == []


def test_files_of_others_are_never_replaced(clean: dict[str, Any]) -> None:
    put("mine/manifest.csv", b"my own table")
    put("data/validation.json", Path("clean_out/validation.json").read_bytes())
    put("data/gate.json", b"{}")  # the pipeline's folder
    put("links/x", b"")
    os.symlink("../clean_out/facts.csv", "links/facts.csv")
    for folder, name in {"mine": "manifest.csv", "data": "validation.json", "links": "facts.csv"}.items():
        done = acclimate("clean", "--out", folder)
        assert done.exit_code == 2
        assert f"--out {folder} holds {name} that `acclimate validate` has not written" in done.stderr
    assert Path("mine/manifest.csv").read_text() == "my own table"
    assert Path("data/validation.json").exists()


def test_what_is_validated_is_never_replaced(clean: dict[str, Any]) -> None:
    shutil.copytree("clean_out", "own")
    before = bytes_of("own")
    for arguments in (["own/manifest.csv", "--root", "clean"], ["clean", "--accepted", "own/profile.json"]):
        done = acclimate(*arguments, "--out", "clean/../own")
        assert done.exit_code == 2
        assert "would be overwritten by the results; name another folder with --out" in done.stderr
    assert bytes_of("own") == before
    validate("own/manifest.csv", "--root", "clean", out="elsewhere", exit_code=0)
    assert manifest("elsewhere").equals(manifest("own"))


def test_a_mistake_of_our_own_is_no_verdict(clean: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("our own mistake")

    monkeypatch.setattr("tasks.validate_data.checked_set", broken)
    done = acclimate("clean", "--out", "broken_out")
    assert done.exit_code == 2
    assert "RuntimeError: our own mistake" in done.stderr
    assert list(Path("broken_out").iterdir()) == []


@pytest.mark.slow
def test_a_large_text_that_is_named_like_an_image_is_told() -> None:
    put("long/text.jpg", b"hello world\n" * (50_000_000 // 12))
    assert why(validate("long", out="long_out", exit_code=1))["text.jpg"].startswith("not an image")


def test_no_other_program_is_started_to_read_an_image(clean: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    put("bin/gs", b"#!/bin/sh\ntouch started\n").chmod(0o755)
    monkeypatch.setenv("PATH", f"{Path('bin').absolute()}:{os.environ['PATH']}")
    put("postscript/x.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n")
    found = validate("postscript", out="postscript_out", exit_code=1)
    assert failed(found)["readable"] == {"x.jpg"}
    assert not Path("started").exists()


def heed_interruptions() -> None:
    """What is started in the background of a shell ignores Ctrl-C, and its children with it; the command itself must not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def process(*arguments: str, **options: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "flows.cli", "validate", *arguments]
    environment = os.environ | {"PYTHONPATH": str(PROJECT), **options}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=environment, stdout=pipe, stderr=pipe, text=True, errors="surrogateescape",
        preexec_fn=heed_interruptions,
    )  # fmt: skip


def test_a_plain_terminal_can_show_everything(clean: dict[str, Any]) -> None:
    table = put_table("clean/words.csv", "path label", [("gone.png", "ü"), ("cat/0.png", "Ü"), ("cat/1.png", "")])
    out = os.fsdecode(b"out_\xff")
    done = CliRunner(charset="ascii").invoke(app, ["validate", table, "--out", out], catch_exceptions=False)
    assert (done.exit_code, done.stderr) == (1, "")
    assert "labels '\\xdc', '\\xfc' differ only in case" in done.stdout
    assert "out_\\udcff/validation.html" in done.stdout
    assert Path(out, "validation.json").exists()


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_run_that_is_stopped_leaves_no_results(
    clean: dict[str, Any], number: signal.Signals, exit_code: int, wait_for: Callable[[Callable[[], bool]], None]
) -> None:
    shutil.copytree("clean_out", f"stopped_{exit_code}")
    if not Path("slow").exists():
        data = save("slow/0.png", Image.fromarray(cv2.resize(pixels("slow"), (800, 800)))).read_bytes()
        for i in range(1, 400):
            put(f"slow/{i}.png", data + str(i).encode())
    running = process("slow", "--out", f"stopped_{exit_code}", ACCLIMATE_HOME=f"home_{exit_code}")
    wait_for(lambda: Path(f"home_{exit_code}/facts").exists())
    running.send_signal(number)
    told, errors = running.communicate(timeout=60)
    assert (running.returncode, errors) == (exit_code, "")
    assert "images" not in told
    assert list(Path(f"stopped_{exit_code}").iterdir()) == []


@pytest.fixture
def wait_for() -> Callable[[Callable[[], bool]], None]:
    def wait(is_so: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not is_so() and time.monotonic() < end:
            time.sleep(0.02)
        assert is_so()

    return wait
