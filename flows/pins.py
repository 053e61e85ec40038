"""The given files that follow the champion: its bundle, and the profile of the data that was accepted with it."""

import shutil
from pathlib import Path

from tasks.core.bundle import candidate_id, check_bundle
from tasks.core.files import whole_file, whole_folder

KEPT = ".gitkeep"  # git keeps the folder before there is a champion


def pin(bundle: Path, champion: Path, accepted: Path) -> bool:
    """Whether anything had to change: afterwards the two places hold this bundle, and its data's profile.

    The caller holds the workspace's run lock. A kill leaves each of the two whole or absent; the next call completes them.
    """
    for part in champion.parent.glob(f".{champion.name}.*.part"):  # of a call that was killed
        shutil.rmtree(part)
    is_pinned, is_accepted = holds(champion, bundle), _same(accepted, bundle / "profile.json")
    if not is_pinned:
        with whole_folder(champion) as part:
            shutil.copytree(bundle, part, dirs_exist_ok=True)
            (part / KEPT).touch()
    if not is_accepted:
        with whole_file(accepted) as part:
            shutil.copyfile(bundle / "profile.json", part)
    return not (is_pinned and is_accepted)


def holds(folder: Path, bundle: Path) -> bool:
    """Whether the folder holds that bundle, to the byte."""
    try:
        if candidate_id(folder) != candidate_id(bundle):
            return False
        check_bundle(folder)
    except (ValueError, FileNotFoundError):
        return False
    return True


def _same(path: Path, other: Path) -> bool:
    return path.exists() and path.read_bytes() == other.read_bytes()
