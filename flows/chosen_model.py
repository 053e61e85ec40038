"""Which model a command is to use: said by alias, version, candidate id, or as a bundle's folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from flows.registry import Version

# Everything heavier is imported by the function that needs it: `acclimate --help` answers at once.

CHAMPION = "champion"

ModelChoice = Annotated[
    str,
    typer.Option(
        "--model", help="An alias, a version's number, a candidate id's first 8 letters, or a bundle's folder."
    ),
]


def chosen_version(name: str, said: str) -> "Version":
    """The registered version. ValueError where there is none; where nothing is champion yet, with what to do."""
    from flows.registry import find, versions

    known = versions(name)
    if said == CHAMPION and known and not any(CHAMPION in each.aliases for each in known):
        raise ValueError(
            f"no version of {name!r} is champion yet: approve one and promote it (`acclimate review list`, `acclimate promote "
            "VERSION`), or name another model with `--model challenger`"
        )
    return find(name, said)


def chosen_bundle(name: str, said: str) -> Path:
    """The folder of the bundle that is meant. ValueError where there is none, or where a byte of it isn't what it was."""
    from tasks.core.bundle import MANIFEST, check_bundle

    if (Path(said) / MANIFEST).is_file():
        check_bundle(Path(said))
        return Path(said)
    if "/" in said:
        raise ValueError(f"--model {said}: that folder holds no {MANIFEST}, so it is no bundle; name a bundle's folder")
    return chosen_version(name, said).checked_folder()
