"""What a candidate cost here: found again beside the run, and nowhere else."""

from pathlib import Path

import pytest

from tasks.core.costs import Cost, read_cost, write_cost


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ACCLIMATE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_cost_is_found_again_by_the_candidates_name(home: Path) -> None:
    cost = Cost(n_rows=931, seconds=12.34, memory_gib=0.815, device="cpu")
    write_cost("imagenet", cost)
    assert read_cost("imagenet") == cost
    assert str(cost) == "12.3 s and 0.81 GiB for 931 images and augmented views on cpu"
    assert [path.name for path in home.iterdir()] == ["costs"]


def test_a_candidate_that_never_ran_here_has_no_cost() -> None:
    assert read_cost("imagenet") is None
