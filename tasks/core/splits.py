"""Splits of the accepted rows: given ones kept, missing ones drawn by group, labels hidden where they must not be seen."""

from dataclasses import dataclass

import pandas as pd

from tasks.core.runtime import address_seed

HELD_OUT = ("val", "guard", "test")
MIN_GROUPS = 10


@dataclass(frozen=True)
class SplitShares:
    """Shares of a domain's images, 0..1; the rest is train. The holdout's is of the unlabelled ones, 0..0.5."""

    source_val: float
    target_val: float
    target_test: float
    target_holdout: float


@dataclass(frozen=True)
class LabelBudget:
    """Target labels that may be used: kept per class for training (None = all), and held back for the guard."""

    per_class: int | None
    n_guard: int


def with_splits(rows: pd.DataFrame, shares: SplitShares, budget: LabelBudget, seed: int) -> pd.DataFrame:
    """The rows with `split` filled: train, val, guard, test, unlabelled or holdout (source: train or val; others stay unused).

    Unlabelled images of a held-out group are marked `held_out`: to learn from them would leak the group.
    """
    source = rows[rows["domain"] == "source"]
    target = rows[rows["domain"] == "target"]
    source = source.assign(split=_filled(source, {"val": shares.source_val}, seed))
    target = target.assign(split=_filled(target, {"val": shares.target_val, "test": shares.target_test}, seed))
    target = _guard_split_off(target, budget.n_guard, seed)
    target = _labels_limited(target, budget.per_class, seed)
    target = _holdout_split_off(target, shares.target_holdout, seed)
    return pd.concat([source, target]).sort_index()


def hidden_labels(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows as every stage may see them: of the target's, only those of train and val are left."""
    seen = (rows["domain"] == "source") | rows["split"].isin(("train", "val"))
    return rows.assign(label=rows["label"].where(seen, ""))


def labels_of(rows: pd.DataFrame, split: str) -> pd.DataFrame:
    wanted = (rows["domain"] == "target") & (rows["split"] == split)
    return rows.loc[wanted, ["image_id", "label"]].reset_index(drop=True)


def draw_splits(rows: pd.DataFrame, shares: dict[str, float], seed: int) -> pd.Series:
    """A split per row of one domain; whole groups, stratified by each group's origin and commonest label.

    `shares` maps split → share of images; the rest is train. Addressed: the file order changes nothing.
    """
    cells = rows.groupby(["group_id", "origin", "label"]).size().rename("n").reset_index()
    cells = cells.sort_values(["n", "origin", "label"], ascending=[False, True, True], kind="stable")
    groups = cells.groupby("group_id").agg(origin=("origin", "first"), label=("label", "first"), size=("n", "sum"))
    groups["order"] = [address_seed(seed, "split", group) for group in groups.index]
    groups = groups.sort_values("order")
    chosen: dict[str, str] = {}
    for _, stratum in groups.groupby(["origin", "label"]):
        total, filled = stratum["size"].sum(), dict.fromkeys(shares, 0)
        for group, n_images in stratum["size"].items():
            short = {name: share * total - filled[name] for name, share in shares.items()}
            name = max(short, key=lambda key: short[key]) if short else "train"
            # a group is given away only while at least half of it is still wanted
            if not short or short[name] < n_images / 2:
                name = "train"
            else:
                filled[name] += n_images
            chosen[str(group)] = name
    return rows["group_id"].map(chosen)


def _filled(rows: pd.DataFrame, shares: dict[str, float], seed: int) -> pd.Series:
    """Splits of one domain: given ones kept and shared by their group, missing ones drawn.

    A test is drawn from labelled rows that carry no split, where none is given; a val from all that are learnt from. Images
    without label, or given as unlabelled, are learnt from, unless a held-out label belongs to their group; a label beside
    them in the group counts for training.
    """
    given = rows["split"].where(rows["split"] != "")
    by_strictness = given.dropna().loc[given.dropna().map(_strictness).sort_values(kind="stable").index]
    strictest = by_strictness.groupby(rows["group_id"]).last().replace("unlabelled", "train")
    split = given.where(given.notna(), rows["group_id"].map(strictest)).astype(object)
    labelled = rows["label"] != ""
    absent = {name: share for name, share in shares.items() if name not in set(given)}
    free = labelled & split.isna()
    if "test" in absent and free.any():
        drawn = absent if free.equals(labelled) else {"test": absent["test"]}
        split = split.where(~free, draw_splits(rows[free], drawn, seed).reindex(rows.index))
        absent = {name: share for name, share in absent.items() if name not in drawn}
    split = split.fillna("train")
    train = labelled & (split == "train")
    if absent.get("val", 0) > 0:
        split = split.mask(train, draw_splits(rows[train], {"val": shares["val"]}, seed).reindex(rows.index))
    held_out = rows["group_id"].isin(set(rows.loc[split.isin(HELD_OUT) & labelled, "group_id"]))
    split = split.mask(~labelled, "unlabelled")
    return split.mask((split == "unlabelled") & held_out, "held_out")


def _strictness(split: str) -> int:
    return ("unlabelled", "train", "val", "test").index(split)


def _guard_split_off(target: pd.DataFrame, n_guard: int, seed: int) -> pd.DataFrame:
    """Validation becomes guard, in addressed order, until n_guard labels or half of it are taken.

    By whole groups where there are at least 10; of fewer, each side would be one or two writers or devices that tell
    little about the others, so every group is then shared out by image. Neither side is ever trained on.
    """
    val = target[target["split"] == "val"]
    unit = val["group_id"] if val["group_id"].nunique() >= MIN_GROUPS else val["image_id"]
    sizes = unit.groupby(unit).size()
    order = sorted(sizes.index, key=lambda name: address_seed(seed, "guard", name))
    chosen: list[str] = []
    for name in order[: len(order) // 2]:
        if sizes[chosen].sum() < n_guard:
            chosen.append(name)
    taken = unit.isin(chosen).reindex(target.index, fill_value=False)
    return target.assign(split=target["split"].mask(taken, "guard"))


def _labels_limited(target: pd.DataFrame, per_class: int | None, seed: int) -> pd.DataFrame:
    """Training images beyond `per_class` labels of a class become unlabelled; which ones is drawn by address."""
    if per_class is None:
        return target
    train = target[target["split"] == "train"]
    order = pd.Series([address_seed(seed, "label", i) for i in train["image_id"]], index=train.index, dtype="uint64")
    rank = order.groupby(train["label"]).rank(method="first")
    return target.assign(split=target["split"].mask(rank.reindex(target.index) > per_class, "unlabelled"))


def _holdout_split_off(target: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """Unlabelled images become holdout, in addressed order, until the share of them is reached; no label is looked at.

    By whole groups without a training image, at most half of their images, where there are at least 10 such groups;
    else by image, for the reason that the guard has. Nothing is learnt from the holdout.
    """
    unlabelled = target[target["split"] == "unlabelled"]
    trained_on = target.loc[target["split"] == "train", "group_id"]
    free = unlabelled[~unlabelled["group_id"].isin(set(trained_on))]
    if free["group_id"].nunique() < MIN_GROUPS:
        free = unlabelled.assign(group_id=unlabelled["image_id"])
    of_free = min(share * len(unlabelled) / max(len(free), 1), 0.5)
    # an address of its own: the groups left over by the draw of val and test are the last in that draw's order
    drawn = draw_splits(free.assign(label=""), {"holdout": of_free}, address_seed(seed, "holdout"))
    taken = (drawn == "holdout").reindex(target.index, fill_value=False)
    return target.assign(split=target["split"].mask(taken, "holdout"))
