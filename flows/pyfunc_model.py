"""An MLflow model around a bundle: safetensors and JSON, never a pickle ("models from code").

    python -m flows.pyfunc_model BUNDLE FOLDER          # writes the MLflow model to FOLDER
    mlflow.pyfunc.load_model(FOLDER).predict([path, image_bytes])

MLflow keeps a copy of this file and of `tasks`, and runs the copy where the model is loaded: it must import nothing else.
"""

import sys
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext, save_model

NEEDS = ("numpy", "opencv-python-headless", "pandas", "pillow", "safetensors", "threadpoolctl", "torch", "torchvision")


class BundleModel(PythonModel):
    """Images to the rows that `acclimate predict` writes; an image that can't be read has its reason in `error`."""

    def load_context(self, context: PythonModelContext) -> None:
        """ValueError where the bundle isn't what was registered, to the byte."""
        from tasks.core.classifier import load_classifier

        self.classifier = load_classifier(Path(context.artifacts["bundle"]), "cpu")

    def predict(self, context: PythonModelContext, model_input, params: Any = None) -> pd.DataFrame:  # type: ignore[no-untyped-def]
        """`model_input`: bytes or paths of images, as a list or the one column of a table; MLflow warns of any hint on it."""
        from tasks.core.classifier import predicted

        images = model_input.iloc[:, 0] if isinstance(model_input, pd.DataFrame) else model_input
        return pd.concat(predicted(self.classifier, map(_named, range(len(images)), images)), ignore_index=True)


def _named(number: int, image: str | bytes) -> Any:
    if isinstance(image, bytes):
        return f"image {number + 1}", lambda: BytesIO(image)
    return str(image), lambda: Path(image)


def save(bundle: Path, folder: Path) -> None:
    """The MLflow model stands in `folder`, which must not exist."""
    import tasks.core

    project = Path(tasks.core.__file__).parents[1]
    needs = [f"{name}=={version(name)}" for name in NEEDS]
    save_model(
        path=str(folder), python_model=__file__, artifacts={"bundle": str(bundle)}, code_paths=[str(project)],
        pip_requirements=needs,
    )  # fmt: skip


if __name__ == "__main__":
    from tasks.core.bundle import check_bundle
    from tasks.core.runtime import quiet_tools

    quiet_tools()
    check_bundle(Path(sys.argv[1]))
    save(Path(sys.argv[1]), Path(sys.argv[2]))
else:
    set_model(BundleModel())
