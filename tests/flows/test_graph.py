from pathlib import Path

import pytest

from flows.graph import run_order, stages


@pytest.mark.usefixtures("workspace")
def test_stages_are_those_that_register_model_needs_in_order() -> None:
    assert stages() == ["build_manifest", "measure_images", "register_model"]


def test_what_is_needed_comes_first_whatever_the_listing() -> None:
    edges = ['"a" -> "b"', '"b" -> "c"', '"data/given/x.csv.dvc" -> "b"']
    dot = ";\n".join(["strict digraph {", '"c"', '"data/given/x.csv.dvc"', '"b"', '"a"', *edges, "}"])
    assert run_order(dot) == ["a", "data/given/x.csv.dvc", "b", "c"]


def test_a_missing_target_is_told_in_dvcs_words(workspace: Path) -> None:
    (workspace / "dvc.yaml").write_text("stages: {}\n")
    with pytest.raises(ValueError, match="register_model"):
        stages()
