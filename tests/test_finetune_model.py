"""finetune_model on a tiny network and tiny images: what it writes, what it may see, and the same bytes after a kill."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML

from tasks import extract_features, finetune_model, synthesise_images
from tasks.augment_images import resolve_policy
from tasks.core import checkpoints, outcomes, workshop
from tasks.core.batches import View
from tasks.core.bundle import write_bundle
from tasks.core.files import file_sha256, read_json, read_table, write_json, write_table
from tasks.core.model import SmallResNet, save_weights
from tasks.params import read_params

PROJECT = Path(__file__).parents[1]
MODEL, HISTORY = Path("data/model"), Path("data/history.csv")
COLOURS = {"a": (200, 60, 60), "b": (60, 200, 60), "c": (60, 60, 200)}
# images of each class
SOURCE = {"train": 5, "val": 4}
TARGET = {"train": 1, "val": 2, "unlabelled": 4, "holdout": 2, "guard": 1, "test": 1}
HELD_OUT = {"val", "holdout", "guard"}
NET = {
    "trains": "all", "n_epochs": 2, "lr": 0.01, "block_decay": 1.0, "batch_norm": "train", "schedule": "constant",
    "warmup_share": 0.0, "patience": None,
}  # fmt: skip
HEAD = {"trains": "head", "inverse_l2": 0.01}
PLANS = {
    "full": {"start": "pretrained", "phases": [NET]},
    "head_only": {"start": "pretrained", "phases": [HEAD]},
    "from_source": {"start": "source_only", "phases": [NET]},
}
Go = Callable[[dict[str, Any]], None]


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def changed(content: dict[str, Any]) -> dict[str, Any]:
    """The shipped parameters for what is made here: three plans and two methods, two epochs each."""
    content["zoo"] |= {"folder": "zoo", "image_px": 16}
    content["build_manifest"] |= {"root": "images", "audit_columns": ["site"]}
    content["audit_bias"] |= {"rules": [], "columns_explained": {}, "threshold_optimizer": None}
    content["extract_features"] |= {"n_views": 0}
    content["augment_images"]["transforms"] = [{"name": "HorizontalFlip", "p": 0.5, "arguments": {}}]
    own = content["finetune_model"]
    own |= {
        "batch_size": 8, "evaluate_every": 1, "source": [NET], "plans": PLANS,
        "default_plan": "full", "scratch": [NET], "min_unlabelled": 10,
    }  # fmt: skip
    own["methods"] = dict.fromkeys(own["methods"]) | {
        "frozen": own["methods"]["frozen"],
        "mcc": {"phase": NET, "batch_size": 8, "weight": 1.0, "temperature": 2.5},
    }
    return content


def without_methods(content: dict[str, Any]) -> dict[str, Any]:
    content["finetune_model"]["methods"] = dict.fromkeys(content["finetune_model"]["methods"])
    return content


@pytest.fixture
def params(shipped: dict[str, Any]) -> dict[str, Any]:
    return changed(shipped)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace as it is before the stage; labels of the guard and of the test are nowhere in it."""
    folder = tmp_path_factory.mktemp("made")
    content = YAML(typ="safe").load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    YAML(typ="safe").dump(changed(content), folder / "params.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("ACCLIMATE_HOME", str(folder / "home"))
        save_zoo()
        save_images_and_manifest()
        write_json(Path("data/gate.json"), {"blocked_by": []})
        write_json(Path("data/selection.json"), {"chosen": "first"})
        transforms = read_params().augment_images.transforms
        write_json(Path("data/augmentation/policy.json"), resolve_policy(transforms, 16))
        synthesise_images.main()
        extract_features.main()
    return folder


@pytest.fixture
def go(made: Path, go_with: Callable[[dict[str, Any]], Path], monkeypatch: pytest.MonkeyPatch) -> Go:
    """Goes to a copy of that workspace with the given parameters."""

    def go_there(content: dict[str, Any]) -> None:
        folder = go_with(content)
        monkeypatch.setenv("ACCLIMATE_HOME", str(folder / "home"))
        for name in ("images", "zoo", "data"):
            shutil.copytree(made / name, folder / name, dirs_exist_ok=True)

    return go_there


def save_zoo() -> None:
    torch.manual_seed(0)
    Path("zoo").mkdir()
    save_weights(SmallResNet(4), Path("zoo/first.safetensors"))
    entry = {
        "name": "first", "arch": "acclimate.small_resnet", "file": "first.safetensors",
        "sha256": file_sha256(Path("zoo/first.safetensors")), "num_classes": 4, "feature_dim": 128, "mean": [0.5] * 3,
        "std": [0.5] * 3, "input_size": [3, 32, 32], "interpolation": "bilinear", "source_domain": "drawn weights",
        "license": "MIT",
    }  # fmt: skip
    write_json(Path("zoo/zoo.json"), {"models": [entry]})


def save_images_and_manifest() -> None:
    """Pictures whose colour is their class, with grain; hidden labels are left out as validation leaves them out."""
    Path("images").mkdir()
    rows = []
    for domain, counts in (("source", SOURCE), ("target", TARGET)):
        places = [(split, label) for split, n in counts.items() for label in COLOURS for _ in range(n)]
        for i, (split, label) in enumerate(places):
            name = f"{domain[0]}{i:02d}"
            grain = np.random.default_rng([i, len(places)]).normal(0, 30, (16, 16, 3))
            Image.fromarray(np.uint8(np.clip(grain + COLOURS[label], 0, 255))).save(f"images/{name}.png")
            rows.append({
                "image_id": name, "content_id": f"bytes of {name}", "path": f"{name}.png", "domain": domain,
                "origin": {"source": "ink", "target": "pen"}[domain], "split": split, "group_id": name,
                "label": label if split in ("train", "val") else "", "problem": "",
                "audit_site": ("north", "south")[i % 2],
            })  # fmt: skip
    write_table(Path("data/manifest_valid.csv"), pd.DataFrame(rows))


def without_target_labels() -> None:
    path = Path("data/manifest_valid.csv")
    manifest = read_table(path, made_by="validate_data")
    is_target = (manifest["domain"] == "target") & manifest["split"].isin(["train", "val"])
    split = manifest["split"].replace({"train": "unlabelled", "val": "holdout"})
    write_table(path, manifest.assign(
        split=manifest["split"].where(~is_target, split), label=manifest["label"].mask(is_target, "")
    ))  # fmt: skip


def decision() -> dict[str, Any]:
    return dict(read_json(MODEL / "decision.json", made_by="finetune_model"))


def description() -> dict[str, Any]:
    return dict(read_json(MODEL / "model.json", made_by="finetune_model"))


def written() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in [*sorted(MODEL.rglob("*")), HISTORY]}


def hidden_part_of(counts: dict[str, int]) -> int:
    return 3 * sum(n for split, n in counts.items() if split in HELD_OUT)


def test_everything_is_written_and_nothing_hidden_is_needed(params: dict[str, Any], go: Go) -> None:
    go(params)
    assert not any(Path("data").glob("*_labels.csv"))
    finetune_model.main()
    kept = ["source_only", "finetuned", "scratch", "frozen", "mcc"]
    assert sorted(description()["models"]) == sorted(kept)
    assert {path.name for path in MODEL.iterdir()} == {
        *(f"{name}.safetensors" for name in kept), "model.json", "decision.json", "held_out.csv",
    }  # fmt: skip
    assert set(description()["temperature"]) == set(kept)
    assert all(value > 0 for value in description()["temperature"].values())
    assert description()["temperature"]["scratch"] == 1.0  # it is no rival, so nothing is fitted for it
    found = decision()
    assert found["not_run"] == {}
    assert {entry["name"] for entry in found["method"]["candidates"]} == set(kept) - {"scratch"}
    assert set(found["calibration"]) == set(kept) - {"scratch"}
    # 6 validation labels of the target are too few for a temperature; the source has 12
    assert {entry["on"] for entry in found["calibration"].values()} == {"source"}
    assert {entry["temperature"]["n"] for entry in found["calibration"].values()} == {12}
    assert (found["n_val_labels"], found["n_synthetic"], found["scratch"]["n"]) == (6, 0, 6)
    assert {entry["plan"] for entry in found["plan"]["plans"]} == set(PLANS)
    assert sum(found["label_shift"]["prior_C"]) == pytest.approx(1)
    assert 0 <= found["foreignness"]["auroc"]["value"] <= 1

    held_out = read_table(MODEL / "held_out.csv", made_by="finetune_model")
    assert list(held_out.columns) == ["model", "image_id", "split", "y_pred", "p_a", "p_b", "p_c"]
    manifest = read_table(Path("data/manifest_valid.csv"), made_by="validate_data")
    rows = manifest[(manifest["domain"] == "target") & manifest["split"].isin(HELD_OUT)]
    assert len(rows) == 15
    for name in kept:
        own = held_out[held_out["model"] == name]
        assert own[["image_id", "split"]].to_numpy().tolist() == rows[["image_id", "split"]].to_numpy().tolist()
    p_NC = held_out[["p_a", "p_b", "p_c"]].to_numpy(float)
    assert p_NC.sum(1) == pytest.approx(1, abs=2e-6)
    assert list(held_out["y_pred"]) == [["a", "b", "c"][i] for i in p_NC.argmax(1)]

    history = read_table(HISTORY, made_by="finetune_model")
    epochs = history.groupby(["model", "phase"]).size().to_dict()
    assert epochs == {
        ("source_only", "0-all"): 2, ("plan_full", "0-all"): 2, ("plan_head_only", "0-head"): 1,
        ("plan_from_source", "0-all"): 2, ("scratch", "0-all"): 2, ("mcc", "0-all"): 2,
    }  # fmt: skip
    assert not any(Path("home/state/finetune_model").glob("*/"))  # nothing is left to resume


def test_a_champion_of_other_classes_is_refused_before_anything_is_trained(params: dict[str, Any], go: Go) -> None:
    go(without_methods(params))
    write_json(Path("model.json"), {"classes": ["a", "z"]})
    write_bundle(Path("data/given/champion"), {"model.json": Path("model.json")}, {"name": "x"})
    with pytest.raises(
        ValueError, match=r"knows the classes a, z, the data has a, b, c: they can't be compared; empty the"
    ):
        finetune_model.main()
    assert not Path("home/state/finetune_model").exists(), "nothing was begun"


def test_the_files_are_strict_json(params: dict[str, Any], go: Go) -> None:
    go(without_methods(params))
    finetune_model.main()

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    for name in ("model.json", "decision.json"):
        json.loads((MODEL / name).read_text(), parse_constant=refuse)


def dying(view: View, after: int, seen: list[int]) -> View:
    """The view, which kills the run after so many images; `seen` gets the number of images that were shown."""
    lock = Lock()

    def show(image_HWC: np.ndarray, image_id: str, epoch: int) -> np.ndarray:
        with lock:
            seen[0] += 1
            if seen[0] > after:
                raise KeyboardInterrupt
        return view(image_HWC, image_id, epoch)

    return show


def test_a_killed_run_continues_and_ends_with_the_same_bytes(
    params: dict[str, Any], go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    read_view, limit, seen = finetune_model.read_view, [10**9], [0]
    monkeypatch.setattr(finetune_model, "read_view", lambda seed: dying(read_view(seed), limit[0], seen))
    go(params)
    finetune_model.main()
    whole, n_whole = written(), seen[0]
    for path in (MODEL, Path("home")):
        shutil.rmtree(path)
    HISTORY.unlink()
    n_shown = []
    for share in (0.3, 0.6):  # of what is left: within plans, then within the method
        limit[0], seen[0] = int(share * n_whole), 0
        with pytest.raises(KeyboardInterrupt):
            finetune_model.main()
        n_shown.append(seen[0])
        assert not MODEL.exists()
        assert list(Path("home/state/finetune_model").glob("*/source_only.json"))
    limit[0], seen[0] = 10**9, 0
    finetune_model.main()
    assert written() == whole
    assert seen[0] < n_whole - 0.6 * sum(n_shown)  # what was finished was not done again


def test_without_target_labels_there_is_no_plan_and_ranks_choose(params: dict[str, Any], go: Go) -> None:
    params["finetune_model"]["methods"]["frozen"] = None
    go(params)
    without_target_labels()
    finetune_model.main()
    found = decision()
    assert found["not_run"] == {"finetuned": "the target has no training labels"}
    assert sorted(description()["models"]) == ["mcc", "scratch", "source_only"]
    assert "plan" not in found
    assert found["n_val_labels"] == 0
    assert found["method"]["reason"].startswith("there are no validation labels")


def test_from_labels_of_one_class_no_plan_learns(params: dict[str, Any], go: Go) -> None:
    """One plan has a head phase, for which one class is none; labels for validation and the methods go on as they are."""
    go(params)
    path = Path("data/manifest_valid.csv")
    manifest = read_table(path, made_by="validate_data")
    others = (manifest["domain"] == "target") & (manifest["split"] == "train") & (manifest["label"] != "b")
    split = manifest["split"].mask(others, "unlabelled")
    write_table(path, manifest.assign(split=split, label=manifest["label"].mask(others, "")))
    finetune_model.main()
    found = decision()
    assert found["not_run"] == {
        "finetuned": "the target's training labels (1) all say 'b', and from one class alone no difference can be learnt: "
        "label images of other classes"
    }
    assert sorted(description()["models"]) == ["frozen", "mcc", "scratch", "source_only"]
    assert "plan" not in found
    assert "scratch" not in found
    assert found["n_val_labels"] == 6


def test_networks_are_asked_once_and_mixed_images_are_for_rivals(
    params: dict[str, Any], go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven networks say something of two sets of images, and the four with BatchNorm statistics of their own (two plans,
    scratch, mcc) once more of the source in the source's; four of them are rivals, with two kinds of mixed images."""
    n_calls = {"probabilities": 0, "mixval": 0}

    def counted(name: str, own: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            n_calls[name] += 1
            return own(*given)

        return call

    for name in n_calls:
        monkeypatch.setattr(outcomes, name, counted(name, getattr(outcomes, name)))
    go(params)
    finetune_model.main()
    assert n_calls == {"probabilities": 7 * 2 + 4, "mixval": 4 * 2}
    for entry in decision()["method"]["candidates"]:
        assert entry["scores"]["mixval_intra"] is not None


def test_adabn_is_not_judged_by_source_images(params: dict[str, Any], go: Go) -> None:
    params["finetune_model"]["methods"] = dict.fromkeys(params["finetune_model"]["methods"]) | {"adabn": {}}
    go(params)
    finetune_model.main()
    entry = next(entry for entry in decision()["method"]["candidates"] if entry["name"] == "adabn")
    assert entry["source_accuracy"] is None
    assert {gate["name"]: gate["is_passed"] for gate in entry["gates"]}["source_validation"] is None


def test_methods_that_may_not_run_are_named_with_their_reason(params: dict[str, Any], go: Go) -> None:
    params["finetune_model"]["min_unlabelled"] = 16
    params["finetune_model"]["methods"]["adabn"] = {}
    params["finetune_model"]["plans"]["twice"] = {"start": "pretrained", "phases": [NET, NET]}
    params["finetune_model"]["max_plan_epochs"] = 5
    go(params)
    finetune_model.main()
    few = (
        "15 target images to learn from, at least 16 are asked for (min_unlabelled): add images of the target, labels "
        "are not needed"
    )
    assert decision()["not_run"] == {
        "adabn": few, "frozen": few, "mcc": few, "plan_twice": "its 4 epochs go beyond max_plan_epochs (5)",
    }  # fmt: skip
    assert sorted(description()["models"]) == ["finetuned", "scratch", "source_only"]
    assert decision()["method"]["chosen"] in ("source_only", "finetuned")


def test_made_images_are_learnt_from_with_their_parents_groups(params: dict[str, Any], go: Go) -> None:
    params["synthesise_images"] |= {"n_per_image": 1, "n_max": 6}
    params["finetune_model"]["regularisers"] |= {"sampling": "group_balanced", "group_column": "site"}
    go(without_methods(params))
    synthesise_images.main()
    finetune_model.main()
    assert decision()["n_synthetic"] == 6
    assert "synthetic" in description()["models"]
    assert "synthetic" in {entry["name"] for entry in decision()["method"]["candidates"]}


def test_a_source_plan_on_cached_features_leaves_made_images_out(params: dict[str, Any], go: Go) -> None:
    params["synthesise_images"] |= {"n_per_image": 1, "n_max": 6}
    params["finetune_model"]["source"] = [HEAD]
    go(without_methods(params))
    synthesise_images.main()
    finetune_model.main()
    message = "the source plan has a head phase on cached features; synthetic images have none"
    assert decision()["not_run"] == {"synthetic": message}
    assert "synthetic" not in description()["models"]


def test_a_group_column_that_is_not_audited_is_told(params: dict[str, Any], go: Go) -> None:
    params["finetune_model"]["regularisers"] |= {"sampling": "group_balanced", "group_column": "writer"}
    go(params)
    message = (
        "finetune_model.regularisers.group_column is 'writer', which is no audit column; name it in "
        "build_manifest.audit_columns"
    )
    with pytest.raises(ValueError, match=message):
        finetune_model.main()
    assert not MODEL.exists()


def test_a_range_test_is_written_where_it_is_asked_for(params: dict[str, Any], go: Go) -> None:
    params["finetune_model"]["lr_range_steps"] = 40
    go(without_methods(params))
    finetune_model.main()
    table = read_table(MODEL / "lr_range.csv", made_by="finetune_model")
    assert 1 <= len(table) <= 40
    assert float(table["lr"][0]) == pytest.approx(1e-6)
    assert set(decision()["lr_range"]) == {"suggested", "diverging", "reason"}


def test_a_range_test_without_a_clear_fall_is_a_finding(
    params: dict[str, Any], go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workshop, "RANGE", (1e-12, 1e-11))
    go(without_methods(params))
    finetune_model.main()
    without = (MODEL / "source_only.safetensors").read_bytes()
    params["finetune_model"]["lr_range_steps"] = 40
    go(without_methods(params))
    finetune_model.main()
    assert len(read_table(MODEL / "lr_range.csv", made_by="finetune_model")) == 40
    found = decision()["lr_range"]
    assert (found["suggested"], found["diverging"]) == (None, None)
    assert found["reason"].startswith("no clear fall at any learning rate from 1e-12 to 1e-11: the loss fell by ")
    assert (MODEL / "source_only.safetensors").read_bytes() == without


def test_blocked_data_is_refused(params: dict[str, Any], go: Go) -> None:
    go(params)
    write_json(Path("data/gate.json"), {"blocked_by": ["rule known_label fails"]})
    with pytest.raises(ValueError, match="the data is blocked: rule known_label fails"):
        finetune_model.main()
    assert not MODEL.exists()
