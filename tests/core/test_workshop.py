"""The workshop: who sees which image with which label, and what its runs are balanced by."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_workshop import NO_BALANCE, made_workshop

from tasks.core.images import MADE
from tasks.core.phases import HeadPhase, NetPhase
from tasks.core.workshop import Balance, Lesson, Workshop, labels_of, supervised_run

ONE_EPOCH = NetPhase("all", 1, 0.01, 1.0, "train", "constant", 0.0, None)
# image_id, domain, split, label, group; labels of the guard and the test stand here to see that nobody gets them
ROWS = [
    ("s1", "source", "train", "b", "x"), ("s2", "source", "train", "a", "y"), ("s3", "source", "val", "a", "x"),
    ("t1", "target", "train", "a", "x"), ("t2", "target", "unlabelled", "", ""), ("t3", "target", "val", "b", "y"),
    ("t4", "target", "guard", "a", "x"), ("t5", "target", "holdout", "", "x"), ("t6", "target", "test", "b", "y"),
]  # fmt: skip


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return made_workshop(tmp_path, ROWS)


def test_parts_have_their_images_and_labels_as_numbers(shop: Workshop) -> None:
    def seen(images: object) -> list[tuple[str, int]]:
        return list(zip(images.image_ids, images.labels, strict=True))  # type: ignore[attr-defined]

    assert seen(shop.source("train")) == [("s1", 1), ("s2", 0)]
    assert seen(shop.source("val")) == [("s3", 0)]
    assert seen(shop.target("train")) == [("t1", 0)]
    assert seen(shop.target("val")) == [("t3", 1)]
    assert seen(shop.labelled()) == [("s1", 1), ("s2", 0), ("t1", 0)]
    assert seen(shop.with_synthetic()) == [("s1", 1), ("s2", 0), ("m1", 1)]


def test_where_labels_are_not_to_be_seen_there_are_none(shop: Workshop) -> None:
    assert shop.unlabelled().image_ids == ("t1", "t2")
    assert shop.unlabelled().labels == (-1, -1)
    held_out = shop.held_out_rows()
    assert list(held_out["image_id"]) == ["t3", "t4", "t5"]
    assert (held_out["label"] == "").all()


def test_a_made_image_is_read_where_it_was_made(shop: Workshop) -> None:
    images = shop.with_synthetic()
    assert images.paths == ("s1.png", "s2.png", f"{MADE}m1.png")
    assert np.isfinite(images.batch([2]).numpy()).all()


def test_an_image_has_the_group_of_its_column_and_a_made_one_its_parents(shop: Workshop) -> None:
    assert shop.groups(shop.labelled()) == ()
    by_site = replace(shop, balance=replace(NO_BALANCE, group_column="site"))
    assert by_site.groups(by_site.labelled()) == ("x", "y", "x")
    assert by_site.groups(by_site.with_synthetic()) == ("x", "y", "x")
    without = replace(by_site, synthetic=shop.synthetic.iloc[:0])
    assert without.groups(without.labelled()) == ("x", "y", "x")


def test_a_group_column_that_is_not_audited_is_told(shop: Workshop) -> None:
    by_writer = replace(shop, balance=replace(NO_BALANCE, group_column="writer"))
    message = "group_column is 'writer', which is no audit column; name it in build_manifest.audit_columns"
    with pytest.raises(ValueError, match=message):
        by_writer.groups(by_writer.labelled())


def test_without_a_held_out_target_image_nothing_begins(shop: Workshop) -> None:
    message = (
        r"no target image is held out \(split val, guard, holdout\).* set validate_data.splits.target_holdout_share"
    )
    with pytest.raises(ValueError, match=message):
        replace(shop, manifest=shop.manifest[~shop.manifest["split"].isin(["val", "guard", "holdout"])])


def states_equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_networks_start_alike_for_one_name_and_scratch_knows_nothing(shop: Workshop) -> None:
    first, again, other = shop.pretrained("x"), shop.pretrained("x"), shop.pretrained("y")
    assert states_equal(first, again)
    assert states_equal(first.backbone, other.backbone)
    assert not states_equal(first.head, other.head)
    assert not states_equal(first.backbone, shop.from_scratch().backbone)
    assert states_equal(shop.from_scratch(), shop.from_scratch())


def lesson(shop: Workshop) -> Lesson:
    return Lesson("x", shop.pretrained("x"), shop.labelled(), shop.target("val"))


def test_a_lesson_goes_through_its_phases_and_a_finished_one_is_read_back(shop: Workshop) -> None:
    first = supervised_run(shop, lesson(shop), [HeadPhase(1.0), ONE_EPOCH], 0.0)
    assert [row["phase"] for row in first.history] == ["0-head", "1-all"]
    again = supervised_run(shop, lesson(shop), [], 0.0)  # no phase: it can only have been read
    assert again.history == first.history
    assert states_equal(first.model, again.model)


@pytest.mark.parametrize(
    "balance",
    [
        replace(NO_BALANCE, sampling="class_balanced"),
        replace(NO_BALANCE, sampling="group_balanced", group_column="site"),
        replace(NO_BALANCE, group_column="site", group_dro_step=0.5),
        replace(NO_BALANCE, mixup_alpha=0.4),
    ],
)
def test_every_part_of_the_balance_changes_what_is_learnt(shop: Workshop, balance: Balance) -> None:
    plain = supervised_run(shop, lesson(shop), [ONE_EPOCH], 0.0)
    other = replace(shop, balance=balance, folder=shop.folder / "other")
    assert not states_equal(plain.model, supervised_run(other, lesson(other), [ONE_EPOCH], 0.0).model)


def test_groups_that_are_missing_are_refused_where_they_are_balanced(shop: Workshop) -> None:
    rows = shop.manifest.assign(audit_site=shop.manifest["audit_site"].mask(shop.manifest["image_id"] == "s2", ""))
    other = replace(shop, manifest=rows, balance=replace(NO_BALANCE, sampling="group_balanced", group_column="site"))
    with pytest.raises(ValueError, match="x: 1 training images have no group"):
        supervised_run(other, lesson(other), [ONE_EPOCH], 0.0)


def test_labels_are_a_tensor_of_numbers(shop: Workshop) -> None:
    found = labels_of(shop.labelled())
    assert (found.dtype, found.tolist()) == (torch.long, [1, 0, 0])
