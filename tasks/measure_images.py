"""measure_images: facts of every image, each decoded once; contents that an earlier run measured are not decoded again.

reads   data/manifest.csv, the images
writes  data/facts.csv
"""

from pathlib import Path

from tasks.core.facts import measure_images, write_facts
from tasks.core.facts_cache import FactsCache
from tasks.core.manifest import read_manifest
from tasks.core.runtime import run_stage
from tasks.core.store import open_store
from tasks.params import read_params


def main() -> None:
    params = read_params()
    manifest = read_manifest(Path("data/manifest.csv"))
    n_usable = int((manifest["problem"] == "").sum())
    with FactsCache() as cache:
        write_facts(
            Path("data/facts.csv"), measure_images(open_store(Path(params.build_manifest.root)), manifest, cache)
        )
    print(f"{n_usable} images: {n_usable - cache.n_found} measured, {cache.n_found} known from the cache")  # noqa: T201  news
    if cache.problem:
        print(f"the cache of facts could not be used: {cache.problem}")  # noqa: T201  news


if __name__ == "__main__":
    run_stage(main)
