"""Shift: effect sizes agree with scipy, intervals hold what they promise, and profiles tell what has changed."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu

from tasks.core.drift import (
    MAX_PROFILE_IMAGES,
    PROPERTIES,
    at_least,
    changes,
    cliffs_delta,
    profile_of,
    read_profile,
    shifts,
)
from tasks.core.files import write_json
from tasks.core.intervals import Interval

NOTHING = '{"format": 1, "n_images": 0, "origins": {}, "groups": {}}'


def delta(one: list[float], other: list[float], confidence: float = 0.95) -> Interval:
    return cliffs_delta(np.array(one, float), np.array(other, float), confidence)


@pytest.mark.parametrize(
    ("one", "other", "value"),
    [
        ([1, 2], [3, 4], 1.0),  # all four pairs rise
        ([3, 4], [1, 2], -1.0),
        ([1, 3], [2, 4], 0.5),  # three rise, one falls
        ([1, 2], [1, 2], 0.0),
        ([1, 1], [1, 2], 0.5),  # two tie, two rise
        ([1, 2, 3], [2, 2], 0.0),  # two rise, two tie, two fall
        ([0, 0, 0, 0], [0, 0, 1, -1], 0.0),
    ],
)
def test_the_effect_counts_pairs(one: list[float], other: list[float], value: float) -> None:
    assert delta(one, other).value == value


@pytest.mark.parametrize("seed", range(8))
def test_the_effect_is_that_of_mann_whitney_with_and_without_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(2, 60)), int(rng.integers(2, 60))
    one, other = rng.normal(size=n), rng.normal(0.5, 2, size=m)
    if seed % 2:
        one, other = one.round(), other.round()
    expected = 2 * mannwhitneyu(other, one).statistic / (n * m) - 1
    assert delta(list(one), list(other)).value == pytest.approx(expected, abs=1e-12)
    assert delta(list(one), list(other)).n == min(n, m)


def test_swapped_sides_turn_the_sign_and_the_interval() -> None:
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.3, 1.0, 9.0):
        one, other = list(rng.normal(size=20)), list(rng.normal(shift, size=35))
        there, back = delta(one, other), delta(other, one)
        assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low))


def test_any_growing_transform_changes_nothing() -> None:
    one, other = [0.1, 0.5, 0.5, 2.0], [0.4, 0.5, 3.0]
    assert delta(one, other) == delta(list(np.exp(one)), list(np.exp(other)))


def test_the_interval_is_that_of_feng_and_cliff_by_hand() -> None:
    """Pairs of [1, 3] and [2, 4]: the others' placements are [0, 1] and [1, 0], both of variance 1/2; d = 1/2, s² = 1/2."""
    z, d, variance = 1.959963984540054, 0.5, 0.5
    half = z * math.sqrt(variance) * math.sqrt((1 - d * d) ** 2 + z * z * variance)
    scale = 1 - d * d + z * z * variance
    found = delta([1, 3], [2, 4])
    assert found.low == pytest.approx((d - d**3 - half) / scale)
    assert found.high == pytest.approx(min(1, (d - d**3 + half) / scale))


@pytest.mark.parametrize(("n", "low"), [(2, -0.3152), (4, 0.0202), (10, 0.4449), (100, 0.9260)])
def test_complete_separation_of_few_is_not_certain(n: int, low: float) -> None:
    """(n - z²) / (n + z²) with z² = 3.8415."""
    found = delta(list(range(n)), list(range(n, 2 * n)))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(low, abs=1e-4)
    lower = delta(list(range(n, 2 * n)), list(range(n)))
    assert (lower.value, lower.low, lower.high) == (-1.0, -1.0, -found.low)


@pytest.mark.parametrize(("one", "other"), [([], []), ([], [1, 2]), ([1], [1, 2]), ([1, 2], [3]), ([1, 2], [])])
def test_fewer_than_two_values_are_no_measurement(one: list[float], other: list[float]) -> None:
    found = delta(one, other)
    assert math.isnan(found.value)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.n == min(len(one), len(other))
    assert math.isnan(at_least(found))


@pytest.mark.parametrize(
    ("n", "m", "shift", "truth"),
    [
        (8, 12, 0.0, 0.0),
        (15, 15, 1.0, 0.5205),  # 2 Φ(shift / √2) - 1
        (30, 200, 0.5, 0.2763),
        (20, 20, 2.0, 0.8427),
        (100, 100, -0.3, -0.1680),
    ],
)
def test_intervals_hold_the_true_effect_as_often_as_they_promise(n: int, m: int, shift: float, truth: float) -> None:
    rng = np.random.default_rng(n)
    draws = [delta(rng.normal(size=n), rng.normal(shift, size=m)) for _ in range(400)]
    held = np.mean([found.low <= truth <= found.high for found in draws])
    assert held >= 0.90
    assert all(-1 <= found.low <= found.value <= found.high <= 1 for found in draws)


def test_a_higher_confidence_gives_a_wider_interval() -> None:
    one, other = [1.0, 2, 3, 4, 5, 9], [2.0, 4, 4, 6, 8]
    narrow, wide = delta(one, other, 0.8), delta(one, other, 0.99)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


@pytest.mark.parametrize(
    ("low", "high", "smallest"),
    [(0.2, 0.6, 0.2), (-0.6, -0.2, 0.2), (-0.1, 0.4, 0.0), (0.0, 0.0, 0.0), (-1.0, 1.0, 0.0)],
)
def test_the_smallest_size_that_the_interval_allows(low: float, high: float, smallest: float) -> None:
    assert at_least(Interval((low + high) / 2, low, high, 5)) == smallest


def images(n: int = 40, seed: int = 0, origin: str = "ink", domain: str = "source", **columns: Any) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame({"image_id": [f"{origin}{i}" for i in range(n)], "origin": origin, "domain": domain})
    rows["label"] = ["ab"[i % 2] for i in range(n)]
    for name in PROPERTIES:
        rows[name] = rng.normal(10, 1, n)
    return rows.assign(**columns)


def test_shifts_lead_from_each_source_to_the_target() -> None:
    rows = pd.concat(
        [images(10, 0, "pen", "target"), images(30, 1, "oil"), images(20, 2, "ink", brightness=3.0)], ignore_index=True
    )
    found = pd.DataFrame(shifts(rows, 0.95))
    assert found[["from", "to"]].drop_duplicates().to_numpy().tolist() == [["ink", "pen"], ["oil", "pen"]]
    assert list(found["property"]) == [*PROPERTIES, *PROPERTIES]
    brightness = found[(found["from"] == "ink") & (found["property"] == "brightness")].iloc[0]
    assert (brightness["effect"], brightness["value_from"], brightness["n"]) == (1.0, 3.0, 10)
    assert brightness["value_to"] == rows.loc[rows["origin"] == "pen", "brightness"].median()


def test_without_roles_the_largest_domain_is_compared_with_the_others() -> None:
    rows = pd.concat([images(n, n, origin, "") for origin, n in (("a", 5), ("b", 9), ("c", 9), ("d", 2))])
    found = pd.DataFrame(shifts(rows, 0.95))
    assert found[["from", "to"]].drop_duplicates().to_numpy().tolist() == [["b", "c"], ["b", "a"], ["b", "d"]]


@pytest.mark.parametrize("rows", [images(0), images(9, origin="", domain=""), images(9), images(9, domain="target")])
def test_a_single_domain_has_no_shifts(rows: pd.DataFrame) -> None:
    assert shifts(rows, 0.95) == []


def test_what_was_not_measured_is_left_out_of_a_shift() -> None:
    rows = pd.concat([images(10), images(10, 1, "pen", "target")], ignore_index=True)
    rows.loc[:3, "contrast"] = np.nan
    rows.loc[10:, "entropy"] = np.nan
    found = {shift["property"]: shift for shift in shifts(rows, 0.95)}
    assert found["contrast"]["n"] == 6
    assert math.isnan(found["entropy"]["effect"])
    assert math.isnan(found["entropy"]["at_least"])


def test_a_profile_counts_domains_classes_and_groups() -> None:
    rows = pd.concat([images(6), images(4, 1, "pen", "target")], ignore_index=True)
    rows["audit_hand"] = ["left"] * 6 + ["left", "right", "right", ""]
    rows.loc[[0, 6], "label"] = ""
    profile = profile_of(rows)
    assert (profile["format"], profile["n_images"]) == (1, 10)
    assert profile["groups"] == {"hand": {"left": 1, "right": 2}}, "groups are those of the target"
    ink, pen = profile["origins"]["ink"], profile["origins"]["pen"]
    assert (ink["domain"], ink["n"], ink["classes"]) == ("source", 6, {"a": 2, "b": 3})
    assert (pen["domain"], pen["n"], pen["classes"]) == ("target", 4, {"a": 1, "b": 2})
    assert ink["properties"]["entropy"] == sorted(rows["entropy"][:6])


def test_a_profile_keeps_a_bounded_draw_that_the_order_does_not_change() -> None:
    rows = images(MAX_PROFILE_IMAGES + 300)
    first, mixed = profile_of(rows), profile_of(rows.sample(frac=1, random_state=3))
    assert first == mixed
    assert {len(values) for values in first["origins"]["ink"]["properties"].values()} == {MAX_PROFILE_IMAGES}
    drawn = rows["entropy"].isin(first["origins"]["ink"]["properties"]["entropy"])
    assert 0.4 < drawn[:400].sum() / drawn.sum() < 0.6, "the draw looks at all of them"


def test_a_profile_of_no_images_is_the_one_that_says_that_nothing_was_accepted() -> None:
    assert profile_of(images(0)) == json.loads(NOTHING)


def test_a_profile_is_read_as_it_was_written(tmp_path: Path) -> None:
    profile = profile_of(images(30).assign(audit_hand="left", domain="target", entropy=np.nan))
    write_json(tmp_path / "profile.json", profile)
    assert read_profile(tmp_path / "profile.json") == profile
    assert profile["origins"]["ink"]["properties"]["entropy"] == []


GOOD = {"n": 2, "classes": {"a": 2}, "properties": {"entropy": [1.0, 2.0]}}


def profile_text(**changed: Any) -> str:
    return json.dumps({"format": 1, "n_images": 2, "origins": {"ink": GOOD}, "groups": {}} | changed)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "null", "3", "[]", "{}", b"\xff\xfe{}", '{"format": 1}', '{"format": 1, "origins": []}',
        profile_text(format=2), profile_text(format="1"), profile_text(origins={"ink": None}),
        profile_text(origins={"ink": {"n": 2}}), profile_text(origins={"ink": GOOD | {"classes": ["a"]}}),
        profile_text(origins={"ink": GOOD | {"n": "many"}}), profile_text(origins={"ink": GOOD | {"classes": {"a": "x"}}}),
        profile_text(origins={"ink": GOOD | {"properties": [1.0]}}),
        profile_text(origins={"ink": GOOD | {"properties": {"entropy": [1.0, None]}}}),
        profile_text(origins={"ink": GOOD | {"properties": {"entropy": ["x"]}}}),
        profile_text(groups=[]), profile_text(groups={"hand": ["left"]}), profile_text(groups={"hand": {"left": None}}),
    ],
)  # fmt: skip
def test_a_damaged_profile_is_one_sentence_that_names_the_file(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "accepted_profile.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"accepted_profile.json is no data profile of ours .*restore it") as caught:
        read_profile(path)
    assert "\n" not in str(caught.value)


def test_a_missing_profile_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none.json is no data profile of ours .*restore it with git"):
        read_profile(tmp_path / "none.json")


@pytest.mark.parametrize("text", [NOTHING, profile_text()])
def test_a_whole_profile_is_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "profile.json").write_text(text)
    assert read_profile(tmp_path / "profile.json") == json.loads(text)


def told(before: pd.DataFrame, now: pd.DataFrame) -> list[str]:
    return [change["what"] for change in changes(profile_of(before), profile_of(now), 0.95) if "what" in change]


def test_the_same_data_has_not_changed() -> None:
    rows = images(60, audit_hand="left", domain="target")
    found = list(changes(profile_of(rows), profile_of(rows), 0.95))
    assert [change for change in found if "what" in change] == []
    assert [change["property"] for change in found] == [*PROPERTIES, "share of class 'a'", "share of class 'b'"]
    for change in found:
        assert change["effect"] == pytest.approx(0, abs=1e-12)
        assert change["low"] < 0 < change["high"]
        assert change["at_least"] == 0
        assert change["value_from"] == change["value_to"]


def test_a_shifted_property_is_found_and_the_others_are_not() -> None:
    before, now = images(60), images(60, seed=1)
    now["sharpness"] += 9
    found = {change["property"]: change for change in changes(profile_of(before), profile_of(now), 0.95)}
    assert found["sharpness"]["effect"] == 1.0
    assert found["sharpness"]["at_least"] > 0.8
    assert (found["sharpness"]["from"], found["sharpness"]["to"]) == ("ink, accepted", "ink, now")
    assert found["sharpness"]["value_to"] == pytest.approx(now["sharpness"].median())
    assert max(change["at_least"] for name, change in found.items() if name != "sharpness") < 0.2


def test_a_shifted_class_share_has_newcombes_interval() -> None:
    """36 of 60 now against 30 of 60 before."""
    before = images(60)
    now = before.assign(label=["a"] * 36 + ["b"] * 24)
    found = {change["property"]: change for change in changes(profile_of(before), profile_of(now), 0.95)}
    share = found["share of class 'a'"]
    assert (share["effect"], share["value_from"], share["value_to"]) == pytest.approx((0.1, 0.5, 0.6))
    low, high = newcombe_by_hand(36, 60, 30, 60)
    assert (share["low"], share["high"]) == pytest.approx((low, high))
    assert found["share of class 'b'"]["effect"] == pytest.approx(-0.1)


def newcombe_by_hand(x1: int, n1: int, x2: int, n2: int) -> tuple[float, float]:
    """Each share's Wilson ends are the roots of (p - x/n)² = z² p (1 - p) / n."""
    z = 1.959963984540054
    ends = [
        sorted(np.roots([1 + z * z / n, -(2 * x / n + z * z / n), (x / n) ** 2]).real) for x, n in ((x1, n1), (x2, n2))
    ]
    (low1, high1), (low2, high2) = ends
    p1, p2 = x1 / n1, x2 / n2
    return (
        p1 - p2 - math.sqrt((p1 - low1) ** 2 + (high2 - p2) ** 2),
        p1 - p2 + math.sqrt((high1 - p1) ** 2 + (p2 - low2) ** 2),
    )


def test_new_and_gone_classes_are_told_in_words() -> None:
    before = images(9, label=["a", "b", "c"] * 3)
    now = images(8, label=["a", "a", "a", "b", "d", "d", "d", "d"])
    assert told(before, now) == [
        "class 'c' of ink is gone (3 images before)",
        "class 'd' of ink is new (4 images)",
    ]


def test_labels_that_come_or_go_altogether_are_no_new_or_gone_classes() -> None:
    assert told(images(9, label=""), images(9)) == []
    assert told(images(9), images(9, label="")) == []


def test_new_and_gone_domains_are_told_in_words() -> None:
    before = pd.concat([images(9), images(5, origin="oil")])
    now = pd.concat([images(9), images(7, origin="chalk")])
    assert told(before, now) == ["domain 'oil' is gone (5 images before)", "domain 'chalk' is new (7 images)"]


def test_new_and_gone_groups_and_columns_are_told_in_words() -> None:
    before = images(4, domain="target", audit_hand=["left", "left", "right", ""], audit_paper="thin")
    now = images(4, domain="target", audit_hand=["left", "both", "both", ""])
    assert told(before, now) == [
        "group 'right' of hand is gone (1 images before)",
        "group 'both' of hand is new (2 images)",
        "the audit column paper is not given any more",
    ]


def test_everything_gone_is_no_crash() -> None:
    assert told(images(4), images(0)) == ["domain 'ink' is gone (4 images before)"]
    assert told(images(0), images(4)) == ["domain 'ink' is new (4 images)"]


def test_a_property_that_was_never_measured_has_no_effect() -> None:
    before, now = images(9, entropy=np.nan), images(9)
    for pair in ((before, now), (now, before), (before, before)):
        found = {change["property"]: change for change in changes(*map(profile_of, pair), 0.95)}
        assert math.isnan(found["entropy"]["effect"])
