"""Which pretrained candidate really was the best: ranks of the models that were trained on the same data, as registry tags."""

from collections import defaultdict
from typing import Any

from tasks.core.files import read_json

REALISED_RANK = "realised_rank"


def realised_ranks(manifests: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Version → "1 of 2": its candidate's place by the mean test accuracy of all versions that started from it.

    manifests: each version's bundle manifest. Compared are versions of the same data (the profile's hash); a data set on which
    only one candidate was trained ranks nobody. Equal accuracies share a place.
    """
    accuracy: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for told in manifests.values():
        if "pretrained" in told:
            accuracy[told["files"]["profile.json"]][told["pretrained"]].append(told["accuracy"])
    ranks = {}
    for version, told in manifests.items():
        of_data = accuracy.get(told["files"].get("profile.json", ""), {})
        if "pretrained" not in told or len(of_data) < 2:
            continue
        mean = {name: sum(values) / len(values) for name, values in of_data.items()}
        place = 1 + sum(value > mean[told["pretrained"]] for value in mean.values())
        ranks[version] = f"{place} of {len(mean)}"
    return ranks


def tag_realised_ranks(client: Any, name: str, folders: dict[str, Any]) -> dict[str, str]:
    """The ranks, after they were written to the versions; folders: version → its bundle's folder, where it is here."""
    manifests = {
        number: read_json(folder / "manifest.json", made_by="register_model")
        for number, folder in folders.items()
        if (folder / "manifest.json").exists()
    }
    ranks = realised_ranks(manifests)
    for number, rank in ranks.items():
        client.set_model_version_tag(name, number, REALISED_RANK, rank)
    return ranks
