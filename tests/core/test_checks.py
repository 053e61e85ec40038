"""What the rules on images look at, worked out by hand, and the words that say why an image fails."""

import time
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.core.checks import COPIES, WHY, checked_columns, duplicate_groups, reasons

MEASURED = {
    "width_px": 8, "height_px": 16, "mode": "RGB", "format": "png", "n_bits": 8, "has_alpha": False, "n_frames": 1,
    "exif_orientation": 1, "brightness": 0.5, "contrast": 0.25, "brightness_p5": 0.1, "brightness_p99": 0.9,
    "sharpness": 500.0, "entropy": 7.0, "saturation": 0.5, "error": "",
}  # fmt: skip
TEXT = ("mode", "format", "pixel_hash", "perceptual_hash", "error")
NEAR, FAR = "0" * 63 + "1", "f" * 64


def checked(*rows: dict[str, Any], max_bits: int = 24) -> pd.DataFrame:
    """The checked columns; what a row leaves out is a measured, unlabelled source image unlike all others."""
    manifest, facts = [], []
    for number, row in enumerate(rows):
        own = {
            "image_id": f"i{number}", "path": f"{number}.png", "domain": "source", "split": "", "label": "", "problem": "",
            "group_id": f"g{number}",
        }  # fmt: skip
        own["origin"] = "pen" if row.get("domain") == "target" else "ink"
        manifest.append({name: row.get(name, value) for name, value in {**own}.items()})
        measured = {"pixel_hash": f"p{number}", "perceptual_hash": f"{number + 1:02x}" * 32, **MEASURED}
        empty = {name: "" if name in TEXT else np.nan for name in measured}
        seen = empty if row.get("error") or row.get("problem") else measured
        facts.append({"image_id": f"i{number}"} | {name: row.get(name, value) for name, value in seen.items()})
    return checked_columns(pd.DataFrame(manifest), pd.DataFrame(facts), max_bits)


def same(value: Any) -> Any:
    """The value, with NaN as None, so that lists can be compared."""
    return None if isinstance(value, float) and np.isnan(value) else value


def column(rows: pd.DataFrame, name: str) -> list[Any]:
    return [same(value) for value in rows[name].tolist()]


def test_sides_and_their_ratio() -> None:
    rows = checked({}, {"width_px": 40, "height_px": 10})
    assert rows[["short_side_px", "long_side_px", "aspect_ratio", "side_px"]].to_numpy().tolist() == [
        [8, 16, 2, np.sqrt(128)],
        [10, 40, 4, 20],
    ]


def test_sizes_are_told_against_the_median_of_their_own_domain() -> None:
    """Sides 10, 10, 100, 2 in the source: 1, 1, 10 and 5 times off 10; the target's two of 400 are its own measure."""
    sides = [10, 10, 100, 2]
    rows = checked(
        *({"width_px": side, "height_px": side} for side in sides),
        *({"width_px": 400, "height_px": 400, "domain": "target"} for _ in range(2)),
    )
    assert column(rows, "size_ratio") == pytest.approx([1, 1, 10, 5, 1, 1])


@pytest.mark.parametrize(
    ("path", "fmt", "matches"),
    [
        ("a.png", "png", True), ("a.PNG", "png", True), ("a.jpg", "jpeg", True), ("a.jpg", "mpo", True),
        ("a.mpo", "mpo", True), ("a.jfif", "jpeg", True), ("a.jpe", "jpeg", True), ("a.jpg", "png", False),
        ("a.tif", "tiff", True), ("a.TIFF", "tiff", True), ("a.pgm", "ppm", True), ("a.pnm", "ppm", True),
        ("a.dib", "dib", True), ("a.bmp", "dib", True), ("a.webp", "webp", True), ("a", "png", False),
        ("a.png.jpg", "jpeg", True), ("a.gif", "gif", True), ("x.zip/png/a.png", "png", True), ("a.jp2", "jpeg2000", True),
        ("png", "png", False), (".png", "png", False),
    ],
)  # fmt: skip
def test_extensions(path: str, fmt: str, *, matches: bool) -> None:
    assert column(checked({"path": path, "format": fmt}), "extension_matches") == [matches]


@pytest.mark.parametrize(
    ("mode", "fine"),
    [
        ("RGB", True),
        ("L", True),
        ("RGBA", True),
        ("P", True),
        ("1", True),
        ("I;16", True),
        ("CMYK", False),
        ("LAB", False),
    ],
)
def test_colour_modes(mode: str, *, fine: bool) -> None:
    assert column(checked({"mode": mode}), "is_rgb_or_grey") == [fine]


def test_an_image_without_facts_was_never_measured() -> None:
    rows = checked({}, {})
    manifest = rows[["image_id", "path", "domain", "origin", "split", "group_id", "label", "problem"]]
    facts = rows[["image_id", *MEASURED, "pixel_hash", "perceptual_hash"]].head(1)
    assert column(checked_columns(manifest, facts, 24), "error") == ["", "never measured"]


def test_what_was_never_opened_is_told_once_and_by_its_path() -> None:
    rows = checked({"problem": "leads outside the root; it was not opened"}, {"error": "the file is empty"})
    assert column(rows, "error") == ["", "the file is empty"]
    assert column(rows, "problem") == ["leads outside the root; it was not opened", ""]


def test_nothing_readable_is_no_crash() -> None:
    rows = checked({"error": "bad"}, {"error": "bad"})
    for name in ("is_copy", "has_copy", "is_near_copy", "has_near_copy"):
        assert column(rows, name) == [False, False]
    for name in ("short_side_px", "size_ratio", "n_labels_of_pixels", "n_splits_of_picture", "n_domains_of_pixels"):
        assert column(rows, name) == [None, None]
    assert column(rows, "extension_matches") == [True, True], "there is nothing to compare"


def test_no_images_are_no_crash() -> None:
    rows = checked({}).head(0)
    manifest = rows[["image_id", "path", "domain", "origin", "split", "group_id", "label", "problem"]]
    empty = checked_columns(manifest, rows[["image_id", *MEASURED, "pixel_hash", "perceptual_hash"]], 24)
    assert len(empty) == 0
    assert duplicate_groups(empty) == []


def test_facts_of_one_image_twice_are_our_own_mistake() -> None:
    rows = checked({}, {})
    facts = rows[["image_id", *MEASURED, "pixel_hash", "perceptual_hash"]].assign(image_id="i0")
    with pytest.raises(pd.errors.MergeError):
        checked_columns(
            rows[["image_id", "path", "domain", "origin", "split", "group_id", "label", "problem"]], facts, 24
        )


def test_the_first_of_equal_pixels_is_no_copy() -> None:
    rows = checked(
        {"pixel_hash": "x"}, {}, {"pixel_hash": "x"}, {"error": "bad"}, {"error": "bad"}, {"pixel_hash": "x"}
    )
    assert column(rows, "is_copy") == [False, False, True, False, False, True]
    assert column(rows, "has_copy") == [True, False, True, False, False, True]
    assert column(rows, "pixels") == ["x", None, "x", None, None, "x"]


def test_a_labelled_copy_is_kept_before_an_unlabelled_one_and_then_the_first() -> None:
    """Two sets: in x the second and third carry a label, in y none does. A copy in the other domain counts, too."""
    x, y = {"pixel_hash": "x"}, {"pixel_hash": "y"}
    rows = checked({**x, "domain": "target"}, y, {**x, "label": "a"}, {**x, "label": "a", "domain": "target"}, y)
    assert column(rows, "is_copy") == [True, False, False, True, True]
    assert reasons("unique_pixels", rows, rows[rows["is_copy"]]) == [
        "the same pixels as 2.png and 1 more",
        "the same pixels as 2.png and 1 more",
        "the same pixels as 1.png",
    ]
    assert [member["path"] for member in duplicate_groups(rows)[0]["members"]] == ["2.png", "3.png", "0.png"]


def test_of_near_pictures_a_labelled_one_is_kept_too() -> None:
    """i0 repeats the pixels of i2, which is kept; i1 only looks like it."""
    copy = {"pixel_hash": "x", "perceptual_hash": NEAR}
    rows = checked(copy, {"perceptual_hash": "0" * 64}, {**copy, "label": "a"}, {"perceptual_hash": FAR})
    assert column(rows, "is_copy") == [True, False, False, False]
    assert column(rows, "is_near_copy") == [False, True, False, False]


def test_the_same_pixels_alone_are_no_near_picture() -> None:
    copy = {"pixel_hash": "x", "perceptual_hash": NEAR}
    rows = checked(copy, copy, {})
    assert column(rows, "picture") == [None, None, None]
    assert column(rows, "is_near_copy") == [False, False, False]


def test_a_near_picture_beside_copies_is_told_once() -> None:
    """Two files of the same pixels and one that only looks like them: the copy belongs to unique_pixels."""
    copy = {"pixel_hash": "x", "perceptual_hash": NEAR}
    rows = checked(copy, copy, {"perceptual_hash": "0" * 64}, {"perceptual_hash": FAR})
    assert column(rows, "is_copy") == [False, True, False, False]
    assert column(rows, "has_near_copy") == [True, True, True, False]
    assert column(rows, "is_near_copy") == [False, False, True, False]
    assert rows["picture"][:3].nunique() == 1


def test_bits_decide_what_is_near() -> None:
    pair = [{"perceptual_hash": "0" * 64}, {"perceptual_hash": "0" * 58 + "ffffff"}]  # 24 bits
    assert column(checked(*pair, max_bits=24), "has_near_copy") == [True, True]
    assert column(checked(*pair, max_bits=23), "has_near_copy") == [False, False]


def test_flat_images_are_copies_by_their_pixels_and_never_near() -> None:
    flat = {"perceptual_hash": ""}
    rows = checked({**flat, "pixel_hash": "x"}, {**flat, "pixel_hash": "x"}, flat, flat)
    assert column(rows, "has_copy") == [True, True, False, False]
    assert column(rows, "has_near_copy") == [False] * 4


def test_labels_splits_and_domains_of_copies_are_counted() -> None:
    copy = {"pixel_hash": "x", "perceptual_hash": NEAR}
    near = {"perceptual_hash": "0" * 64}
    rows = checked(
        {**copy, "label": "a", "split": "train"}, {**copy, "label": "b", "split": "val"}, copy,
        {**near, "label": "a", "domain": "target", "split": "test"}, {**near, "domain": "target", "split": "unlabelled"},
        {"label": "a"},
    )  # fmt: skip
    assert column(rows, "n_labels_of_pixels") == [2, 2, 2, None, None, None]
    assert column(rows, "n_labels_of_picture") == [2, 2, 2, 2, 2, None]
    assert column(rows, "n_splits_of_pixels") == [2, 2, 2, None, None, None]
    assert column(rows, "n_splits_of_picture") == [2, 2, 2, 2, 2, None]
    assert column(rows, "n_domains_of_pixels") == [1, 1, 1, None, None, None]
    assert column(rows, "n_domains_of_picture") == [2, 2, 2, 2, 2, None]


def test_unlabelled_copies_have_no_label_to_contradict() -> None:
    rows = checked({"pixel_hash": "x"}, {"pixel_hash": "x", "label": "a"}, {"pixel_hash": "y"}, {"pixel_hash": "y"})
    assert column(rows, "n_labels_of_pixels") == [1, 1, 0, 0]
    assert column(rows, "n_splits_of_pixels") == [0, 0, 0, 0]


def test_copies_in_source_and_target_are_in_one_split_of_each() -> None:
    """That they are in two domains is another rule's business."""
    copy = {"pixel_hash": "x"}
    rows = checked({**copy, "split": "train"}, {**copy, "domain": "target", "split": "test"})
    assert column(rows, "n_splits_of_pixels") == [1, 1]
    assert column(rows, "n_domains_of_pixels") == [2, 2]


def test_a_group_in_two_given_splits_is_counted_per_domain() -> None:
    target = {"domain": "target", "group_id": "g"}
    rows = checked({**target, "split": "test"}, {**target, "split": "train"}, {"group_id": "g", "split": "train"}, {})
    assert column(rows, "n_splits_of_group") == [2, 2, 1, 0]


def test_training_with_and_without_label_is_no_leak() -> None:
    """Both are learnt from: a person may label half of a writer's images."""
    target = {"domain": "target", "group_id": "g", "pixel_hash": "x"}
    rows = checked({**target, "split": "train", "label": "a"}, {**target, "split": "unlabelled"})
    assert column(rows, "n_splits_of_group") == [1, 1]
    assert column(rows, "n_splits_of_pixels") == [1, 1]


@pytest.mark.parametrize(
    ("domain", "split", "label", "missing"),
    [
        ("source", "", "", True), ("source", "train", "", True), ("source", "", "a", False), ("target", "", "", False),
        ("target", "train", "", False), ("target", "unlabelled", "", False), ("target", "val", "", True),
        ("target", "test", "", True), ("target", "test", "a", False), ("", "", "", False), ("", "test", "", True),
    ],
)  # fmt: skip
def test_a_label_is_asked_for_where_one_is_needed(domain: str, split: str, label: str, *, missing: bool) -> None:
    assert column(checked({"domain": domain, "split": split, "label": label}), "label_missing") == [missing]


def test_only_labels_of_the_target_are_compared_with_the_classes() -> None:
    rows = checked(
        {"label": "a"}, {"label": "b", "domain": "target"}, {"domain": "target"}, {"label": "c", "domain": ""}
    )
    assert column(rows, "target_label") == [None, "b", None, None]


def test_sets_of_copies_are_listed_with_their_members() -> None:
    copy = {"pixel_hash": "x", "perceptual_hash": NEAR}
    rows = checked(
        {**copy, "label": "a"}, {}, {**copy, "label": "b"}, {"perceptual_hash": "0" * 64, "domain": "target"}
    )
    groups = duplicate_groups(rows)
    assert [(group["kind"], [member["image_id"] for member in group["members"]]) for group in groups] == [
        ("identical", ["i0", "i2"]),
        ("near", ["i0", "i2", "i3"]),
    ]
    assert groups[0]["members"][1] == {
        "image_id": "i2", "path": "2.png", "label": "b", "domain": "source", "origin": "ink", "split": "",
    }  # fmt: skip


WORDS = [
    ("usable_path", {"problem": "is empty"}, "is empty"),
    ("readable", {"error": "the file is missing"}, "the file is missing"),
    ("single_frame", {"n_frames": 12}, "12 frames"),
    ("eight_bit", {"n_bits": 16}, "16 bits a channel; convert it to 8"),
    ("rgb_or_grey", {"mode": "CMYK"}, "colour mode CMYK"),
    ("opaque", {"has_alpha": True}, "has transparency, which is laid over white"),
    ("upright", {"exif_orientation": 6}, "EXIF orientation 6: it is turned when it is read"),
    ("extension_matches", {"path": "a.jpg"}, "the content is png"),
    ("side_px", {"width_px": 3, "height_px": 90}, "3 x 90 px"),
    ("aspect_ratio", {"width_px": 100, "height_px": 8}, "12.5 : 1 (100 x 8 px)"),
    ("typical_size", {"width_px": 8, "height_px": 16}, "1.0 times off the median size (8 x 16 px)"),
    ("not_dark", {"brightness_p99": 0.12345}, "99 % of the pixels are darker than 0.12"),
    ("not_bright", {"brightness_p5": 0.987}, "95 % of the pixels are brighter than 0.99"),
    ("contrast", {"contrast": 0.01234}, "contrast 0.0123"),
    ("sharpness", {"sharpness": 12.34}, "sharpness 12.3"),
    ("entropy", {"entropy": 0.456}, "entropy 0.46 bits"),
    ("label_present", {}, "no label (source)"),
    ("label_present", {"domain": "target", "split": "val"}, "no label (target val)"),
    ("label_present", {"domain": "", "split": "test"}, "no label (split test)"),
    ("known_label", {"domain": "target", "label": "it's"}, 'label "it\'s" is no source class'),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "row", "words"), WORDS)
def test_a_failed_rule_says_why(rule: str, row: dict[str, Any], words: str) -> None:
    rows = checked(row)
    assert reasons(rule, rows, rows) == [words]


def test_every_rule_that_says_why_is_tried_here() -> None:
    assert {rule for rule, _, _ in WORDS} == set(WHY)
    assert not set(WHY) & set(COPIES)


ONE, OTHER = {"pixel_hash": "x", "perceptual_hash": NEAR}, {"pixel_hash": "y", "perceptual_hash": "0" * 64}


@pytest.mark.parametrize(
    ("rule", "first", "second", "words"),
    [
        ("unique_pixels", ONE, ONE, "the same pixels as 0.png"),
        ("unique_pictures", ONE, OTHER, "nearly the same picture as 0.png"),
        ("one_label_per_pixels", ONE | {"label": "a"}, ONE | {"label": "b"},
         "label 'b' here, 'a' there; the same pixels as 0.png"),
        ("one_label_per_picture", ONE | {"label": "a"}, OTHER | {"label": "b"},
         "label 'b' here, 'a' there; nearly the same picture as 0.png"),
        ("pixels_in_one_split", ONE | {"split": "train"}, ONE | {"split": "test"},
         "split 'test' here, 'train' there; the same pixels as 0.png"),
        ("pictures_in_one_split", ONE | {"split": "train"}, OTHER | {"split": "test"},
         "split 'test' here, 'train' there; nearly the same picture as 0.png"),
        ("group_in_one_split", {"group_id": "w", "split": "val"}, {"group_id": "w", "split": "test"},
         "split 'test' here, 'val' there; the same group as 0.png"),
        ("pixels_in_one_domain", ONE, ONE | {"domain": "target"},
         "domain 'pen' here, 'ink' there; the same pixels as 0.png"),
        ("pictures_in_one_domain", ONE, OTHER | {"domain": "target"},
         "domain 'pen' here, 'ink' there; nearly the same picture as 0.png"),
    ],
)  # fmt: skip
def test_a_copy_says_of_what(rule: str, first: dict[str, Any], second: dict[str, Any], words: str) -> None:
    rows = checked(first, second, {})
    assert reasons(rule, rows, rows.iloc[[1]]) == [words]
    assert rule in COPIES


def test_every_rule_on_copies_is_tried_here() -> None:
    tried = {mark.args[1][k][0] for mark in test_a_copy_says_of_what.pytestmark for k in range(len(mark.args[1]))}  # type: ignore[attr-defined]
    assert tried == set(COPIES)


def test_the_other_image_is_one_that_contradicts() -> None:
    """Not just any member: the unlabelled one and the one of the same label say nothing against it."""
    rows = checked(*(ONE | {"label": label} for label in ("a", "", "a", "b")))
    assert reasons("one_label_per_pixels", rows, rows) == [
        "label 'a' here, 'b' there; the same pixels as 3.png and 2 more",
        "label '' here, 'a' there; the same pixels as 0.png and 2 more",
        "label 'a' here, 'b' there; the same pixels as 3.png and 2 more",
        "label 'b' here, 'a' there; the same pixels as 0.png and 2 more",
    ]


def test_a_contradicting_split_is_a_given_one_of_the_same_domain() -> None:
    target = {"domain": "target", "group_id": "w"}
    rows = checked(
        {"group_id": "w", "split": "train"}, target, {**target, "split": "unlabelled"}, {**target, "split": "train"},
        {**target, "split": "test"},
    )  # fmt: skip
    failed = rows[rows["n_splits_of_group"] > 1]
    assert failed["image_id"].tolist() == ["i1", "i2", "i3", "i4"]
    assert reasons("group_in_one_split", rows, failed) == [
        "split '' here, 'unlabelled' there; the same group as 2.png and 3 more",
        "split 'unlabelled' here, 'test' there; the same group as 4.png and 3 more",
        "split 'train' here, 'test' there; the same group as 4.png and 3 more",
        "split 'test' here, 'unlabelled' there; the same group as 2.png and 3 more",
    ]


def test_further_copies_are_counted_and_the_first_of_them_names_the_second() -> None:
    rows = checked(ONE, ONE, ONE)
    assert reasons("unique_pixels", rows, rows) == [
        "the same pixels as 1.png and 1 more",
        "the same pixels as 0.png and 1 more",
        "the same pixels as 0.png and 1 more",
    ]


def test_thousands_of_copies_are_explained_quickly() -> None:
    rows = checked(ONE | {"label": "a"}, ONE | {"label": "b"})
    many = pd.concat([rows, *[rows.iloc[[0]]] * 8000], ignore_index=True)
    many["image_id"] = [f"i{k}" for k in range(len(many))]
    start = time.perf_counter()
    said = reasons("one_label_per_pixels", many, many)
    assert time.perf_counter() - start < 4
    assert said[-1] == "label 'a' here, 'b' there; the same pixels as 1.png and 8000 more"


def test_nothing_failed_has_no_reasons() -> None:
    rows = checked(ONE, ONE)
    for rule in (*WHY, *COPIES):
        assert reasons(rule, rows, rows.head(0)) == []


def test_the_order_of_the_images_changes_nothing_but_who_is_first() -> None:
    rows = [ONE | {"label": "a"}, {}, OTHER | {"label": "b"}, ONE, {"error": "bad"}]
    names = ["has_copy", "has_near_copy", "n_labels_of_picture", "size_ratio", "extension_matches", "error"]
    there, back = checked(*rows), checked(*rows[::-1])
    assert [[*map(same, line)] for line in there[names].to_numpy().tolist()] == [
        [*map(same, line)] for line in back[names][::-1].to_numpy().tolist()
    ]
