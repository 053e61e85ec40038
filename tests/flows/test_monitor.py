"""`acclimate monitor`: exit 0 nothing passed a limit, 1 past one, 2 could not run, 3 too few images, and never a traceback."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from made_registry import NAME
from PIL import Image
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

from flows.cli import app
from flows.drift_event import EVENT, emit_drift
from flows.monitor import LIMITS, MONITOR
from flows.registry import find, move_alias
from tasks.core.batches import ImageList
from tasks.core.bundle import write_bundle
from tasks.core.drift import PROPERTIES
from tasks.core.files import write_json
from tasks.core.images import ImageFiles
from tasks.core.intervals import Interval
from tasks.core.model import network, save_weights, split_head
from tasks.core.monitor_history import append_history, read_history
from tasks.core.monitoring import check
from tasks.core.reference import REFERENCE, Reference, Seen, reference_of, write_reference
from tasks.params.monitoring import read_monitor_limits
from tasks.register_model import sync_registry

pytest_plugins = ("registry_fixtures",)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")  # its own use of SQLAlchemy
N, SIDE = 80, 16
RULE = {
    "name": "accuracy by site", "metric": "accuracy", "column": "site", "comparison": "difference", "reference": "overall",
    "limit": 0.2, "required": True, "verdict": "pass", "reason": "as told",
}  # fmt: skip


def save_images(folder: Path, n: int = N, *, bright: int = 60, seed: int = 0) -> Path:
    """Noise around a grey value; darker by 10 and brighter by 10 in turn: a few files of each brightness."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(n):
        pixels = rng.normal(bright + 20 * (number % 2), 12, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return folder


def brightness_of(folder: Path) -> list[float]:
    return [float(np.asarray(Image.open(path).convert("L")).mean() / 255) for path in sorted(folder.glob("*.png"))]


def profile(folder: Path) -> dict[str, Any]:
    """A profile whose brightness is that of the images; all else is left out, and so not measured."""
    properties = {name: [] for name in PROPERTIES} | {"brightness": sorted(brightness_of(folder))}
    origin = {"domain": "target", "n": N, "classes": {"a": N}, "properties": properties}
    return {"format": 1, "n_images": N, "origins": {"here": origin}, "groups": {}}


@pytest.fixture
def champion(home: Path, tmp_path: Path) -> Iterator[Path]:
    """The folder of images that the champion was registered with: the same kind of images raises no alarm."""
    before = signal.getsignal(signal.SIGTERM)
    held_out = save_images(tmp_path / "held_out", seed=1)
    register(tmp_path / "made", held_out)
    yield home
    signal.signal(signal.SIGTERM, before)


def part(seen: Seen, n: int) -> Seen:
    return Seen(seen.features_ND[:n], seen.confidence_N[:n], seen.right_N[:n])


def register(
    folder: Path,
    held_out: Path,
    *,
    reference: Callable[[Seen], Reference | None] = lambda seen: Reference(part(seen, 0), seen),
    rules: list[dict[str, Any]] | None = None,
    ask_below: float = 0.5,
) -> None:
    """A small untrained network as champion; it guesses every held-out target image right, says the reference."""
    folder.mkdir()
    torch.manual_seed(0)
    model = split_head(network("acclimate.small_resnet", 2), 2)
    scaling = {"mean": [0.5] * 3, "std": [0.5] * 3}
    sight = {"image_px": SIDE, "interpolation": "bilinear", "crop_share": 1.0}
    description = {
        "architecture": "acclimate.small_resnet",
        "classes": ["a", "b"],
        "temperature": 1.0,
        "ask_below": ask_below,
    }
    save_weights(model, folder / "model.safetensors")
    names = tuple(path.name for path in sorted(held_out.glob("*.png")))
    images = ImageList(ImageFiles(held_out, SIDE), names, names, (-1,) * len(names), (0.5,) * 3, (0.5,) * 3)
    empty = ImageList(images.files, (), (), (), (0.5,) * 3, (0.5,) * 3)
    bare = reference_of(model, empty, images, temperature=1.0, batch_size=32)
    right = np.ones(len(names), np.int8)
    if kept := reference(Seen(bare.target.features_ND, bare.target.confidence_N, right)):
        write_reference(folder / REFERENCE, kept)
    write_json(folder / "model.json", description | sight | scaling)
    write_json(folder / "profile.json", profile(held_out))
    write_json(folder / "metrics.json", {"adopted": {"n": 400, "accuracy": 0.9}})
    settings = {"confidence": 0.95, "min_group_size": 20, "n_bootstrap": 100}
    write_json(folder / "verdict.json", {"verdict": "pass", "reason": "x", "rules": rules or [RULE]} | settings)
    (folder / "report.html").write_text("<p>report</p>")
    files = {path.name: path for path in folder.iterdir()}
    facts = {"name": NAME, "verdict": "pass", "decision": "adopt", "adopted": "shot", "accuracy": 0.9}
    write_bundle(folder / "bundle", files, facts)
    sync_registry(folder / "bundle", NAME)
    move_alias(find(NAME, "challenger"), "champion")


def acclimate(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["monitor", *map(str, words)], env={"COLUMNS": "200"}, catch_exceptions=False)


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(key.startswith("on") or key == "src" for key, _ in attrs)


def monitored(place: Path, *words: str | Path, code: int) -> dict[str, Any]:
    """monitor.json; checks the exit code, that it is strict JSON, and that the page neither acts nor loads anything."""
    done = acclimate(place, "--out", "out", *words)
    assert (done.stderr, done.exit_code) == ("", code), done.stdout

    def refuse(word: str) -> None:
        raise AssertionError(word)

    found: dict[str, Any] = json.loads(Path("out/monitor.json").read_text(), parse_constant=refuse)
    text = Path("out/monitor.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.tags.isdisjoint({"script", "iframe", "object", "form", "link"})
    assert ">nan" not in text.lower()
    return found


def by_name(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["what"]: one for one in found["checks"]}


def refused(*words: str | Path) -> str:
    """The sentence on stderr of a run that could not be; it leaves nothing, in the history neither."""
    done = acclimate(*words, "--out", "out")
    assert (done.exit_code, done.stdout) == (2, "")
    assert not Path("out").exists() or not set(os.listdir("out")) & set(MONITOR.names)
    assert not Path(os.environ["ACCLIMATE_HOME"], "monitoring").exists()
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    return done.stderr.removeprefix("error: ").strip()


def test_images_of_the_same_kind_pass_no_limit(champion: Path, tmp_path: Path) -> None:
    """All 80 held-out images are right, so nearly all new ones are estimated right; shifts lie within or are open."""
    found = monitored(save_images(tmp_path / "new", seed=2), code=0)
    assert (found["status"], found["reasons"], found["n_images"], found["n_seen"]) == ("clear", [], N, N)
    assert found["estimate"]["value"] > 0.95
    assert found["estimate"]["held_out"] == {"on": "target", "n": N, "accuracy": 1.0}
    checks = by_name(found)
    assert abs(checks["shift of brightness"]["value"]) < 0.3
    assert checks["shift of contrast"]["status"] == "not measured"
    assert set(pd.read_csv("out/predictions.csv").columns) == {"path", "y_pred", "confidence", "error"}


def test_bright_images_are_a_drift_and_the_history_grows(champion: Path, tmp_path: Path) -> None:
    """Every new image is brighter than every old one: Cliff's delta 1, and a classifier tells all of them apart."""
    monitored(save_images(tmp_path / "same", seed=2), code=0)
    found = monitored(save_images(tmp_path / "bright", bright=170, seed=3), code=1)
    checks = by_name(found)
    assert (checks["shift of brightness"]["value"], checks["shift of brightness"]["status"]) == (1.0, "past")
    assert checks["told apart from held-out target images"]["status"] == "past"
    assert any(reason.startswith("shift of brightness: +1.000") for reason in found["reasons"])
    runs, n_damaged = read_history(champion / "monitoring/history.jsonl", NAME)
    assert ([run["status"] for run in runs], n_damaged) == (["clear", "past"], 0)
    assert "<svg" in Path("out/monitor.html").read_text()


def test_few_images_decide_nothing(champion: Path, tmp_path: Path) -> None:
    found = monitored(save_images(tmp_path / "new", 49, bright=170), code=3)
    assert (found["status"], found["checks"], found["estimate"]) == ("few", [], None)


def test_hostile_folders_are_looked_at_as_far_as_they_can_be(champion: Path, tmp_path: Path) -> None:
    """Of 90 images 10 can't be read: .111, its interval lies above the limit of .05."""
    new = save_images(tmp_path / "new", seed=2)
    for number in range(9):
        (new / f"broken{number}.png").write_bytes(b"\x89PNG no more")
    (new / "<script>alert(1)<script>.png").write_bytes(b"")
    (new / "notes.txt").write_text("no image")
    found = monitored(new, code=1)
    assert (found["n_images"], found["n_seen"]) == (90, 80)
    assert by_name(found)["images that can't be read"]["value"] == pytest.approx(10 / 90)
    told = pd.read_csv("out/predictions.csv").set_index("path")["error"].dropna()
    assert len(told) == 10
    assert told["<script>alert(1)<script>.png"] == "the file is empty"


def test_a_folder_of_nothing_but_rubbish_is_past_the_limit(champion: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    for number in range(60):
        (new / f"{number}.jpg").write_bytes(b"rubbish")
    found = monitored(new, code=1)
    assert (found["n_seen"], found["estimate"], [one["what"] for one in found["checks"]]) == (
        0, None, ["images that can't be read"],
    )  # fmt: skip


def test_groups_are_estimated_and_small_ones_masked(champion: Path, tmp_path: Path) -> None:
    new = save_images(tmp_path / "new", seed=2)
    sites = ["a"] * 61 + ["b"] * 19
    table = pd.DataFrame({"path": [path.name for path in sorted(new.glob("*.png"))], "site": sites})
    table.to_csv(new / "table.csv", index=False)
    found = monitored(new / "table.csv", "--group-columns", "site", code=0)
    a, b = found["groups"]
    assert (a["group"], a["n"], a["is_masked"], b["group"], b["n"], b["is_masked"]) == ("a", 61, False, "b", 19, True)
    assert a["estimate"]["n"] == a["asked"]["n"] == 61
    assert (b["estimate"], b["asked"]) == (None, None)


def labels(new: Path, n_right: dict[str, int]) -> Path:
    """A table of labels: of each site, in turn, the first n_right images are what the model says."""
    said = pd.read_csv("out/predictions.csv")[["path", "y_pred"]]
    said["site"] = np.where(np.arange(len(said)) % 2 == 0, "a", "b")
    place = said.groupby("site").cumcount()
    is_right = place < said["site"].map(n_right)
    said["label"] = np.where(is_right, said["y_pred"], np.where(said["y_pred"] == "a", "b", "a"))
    said[["path", "label", "site"]].to_csv(new.parent / "labels.csv", index=False)
    return new.parent / "labels.csv"


def test_labels_that_came_later_give_the_accuracy_and_the_audit_again(champion: Path, tmp_path: Path) -> None:
    """39 of 40 and 38 of 40 right: .9625, where .9 was known; no site lies .2 below."""
    new = save_images(tmp_path / "new", seed=2)
    monitored(new, code=0)
    told = labels(new, {"a": 39, "b": 38})
    found = monitored(new, "--labels", told, "--group-columns", "site", code=0)
    assert (found["accuracy"]["value"], found["accuracy"]["n"]) == (pytest.approx(77 / 80), 80)
    assert (found["reaudit"]["was"], found["reaudit"]["is"], found["reaudit"]["changed"]) == ("pass", "pass", [])
    assert json.loads(Path("out/reaudit.json").read_text())["verdict"] == "pass"


def test_labels_may_name_the_files_wholly_and_those_that_name_no_image_are_counted(
    champion: Path, tmp_path: Path
) -> None:
    """Of 82 rows 80 name an image, by its whole path; one names none, and one an image that lies elsewhere."""
    new = save_images(tmp_path / "new", seed=2)
    monitored(new, code=0)
    told = labels(new, {"a": 39, "b": 38})
    rows = pd.read_csv(told)
    rows["path"] = [str(new.absolute() / name) for name in rows["path"]]
    other = pd.DataFrame({"path": ["999.png", str(tmp_path / "held_out/000.png")], "label": "a", "site": "a"})
    pd.concat([rows, other]).to_csv(told, index=False)
    done = acclimate(new, "--out", "out", "--labels", told, "--group-columns", "site")
    assert done.exit_code == 0, done.stderr
    assert f"labels: 80 of the 82 rows of {told} name one of the 80 images" in done.stdout
    assert json.loads(Path("out/monitor.json").read_text())["accuracy"]["n"] == 80


def test_a_wrong_table_of_labels_leaves_the_former_results(champion: Path, tmp_path: Path) -> None:
    new, wrong = save_images(tmp_path / "new", seed=2), tmp_path / "wrong.csv"
    monitored(new, code=0)
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    wrong.write_text("path,label\nx.png,a\n")
    done = acclimate(new, "--out", "out", "--labels", wrong)
    assert done.exit_code == 2
    assert "no path of --labels" in done.stderr
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before


def test_labels_that_are_no_class_of_the_model_are_told(champion: Path, tmp_path: Path) -> None:
    """None is one: the wrong column. Two of 80 are none: a class that the model doesn't know."""
    new = save_images(tmp_path / "new", seed=2)
    monitored(new, code=0)
    told = labels(new, {"a": 40, "b": 40})
    rows = pd.read_csv(told)
    rows.assign(label="cat").to_csv(told, index=False)
    done = acclimate(new, "--out", "out", "--labels", told)
    assert done.exit_code == 2
    assert "no label is a class of the model, e.g. 'cat'; its classes are" in done.stderr
    rows.loc[:1, "label"] = "cat"
    rows.to_csv(told, index=False)
    found = monitored(new, "--labels", told, code=0)
    assert "2 of 80 labels are no class of the model, and count as errors: 'cat'." in found["notes"]


def test_a_model_that_is_sure_enough_always_sends_no_image_to_a_person(home: Path, tmp_path: Path) -> None:
    held_out = save_images(tmp_path / "held_out", seed=1)
    register(tmp_path / "made", held_out, ask_below=0.0)
    monitored(save_images(tmp_path / "new", seed=2), code=0)
    page = Path("out/monitor.html").read_text(encoding="utf-8")
    assert "No image is for a person" in page
    assert "below the confidence" not in page


def test_without_a_required_rule_no_verdict_is_compared(home: Path, tmp_path: Path) -> None:
    register(tmp_path / "made", save_images(tmp_path / "held_out", seed=1), rules=[RULE | {"required": False}])
    new = save_images(tmp_path / "new", seed=2)
    monitored(new, code=0)
    done = acclimate(new, "--out", "out", "--labels", labels(new, {"a": 39, "b": 38}), "--group-columns", "site")
    assert (
        "audit again: the registered audit has no required rule, so it gave no verdict that these labels" in done.stdout
    )
    page = Path("out/monitor.html").read_text(encoding="utf-8")
    assert "no verdict to compare</b>: the registered audit has no required rule" in page
    assert "mark a rule as required" not in page


def test_a_verdict_that_fails_now_is_an_alarm(champion: Path, tmp_path: Path) -> None:
    """All of a are right and 4 of 40 of b: b lies .45 below overall, where .2 is allowed; .55 in all, where .9 was known."""
    new = save_images(tmp_path / "new", seed=2)
    monitored(new, code=0)
    found = monitored(new, "--labels", labels(new, {"a": 40, "b": 4}), "--group-columns", "site", code=1)
    assert (found["reaudit"]["was"], found["reaudit"]["is"], found["reaudit"]["is_worse"]) == ("pass", "fail", True)
    assert by_name(found)["drop of the accuracy on labels"]["status"] == "past"
    assert [reason.partition(":")[0] for reason in found["reasons"]] == [
        "drop of the accuracy on labels", "the audit's verdict was pass and is fail",
    ]  # fmt: skip


def test_a_bundle_without_a_reference_says_what_it_cannot(home: Path, tmp_path: Path) -> None:
    held_out = save_images(tmp_path / "held_out", seed=1)
    register(tmp_path / "made", held_out, reference=lambda _: None)
    found = monitored(save_images(tmp_path / "new", bright=170, seed=3), code=1)
    assert found["estimate"] is None
    assert any("no reference.safetensors" in note for note in found["notes"])


def surer(seen: Seen) -> Seen:
    """Half of the guesses are right, those of the surer images; the model is as sure of none of the images that are here."""
    is_surer = np.arange(N) % 2
    return Seen(seen.features_ND, (0.98 + 0.01 * is_surer).astype(np.float32), is_surer.astype(np.int8))


def labelled(seen: Seen, n: int) -> Seen:
    return Seen(seen.features_ND, seen.confidence_N, np.where(np.arange(N) < n, seen.right_N, -1).astype(np.int8))


def test_a_drop_from_the_sources_accuracy_is_no_alarm(home: Path, tmp_path: Path) -> None:
    """The very images that the model was made for: estimated right is 0 of 80, on the source it was 40 of 80."""
    held_out = save_images(tmp_path / "held_out", seed=1)
    register(tmp_path / "made", held_out, reference=lambda seen: Reference(surer(seen), labelled(seen, 49)))
    found = monitored(held_out, code=0)
    drop = by_name(found)["drop of the estimated accuracy"]
    why = (
        "49 held-out target images have a label and 50 are needed, so the drop is one from the source's accuracy to the "
        "target's"
    )
    assert (drop["value"], drop["status"], drop["reason"], found["reasons"]) == (0.5, "open", why, [])
    told = f"an't be told: drop of the estimated accuracy: {why}"
    assert f"C{told}." in found["notes"]
    said = acclimate(held_out, "--out", "out").stdout
    assert f"c{told}\n" in said
    assert "n = 80; it stands on source images, likely too high\n" in said
    page = Path("out/monitor.html").read_text(encoding="utf-8")
    assert "can't be told: drop of the estimated accuracy" in page
    assert "open: 49 held-out target images have a label" in page


def test_from_fifty_target_labels_on_a_drop_is_an_alarm(home: Path, tmp_path: Path) -> None:
    held_out = save_images(tmp_path / "held_out", seed=1)
    register(tmp_path / "made", held_out, reference=lambda seen: Reference(seen, labelled(surer(seen), 50)))
    done = acclimate(held_out, "--out", "out")
    assert (done.exit_code, done.stderr) == (1, "")
    assert "past its limit: drop of the estimated accuracy: +0.500" in done.stdout
    assert "source images, likely" not in done.stdout


def test_few_reference_images_are_told_apart_too_and_none_say_why_not(home: Path, tmp_path: Path) -> None:
    """Ten target images and one of the source: new ones are all brighter."""
    held_out = save_images(tmp_path / "held_out", seed=1)
    register(tmp_path / "made", held_out, reference=lambda seen: Reference(part(seen, 1), part(seen, 10)))
    found = monitored(save_images(tmp_path / "bright", bright=170, seed=3), code=1)
    checks = by_name(found)
    target, source = (checks[f"told apart from held-out {name} images"] for name in ("target", "source"))
    assert (target["status"], target["n"], target["reason"]) == ("past", 10, "")
    why = "the bundle's reference holds 1 source image(s), and 2 are needed"
    assert (source["status"], source["value"], source["reason"]) == ("open", None, why)
    assert f"Can't be told: told apart from held-out source images: {why}." in found["notes"]
    assert checks["rise of images for a person"]["n"] == 10


def test_without_reference_images_of_the_target_each_row_says_so(home: Path, tmp_path: Path) -> None:
    held_out = save_images(tmp_path / "held_out", seed=1)
    register(tmp_path / "made", held_out, reference=lambda seen: Reference(seen, part(seen, 0)))
    checks = by_name(monitored(held_out, code=0))
    for name in ("told apart from held-out target images", "rise of images for a person"):
        assert (checks[name]["status"], checks[name]["value"]) == ("open", None)
        assert checks[name]["reason"].startswith("the bundle's reference holds ")


def test_what_could_not_run_is_told_in_a_sentence(champion: Path, tmp_path: Path) -> None:
    new = save_images(tmp_path / "new", 3)
    assert "does not exist" in refused(tmp_path / "nowhere")
    assert "no version of the model 'digits'" in refused(new, "--model", "blue")
    assert "is no table and has no columns" in refused(new, "--group-columns", "site")
    assert "is not a file; name a table" in refused(new, "--labels", tmp_path / "no.csv")
    (tmp_path / "empty").mkdir()
    assert "no image was found" in refused(tmp_path / "empty")
    with zipfile.ZipFile(tmp_path / "cut.zip", "w") as archive:
        archive.writestr("a.png", b"x" * 1000)
    (tmp_path / "cut.zip").write_bytes((tmp_path / "cut.zip").read_bytes()[:300])
    refused(tmp_path / "cut.zip")
    (new / "images.csv").write_text("path,age\n000.png,7\n")
    told = refused(new / "images.csv", "--group-columns", "site,age")
    assert told.startswith(
        f"--group-columns site: {new / 'images.csv'} has no such column; it has path, age; name columns"
    )
    assert "build_manifest" not in told
    (new / "images.csv").unlink()
    table = tmp_path / "labels.csv"
    for text, why in (
        ("file,kind\na,b\n", "no column of label"),
        ("path,label\nx.png,a\n", "no path of --labels"),
        ("path,label\n000.png,a\n000.png,b\n", "more than once"),
        ("path,label\n", "a header and no rows"),
    ):
        table.write_text(text)
        assert why in refused(new, "--labels", table)
    table.write_text("path,label\n000.png,a\n")
    assert "neither the images nor --labels have such a column" in refused(
        new, "--labels", table, "--group-columns", "site"
    )


def test_all_wrong_limits_are_told(champion: Path, tmp_path: Path) -> None:
    content = YAML(typ="safe").load(LIMITS.read_text())
    YAML(typ="safe").dump(content | {"min_images": 1, "asked_rise": 1.5, "drop": 1}, tmp_path / "limits.yaml")
    said = refused(save_images(tmp_path / "new", 3), "--limits", tmp_path / "limits.yaml")
    assert all(word in said for word in ("3 problem(s)", "min_images", "asked_rise", "drop"))


def test_the_shipped_limits_are_whole() -> None:
    assert read_monitor_limits(LIMITS).min_images == 50


@pytest.mark.parametrize(
    ("interval", "is_two_sided", "status"),
    [
        ((0.2, 0.11, 0.3), False, "past"),
        ((0.2, 0.1, 0.3), False, "open"),  # its end touches the limit
        ((0.05, 0.0, 0.1), False, "within"),
        ((-0.2, -0.3, -0.11), False, "within"),  # a rise, where a drop is looked for
        ((-0.2, -0.3, -0.11), True, "past"),
        ((-0.05, -0.2, 0.1), True, "open"),
        ((float("nan"),) * 3, True, "not measured"),
    ],
)
def test_a_limit_is_passed_by_the_whole_interval(
    interval: tuple[float, float, float], is_two_sided: bool, status: str
) -> None:
    assert check("x", Interval(*interval, 9), 0.1, is_two_sided=is_two_sided)["status"] == status


def test_a_damaged_history_does_not_end_the_watching(tmp_path: Path) -> None:
    run = {"time": "2026-01-02", "name": "m", "status": "clear", "n_images": 1, "checks": {}}
    path = tmp_path / "monitoring/history.jsonl"
    append_history(path, run)
    append_history(path, run | {"time": "2026-01-01"})
    append_history(path, run | {"name": "other"})
    with path.open("ab") as handle:
        handle.write(b'{"time": "2026')  # cut off
    append_history(path, run | {"time": "2026-01-03"})
    runs, n_damaged = read_history(path, "m")
    assert ([each["time"] for each in runs], n_damaged) == (["2026-01-01", "2026-01-02", "2026-01-03"], 1)
    with pytest.raises(ValueError, match="Out of range"):
        append_history(path, run | {"n_images": float("nan")})


def drift() -> dict[str, Any]:
    return {"model": {"name": "m", "version": "1", "candidate": "c"}, "time": "t", "n_images": 3, "reasons": ["r"]}


def test_without_a_server_no_event_is_sent_and_a_dead_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert emit_drift(drift()) is False
    for address in ("http://127.0.0.1:1/api", "file:///x"):
        monkeypatch.setenv("PREFECT_API_URL", address)
        with pytest.raises(ValueError, match="does not answer"):
            emit_drift(drift())


@pytest.mark.flows
def test_the_event_is_on_the_server_when_the_command_ends(flow_environment: dict[str, str]) -> None:
    """In a process of its own: Prefect reads its address once."""
    code = f"""
from flows.drift_event import emit_drift
assert emit_drift({drift()!r}) is True
from prefect.client.orchestration import get_client
from prefect.events.filters import EventFilter, EventNameFilter
with get_client(sync_client=True) as client:
    (event,) = client.read_events(EventFilter(event=EventNameFilter(name=[{EVENT!r}])), limit=5).events
print(event.resource.id, event.payload["reasons"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=flow_environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "acclimate.model.m ['r']\n", done.stderr
