"""What `acclimate run` would do, told from DVC's status: compute, bring what dvc.lock tells of, or nothing."""

from typing import Any

import pytest

from flows.due import due

MERGED = {  # as DVC tells it after the merge of a branch whose run made other results of the same inputs
    "build_manifest": [{"changed outs": {"data/manifest.csv": "modified"}}],
    "register_model": [
        {"changed deps": {"data/manifest.csv": "modified"}},
        {"changed outs": {"data/bundle": "modified"}},
    ],
}


def test_after_a_merge_results_are_to_be_brought_and_nothing_is_computed() -> None:
    told = due(MERGED)
    assert told.startswith(
        "nothing to compute anew, but the results of build_manifest, register_model here are not those"
    )
    assert "`acclimate run` brings them" in told


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "nothing, all stages are up to date"),
        ({"a": [{"changed deps": {"images": "modified"}}]}, "a and what depends on it"),
        ({"a": [{"changed deps": {"params.yaml": {"seed": "modified"}}}]}, "a and what depends on it"),
        ({"a": ["changed command"], "b": [{"changed deps": {"x": "new"}}]}, "a, b and what depends on them"),
        (MERGED | {"c": [{"changed deps": {"c.py": "modified"}}]}, "c and what depends on it"),
    ],
)
def test_stages_that_compute_are_named(changes: dict[str, Any], told: str) -> None:
    assert due(changes) == told
