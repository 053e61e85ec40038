"""What the groups are and what counts as one draw, for a person who never saw the table or the code."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.core.bias.clusters import MIN_CLUSTERS
from tasks.core.bias.sentences import counted, shown
from tasks.core.bias.table import THIRDS, TIMES
from tasks.core.bias_words import CLUSTER

NOT_EXPLAINED = "What it stands for and who filled it in was not written down: ask before you decide."
FACTS = {
    "width_px": "width in the file, pixels",
    "height_px": "height in the file, pixels",
    "n_bits": "bits of a channel",
    "n_frames": "frames in the file",
    "exif_orientation": "EXIF's note on how to turn the picture",
    "brightness": "mean grey value, 0 dark to 1 bright",
    "contrast": "standard deviation of the grey values, 0 to 1",
    "brightness_p5": "grey value that the darkest 5 % of the pixels stay below, 0 to 1",
    "brightness_p99": "grey value that the brightest 1 % of the pixels exceed, 0 to 1",
    "sharpness": "variance of the Laplacian of the grey values: low where a picture is blurred or flat",
    "entropy": "bits of the histogram of grey values",
    "saturation": "how colourful, 0 grey to 1",
}  # of `tasks.core.facts`


@dataclass(frozen=True)
class Origin:
    """Where the columns come from.

    table: name of the file; together: a sentence on where group_id comes from, "" = the table has none; n_clusters: how many
    different group_ids the audited images hold; explained: what a person wrote about a column.
    """

    table: str = ""
    together: str = ""
    n_clusters: int | None = None
    explained: Mapping[str, str] = field(default_factory=dict)


def column_words(verdict: dict[str, Any], origin: Origin) -> list[tuple[str, str]]:
    """Each audit column, intersection, slice and group_id with a sentence on what it is."""
    columns = [name for name in verdict["columns"] if TIMES not in name and not name.endswith(THIRDS)]
    slices = [name for name in verdict["columns"] if name.endswith(THIRDS)]
    told = [(name, _of_table(name, origin)) for name in columns]
    if any(TIMES in name for name in verdict["columns"]):
        told.append((f"a{TIMES}b", "An intersection: images that are of one group in column a and of one in column b."))
    told += [(name, _of_fact(name, origin)) for name in slices]
    return [*told, (CLUSTER, _of_clusters(verdict, origin))]


def _of_table(column: str, origin: Origin) -> str:
    said = origin.explained.get(column)
    return f"Column of {origin.table or 'the table'}. {_ended(said) if said else NOT_EXPLAINED}"


def _of_fact(column: str, origin: Origin) -> str:
    fact = column.removesuffix(THIRDS)
    meaning = f" ({FACTS[fact]})" if fact in FACTS else ""
    said = origin.explained.get(fact)
    start = f"Measured on each image{meaning} and cut into three groups of equal size."
    return f"{start} {_ended(said)}" if said else start


def _of_clusters(verdict: dict[str, Any], origin: Origin) -> str:
    if not origin.together:
        return "There is no such column, so nobody can say which images belong together: each counts by itself."
    said = origin.explained.get(CLUSTER)
    meaning = _ended(said) if said else "Images with the same one belong together, as those of one person or camera do."
    n = (
        ""
        if origin.n_clusters is None
        else f" These {counted(verdict['n'], 'image')} hold {origin.n_clusters:,} of them."
    )
    return f"{origin.together} {meaning}{n}"


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith((".", "!", "?", "…")) else f"{sentence}."


def draws_words(sampling: dict[str, dict[str, Any]], origin: Origin) -> list[str]:
    """What the intervals of each column take as drawn by itself, all columns of one kind in one sentence."""
    allowed = [_with_fewest(name, own) for name, own in sampling.items() if own["unit"] == "group"]
    limited = [_with_fewest(name, own) for name, own in sampling.items() if own["is_limiting"]]
    told = []
    if allowed:
        told.append(
            f"The intervals of {', '.join(allowed)} allow for images of one group_id being alike. In brackets: how many "
            "group_ids the group that has fewest holds."
        )
    if limited:
        told.append(
            f"The intervals of {', '.join(limited)} take each image as drawn by itself and may be too narrow, since some group "
            f"holds fewer than {MIN_CLUSTERS} group_ids (in brackets: the fewest). A required rule on such a column stays "
            "inconclusive."
        )
    if sampling and origin.together and not told:
        told.append("No two images share a group_id, so the intervals take each image as drawn by itself.")
    return told


def _with_fewest(column: str, own: dict[str, Any]) -> str:
    return f"{shown(column)} ({own['n_clusters']:,})"
