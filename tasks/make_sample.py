"""make_sample: real images and a small zoo without any download, for as long as no own data replaces them.

reads   the fonts of matplotlib and the handwritten digits of scikit-learn, from the installed packages
writes  data/sample (images/, images.csv, zoo/)
"""

from pathlib import Path

from tasks.core.files import whole_folder
from tasks.core.runtime import run_stage, use_machine
from tasks.core.sample import write_images, write_sample_table
from tasks.core.sample_zoo import Pretraining, check_names, write_zoo
from tasks.params import Params, read_params

SAMPLE = Path("data/sample")


def main() -> None:
    params = read_params()
    settings = params.make_sample
    check_names({"zoo_images": settings.zoo_images, "zoo_epochs": settings.zoo_epochs})
    with whole_folder(SAMPLE) as folder:
        if not is_used(params.build_manifest.root, params.zoo.folder):
            write_sample_table(folder / "images.csv")
            print(f"no sample made: neither build_manifest.root nor zoo.folder points into {SAMPLE}")  # noqa: T201  news
            return
        recipes = _recipes(params, use_machine(params.runtime.device, params.runtime.n_threads))
        table = write_images(folder / "images", n_source_images=settings.n_source_images, seed=params.seed)
        write_sample_table(folder / "images.csv", table)
        write_zoo(folder / "zoo", recipes, seed=params.seed)


def is_used(*paths: str) -> bool:
    """True where any of the paths is the sample's folder or lies inside it."""
    return any(Path(path).resolve().is_relative_to(SAMPLE.resolve()) for path in paths)


def _recipes(params: Params, device: str) -> dict[str, Pretraining]:
    settings = params.make_sample
    return {
        name: Pretraining(
            n_images=n_images,
            n_val_images=settings.zoo_val_images,
            n_epochs=settings.zoo_epochs[name],
            batch_size=settings.zoo_batch_size,
            lr=settings.zoo_lr,
            device=device,
        )
        for name, n_images in settings.zoo_images.items()
    }


if __name__ == "__main__":
    run_stage(main)
