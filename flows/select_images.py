"""The images of `acclimate select`: listed, checked and drawn without a project around them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.could_not_run import say
from flows.validate import Request as Listing
from flows.validate import is_table, listed, manifest_of, measure

if TYPE_CHECKING:
    import pandas as pd

    from tasks.core.store import Store
    from tasks.params import RuleBook, SelectModel

LABEL_RULES = ("label_present", "known_label", "source_class_size", "one_label_per_pixels", "one_label_per_picture")
LABELLED_SPLITS = ("", "train", "val")


@dataclass(frozen=True)
class Options:
    """How the images lie: what is said of tables goes for both tables, what is said of folders for both folders."""

    target: Path
    source: Path | None
    columns: dict[str, str | None]
    audit: tuple[str, ...]
    root: Path | None
    layout: str | None

    @property
    def places(self) -> dict[str, Path]:
        return {"target": self.target} | ({"source": self.source} if self.source else {})


@dataclass(frozen=True)
class Place:
    """One domain: what its paths are relative to, and the manifest of all its images."""

    root: Path
    store: "Store"
    manifest: "pd.DataFrame"


@dataclass(frozen=True)
class Drawn:
    """Rows of accepted images: labelled target ones, samples of both domains; sentences on what was left out and why."""

    labelled: "pd.DataFrame"
    target: "pd.DataFrame"
    source: "pd.DataFrame"
    told: list[str]
    counts: dict[str, dict[str, int] | None]


def option_problems(options: Options) -> list[str]:
    """Sentences on options that mean nothing for any of the places."""
    kinds = [is_table(place) for place in options.places.values()]
    of_tables: dict[str, Any] = {f"--{what}-column": name for what, name in options.columns.items()}
    of_tables |= {"--audit-columns": options.audit, "--root": options.root}
    idle = [option for option, value in of_tables.items() if value and not any(kinds)]
    problems = [f"{', '.join(idle)} can't be used: there is no table to use it with; leave it out"] if idle else []
    if options.layout and all(kinds):
        problems.append("--layout can't be used: there is no folder or archive to use it with; leave it out")
    if options.audit and not is_table(options.target) and any(kinds):
        problems.append("--audit-columns can't be used: the target is no table; leave it out")
    if options.source and options.source.resolve() == options.target.resolve():
        problems.append(
            f"--source and --target are both {options.target}; name two sets of images, or the target alone"
        )
    return problems


def place_of(role: str, options: Options) -> Place:
    """What lies there. ValueError where nothing can be read; says aloud what was guessed."""
    place = options.places[role]
    of_table = is_table(place)
    columns = options.columns | {"domain": None}
    listing = Listing(
        place=place,
        root=options.root if of_table else None,
        layout=None if of_table else options.layout,
        columns=columns if of_table else dict.fromkeys(columns),
        audit=options.audit if of_table and role == "target" else (),
        source=(), target=None, rules=Path(), accepted=None,
    )  # fmt: skip
    say(f"{role}: {place}")
    store, rows = listed(listing)
    return Place((listing.root or place.parent) if of_table else place, store, manifest_of(rows, listing, store))


def drawn_images(
    places: dict[str, Place], book: "RuleBook", settings: "SelectModel", seed: int, scratch: Path
) -> Drawn:
    """The images to look at. ValueError where the rules block the set, or leave no target image."""
    from tasks.core.features import capped

    rows, told = accepted_rows(places, book, scratch)
    n_test = int((rows["split"] == "test").sum())
    if n_test:
        told.append(f"{n_test} images of the split test are left out: no choice may see them")
    rows = rows[rows["split"] != "test"].reset_index(drop=True)
    target, source = (rows[rows["domain"] == role].reset_index(drop=True) for role in ("target", "source"))
    for role, found in (("target", target), ("source", source)):
        if role in places and found.empty:
            raise ValueError(f"no image of --{role} is left to look at: {'; '.join(told)}")
    labelled = target[(target["label"] != "") & target["split"].isin(LABELLED_SPLITS)]
    is_alone = labelled.groupby("label")["label"].transform("size") < 2
    if is_alone.any():
        told.append(f"{int(is_alone.sum())} labels of classes with a single labelled target image are left out")
    labelled = capped(labelled[~is_alone].reset_index(drop=True), settings.max_labels, seed)
    samples = {
        role: capped(rows, settings.max_per_domain, seed) for role, rows in (("target", target), ("source", source))
    }
    counts = counts_of(places, target, source, labelled)
    return Drawn(labelled, samples["target"], samples["source"], told, counts)


def counts_of(
    places: dict[str, Place], target: "pd.DataFrame", source: "pd.DataFrame", labelled: "pd.DataFrame"
) -> dict[str, dict[str, int] | None]:
    found: dict[str, dict[str, int] | None] = {
        role: {"n_listed": len(places[role].manifest), "n_accepted": len(rows)} if role in places else None
        for role, rows in (("target", target), ("source", source))
    }
    return found | {"labels": {"n_images": len(labelled), "n_classes": labelled["label"].nunique()}}


def accepted_rows(places: dict[str, Place], book: "RuleBook", scratch: Path) -> tuple["pd.DataFrame", list[str]]:
    """What the rules accept, each row with its domain, and what they say. ValueError where other rules than on labels block.

    Which labels the target has is its own affair: a network is judged by how well it tells them apart.
    """
    from tasks.core.validation import blocking
    from tasks.validate_data import checked_set

    manifest, facts = joined(places, scratch)
    checked = checked_set(manifest, facts, book, {"origins": {}})
    findings = checked.validation["rules"]
    fatal = blocking([found for found in findings if found["rule"] not in LABEL_RULES])
    if fatal:
        raise ValueError(
            f"the images are not fit to choose by: {'; '.join(fatal)}; see which ones with `acclimate validate`, mend them "
            "and run again"
        )
    reasons = [f"{f['rule']} {f['n_failed']}" for f in findings if f.get("policy", "keep") != "keep" and f["n_failed"]]
    told = []
    if n_rejected := len(checked.rejected):
        told.append(f"{n_rejected} of {len(manifest)} images are left out by the rules ({', '.join(reasons)})")
    told += blocking(findings)
    rows = checked.whole.accepted
    return (rows if "source" in places else rows.assign(domain="target")), told


def joined(places: dict[str, Place], scratch: Path) -> tuple["pd.DataFrame", "pd.DataFrame"]:
    """Manifest and facts of all places; ids begin with the role, since both may hold a file of the same path.

    Without a source there are no roles: no rule on two domains has a say then.
    """
    import pandas as pd

    from tasks.core.facts import read_facts

    manifests, facts = [], []
    for role, place in places.items():
        rows = place.manifest
        measure(scratch / role, rows, place.store)
        found = read_facts(scratch / role / "facts.csv")
        own_group = rows["group_id"] == rows["image_id"]
        ids = f"{role}/" + rows["image_id"]
        roles = role if "source" in places else ""
        groups = rows["group_id"].where(~own_group, ids)
        manifests.append(rows.assign(image_id=ids, group_id=groups, domain=roles, origin=role))
        facts.append(found.assign(image_id=f"{role}/" + found["image_id"]))
    manifest = pd.concat(manifests, ignore_index=True)
    audit = [name for name in manifest.columns if name.startswith("audit_")]
    manifest[audit] = manifest[audit].fillna("")
    return manifest, pd.concat(facts, ignore_index=True)
