"""`acclimate predict`: folders, archives, tables and files in, one whole table out, by the model that is meant."""

import csv
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_models import champion_model, registered_model, working_bundle
from PIL import Image
from typer.testing import CliRunner, Result

from flows.cli import app
from flows.predict_cli import write_rows
from tasks.core import classifier

pytest_plugins = ("registry_fixtures",)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")  # its own use of SQLAlchemy


def predict(*arguments: object, code: int = 0) -> Result:
    done = CliRunner().invoke(app, ["predict", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done


@pytest.fixture
def workspace(go_with: Callable[[dict[str, Any]], Path], shipped: dict[str, Any]) -> Path:
    """A workspace that has no registry."""
    return go_with(shipped)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two images, one of them in a folder below."""
    folder = tmp_path / "images"
    (folder / "below").mkdir(parents=True)
    for k, name in enumerate(("x.png", "below/y.jpg")):
        pixels = np.random.default_rng(k).integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_folders_archives_tables_and_files_are_predicted_in_their_order(
    workspace: Path, tmp_path: Path, images: Path
) -> None:
    bundle = working_bundle(tmp_path / "m", "b")
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(images / "x.png", "in/z.png")
    (tmp_path / "table.csv").write_text("path,who\nimages/x.png,ann\n")
    out = tmp_path / "out.csv"
    predict(images, tmp_path / "more.zip", tmp_path / "table.csv", images / "x.png", "--model", bundle, "--out", out)
    header = "path,y_pred,confidence,p_a,p_b,p_c,ask_a_person,error"
    assert out.read_text().splitlines()[0] == header
    rows = rows_of(out)
    assert [row["path"] for row in rows] == [
        str(images / "below/y.jpg"), str(images / "x.png"), str(tmp_path / "more.zip/in/z.png"), "images/x.png",
        str(images / "x.png"),
    ]  # fmt: skip
    for row in rows:
        assert (row["y_pred"], row["ask_a_person"], row["error"]) == ("b", "no", "")
        found = [float(row[key]) for key in ("confidence", "p_a", "p_b", "p_c")]
        assert found == pytest.approx([0.8, 0.1, 0.8, 0.1], abs=1e-6)


@pytest.mark.parametrize(("ask_below", "expected"), [(0.79, "no"), (0.81, "yes"), (None, "yes"), (0.0, "no")])
def test_a_person_is_asked_below_the_threshold_and_always_where_there_is_none(
    workspace: Path, tmp_path: Path, images: Path, ask_below: float | None, expected: str
) -> None:
    bundle = working_bundle(tmp_path / "m", "b", ask_below=ask_below)
    told = predict(images, "--model", bundle, "--out", tmp_path / "o.csv").stderr
    why = "ask_a_person is yes for every image: the model has no confidence threshold"
    assert [why in line for line in told.splitlines() if "ask_a_person" in line] == [True] * (ask_below is None)
    assert {row["ask_a_person"] for row in rows_of(tmp_path / "o.csv")} == {expected}


def test_the_champion_is_used_unless_another_is_named(home: Path, tmp_path: Path, images: Path) -> None:
    out = tmp_path / "o.csv"

    def said(*arguments: str) -> str:
        predict(images / "x.png", "--out", out, *arguments)
        return rows_of(out)[0]["y_pred"]

    told = predict(images, code=1).output
    assert "versions are none" in told
    first = registered_model(tmp_path, "a")
    told = predict(images, code=1).output
    assert "no version of 'digits' is champion yet: approve one and promote it" in told
    assert "--model challenger" in told
    assert said("--model", "challenger") == "a"
    champion_model(tmp_path, "b")
    registered_model(tmp_path, "c")
    assert said() == "b"
    assert said("--model", "challenger") == "c"
    assert said("--model", "1") == said("--model", first.candidate[:10]) == said("--model", str(first.folder)) == "a"
    assert "so it is no bundle" in predict(images, "--model", tmp_path, code=1).output


def test_a_bundle_with_a_flipped_byte_is_refused_before_anything_is_written(
    home: Path, tmp_path: Path, images: Path
) -> None:
    version = registered_model(tmp_path, "a")
    weights = version.folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    for said in ("challenger", str(version.folder)):
        assert "model.safetensors has sha256" in predict(images, "--model", said, "--out", "o.csv", code=1).output
    assert not Path("o.csv").exists()


def test_one_bad_image_costs_the_others_nothing_and_the_exit_code_tells(
    workspace: Path, tmp_path: Path, images: Path
) -> None:
    (images / "broken.png").write_bytes(b"no image")
    bundle = working_bundle(tmp_path / "m", "c")
    told = predict(images, tmp_path / "gone.png", "--model", bundle, "--out", tmp_path / "o.csv", code=1).output
    assert "error: 2 of 4 images could not be read; see the column error" in told
    found = [(row["y_pred"], row["ask_a_person"], row["error"].split(":")[0]) for row in rows_of(tmp_path / "o.csv")]
    unread = [("", "", "UnidentifiedImageError"), ("", "", "FileNotFoundError")]
    assert found == [("c", "no", ""), unread[0], ("c", "no", ""), unread[1]]
    told = predict(images, "--model", bundle, code=1).output
    assert "0.800" in told
    assert "UnidentifiedImageError" in told


def test_batches_change_nothing(workspace: Path, tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = working_bundle(tmp_path / "m", "a", is_random=True)
    for k in range(5):
        Image.fromarray(np.random.default_rng(k).integers(0, 99, (32, 32, 3), dtype=np.uint8)).save(images / f"{k}.png")
    for size in (64, 2):
        monkeypatch.setattr(classifier, "BATCH_SIZE", size)
        predict(images, "--model", bundle, "--out", tmp_path / f"{size}.csv")
    whole, parts = (pd.read_csv(tmp_path / f"{size}.csv") for size in (64, 2))
    assert len(whole) == 7
    assert list(parts["path"]) == list(whole["path"])
    assert parts[["p_a", "p_b", "p_c"]].to_numpy() == pytest.approx(whole[["p_a", "p_b", "p_c"]].to_numpy(), abs=1e-6)


@pytest.mark.parametrize("stopped_by", [KeyboardInterrupt, SystemExit])
def test_what_was_stopped_leaves_no_half_file(tmp_path: Path, stopped_by: type[BaseException]) -> None:
    def tables() -> Iterator[pd.DataFrame]:
        yield pd.DataFrame([{"path": "x", "error": ""}])
        raise stopped_by

    (tmp_path / "o.csv").write_text("of before")
    with pytest.raises(stopped_by):
        write_rows(tmp_path / "o.csv", tables())
    assert [path.name for path in tmp_path.iterdir()] == ["o.csv"]
    assert (tmp_path / "o.csv").read_text() == "of before"


def test_odd_names_come_back_readable(workspace: Path, tmp_path: Path, images: Path) -> None:
    names = ["a,b", 'say "x"', "re\rturn"]
    tables = iter([pd.DataFrame({"path": [name], "error": [""]}) for name in names])
    assert write_rows(tmp_path / "o.csv", tables) == (3, 0)
    assert [row["path"] for row in rows_of(tmp_path / "o.csv")] == names
    latin = images / os.fsdecode(b"latin\xe9.png")
    (images / "x.png").rename(latin)
    bundle = working_bundle(tmp_path / "m", "a")
    predict(latin, "--model", bundle, "--out", tmp_path / "o.csv")
    assert [(row["path"], row["y_pred"]) for row in rows_of(tmp_path / "o.csv")] == [(f"{images}/latin\\xe9.png", "a")]


def test_places_that_hold_nothing_are_told(workspace: Path, tmp_path: Path, images: Path) -> None:
    bundle = working_bundle(tmp_path / "m", "a")
    (tmp_path / "t.csv").write_text("file\nx.png\n")
    (tmp_path / "none.csv").write_text("path\n")
    (tmp_path / "empty").mkdir()
    for place, sentence in {
        tmp_path / "t.csv": "has no column 'path', only 'file'; rename",
        tmp_path / "none.csv": "has no row",
        tmp_path / "empty": "holds no image",
        tmp_path / "gone.csv": "is not a file",
        tmp_path / "gone.zip": "does not exist",
    }.items():
        told = predict(place, "--model", bundle, "--out", tmp_path / "o.csv", code=1).output
        assert sentence in told.replace("\n", " ")
    told = predict(images, "--model", bundle, "--out", tmp_path / "no/o.csv", code=1).output
    assert "does not exist; make it first" in told
    assert not (tmp_path / "o.csv").exists()
