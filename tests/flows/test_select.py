"""`acclimate select` on any image set: a ranking with its page, or one sentence; the same bytes in any order."""

import json
import re
import signal
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from click.testing import Result
from PIL import Image
from ruamel.yaml import YAML
from safetensors.numpy import load_file
from typer.testing import CliRunner

from flows.select_cli import SELECTION, SETTINGS, select
from flows.select_images import LABEL_RULES
from tasks.core.files import file_sha256
from tasks.core.model import SmallResNet, multiply_adds, parameter_count, save_weights, split_head
from tasks.core.selection_page import MEANING, digits
from tasks.params import Rules, read_selection

PROJECT = Path(__file__).parents[2]
CLASSES = ("circles", "dots")
pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_.*' is deprecated:DeprecationWarning")  # Great Expectations
OPTIONS = ("--zoo", "zoo", "--params", "settings.yaml")


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a zoo, settings and image sets; facts and features are computed once for all tests."""
    folder = tmp_path_factory.mktemp("select")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("ACCLIMATE_HOME", str(folder / "home"))
        make_zoo(Path("zoo"))
        make_settings(Path("settings.yaml"))
        for name in ("target", "source"):
            make_images(Path(name), 14 if name == "target" else 12)
        yield folder
    signal.signal(signal.SIGTERM, before)


def make_zoo(folder: Path) -> None:
    folder.mkdir()
    entries: list[dict[str, Any]] = []
    for number, name in enumerate(("first", "second")):
        torch.manual_seed(number)
        save_weights(SmallResNet(3), folder / f"{name}.safetensors")
        entries.append({
            "name": name, "arch": "acclimate.small_resnet", "file": f"{name}.safetensors",
            "sha256": file_sha256(folder / f"{name}.safetensors"), "num_classes": 3, "feature_dim": 128,
            "mean": [0.5] * 3, "std": [0.25] * 3, "input_size": [3, 32, 32], "interpolation": "bilinear",
            "source_domain": "<i>noise</i>", "license": "MIT" if number else "GPL",
        })  # fmt: skip
    entries.append({"name": "random", "like": "first", "seed": 0})
    (folder / "zoo.json").write_text(json.dumps({"models": entries}))


def make_settings(path: Path, **changes: Any) -> str:
    content = YAML(typ="safe").load(SETTINGS.read_text())
    content["select_model"] |= {"n_bootstrap": 50, "gap_min_images": 5} | changes.pop("select_model", {})
    for weights in ("weights", "weights_without_labels"):
        content["select_model"][weights] |= {"proxy_a_distance": None}  # slow: 21 cross-validations per candidate
    for section, values in changes.items():
        content[section] |= values
    YAML(typ="safe").dump(content, path)
    return str(path)


def picture(key: str, label: str) -> Image.Image:
    """Noise; of the second class with a bright corner. The same key, the same picture."""
    rng = np.random.default_rng(list(f"{key} {label}".encode()))
    pixels = rng.integers(0, 200, (48, 48, 3), dtype=np.uint8)
    if label == CLASSES[1]:
        pixels[:24, :24] = 255 - pixels[:24, :24] // 4
    return Image.fromarray(pixels)


def make_images(folder: Path, n_per_class: int) -> None:
    for label in CLASSES:
        for number in range(n_per_class):
            file = folder / label / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            picture(str(file), label).save(file)


def paths(folder: str) -> list[tuple[str, str]]:
    return [(str(file.relative_to(folder)), file.parent.name) for file in sorted(Path(folder).rglob("*.png"))]


def table(name: str, rows: list[dict[str, str]]) -> str:
    pd.DataFrame(rows).to_csv(name, index=False)
    return name


def empty_folder() -> Path:
    Path("empty").mkdir(exist_ok=True)
    return Path("empty")


def acclimate(*words: str) -> Result:
    app = typer.Typer()
    app.command()(select)
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "200"}, catch_exceptions=False)


def selection(out: str, *words: str, params: str = "settings.yaml") -> dict[str, Any]:
    """The selection; checks that a run leaves its three files, and a page that acts on nothing and loads nothing."""
    done = acclimate("--out", out, "--zoo", "zoo", "--params", params, *words)
    assert (done.exit_code, done.stderr) == (0, "")
    assert {path.name for path in Path(out).iterdir()} - {"features"} == set(SELECTION.names)
    found: dict[str, Any] = json.loads(Path(out, "selection.json").read_text())
    page = Text(Path(out, "selection.html").read_text())
    assert page.acts == []
    for words_ in (found["reason"], found["rule"], "<i>noise</i>", *found["left_out"]):
        assert words_ in " ".join(page.said)
    assert list(pd.read_csv(Path(out, "ranking.csv"))["name"]) == [entry["name"] for entry in found["candidates"]]
    for sentence in (found["reason"], *found["left_out"]):
        assert sentence in done.stdout
    return found


def problem(*words: str, out: str = "refused") -> str:
    """The one sentence of a command that could not run; it leaves nothing."""
    done = acclimate("--out", out, *words)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    assert not set(SELECTION.names) & {path.name for path in Path(out).glob("*")}
    assert not list(Path(out).glob(".select-*"))
    assert done.stderr.startswith("error: ")
    return done.stderr.removeprefix("error: ")


class Text(HTMLParser):
    """What a reader of the page sees, and whatever could act or load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.said: list[str] = []
        self.acts: list[str] = []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        urls = [value or "" for name, value in attributes if name in ("src", "href", "xlink:href")]
        self.acts += [tag] * (tag in ("script", "iframe", "object", "embed", "base", "form", "i"))
        self.acts += [name for name, _ in attributes if name.startswith("on")]
        self.acts += [url for url in urls if not url.startswith("#")]


def test_networks_are_ranked_with_labels_and_a_source() -> None:
    words = ("--target", "target", "--source", "source", "--keep-features")
    found = selection("both", *words)
    net = split_head(SmallResNet(2), 2)
    assert sum(entry["p_best"] for entry in found["candidates"]) == pytest.approx(1)
    assert {entry["name"] for entry in found["candidates"]} == {"first", "second"}
    assert found["random"]["name"] == "random"
    assert found["target"] == {"n_listed": 28, "n_accepted": 28}
    assert found["source"] == {"n_listed": 24, "n_accepted": 24}
    assert found["labels"] == {"n_images": 28, "n_classes": 2}
    scores = {"knn", "linear_probe", "logme", "h_score", "leep", "coral_distance", "frechet_distance", "kid"}
    assert scores <= set(found["candidates"][0]["scores"])
    assert found["candidates"][0]["scores"]["linear_probe"]["value"] > 0.8  # a bright corner is seen by any network
    assert found["candidates"][0]["n_parameters"] == parameter_count(net)
    assert found["candidates"][0]["n_multiply_adds"] == multiply_adds(net.backbone, 32)
    assert {name: len(points) for name, points in found["map"]["points"].items()} == {"target": 28, "source": 24}
    kept = {str(path.relative_to("both/features")) for path in Path("both/features").rglob("*.npy")}
    assert kept == {f"{name}/{role}/x.npy" for name in ("first", "second", "random") for role in ("target", "source")}
    assert np.load("both/features/first/target/x.npy").shape == (28, 128)
    done = acclimate("--out", "both", *OPTIONS, *words)
    assert (done.exit_code, "both/features is there already" in done.stderr) == (2, True)
    assert Path("both/selection.json").exists()


def test_without_a_source_the_distances_are_left_out_and_a_failing_run_leaves_no_older_result() -> None:
    found = selection("alone", "--target", "target")
    assert found["source"] is None
    assert set(found["candidates"][0]["scores"]) == {"knn", "linear_probe", "logme", "h_score", "leep"}
    assert any("there is no source" in sentence for sentence in found["left_out"])
    assert list(found["map"]["points"]) == ["target"]
    assert "no image was found" in problem("--target", str(empty_folder()), *OPTIONS, out="alone")


def test_without_labels_the_ranking_says_what_it_rests_on() -> None:
    given = table("plain.csv", [{"path": path} for path, _ in paths("target")])
    both = selection("unlabelled", "--target", given, "--root", "target", "--source", "source")
    assert "the labelled source" in both["reason"]
    assert "can't say which is best on the target" in both["reason"]
    assert {"source_probe", "static_prior", "coral_distance"} <= set(both["candidates"][0]["scores"])
    prior = selection("prior", "--target", given, "--root", "target")
    assert set(prior["candidates"][0]["scores"]) == {"static_prior"}
    assert "source" not in prior["reason"]
    assert sorted(prior["tied"]) == ["first", "second"]  # of one size: nothing tells them apart


def test_any_classes_hidden_splits_and_the_same_bytes_in_any_order() -> None:
    rows = [
        {
            "path": path, "label": f"{label} of the target", "split": "test" if number // 2 % 7 == 0 else "train",
            "side": "left" if number % 2 else "right", "group": str(number // 2),
        }
        for number, (path, label) in enumerate(paths("target"))
    ]  # fmt: skip
    rows[2]["label"] = "alone"
    words = ("--source", "source", "--root", "target", "--audit-columns", "side")
    found = selection("forth", "--target", table("forth.csv", rows), *words)
    assert found["target"] == {"n_listed": 28, "n_accepted": 24}
    assert found["labels"] == {"n_images": 23, "n_classes": 2}
    assert "4 images of the split test are left out: no choice may see them" in found["left_out"]
    assert "1 labels of classes with a single labelled target image are left out" in found["left_out"]
    assert any("rule known_label fails" in sentence for sentence in found["left_out"])
    assert found["candidates"][0]["gaps"][0]["column"] == "side"
    selection("back", "--target", table("back.csv", rows[::-1]), *words)
    for name in SELECTION.names:
        assert Path("forth", name).read_bytes() == Path("back", name).read_bytes(), name


def test_bad_images_and_unlicensed_networks_are_left_out_and_told() -> None:
    make_images(Path("spoilt"), 14)
    Path("spoilt/dots/3.png").write_bytes(b"no picture")
    Path("spoilt/dots/copy.png").write_bytes(Path("spoilt/dots/4.png").read_bytes())
    params = make_settings(Path("mit.yaml"), zoo={"licences": ["MIT"], "folder": "zoo"})
    done = acclimate("--out", "mit", "--target", "spoilt", "--params", params)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "2 of 29 images are left out by the rules (readable 1, unique_pixels 1)" in done.stdout
    assert "candidate first is left out: its licence is 'GPL'" in done.stdout
    assert re.search(r"second .*\d+\.\d .*\d+\.\d\d", done.stdout)  # seconds and memory: for the terminal alone
    assert "seconds" not in Path("mit/selection.json").read_text() + Path("mit/ranking.csv").read_text()


def test_a_zoo_without_a_network_to_choose_is_refused() -> None:
    for name, changes in (("none.yaml", {"licences": ["BSD"]}), ("scratch.yaml", {"candidates": ["random"]})):
        params = make_settings(Path(name), zoo=changes)
        assert "no pretrained candidate" in problem("--target", "target", "--zoo", "zoo", "--params", params)


def test_what_cannot_run_is_one_sentence() -> None:
    assert "no zoo is named" in problem("--target", "target")
    assert "--zoo nowhere is not a folder" in problem("--target", "target", "--zoo", "nowhere")
    assert "--params none is not a file" in problem("--target", "target", "--params", "none")
    assert "zoo.json is missing" in problem("--target", "target", "--zoo", "source")
    assert "nothing does not exist" in problem("--target", "nothing", *OPTIONS)
    assert "there is no table" in problem("--target", "target", "--label-column", "kind", *OPTIONS)
    assert "are both target" in problem("--target", "target", "--source", "./target", *OPTIONS)
    given = table("short.csv", [{"path": path, "label": label} for path, label in paths("target")])
    assert "no column 'kind'" in problem("--target", given, "--label-column", "kind", "--root", "target", *OPTIONS)
    assert "--layout can't be used" in problem("--target", given, "--layout", "label", *OPTIONS)
    bad = make_settings(Path("bad.yaml"), runtime={"n_thread": 1}, select_model={"n_bootstrap": 1})
    told = problem("--target", "target", "--zoo", "zoo", "--params", bad)
    assert "bad.yaml has 2 problem(s)" in told
    assert "did you mean 'n_threads'?" in told
    assert "no image was found in empty" in problem("--target", str(empty_folder()), *OPTIONS)


def test_changed_weights_are_not_loaded() -> None:
    make_zoo(Path("changed"))
    first = Path("changed/first.safetensors")
    assert load_file(first)
    first.write_bytes(first.read_bytes()[:-1] + b"\1")
    assert "zoo.json says" in problem("--target", "target", "--zoo", "changed")


def test_images_in_both_domains_are_refused_and_so_is_a_target_of_test_images_only() -> None:
    told = problem("--target", "target/dots", "--source", "target", *OPTIONS)
    assert "rule pixels_in_one_domain fails: 28 image(s)" in told
    rows = [{"path": path, "label": label, "split": "test"} for path, label in paths("target")]
    given = table("tests.csv", rows)
    assert "no image of --target is left" in problem("--target", given, "--root", "target", *OPTIONS)


def test_results_of_the_pipeline_are_not_overwritten() -> None:
    Path("data").mkdir()
    Path("data/selection.json").write_text('{\n "chosen": "x"}')
    done = acclimate("--out", "data", "--target", "target", *OPTIONS)
    assert done.exit_code == 2
    assert "`acclimate select` has not written" in done.stderr
    assert Path("data/selection.json").read_text() == '{\n "chosen": "x"}'
    done = acclimate("--out", "settings.yaml", "--target", "target", *OPTIONS)
    assert (done.exit_code, "can be written to" in done.stderr or "is a file" in done.output) == (2, True)


def test_weights_without_say_are_refused() -> None:
    nothing = dict.fromkeys(("knn", "linear_probe", "transfer_probe", "logme", "h_score", "leep"), 0.0)
    distances = dict.fromkeys(("proxy_a_distance", "linear_mmd", "kid"), None) | {
        "coral_distance": 1.0, "frechet_distance": 1.0,
    }  # fmt: skip
    params = make_settings(Path("idle.yaml"), select_model={"weights": nothing | distances})
    assert "no score that counts" in problem("--target", "target", "--zoo", "zoo", "--params", params)


def test_weights_that_are_all_zero_are_refused_before_any_image_is_read() -> None:
    zero = dict.fromkeys(read_selection(SETTINGS).select_model.weights.model_dump(), 0.0)
    params = make_settings(Path("zero.yaml"), select_model={"weights": zero, "n_bootstrap": 1})
    told = problem("--target", "nowhere", "--zoo", "zoo", "--params", params)
    assert "zero.yaml has 2 problem(s)" in told
    assert "select_model.weights: at least one weight must be above 0" in told


def test_every_score_is_explained_and_shown_with_three_digits() -> None:
    book = read_selection(SETTINGS).select_model
    assert set(MEANING) == set(book.weights.model_dump()) | set(book.weights_without_labels.model_dump())
    assert digits(0.0082, {"low": 0.0065, "high": 0.0099}) == "0.00820"
    assert digits(0.738, {"low": 0.654, "high": 0.822}) == "0.738"
    assert digits(-2e-7, {"low": 0.1, "high": 0.2}) == "0.000"
    assert digits(2232839, {"low": 2232839, "high": 2232839}) == "2,232,839"
    assert digits(0, {"low": 0, "high": 0}) == "0.000"


def test_a_whole_params_file_does_as_well() -> None:
    of_pipeline, own = read_selection(PROJECT / "params.yaml"), read_selection(SETTINGS)
    assert of_pipeline.zoo.image_px == 32
    assert own.zoo.folder is None
    assert set(LABEL_RULES) <= set(Rules.model_fields)
