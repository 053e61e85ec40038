"""`acclimate label` and `acclimate pack`: what people add to the data by hand."""

import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.label_answers import warn_of_answers

if TYPE_CHECKING:
    import pandas as pd

# Everything heavier is imported by the function that needs it: `acclimate --help` answers at once.

LABELS = Path("data/given/labels.csv")
MANIFEST = Path("data/manifest.csv")
SPLITS = Path("data/manifest_valid.csv")
TO_LABEL = Path("data/to_label.csv")


def add_commands(app: typer.Typer) -> None:
    """Nothing; the app knows our commands afterwards."""
    app.command()(label)
    app.command()(pack)


@contextmanager
def plain_errors() -> Iterator[None]:
    """What a person can mend ends as one sentence on stderr and exit code 1."""
    try:
        yield
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def label(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[IMAGE LABEL]", help="An image, by its path or as in data/manifest.csv; its label."),
    ] = None,
    table: Annotated[Path | None, typer.Option("--from", help="Many: a CSV file of path and label.")] = None,
    n_listed: Annotated[int | None, typer.Option("--list", min=1, help="Print that many images to label next.")] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take the last label of IMAGE … back.")] = False,
    by: Annotated[str | None, typer.Option(help="Who gives the label; the login name if not said.")] = None,
    new_class: Annotated[bool, typer.Option("--new-class", help="Allow a label that no image carries yet.")] = False,
) -> None:
    """Gives images a label, corrects one or takes it back; lists images that wait for one."""
    with plain_errors():
        words = words or []
        check_request(words, table, n_listed, undo)
        if n_listed:
            list_unlabelled(n_listed)
            return
        name = login_name(by)
        check_text([*words, name])
        if table:
            wanted, open_questions = wanted_of_table(table)
        else:
            wanted, open_questions = wanted_of_words(words, undo=undo), ""
        typer.echo(enter_labels(wanted, by=name, new_class=new_class and not undo) + open_questions)
        warn_of_answers(wanted)


def check_request(words: list[str], table: Path | None, n_listed: int | None, undo: bool) -> None:
    """Nothing. ValueError if it is not exactly one of the things that can be asked for."""
    n_asked = sum([bool(words), table is not None, n_listed is not None])
    n_words_fit = bool(words) if undo else len(words) in (0, 2)
    if n_asked != 1 or not n_words_fit:
        raise ValueError(
            "say one of these: `acclimate label IMAGE LABEL`, `acclimate label --from FILE.csv`, "
            "`acclimate label --list 20`, `acclimate label --undo IMAGE`"
        )
    if len(words) == 2 and not undo and not words[1]:
        raise ValueError(f"the label of {words[0]!r} is empty; to take a label back say `acclimate label --undo IMAGE`")


def check_text(words: list[str]) -> None:
    """Nothing. ValueError lists words that no table in UTF-8 can hold: Linux allows any bytes in a name."""
    odd = [word for word in words if any("\ud800" <= character <= "\udfff" for character in word)]
    if odd:
        raise ValueError(f"{', '.join(map(repr, odd[:3]))} is not UTF-8; rename the image or write the name anew")


def login_name(by: str | None) -> str:
    """Who gives the labels, as in a review. ValueError where neither login name nor git's e-mail address is known."""
    from tasks.register_model import person

    name = person() if by is None else by.strip()
    if by is None and name == "unknown":
        raise ValueError("it is not known who gives the labels; say it with --by NAME")
    return name


def wanted_of_table(table: Path) -> tuple["pd.DataFrame", str]:
    """path, label and asked_of of the rows that say a label, and words on those that don't yet."""
    from tasks.core.labels import read_wanted_labels

    wanted = read_wanted_labels(table)
    is_open = wanted["label"] == ""
    n_open = int(is_open.sum())
    told = f"; {n_open} of the {len(wanted)} rows of {table} {'has' if n_open == 1 else 'have'} no label yet"
    return wanted[~is_open].reset_index(drop=True), told if n_open else ""


def wanted_of_words(words: list[str], *, undo: bool) -> "pd.DataFrame":
    """path, label and asked_of; None as asked_of: of whichever label was entered last."""
    import pandas as pd

    given = [(image, "", None) for image in words] if undo else [(words[0], words[1], "")]
    return pd.DataFrame(given, columns=["path", "label", "asked_of"], dtype=object)


def list_unlabelled(n_listed: int) -> None:
    """Prints target images without a label: of every group one first, in an order that no name decides.

    Those that the last run held out are left out, but for those that the guard asks for.
    """
    from tasks.core.labels import asked_paths, read_labels, with_given_labels
    from tasks.core.manifest import read_manifest
    from tasks.core.runtime import address_seed

    rows = with_given_labels(read_manifest(MANIFEST), read_labels(LABELS))
    is_readable = rows["content_id"] != ""
    rows = rows[(rows["domain"] == "target") & (rows["label"] == "") & is_readable]
    is_held_out = rows["path"].isin(target_paths(rows, "holdout") - asked_paths(TO_LABEL))
    rows = rows[~is_held_out]
    order = rows.assign(order=[address_seed("label", image_id) for image_id in rows["image_id"]]).sort_values("order")
    order = order.assign(turn=order.groupby("group_id").cumcount()).sort_values(["turn", "order"])
    for path in order["path"].head(n_listed):
        typer.echo(path)
    if rows.empty and is_held_out.any():
        told = f"the {int(is_held_out.sum())} without one are held out: nothing may be learnt from them"
        typer.echo(
            f"every readable target image of {MANIFEST} that may be learnt from carries a label; {told}", err=True
        )
    elif rows.empty:
        typer.echo(f"every readable target image of {MANIFEST} carries a label", err=True)


def enter_labels(wanted: "pd.DataFrame", *, by: str, new_class: bool) -> str:
    """One line on what was written. ValueError lists all that is wrong; nothing is written then."""
    from datetime import UTC, datetime

    from tasks.core.labels import (
        added_labels,
        asked_of_latest,
        last_labels,
        read_labels,
        with_given_labels,
        write_labels,
    )
    from tasks.core.manifest import classes_of, read_manifest
    from tasks.params import read_params

    manifest = read_manifest(MANIFEST)
    params = read_params()
    paths = manifest_paths(wanted["path"], set(manifest["path"]), Path(params.build_manifest.root))
    new = wanted.assign(path=paths, by=by, on=datetime.now(UTC).date().isoformat())
    with labels_lock():
        before = read_labels(LABELS)
        rows = with_given_labels(manifest, before)
        let_in = {label for (_, asked_of), label in last_labels(before).items() if label and not asked_of}
        known_classes = {*classes_of(rows), *let_in}
        latest, asked_of = asked_of_latest(before), zip(paths, wanted["asked_of"], strict=True)
        new["asked_of"] = [latest.get(path, "") if of is None else of for path, of in asked_of]
        after = added_labels(before, new, rows=rows, known_classes=known_classes, allow_new_classes=new_class)
        if len(after) > len(before):
            write_labels(LABELS, after)
    entries = after.iloc[len(before) :]
    is_asked = entries["asked_of"] != ""
    now = last_labels(before) | {(path, ""): given for path, given in zip(rows["path"], rows["label"], strict=True)}
    old = [now.get(key, "") for key in zip(entries["path"], entries["asked_of"], strict=True)]
    n_same = len(new.drop_duplicates(["path", "asked_of"])) - len(entries)
    ordinary = set(entries["label"][~is_asked]) - {""}
    sentence = told(entries.assign(old=old), n_same, target_paths(rows, "test"))
    most = params.validate_data.target_labels_per_class
    if ordinary and most is not None:
        sentence += f", at most {most} of a class to train on (validate_data.target_labels_per_class; null = all)"
    return sentence + told_of_classes(ordinary - known_classes)


def manifest_paths(images: Iterable[str], known: set[str], root: Path) -> list[str]:
    """Each image as the manifest names it, or as it was given where the manifest has no such image.

    Understood are the manifest's own spelling and any path to the file itself. ValueError where both fit two images.
    """
    top, real_top = os.path.abspath(root), os.path.realpath(root)
    found, unclear = [], []
    for image in images:
        near = {image, os.path.normpath(image), os.path.relpath(image or ".", top)} & known
        if not near and "\0" not in image:  # one of the two is reached through a link
            in_real_folder = os.path.join(os.path.realpath(os.path.dirname(image)), os.path.basename(image))
            near = {os.path.relpath(in_real_folder, real_top)} & known
        if len(near) > 1:
            unclear.append(f"{image!r} could be {' or '.join(map(repr, sorted(near)))}")
        found.append(min(near, default=image))
    if unclear:
        raise ValueError(f"{'; '.join(unclear[:3])}; name the file with its whole path")
    return found


@contextmanager
def labels_lock() -> Iterator[None]:
    """Held from reading the labels to writing them: of two people's calls at once the second waits for the first."""
    from tasks.core.runtime import acclimate_home

    digest = hashlib.sha256(str(LABELS.resolve()).encode()).hexdigest()[:16]
    path = acclimate_home() / "locks" / f"labels-{digest}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield  # the kernel drops the lock with the file, also when the process is killed


def told(entries: "pd.DataFrame", n_same: int, test_images: set[str]) -> str:
    """The sentence on the written entries (with the `old` label of each); corrections are counted, those of test images apart."""
    if entries.empty:
        return f"nothing to write: {LABELS} says so already ({n_same} {'label' if n_same == 1 else 'labels'})"
    old, given, is_asked = entries["old"], entries["label"], entries["asked_of"] != ""
    counts = {
        "new": int(((given != "") & (old == "")).sum()),
        "changed": int(((given != "") & (old != "") & (given != old)).sum()),
        "confirmed": int((given == old).sum()),
        "taken back": int((given == "").sum()),
        "written before": n_same,
    }
    parts = ", ".join(f"{n} {what}" for what, n in counts.items() if n)
    noun = "label" if len(entries) == 1 else "labels"
    use = (
        "the guard of the next `acclimate run` reads them, nothing else does"
        if is_asked.all()
        else "`acclimate run` uses them"
    )
    sentence = f"{len(entries)} {noun} written to {LABELS} ({parts}); {use}"
    n_test = int((entries["path"].isin(test_images) & (given != old) & ~is_asked).sum())
    if n_test:
        sentence += f"; {n_test} of them concern test images, so test figures from before and after don't compare"
    return sentence


def target_paths(rows: "pd.DataFrame", split: str) -> set[str]:
    """Target images that are given in a split, or that the last run had there."""
    from tasks.core.files import read_table

    tables = [rows, read_table(SPLITS, made_by="validate_data")] if SPLITS.exists() else [rows]
    return {path for t in tables for path in t["path"][(t["domain"] == "target") & (t["split"] == split)]}


def told_of_classes(names: set[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(map(repr, sorted(names)[:3]))
    return f"; no image carried {shown} before: the rule known_label wants source images of each class"


def pack(
    root: Annotated[Path, typer.Argument(help="The folder or archive that holds the images.")],
    out: Annotated[Path, typer.Argument(help="The folder to make.")],
    images_per_shard: Annotated[int, typer.Option("--images-per-shard", min=1, help="Images in one file.")] = 10_000,
) -> None:
    """Packs very many images into a few large files that are quick to copy and to read."""
    from tasks.core.store import open_store, write_pack

    with plain_errors():
        check_place(root, out)
        store = open_store(root)
        paths = [entry.path for entry in store.entries()]
        if not paths:
            raise ValueError(
                f"{root} holds no image, so there is nothing to pack; name the folder that holds the images"
            )
        write_pack(store, paths, out.resolve(), images_per_shard)
        files = [path for path in out.rglob("*") if path.is_file()]
        size_mb = sum(path.stat().st_size for path in files) / 1e6
        typer.echo(f"{len(paths)} images written to {out} ({len(files)} files, {size_mb:.1f} MB)")
        typer.echo(
            f"to use them, write into params.yaml: build_manifest.root: {out}; a table's paths must be relative to it"
        )
        if left_out := store.ignored():
            counts = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in sorted(left_out.items()))
            typer.echo(f"left out, being no images: {counts}")


def check_place(root: Path, out: Path) -> None:
    """Nothing. ValueError if the pack would overwrite something, or lie among the images that it is made of."""
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty; name a folder that does not exist yet, or empty it first")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; name a folder that does not exist yet")
    if out.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{out} lies in {root}, whose images are to be packed; name a folder outside it")
