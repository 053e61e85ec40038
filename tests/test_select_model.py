"""select_model on a tiny zoo and tiny images: what it writes, what it may see, and the same bytes whatever the order."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML

from tasks import build_manifest, extract_features, select_model
from tasks.core.files import file_sha256, read_json, read_table, write_json, write_table
from tasks.core.model import SmallResNet, save_weights

PROJECT = Path(__file__).parents[1]
SELECTION, RANKING = Path("data/selection.json"), Path("data/ranking.csv")
COLOURS = {"a": (200, 60, 60), "b": (60, 200, 60), "c": (60, 60, 200)}
SPLITS = ("train", "train", "train", "val", "unlabelled", "test")  # of the target's images, in turns
N_SOURCE, N_TARGET = 24, 72
N_LABELLED = N_TARGET * 4 // 6
Go = Callable[[dict[str, Any]], None]


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def changed(content: dict[str, Any]) -> dict[str, Any]:
    """The shipped parameters for what is made here."""
    content["zoo"] |= {"folder": "zoo", "image_px": 16}
    content["build_manifest"] |= {
        "root": "images", "table": "images.csv", "audit_columns": ["site"], "source_domains": ["ink"], "target_domain": "pen",
    }  # fmt: skip
    content["build_manifest"]["columns"] |= {"split": None, "group": None}
    content["audit_bias"] |= {"rules": [], "columns_explained": {}, "threshold_optimizer": None}
    content["extract_features"]["n_views"] = 0
    content["select_model"] |= {"n_bootstrap": 50, "min_labels": 20}
    for weights in ("weights", "weights_without_labels"):
        content["select_model"][weights]["proxy_a_distance"] = None  # its null takes most of the time
    return content


@pytest.fixture
def params(shipped: dict[str, Any]) -> dict[str, Any]:
    return changed(shipped)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with images, zoo, accepted manifest and features."""
    folder = tmp_path_factory.mktemp("made")
    content = YAML(typ="safe").load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    YAML(typ="safe").dump(changed(content), folder / "params.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("ACCLIMATE_HOME", str(folder / "home"))
        Path("data/given").mkdir(parents=True)
        Path("data/given/labels.csv").write_text("path,label,by,on\n")
        save_zoo()
        accept(save_images())
        extract_features.main()
    return folder


@pytest.fixture
def go(made: Path, go_with: Callable[[dict[str, Any]], Path]) -> Go:
    """Goes to a copy of that workspace with the given parameters."""

    def go_there(content: dict[str, Any]) -> None:
        folder = go_with(content)
        for name in ("images", "zoo", "data"):
            shutil.copytree(made / name, folder / name, dirs_exist_ok=True)

    return go_there


def save_images() -> list[dict[str, str]]:
    """Pictures whose colour is their class, with grain, and the rows of their table."""
    rows = []
    for domain, n_images in (("ink", N_SOURCE), ("pen", N_TARGET)):
        Path("images", domain).mkdir(parents=True, exist_ok=True)
        for i in range(n_images):
            label, path = "abc"[i // 6 % 3], f"{domain}/{i:02d}.png"
            grain = np.random.default_rng([i, n_images]).normal(0, 30, (16, 16, 3))
            Image.fromarray(np.uint8(np.clip(grain + COLOURS[label], 0, 255))).save(Path("images", path))
            rows.append({"path": path, "domain": domain, "label": label, "site": ("north", "south")[i % 2]})
    return rows


def save_zoo() -> None:
    """Two networks whose weights are drawn, one that sees nothing, and the null candidate."""
    Path("zoo").mkdir(exist_ok=True)
    models = []
    for seed, name in enumerate(("first", "second", "blind")):
        torch.manual_seed(seed)
        net = SmallResNet(4)
        if name == "blind":
            torch.nn.init.zeros_(net.stem[0].weight)
        save_weights(net, Path(f"zoo/{name}.safetensors"))
        models.append({
            "name": name, "arch": "acclimate.small_resnet", "file": f"{name}.safetensors",
            "sha256": file_sha256(Path(f"zoo/{name}.safetensors")), "num_classes": 4, "feature_dim": 128, "mean": [0.5] * 3,
            "std": [0.5] * 3, "input_size": [3, 32, 32], "interpolation": "bilinear", "source_domain": "drawn weights",
            "license": "BSD" if name == "blind" else "MIT",
        })  # fmt: skip
    write_json(Path("zoo/zoo.json"), {"models": [*models, {"name": "random", "like": "first", "seed": 7}]})


def accept(rows: list[dict[str, str]]) -> None:
    """The manifest as validation leaves it: split by turns, the labels of test and unlabelled images taken out."""
    pd.DataFrame(rows).to_csv("images.csv", index=False)
    build_manifest.main()
    manifest = read_table(Path("data/manifest.csv"), made_by="build_manifest")
    number = manifest["path"].str.extract(r"(\d+)\.", expand=False).astype(int)
    splits = np.where(manifest["domain"] == "source", "train", np.array(SPLITS)[number % 6])
    hidden = np.isin(splits, ["test", "unlabelled"])
    write_table(
        Path("data/manifest_valid.csv"), manifest.assign(split=splits, label=manifest["label"].mask(hidden, ""))
    )
    write_json(Path("data/gate.json"), {"blocked_by": []})


def run() -> dict[str, Any]:
    select_model.main()
    return dict(read_json(SELECTION, made_by="select_model"))


def scores_of(selection: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [entry["scores"] for entry in selection["candidates"] if entry["name"] == name]
    return dict(found)


def test_the_selection_and_its_ranking_are_written(
    params: dict[str, Any], go: Go, capsys: pytest.CaptureFixture[str]
) -> None:
    go(params)
    found = run()
    assert found["chosen"] in ("first", "second")
    assert found["chosen"] in found["tied"]
    assert "blind" not in found["tied"]
    assert f"selection: {found['reason']}\n" in capsys.readouterr().out
    assert (found["n_labels"], found["left_out"]) == (N_LABELLED, [])
    assert sum(entry["p_best"] for entry in found["candidates"]) == pytest.approx(1)
    shown = {name for name, weight in params["select_model"]["weights"].items() if weight is not None}
    for entry in (*found["candidates"], found["random"]):
        assert set(entry["scores"]) == shown
        assert "leep" in shown
        assert all(None not in score.values() for score in entry["scores"].values())
    ranking = read_table(RANKING, made_by="select_model")
    assert list(ranking["name"]) == [entry["name"] for entry in found["candidates"]]
    assert set(ranking["name"]) == {"first", "second", "blind"}
    assert {f"{name}_{end}" for name in shown for end in ("value", "low", "high")} < set(ranking.columns)
    assert set(found["map"]["points"]) == {"ink", "pen"}


def test_what_sees_nothing_guesses_one_class_and_is_no_better_than_random_features(
    params: dict[str, Any], go: Go
) -> None:
    go(params)
    found = run()
    assert scores_of(found, "blind")["linear_probe"]["value"] <= 1 / 3
    assert scores_of(found, "blind")["h_score"]["value"] == 0
    (blind,) = [entry for entry in found["candidates"] if entry["name"] == "blind"]
    assert not blind["against_random"]["is_better"]
    assert blind["against_random"]["n"] == N_LABELLED
    assert [gap["column"] for gap in blind["gaps"]] == ["site"]


def test_the_order_of_images_and_candidates_changes_no_byte(params: dict[str, Any], go: Go) -> None:
    go(params)
    run()
    before = [path.read_bytes() for path in (SELECTION, RANKING)]
    models = read_json(Path("zoo/zoo.json"), made_by="make_sample")["models"]
    write_json(Path("zoo/zoo.json"), {"models": models[::-1]})
    accept(save_images()[::-1])
    for folder in Path("data/features").iterdir():  # rows are joined by their image's id
        index, x_ND = read_table(folder / "index.csv", made_by="extract_features"), np.load(folder / "x.npy")
        order = np.random.default_rng(0).permutation(len(index))
        np.save(folder / "x.npy", x_ND[order])
        write_table(folder / "index.csv", index.iloc[order])
    select_model.main()
    assert [path.read_bytes() for path in (SELECTION, RANKING)] == before


def test_without_target_labels_the_ranking_says_what_it_can_not_know(params: dict[str, Any], go: Go) -> None:
    go(params)
    path = Path("data/manifest_valid.csv")
    manifest = read_table(path, made_by="validate_data")
    is_target = manifest["domain"] == "target"
    write_table(path, manifest.assign(
        split=manifest["split"].mask(is_target, "unlabelled"), label=manifest["label"].mask(is_target, "")
    ))  # fmt: skip
    found = run()
    assert "it can't say which is best on the target" in found["reason"]
    assert found["left_out"][0].startswith(
        "scores on target labels are left out: 0 labelled target images of 0 classes; 20"
    )
    shown = {name for name, weight in params["select_model"]["weights_without_labels"].items() if weight is not None}
    assert set(scores_of(found, "first")) == shown
    assert found["random"]["name"] == "random"


def test_test_images_and_unlabelled_ones_give_no_label_away(params: dict[str, Any], go: Go) -> None:
    go(params)
    run()
    before = SELECTION.read_bytes()
    path = Path("data/manifest_valid.csv")
    manifest = read_table(path, made_by="validate_data")
    write_table(path, manifest.assign(label=manifest["label"].mask(manifest["split"] == "test", "a")))
    select_model.main()
    assert SELECTION.read_bytes() == before


def test_images_alone_in_their_class_have_no_part_in_scores_on_labels(params: dict[str, Any], go: Go) -> None:
    go(params)
    path = Path("data/manifest_valid.csv")
    manifest = read_table(path, made_by="validate_data")
    first = manifest.index[(manifest["domain"] == "target") & (manifest["split"] == "train")][0]
    manifest.loc[first, "label"] = "only once"
    write_table(path, manifest)
    assert run()["n_labels"] == N_LABELLED - 1


def test_a_licence_that_is_not_allowed_leaves_a_candidate_out_with_the_reason(params: dict[str, Any], go: Go) -> None:
    params["zoo"]["licences"] = ["MIT"]
    go(params)
    found = run()
    assert {entry["name"] for entry in found["candidates"]} == {"first", "second"}
    assert found["left_out"] == ["candidate blind is left out: its licence is 'BSD', allowed are: MIT"]


@pytest.mark.parametrize("names", [None, ["first"]])  # with and without the null candidate, which needs no licence
def test_licences_that_leave_no_candidate_are_refused_before_any_work(
    params: dict[str, Any], go: Go, names: list[str] | None
) -> None:
    params["zoo"] |= {"licences": ["GPL"], "candidates": names}
    go(params)
    shutil.rmtree("data/features")
    for stage in (extract_features, select_model):
        with pytest.raises(ValueError, match=r"zoo.licences leaves no pretrained candidate \(first: ") as caught:
            stage.main()
        assert "\n" not in str(caught.value)
    assert not Path("data/features").exists()


def test_a_zoo_of_scratch_alone_is_refused(params: dict[str, Any], go: Go) -> None:
    params["zoo"]["candidates"] = ["random"]
    go(params)
    with pytest.raises(ValueError, match="every candidate of the zoo starts from scratch"):
        run()
    assert not SELECTION.exists()


def test_a_score_without_weight_is_neither_computed_nor_shown(params: dict[str, Any], go: Go) -> None:
    params["select_model"]["weights"] |= dict.fromkeys(params["select_model"]["weights"]) | {
        "h_score": 1.0,
        "leep": 0.0,
    }
    go(params)
    found = run()
    assert set(scores_of(found, "first")) == {"h_score", "leep"}
    assert scores_of(found, "first")["leep"]["weight"] == 0
    assert found["left_out"] == []


def test_costs_are_those_of_the_network_at_the_size_it_sees(params: dict[str, Any], go: Go) -> None:
    params["zoo"]["candidates"] = ["first"]
    go(params)
    (entry,) = run()["candidates"]
    # widths 16 16 32 64 128; batch norms have two parameters a channel; a head of 128 + 1 for each of three classes
    pairs = [(16, 16), (16, 32), (32, 64), (64, 128)]
    blocks = sum(9 * n * m + 9 * m * m + 4 * m + (n * m + 2 * m if n != m else 0) for n, m in pairs)
    assert entry["n_parameters"] == 9 * 3 * 16 + 2 * 16 + blocks + 3 * 129
    # 16 px: maps of 8, 8, 4, 2 and 1 px a side
    sides = [8, 4, 2, 1]
    products = sum(
        (9 * n * m + 9 * m * m + (n * m if n != m else 0)) * s**2 for (n, m), s in zip(pairs, sides, strict=True)
    )
    assert entry["n_multiply_adds"] == 9 * 3 * 16 * 8**2 + products


def test_blocked_data_is_refused(params: dict[str, Any], go: Go) -> None:
    go(params)
    write_json(Path("data/gate.json"), {"blocked_by": ["rule known_label fails"]})
    with pytest.raises(ValueError, match="the data is blocked: rule known_label fails"):
        select_model.main()
    assert not SELECTION.exists()


def test_features_of_other_images_are_refused_with_what_to_do(params: dict[str, Any], go: Go) -> None:
    go(params)
    run()
    folder = Path("data/features/second")
    index = read_table(folder / "index.csv", made_by="extract_features")
    write_table(folder / "index.csv", index.assign(image_id=index["image_id"].str[::-1]))
    with pytest.raises(ValueError, match=r"images have no features, the first: \w+; run `dvc repro extract_features`"):
        select_model.main()


def test_the_selection_is_strict_json(params: dict[str, Any], go: Go) -> None:
    go(params)
    run()

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    json.loads(SELECTION.read_text(), parse_constant=refuse)
