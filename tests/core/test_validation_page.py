"""The page of validation: what a reader must find on it, and what no data may do to it."""

import math
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.core import manifest
from tasks.core.advice import ADVICE, CLAIMS, LIMITS, limit_of
from tasks.core.offenders import PAGE_BYTES, Thumbnails
from tasks.core.validation_page import SPLITS, cut, middle, validation_page
from tasks.params.rules import Rules

ON_THE_SET = {
    "distinct_labels", "same_label_set", "class_in_every_split", "source_class_size", "class_balance", "unlabelled_share",
    "group_coverage", "rejected_share", "source_to_target", "like_accepted",
}  # fmt: skip
VOID = {"meta", "img", "br"}
BLOCKS = {"p", "li", "td", "th", "br", "h1", "h2", "h3", "figcaption", "summary", "caption", "text", "div"}
HOSTILE = "<script>alert(1)</script>\"'&\n\u202egnp.x\x00$\\frac$"


def png(size: tuple[int, int] = (12, 9), colour: str = "#3a7d44", kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind, **options)
    return buffer.getvalue()


def settings_of(rule: str) -> dict[str, Any]:
    """What params.yaml may say of a rule, taken from its fields."""
    fields = Rules.model_fields[rule].annotation.model_fields  # type: ignore[union-attr]
    numbers = {"min": 8, "max": 0.5, "max_bits": 24, "severity": "warn", "policy": "keep"}
    return {name: numbers[name] for name in fields}


def image(number: int, why: str = "6 x 8 px", **more: Any) -> dict[str, Any]:
    return {"image_id": f"i{number}", "path": f"pen/{number}.png", "why": why, **more}


def member(number: int, label: str = "a", split: str = "train", origin: str = "pen") -> dict[str, Any]:
    return {
        "image_id": f"i{number}",
        "path": f"pen/{number}.png",
        "label": label,
        "domain": "target",
        "origin": origin,
        "split": split,
    }


def validation_of(failed: dict[str, dict[str, Any]] | None = None, **changes: Any) -> dict[str, Any]:
    """A validation in which only the given rules fail; by default a clean one of two domains."""
    rules = []
    for rule in Rules.model_fields:
        own = {"rule": rule, **settings_of(rule), "n_checked": 100, "n_failed": 0}
        kind = "cells" if rule in ON_THE_SET else "images"
        own |= {kind: []} | (failed or {}).get(rule, {})
        rules.append(own | {"n_failed": len(own.get("images", own.get("cells", [])))})
    blocked = [f"rule {r['rule']} fails: so" for r in rules if r["severity"] == "block" and r["n_failed"]]
    warned = any(r["severity"] == "warn" and r["n_failed"] for r in rules)
    clean = {
        "format": 1, "status": "blocked" if blocked else "warn" if warned else "pass", "blocked_by": blocked,
        "n_images": 100, "n_rejected": 3, "n_set_aside": 2, "classes": ["a", "b"],
        "label_sets": {"only_in_source": [], "only_in_target": [], "sentence": "source and target have the same 2 labels"},
        "n_target_labels": {"train": 6, "val": 10, "guard": 5, "test": 20}, "n_target_unlabelled": 9, "n_target_holdout": 4,
        "rules": rules, "duplicate_groups": [], "coverage": [], "shifts": [],
        "counts": [
            {"domain": "source", "origin": "ink", "split": "train", "label": "a", "n": 40},
            {"domain": "source", "origin": "ink", "split": "val", "label": "b", "n": 5},
            {"domain": "target", "origin": "pen", "split": "test", "label": "a", "n": 41},
            {"domain": "target", "origin": "pen", "split": "unlabelled", "label": "", "n": 9},
        ],
    }  # fmt: skip
    return clean | changes


EMPTY: dict[str, Any] = {
    "status": "pass", "n_images": 0, "n_rejected": 0, "n_set_aside": 0, "classes": [], "counts": [],
    "label_sets": {"only_in_source": [], "only_in_target": [], "sentence": ""},
    "n_target_labels": dict.fromkeys(("train", "val", "guard", "test"), 0), "n_target_unlabelled": 0, "n_target_holdout": 0,
}  # fmt: skip


def never(path: str) -> bytes:
    raise AssertionError(f"{path} was read")


class Outline(HTMLParser):
    """Tags that don't close as they should, attributes that name something outside, and the text of the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.pictures: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        self.wrong += self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.text += " " if tag in BLOCKS else ""
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
                (self.pictures if tag == "img" else self.links).append(value or "")
            elif name.startswith("on"):
                self.wrong.append(f"{tag} {name}")
            elif name == "id":
                self.ids.append(value or "")
            elif "url(" in (value or "") and "url(#" not in (value or ""):
                self.wrong.append(f"{tag} {value}")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def outline(validation: dict[str, Any], read: Callable[[str], bytes] = never) -> Outline:
    """The page's outline, after the checks that hold for every page."""
    page = validation_page(validation, read)
    found = Outline(page)
    assert found.wrong == []
    assert not {"script", "iframe", "object", "link", "form"} & set(found.tags)
    assert all(link.startswith("#") for link in found.links)
    assert all(picture.startswith("data:image/") for picture in found.pictures)
    assert "@import" not in page
    assert {link[1:] for link in found.links} <= set(found.ids)
    assert not re.search(r"\b(NaN|nan|None|inf|Undefined)\b", found.text)
    assert not set("\x00\x1b\u202e\u2028\ud800") & set(page)
    assert len(page.encode()) < 3_000_000
    return found


def squeezed(found: Outline) -> str:
    return " ".join(found.text.split())


# What stands on the page


def test_every_rule_has_a_claim_and_an_advice() -> None:
    assert set(CLAIMS) == set(ADVICE) == set(Rules.model_fields)
    assert all(len(text) > 8 for text in [*CLAIMS.values(), *ADVICE.values()])


def test_every_limit_is_told_in_words() -> None:
    with_limits = {rule for rule in Rules.model_fields if {"min", "max", "max_bits"} & set(settings_of(rule))}
    assert set(LIMITS) == with_limits
    for rule in with_limits:
        settings = settings_of(rule)
        words = limit_of({"rule": rule, **settings})
        assert all(f"{settings[key]}" in words for key in ("min", "max", "max_bits") if key in settings)


def test_commands_in_an_advice_are_set_as_code() -> None:
    page = validation_page(validation_of({"known_label": {"images": [image(1)]}}), lambda path: png())
    assert "(in a pipeline: <code>acclimate label IMAGE LABEL</code>), or add" in page


def test_large_and_small_limits_are_written_out() -> None:
    assert limit_of({"rule": "side_px", "min": 8, "max": 2_000_000}).endswith("at most 2,000,000 px")
    assert limit_of({"rule": "contrast", "min": 0.015}) == "standard deviation of grey values at least 0.015 (0 to 1)"


def test_a_clean_set_is_accepted() -> None:
    text = squeezed(outline(validation_of()))
    assert text.index("Accepted No rule that blocks or warns fails.") < text.index("Numbers")
    assert "100 images 95 accepted 3 rejected 2 set aside" in text
    assert "source and target have the same 2 labels." in text
    assert "6 for training, 10 for choices, 5 for the guard alone, 20 for the test alone. 9 target images are" in text
    assert "4 are held out without labels, for the guard and the label-free choices." in text
    assert "No rule fails." in text
    assert "differ" not in text.split("Rules Failed rules first")[0]


def test_what_blocks_comes_first_with_its_file_and_the_next_step() -> None:
    own = {"severity": "block", "images": [image(7, "label 'a' here, 'b' there"), image(8)]}
    text = squeezed(outline(validation_of({"one_label_per_pixels": own}), lambda path: png()))
    verdict = text[: text.index("Numbers")]
    assert "Blocked: nothing is trained on this data" in verdict
    assert "Images with the same pixels carry the same label: not so for 2 images." in verdict
    assert "The first: pen/7.png: label 'a' here, 'b' there." in verdict
    assert (
        "Next: Decide which label is right, write it into the table (in a pipeline: acclimate label IMAGE LABEL), and remove"
        in verdict
    )


def test_a_sentence_about_the_structure_blocks_too() -> None:
    sentence = "no target image is left to learn from; mend the split column or the shares"
    text = squeezed(outline(validation_of(status="blocked", blocked_by=[sentence])))
    assert sentence in text[: text.index("Numbers")]
    both = validation_of({"known_label": {"severity": "block", "images": [image(1)]}})
    both["blocked_by"].append(sentence)
    verdict = squeezed(outline(both, lambda path: png())).split("Numbers")[0]
    assert verdict.count(sentence) == 1
    assert "rule known_label fails: so" not in verdict  # told in our own words


def test_warnings_are_told_with_their_numbers() -> None:
    cells = [{"cell": "pen", "value": 12.5, "why": "class 'a' has 25 images, class 'b' 2: 12.5 times"}]
    text = squeezed(
        outline(
            validation_of({"class_balance": {"cells": cells}, "opaque": {"severity": "note", "images": [image(1)]}}),
            lambda path: png(),
        )
    )
    verdict = text[: text.index("Numbers")]
    assert "Accepted with warnings Nothing blocks the training. 1 rule of severity warn fails." in verdict
    assert "Warnings: No class of a domain is far larger than another (not so for 1 case)." in verdict
    assert "Notes: No image is transparent (not so for 1 image)." in verdict


def test_failed_rules_come_first_the_severest_on_top() -> None:
    failed = {
        "readable": {"severity": "note", "images": [image(1)]},
        "contrast": {"severity": "warn", "images": [image(2)]},
        "known_label": {"severity": "block", "images": [image(3)]},
        "side_px": {"n_checked": 0},
    }
    found = outline(validation_of(failed), lambda path: png())
    table = squeezed(found).split("Failed rules first")[1].split("What fails, and what to do")[0]
    places = [table.index(f" {rule} ") for rule in ("known_label", "contrast", "readable", "usable_path", "side_px")]
    assert places == sorted(places)
    assert table[places[-1] :].count("nothing to check") == 1
    assert [name for name in found.ids if name in CLAIMS] == ["known_label", "contrast", "readable"]


def test_limits_and_what_happens_to_images_are_told() -> None:
    failed = {"side_px": {"policy": "drop"}, "unique_pixels": {"policy": "keep_one"}}
    text = squeezed(outline(validation_of(failed)))
    assert "shorter side at least 8 px, longer side at most 0.5 px rejected 100 0" in text
    assert "rejected (one copy stays) 100 0" in text


def test_counts_stand_per_class_domain_and_split() -> None:
    text = squeezed(outline(validation_of()))
    assert "class ink source ink source pen target pen target total train val test unlabelled" in text
    assert "a 40 0 41 0 81" in text
    assert "(hidden or none) 0 0 0 9 9" in text
    assert "all 40 5 41 9 95" in text


def test_every_split_that_is_drawn_has_its_place_among_the_columns() -> None:
    assert set(SPLITS) == {"", *manifest.SPLITS}
    counts = [
        {"domain": "target", "origin": "", "split": s, "label": "a", "n": 1} for s in ("holdout", "unlabelled", "train")
    ]
    assert "total train unlabelled holdout" in squeezed(outline(validation_of(counts=counts)))


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("test", "(hidden)"), ("guard", "(hidden)"), ("unlabelled", "(hidden or none)"), ("holdout", "(hidden or none)"),
        ("", "(no label)"), ("train", "(no label)"),
    ],
)  # fmt: skip
def test_an_empty_label_is_named(split: str, words: str) -> None:
    counts = [{"domain": "", "origin": "", "split": split, "label": "", "n": 95}]
    assert f"{words} 95 95" in squeezed(outline(validation_of(counts=counts)))


def test_cells_stand_in_a_table_of_their_own() -> None:
    cells = [{"cell": f"class 'c{n}'", "value": n, "why": f"class 'c{n}' has {n} image(s)"} for n in range(128)]
    cells = [
        {"cell": "x", "value": 1.0, "why": "x: effect"},
        {"cell": "class gone", "value": 1.0, "why": "class gone"},
        *cells,
    ]
    text = squeezed(outline(validation_of({"source_class_size": {"cells": cells, "n_checked": 200}})))
    assert "Not so for 130 cases of 200." in text
    assert "where what was found x effect class gone class 'c0' has 0 image(s) class 'c1'" in text
    assert "class 'c37' has 37 image(s)" in text
    assert "class 'c38'" not in text
    assert "… and 90 more: see validation.json." in text


def test_twelve_thumbnails_then_paths_then_a_number() -> None:
    read: list[str] = []

    def reader(path: str) -> bytes:
        read.append(path)
        return png((200, 100))

    found = outline(validation_of({"contrast": {"images": [image(n) for n in range(250)]}}), reader)
    assert read == [f"pen/{n}.png" for n in range(12)]
    assert len(found.pictures) == 12
    text = squeezed(found)
    assert "200 further paths" in text
    assert "pen/211.png" in text
    assert "pen/212.png" not in text
    assert "… and 38 more: see validation.json." in text


def test_copies_stand_side_by_side_with_label_split_and_origin() -> None:
    group = {"kind": "identical", "members": [member(1, "a"), member(2, "b", "test"), member(3, "", "")]}
    near = {"kind": "near", "members": [member(8), member(9)]}
    own = {"images": [image(1), image(2), image(3)]}
    found = outline(validation_of({"one_label_per_pixels": own}, duplicate_groups=[near, group]), lambda path: png())
    text = squeezed(found).split("What fails, and what to do")[1]
    assert (
        "3 images with the same pixels a · pen · train pen/1.png b · pen · test pen/2.png no label · pen pen/3.png"
        in text
    )
    assert "pen/9.png" not in text
    assert len(found.pictures) == 3


def test_near_copies_belong_to_the_rules_on_pictures() -> None:
    groups = [
        {"kind": "identical", "members": [member(1), member(2)]},
        {"kind": "near", "members": [member(8), member(9)]},
    ]
    own = {"policy": "keep_one", "images": [image(9)]}
    text = squeezed(outline(validation_of({"unique_pictures": own}, duplicate_groups=groups), lambda path: png()))
    assert "2 nearly equal pictures a · pen · train pen/8.png rejected a · pen · train pen/9.png" in text
    assert "pen/1.png" not in text


def test_of_many_copies_those_that_disagree_are_shown() -> None:
    members = [member(n, "a") for n in range(20)] + [member(20, "b"), member(21, "")]
    own = {"images": [image(n) for n in range(22)]}
    found = outline(
        validation_of({"one_label_per_pixels": own}, duplicate_groups=[{"kind": "identical", "members": members}]),
        lambda path: png(),
    )
    shown = squeezed(found).split("22 images with the same pixels")[1].split(" more")[0]
    assert [name for name in ("pen/0.", "pen/20.", "pen/21.", "pen/5.") if name in shown] == [
        "pen/0.",
        "pen/20.",
        "pen/21.",
    ]
    assert shown.endswith("… and 16")
    assert len(found.pictures) == 6
    assert "16 further paths" in squeezed(found)


def test_only_the_offenders_of_a_mixed_set_are_marked() -> None:
    members = [member(1, "a", ""), member(2, "a", "test"), member(3, "a", "train")]
    own = {"images": [image(2), image(3)]}
    found = outline(
        validation_of({"one_label_per_pixels": own}, duplicate_groups=[{"kind": "identical", "members": members}]),
        lambda path: png(),
    )
    text = squeezed(found)
    assert text.count("fails a · pen") == 2
    assert "3 images with the same pixels fails a · pen · test pen/2.png" in text


def test_a_dozen_sets_of_copies_are_shown() -> None:
    groups = [{"kind": "identical", "members": [member(2 * n), member(2 * n + 1)]} for n in range(30)]
    own = {"images": [image(2 * n + 1) for n in range(30)]}
    found = outline(validation_of({"unique_pixels": own}, duplicate_groups=groups), lambda path: png())
    assert found.text.count("2 images with the same pixels") == 12
    assert "18 further paths" in found.text


def coverage_of(n_groups: int, n_classes: int, n: int = 3) -> list[dict[str, Any]]:
    return [
        {"column": "block", "group": f"g{g}" if g else "", "label": f"c{c}", "n": n if c else 50}
        for g in range(n_groups)
        for c in range(n_classes)
    ]


def test_small_cells_of_the_coverage_are_marked() -> None:
    text = squeezed(outline(validation_of(coverage=coverage_of(3, 2))))
    assert "3 of 6 cells of group and class hold fewer than 8 labelled target images; they are marked ▼." in text
    assert "(not given) 50 ▼ 3 g1 50 ▼ 3 g2 50 ▼ 3" in text


def test_of_a_large_coverage_only_small_cells_are_shown() -> None:
    cells = coverage_of(2, 200)
    cells[7]["n"] = 0
    text = squeezed(outline(validation_of(coverage=cells)))
    assert "398 of 400 cells" in text
    assert "group class images (not given) c7 ▼ 0 (not given) c1 ▼ 3" in text
    assert "… and 358 more: see validation.json." in text


def test_absent_audit_columns_are_said() -> None:
    assert "nothing is known about groups, which is not the same as no disparity" in outline(validation_of()).text


def shift(name: str, low: float, effect: float, high: float, **more: Any) -> dict[str, Any]:
    least = max(low, -high, 0.0)
    return {
        "rule": "source_to_target", "from": "ink", "to": "pen", "property": name, "value_from": 0.25, "value_to": 1234.5,
        "effect": effect, "low": low, "high": high, "at_least": least, "n": 40, **more,
    }  # fmt: skip


SHIFTS = [
    shift("within", -0.2, 0.1, 0.4),
    shift("straddles", 0.3, 0.5, 0.7),
    shift("negative", -0.9, -0.8, -0.6),
    shift("beyond", 0.55, 0.7, 0.8),
    shift("unknown", math.nan, math.nan, math.nan, at_least=math.nan, value_from=math.nan, n=1),
    shift("as json", 0, 0, 0, n=1) | dict.fromkeys(("effect", "low", "high", "at_least", "value_to")),
]  # fmt: skip


def test_shifts_get_a_verdict_in_words_and_a_plot() -> None:
    found = outline(validation_of(shifts=SHIFTS))
    text = squeezed(found)
    assert "negative ink → pen 0.25 1,234 -0.80 (-0.90 to -0.60) 40 beyond the limit" in text
    assert "beyond ink → pen 0.25 1,234 +0.70 (+0.55 to +0.80) 40 beyond the limit" in text
    assert "straddles ink → pen 0.25 1,234 +0.50 (+0.30 to +0.70) 40 inconclusive: the interval straddles" in text
    assert "within ink → pen 0.25 1,234 +0.10 (-0.20 to +0.40) 40 no shift beyond 0.5 shown" in text
    assert "unknown ink → pen not measured 1,234 not measured 1 not measured: fewer than two" in text
    assert "as json ink → pen 0.25 not measured not measured 1 not measured: fewer" in text
    assert text.index("beyond ink") < text.index("straddles ink") < text.index("within ink") < text.index("unknown ink")
    assert "Nothing was compared: no model was promoted yet" in text
    assert found.tags.count("svg") == 2  # the balance of the classes is the other
    assert text.count(" within ") == 2  # in the table and in the plot


def test_the_plot_names_the_domains_where_there_are_several() -> None:
    shifts = [shift("entropy", -0.2, 0.1, 0.4), shift("entropy", -0.2, 0.1, 0.4) | {"from": "film"}]
    text = squeezed(outline(validation_of(shifts=shifts)))
    assert "entropy: ink → pen" in text
    assert "entropy: film → pen" in text


@pytest.mark.parametrize("changes", [{"shifts": []}, {"shifts": [SHIFTS[4]]}])
def test_without_measured_shifts_there_is_no_plot(changes: dict[str, Any]) -> None:
    assert outline(validation_of(**changes)).tags.count("svg") == 1


def test_absent_shifts_are_said() -> None:
    validation = validation_of()
    del validation["shifts"]
    assert outline(validation).text.count("Nothing was compared") == 2


def test_a_clear_shift_at_a_limit_of_zero_is_beyond_it() -> None:
    own = {"source_to_target": {"max": 0.0}}
    text = squeezed(outline(validation_of(own, shifts=[shift("warm", 0.1, 0.2, 0.3), shift("cool", -0.1, 0, 0.1)])))
    assert "(+0.10 to +0.30) 40 beyond the limit" in text
    assert "(-0.10 to +0.10) 40 inconclusive" in text


def test_too_many_classes_are_not_drawn() -> None:
    counts = [{"domain": "", "origin": "", "split": "", "label": f"c{n:04d}", "n": n + 1} for n in range(5000)]
    found = outline(validation_of(counts=counts, n_images=sum(range(5001)), n_rejected=0, n_set_aside=0))
    text = squeezed(found)
    assert "5,000 classes in 1 domain: too many to draw" in text
    assert "4,960 between them" in text
    assert "c4999 5,000 5,000" in text
    assert "c0000 1 1" in text
    assert "c2500" not in text
    assert found.tags.count("svg") == 0


def test_many_domains_are_cut() -> None:
    counts = [{"domain": "", "origin": f"d{n:02d}", "split": "train", "label": "a", "n": 1} for n in range(40)]
    text = squeezed(outline(validation_of(counts=counts)))
    assert "28 more columns: see validation.json" in text
    assert "d11" in text
    assert "d12" not in text
    assert "1 classes in 40 domains" in text


def test_the_page_says_what_was_not_checked() -> None:
    text = outline(validation_of()).text
    assert "at most 24 of its 256 bits differ" in text
    assert "The intervals take images as independent." in text
    assert "Whether the labels, groups and splits themselves are right" in text


# What no data may do to it


def test_a_set_of_no_images_has_a_page() -> None:
    text = squeezed(outline(validation_of(**EMPTY)))
    assert "No images: nothing was checked" in text
    assert "No image was accepted." in text
    assert "No accepted image carries a label." in text
    assert "Target labels used" not in text


def test_a_set_without_roles_and_labels_has_a_page() -> None:
    counts = [{"domain": "", "origin": "", "split": "", "label": "", "n": 95}]
    changed = EMPTY | {
        "n_images": 100,
        "counts": counts,
        "shifts": [shift("x", -0.2, 0.1, 0.4) | {"from": "", "to": ""}],
    }
    text = squeezed(outline(validation_of(**changed)))
    assert "class all images total no split (no label) 95 95 all 95 95" in text
    assert "x all images → all images" in text
    assert "Target labels used" not in text


def test_a_run_that_asked_few_rules_has_a_page() -> None:
    validation = validation_of(shifts=SHIFTS, coverage=coverage_of(2, 2))
    validation["rules"] = [found for found in validation["rules"] if found["rule"] == "readable"]
    text = squeezed(outline(validation))
    assert "4 cells of group and class." in text
    assert "▼" not in text


def test_hostile_names_are_shown_and_do_nothing() -> None:
    members = [member(1) | {"path": HOSTILE, "label": HOSTILE, "origin": HOSTILE, "split": HOSTILE}, member(2)]
    bad = image(1, HOSTILE) | {"path": HOSTILE}
    cell = {"cell": HOSTILE, "value": 0.0, "why": HOSTILE}
    validation = validation_of(
        {
            "readable": {"severity": "block", "images": [bad]},
            "unique_pixels": {"images": [bad]},
            "class_balance": {"severity": "block", "cells": [cell]},
        },
        duplicate_groups=[{"kind": "identical", "members": members}],
        coverage=[{"column": HOSTILE, "group": HOSTILE, "label": HOSTILE, "n": 3}],
        shifts=[shift(HOSTILE, -0.1, 0.0, 0.1) | {"from": HOSTILE, "to": HOSTILE}],
        counts=[{"domain": "target", "origin": HOSTILE, "split": HOSTILE, "label": HOSTILE, "n": 9},
                {"domain": "target", "origin": "_hidden", "split": HOSTILE, "label": "書\ud800", "n": 9}],
        label_sets={"only_in_source": [], "only_in_target": [], "sentence": HOSTILE},
    )  # fmt: skip
    validation["blocked_by"].append(HOSTILE)
    found = outline(validation, lambda path: png())
    assert "<script>alert(1)</script>\"'&\\n\\u202egnp.x\\x00" in found.text
    assert "domain _hidden" in found.text


def test_long_names_are_cut_everywhere() -> None:
    long = "label" * 2000
    validation = validation_of(
        {
            "readable": {"severity": "block", "images": [image(n, long) | {"path": f"{n}/{long}.png"} for n in range(300)]},
            "same_label_set": {"severity": "block", "cells": [{"cell": long, "value": 0.0, "why": long}] * 300},
        },
        coverage=[{"column": long, "group": f"{g}{long}", "label": f"{c}{long}", "n": 3} for g in range(30) for c in range(30)],
        shifts=[shift(long, -0.1, 0.0, 0.1) | {"from": long, "to": long}] * 7,
        counts=[{"domain": "target", "origin": long, "split": long, "label": f"{n}{long}", "n": 9} for n in range(30)],
        blocked_by=[long],
    )  # fmt: skip
    page = validation_page(validation, lambda path: png())
    assert len(page) < 700_000
    assert "label" * 65 not in page
    assert "299/label" not in page
    outline(validation, lambda path: png())


def test_two_hundred_thousand_offenders_make_a_small_page_quickly() -> None:
    rng = np.random.default_rng(0)
    noise = BytesIO()
    Image.fromarray(rng.integers(0, 256, (300, 300, 3), np.uint8)).save(noise, "JPEG", quality=95)
    many = [image(n, "'\"<&" * 50) | {"path": "'" * 200 + f"{n}.png"} for n in range(200_000)]
    groups = [
        {"kind": kind, "members": [member(n), member(n + 1)]}
        for kind in ("identical", "near")
        for n in range(0, 200_000, 2)
    ]
    failed = {rule: {"images": many} for rule in Rules.model_fields if rule not in ON_THE_SET}
    failed |= {rule: {"cells": [{"cell": "'" * 500, "value": 1.0, "why": "<" * 500}] * 5000} for rule in ON_THE_SET}
    began = time.monotonic()
    found = outline(validation_of(failed, duplicate_groups=groups), lambda path: noise.getvalue())
    assert time.monotonic() - began < 15
    assert "left out to keep the page small" in found.text


def test_whatever_cannot_be_opened_has_words_in_its_place(tmp_path: Path) -> None:
    animated = BytesIO()
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    frames[0].save(animated, "GIF", save_all=True, append_images=frames[1:])
    deep = BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(deep, "PNG")
    whole = png((300, 300), kind="JPEG")
    contents = {
        "whole.png": png(), "cut.jpg": whole[: len(whole) // 2], "text.png": b"no image", "empty.png": b"",
        "deep.png": deep.getvalue(),
        "animated.gif": animated.getvalue(), "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "huge.png": png_header(10_000, 6_000), "bomb.png": png_header(60_000, 60_000),
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    thumbnails = Thumbnails(lambda path: (tmp_path / path).read_bytes())
    assert {name: thumbnails[name].words for name in [*contents, "gone.png", "."]} == {
        "whole.png": "", "cut.jpg": "can't be decoded", "text.png": "can't be decoded", "empty.png": "can't be decoded",
        "deep.png": "more than 8 bits a channel", "animated.gif": "", "postscript.png": "can't be decoded",
        "huge.png": "too large for a thumbnail (60 megapixels)", "bomb.png": "too large for a thumbnail",
        "gone.png": "the file is missing", ".": "can't be read",
    }  # fmt: skip


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size; what follows its header is the data of a small one."""
    import struct
    import zlib

    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    small = png()
    return small[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + small[33:]


def test_a_store_may_fail_in_any_way(tmp_path: Path) -> None:
    def failing(path: str) -> bytes:
        raise {"0": ValueError, "1": KeyError, "2": MemoryError, "3": RuntimeError}[path[4]](str(tmp_path))

    found = outline(validation_of({"contrast": {"images": [image(n) for n in range(4)]}}), failing)
    assert found.text.count("can't be read") == 4
    assert str(tmp_path) not in found.text


def test_unusable_paths_are_never_read() -> None:
    found = outline(validation_of({"usable_path": {"images": [image(1, "leaves the root")]}}), never)
    assert "not opened: the path can't be used" in found.text


def test_a_thumbnail_is_upright_small_and_keeps_its_shape() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    contents = {
        "turned.jpg": png((400, 200), kind="JPEG", exif=exif), "tiny.png": png((8, 6)), "strip.png": png((5000, 2)),
        "photo.jpg": png((4000, 3000), "#ff0000", kind="JPEG"), "dot.png": png((1, 1)),
    }  # fmt: skip
    thumbnails = Thumbnails(lambda path: contents[path])
    sizes = {name: (thumbnails[name].width, thumbnails[name].height) for name in contents}
    assert sizes == {
        "turned.jpg": (48, 96),
        "tiny.png": (96, 72),
        "strip.png": (96, 1),
        "photo.jpg": (96, 72),
        "dot.png": (96, 96),
    }


def test_transparency_lies_over_white() -> None:
    import base64

    buffer = BytesIO()
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(buffer, "PNG")
    uri = str(Thumbnails(lambda path: buffer.getvalue())["a.png"].uri)
    shown = Image.open(BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))
    assert shown.getpixel((0, 0)) == (255, 255, 255)


def test_pictures_end_when_their_bytes_or_pixels_are_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)).save(noise, "PNG")
    thumbnails = Thumbnails(lambda path: noise.getvalue())
    pictures = [thumbnails["same.png"] for _ in range(1000)]
    n_bytes = sum(len(picture.uri) * 3 // 4 for picture in pictures)
    assert PAGE_BYTES * 0.9 < n_bytes <= PAGE_BYTES
    assert pictures[-1].words == "left out to keep the page small"
    monkeypatch.setattr("tasks.core.offenders.PAGE_PIXELS", 20_000)
    thumbnails = Thumbnails(lambda path: png((100, 90), kind="JPEG" if "jpg" in path else "PNG"))
    words = [thumbnails[name].words for name in ("a.png", "b.png", "c.png", "d.jpg", "e.jpg")]
    assert words == ["", "", "left out to keep the page quick", "", "left out to keep the page quick"]


def test_the_page_has_the_same_bytes_every_time() -> None:
    validation = validation_of(
        {"contrast": {"images": [image(n) for n in range(4)]}}, shifts=SHIFTS, coverage=coverage_of(3, 3)
    )
    assert validation_page(validation, lambda path: png((200, 99))) == validation_page(
        validation, lambda path: png((200, 99))
    )


def test_text_is_cut_and_hidden_characters_are_spelled_out() -> None:
    assert cut("abc", 3) == "abc"
    assert cut("abcd", 3) == "ab…"
    assert cut("a\tb\u202ec\ud800", 99) == "a\\tb\\u202ec\\ud800"
    assert cut("שלום 書 é", 99) == "שלום 書 é"
    assert cut("<" * 9, 9) == "<<…"  # each becomes four characters
    assert middle("data/0123456789/end.png", 10) == "data…d.png"
    assert middle("data/end.png", 12) == "data/end.png"
    assert middle("cut…", 12) == "cut…"
    assert middle("a" * 9 + "<b", 8) == "aaa…b"
    assert cut(7, 1) == 7


# In a browser


@pytest.mark.browser
def test_the_page_opens_in_a_browser(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("neither chromium nor google-chrome is installed")
    validation = validation_of(
        {"contrast": {"severity": "block", "images": [image(n, HOSTILE) | {"path": HOSTILE} for n in range(4)]}},
        shifts=SHIFTS, coverage=coverage_of(3, 3),
    )  # fmt: skip
    (tmp_path / "page.html").write_text(validation_page(validation, lambda path: png((200, 99))), encoding="utf-8")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    done = subprocess.run(
        [browser, *options, "--dump-dom", (tmp_path / "page.html").as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    dom = unescape(done.stdout)
    assert "Blocked: nothing is trained on this data" in dom
    assert "What was not checked" in dom
    assert "<script" not in done.stdout
    assert done.stdout.count('src="data:image/jpeg;base64,') == 4
