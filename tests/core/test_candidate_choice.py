"""The decision: who is ahead, who can't be told apart, what is left out and why; on features made by hand."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from tasks.core.candidate_choice import ChoiceSettings, Costs, Evidence, choice_of
from tasks.core.files import read_json, write_json
from tasks.core.intervals import paired_gain
from tasks.core.selection import CandidateFeatures, ScoreSettings
from tasks.core.zoo_file import Candidate, Pretraining

N, D = 60, 6
LABELS = np.array(["ant", "bee", "cat"])[np.arange(N) % 3]
FROM_SOURCE = (
    "so the ranking rests on how alike the domains look, on the labelled source and on a static prior (published accuracy "
    "where all have one, else size): it can't say which is best on the target; "
)
SETTINGS = ChoiceSettings(
    how=ScoreSettings(n_neighbors=3, probe_inverse_l2=0.1, n_bootstrap=60, seed=7),
    weights={"knn": 1.0, "linear_probe": 1.0, "h_score": 1.0, "coral_distance": 0.25},
    weights_without={"source_probe": 1.0, "static_prior": 0.5, "coral_distance": 0.25},
    min_labels=20,
    gap_min_images=10,
    tie_p_best=0.1,
    confidence=0.95,
)


@pytest.fixture(autouse=True)
def one_thread_of_blas() -> Iterator[None]:
    """As a stage sets it: threads that wait for each other make small fits five times slower."""
    with threadpool_limits(1, user_api="blas"):
        yield


def pretrained(name: str, **known: Any) -> Candidate:
    return Candidate(
        name=name, architecture="acclimate.small_resnet", weights_path=Path(f"{name}.safetensors"), sha256="0" * 64,
        n_source_classes=3, feature_dim=D, mean=(0.5,) * 3, std=(0.5,) * 3, native_px=32, source_domain="digits",
        licence="MIT", **known,
    )  # fmt: skip


def scratch(name: str = "random") -> Candidate:
    return replace(pretrained(name, seed=0), weights_path=None)


def seen(signal: float, seed: int = 0, n: int = N) -> CandidateFeatures:
    """Features in which the three classes of target and source lie `signal` apart."""
    rng, y = np.random.default_rng(seed), np.arange(n) % 3
    centres = signal * np.eye(3, D)
    labelled, source, target = (rng.normal(size=(n, D)) + centres[y] for _ in range(3))
    theta = np.exp(labelled) / np.exp(labelled).sum(1, keepdims=True)
    return CandidateFeatures(labelled, source, target, theta)


def evidence(*features: CandidateFeatures, **given: Any) -> Evidence:
    n = len(features[0].labelled_ND)
    known = {
        "labels_N": np.array(["ant", "bee", "cat"])[np.arange(n) % 3],
        "source_labels_S": LABELS, "groups_N": None, "groups_S": None, "groups_T": None, "audit": {},
        "origins_S": np.array(["fonts"] * N), "target_name": "handwriting",
    }  # fmt: skip
    return Evidence(features=list(features), **known | given)


def choose_from(
    candidates: list[Candidate], found: Evidence, settings: ChoiceSettings = SETTINGS, costs: Costs | None = None
) -> dict[str, Any]:
    same = np.ones(len(candidates), int)
    return choice_of(candidates, found, costs or Costs(same, same), settings)


def entry_of(selection: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [entry for entry in selection["candidates"] if entry["name"] == name]
    return dict(found)


# --- ahead or tied -----------------------------------------------------------------------------------------------------


def test_a_clear_winner_is_ahead() -> None:
    found = choose_from(
        [pretrained("weak"), scratch(), pretrained("strong")], evidence(seen(0), seen(0, 1), seen(4, 2))
    )
    assert (found["chosen"], found["tied"]) == ("strong", ["strong"])
    assert found["reason"] == "strong is ahead: it comes first in 100% of the bootstrap draws"
    assert [(e["name"], e["p_best"], e["tied"], e["chosen"]) for e in found["candidates"]] == [
        ("strong", 1.0, True, True),
        ("weak", 0.0, False, False),
    ]
    assert (found["n_labels"], found["confidence"], found["left_out"]) == (N, 0.95, [])


def test_a_named_candidate_is_taken_against_the_scores_and_the_reason_says_so() -> None:
    found = choose_from(
        [pretrained("weak"), pretrained("strong")], evidence(seen(0), seen(4, 2)), replace(SETTINGS, take="weak")
    )
    assert (found["chosen"], found["preferred"], found["tied"]) == ("weak", "strong", ["strong"])
    assert [(e["name"], e["chosen"]) for e in found["candidates"]] == [("strong", False), ("weak", True)]
    assert found["reason"] == (
        "weak is taken because select_model.take names it; by the scores: strong is ahead: it comes first in 100% of the "
        "bootstrap draws"
    )


@pytest.mark.parametrize("take", ["random", "other"])
def test_only_a_pretrained_candidate_can_be_taken(take: str) -> None:
    candidates = [pretrained("weak"), scratch("random"), pretrained("strong")]
    with pytest.raises(
        ValueError, match=f"select_model.take is '{take}', which is no pretrained .* allowed: strong, weak"
    ):
        choose_from(candidates, evidence(seen(0), seen(0, 1), seen(4, 2)), replace(SETTINGS, take=take))


@pytest.mark.parametrize("names", ["abc", "cab", "bca"])
@pytest.mark.parametrize(
    ("multiply_adds", "parameters"),
    [
        ([9, 5, 7], [1, 9, 1]),  # fewer multiply-adds, even with more parameters
        ([9, 5, 5], [1, 2, 3]),  # equal multiply-adds: fewer parameters
    ],
)
def test_of_tied_candidates_the_cheapest_is_taken(multiply_adds: list[int], parameters: list[int], names: str) -> None:
    costs = Costs(np.array(parameters), np.array(multiply_adds))
    found = choose_from([pretrained(name) for name in names], evidence(*[seen(1)] * 3), costs=costs)
    assert (found["chosen"], found["tied"]) == (names[1], ["a", "b", "c"])
    others = ", ".join(sorted({"a", "b", "c"} - {names[1]}))
    assert found["reason"] == (
        f"{names[1]} can't be told apart from {others}: it comes first in 33% of the bootstrap draws; the cheapest of them "
        "is taken"
    )


@pytest.mark.parametrize(
    ("costs", "signals", "words"),
    [
        ([1, 1], [1, 1.1], "they cost the same, so the better mean rank is taken"),
        ([1, 1], [1, 1], "they cost the same and share the best mean rank, so the first by name is taken"),
        ([2, 1, 1], [1.1, 1, 1.05], "2 of them cost the least, so the better mean rank is taken"),
        ([2, 1, 1], [1, 1, 1], "2 of them cost the least and share the best mean rank, so the first by name is taken"),
    ],
)
def test_of_equally_cheap_ones_the_reason_says_what_decides(costs: list[int], signals: list[float], words: str) -> None:
    features = [seen(signal, 3) for signal in signals]  # the same noise
    settings = replace(SETTINGS, tie_p_best=1e-9, weights={"h_score": 1.0, "knn": 1.0})
    names = [pretrained(name) for name in "abc"[: len(costs)]]
    found = choose_from(names, evidence(*features), settings, Costs(np.array(costs), np.array(costs)))
    assert found["tied"] == list("abc"[: len(costs)])
    assert found["reason"].endswith(f"; {words}")
    cheap = [entry for entry in found["candidates"] if entry["n_parameters"] == 1]
    assert found["chosen"] == min(cheap, key=lambda entry: (entry["mean_rank"], entry["name"]))["name"]


@pytest.mark.parametrize("seed", [5, 9])
def test_where_cost_says_nothing_the_better_mean_rank_is_taken(seed: int) -> None:
    first, second = seen(1, 3), seen(1, seed)
    chosen = []
    for features in ((first, second), (second, first)):
        found = choose_from([pretrained("a"), pretrained("b")], evidence(*features))
        ranks = {entry["name"]: entry["mean_rank"] for entry in found["candidates"]}
        assert found["tied"] == ["a", "b"]
        assert ranks["a"] != ranks["b"]
        assert found["chosen"] == min(ranks, key=lambda name: ranks[name])
        chosen.append(found["chosen"])
    assert sorted(chosen) == ["a", "b"]


def test_the_shares_of_first_places_add_up_to_one() -> None:
    names = ["a", "b", "c", "d"]
    features = [seen(0.8, seed) for seed in range(4)]
    found = choose_from([*map(pretrained, names), scratch()], evidence(*features, seen(0.8, 9)))
    assert sum(entry["p_best"] for entry in found["candidates"]) == pytest.approx(1)
    assert [entry["p_best"] for entry in found["candidates"]] == sorted(
        (entry["p_best"] for entry in found["candidates"]), reverse=True
    )
    for entry in found["candidates"]:
        assert entry["tied"] == (entry["p_best"] >= 0.1) == (entry["name"] in found["tied"])


# --- the null candidate ------------------------------------------------------------------------------------------------


def test_scratch_is_scored_but_never_chosen_even_where_it_is_best() -> None:
    found = choose_from([scratch(), pretrained("weak")], evidence(seen(4), seen(0, 1)))
    assert (found["chosen"], found["tied"]) == ("weak", ["weak"])
    assert [entry["name"] for entry in found["candidates"]] == ["weak"]
    assert found["random"]["name"] == "random"
    for name, score in found["random"]["scores"].items():
        weaker = entry_of(found, "weak")["scores"][name]
        assert name == "coral_distance" or score["value"] > weaker["value"]
    assert {"p_best", "chosen", "tied"}.isdisjoint(found["random"])


def test_a_zoo_of_scratch_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="every candidate of the zoo starts from scratch") as caught:
        choose_from([scratch(), scratch("other")], evidence(seen(1), seen(1)))
    assert "\n" not in str(caught.value)


def patterned(*flipped: int, n: int = 120) -> CandidateFeatures:
    """One feature that is the class itself (even images: one, odd ones: the other), but its opposite for the flipped images.

    A probe that is fitted on any part of them guesses the flipped ones wrong, and no others.
    """
    sign = np.where(np.arange(n) % 2, 1.0, -1.0)
    sign[list(flipped)] *= -1
    x = np.stack([sign, np.zeros(n)], axis=1)
    rng = np.random.default_rng(0)
    return CandidateFeatures(x, rng.normal(size=(N, 2)), rng.normal(size=(N, 2)))


def two_classes(*features: CandidateFeatures, **given: Any) -> Evidence:
    labels = np.where(np.arange(len(features[0].labelled_ND)) % 2, "ant", "bee")
    return evidence(*features, labels_N=labels, **given)


def test_candidates_are_held_against_random_features_on_the_same_images() -> None:
    wrong = {"sure": range(6), "same": range(10, 40), "hardly": range(28), "random": range(30)}
    candidates = [pretrained("sure"), pretrained("same"), pretrained("hardly"), scratch()]
    found = choose_from(candidates, two_classes(*(patterned(*images) for images in wrong.values())))
    right = {name: ~np.isin(np.arange(120), list(images)) for name, images in wrong.items()}
    for name, is_better in {"sure": True, "same": False, "hardly": False}.items():
        gain = paired_gain(right[name], right["random"], 0.95)
        assert entry_of(found, name)["against_random"] == {
            "gain": gain.value, "low": gain.low, "high": gain.high, "n": 120, "is_better": is_better,
        }  # fmt: skip
    assert entry_of(found, "sure")["against_random"]["gain"] == pytest.approx(24 / 120)


def test_a_candidate_whose_features_are_random_is_marked() -> None:
    found = choose_from([pretrained("drawn"), pretrained("good"), scratch()], evidence(seen(0), seen(4, 1), seen(0, 2)))
    marks = {entry["name"]: entry["against_random"]["is_better"] for entry in found["candidates"]}
    assert marks == {"drawn": False, "good": True}


def test_without_random_features_nothing_is_held_against_them() -> None:
    found = choose_from([pretrained("a")], evidence(seen(1)))
    assert (found["random"], entry_of(found, "a")["against_random"]) == (None, None)


# --- too few labels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([], "0 labelled target images of 0 classes; 20 of at least two classes"),
        (["ant", "bee"] * 9 + ["bee"], "19 labelled target images of 2 classes, of which the rarest has 9; 20 of"),
        (["ant"] * 30, "30 labelled target images of 1 classes"),
        (
            ["ant"] * 29 + ["bee"],
            "30 labelled target images of 2 classes, of which the rarest has 1; 20 of at least two",
        ),
    ],
)
def test_too_few_labels_give_no_score_on_labels_and_say_so(labels: list[str], words: str) -> None:
    few = [
        replace(x, labelled_ND=x.labelled_ND[: len(labels)], theta_NZ=None) for x in (seen(4), seen(0, 1), seen(0, 2))
    ]
    groups = {"groups_N": np.arange(len(labels)).astype(str), "audit": {"site": np.array(["a"] * len(labels))}}
    names = [pretrained("a"), pretrained("b"), scratch()]
    found = choose_from(names, evidence(*few, labels_N=np.array(labels, str), **groups))
    (why,) = found["left_out"]
    assert why.startswith(f"scores on target labels are left out: {words}")
    assert set(entry_of(found, "a")["scores"]) == {"source_probe", "static_prior", "coral_distance"}
    few = f"no score can use the {len(labels)} target labels" if labels else "no target labels"
    assert found["reason"] == (
        f"{few}, {FROM_SOURCE}a is ahead: it comes first in 100% of the draws of these scores, which don't know "
        "the target's labels"
    )
    assert (found["n_labels"], found["by_labels"]) == (len(labels), False)
    for entry in found["candidates"]:
        assert (entry["gaps"], entry["against_random"]) == ([], None)


def test_twenty_labels_are_enough() -> None:
    x = seen(2)
    twenty = replace(x, labelled_ND=x.labelled_ND[:20], theta_NZ=None)
    found = choose_from([pretrained("a")], evidence(twenty, labels_N=LABELS[:20]))
    assert set(entry_of(found, "a")["scores"]) == set(SETTINGS.weights)
    assert (found["left_out"], found["n_labels"]) == ([], 20)


def test_the_source_helps_to_learn_the_classes_that_it_shares() -> None:
    settings = replace(SETTINGS, weights={"transfer_probe": 1.0, "knn": 1.0})
    one = [pretrained("a")]
    others = np.where(LABELS == "ant", "wasp", LABELS)
    writers = np.where(np.arange(N) % 3, "north", "south")
    pairs = np.arange(N) // 2
    found = choose_from(one, evidence(seen(2)), settings)
    assert (set(entry_of(found, "a")["scores"]), found["left_out"]) == ({"transfer_probe", "knn"}, [])
    assert entry_of(found, "a")["scores"]["transfer_probe"]["value"] > 0.7
    for given, n_lacking in (
        ({"source_labels_S": others}, 1),
        ({"source_labels_S": np.array([""] * N)}, 3),
        ({"groups_S": writers, "groups_N": np.where(pairs % 9, writers, "west")}, 3),  # all writers wrote in both
    ):
        found = choose_from(one, evidence(seen(2), **given), settings)
        assert set(entry_of(found, "a")["scores"]) == {"knn"}
        assert found["left_out"] == [
            f"transfer_probe is left out: {n_lacking} of 3 target classes have no labelled source image"
        ]


def unlabelled(*features: CandidateFeatures) -> Evidence:
    return evidence(
        *(replace(x, labelled_ND=np.zeros((0, D)), theta_NZ=None) for x in features), labels_N=np.array([], str)
    )


def prior(published: list[float | None]) -> dict[str, Any]:
    names = ["large", "small"]
    candidates = [pretrained(name, published_accuracy=one) for name, one in zip(names, published, strict=True)]
    costs = Costs(np.array([900, 100, 900]), np.array([9, 1, 9]))
    settings = replace(SETTINGS, weights_without={"static_prior": 1.0})
    return choose_from([*candidates, scratch()], unlabelled(seen(1), seen(1), seen(1)), settings, costs)


def test_the_static_prior_is_published_accuracy_where_all_pretrained_ones_have_it() -> None:
    found = prior([0.7, 0.8])
    assert {e["name"]: e["scores"]["static_prior"]["value"] for e in found["candidates"]} == {
        "large": 0.7,
        "small": 0.8,
    }
    assert found["chosen"] == "small"
    assert found["random"]["scores"] == {}  # random weights have no published accuracy


@pytest.mark.parametrize("published", [[None, 0.8], [0.7, None], [None, None]])
def test_where_one_published_accuracy_is_not_known_size_is_the_prior(published: list[float | None]) -> None:
    found = prior(published)
    values = {e["name"]: e["scores"]["static_prior"]["value"] for e in found["candidates"]}
    assert values == {"large": 900, "small": 100}
    assert found["chosen"] == "large"
    assert found["random"]["scores"]["static_prior"]["value"] == 900


def test_without_labels_the_source_probe_prefers_what_tells_the_source_apart() -> None:
    found = choose_from([pretrained("blind"), pretrained("sees")], unlabelled(seen(0), seen(4, 1)))
    blind, sees = (entry_of(found, name)["scores"]["source_probe"] for name in ("blind", "sees"))
    assert blind["value"] < 0.6 < 0.9 < sees["value"]
    assert (found["chosen"], found["tied"]) == ("sees", ["sees"])


# --- weights -----------------------------------------------------------------------------------------------------------


def test_a_score_without_weight_is_not_computed_and_one_of_weight_0_has_no_say() -> None:
    candidates, features = [pretrained("a"), pretrained("b"), scratch()], [seen(0.8, 1), seen(0.9, 2), seen(0, 3)]
    without = choose_from(candidates, evidence(*features))
    shown = dict.fromkeys(("logme", "leep", "kid", "frechet_distance"), 0.0)
    both = choose_from(candidates, evidence(*features), replace(SETTINGS, weights=SETTINGS.weights | shown))
    assert min(entry["p_best"] for entry in without["candidates"]) > 0
    for one, other in zip(without["candidates"], both["candidates"], strict=True):
        assert set(one["scores"]) == set(SETTINGS.weights)
        assert set(other["scores"]) == {*SETTINGS.weights, *shown}
        assert all(other["scores"][name]["weight"] == 0 for name in shown)
        assert {**other, "scores": {name: other["scores"][name] for name in one["scores"]}} == one
    assert both["reason"] == without["reason"]


def test_what_has_no_score_that_counts_is_refused() -> None:
    headless = evidence(replace(seen(1), theta_NZ=None))
    for weights in ({"leep": 1.0}, {"leep": 1.0, "knn": 0.0}, {}):
        with pytest.raises(ValueError, match="no score that counts could be computed") as caught:
            choose_from([pretrained("a")], headless, replace(SETTINGS, weights=weights))
        assert "\n" not in str(caught.value)


# --- LEEP --------------------------------------------------------------------------------------------------------------


def test_leep_needs_a_head_of_every_pretrained_candidate_and_none_of_scratch() -> None:
    settings = replace(SETTINGS, weights={"leep": 1.0})
    names, features = [pretrained("good"), pretrained("bad"), scratch()], [seen(4), seen(0, 1), seen(0, 2)]
    features[2] = replace(features[2], theta_NZ=None)
    found = choose_from(names, evidence(*features), settings)
    assert (found["chosen"], found["left_out"]) == ("good", [])
    # what guessing says: minus the entropy of three equal classes
    assert found["random"]["scores"]["leep"]["value"] == pytest.approx(-np.log(3))
    assert entry_of(found, "bad")["scores"]["leep"]["value"] >= -np.log(3)
    features[1] = replace(features[1], theta_NZ=None)
    found = choose_from(names, evidence(*features), replace(SETTINGS, weights={"leep": 1.0, "knn": 1.0}))
    assert found["left_out"] == [
        "leep is left out: 1 of 3 candidates have no source head, and a score that some lack can't rank them all"
    ]
    assert set(entry_of(found, "good")["scores"]) == {"knn"}


# --- gaps --------------------------------------------------------------------------------------------------------------

SITES = np.repeat(["north", "south"], 60)  # of 120 images
EVEN = (*range(6), *range(60, 66))  # a tenth of both sites is wrong
UNEVEN = tuple(range(60, 84))  # four tenths of the south, nothing of the north


def test_a_candidate_that_fails_one_group_is_marked() -> None:
    found = choose_from(
        [pretrained("even"), pretrained("uneven")],
        two_classes(patterned(*EVEN), patterned(*UNEVEN), audit={"site": SITES}),
    )
    (even,), (uneven,) = entry_of(found, "even")["gaps"], entry_of(found, "uneven")["gaps"]
    assert (even["column"], even["gap"], even["wider"]) == ("site", pytest.approx(0), False)
    assert (uneven["gap"], uneven["worst"], uneven["n_worst"], uneven["wider"]) == (
        pytest.approx(0.4),
        "south",
        60,
        True,
    )
    assert uneven["low"] < 0.4 < uneven["high"]


def test_random_features_do_not_set_what_is_a_wide_gap() -> None:
    names = [pretrained("a"), pretrained("b"), scratch()]
    found = choose_from(
        names, two_classes(patterned(*UNEVEN), patterned(*UNEVEN), patterned(*EVEN), audit={"site": SITES})
    )
    assert [entry["gaps"][0]["wider"] for entry in found["candidates"]] == [False, False]


def test_groups_that_are_too_small_are_not_judged() -> None:
    few = np.where(np.arange(120) < 9, "few", "many")  # 9 of the 10 that are needed
    found = choose_from(
        [pretrained("a")], two_classes(patterned(*range(9)), audit={"site": few, "sex": np.array([""] * 120)})
    )
    assert entry_of(found, "a")["gaps"] == []
    enough = np.where(np.arange(120) < 10, "few", "many")
    (gap,) = entry_of(choose_from([pretrained("a")], two_classes(patterned(*range(10)), audit={"site": enough})), "a")[
        "gaps"
    ]
    assert (gap["worst"], gap["n_worst"], gap["gap"]) == ("few", 10, pytest.approx(1))


# --- groups of images --------------------------------------------------------------------------------------------------


def test_one_group_alone_is_told_and_taken_as_independent_images() -> None:
    alone = choose_from([pretrained("a"), pretrained("b")], evidence(seen(1), seen(1, 1)))
    one = np.array(["w"] * N)
    found = choose_from([pretrained("a"), pretrained("b")], evidence(seen(1), seen(1, 1), groups_N=one))
    told = "all 60 labelled target images are of one group: their intervals take images as independent"
    assert found.pop("left_out") == [told]
    alone.pop("left_out")
    assert found == alone


def test_every_image_its_own_group_is_no_group() -> None:
    ids = np.arange(N).astype(str)
    features = [seen(1), seen(1, 1)]
    names = [pretrained("a"), pretrained("b")]
    grouped = choose_from(names, evidence(*features, groups_N=ids, groups_S=ids, groups_T=None))
    assert grouped == choose_from(names, evidence(*features))


def test_groups_that_repeat_are_drawn_whole() -> None:
    small = seen(1, n=30)
    four = CandidateFeatures(np.repeat(small.labelled_ND, 4, axis=0), small.source_SD, small.target_TD)
    labels, groups = np.repeat(np.arange(30) % 3, 4).astype(str), np.repeat(np.arange(30), 4).astype(str)
    given = {"labels_N": labels, "source_labels_S": LABELS[:30], "origins_S": np.array(["fonts"] * 30)}
    alone, grouped = (
        entry_of(choose_from([pretrained("a")], evidence(four, **given, groups_N=of)), "a")["scores"]
        for of in (None, groups)
    )
    assert alone["knn"]["value"] == 1  # each image recognises its own copies
    assert grouped["knn"]["value"] < 0.8
    wide, narrow = (scores["h_score"]["high"] - scores["h_score"]["low"] for scores in (grouped, alone))
    assert wide > 1.5 * narrow  # 30 pictures say half as precisely what 120 would


# --- without a source --------------------------------------------------------------------------------------------------


def test_without_a_source_what_needs_one_is_left_out() -> None:
    nothing = {"source_labels_S": np.array([], str), "origins_S": np.array([], str)}
    features = [replace(x, source_SD=np.zeros((0, D))) for x in (seen(0), seen(4, 1))]
    found = choose_from([pretrained("a"), pretrained("b")], evidence(*features, **nothing))
    assert found["chosen"] == "b"
    assert set(entry_of(found, "a")["scores"]) == {"knn", "linear_probe", "h_score"}
    assert found["left_out"] == [
        "the distances between the domains are left out: there is no source to measure them from"
    ]
    few = [replace(x, labelled_ND=np.zeros((0, D)), theta_NZ=None) for x in features]
    found = choose_from([pretrained("a"), pretrained("b")], evidence(*few, **nothing, labels_N=np.array([], str)))
    assert set(entry_of(found, "a")["scores"]) == {"static_prior"}
    assert found["reason"].startswith(
        "no target labels, so the ranking rests on a static prior (published accuracy where"
    )
    assert "alike" not in found["reason"]
    assert len(found["left_out"]) == 3


@pytest.mark.parametrize("domain", ["source", "target"])
def test_one_image_alone_has_no_distance(domain: str) -> None:
    key = {"source": "source_SD", "target": "target_TD"}[domain]
    features = [replace(x, **{key: getattr(x, key)[:1]}) for x in (seen(0), seen(4, 1))]
    given = {"source_labels_S": LABELS[:1], "origins_S": np.array(["fonts"])} if domain == "source" else {}
    found = choose_from([pretrained("a"), pretrained("b")], evidence(*features, **given))
    assert found["chosen"] == "b"
    assert (
        f"the distances between the domains are left out: the {domain} has one image alone, and they take two"
        in (found["left_out"])
    )


def test_a_single_image_is_no_group_worth_telling() -> None:
    one = [replace(x, target_TD=x.target_TD[:1]) for x in (seen(0), seen(4, 1))]
    found = choose_from([pretrained("a"), pretrained("b")], evidence(*one, groups_T=np.array(["w"])))
    assert not [sentence for sentence in found["left_out"] if "of one group" in sentence]


# --- the same for every order, and readable everywhere -----------------------------------------------------------------


@pytest.mark.parametrize("labelled", [True, False])
def test_the_order_of_the_candidates_changes_nothing(*, labelled: bool) -> None:
    cost = Costs(np.array([3, 3, 5, 5, 9]), np.array([3, 3, 5, 5, 9]))
    names = [*map(pretrained, "abcd"), scratch()]
    features = [seen(1, 1), seen(1, 1), seen(1.1, 2), seen(0, 3), seen(0, 4)]
    sites = {"site": np.where(np.arange(N) % 2, "north", "south")}
    texts = set()
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [1, 4, 0, 3, 2]):
        moved = [features[m] for m in order]
        found = choose_from(
            [names[m] for m in order],
            evidence(*moved, audit=sites) if labelled else unlabelled(*moved),
            costs=Costs(cost.n_parameters[order], cost.n_multiply_adds[order]),
        )
        texts.add(json.dumps(found, default=float))
    assert len(texts) == 1


def test_the_selection_is_written_without_gaps(tmp_path: Path) -> None:
    known = Pretraining(data="fonts", n_images=9, known_gaps=None, url=None)
    dead = CandidateFeatures(np.zeros((N, D)), np.zeros((N, D)), np.zeros((N, D)), np.ones((N, 1)))
    names = [pretrained("a", pretraining=known, published_accuracy=0.5), pretrained("dead"), scratch()]
    every = dict.fromkeys(("knn", "linear_probe", "logme", "h_score", "leep"), 1.0) | dict.fromkeys(
        ("proxy_a_distance", "linear_mmd", "kid", "coral_distance", "frechet_distance"), 0.5
    )
    sites = {"site": np.where(np.arange(N) % 2, "north", "south")}
    found = choose_from(names, evidence(seen(1), dead, seen(0, 2), audit=sites), replace(SETTINGS, weights=every))
    write_json(tmp_path / "selection.json", found)
    read = read_json(tmp_path / "selection.json", made_by="select_model")
    first, second = read["candidates"]
    assert set(first) == set(second)
    for entry in (first, second, read["random"]):
        assert list(entry["scores"]) == list(every)
        for score in entry["scores"].values():
            assert all(isinstance(score[key], float) for key in ("value", "low", "high", "weight"))
            assert score["low"] <= score["value"] <= score["high"]
    assert entry_of(read, "a")["pretraining"]["known_gaps"] is None
    assert entry_of(read, "dead")["pretraining"] is None
    assert read["chosen"] == "a"
    assert json.loads(json.dumps(read, allow_nan=False)) == read
