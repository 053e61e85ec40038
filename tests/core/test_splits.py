"""Splits: nothing leaks between them, nothing depends on the order, no label is seen where it must not be."""

import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tasks.core.splits import LabelBudget, SplitShares, draw_splits, hidden_labels, labels_of, with_splits

SHARES = SplitShares(source_val=0.2, target_val=0.2, target_test=0.4, target_holdout=0)
HOLDING_OUT = replace(SHARES, target_holdout=0.2)
TEST_ONLY = SplitShares(source_val=0.2, target_val=0, target_test=0.4, target_holdout=0)
LEARNT_FROM = ("train", "unlabelled")
N_TABLES = 10


def table(n_source: int, n_target: int, **columns: object) -> pd.DataFrame:
    """No group and no split given, labels a and b by turns, unless columns of the target say otherwise."""

    def rows(domain: str, n: int) -> pd.DataFrame:
        ids = [f"{domain[0]}{i:03d}" for i in range(n)]
        labels = ["ab"[i % 2] for i in range(n)]
        rows = pd.DataFrame({"image_id": ids, "domain": domain, "split": "", "group_id": ids, "label": labels})
        return rows.assign(origin={"source": "ink", "target": "pen"}[domain])

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
    rows["origin"] = np.where(rows["domain"] == "target", "pen", rng.choice(["ink", "oil"], n))
    splits = {group: str(rng.choice(given)) for group in sorted(rows["group_id"].unique())}
    split = rows["group_id"].map(splits).mask(rows["domain"] == "source", "")
    bare = (rows["domain"] == "target") & (rng.random(n) < 0.3) & split.isin(("", "train", "unlabelled"))
    return rows.assign(label=rows["label"].mask(bare, ""), split=split)


def homes(rows: pd.DataFrame) -> pd.DataFrame:
    """Per domain and group: is it learnt from, and in how many of the held-out splits is it."""
    kinds = (
        rows["split"].where(~rows["split"].isin(LEARNT_FROM), "learnt").replace({"guard": "val", "holdout": "learnt"})
    )  # these two are split off by image where groups are few
    return rows.assign(kind=kinds)[kinds != "held_out"].groupby(["domain", "group_id"])["kind"].nunique()


@pytest.mark.parametrize(
    "given",
    [
        ("",), ("train", "test"), ("train", "val", "test"), ("", "test"), ("", "train", "val"), ("", "val"),
        ("", "unlabelled"), ("unlabelled", "train"), ("", "train", "unlabelled", "test"),
    ],
)  # fmt: skip
def test_no_group_is_in_two_splits(given: tuple[str, ...]) -> None:
    for seed in range(N_TABLES):
        done = with_splits(random_table(seed, given=given), HOLDING_OUT, LabelBudget(3, 20), seed)
        assert homes(done).max() == 1
        found = done.groupby("domain")["split"].agg(set)
        assert found["source"] <= {"train", "val"}
        assert found["target"] <= {"train", "val", "guard", "test", "unlabelled", "holdout", "held_out"}
        assert not (done["split"].isin(("train", "val", "guard", "test")) & (done["label"] == "")).any()


@pytest.mark.parametrize("given", [("",), ("", "train", "val"), ("", "unlabelled", "train")])
def test_the_order_of_the_rows_changes_nothing(given: tuple[str, ...]) -> None:
    for seed in range(N_TABLES):
        rows = random_table(seed, given=given)
        first = with_splits(rows, HOLDING_OUT, LabelBudget(3, 20), 0).set_index("image_id")["split"]
        mixed = rows.sample(frac=1, random_state=seed).reset_index(drop=True)
        other = with_splits(mixed, HOLDING_OUT, LabelBudget(3, 20), 0).set_index("image_id")["split"]
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
        groups = np.repeat([f"g{g:02d}" for g in range(40)], sizes)
        rows = pd.DataFrame({"group_id": groups, "origin": "ink", "label": "a"})
        split = draw_splits(rows, {"val": 0.2, "test": 0.4}, seed)
        for name, share in {"val": 0.2, "test": 0.4}.items():
            assert abs((split == name).sum() - share * len(rows)) <= sizes.max()


def test_a_group_larger_than_what_is_wanted_stays_in_training() -> None:
    rows = pd.DataFrame({"group_id": ["one"] * 50, "origin": "ink", "label": "a"})
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
    target = with_splits(rows, TEST_ONLY, LabelBudget(None, 0), 0).query("domain == 'target'")
    assert list(target["split"]) == ["test", "held_out", "train", "unlabelled"]


def test_unlabelled_images_without_labelled_relatives_are_all_learnt_from() -> None:
    """To hold them out protects nothing: no held-out label belongs to their groups."""
    rows = table(20, 100, label=["a", "b"] * 10 + [""] * 80)
    target = with_splits(rows, SHARES, LabelBudget(None, 0), 0).query("domain == 'target'")
    assert (target["split"] == "held_out").sum() == 0
    assert target.query("label == ''")["split"].eq("unlabelled").all()


def test_hidden_labels_are_seen_by_nobody() -> None:
    done = with_splits(table(40, 100), HOLDING_OUT, LabelBudget(3, 10), 0)
    seen = hidden_labels(done)
    source = seen["domain"] == "source"
    hidden = ~source & seen["split"].isin(("test", "guard", "unlabelled", "holdout"))
    assert set(seen.loc[hidden, "split"]) == {"test", "guard", "unlabelled", "holdout"}
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
    target = with_splits(rows, TEST_ONLY, LabelBudget(None, 0), 0).query("domain == 'target'")
    assert list(target["split"]) == ["test", "held_out", "train", "unlabelled"]


@pytest.mark.parametrize(("n_source", "n_target"), [(0, 0), (20, 0), (0, 20), (1, 1)])
def test_empty_domains_are_no_crash(n_source: int, n_target: int) -> None:
    """validate_data must end well and say what is missing."""
    assert len(with_splits(table(n_source, n_target), SHARES, LabelBudget(3, 10), 0)) == n_source + n_target


def test_shares_are_kept_in_every_class_of_every_source() -> None:
    """Three sources of 100, 40 and 20 images; a fifth of each class of each is validation."""
    parts = [table(n, 0).assign(origin=origin) for origin, n in (("ink", 100), ("oil", 40), ("chalk", 20))]
    rows = pd.concat([part.assign(group_id=part["origin"] + part["image_id"]) for part in parts], ignore_index=True)
    rows["image_id"] = rows["group_id"]
    counts = with_splits(rows, SHARES, LabelBudget(None, 0), 0).groupby(["origin", "label", "split"]).size()
    for origin, n in (("ink", 50), ("oil", 20), ("chalk", 10)):
        for label in "ab":
            assert counts[origin, label].to_dict() == {"train": n * 4 // 5, "val": n // 5}


def test_a_group_belongs_to_its_commonest_origin_and_label() -> None:
    """Ten groups of three a's and one b: one stratum, so two groups of ten are drawn, wherever the b stands."""
    for order in ("aaab", "baaa", "abaa"):
        groups = np.repeat([f"g{g}" for g in range(10)], 4)
        rows = pd.DataFrame({"group_id": groups, "origin": "ink", "label": list(order) * 10})
        split = draw_splits(rows, {"val": 0.2}, 0)
        assert (split == "val").sum() == 8
        assert split.groupby(rows["group_id"]).nunique().max() == 1


def test_no_shares_and_no_rows_are_no_crash() -> None:
    rows = table(9, 0)
    assert set(draw_splits(rows, {}, 0)) == {"train"}
    assert set(draw_splits(rows, {"val": 0.0}, 0)) == {"train"}
    assert draw_splits(rows.head(0), {"val": 0.2}, 0).tolist() == []


def test_a_hundred_thousand_groups_are_drawn_quickly() -> None:
    n = 100_000
    ids = [f"g{i:06d}" for i in range(n)]
    rows = pd.DataFrame({"group_id": ids, "origin": "ink", "label": [f"c{i % 100:02d}" for i in range(n)]})
    start = time.perf_counter()
    split = draw_splits(rows, {"val": 0.2, "test": 0.4}, 0)
    assert time.perf_counter() - start < 10
    counts = split.groupby(rows["label"]).value_counts().unstack()
    assert (counts["val"] == 200).all()
    assert (counts["test"] == 400).all()


def test_a_test_is_drawn_from_the_rows_without_a_split_and_a_val_from_all_that_are_learnt_from() -> None:
    """Sixty given for training, a hundred without: of these 40 become test; of the 120 others 24 val, a half of each class."""
    done = with_splits(table(20, 160, split=["train"] * 60 + [""] * 100), SHARES, LabelBudget(None, 0), 0)
    target = done[done["domain"] == "target"].reset_index(drop=True)
    assert set(target["split"][:60]) == {"train", "val"}
    counts = target.groupby(["label", "split"]).size()
    for label in "ab":
        assert counts[label].to_dict() == {"train": 48, "val": 12, "test": 20}


def test_a_few_rows_without_a_split_leave_no_tiny_val() -> None:
    """A thousand given for training and five left empty: val is a fifth of them all."""
    done = with_splits(table(20, 1005, split=["train"] * 1000 + [""] * 5), SHARES, LabelBudget(None, 0), 0)
    n_of = done.loc[done["domain"] == "target", "split"].value_counts()
    assert n_of["val"] == pytest.approx(200, abs=2)
    assert n_of["test"] == 2


def test_a_given_val_is_kept_where_the_test_is_drawn() -> None:
    done = with_splits(table(20, 120, split=["val"] * 20 + [""] * 100), SHARES, LabelBudget(None, 0), 0)
    target = done[done["domain"] == "target"].reset_index(drop=True)
    assert set(target["split"][:20]) == {"val"}
    assert target["split"][20:].value_counts().to_dict() == {"train": 60, "test": 40}


def test_a_given_test_is_kept_and_rows_without_a_split_are_learnt_from() -> None:
    done = with_splits(table(20, 120, split=["test"] * 20 + [""] * 100), SHARES, LabelBudget(None, 0), 0)
    target = done[done["domain"] == "target"].reset_index(drop=True)
    assert set(target["split"][:20]) == {"test"}
    assert target["split"][20:].value_counts().to_dict() == {"train": 80, "val": 20}


def test_where_every_row_has_a_split_and_none_is_test_there_is_no_test() -> None:
    """Validation then says that a test is missing: what was given for training is never taken for it."""
    done = with_splits(table(20, 50, split="train"), SHARES, LabelBudget(None, 0), 0)
    assert set(done.loc[done["domain"] == "target", "split"]) == {"train", "val"}


def test_a_row_without_a_split_follows_the_strictest_of_its_group() -> None:
    groups = ["w1", "w1", "w1", "w2", "w2", "w3", "w3"]
    given = ["train", "test", "", "val", "", "train", ""]
    rows = table(20, 7, group_id=groups, split=given, label="a")
    target = with_splits(rows, SHARES, LabelBudget(None, 0), 0).query("domain == 'target'")
    assert list(target["split"]) == ["train", "test", "test", "val", "val", "train", "train"]


def test_a_persons_label_is_used_although_the_others_of_the_group_are_given_as_unlabelled() -> None:
    """tasks.core.labels empties the split of such an image, so that it is free to be learnt from."""
    rows = table(20, 6, group_id=["w1"] * 3 + ["w2"] * 3, label=["a", "", "", "b", "b", "b"])
    rows.loc[20:, "split"] = ["", "unlabelled", "unlabelled", "test", "test", "test"]
    target = with_splits(rows, TEST_ONLY, LabelBudget(None, 0), 0).query("domain == 'target'")
    assert list(target["split"]) == ["train", "unlabelled", "unlabelled", "test", "test", "test"]


def test_a_label_that_is_given_as_unlabelled_is_not_learnt_from_where_its_group_is_held_out() -> None:
    groups = [f"w{i // 2:02d}" for i in range(40)]
    rows = table(20, 40, group_id=groups, split=["train", "unlabelled"] * 20)
    done = with_splits(rows, replace(SHARES, target_val=0.5), LabelBudget(None, 0), 0).query("domain == 'target'")
    assert {tuple(splits) for splits in done.groupby("group_id")["split"].agg(sorted)} == {
        ("train", "unlabelled"),
        ("held_out", "val"),
    }


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_a_share_of_zero_draws_nothing(share: float) -> None:
    done = with_splits(table(20, 100), replace(SHARES, target_val=share), LabelBudget(None, 0), 0)
    assert (done.loc[done["domain"] == "target", "split"] == "val").sum() == share * 100


def test_the_index_of_the_rows_is_kept_whatever_it_is() -> None:
    """Rejected rows leave gaps in it."""
    rows = table(40, 60).drop(index=[0, 7, 50, 99])
    done = with_splits(rows, SHARES, LabelBudget(3, 5), 0)
    assert list(done.index) == list(rows.index)
    assert list(done["image_id"]) == list(rows["image_id"])
    again = with_splits(rows.reset_index(drop=True), SHARES, LabelBudget(3, 5), 0)
    assert list(again["split"]) == list(done["split"])


def test_what_is_drawn_of_one_class_does_not_depend_on_another() -> None:
    rows = table(0, 100)
    first = with_splits(rows, SHARES, LabelBudget(None, 0), 0)
    fewer = with_splits(rows[rows["label"] == "a"], SHARES, LabelBudget(None, 0), 0)
    assert first.loc[fewer.index, "split"].equals(fewer["split"])


def held_out_of(rows: pd.DataFrame, share: float = 0.2, n_labels: int | None = None) -> pd.DataFrame:
    """The target's rows with splits."""
    shares = replace(SHARES, target_holdout=share)
    return with_splits(rows, shares, LabelBudget(n_labels, 0), 0).query("domain == 'target'")


def groups_of(*sizes: int) -> list[str]:
    return [f"w{g:02d}" for g, n in enumerate(sizes) for _ in range(n)]


def test_a_share_of_the_unlabelled_images_is_held_out_given_or_hidden_by_the_budget() -> None:
    """40 % of 200 labelled ones are left for training: 6 keep their label, and a fifth of the other 74 is 15."""
    given = held_out_of(table(20, 50, split="unlabelled"))
    assert given["split"].value_counts().to_dict() == {"unlabelled": 40, "holdout": 10}
    hidden = held_out_of(table(20, 200), n_labels=3)
    assert hidden["split"].value_counts().to_dict() == {
        "test": 80,
        "val": 40,
        "unlabelled": 59,
        "holdout": 15,
        "train": 6,
    }


def test_only_unlabelled_images_of_the_target_become_holdout_and_all_others_stay() -> None:
    for seed in range(N_TABLES):
        rows = random_table(seed, given=("", "unlabelled", "train"))
        without, held = (
            with_splits(rows, replace(SHARES, target_holdout=s), LabelBudget(3, 20), seed)["split"] for s in (0, 0.5)
        )
        moved = without != held
        assert set(without[moved]) == {"unlabelled"}
        assert set(held[moved]) == {"holdout"}
        assert (rows.loc[moved, "domain"] == "target").all()
        assert "holdout" not in set(without)


@pytest.mark.parametrize(("n_groups", "n_sides"), [(10, 1), (9, 2)])
def test_ten_groups_are_held_out_whole_and_of_fewer_each_is_shared_out_by_image(n_groups: int, n_sides: int) -> None:
    """Nine images of 45 are no whole groups of five."""
    done = held_out_of(table(20, n_groups * 5, group_id=groups_of(*[5] * n_groups), split="unlabelled"))
    assert (done["split"] == "holdout").sum() == n_groups
    assert done.groupby("group_id")["split"].nunique().max() == n_sides


def test_no_group_is_learnt_from_and_held_out_where_groups_are_many() -> None:
    """Also not where a training image lies beside unlabelled ones: 15 of 30 groups of four have one."""
    split = (["train"] + ["unlabelled"] * 3) * 15 + ["unlabelled"] * 60
    done = held_out_of(table(20, 120, group_id=groups_of(*[4] * 30), split=split))
    assert "val" in set(done["split"]), "drawn from the training images, so that their relatives are set aside"
    held = done["split"] == "holdout"
    assert not set(done.loc[held, "group_id"]) & set(done.loc[done["split"].isin(LEARNT_FROM), "group_id"])
    n_unlabelled = int(held.sum() + (done["split"] == "unlabelled").sum())
    assert held.sum() == pytest.approx(0.2 * n_unlabelled, abs=2)  # half a group


def test_no_more_than_half_of_the_groups_without_training_images_is_held_out() -> None:
    """Ten groups of four without one beside sixty with three unlabelled images each: a fifth of all 220 would be 44."""
    split = ["unlabelled"] * 40 + (["train"] + ["unlabelled"] * 3) * 60
    rows = table(20, 280, group_id=groups_of(*[4] * 70), split=split)
    shares = replace(SHARES, target_val=0, target_test=0, target_holdout=0.2)
    done = with_splits(rows, shares, LabelBudget(None, 0), 0).query("domain == 'target'")
    assert done.loc[done["split"] == "holdout", "group_id"].value_counts().tolist() == [4] * 5


def test_a_group_larger_than_what_is_wanted_is_not_held_out() -> None:
    done = held_out_of(table(20, 100, group_id=groups_of(60, *[1] * 40), split="unlabelled"))
    assert (done["split"] == "holdout").sum() == 20
    assert set(done.loc[done["group_id"] == "w00", "split"]) == {"unlabelled"}


def test_what_is_held_out_does_not_depend_on_any_label() -> None:
    rows = table(20, 90, split=["train", "unlabelled", "unlabelled"] * 30)
    is_train = (rows["domain"] == "target") & (rows["split"] == "train")
    is_unlabelled = rows["split"] == "unlabelled"
    shares = replace(SHARES, target_val=0, target_holdout=0.2)
    for where, label in ((is_unlabelled, "a"), (is_unlabelled, ""), (is_train, "b")):
        changed = rows.assign(label=rows["label"].mask(where, label))
        one, other = (with_splits(r, shares, LabelBudget(None, 0), 0)["split"] for r in (rows, changed))
        assert (one == "holdout").sum() == 12
        assert one.equals(other)


def test_a_further_label_moves_its_image_and_at_most_one_other() -> None:
    """Images given for training that have no label yet: a person labels one after the other."""
    rows = table(20, 60, split=["test"] * 5 + ["val"] * 5 + ["train"] * 50)
    rows["label"] = rows["label"].mask((rows["domain"] == "target") & (rows["split"] == "train"), "")
    before = held_out_of(rows)["split"]
    assert (before == "holdout").sum() == 10
    some = before.index[before == "holdout"][::2].union(before.index[before == "unlabelled"][::8])
    for index in some:
        label = rows["label"].mask(rows.index == index, "a")
        after = held_out_of(rows.assign(label=label))["split"]
        assert after[index] == "train"
        assert (before != after).drop(index).sum() <= 1


def test_another_seed_holds_out_other_images_and_the_test_draw_does_not_tell_which() -> None:
    """Of the images left over by the draw of a test, those given without a label are held out no more often than others."""
    rows = table(20, 2000, label=["a", ""] * 1000)
    done = held_out_of(rows, n_labels=0)
    unlabelled = done[done["split"].isin(("unlabelled", "holdout"))]
    rates = (unlabelled["split"] == "holdout").groupby(unlabelled["label"]).mean()
    assert rates.max() - rates.min() < 0.1  # 400 and 1000 images: a standard error of 0.024
    other = with_splits(rows, HOLDING_OUT, LabelBudget(0, 0), 1)["split"]
    assert not (other == "holdout").equals(with_splits(rows, HOLDING_OUT, LabelBudget(0, 0), 0)["split"] == "holdout")
