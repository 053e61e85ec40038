"""The folder that a command writes to: what an earlier run left there is removed, what is someone else's is kept."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

VERDICT = "validation.json"
RESULTS = ("validation.html", "manifest.csv", "facts.csv", "rejected.csv", "profile.json", VERDICT)  # the verdict last
OF_THE_PIPELINE = "gate.json"  # lies beside the results of the stage validate_data, and nowhere else


@dataclass(frozen=True)
class Results:
    """What a command writes. The last file is its verdict: by how that begins we know that the others are ours."""

    command: str
    names: tuple[str, ...]
    beginning: bytes

    @property
    def verdict(self) -> str:
        return self.names[-1]


VALIDATION = Results("acclimate validate", RESULTS, rb'\{\s*"format": \d+,\s*"status": ')


def folder_problems(out: Path, inputs: list[Path], of: Results = VALIDATION) -> list[str]:
    """Sentences on why the results can't be written there: said before hours of measuring."""
    results = {os.path.realpath(out / name) for name in of.names}
    problems = [
        f"{file} would be overwritten by the results; name another folder with --out"
        for file in inputs
        if os.path.realpath(file) in results
    ]
    nearest = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        problems.append(f"--out {out}: {nearest} is not a folder that can be written to; name another one")
    elif foreign := foreign_results(out, of):
        told = ", ".join(foreign)
        problems.append(
            f"--out {out} holds {told} that `{of.command}` has not written; name another folder, or remove them"
        )
    return problems


def foreign_results(out: Path, of: Results = VALIDATION) -> list[str]:
    """Files that bear the names of our results and are someone else's: the pipeline's, or a user's own table."""
    found = [name for name in of.names if os.path.lexists(out / name)]
    verdict = out / of.verdict
    if of.verdict in found and verdict.is_file() and not (out / OF_THE_PIPELINE).exists():
        with verdict.open("rb") as handle:
            if re.match(of.beginning, handle.read(100)):
                return []
    return found


@contextmanager
def all_results_or_none(out: Path, of: Results = VALIDATION) -> Iterator[None]:
    """Removes an earlier run's results, so that no old verdict is taken for the new one; and those of a block that fails."""
    try:
        remove_results(out, of)
        yield
    except BaseException:  # Ctrl-C, too
        remove_results(out, of)
        raise


def remove_results(out: Path, of: Results = VALIDATION) -> None:
    for name in of.names:  # the verdict last: by it we know that the others are ours
        (out / name).unlink(missing_ok=True)
