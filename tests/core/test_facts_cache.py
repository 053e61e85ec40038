"""What was measured once is not measured again, and nothing that can happen to the file of kept facts changes a fact."""

import io
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks.core import facts_cache
from tasks.core.facts import measure_images, write_facts
from tasks.core.facts_cache import FactsCache
from tasks.core.manifest import content_id_of
from tasks.core.store import Store, open_store

PROJECT = Path(__file__).parents[2]
FACTS = {
    "a" * 16: {"width_px": 7, "brightness": 0.1 + 0.2, "has_alpha": True, "error": "é\n"},
    "b" * 16: {"width_px": None},
}


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ACCLIMATE_HOME", str(tmp_path / "home"))
    return tmp_path / "home/facts/facts.sqlite"


def put(facts: dict[str, dict[str, object]] = FACTS) -> None:
    with FactsCache() as cache:
        cache.put(facts)
        assert cache.problem == ""


def got() -> dict[str, dict[str, object]]:
    with FactsCache() as cache:
        found = cache.get(list(FACTS))
        assert cache.problem == ""
        return found


def images_below(folder: Path, n: int) -> tuple[Store, pd.DataFrame]:
    folder.mkdir()
    rows = []
    for k in range(n):
        buffer = io.BytesIO()
        Image.fromarray(np.full((5, 5 + k, 3), k, np.uint8)).save(buffer, "png")
        data = buffer.getvalue() if k != 3 else b"no image"
        (folder / f"{k}.png").write_bytes(data)
        rows.append({"image_id": str(k), "content_id": content_id_of(data), "path": f"{k}.png", "problem": ""})
    return open_store(folder), pd.DataFrame(rows)


def measured(out: Path, store: Store, manifest: pd.DataFrame) -> int:
    """How many were known; the table is written."""
    with FactsCache() as cache:
        write_facts(out, measure_images(store, manifest, cache))
    assert cache.problem == ""
    return cache.n_found


def test_facts_come_back_as_they_were() -> None:
    assert got() == {}
    put()
    assert got() == FACTS


def test_each_that_is_asked_for_counts() -> None:
    put()
    with FactsCache() as cache:
        cache.get(["a" * 16, "a" * 16, "c" * 16, ""])
        cache.get(["b" * 16])
        assert cache.n_found == 3


def test_facts_of_other_code_are_not_used_and_removed(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    put()
    monkeypatch.setattr(facts_cache, "code_key", lambda: "another")
    assert got() == {}
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM facts").fetchone() == (0,)
    database.close()


def test_the_key_covers_every_module_that_decides_a_fact() -> None:
    code = (
        "import sys; from tasks.core.measures import measure_pixels; import tasks.core.headers; "
        "print(*sorted(n.split('.')[2] for n in sys.modules if n.startswith('tasks.core.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    reading = {"store", "archives", "entries", "open_files", "pack", "files", "runtime"}  # bring bytes, not facts
    assert set(done.stdout.split()) - reading == set(facts_cache.CODE) - {"facts"}
    assert all((PROJECT / f"tasks/core/{name}.py").exists() for name in facts_cache.CODE)


def test_the_second_run_decodes_nothing_and_writes_the_same_bytes(tmp_path: Path) -> None:
    store, manifest = images_below(tmp_path / "in", 40)
    assert measured(tmp_path / "1.csv", store, manifest) == 0
    for row in manifest.itertuples():
        (tmp_path / "in" / str(row.path)).write_bytes(b"none could read this")
    assert measured(tmp_path / "2.csv", store, manifest) == 40, "errors of decoding are known too"
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "2.csv").read_bytes()


def test_only_new_contents_are_measured_whatever_their_names(tmp_path: Path) -> None:
    store, manifest = images_below(tmp_path / "in", 40)
    measured(tmp_path / "1.csv", store, manifest.iloc[:30])
    (tmp_path / "in/0.png").rename(tmp_path / "in/renamed.png")
    manifest.loc[0, "path"] = "renamed.png"
    assert measured(tmp_path / "2.csv", store, manifest) == 30


def test_a_known_file_that_vanished_is_missing(tmp_path: Path) -> None:
    store, manifest = images_below(tmp_path / "in", 2)
    measured(tmp_path / "1.csv", store, manifest)
    (tmp_path / "in/0.png").unlink()
    measured(tmp_path / "2.csv", store, manifest)
    assert "the file is missing" in (tmp_path / "2.csv").read_text()


@pytest.mark.parametrize("junk", [b"", b"junk" * 5000, b"SQLite format 3\0" + b"\xff" * 9000])
def test_a_damaged_file_is_thrown_away(path: Path, junk: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(junk)
    assert got() == {}
    put()
    assert got() == FACTS


@pytest.mark.parametrize("seed", range(12))
def test_bytes_that_change_anywhere_never_become_a_wrong_fact(path: Path, seed: int) -> None:
    facts: dict[str, dict[str, object]] = {f"{k:016x}": {"width_px": k, "pad": "x" * 200} for k in range(300)}
    put(facts)
    rng = np.random.default_rng(seed)
    data = bytearray(path.read_bytes())
    for at in rng.integers(0, len(data), 40):
        data[at] = rng.integers(256)
    path.write_bytes(data[: len(data) // 2] if seed % 3 == 0 else data)
    with FactsCache() as cache:
        for key in facts:
            assert cache.get([key]).get(key, facts[key]) == facts[key]
        cache.put(facts)
        assert cache.problem == "" or cache.get(list(facts)) == {}


def test_a_value_that_was_edited_is_not_believed(path: Path) -> None:
    put()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE facts SET facts = replace(facts, '7', '8')")
    database.close()
    assert got() == {"b" * 16: FACTS["b" * 16]}


def test_without_a_place_for_it_there_is_no_cache_and_no_harm(path: Path, tmp_path: Path) -> None:
    path.mkdir(parents=True)  # a folder where the file belongs
    with FactsCache() as cache:
        cache.put(FACTS)
        assert cache.get(list(FACTS)) == {}
        assert "unable to open" in cache.problem
    store, manifest = images_below(tmp_path / "in", 3)
    with FactsCache() as cache:
        write_facts(tmp_path / "facts.csv", measure_images(store, manifest, cache))
    assert len((tmp_path / "facts.csv").read_text().splitlines()) == 4


def test_a_file_where_the_folder_belongs_is_told(path: Path) -> None:
    path.parent.parent.mkdir()
    path.parent.write_text("")
    with FactsCache() as cache:
        cache.put(FACTS)
    assert cache.problem == "File exists"


WRITER = """
import sys
from tasks.core.facts_cache import FactsCache
with FactsCache() as cache:
    for k in range(int(sys.argv[2]), int(sys.argv[3])):
        cache.put({f"{k:016x}": {"width_px": k, "pad": "x" * 300}})
        if k == int(sys.argv[2]): print("begun", flush=True)
    assert cache.problem == "", cache.problem
"""


def writer(first: int, last: int) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-c", WRITER, "", str(first), str(last)]
    return subprocess.Popen(arguments, cwd=PROJECT, env=os.environ, stdout=subprocess.PIPE)


def test_two_processes_write_at_once() -> None:
    with writer(0, 300) as one, writer(300, 600) as two:
        assert (one.wait(60), two.wait(60)) == (0, 0)
    with FactsCache() as cache:
        found = cache.get([f"{k:016x}" for k in range(600)])
    assert [found[f"{k:016x}"]["width_px"] for k in range(600)] == list(range(600))


def test_a_killed_process_loses_nothing_that_it_had_put() -> None:
    with writer(0, 10**9) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
    with FactsCache() as cache:
        found = cache.get([f"{k:016x}" for k in range(20_000)])
    assert len(found) > 1
    assert [found[f"{k:016x}"]["width_px"] for k in range(len(found))] == list(range(len(found)))
