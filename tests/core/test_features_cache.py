"""The cache of features: only whole, undamaged records of the very same making come back, and it keeps its limit."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tasks.core.features_cache import FeaturesCache, cache_key, limit_bytes, row_id

ROOT = Path(__file__).parents[2]
IDS = [row_id(f"content{k}") for k in range(6)]
X_ND = np.arange(18, dtype=np.float32).reshape(6, 3)
RECORD_BYTES = 16 + 3 * 4 + 8


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ACCLIMATE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ACCLIMATE_CACHE_GIB", raising=False)
    return tmp_path / "home/features"


def cache(key: str = "k", kept: frozenset[str] = frozenset()) -> FeaturesCache:
    return FeaturesCache(key, 3, "float32", kept)


def fill(key: str = "k", rows: slice = slice(0, 4)) -> None:
    with cache(key) as one:
        one.put(IDS[rows], X_ND[rows])
        assert one.problem == ""


def known() -> list[bool]:
    with cache() as one:
        is_known, x_ND = one.get(IDS)
        assert (x_ND == X_ND[is_known]).all()
        return is_known.tolist()


def test_rows_come_back_in_the_order_asked_for() -> None:
    fill()
    with cache() as one:
        is_known, x_ND = one.get([IDS[3], IDS[5], IDS[0]])
    assert is_known.tolist() == [True, False, True]
    assert x_ND.tolist() == [[9, 10, 11], [0, 1, 2]]


def test_nothing_is_kept_twice(home: Path) -> None:
    fill()
    fill(rows=slice(2, 6))
    assert (home / "k/rows").stat().st_size == 6 * RECORD_BYTES
    assert known() == [True] * 6


@pytest.mark.parametrize("n_cut", [1, 20, RECORD_BYTES - 1])
def test_an_unfinished_append_is_cut_off(home: Path, n_cut: int) -> None:
    fill()
    os.truncate(home / "k/rows", 4 * RECORD_BYTES - n_cut)
    assert known() == [True, True, True, False, False, False]
    fill()
    assert known() == [True, True, True, True, False, False]


@pytest.mark.parametrize("place", [RECORD_BYTES, RECORD_BYTES + 17, 2 * RECORD_BYTES - 1])
def test_a_damaged_record_is_unknown_and_computed_again(home: Path, place: int) -> None:
    fill()
    with (home / "k/rows").open("r+b") as handle:
        handle.seek(place)
        byte = handle.read(1)[0]
        handle.seek(place)
        handle.write(bytes([byte ^ 1]))
    assert known() == [True, False, True, True, False, False]
    with cache() as one:
        one.get(IDS)
        one.put(IDS[:4], X_ND[:4])
    assert known() == [True, True, True, True, False, False]


def test_a_killed_process_leaves_whole_records_only() -> None:
    code = (
        "import os, itertools, numpy as np\nfrom tasks.core.features_cache import FeaturesCache, row_id\n"
        "with FeaturesCache('k', 3, 'float32') as c:\n"
        "    for k in itertools.count():\n"
        "        c.put([row_id(f'content{k}')], np.full((1, 3), k, np.float32))\n"
        "        if k == 50: print('on the way', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    with cache() as one:
        is_known, x_ND = one.get([row_id(f"content{k}") for k in range(51)])
    assert is_known.all()
    assert x_ND[:, 0].tolist() == list(range(51))


def test_two_at_once_lose_nothing(home: Path) -> None:
    def append(first: int) -> None:
        with cache() as one:
            for k in range(first, first + 100):
                one.put([row_id(f"many{k}")], np.full((1, 3), k, np.float32))

    threads = [threading.Thread(target=append, args=[100 * t]) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with cache() as one:
        is_known, x_ND = one.get([row_id(f"many{k}") for k in range(400)])
    assert is_known.all()
    assert x_ND[:, 2].tolist() == list(range(400))
    assert (home / "k/rows").stat().st_size == 400 * RECORD_BYTES


def set_limit(monkeypatch: pytest.MonkeyPatch, n_bytes: float) -> None:
    monkeypatch.setenv("ACCLIMATE_CACHE_GIB", str(n_bytes / 2**30))


def test_other_keys_go_first_where_room_is_short(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for age, key in enumerate(("new", "old", "used")):
        fill(key)
        os.utime(home / key, (1e9 - age, 1e9 - age))
    set_limit(monkeypatch, 15 * RECORD_BYTES)
    with cache("k", frozenset({"used"})) as one:
        one.put(IDS, X_ND)
        assert one.problem == ""
    assert sorted(path.name for path in home.iterdir()) == ["k", "new", "used"]


def test_the_limit_is_kept_and_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_limit(monkeypatch, 5 * RECORD_BYTES)
    with cache() as one:
        one.put(IDS[:4], X_ND[:4])
        one.put(IDS[4:], X_ND[4:])
        assert "the limit that ACCLIMATE_CACHE_GIB sets" in one.problem
    assert (home / "k/rows").stat().st_size == 4 * RECORD_BYTES


def test_a_limit_of_zero_writes_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_limit(monkeypatch, 0)
    with cache() as one:
        one.put(IDS, X_ND)
        assert not one.get(IDS)[0].any()
        assert one.problem == "ACCLIMATE_CACHE_GIB is 0"
    assert not home.exists()


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf", ""])
def test_a_limit_that_is_no_size_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("ACCLIMATE_CACHE_GIB", text)
    with pytest.raises(ValueError, match=r"ACCLIMATE_CACHE_GIB is .*; set it to a number of GiB, 0 = no cache"):
        limit_bytes()


def test_a_place_that_cannot_be_written_is_told_and_nothing_fails(home: Path) -> None:
    home.parent.mkdir()
    home.write_text("in the way")
    with cache() as one:
        one.put(IDS, X_ND)
        assert not one.get(IDS)[0].any()
        assert "features" in one.problem


def test_ids_and_keys_differ_with_every_part() -> None:
    ids = [row_id("a"), row_id("b"), row_id("a", "i", 1, "p"), row_id("a", "i", 2, "p"), row_id("a", "j", 1, "p"),
           row_id("a", "i", 1, "q"), row_id("a", "i1", "", "p")]  # fmt: skip
    assert len(set(ids)) == len(ids)
    keys = [cache_key("cpu", 1, "a"), cache_key("cpu", 1, "b"), cache_key("cpu", 2, "a"), cache_key("cpu", "1a")]
    assert len(set(keys)) == len(keys)
    assert cache_key("cpu", 1, "a") == keys[0]
