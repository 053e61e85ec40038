"""How frequent the classes are in the target, as a person states it: no label-free figure sees that they are others.

Axis C: classes.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

MAX_NAMES = 10  # in a sentence


def stated_shares(
    stated: str | dict[str, float] | None, classes: Sequence[str], source_labels: Sequence[str]
) -> np.ndarray | None:
    """(C,) shares that sum to 1, from counts or shares per class; "source": those of its labels; None: nobody knows.

    ValueError where other classes are named than the source's.
    """
    if stated is None:
        return None
    if isinstance(stated, str):
        n_of = Counter(source_labels)
        count_C = np.array([n_of[name] for name in classes], dtype=float)
        return count_C / count_C.sum()
    missing, unknown = sorted(set(classes) - set(stated)), sorted(set(stated) - set(classes))
    if missing or unknown:
        told = [f"{word}: {_listed(names)}" for word, names in (("missing", missing), ("no class", unknown)) if names]
        raise ValueError(
            f"params.yaml: guard_adaptation.class_shares needs one number for each class of the source ({'; '.join(told)}); "
            "quote names that YAML would read as numbers or as true and false"
        )
    share_C = np.array([stated[name] for name in classes], dtype=float)
    return share_C / share_C.sum()


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(map(repr, names[:MAX_NAMES])) + more
