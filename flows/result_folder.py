"""The folder that `acclimate validate` writes to: what an earlier run left there is removed, what is someone else's is kept."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VERDICT = "validation.json"
RESULTS = ("validation.html", "manifest.csv", "facts.csv", "rejected.csv", "profile.json", VERDICT)  # the verdict last
OF_THE_PIPELINE = "gate.json"  # lies beside the results of the stage validate_data, and nowhere else


def folder_problems(out: Path, inputs: list[Path]) -> list[str]:
    """Sentences on why the results can't be written there: said before hours of measuring."""
    results = {os.path.realpath(out / name) for name in RESULTS}
    problems = [
        f"{file} would be overwritten by the results; name another folder with --out"
        for file in inputs
        if os.path.realpath(file) in results
    ]
    nearest = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        problems.append(f"--out {out}: {nearest} is not a folder that can be written to; name another one")
    elif foreign := foreign_results(out):
        told = ", ".join(foreign)
        problems.append(
            f"--out {out} holds {told} that `acclimate validate` has not written; name another folder, or remove them"
        )
    return problems


def foreign_results(out: Path) -> list[str]:
    """Files that bear the names of our results and are someone else's: the pipeline's, or a user's own table."""
    found = [name for name in RESULTS if os.path.lexists(out / name)]
    verdict = out / VERDICT
    if VERDICT in found and verdict.is_file() and not (out / OF_THE_PIPELINE).exists():
        with verdict.open("rb") as handle:
            if re.match(rb'\{\s*"format": \d+,\s*"status": ', handle.read(100)):
                return []
    return found


@contextmanager
def all_results_or_none(out: Path) -> Iterator[None]:
    """Removes an earlier run's results, so that no old verdict is taken for the new one; and those of a block that fails."""
    try:
        remove_results(out)
        yield
    except BaseException:  # Ctrl-C, too
        remove_results(out)
        raise


def remove_results(out: Path) -> None:
    for name in RESULTS:  # the verdict last: by it we know that the others are ours
        (out / name).unlink(missing_ok=True)
