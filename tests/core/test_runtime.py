"""Addressed randomness, one holder of a resume state, one sentence on failure."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.core.runtime import (
    TELEMETRY_OFF,
    ResumeState,
    acclimate_home,
    address_rng,
    address_seed,
    quiet_tools,
    run_stage,
    use_machine,
)

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ACCLIMATE_HOME", str(tmp_path))
    return tmp_path


def test_any_part_of_the_address_changes_the_seed() -> None:
    addresses = [
        (0, "augment", "ab", 1), (1, "augment", "ab", 1), (0, "sample", "ab", 1), (0, "augment", "ac", 1),
        (0, "augment", "ab", 2), (0, "augment", "ab"), (0, "augment", "a", "b1"), (0, "augment", "a", "b", 1),
        (0, "augmentab", 1), (0, "augment", "ab", 11), ("",), ("", ""),
    ]  # fmt: skip
    seeds = {address_seed(*address) for address in addresses}
    assert len(seeds) == len(addresses)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_seed_stays_what_it_was() -> None:
    # sha256("0\x1fsplit\x1fg1") by coreutils: first 8 bytes, halved
    known = subprocess.run(["sha256sum"], input=b"0\x1fsplit\x1fg1", capture_output=True, check=True).stdout[:16]
    assert address_seed(0, "split", "g1") == int(known, 16) // 2
    assert address_rng(0, "x").random() == address_rng(0, "x").random()


def test_home_is_in_the_workspace_or_where_the_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ACCLIMATE_HOME", raising=False)
    assert acclimate_home() == tmp_path / ".acclimate"
    monkeypatch.setenv("ACCLIMATE_HOME", "shared")
    assert acclimate_home() == tmp_path / "shared"


def test_an_explicit_telemetry_setting_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TELEMETRY_OFF:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DO_NOT_TRACK", "false")
    quiet_tools()
    assert os.environ["DO_NOT_TRACK"] == "false"
    assert os.environ["DVC_NO_ANALYTICS"] == "1"


def test_state_is_removed_on_success_and_kept_on_failure(home: Path) -> None:
    def work(*, fails: bool) -> list[str]:
        with ResumeState("finetune_model", "k1") as state:
            found = sorted(p.name for p in state.folder.iterdir())
            (state.folder / "epoch_1").touch()
            if fails:
                raise KeyboardInterrupt
        return found

    with pytest.raises(KeyboardInterrupt):
        work(fails=True)
    assert work(fails=False) == ["epoch_1"]
    assert not (home / "state/finetune_model/k1").exists()
    assert work(fails=False) == []


def test_other_keys_are_removed_at_the_start_and_other_stages_are_not(home: Path) -> None:
    for place in ("finetune_model/old", "finetune_model/older/deep", "other_stage/kept"):
        (home / "state" / place).mkdir(parents=True)
    with ResumeState("finetune_model", "new"):
        assert sorted(p.name for p in (home / "state/finetune_model").iterdir() if p.is_dir()) == ["new"]
    assert (home / "state/other_stage/kept").is_dir()


@pytest.fixture
def holder(home: Path) -> Iterator[subprocess.Popen[str]]:
    code = (
        "import sys; from tasks.core.runtime import ResumeState\n"
        "with ResumeState('finetune_model', 'k1') as state:\n"
        "    (state.folder / 'mine').touch(); print('held', flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=PROJECT, env=os.environ | {"ACCLIMATE_HOME": str(home)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_holder_is_refused_by_pid_and_touches_nothing(home: Path, holder: subprocess.Popen[str]) -> None:
    refusal = rf"another run of this stage is still alive \(pid {holder.pid}\); wait for it or stop it"
    with pytest.raises(ValueError, match=refusal), ResumeState("finetune_model", "k2"):
        pass
    with pytest.raises(ValueError, match=refusal), ResumeState("finetune_model", "k1"):  # still named after a refusal
        pass
    assert (home / "state/finetune_model/k1/mine").exists()


def test_the_state_of_a_killed_holder_is_taken_over(holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    with ResumeState("finetune_model", "k1") as state:
        assert (state.folder / "mine").exists()


@pytest.mark.parametrize("error", [ValueError("mend it"), FileNotFoundError("mend it")])
def test_what_a_user_can_mend_ends_as_one_sentence(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        run_stage(main)
    assert caught.value.code == 1
    assert capsys.readouterr() == ("", "error: mend it\n")


def test_our_own_mistakes_keep_their_traceback() -> None:
    def main() -> None:
        raise KeyError("own")

    with pytest.raises(KeyError):
        run_stage(main)


def test_an_absent_gpu_is_refused() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match=r"runtime.device is cuda but torch sees no GPU"):
        use_machine("cuda", 1)


def test_threads_are_fixed() -> None:
    import torch

    before = torch.get_num_threads()
    try:
        assert use_machine("cpu", 1) == "cpu"
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


N_MAPPED = """
import ctypes
from tasks.core.runtime import keep_memory, use_machine

class Mallinfo2(ctypes.Structure):
    _fields_ = [(f"field_{n}", ctypes.c_size_t) for n in range(10)]  # the fourth is hblks: blocks fetched one by one

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Mallinfo2
libc.malloc.restype = ctypes.c_void_p

def mapped_by_a_large_block():
    before = libc.mallinfo2().field_3
    libc.malloc(ctypes.c_size_t(2**28))
    return libc.mallinfo2().field_3 - before

plain = mapped_by_a_large_block()
use_machine("cpu", 1)
print(plain, mapped_by_a_large_block())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's settings")
def test_a_stage_keeps_its_large_blocks() -> None:
    run = subprocess.run([sys.executable, "-c", N_MAPPED], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["1", "0"]
