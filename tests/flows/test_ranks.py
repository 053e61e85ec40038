"""Realised ranks: by hand, on manifests of bundles."""

from typing import Any

from flows.ranks import realised_ranks


def manifest(pretrained: str, accuracy: float, data: str = "d1") -> dict[str, Any]:
    return {"pretrained": pretrained, "accuracy": accuracy, "files": {"profile.json": data}}


def test_candidates_are_ranked_by_the_mean_accuracy_of_their_versions() -> None:
    found = realised_ranks({
        "1": manifest("imagenet", 0.9), "2": manifest("birds", 0.7), "3": manifest("imagenet", 0.7), "4": manifest("birds", 0.8),
        "5": manifest("textures", 0.2),
    })  # fmt: skip
    # means: imagenet .8, birds .75, textures .2
    assert found == {"1": "1 of 3", "3": "1 of 3", "2": "2 of 3", "4": "2 of 3", "5": "3 of 3"}


def test_equal_candidates_share_a_place() -> None:
    assert realised_ranks({"1": manifest("a", 0.5), "2": manifest("b", 0.5)}) == {"1": "1 of 2", "2": "1 of 2"}


def test_one_candidate_alone_or_other_data_rank_nobody() -> None:
    assert realised_ranks({"1": manifest("a", 0.5), "2": manifest("a", 0.6)}) == {}
    assert realised_ranks({"1": manifest("a", 0.5), "2": manifest("b", 0.6, data="d2")}) == {}


def test_bundles_of_the_first_days_that_name_no_candidate_play_no_part() -> None:
    old = {"accuracy": 0.9, "files": {"profile.json": "d1"}}
    assert realised_ranks({"1": old, "2": manifest("a", 0.5), "3": manifest("b", 0.6)}) == {
        "2": "2 of 2",
        "3": "1 of 2",
    }
