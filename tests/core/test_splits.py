"""Splits: nothing leaks between them, nothing depends on the order, no label is seen where it must not be."""

import numpy as np
import pandas as pd
import pytest

from tasks.core.manifest import draw_splits
from tasks.core.splits import LabelBudget, SplitShares, hidden_labels, labels_of, with_splits

SHARES = SplitShares(source_val=0.2, target_val=0.2, target_test=0.4)
LEARNT_FROM = ("train", "unlabelled")
N_TABLES = 25


def table(n_source: int, n_target: int, **columns: object) -> pd.DataFrame:
    """No group and no split given, labels a and b by turns, unless columns of the target say otherwise."""

    def rows(domain: str, n: int) -> pd.DataFrame:
        ids = [f"{domain[0]}{i:03d}" for i in range(n)]
        labels = ["ab"[i % 2] for i in range(n)]
        return pd.DataFrame({"image_id": ids, "domain": domain, "split": "", "group_id": ids, "label": labels})

    return pd.concat([rows("source", n_source), rows("target", n_target).assign(**columns)], ignore_index=True)


def random_table(seed: int, *, given: tuple[str, ...]) -> pd.DataFrame:
    """Groups of all sizes, some target images without label; a group has one split out of `given`."""
    rng = np.random.default_rng(seed)
    n, n_groups = int(rng.integers(30, 150)), int(rng.integers(2, 40))
    rows = pd.DataFrame(
        {
            "image_id": [f"i{k:03d}" for k in range(n)],
            "domain": rng.choice(["source", "target"], n),
            "group_id": [f"g{g:02d}" for g in rng.integers(0, n_groups, n)],
            "label": rng.choice(list("abc"), n),
        }
    )
    splits = {group: str(rng.choice(given)) for group in sorted(rows["group_id"].unique())}
    split = rows["group_id"].map(splits).mask(rows["domain"] == "source", "")
    bare = (rows["domain"] == "target") & (rng.random(n) < 0.3) & split.isin(("", "train"))
    return rows.assign(label=rows["label"].mask(bare, ""), split=split)


def homes(rows: pd.DataFrame) -> pd.DataFrame:
    """Per domain and group: is it learnt from, and in how many of the held-out splits is it."""
    kinds = rows["split"].where(~rows["split"].isin(LEARNT_FROM), "learnt").replace("guard", "val")
    return rows.assign(kind=kinds)[kinds != "held_out"].groupby(["domain", "group_id"])["kind"].nunique()


@pytest.mark.parametrize(
    "given", [("",), ("train", "test"), ("train", "val", "test"), ("", "test"), ("", "train", "val")]
)
def test_no_group_is_in_two_splits(given: tuple[str, ...]) -> None:
    for seed in range(N_TABLES):
        done = with_splits(random_table(seed, given=given), SHARES, LabelBudget(3, 20), seed)
        assert homes(done).max() == 1
        found = done.groupby("domain")["split"].agg(set)
        assert found["source"] <= {"train", "val"}
        assert found["target"] <= {"train", "val", "guard", "test", "unlabelled", "held_out"}
        assert not (done["split"].isin(("train", "val", "guard", "test")) & (done["label"] == "")).any()


def test_the_order_of_the_rows_changes_nothing() -> None:
    for seed in range(N_TABLES):
        rows = random_table(seed, given=("",))
        first = with_splits(rows, SHARES, LabelBudget(3, 20), 0).set_index("image_id")["split"]
        mixed = rows.sample(frac=1, random_state=seed).reset_index(drop=True)
        other = with_splits(mixed, SHARES, LabelBudget(3, 20), 0).set_index("image_id")["split"]
        assert first.equals(other[first.index])


def test_a_group_with_half_of_its_splits_given_keeps_together() -> None:
    """Two images of one writer: one given as test, the other left empty."""
    rows = table(20, 20, group_id=[f"w{i // 2}" for i in range(20)], split=["test", ""] * 5 + ["train", ""] * 5)
    done = with_splits(rows, SHARES, LabelBudget(None, 0), 0)
    assert homes(done).max() == 1


def test_shares_are_kept_in_every_class() -> None:
    done = with_splits(table(200, 200), SHARES, LabelBudget(None, 0), 0)
    counts = done.groupby(["domain", "label", "split"]).size()
    for label in "ab":
        assert counts["source", label].to_dict() == {"train": 80, "val": 20}
        assert counts["target", label].to_dict() == {"train": 40, "val": 20, "test": 40}


def test_shares_of_groups_miss_by_at_most_a_group() -> None:
    for seed in range(N_TABLES):
        sizes = np.random.default_rng(seed).integers(1, 8, 40)
        rows = pd.DataFrame({"group_id": np.repeat([f"g{g:02d}" for g in range(40)], sizes), "label": "a"})
        split = draw_splits(rows, {"val": 0.2, "test": 0.4}, seed)
        for name, share in {"val": 0.2, "test": 0.4}.items():
            assert abs((split == name).sum() - share * len(rows)) <= sizes.max()


def test_a_group_larger_than_what_is_wanted_stays_in_training() -> None:
    rows = pd.DataFrame({"group_id": ["one"] * 50, "label": "a"})
    assert set(draw_splits(rows, {"test": 0.4}, 0)) == {"train"}


def test_another_seed_draws_other_splits() -> None:
    rows = table(0, 60)
    first, other = (with_splits(rows, SHARES, LabelBudget(None, 0), seed)["split"] for seed in (0, 1))
    assert not first.equals(other)


def test_given_splits_are_kept() -> None:
    given = ["train"] * 10 + ["val"] * 10 + ["test"] * 10 + ["unlabelled"] * 10
    done = with_splits(table(20, 40, split=given), SHARES, LabelBudget(None, 0), 0)
    assert list(done.loc[done["domain"] == "target", "split"]) == given


def test_a_given_val_is_not_drawn_again_and_a_missing_one_is() -> None:
    given = ["train"] * 30 + ["test"] * 10
    done = with_splits(table(20, 40, split=given), SHARES, LabelBudget(None, 0), 0)
    target = done[done["domain"] == "target"].reset_index(drop=True)
    assert (target["split"] == "test").tolist() == [False] * 30 + [True] * 10
    assert (target["split"] == "val").sum() == 6  # 0.2 of the 30 given for training


def test_training_labels_are_limited_per_class_and_the_others_become_unlabelled() -> None:
    done = with_splits(table(20, 100), SHARES, LabelBudget(3, 0), 0)
    target = done[done["domain"] == "target"]
    assert target[target["split"] == "train"].groupby("label").size().to_dict() == {"a": 3, "b": 3}
    assert (target["split"] == "unlabelled").sum() == 40 - 6
    assert (done.loc[done["domain"] == "source", "split"] != "unlabelled").all()


def test_no_training_label_at_all_may_be_asked_for() -> None:
    target = with_splits(table(20, 100), SHARES, LabelBudget(0, 0), 0).query("domain == 'target'")
    assert target["split"].value_counts().to_dict() == {"unlabelled": 40, "test": 40, "val": 20}


@pytest.mark.parametrize(("n_guard", "n_expected"), [(0, 0), (3, 4), (4, 4), (100, 10)])
def test_the_guard_takes_whole_groups_and_at_most_half_of_them(n_guard: int, n_expected: int) -> None:
    groups = [f"w{i // 2}" for i in range(20)]  # ten writers of two images, all validation
    done = with_splits(table(20, 20, group_id=groups, split="val"), SHARES, LabelBudget(None, n_guard), 0)
    target = done[done["domain"] == "target"]
    assert (target["split"] == "guard").sum() == n_expected
    assert target.groupby("group_id")["split"].nunique().max() == 1


def test_of_few_validation_groups_each_is_shared_out_by_image() -> None:
    groups = [f"w{i // 10}" for i in range(20)]  # two writers of ten images
    done = with_splits(table(20, 20, group_id=groups, split="val"), SHARES, LabelBudget(None, 7), 0)
    target = done[done["domain"] == "target"]
    assert target["split"].value_counts().to_dict() == {"val": 13, "guard": 7}


def test_unlabelled_images_of_a_held_out_group_are_marked() -> None:
    groups, labels = ["w1", "w1", "w2", "w2"], ["a", "", "a", ""]
    rows = table(20, 4, group_id=groups, label=labels, split=["test", "test", "train", "train"])
    target = with_splits(rows, SplitShares(0.2, 0, 0.4), LabelBudget(None, 0), 0).query("domain == 'target'")
    assert list(target["split"]) == ["test", "held_out", "train", "unlabelled"]


def test_unlabelled_images_without_labelled_relatives_are_all_learnt_from() -> None:
    """To hold them out protects nothing: no held-out label belongs to their groups."""
    rows = table(20, 100, label=["a", "b"] * 10 + [""] * 80)
    target = with_splits(rows, SHARES, LabelBudget(None, 0), 0).query("domain == 'target'")
    assert (target["split"] == "held_out").sum() == 0
    assert target.query("label == ''")["split"].eq("unlabelled").all()


def test_hidden_labels_are_seen_by_nobody() -> None:
    done = with_splits(table(40, 100), SHARES, LabelBudget(3, 10), 0)
    seen = hidden_labels(done)
    source = seen["domain"] == "source"
    hidden = ~source & seen["split"].isin(("test", "guard", "unlabelled"))
    assert set(seen.loc[hidden, "split"]) == {"test", "guard", "unlabelled"}
    assert (seen.loc[hidden, "label"] == "").all()
    assert seen.loc[~hidden, "label"].equals(done.loc[~hidden, "label"])
    assert (done["label"] != "").all(), "the argument is not changed"


def test_labels_of_a_split_are_those_of_the_target_alone() -> None:
    done = with_splits(table(40, 100), SHARES, LabelBudget(3, 10), 0)
    for split in ("val", "guard", "test"):
        wanted = done[(done["domain"] == "target") & (done["split"] == split)]
        assert labels_of(done, split).to_dict("list") == {
            "image_id": [*wanted["image_id"]],
            "label": [*wanted["label"]],
        }
        assert len(wanted) > 0


def test_an_unlabelled_image_left_empty_is_not_learnt_from_where_its_group_is_given_as_test() -> None:
    rows = table(20, 4, group_id=["w1", "w1", "w2", "w2"], label=["a", "", "a", ""], split=["test", "", "train", ""])
    target = with_splits(rows, SplitShares(0.2, 0, 0.4), LabelBudget(None, 0), 0).query("domain == 'target'")
    assert list(target["split"]) == ["test", "held_out", "train", "unlabelled"]


@pytest.mark.parametrize(("n_source", "n_target"), [(0, 0), (20, 0), (0, 20), (1, 1)])
def test_empty_domains_are_no_crash(n_source: int, n_target: int) -> None:
    """validate_data must end well and say what is missing."""
    assert len(with_splits(table(n_source, n_target), SHARES, LabelBudget(3, 10), 0)) == n_source + n_target
