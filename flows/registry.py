"""What the registry knows: versions, aliases and tags, asked through the stage that registers; and each one's lineage."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.chosen_model import CHAMPION
from flows.lineage import data_md5, made_bundle, params_sha256, path_md5, read_lock, recorded_params
from flows.pins import KEPT, holds
from flows.ranks import tag_realised_ranks
from tasks.core.bundle import MANIFEST, candidate_id, check_bundle
from tasks.core.files import read_json, whole_folder
from tasks.core.promotions import read_promotions
from tasks.core.runtime import acclimate_home
from tasks.register_model import keep_lock, kept_lock, lineage_tags, open_registry, sync_registry

CHALLENGER = "challenger"
MIN_PREFIX = 8
BUNDLE_FACTS = ("verdict", "decision", "adopted", "accuracy")


@dataclass(frozen=True)
class Version:
    """One version of a registered model; its bytes lie in `folder`."""

    name: str
    number: str
    candidate: str
    registered: str  # ISO 8601, UTC
    aliases: tuple[str, ...]
    tags: dict[str, str]

    @property
    def folder(self) -> Path:
        return acclimate_home() / "bundles" / self.candidate

    def checked_folder(self) -> Path:
        """The bundle's folder. ValueError where it isn't here, or isn't what was registered, to the byte."""
        remedy = f"bring it from DVC's remote with `acclimate registry fetch {self.number}`"
        again = "`acclimate registry sync` does so where data/bundle or data/given/champion still holds it"
        if not (self.folder / MANIFEST).is_file():
            raise ValueError(
                f"{self.name} version {self.number} is registered, but its bundle {self.folder} is missing here; {remedy}"
            )
        if (found := candidate_id(self.folder)) != self.candidate:
            raise ValueError(
                f"the bundle {self.folder} has a manifest of sha256 {found[:16]}, not the one that was registered; "
                f"register it again ({again}), or {remedy}"
            )
        try:
            check_bundle(self.folder)
        except ValueError as error:
            raise ValueError(f"{error} ({again}), or {remedy}") from None
        return self.folder


def versions(name: str) -> list[Version]:
    """All versions, the oldest first; none where the model was never registered."""
    with open_registry() as client:
        if not client.search_registered_models(f"name = '{name}'"):
            return []
        aliases = client.get_registered_model(name).aliases
        found = list(_pages(client, name))
    listed = [
        Version(
            name=name,
            number=str(each.version),
            candidate=each.tags.get("candidate_id", ""),
            registered=datetime.fromtimestamp(each.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
            aliases=tuple(sorted(alias for alias, number in aliases.items() if str(number) == str(each.version))),
            tags=dict(each.tags),
        )
        for each in found
    ]
    return sorted((each for each in listed if each.candidate), key=lambda each: int(each.number))


def find(name: str, said: str) -> Version:
    """The version that a number, an alias, or a candidate id's first 8 characters or more name. ValueError if none or many."""
    known = versions(name)
    found = [each for each in known if said == each.number or said in each.aliases]
    if not found and len(said) >= MIN_PREFIX:
        found = [each for each in known if each.candidate.startswith(said)]
    if len({each.candidate for each in found}) == 1:
        return found[0]
    if found:
        told = ", ".join(each.candidate[:16] for each in found)
        raise ValueError(f"{said!r} names several candidates of {name}: {told}; write more of the id")
    told = ", ".join(each.number for each in known) or "none: `acclimate run` registers its model"
    raise ValueError(
        f"no version of the model {name!r} has the number, alias or candidate id {said!r}; versions are {told}; "
        "see `acclimate registry list`"
    )


def registered_bundle(name: str, said: str) -> Path:
    """The folder of a version's bundle, checked to the byte."""
    return find(name, said).checked_folder()


def move_alias(version: Version, alias: str) -> None:
    with open_registry() as client:
        client.set_registered_model_alias(version.name, alias, version.number)


def promotions_path() -> Path:
    return acclimate_home() / "promotions.jsonl"


def sync(bundle: Path, name: str) -> str:
    """One line on what was done: the bundle is registered and whole, and its lineage complete once its run has ended."""
    before = challenger(name)
    told = sync_registry(bundle, name)
    mended = replace_damaged(bundle)
    note_lineage(bundle, name)
    known = versions(name)
    with open_registry() as client:
        tag_realised_ranks(client, name, {version.number: version.folder for version in known})
    (version,) = (each for each in known if each.candidate == candidate_id(bundle))
    if part_challenger(name, before):
        is_now = CHAMPION in version.aliases
        role = f"it is the {CHAMPION}" if is_now else f"it was {CHAMPION}, so it is no {CHALLENGER}"
        told = f"candidate {version.candidate[:12]} is registered as {name} version {version.number}; {role}"
    return f"{told}; {mended}" if mended else told


def challenger(name: str) -> Version | None:
    return next((each for each in versions(name) if CHALLENGER in each.aliases), None)


def part_challenger(name: str, before: Version | None = None) -> str | None:
    """What was done: a version that is or was champion is no challenger; `before` is again, unless it was champion, too."""
    champions = {each.candidate for each in versions(name) if CHAMPION in each.aliases}
    with suppress(ValueError):  # a damaged log: the aliases alone count until it is mended
        champions |= {event.candidate for event in read_promotions(promotions_path(), name)}
    now = challenger(name)
    if now is None or now.candidate not in champions:
        return None
    if before and before.candidate not in champions:
        move_alias(before, CHALLENGER)
    else:
        with open_registry() as client:
            client.delete_registered_model_alias(name, CHALLENGER)
    return f"{name} version {now.number} is or was {CHAMPION}, so it is no {CHALLENGER}"


def replace_damaged(bundle: Path) -> str | None:
    """What was done: a registered copy of this candidate that was damaged is the whole one again. None where there was none."""
    stored = acclimate_home() / "bundles" / candidate_id(bundle)
    if not stored.is_dir() or holds(stored, bundle):
        return None
    check_bundle(bundle)
    with whole_folder(stored) as part:
        shutil.copytree(bundle, part, dirs_exist_ok=True, ignore=shutil.ignore_patterns(KEPT))
    return f"the damaged {stored} was replaced by {bundle}"


def note_lineage(bundle: Path, name: str) -> None:
    """Keeps the dvc.lock of the run that ended with this bundle, and tags what it says; the first whole one stays.

    Within the stage the lock has no entry of the bundle yet, and a later run may have written over it.
    """
    made = path_md5(bundle)
    candidate = candidate_id(bundle)
    with suppress(FileNotFoundError):
        if made_bundle(read_lock(kept_lock(candidate))) == made:
            return
    with suppress(FileNotFoundError):  # a bundle that came without a run
        stages = read_lock(Path("dvc.lock"))
        if made_bundle(stages) != made:
            return
        keep_lock(candidate)
        tags = lineage_tags() | {"data_md5": data_md5(stages), "params_sha256": params_sha256(stages)}
        version = find(name, candidate)
        with open_registry() as client:
            for key, value in tags.items():
                client.set_model_version_tag(name, version.number, key, value)


def differences(a: Version, b: Version) -> list[tuple[str, str, str]]:
    """(what, in a, in b) of all that differs: tags, facts, figures on test images, parameters, files."""
    of_a, of_b = ({**dict(_facts(each))} for each in (a, b))
    keys = [*of_a, *(key for key in of_b if key not in of_a)]
    return [
        (key, of_a.get(key, "not there"), of_b.get(key, "not there")) for key in keys if of_a.get(key) != of_b.get(key)
    ]


def _facts(version: Version) -> Iterator[tuple[str, str]]:
    folder = version.checked_folder()
    manifest = read_json(folder / "manifest.json", made_by="register_model")
    yield "registered", version.registered
    yield from ((key, str(manifest[key])) for key in BUNDLE_FACTS if key in manifest)
    yield from ((f"tag {key}", value) for key, value in sorted(version.tags.items()) if key not in BUNDLE_FACTS)
    metrics = read_json(folder / "metrics.json", made_by="evaluate_model") if (folder / "metrics.json").exists() else {}
    yield from ((f"metrics {key}", value) for key, value in _leaves(metrics))
    with suppress(FileNotFoundError):
        yield from (
            (f"params {key}", value) for key, value in _leaves(recorded_params(read_lock(kept_lock(version.candidate))))
        )
    yield from ((f"sha256 of {name}", sha256[:16]) for name, sha256 in manifest["files"].items())


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, str(value)


def _pages(client: Any, name: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", page_token=token)
        yield from page
        token = page.token
        if not token:
            return
