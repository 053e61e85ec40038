"""The features of `acclimate select`: one candidate's view of the drawn images."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from flows.select_images import Drawn, Place
from tasks.core.batches import ImageList
from tasks.core.extraction import Pass, Sight, extract
from tasks.core.features import Features, read_features, row_file, write_index
from tasks.core.features_cache import FeaturesCache, cache_key
from tasks.core.images import ImageFiles
from tasks.core.runtime import address_seed
from tasks.core.selection import CandidateFeatures
from tasks.core.zoo import Pretrained, load_candidate, source_probabilities

if TYPE_CHECKING:
    from tasks.core.zoo_file import Candidate
    from tasks.params import SelectionBook


def candidate_features(
    candidate: "Candidate", places: dict[str, Place], drawn: Drawn, book: "SelectionBook", folder: Path
) -> tuple[CandidateFeatures, list[str]]:
    """What the scores need of one candidate, and news for people; folder/target and folder/source hold its features."""
    pretrained = load_candidate(candidate, 2, address_seed(book.seed, "unused head"))
    pretrained.model.to(book.runtime.device)
    looked_at = pd.concat([drawn.labelled, drawn.target]).drop_duplicates("image_id").sort_values("path")
    found, news = {}, []
    for role, rows in (("target", looked_at), ("source", drawn.source)):
        if role in places:
            sight = sight_of(candidate, places[role], rows, book)
            found[role], done = seen(pretrained, candidate, sight, book, folder / role)
            news += told(candidate.name, done, book.extract_features.batch_size)
    labelled_ND = found["target"].plain_rows(list(drawn.labelled["image_id"]))
    nothing_SD = np.zeros((0, candidate.feature_dim), np.float32)
    features = CandidateFeatures(
        labelled_ND=labelled_ND,
        source_SD=found["source"].plain_rows(list(drawn.source["image_id"])) if "source" in found else nothing_SD,
        target_TD=found["target"].plain_rows(list(drawn.target["image_id"])),
        theta_NZ=source_probabilities(pretrained, labelled_ND),
    )
    return features, news


def sight_of(candidate: "Candidate", place: Place, rows: pd.DataFrame, book: "SelectionBook") -> Sight:
    side_px = book.zoo.image_px or candidate.native_px
    files = ImageFiles(place.root, side_px, candidate.interpolation, candidate.crop_share)
    ids, paths, n = tuple(rows["image_id"]), tuple(rows["path"]), len(rows)
    images = ImageList(files, ids, paths, (-1,) * n, candidate.mean, candidate.std)
    return Sight(images, tuple(rows["content_id"]), np.arange(n), np.zeros(n, int))


def seen(
    pretrained: Pretrained, candidate: "Candidate", sight: Sight, book: "SelectionBook", folder: Path
) -> tuple[Features, Pass]:
    """The features of one domain, and how the pass went."""
    settings, side_px = book.extract_features, book.zoo.image_px or candidate.native_px
    network = [value for name, value in vars(candidate).items() if name not in ("weights_path", "bundle")]

    def open_cache(batch_size: int) -> FeaturesCache:
        made_from = [*network, side_px, book.runtime.n_threads, settings.dtype, batch_size]
        key = cache_key(book.runtime.device, *made_from)
        return FeaturesCache(key, candidate.feature_dim, settings.dtype)

    folder.mkdir(parents=True)
    with row_file(folder / "x.npy", len(sight), candidate.feature_dim, settings.dtype) as out:
        done = extract(
            pretrained.model.backbone, sight, out,
            open_cache=open_cache, batch_size=settings.batch_size, name=candidate.name,
        )  # fmt: skip
    write_index(folder, sight.images.image_ids, sight.view)
    return read_features(folder), done


def told(name: str, done: Pass, batch_size: int) -> list[str]:
    if done.batch_size == batch_size:
        return []
    return [
        f"{name}: memory ran out with batches of {batch_size}, so {done.batch_size} was taken for all; the last bits depend on "
        "it: set extract_features.batch_size to it for the same bytes everywhere"
    ]
