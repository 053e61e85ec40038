"""Facts of files: a known one, what is left of a file that is none, and the table of all."""

import csv
import hashlib
import io
import itertools
import os
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks.core import facts as facts_module
from tasks.core import workers
from tasks.core.facts import COLUMNS, measure_image, measure_images, read_facts, write_facts
from tasks.core.facts_cache import FactsCache
from tasks.core.measures import MEASURES
from tasks.core.store import Store, open_store

CHECKS = np.kron(np.indices((4, 8)).sum(0) % 2, np.ones((4, 4))).astype(np.uint8) * 255  # 16 x 32, half white
NOISE = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
BAD_ENTRY = {"problem": "has a name that is not UTF-8; rename it"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCLIMATE_HOME", str(tmp_path / "home"))


def encoded(pixels: np.ndarray | Image.Image = CHECKS, fmt: str = "png", **options: object) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int, colour: int, rows: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_facts_of_a_known_image() -> None:
    facts = measure_image(encoded())
    assert {name: facts[name] for name in COLUMNS[1:9]} == {
        "width_px": 32, "height_px": 16, "mode": "L", "format": "png", "n_bits": 8, "has_alpha": False, "n_frames": 1,
        "exif_orientation": 1,
    }  # fmt: skip
    assert {name: facts[name] for name in MEASURES if name != "sharpness"} == {
        "brightness": 0.5, "contrast": 0.5, "brightness_p5": 0.0, "brightness_p99": 1.0, "entropy": 1.0, "saturation": 0.0,
    }  # fmt: skip
    assert facts["error"] == ""
    assert list(facts) == COLUMNS[1:]


NO_DECODER = "not an image, or no decoder for this format; convert it to PNG or JPEG"


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "the file is empty"),
        (b"no image", NO_DECODER),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 30, NO_DECODER),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50), NO_DECODER),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", NO_DECODER),
        (bytes(128) + b"DICM" + bytes(99), NO_DECODER),
        (png(20_000, 20_000, 8, 0, b""), "not decoded: its header claims more than 178 million pixels"),
        (png(0, 7, 8, 0, b""), ""),
    ],
)
def test_what_cannot_be_decoded_has_its_error_as_only_fact(data: bytes, error: str) -> None:
    facts = measure_image(data)
    assert str(facts["error"]).startswith(error)
    assert [name for name, value in facts.items() if value is not None] == ["error"]
    assert facts["error"]
    assert "0x" not in str(facts["error"]), "an address differs from run to run"
    assert facts == measure_image(data)


def test_a_large_image_is_measured_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 37 * 53 - 1)  # warns beyond it, refuses beyond twice as many
    assert measure_image(encoded(NOISE))["error"] == ""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 37 * 53 // 2)
    assert str(measure_image(encoded(NOISE))["error"]).startswith("not decoded: its header claims more than")


def test_large_images_are_measured_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts_module, "LARGE_PIXELS", 10)
    assert measure_image(encoded(NOISE))["error"] == ""
    assert not facts_module.ALONE.locked()
    measure_image(encoded(NOISE)[:-500])
    assert not facts_module.ALONE.locked(), "an error frees the place as well"


WHOLE = {
    "jpeg": encoded(NOISE, "jpeg"),
    "progressive": encoded(NOISE, "jpeg", progressive=True),
    "png": encoded(NOISE),
    "gif": encoded(NOISE, "gif"),
    "bmp": encoded(NOISE, "bmp"),
    "tiff": encoded(NOISE, "tiff"),
    "lzw": encoded(NOISE, "tiff", compression="tiff_lzw"),
    "webp": encoded(NOISE, "webp"),
    "ppm": encoded(NOISE, "ppm"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_truncated_file_is_an_error_or_lacks_no_pixel(name: str) -> None:
    whole = WHOLE[name]
    expected = measure_image(whole)
    assert expected["error"] == ""
    for share in np.linspace(0.02, 0.97, 25):
        facts = measure_image(whole[: int(len(whole) * share)])
        assert facts["error"] or facts["pixel_hash"] == expected["pixel_hash"], f"cut at {share:.2f}"


@pytest.mark.parametrize("name", WHOLE)
def test_damaged_bytes_never_raise_and_say_one_short_printable_line(name: str) -> None:
    rng = random.Random(name)
    for _ in range(60):
        data = bytearray(WHOLE[name])
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(min(len(data), 400))] = rng.randrange(256)
        facts = measure_image(bytes(data))
        assert list(facts) == COLUMNS[1:]
        assert str(facts["error"]).isprintable()
        assert len(str(facts["error"])) < 260


def folder_of(root: Path, contents: dict[str, bytes]) -> tuple[Store, pd.DataFrame]:
    rows = []
    for path, data in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
        content_id = hashlib.sha256(data).hexdigest()[:16]
        rows.append({"image_id": f"i-{path}", "content_id": content_id, "path": path, "problem": ""})
    return open_store(root), pd.DataFrame(rows, columns=["image_id", "content_id", "path", "problem"])


def pictures(n: int) -> dict[str, bytes]:
    return {f"{k}.png": encoded(np.full((4, 4 + k, 3), k % 256, np.uint8)) for k in range(n)}


def written(path: Path, store: Store, manifest: pd.DataFrame) -> FactsCache:
    with FactsCache() as cache:
        write_facts(path, measure_images(store, manifest, cache))
    return cache


def test_facts_come_in_the_manifests_order_and_are_read_as_numbers(tmp_path: Path) -> None:
    store, manifest = folder_of(tmp_path / "in", pictures(100) | {"a/b.txt.png": b"none"})
    manifest = manifest.iloc[::-1]
    written(tmp_path / "facts.csv", store, manifest)
    facts = read_facts(tmp_path / "facts.csv")
    assert list(facts.columns) == COLUMNS
    assert list(facts["image_id"]) == list(manifest["image_id"])
    assert list(facts["width_px"][1:]) == [103 - k for k in range(100)]
    assert list(facts["error"]) == [NO_DECODER] + [""] * 100
    assert facts.loc[0, ["width_px", "contrast", "has_alpha"]].isna().all()
    assert facts["has_alpha"][1] is False
    assert facts["entropy"].dtype == float


def test_facts_of_nothing_are_an_empty_table(tmp_path: Path) -> None:
    written(tmp_path / "facts.csv", *folder_of(tmp_path, {}))
    assert read_facts(tmp_path / "facts.csv").to_dict("list") == {name: [] for name in COLUMNS}


def test_facts_of_another_version_are_refused(tmp_path: Path) -> None:
    (tmp_path / "facts.csv").write_text("image_id,width_px\n")
    with pytest.raises(
        ValueError, match=r"has no column height_px, .*made by another version; run `dvc repro measure_images`"
    ):
        read_facts(tmp_path / "facts.csv")


def test_files_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    store, manifest = folder_of(tmp_path / "in", pictures(5))
    manifest.loc[0, "path"] = "gone.png"
    manifest.loc[1, "path"] = "../outside.png"
    manifest.loc[2, "content_id"] = "0" * 16
    manifest.loc[3, "content_id"] = ""
    manifest.loc[4, ["path", "problem", "content_id"]] = ["\\xff.png", BAD_ENTRY["problem"], ""]
    written(tmp_path / "facts.csv", store, manifest)
    facts = read_facts(tmp_path / "facts.csv")
    assert facts["error"][0] == "the file is missing"
    assert "leads outside the root" in facts["error"][1]
    assert facts["error"][2] == "the file changed while it was read by the pipeline; run again"
    assert (facts["error"][3], facts["width_px"][3]) == ("", 7), "an unknown content is measured"
    assert facts.loc[4].drop("image_id").replace("", None).isna().all(), "never opened: a rule on `problem` rejects it"
    with FactsCache() as cache:
        assert cache.get(list(manifest["content_id"])) == {}, "none of these may be kept"


def test_facts_hold_no_path(tmp_path: Path) -> None:
    store, manifest = folder_of(
        tmp_path / "in", {"secret_name/1.png": b"x", "secret_name/2.png": b"", "secret_name/3.png": encoded()[:-60]}
    )
    manifest["image_id"] = ["a", "b", "c"]
    written(tmp_path / "facts.csv", store, manifest)
    assert "secret_name" not in (tmp_path / "facts.csv").read_text()
    assert str(tmp_path) not in (tmp_path / "facts.csv").read_text()


def test_a_run_that_fails_leaves_the_old_table(tmp_path: Path) -> None:
    (tmp_path / "facts.csv").write_text("old")
    chunks = itertools.chain([[{"image_id": "a"}]], (1 / 0 for _ in "x"))
    with pytest.raises(ZeroDivisionError):
        write_facts(tmp_path / "facts.csv", chunks)  # type: ignore[arg-type]
    assert (tmp_path / "facts.csv").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["facts.csv"]


def test_leaving_early_stops_the_threads(tmp_path: Path) -> None:
    store, manifest = folder_of(tmp_path / "in", pictures(200))
    with FactsCache() as cache:
        chunks = measure_images(store, manifest, cache)
        assert len(next(chunks)) == facts_module.CHUNK_IMAGES
        chunks.close()  # type: ignore[attr-defined]


def test_few_images_are_under_way_at_once(tmp_path: Path) -> None:
    class Counting:
        n_read = 0

        def read(self, path: str) -> bytes:
            self.n_read += 1
            return encoded()

        def has(self, path: str) -> bool:
            return True

    store, n = Counting(), 5000
    manifest = pd.DataFrame({"image_id": range(n), "content_id": "", "path": "a.png", "problem": ""})
    with FactsCache() as cache:
        chunks = measure_images(store, manifest, cache)  # type: ignore[arg-type]
        next(chunks)
        chunks.close()  # type: ignore[attr-defined]
    assert store.n_read <= (2 * (os.cpu_count() or 1) + 1) * facts_module.CHUNK_IMAGES


def test_processes_give_the_same_bytes_as_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = np.random.default_rng(1).integers(0, 256, (160, 160, 3), np.uint8)
    contents = pictures(60) | {"large.png": encoded(noisy), "broken.png": b"x"}
    assert len(contents["large.png"]) > workers.SMALL_BYTES
    store, manifest = folder_of(tmp_path / "in", contents)
    manifest["content_id"] = ""  # so that the second run measures again
    written(tmp_path / "threads.csv", store, manifest)
    monkeypatch.setattr(facts_module, "MANY_IMAGES", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.setattr(workers, "FEW", 0)
    monkeypatch.setattr(
        workers.Workers, "_run", lambda self: bool(self._start and self._start.result())
    )  # wait for them
    written(tmp_path / "processes.csv", store, manifest)
    assert (tmp_path / "threads.csv").read_bytes() == (tmp_path / "processes.csv").read_bytes()


def test_the_table_is_plain_csv(tmp_path: Path) -> None:
    written(tmp_path / "facts.csv", *folder_of(tmp_path / "in", {'odd, "name".png': encoded(), "b.png": b"a,b\n"}))
    with (tmp_path / "facts.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["image_id"] for row in rows] == ['i-odd, "name".png', "i-b.png"]
    assert b"\r" not in (tmp_path / "facts.csv").read_bytes()
