"""validate_data on 200 images with one planted fault per rule: each is found by its path, and nothing else is."""

import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks import build_manifest, measure_images, validate_data
from tasks.core.files import read_json, read_table
from tasks.core.manifest import read_valid_manifest
from tasks.params import Rules

# great_expectations imports a parser that uses old names of the standard library
pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_.*' is deprecated:DeprecationWarning")

PROJECT = Path(__file__).parents[1]
MANIFEST, GATE, VALIDATION = Path("data/manifest_valid.csv"), Path("data/gate.json"), Path("data/validation.json")
Row = tuple[str, str, str, str, str]  # path, label, domain, split, group
Go = Callable[[dict[str, Any]], Path]


def pixels(key: str, side: int = 48) -> np.ndarray:
    """(side, side, 3) uint8: a random picture, its detail the weaker the finer, as in photographs; the same key, the same one."""
    rng = np.random.default_rng(list(key.encode()))
    picture = np.zeros((side, side, 3), np.float32)
    for n_cells in (3, 6, 12, 24):
        cells = rng.normal(0, 120 / n_cells, (n_cells, n_cells, 3)).astype(np.float32)
        picture += cv2.resize(cells, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.uint8(np.clip(picture + 128 + rng.normal(0, 4, picture.shape), 0, 255))


def grain(low: int, high: int) -> np.ndarray:
    """(48, 48) uint8: every grey value from low to high - 1 alike."""
    return np.random.default_rng(low).integers(low, high, (48, 48), np.uint8)


def save(path: str, picture: np.ndarray | Image.Image | None = None, **options: Any) -> Path:
    place = Path("images") / path
    place.parent.mkdir(parents=True, exist_ok=True)
    picture = pixels(path) if picture is None else picture
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(place, **options)
    return place


def clean_rows(n_source: int = 30, n_target: int = 20) -> list[Row]:
    """Pictures of three classes, the target with given splits; every image readable and unlike the others."""
    rows = [(f"ink/{i:03d}.png", "abc"[i % 3], "ink", "", "") for i in range(n_source)]
    rows += [
        (f"pen/{i:03d}.png", "abc"[i % 3], "pen", ("test", "train", "val")[i // 3 % 3], "") for i in range(n_target)
    ]
    for row in rows:
        save(row[0])
    return rows


def again(path: str) -> Image.Image:
    """The same picture, once more through a JPEG: other pixels."""
    buffer = BytesIO()
    Image.fromarray(pixels(path)).save(buffer, "JPEG", quality=85)
    return Image.open(buffer)


def bomb() -> bytes:
    """A PNG whose header claims 50,000 x 50,000 pixels."""
    head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def spoilt_rows() -> list[Row]:
    """Images that are wrong by themselves, all of the source's class a."""
    Path("outside.png").write_bytes(save("zz/text.png").read_bytes())
    Path("images/zz/text.png").write_text("no image")
    whole = save("zz/truncated.jpg").read_bytes()
    Path("images/zz/truncated.jpg").write_bytes(whole[: len(whole) // 2])
    Path("images/zz/bomb.png").write_bytes(bomb())
    frames = [Image.fromarray(pixels(f"frame {i}")) for i in range(3)]
    save("zz/animated.gif", frames[0], save_all=True, append_images=frames[1:])
    save("zz/deep.png", pixels("deep")[..., 0].astype(np.uint16) * 257)
    cv2.imwrite("images/zz/deep_colour.png", pixels("deep colour").astype(np.uint16) * 257)
    save("zz/cmyk.jpg", Image.fromarray(pixels("cmyk")).convert("CMYK"))
    save("zz/alpha.png", Image.fromarray(pixels("alpha")).convert("RGBA"))
    exif = Image.Exif()
    exif[0x0112] = 6
    save("zz/turned.jpg", exif=exif)
    save("zz/png.png").rename("images/zz/named.jpg")
    save("zz/small.png", pixels("small", 7))
    save("zz/wide.png", pixels("wide", 100)[:20])
    save("zz/huge.png", pixels("huge", 600))
    save("zz/dark.png", grain(0, 70))
    bright = grain(244, 255)
    bright[np.random.default_rng(0).random((48, 48)) < 0.03] = 150
    save("zz/bright.png", bright)
    save("zz/pale.png", grain(124, 133))
    save("zz/blurry.png", np.tile(np.linspace(0, 255, 48, dtype=np.uint8), (48, 1)))
    empty = np.full((48, 48), 128, np.uint8)
    empty[np.random.default_rng(1).random((48, 48)) < 0.03] = 0
    save("zz/empty.png", empty)
    names = (
        "../outside.png zz/text.png zz/truncated.jpg zz/bomb.png zz/gone.png zz/animated.gif zz/deep.png zz/deep_colour.png "
        "zz/cmyk.jpg zz/alpha.png zz/turned.jpg zz/named.jpg zz/small.png zz/wide.png zz/huge.png zz/dark.png zz/bright.png "
        "zz/pale.png zz/blurry.png zz/empty.png"
    )
    return [(name, "a", "ink", "", "") for name in names.split()]


def contradicting_rows() -> list[Row]:
    """Images that are wrong beside another one, or by their label. Clean images i have label abc[i % 3]."""
    for name in ("copy", "contradiction", "leak", "moved"):
        save(
            f"zz/{name}.png",
            pixels(
                {"copy": "ink/000.png", "contradiction": "ink/001.png", "leak": "pen/000.png", "moved": "ink/003.png"}[
                    name
                ]
            ),
        )
    for name in ("near", "near_contradiction", "near_leak", "near_moved"):
        of = {
            "near": "ink/006.png",
            "near_contradiction": "ink/007.png",
            "near_leak": "pen/009.png",
            "near_moved": "ink/009.png",
        }[name]
        save(f"zz/{name}.png", again(of))
    for name in ("unknown", "group_1", "group_2", "unlabelled"):
        save(f"zz/{name}.png")
    return [
        ("zz/copy.png", "a", "ink", "", ""),
        ("zz/contradiction.png", "c", "ink", "", ""),  # ink/001.png is a b
        ("zz/leak.png", "a", "pen", "train", ""),  # pen/000.png is given as test
        ("zz/moved.png", "a", "pen", "train", ""),  # ink/003.png stands in the source
        ("zz/near.png", "a", "ink", "", ""),
        ("zz/near_contradiction.png", "c", "ink", "", ""),
        ("zz/near_leak.png", "a", "pen", "train", ""),  # pen/009.png is given as test
        ("zz/near_moved.png", "a", "pen", "train", ""),
        ("zz/unknown.png", "zebra", "pen", "train", ""),
        ("zz/group_1.png", "a", "pen", "train", "writer"),
        ("zz/group_2.png", "a", "pen", "val", "writer"),
        ("zz/unlabelled.png", "", "ink", "", ""),
    ]


FAULTS = {
    "usable_path": {"../outside.png"},
    "readable": {"zz/text.png", "zz/truncated.jpg", "zz/bomb.png", "zz/gone.png"},
    "single_frame": {"zz/animated.gif"},
    "eight_bit": {"zz/deep.png", "zz/deep_colour.png"},
    "rgb_or_grey": {"zz/cmyk.jpg"},
    "opaque": {"zz/alpha.png"},
    "upright": {"zz/turned.jpg"},
    "extension_matches": {"zz/named.jpg"},
    "side_px": {"zz/small.png"},
    "aspect_ratio": {"zz/wide.png"},
    "typical_size": {"zz/huge.png"},
    "not_dark": {"zz/dark.png"},
    "not_bright": {"zz/bright.png"},
    "contrast": {"zz/pale.png"},
    "sharpness": {"zz/blurry.png"},
    "entropy": {"zz/empty.png"},
    "unique_pixels": {"zz/copy.png", "zz/contradiction.png", "zz/leak.png", "zz/moved.png"},
    "unique_pictures": {"zz/near.png", "zz/near_contradiction.png", "zz/near_leak.png", "zz/near_moved.png"},
    "one_label_per_pixels": {"zz/contradiction.png", "ink/001.png"},
    "one_label_per_picture": {"zz/near_contradiction.png", "ink/007.png"},
    "pixels_in_one_split": {"zz/leak.png", "pen/000.png"},
    "pictures_in_one_split": {"zz/near_leak.png", "pen/009.png"},
    "group_in_one_split": {"zz/group_1.png", "zz/group_2.png"},
    "pixels_in_one_domain": {"zz/moved.png", "ink/003.png"},
    "pictures_in_one_domain": {"zz/near_moved.png", "ink/009.png"},
    "label_present": {"zz/unlabelled.png"},
    "known_label": {"zz/unknown.png"},
}
SET_RULES = set(Rules.model_fields) - set(FAULTS)
DROPPING = ("readable", "single_frame", "eight_bit", "side_px", "unique_pixels")


@pytest.fixture
def params(shipped: dict[str, Any]) -> dict[str, Any]:
    shipped["build_manifest"] |= {
        "root": "images", "table": "images.csv", "audit_columns": [], "source_domains": ["ink"], "target_domain": "pen",
    }  # fmt: skip
    shipped["audit_bias"] |= {"rules": [], "columns_explained": {}, "threshold_optimizer": None}
    shipped["validate_data"] |= {"n_guard_labels": 2, "target_labels_per_class": 1}
    shipped["validate_data"]["rules"]["source_class_size"]["min"] = 3
    return shipped


def run(rows: list[Row]) -> dict[str, Any]:
    """The findings of the three stages on these rows."""
    pd.DataFrame(rows, columns=["path", "label", "domain", "split", "group"]).to_csv("images.csv", index=False)
    for stage in (build_manifest, measure_images, validate_data):
        stage.main()
    validation: dict[str, Any] = read_json(VALIDATION, made_by="validate_data")
    return validation


def failed(validation: dict[str, Any]) -> dict[str, set[str]]:
    """Rule → paths, of the rules on images."""
    return {
        rule["rule"]: {image["path"] for image in rule["images"]} for rule in validation["rules"] if "images" in rule
    }


def failed_cells(validation: dict[str, Any], rule: str) -> list[str]:
    found = next(found for found in validation["rules"] if found["rule"] == rule)
    return [cell["cell"] for cell in found["cells"]]


def test_every_planted_fault_of_200_images_is_found_by_its_path_and_nothing_else(
    params: dict[str, Any], go_with: Go
) -> None:
    go_with(params)
    planted = [*spoilt_rows(), *contradicting_rows()]
    validation = run([*clean_rows(120, 200 - 120 - len(planted)), *planted])
    assert validation["n_images"] == 200
    assert failed(validation) == FAULTS
    assert {rule["rule"] for rule in validation["rules"]} == set(Rules.model_fields), "no rule is forgotten"
    why = {
        (rule["rule"], image["path"]): image["why"] for rule in validation["rules"] for image in rule.get("images", [])
    }
    assert why["usable_path", "../outside.png"] == "leads outside the root; it was not opened"
    assert why["readable", "zz/gone.png"] == "the file is missing"
    assert "truncated" in why["readable", "zz/truncated.jpg"].lower()
    assert "not decoded" in why["readable", "zz/bomb.png"]
    assert why["single_frame", "zz/animated.gif"] == "3 frames"
    assert why["side_px", "zz/small.png"] == "7 x 7 px"
    assert why["unique_pixels", "zz/copy.png"] == "the same pixels as ink/000.png"
    assert (
        why["one_label_per_pixels", "ink/001.png"]
        == "label 'b' here, 'c' there; the same pixels as zz/contradiction.png"
    )
    assert why["pictures_in_one_split", "pen/009.png"] == (
        "split 'test' here, 'train' there; nearly the same picture as zz/near_leak.png"
    )
    rejected = read_table(Path("data/rejected.csv"), made_by="validate_data").set_index("path")["reasons"]
    assert set(rejected.index) == set().union(*(FAULTS[rule] for rule in DROPPING))
    assert rejected["zz/copy.png"] == "unique_pixels (the same pixels as ink/000.png)"
    accepted = read_table(MANIFEST, made_by="validate_data")
    assert len(accepted) + len(rejected) == 200
    assert validation["status"] == "blocked"
    blocking = [name for name in FAULTS if params["validate_data"]["rules"][name]["severity"] == "block"]
    assert [reason.split()[1] for reason in validation["blocked_by"]] == blocking
    groups = {
        tuple(sorted(m["path"] for m in group["members"])): group["kind"] for group in validation["duplicate_groups"]
    }
    assert groups["ink/001.png", "zz/contradiction.png"] == "identical"
    assert groups["pen/009.png", "zz/near_leak.png"] == "near"
    assert len(groups) == 8
    page = Path("data/validation.html").read_text()
    for path in set().union(*FAULTS.values()):
        assert path in page


def test_blocked_data_ends_later_stages_with_one_sentence(params: dict[str, Any], go_with: Go) -> None:
    folder = go_with(params)
    save("zebra.png")
    assert run([*clean_rows(), ("zebra.png", "zebra", "pen", "train", "")])["status"] == "blocked"
    with pytest.raises(ValueError, match=r"the data is blocked: rule known_label fails: 1 image\(s\)") as caught:
        read_valid_manifest(MANIFEST, GATE)
    assert "\n" not in str(caught.value)
    done = subprocess.run(
        [sys.executable, "-m", "tasks.augment_images"], cwd=folder, env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: the data is blocked: ")
    assert done.stderr.count("\n") == 1
    assert not Path("data/augmentation").exists()


def test_clean_data_passes_and_hides_its_labels(params: dict[str, Any], go_with: Go) -> None:
    go_with(params)
    rows = clean_rows()
    validation = run(rows)
    assert (validation["status"], validation["blocked_by"], validation["n_rejected"]) == ("pass", [], 0)
    assert not any(failed(validation).values())
    manifest = read_valid_manifest(MANIFEST, GATE)
    assert len(manifest) == len(rows)
    labels = {path: label for path, label, *_ in rows}
    paths = manifest.set_index("image_id")["path"]
    for split in ("test", "guard"):
        table = read_table(Path(f"data/{split}_labels.csv"), made_by="validate_data")
        of_split = manifest[(manifest["domain"] == "target") & (manifest["split"] == split)]
        assert list(of_split["label"].unique()) == [""]
        assert set(table["image_id"]) == set(of_split["image_id"])
        assert all(labels[paths[i]] == label for i, label in table.itertuples(index=False))
        assert validation["n_target_labels"][split] == len(table) > 0
    assert manifest.query("domain == 'target' and split == 'train'").groupby("label").size().to_dict() == dict.fromkeys(
        "abc", 1
    )


def test_a_part_of_the_unlabelled_target_is_held_out_and_counted(params: dict[str, Any], go_with: Go) -> None:
    """Thirty more images given as unlabelled, some with a label: a fifth of all that are learnt from without one."""
    params["validate_data"]["target_labels_per_class"] = None
    go_with(params)
    more = [(f"pen/more_{i:02d}.png", "abc"[i % 3] if i % 2 else "", "pen", "unlabelled", "") for i in range(30)]
    for path, *_ in more:
        save(path)
    validation = run([*clean_rows(), *more])
    assert (validation["n_target_unlabelled"], validation["n_target_holdout"]) == (24, 6)
    assert not any(failed(validation).values())
    manifest = read_valid_manifest(MANIFEST, GATE)
    held = manifest[manifest["split"] == "holdout"]
    assert set(held["path"]) < {path for path, *_ in more}
    assert held["label"].tolist() == [""] * 6


@pytest.mark.parametrize("source", [{"group": "all of one"}, {"copies": "yes"}])
def test_relatives_that_are_shared_out_by_image_are_called_no_leak(
    params: dict[str, Any], go_with: Go, source: dict[str, str]
) -> None:
    """One group, or one picture again and again: too few to hold out whole, so some are learnt from and some held out."""
    params["validate_data"]["rules"]["unique_pixels"]["policy"] = "keep"
    go_with(params)
    more = [(f"pen/more_{i:02d}.png", "", "pen", "unlabelled", source.get("group", "")) for i in range(20)]
    for path, *_ in more:
        save(path, pixels("one") if "copies" in source else pixels(path))
    validation = run([*clean_rows(), *more])
    assert validation["n_target_holdout"] > 0
    assert validation["n_target_unlabelled"] > 0
    for rule in ("group_in_one_split", "pixels_in_one_split", "pictures_in_one_split"):
        assert failed(validation)[rule] == set()
    assert validation["blocked_by"] == []


def test_the_gate_that_every_stage_reads_tells_no_label(params: dict[str, Any], go_with: Go) -> None:
    go_with(params)
    run(clean_rows())
    assert json.loads(GATE.read_text()) == {"blocked_by": []}


def test_a_class_without_a_readable_image_blocks(params: dict[str, Any], go_with: Go) -> None:
    params["validate_data"]["rules"]["rejected_share"]["max"] = 1.0
    go_with(params)
    rows = clean_rows()
    for path, label, domain, *_ in rows:
        if (label, domain) == ("c", "ink"):
            (Path("images") / path).write_text("no image")
    assert run(rows)["blocked_by"] == [
        "rule source_class_size fails: class 'c' has 0 readable source training image(s); at least 3 is asked for"
    ]


@pytest.mark.parametrize("domains", [{"ink"}, {"pen"}, {"ink", "pen"}])
def test_a_domain_without_a_readable_image_blocks_and_is_no_crash(
    params: dict[str, Any], go_with: Go, domains: set[str]
) -> None:
    go_with(params)
    rows = clean_rows(9, 9)
    for path, _, domain, *_ in rows:
        if domain in domains:
            (Path("images") / path).write_text("no image")
    validation = run(rows)
    assert validation["status"] == "blocked"
    assert any("images are rejected" in reason for reason in validation["blocked_by"])


def test_too_many_rejected_images_block(params: dict[str, Any], go_with: Go) -> None:
    params["validate_data"]["rules"]["rejected_share"]["max"] = 0.02
    go_with(params)
    rows = clean_rows()
    for path in ("ink/000.png", "ink/001.png"):
        (Path("images") / path).write_text("no image")
    assert run(rows)["blocked_by"] == [
        "rule rejected_share fails: 2 of 50 images are rejected; at most 0.02 is asked for"
    ]


def test_rules_on_the_whole_set_name_the_cells_that_fail(params: dict[str, Any], go_with: Go) -> None:
    params["build_manifest"]["audit_columns"] = ["group"]
    params["validate_data"]["rules"] |= {
        "class_balance": {"severity": "warn", "max": 2.0}, "unlabelled_share": {"severity": "warn", "max": 0.1},
    }  # fmt: skip
    go_with(params)
    rows = clean_rows(30, 27)
    rows = [row for row in rows if row[2] == "ink" or (row[1], row[3]) != ("c", "test")]
    for i in range(12):
        save(f"more/{i}.png")
        rows.append((f"more/{i}.png", "B" if i < 3 else "", "pen" if i >= 3 else "ink", "", f"device {i}"))
    validation = run(rows)
    assert failed_cells(validation, "distinct_labels") == ["'B', 'b'"]
    assert failed_cells(validation, "same_label_set") == ["class 'B'"]
    assert failed_cells(validation, "class_in_every_split") == [
        "target val, class 'B'", "target test, class 'B'", "target test, class 'c'",
    ]  # fmt: skip
    assert failed_cells(validation, "class_balance") == ["ink"]  # 10 of a, 3 of B
    assert failed_cells(validation, "unlabelled_share") == ["target images"]  # 9 of 33
    assert validation["label_sets"]["sentence"] == "only the source has 'B'"
    small = failed_cells(validation, "group_coverage")
    assert "group (not given) x class 'c'" in small, "7 images, fewer than 10"


def test_source_and_target_that_look_different_are_told_with_interval(params: dict[str, Any], go_with: Go) -> None:
    go_with(params)
    rows = clean_rows()
    for path, *_ in rows:
        if path.startswith("pen"):
            save(path, np.uint8(pixels(path) * 0.3 + 170))
    validation = run(rows)
    told = {shift["property"]: shift for shift in validation["shifts"]}
    assert told["brightness"]["effect"] == 1, "every target image is brighter than every source image"
    assert 0 < told["brightness"]["low"] < 1, "and 20 images are not certainty"
    assert failed_cells(validation, "source_to_target")[0] == "brightness, ink → pen"


def test_new_data_is_compared_with_the_accepted(params: dict[str, Any], go_with: Go) -> None:
    params["validate_data"]["rules"]["like_accepted"]["severity"] = "block"
    go_with(params)
    rows = clean_rows(60, 60)
    assert run(rows)["status"] == "pass"
    Path("data/given/accepted_profile.json").write_bytes(Path("data/profile.json").read_bytes())
    assert run(rows)["blocked_by"] == []
    for path, label, *_ in rows:
        if path.startswith("pen") and label == "a":
            save(path, np.uint8(pixels(path) * 0.3))
    rows = [row if row[1] != "b" or row[2] == "ink" else (row[0], "", *row[2:3], "unlabelled", "") for row in rows]
    told = failed_cells(run(rows), "like_accepted")
    assert "class 'b' of pen is gone (20 images before)" in told


def test_copies_that_are_not_dropped_stay_on_one_side(params: dict[str, Any], go_with: Go) -> None:
    """The same picture must not be learnt from and tested on, whatever the rules say of it."""
    params["validate_data"]["rules"]["unique_pixels"]["policy"] = "keep"
    params["validate_data"] |= {"target_labels_per_class": None, "n_guard_labels": 0}
    go_with(params)
    rows = [(path, label, domain, "", "") for path, label, domain, *_ in clean_rows()]
    for i in range(20):
        save(f"pen/copy_{i:03d}.png", pixels(f"pen/{i:03d}.png") if i % 2 else again(f"pen/{i:03d}.png"))
        rows.append((f"pen/copy_{i:03d}.png", "abc"[i % 3], "pen", "", ""))
    run(rows)
    split = read_table(MANIFEST, made_by="validate_data").set_index("path")["split"]
    assert all(split[f"pen/{i:03d}.png"] == split[f"pen/copy_{i:03d}.png"] for i in range(20))
    assert set(split) == {"train", "val", "test"}


def test_of_copies_the_labelled_one_is_kept_though_its_path_sorts_last(params: dict[str, Any], go_with: Go) -> None:
    go_with(params)
    rows = clean_rows()
    save("0_incoming.png", pixels("pen/000.png"))
    save("ink/zz.png", pixels("ink/000.png"))
    run([*rows, ("0_incoming.png", "", "pen", "", ""), ("ink/zz.png", "a", "ink", "", "")])
    rejected = read_table(Path("data/rejected.csv"), made_by="validate_data").set_index("path")["reasons"]
    assert rejected.to_dict() == {
        "0_incoming.png": "unique_pixels (the same pixels as pen/000.png)",
        "ink/zz.png": "unique_pixels (the same pixels as ink/000.png)",
    }


def test_class_shares_of_other_classes_are_told_before_the_training(params: dict[str, Any], go_with: Go) -> None:
    params["guard_adaptation"]["class_shares"] = {"a": 2, "b": 2, "d": 1}
    go_with(params)
    with pytest.raises(
        ValueError, match=r"class_shares needs one number for each class .* \(missing: 'c'; no class: 'd'\)"
    ):
        run(clean_rows(30, 60))


def test_a_target_without_labels_blocks_and_says_how_many_to_label(params: dict[str, Any], go_with: Go) -> None:
    """All parameters but the labels are as shipped: 10 per class are asked for, and of 10 the test gets .4 x 10 = 4."""
    params["validate_data"]["n_guard_labels"] = 0
    go_with(params)
    bare = [(path, "" if domain == "pen" else label, domain, "", "") for path, label, domain, *_ in clean_rows(30, 60)]
    assert run(bare)["blocked_by"] == [
        "no labelled target image is left for the test; label at least 10 of each class (in several groups, if you name "
        "groups), or mend the split column"
    ]
    labelled = [(path, "abc"[int(path[4:7]) % 3] if int(path[4:7]) < 30 else "", *rest) for path, _, *rest in bare]
    validation = run(labelled)
    assert validation["blocked_by"] == []
    assert validation["n_target_labels"]["test"] == 3 * 4


def test_a_photo_with_an_embedded_preview_is_one_frame(params: dict[str, Any], go_with: Go) -> None:
    """Phones write JPEGs with a second picture inside (MPO): no animation."""
    go_with(params)
    rows = clean_rows()
    photo = Image.fromarray(pixels("photo"))
    save("ink/photo.jpg", photo, format="MPO", save_all=True, append_images=[photo.resize((16, 16))])
    validation = run([*rows, ("ink/photo.jpg", "a", "ink", "", "")])
    assert not any(failed(validation).values())


def test_data_docs_name_the_offending_paths(params: dict[str, Any], go_with: Go, tmp_path: Path) -> None:
    go_with(params)
    rows = clean_rows()
    Path("images/ink/000.png").write_text("no image")
    run(rows)
    from flows.results import data_docs

    index = data_docs()
    assert index.is_file()
    assert any("ink/000.png" in page.read_text() for page in index.parent.rglob("*.html"))


def test_every_rule_on_the_set_is_looked_at() -> None:
    """A rule of the set that no cell is made for could never fail."""
    source = (PROJECT / "tasks/core/cells.py").read_text()
    assert {rule for rule in SET_RULES if f'"{rule}"' not in source} == set()
