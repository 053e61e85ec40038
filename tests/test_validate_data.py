"""validate_data on small images with one planted fault per rule: each is found by its path, and nothing else is."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks import build_manifest, measure_images, validate_data
from tasks.core.files import read_json, read_table
from tasks.core.manifest import read_valid_manifest

# great_expectations imports a parser that uses old names of the standard library
pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_.*' is deprecated:DeprecationWarning")

PROJECT = Path(__file__).parents[1]
MANIFEST, VALIDATION = Path("data/manifest_valid.csv"), Path("data/validation.json")
Row = tuple[str, str, str, str, str]  # path, label, domain, split, group
Go = Callable[[dict[str, Any]], Path]


def noise(path: str, key: str | None = None, shape: tuple[int, ...] = (12, 12, 3)) -> Path:
    """A file of random pixels; the same key gives the same ones."""
    seed = list((key or path).encode())
    place = Path("images") / path
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8)).save(
        place, format=Path(path).suffix[1:]
    )
    return place


def clean_rows(n_source: int = 30, n_target: int = 20) -> list[Row]:
    """Noise of three classes, the target with given splits; every image readable and unlike the others."""
    rows = [(f"ink/{i:02d}.png", "abc"[i % 3], "ink", "", "") for i in range(n_source)]
    rows += [
        (f"pen/{i:02d}.png", "abc"[i % 3], "pen", ("test", "train", "val")[i // 3 % 3], "") for i in range(n_target)
    ]
    for row in rows:
        noise(row[0])
    return rows


def faulty_rows() -> list[Row]:
    """One fault per rule (two images where a fault is a contradiction between two)."""
    Path("images/bad").mkdir(parents=True)
    Path("images/bad/text.png").write_text("no image")
    whole = noise("bad/truncated.bmp").read_bytes()
    Path("images/bad/truncated.bmp").write_bytes(whole[: len(whole) // 2])
    frames = [Image.open(noise(f"bad/{i}.bmp", shape=(12, 12))) for i in range(3)]
    frames[0].save("images/bad/animated.gif", save_all=True, append_images=frames[1:])
    noise("bad/small.png", shape=(7, 12, 3))
    noise("bad/wide.png", shape=(10, 50, 3))
    Image.new("RGB", (12, 12), "grey").save("images/bad/flat.png")
    noise("bad/png.png").rename("images/bad/named.jpg")
    noise("bad/unknown.png")
    noise("bad/copy.png", "ink/00.png")
    noise("bad/contradiction.png", "ink/01.png")
    noise("bad/leak.png", "pen/01.png")
    noise("bad/group_1.png")
    noise("bad/group_2.png")
    source = ["text.png", "truncated.bmp", "animated.gif", "small.png", "wide.png", "flat.png", "named.jpg", "copy.png"]
    return [
        *((f"bad/{name}", "a", "ink", "", "") for name in source),
        ("bad/contradiction.png", "a", "ink", "", ""),  # ink/01.png is a b
        ("bad/unknown.png", "zebra", "pen", "train", ""),
        ("bad/leak.png", "b", "pen", "train", ""),  # pen/01.png is a b, given as test
        ("bad/group_1.png", "a", "pen", "train", "writer"),
        ("bad/group_2.png", "a", "pen", "val", "writer"),
    ]


FAULTS = {
    "readable": {"bad/text.png", "bad/truncated.bmp"},
    "single_frame": {"bad/animated.gif"},
    "side_px": {"bad/small.png"},
    "aspect_ratio": {"bad/wide.png"},
    "contrast": {"bad/flat.png"},
    "extension_matches": {"bad/named.jpg"},
    "known_label": {"bad/unknown.png"},
    # of equal pixels the first path is kept, and "bad" comes before "ink" and "pen"
    "unique_pixels": {"ink/00.png", "ink/01.png", "pen/01.png"},
    "one_label_per_pixels": {"ink/01.png", "bad/contradiction.png"},
    "duplicates_across_splits": {"pen/01.png", "bad/leak.png", "bad/group_1.png", "bad/group_2.png"},
}


@pytest.fixture
def params(shipped: dict[str, Any]) -> dict[str, Any]:
    shipped["build_manifest"] |= {
        "root": "images", "table": "images.csv", "audit_columns": [], "source_domains": ["ink"], "target_domain": "pen",
    }  # fmt: skip
    shipped["audit_bias"]["rules"] = []
    shipped["validate_data"] |= {"min_source_per_class": 3, "n_guard_labels": 2, "target_labels_per_class": 1}
    return shipped


def run(rows: list[Row]) -> dict[str, Any]:
    """The findings of the three stages on these rows."""
    pd.DataFrame(rows, columns=["path", "label", "domain", "split", "group"]).to_csv("images.csv", index=False)
    for stage in (build_manifest, measure_images, validate_data):
        stage.main()
    validation: dict[str, Any] = read_json(VALIDATION, made_by="validate_data")
    return validation


def failed(validation: dict[str, Any]) -> dict[str, set[str]]:
    return {rule["rule"]: {image["path"] for image in rule["images"]} for rule in validation["rules"]}


def test_every_planted_fault_is_found_by_its_path_and_nothing_else(params: dict[str, Any], go_with: Go) -> None:
    go_with(params)
    validation = run([*clean_rows(), *faulty_rows()])
    assert failed(validation) == FAULTS
    assert set(FAULTS) == set(params["validate_data"]["rules"]), "every rule has a planted fault"
    assert (validation["n_images"], validation["n_rejected"]) == (63, 7)
    rejected = read_table(Path("data/rejected.csv"), made_by="validate_data").set_index("path")["reasons"]
    dropping = ("readable", "single_frame", "side_px", "unique_pixels")
    assert set(rejected.index) == set().union(*(FAULTS[rule] for rule in dropping))
    assert rejected["bad/text.png"].startswith("readable (UnidentifiedImageError: ")
    assert rejected["ink/00.png"] == "unique_pixels"
    accepted = read_table(MANIFEST, made_by="validate_data")
    assert len(accepted) + len(rejected) == 63
    assert not set(accepted["path"]) & set(rejected.index)

    assert validation["status"] == "blocked"
    assert validation["blocked_by"] == [
        "rule known_label fails for 1 image(s), the first: bad/unknown.png",
        "rule one_label_per_pixels fails for 2 image(s), the first: bad/contradiction.png",
        "rule duplicates_across_splits fails for 4 image(s), the first: bad/group_1.png",
        "target label 'zebra' is no source class (a, b, c)",
    ]
    with pytest.raises(ValueError, match=r"the data is blocked: rule known_label fails for 1 image\(s\)") as caught:
        read_valid_manifest(MANIFEST, VALIDATION)
    assert "\n" not in str(caught.value)


def test_blocked_data_ends_later_stages_with_one_sentence(params: dict[str, Any], go_with: Go) -> None:
    folder = go_with(params)
    noise("zebra.png")
    assert run([*clean_rows(), ("zebra.png", "zebra", "pen", "train", "")])["status"] == "blocked"
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
    manifest = read_valid_manifest(MANIFEST, VALIDATION)
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


def test_hidden_labels_do_not_come_back_in_the_counts(params: dict[str, Any], go_with: Go) -> None:
    """validation.json is read by every stage."""
    go_with(params)
    counts = run(clean_rows())["counts"]
    hidden = [c for c in counts if c["domain"] == "target" and c["split"] in ("test", "guard", "unlabelled")]
    assert {c["split"] for c in hidden} == {"test", "guard", "unlabelled"}
    assert {c["label"] for c in hidden} == {""}
    assert sum(c["n"] for c in counts) == 50


def test_a_class_without_a_readable_image_blocks(params: dict[str, Any], go_with: Go) -> None:
    params["validate_data"]["max_rejected_share"] = 1.0
    go_with(params)
    rows = clean_rows()
    for path, label, domain, *_ in rows:
        if (label, domain) == ("c", "ink"):
            (Path("images") / path).write_text("no image")
    validation = run(rows)
    assert validation["status"] == "blocked"
    assert validation["blocked_by"] == ["class 'c' has 0 readable source training images, at least 3 are needed"]


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
    params["validate_data"]["max_rejected_share"] = 0.02
    go_with(params)
    rows = clean_rows()
    for path in ("ink/00.png", "ink/01.png"):
        (Path("images") / path).write_text("no image")
    assert run(rows)["blocked_by"] == ["2 of 50 images are rejected, more than the allowed share 0.02"]


def test_copies_that_are_not_dropped_stay_on_one_side(params: dict[str, Any], go_with: Go) -> None:
    """The same picture must not be learnt from and tested on, whatever the severity of the rule."""
    params["validate_data"]["rules"]["unique_pixels"]["severity"] = "warn"
    params["validate_data"] |= {"target_labels_per_class": None, "n_guard_labels": 0}
    go_with(params)
    rows = [(path, label, domain, "", "") for path, label, domain, *_ in clean_rows()]
    for i in range(20):
        noise(f"pen/copy_{i:02d}.png", f"pen/{i:02d}.png")
        rows.append((f"pen/copy_{i:02d}.png", "abc"[i % 3], "pen", "", ""))
    run(rows)
    manifest = read_table(MANIFEST, made_by="validate_data")
    assert manifest.groupby("content_id")["split"].nunique().max() == 1


def test_a_photo_with_an_embedded_preview_is_one_frame(params: dict[str, Any], go_with: Go) -> None:
    """Phones write JPEGs with a second picture inside (MPO): no animation."""
    go_with(params)
    rows = clean_rows()
    photo = Image.open(noise("ink/photo.bmp", shape=(32, 32, 3)))
    photo.save("images/ink/photo.jpg", format="MPO", save_all=True, append_images=[photo.resize((16, 16))])
    validation = run([*rows, ("ink/photo.jpg", "a", "ink", "", "")])
    assert not any(failed(validation).values())
