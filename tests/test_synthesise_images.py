"""The stage synthesise_images: from params.yaml and the accepted manifest to data/synthetic, and off where it is switched off."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks import synthesise_images
from tasks.core.synthesis import COLUMNS, read_synthetic
from tasks.params import read_params

Go = Callable[[dict[str, Any]], Path]
TABLE = Path("data/synthetic/images.csv")


@pytest.fixture
def params(shipped: dict[str, Any]) -> dict[str, Any]:
    shipped["build_manifest"]["root"] = "images"
    shipped["synthesise_images"] = {
        "method": "fourier", "n_per_image": 2, "n_max": 5, "strength": 1.0, "fourier_share": 0.1, "short_side_px": 256,
    }  # fmt: skip
    return shipped


def accepted(folder: Path, blocked_by: list[str]) -> None:
    """Three source training images and one in val, one target image to learn from and one in test."""
    splits = [("source", "train")] * 3 + [("source", "val"), ("target", "unlabelled"), ("target", "test")]
    (folder / "images").mkdir()
    rows = []
    for number, (domain, split) in enumerate(splits):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{number}.png")
        label = "cat" if domain == "source" else ""
        rows.append(
            {"image_id": f"i{number}", "path": f"{number}.png", "domain": domain, "split": split, "label": label}
        )
    pd.DataFrame(rows).assign(origin="photo").to_csv(folder / "data/manifest_valid.csv", index=False)
    (folder / "data/gate.json").write_text(json.dumps({"blocked_by": blocked_by}))


def test_images_and_table_are_written(params: dict[str, Any], go_with: Go, capsys: pytest.CaptureFixture[str]) -> None:
    accepted(go_with(params), [])
    synthesise_images.main()
    table = read_synthetic(TABLE)
    assert len(table) == 5  # of 3 · 2, capped
    assert set(table["parent_id"]) == {"i0", "i1", "i2"}
    assert set(table["target_id"]) == {"i4"}
    assert {str(path.relative_to(TABLE.parent)) for path in TABLE.parent.glob("images/*")} == set(table["path"])
    with Image.open(TABLE.parent / table["path"][0]) as image:
        assert image.size == (8, 8)
    assert capsys.readouterr().out == "5 images made of 3 source images, with the look of 1 target images\n"


def test_switched_off_no_image_is_made_and_older_ones_go(params: dict[str, Any], go_with: Go) -> None:
    params["synthesise_images"]["n_per_image"] = 0
    accepted(go_with(params), [])
    (TABLE.parent / "images").mkdir(parents=True)
    (TABLE.parent / "images/old.png").write_bytes(b"")
    synthesise_images.main()
    assert [path.name for path in TABLE.parent.rglob("*")] == ["images.csv"]
    assert TABLE.read_text() == ",".join(COLUMNS) + "\n"


def test_blocked_data_is_refused(params: dict[str, Any], go_with: Go) -> None:
    accepted(go_with(params), ["readable: 3 images"])
    with pytest.raises(ValueError, match="the data is blocked: readable: 3 images"):
        synthesise_images.main()
    assert not TABLE.exists()


def test_as_shipped_nothing_is_synthesised(shipped: dict[str, Any], go_with: Go) -> None:
    go_with(shipped)
    assert read_params().synthesise_images.n_per_image == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("method", "gan"), ("n_per_image", -1), ("n_max", 0), ("strength", 0), ("strength", 1.1), ("fourier_share", 0),
        ("fourier_share", 0.6), ("short_side_px", 15),
    ],
)  # fmt: skip
def test_values_that_could_not_be_meant_are_refused(params: dict[str, Any], go_with: Go, key: str, value: Any) -> None:
    params["synthesise_images"][key] = value
    go_with(params)
    with pytest.raises(ValueError, match=rf"synthesise_images\.{key} is {value!r}; "):
        read_params()
