"""The methods' runs: what each changes, what each opens, and what decides whether it may run."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_workshop import Row, made_workshop

from tasks.core import method_runs
from tasks.core.adaptation.adabn import batch_norm_layers
from tasks.core.adaptation.frozen import FrozenSettings, Labelled, fit_adapted_head
from tasks.core.adaptation.label_shift import LabelShift
from tasks.core.adaptation.refusals import CONDITIONS, Facts
from tasks.core.intervals import Interval
from tasks.core.method_runs import (
    OBJECTIVES,
    MethodSettings,
    Start,
    facts_of,
    frozen_source_right,
    in_source_statistics,
    rows_of,
    run_adabn,
    run_frozen,
    run_method,
    used_share,
    why_no_plan,
)
from tasks.core.model import ImageModel
from tasks.core.phases import NetPhase
from tasks.core.plans import Trained
from tasks.core.workshop import Workshop

ONE_EPOCH = NetPhase("all", 1, 0.01, 1.0, "train", "constant", 0.0, None)
OWN = {"mcc": {"temperature": 2.5}, "fixmatch": {"threshold": 0.01, "teacher_decay": 0.9}}
FROZEN = FrozenSettings(2, 0.02, 20.0, 0.9, 1.0, 1)
ROWS: list[Row] = [
    *((f"s{k}", "source", "train", "ab"[k % 2], "") for k in range(8)),
    ("sv", "source", "val", "a", ""),
    *((f"t{k}", "target", "train", "ab"[k % 2], "") for k in range(3)),
    *((f"u{k}", "target", "unlabelled", "", "") for k in range(6)),
    ("tv", "target", "val", "b", ""),
]


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return made_workshop(tmp_path, ROWS)


@pytest.fixture
def start(shop: Workshop) -> Start:
    return Start(shop.pretrained("source_only"), 0.1, None)


def settings(name: str) -> MethodSettings:
    return MethodSettings(ONE_EPOCH, 4, 1.0, OWN.get(name, {}))


def changed_names(one: torch.nn.Module, other: torch.nn.Module) -> set[str]:
    states = zip(one.state_dict().items(), other.state_dict().values(), strict=True)
    return {name for (name, a), b in states if not torch.equal(a, b)}


def test_every_method_with_conditions_has_a_run() -> None:
    assert {*OBJECTIVES, "adabn", "frozen"} == set(CONDITIONS)


def shift(suspected: bool) -> LabelShift:
    return LabelShift(np.array([0.5, 0.5]), Interval(1, 1, 1, 9), Interval(0, 0, 0, 9), suspected, "the shares differ")


@pytest.mark.parametrize(("found", "told"), [(None, None), (shift(False), None), (shift(True), "the shares differ")])
def test_what_decides_whether_a_method_may_run_is_counted(
    shop: Workshop, start: Start, found: LabelShift | None, told: str | None
) -> None:
    # a small_resnet has one BatchNorm in its stem, two in each of four blocks, and three in shortcuts
    assert facts_of(shop, start.model, 7, found) == Facts(9, 2, 7, 12, 3, 8, told)


@pytest.mark.parametrize(
    ("labelled", "told"),
    [
        (["t0", "t1", "t2"], None),
        (["t0", "t1"], None),
        (["t0", "t2"],
         "the target's training labels (2) all say 'a', and from one class alone no difference can be learnt: label images of "
         "other classes"),
        (["t1"],
         "the target's training labels (1) all say 'b', and from one class alone no difference can be learnt: label images of "
         "other classes"),
        ([], "the target has no training labels"),
    ],
)  # fmt: skip
def test_a_plan_needs_labels_of_two_classes(shop: Workshop, labelled: list[str], told: str | None) -> None:
    few = shop.images(shop.manifest[shop.manifest["image_id"].isin(labelled)])
    assert why_no_plan(few, shop.classes) == told


def test_adabn_changes_statistics_and_nothing_else(shop: Workshop, start: Start) -> None:
    before = {name: tensor.clone() for name, tensor in start.model.state_dict().items()}
    trained = run_adabn(shop, start)
    changed = changed_names(start.model, trained.model)
    assert changed
    assert all(name.endswith(("running_mean", "running_var")) for name in changed)
    assert trained.history == []
    assert all(torch.equal(before[name], tensor) for name, tensor in start.model.state_dict().items())


def test_frozen_changes_the_head_alone(shop: Workshop) -> None:
    found = run_frozen(shop, "standardise", FROZEN)
    assert changed_names(shop.pretrained("frozen"), found.model) == {"head.weight", "head.bias"}
    x = {name: shop.features.x_ND[k] for k, (name, *_) in enumerate(ROWS)}
    source = Labelled(np.stack([x[f"s{k}"] for k in range(8)]).astype(np.float32), np.arange(8) % 2)
    few = Labelled(np.stack([x[f"t{k}"] for k in range(3)]).astype(np.float32), np.arange(3) % 2)
    unlabelled_UD = np.stack([x[f"u{k}"] for k in range(6)]).astype(np.float32)
    expected = fit_adapted_head(source, few, unlabelled_UD, "standardise", FROZEN)
    assert found.model.head.weight.detach().numpy() == pytest.approx(expected.weight_CD, abs=1e-5)


def test_without_source_validation_images_the_frozen_head_is_not_judged_on_them(shop: Workshop) -> None:
    none = replace(shop, manifest=shop.manifest[shop.manifest["domain"] == "target"])
    assert frozen_source_right(none, shop.pretrained("frozen"), "standardise") is None


def moved(model: ImageModel, by: float) -> ImageModel:
    """The network, its first BatchNorm's mean moved by that much in each channel."""
    found = deepcopy(model)
    batch_norm_layers(found)[0].running_mean += by
    return found


def test_a_network_is_shown_the_source_in_statistics_of_the_source(shop: Workshop, start: Start) -> None:
    """Those of all eight source training images in two batches of four; nothing of what it kept of the target is left."""
    shown = in_source_statistics(shop, moved(start.model, 9.0), [start.model])
    assert shown is not None
    source, stem = shop.source("train"), shown.backbone.stem
    with torch.no_grad():
        given = stem[0](source.batch(range(8)))
    assert stem[1].running_mean.numpy() == pytest.approx(given.mean((0, 2, 3)).numpy(), abs=1e-5)
    assert stem[1].running_var.numpy() == pytest.approx(given.var((0, 2, 3)).numpy(), rel=1e-5)
    again = in_source_statistics(shop, moved(start.model, -9.0), [start.model])
    assert again is not None
    assert changed_names(shown, again) == set()


def test_a_network_that_kept_the_statistics_of_a_start_is_shown_the_source_as_it_is(
    shop: Workshop, start: Start
) -> None:
    model = deepcopy(start.model)
    with torch.no_grad():
        model.head.weight += 1
    assert in_source_statistics(shop, model, [start.model]) is model
    other = moved(model, 9.0)  # as a head on pretrained features keeps the pretrained network's
    assert in_source_statistics(shop, other, [start.model, moved(start.model, 9.0)]) is other


def test_without_source_images_there_are_no_statistics_of_the_source(shop: Workshop, start: Start) -> None:
    one = replace(shop, manifest=shop.manifest[~shop.manifest["image_id"].isin([f"s{k}" for k in range(1, 8)])])
    assert in_source_statistics(one, moved(start.model, 9.0), [start.model]) is None


def test_rows_without_features_are_left_out(shop: Workshop) -> None:
    features = replace(shop.features, image_id=shop.features.image_id[:3], view=shop.features.view[:3])
    capped = replace(shop, features=features)
    found = rows_of(capped, shop.manifest[shop.manifest["domain"] == "source"])
    assert found is not None
    assert found.y_N.tolist() == [0, 1, 0]
    assert set(found.domain_N) == {"source"}
    assert found.x_ND == pytest.approx(shop.features.x_ND[:3])
    assert rows_of(capped, shop.manifest[shop.manifest["domain"] == "target"]) is None


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_a_method_trains_a_copy_and_tells_its_epoch(shop: Workshop, start: Start, name: str) -> None:
    before = {key: tensor.clone() for key, tensor in start.model.state_dict().items()}
    trained = run_method(shop, name, start, settings(name))
    assert [(row["model"], row["phase"], row["epoch"]) for row in trained.history] == [(name, "0-all", 1)]
    assert changed_names(start.model, trained.model)
    assert all(torch.equal(before[key], tensor) for key, tensor in start.model.state_dict().items())
    assert all(torch.isfinite(tensor).all() for tensor in trained.model.state_dict().values())


def test_shot_opens_no_source_image_and_reads_no_label(shop: Workshop, start: Start) -> None:
    expected = run_method(shop, "shot", start, settings("shot"))
    for path in shop.files.root.glob("s*.png"):
        path.unlink()
    is_train = shop.manifest["split"] == "train"
    blind = shop.manifest.assign(label=shop.manifest["label"].mask(is_train, "b"))
    other = replace(shop, manifest=blind, folder=shop.folder / "other")
    found = run_method(other, "shot", start, settings("shot"))
    assert not changed_names(expected.model, found.model)


@pytest.mark.parametrize("name", ["mcc", "deep_coral", "dann", "fixmatch"])
def test_the_others_learn_from_the_labels_of_both_domains(
    shop: Workshop, start: Start, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    seen = []
    monkeypatch.setattr(method_runs, "adaptation_run", lambda _shop, lesson, *_: seen.append(lesson))
    run_method(shop, name, start, settings(name))
    assert seen[0].images.image_ids == (*(f"s{k}" for k in range(8)), "t0", "t1", "t2")
    assert seen[0].images.labels == (0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0)
    assert seen[0].unlabelled.image_ids == ("t0", "t1", "t2", *(f"u{k}" for k in range(6)))
    assert set(seen[0].unlabelled.labels) == {-1}
    assert seen[0].validation.image_ids == ("tv",)


@pytest.mark.parametrize(
    ("row", "expected"),
    [({"figures": "loss=1.5; used_share=0.25; x=2"}, 0.25), ({"figures": "loss=1.5"}, np.nan), ({"loss": 1}, np.nan)],
)
def test_the_used_share_is_that_of_the_last_epoch(start: Start, row: dict[str, object], expected: float) -> None:
    history = [{"figures": "used_share=0.9"}, row]
    assert used_share(Trained(start.model, history)) == pytest.approx(expected, nan_ok=True)


def test_fixmatch_tells_the_share_that_it_used(shop: Workshop, start: Start) -> None:
    # of two classes one always has at least .5, above the threshold of .01
    assert used_share(run_method(shop, "fixmatch", start, settings("fixmatch"))) == pytest.approx(1)
