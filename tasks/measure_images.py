"""measure_images: facts of every image, each decoded once.

reads   data/manifest.csv, the images
writes  data/facts.csv
"""

from pathlib import Path

from tasks.core.facts import measure_images
from tasks.core.files import write_table
from tasks.core.manifest import read_manifest
from tasks.core.runtime import run_stage
from tasks.params import read_params


def main() -> None:
    params = read_params()
    manifest = read_manifest(Path("data/manifest.csv"))
    facts = measure_images(Path(params.build_manifest.root), list(manifest["image_id"]), list(manifest["path"]))
    write_table(Path("data/facts.csv"), facts)


if __name__ == "__main__":
    run_stage(main)
