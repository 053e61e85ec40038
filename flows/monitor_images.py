"""The images of `acclimate monitor`: listed, measured, and seen by a registered model; one that can't be read says why."""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.could_not_run import say
from flows.validate import USUAL_NAMES, is_table, listed, manifest_of, measure
from flows.validate import Request as Listing

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from torch import Tensor

    from tasks.core.monitoring import Champion, NewImages
    from tasks.core.store import Store

AUDIT = "audit_"
N_BATCH = 64
NOWHERE = "-"  # a layout in which the first level means nothing, and further ones never do


@dataclass(frozen=True)
class Images:
    """Where the images lie, the columns of their groups, and the table of labels that came later."""

    place: Path
    columns: tuple[str, ...]
    labels: Path | None

    @property
    def is_table(self) -> bool:
        return is_table(self.place)

    @property
    def root(self) -> Path:
        """What the images' paths are relative to."""
        return self.place.parent if self.is_table else self.place


@dataclass(frozen=True, eq=False)
class Listed:
    """The images as they are named, none opened yet, and path, label and group columns of --labels (None: not given)."""

    store: "Store"
    manifest: "pd.DataFrame"
    given: "pd.DataFrame | None"


def problems_of_images(images: Images) -> list[str]:
    """Sentences on options that don't fit each other: said before anything is measured."""
    problems = []
    if images.columns and not images.is_table and images.labels is None:
        problems.append(
            f"--group-columns {', '.join(images.columns)}: {images.place} is no table and has no columns; name a table of "
            "images instead, or one with --labels"
        )
    if any(name.startswith("p_") or name in RESERVED for name in images.columns):
        problems.append(
            f"--group-columns may not be named {', '.join(sorted(RESERVED))} or begin with p_, which have a meaning of "
            "their own; rename the column"
        )
    if images.labels is not None and not images.labels.is_file():
        problems.append(f"--labels {images.labels} is not a file; name a table with a path and a label per image")
    return problems


RESERVED = {"path", "image_id", "group_id", "y_true", "y_pred", "confidence", "error"}


def listed_images(images: Images) -> Listed:
    """What is to be looked at. ValueError where there is no image, or where --labels is about others: nothing is removed yet."""
    listing = Listing(
        place=images.place, root=None, layout=None if images.is_table else NOWHERE, columns=dict.fromkeys(USUAL_NAMES),
        audit=images.columns if images.is_table else (), source=(), target=None, rules=Path(), accepted=None,
    )  # fmt: skip
    if images.is_table:
        check_columns(images)
    store, listed_rows = listed(listing)
    manifest = manifest_of(listed_rows, listing, store)
    given = read_labels(images, set(manifest["path"])) if images.labels is not None else None
    return Listed(store, manifest, given)


def check_columns(images: Images) -> None:
    """Nothing. ValueError in the words of the command where the table of images has no such column of groups."""
    from tasks.core.listing import read_image_table

    there = list(map(str, read_image_table(images.place).columns)) if images.columns else []
    if absent := [name for name in images.columns if name not in there]:
        raise ValueError(
            f"--group-columns {', '.join(absent)}: {images.place} has no such column; it has {', '.join(there)}; name columns "
            "of this table, or add them to it"
        )


def new_images(images: Images, named: Listed, bundle: Path, out: Path, machine: tuple[str, int]) -> "NewImages":
    """What the bundle's model makes of the images; facts.csv stands in `out`."""
    from tasks.core.facts import read_facts
    from tasks.core.monitoring import NewImages

    measure(out, named.manifest, named.store)
    rows = with_properties(named.manifest, read_facts(out / "facts.csv"))
    features_ND, seen = seen_by_model(bundle, named.store, with_given(rows, images, named.given), machine)
    return NewImages(seen, features_ND, images.columns)


def with_properties(manifest: "pd.DataFrame", facts: "pd.DataFrame") -> "pd.DataFrame":
    """image_id, path, group_id, group columns, the properties of `drift`, and why an image can't be looked at."""
    from tasks.core.checks import checked_columns
    from tasks.core.drift import PROPERTIES

    rows = checked_columns(manifest, facts, 0)
    error = rows["error"].where(rows["problem"] == "", rows["problem"])
    kept = ["image_id", "path", "group_id", *(name for name in rows if str(name).startswith(AUDIT)), *PROPERTIES]
    return rows[kept].rename(columns=lambda name: str(name).removeprefix(AUDIT)).assign(error=error)


def read_labels(images: Images, known: set[str]) -> "pd.DataFrame":
    """path, label and the group columns that it has, of the images `known`; says aloud how many rows that is.

    Understood are the paths of predictions.csv and any path to the file itself. ValueError lists what is wrong with the table.
    """
    from flows.data_cli import manifest_paths
    from tasks.core.listing import read_image_table

    assert images.labels is not None
    table = named_columns(read_image_table(images.labels), images.labels)
    own = [] if images.is_table else list(images.columns)
    if absent := [name for name in own if name not in table]:
        raise ValueError(f"--group-columns {', '.join(absent)}: neither the images nor --labels have such a column")
    if table.empty:
        raise ValueError(f"--labels {images.labels} has a header and no rows; write one row per image")
    table["path"] = manifest_paths(table["path"], known, images.root)
    if (twice := table["path"].duplicated()).any():
        raise ValueError(
            f"--labels {images.labels}: {int(twice.sum())} path(s) stand there more than once, the first: "
            f"{table['path'][twice].iloc[0]!r}; keep one row per image"
        )
    fits = table["path"].isin(known)
    if not fits.any():
        raise ValueError(
            f"no path of --labels {images.labels} is one of the images' ({table['path'].iloc[0]!r} is not; {min(known)!r} would "
            f"be); write paths relative to {images.root}, as in predictions.csv, or whole ones"
        )
    say(f"labels: {int(fits.sum())} of the {len(table)} rows of {images.labels} name one of the {len(known)} images")
    return table.loc[fits, ["path", "label", *own]]


def named_columns(table: "pd.DataFrame", place: Path) -> "pd.DataFrame":
    """The table with its columns of paths and labels named path and label. ValueError where one of them is absent."""
    known = {str(name).lower(): str(name) for name in table.columns}
    named = {
        what: next((known[name] for name in USUAL_NAMES[what] if name in known), None) for what in ("path", "label")
    }
    if absent := [what for what, name in named.items() if name is None]:
        raise ValueError(
            f"--labels {place} has no column of {' and of '.join(absent)}; it has {', '.join(map(str, table.columns))}; name "
            "them path and label"
        )
    return table.rename(columns={name: what for what, name in named.items() if name is not None})


def with_given(rows: "pd.DataFrame", images: Images, given: "pd.DataFrame | None") -> "pd.DataFrame":
    """The rows with y_true ("" = not labelled) and every group column."""
    if given is None:
        return rows
    told = given.set_index("path")
    own = [] if images.is_table else images.columns
    added = {name: rows["path"].map(told[name]).fillna("") for name in own}
    return rows.assign(y_true=rows["path"].map(told["label"]).fillna(""), **added)


def seen_by_model(
    bundle: Path, store: "Store", rows: "pd.DataFrame", machine: tuple[str, int]
) -> "tuple[np.ndarray, pd.DataFrame]":
    """Features of the images that could be read, and all rows with y_pred, confidence, p_<class> and `error`."""
    import pandas as pd

    from tasks.core.bundle import WEIGHTS
    from tasks.core.files import read_json
    from tasks.core.reference import look
    from tasks.core.runtime import use_machine
    from tasks.core.trained import load_network

    device, n_threads = machine
    use_machine(device, n_threads)
    description = read_json(bundle / "model.json", made_by="register_model")
    model = load_network(bundle / WEIGHTS, description, device)
    errors = dict(zip(rows["path"], rows["error"], strict=True))
    tensors = readable_batches(store, errors, description)
    features_ND, probs_NC = look(model, tensors, description.get("temperature", 1.0))
    classes = description["classes"]
    told = pd.DataFrame(probs_NC, columns=[f"p_{name}" for name in classes])
    told.insert(0, "confidence", probs_NC.max(1, initial=0.0))
    rows = rows.assign(error=list(errors.values()), y_pred="")
    told.index = rows.index[rows["error"] == ""]
    rows.loc[told.index, "y_pred"] = [classes[i] for i in probs_NC.argmax(1)]
    return features_ND, rows.join(told)


def readable_batches(store: "Store", errors: dict[str, str], description: dict[str, Any]) -> "Iterator[Tensor]":
    """Batches of the images without an error, in order. One that can't be decoded has its reason in `errors` afterwards."""
    from tqdm import tqdm

    from tasks.core.batches import to_tensor
    from tasks.core.images import read_square
    from tasks.core.runtime import is_quiet
    from tasks.core.trained import sight

    paths = [path for path, error in errors.items() if not error]
    for start in tqdm(range(0, len(paths), N_BATCH), desc="monitor", disable=is_quiet()):
        shown = []
        for path in paths[start : start + N_BATCH]:
            try:
                shown.append(read_square(BytesIO(store.read(path)), *sight(description)))
            except Exception as error:  # decoders raise anything; one bad file must not cost the others
                errors[path] = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if shown:
            yield to_tensor(shown, description["mean"], description["std"])


def champion_of(bundle: Path) -> "Champion":
    """What the bundle keeps to compare with. ValueError where a file of it is damaged."""
    from tasks.core.drift import read_profile
    from tasks.core.files import read_json
    from tasks.core.monitoring import Champion
    from tasks.core.reference import REFERENCE, read_reference

    description = read_json(bundle / "model.json", made_by="register_model")
    reference = read_reference(bundle / REFERENCE) if (bundle / REFERENCE).exists() else None
    return Champion(read_profile(bundle / "profile.json"), reference, description.get("ask_below"))
