"""The reference in a bundle: which images it is made of, what the model says of them, and how new images are told apart."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from tasks.core.batches import ImageList
from tasks.core.images import ImageFiles
from tasks.core.model import ImageModel
from tasks.core.reference import (
    MAX_IMAGES,
    Reference,
    Seen,
    look,
    read_reference,
    reference_of,
    reference_rows,
    sample_of,
    told_apart,
    write_reference,
)


class MeanColour(nn.Module):
    def forward(self, x_NCHW: Tensor) -> Tensor:
        return x_NCHW.mean((2, 3))


def red_or_blue() -> ImageModel:
    """Features are the mean of red, green and blue; logits are red and blue."""
    head = nn.Linear(3, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 0, 1.0]]))
        head.bias.zero_()
    return ImageModel(MeanColour(), head)


def seen(n: int, labels: list[int] | None = None) -> Seen:
    right = np.full(n, -1, np.int8) if labels is None else np.array(labels, np.int8)
    return Seen(np.zeros((n, 3), np.float32), np.linspace(0.5, 1, n).astype(np.float32), right)


def images(folder: Path, colours: list[tuple[int, int, int]], labels: list[int]) -> ImageList:
    folder.mkdir()
    for number, colour in enumerate(colours):
        Image.new("RGB", (4, 4), colour).save(folder / f"{number}.png")
    names = tuple(f"{number}.png" for number in range(len(colours)))
    return ImageList(ImageFiles(folder, 4), names, names, tuple(labels), (0.0,) * 3, (1.0,) * 3)


def test_the_reference_says_what_the_model_makes_of_each_image(tmp_path: Path) -> None:
    """Red, blue and violet at temperature .5: logits (2, 0), (0, 2), (2, 2); the second is labelled red, the third not."""
    source = images(tmp_path / "source", [(255, 0, 0), (0, 0, 255), (255, 0, 255)], [0, 0, -1])
    target = images(tmp_path / "target", [], [])
    found = reference_of(red_or_blue(), source, target, temperature=0.5, batch_size=2)
    sure = np.exp(2) / (np.exp(2) + 1)
    assert found.source.confidence_N == pytest.approx([sure, sure, 0.5])
    assert found.source.right_N.tolist() == [1, 0, -1]
    assert found.source.features_ND == pytest.approx(np.array([[1, 0, 0], [0, 0, 1], [1, 0, 1]]))
    assert found.target.features_ND.shape == (0, 3)


def test_looking_gives_what_the_network_gives() -> None:
    model, x = red_or_blue(), torch.rand(5, 3, 4, 4)
    features, probs = look(model, [x[:3], x[3:]], 1.0)
    with torch.inference_mode():
        assert probs == pytest.approx(model(x).softmax(1).numpy(), abs=1e-6)
        assert features == pytest.approx(model.features(x).numpy())


def manifest(n_target: int) -> pd.DataFrame:
    rows = [("s0", "source", "val", "a"), ("s1", "source", "train", "a")]
    rows += [("t0", "target", "val", "a"), ("t1", "target", "guard", ""), ("t2", "target", "holdout", "")]
    rows += [("t3", "target", "test", ""), ("t4", "target", "train", "b"), ("t5", "target", "unlabelled", "")]
    rows += [(f"h{i}", "target", "holdout", "") for i in range(n_target)]
    return pd.DataFrame(rows, columns=["image_id", "domain", "split", "label"])


def test_only_held_out_images_are_taken_and_the_guards_labels_filled_in() -> None:
    found = reference_rows(manifest(0), pd.DataFrame({"image_id": ["t1"], "label": ["b"]}))
    assert found["source"]["image_id"].tolist() == ["s0"]
    assert dict(zip(found["target"]["image_id"], found["target"]["label"], strict=True)) == {
        "t0": "a",
        "t1": "b",
        "t2": "",
    }


def test_of_many_images_500_are_taken_and_labelled_ones_first() -> None:
    rows, labels = manifest(700), pd.DataFrame({"image_id": ["t1"], "label": ["b"]})
    found = reference_rows(rows, labels)["target"]
    assert len(found) == MAX_IMAGES
    assert {"t0", "t1"} <= set(found["image_id"])
    again = reference_rows(rows.iloc[::-1].reset_index(drop=True), labels)["target"]
    assert set(again["image_id"]) == set(found["image_id"])


def test_a_sample_is_the_same_images_in_any_order() -> None:
    names = [f"i{i}" for i in range(1200)]
    one, other = {names[i] for i in sample_of(names)}, {names[::-1][i] for i in sample_of(names[::-1])}
    assert len(one) == MAX_IMAGES
    assert one == other
    assert sample_of(names[:3]).tolist() == [0, 1, 2]


def test_the_targets_labels_count_from_fifty_on() -> None:
    few, enough = seen(49, [1] * 49), seen(50, [1] * 49 + [0])
    source = seen(4, [1, 0, -1, 1])
    assert Reference(source, few).labelled()[0] == "source"
    name, sure, right = Reference(source, enough).labelled()
    assert (name, len(sure), right.sum()) == ("target", 50, 49)
    name, sure, right = Reference(source, seen(9)).labelled()
    assert (name, right.tolist()) == ("source", [True, False, True])
    assert sure == pytest.approx([0.5, 2 / 3, 1])
    assert len(Reference(seen(3), seen(3)).labelled()[1]) == 0


def test_what_is_written_is_read(tmp_path: Path) -> None:
    before = Reference(seen(4, [1, 0, -1, 1]), seen(3))
    write_reference(tmp_path / "r", before)
    after = read_reference(tmp_path / "r")
    for one, other in ((before.source, after.source), (before.target, after.target)):
        assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in vars(one))
    first = (tmp_path / "r").read_bytes()
    write_reference(tmp_path / "r", before)
    assert (tmp_path / "r").read_bytes() == first


def test_a_damaged_reference_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r"
    write_reference(path, Reference(seen(4), seen(3)))
    tensors = load_file(path)
    for change, why in (
        ({"target.right": np.zeros(2, np.int8)}, "arrays of target don't fit"),
        ({"source.confidence": np.array([0, 0, 0, np.nan], np.float32)}, "arrays of source don't fit"),
    ):
        save_file(tensors | change, path)
        with pytest.raises(ValueError, match=why):
            read_reference(path)
    save_file({"x": np.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"no reference of ours \('source.features'\)"):
        read_reference(path)
    path.write_bytes(b"half")
    with pytest.raises(ValueError, match="no reference of ours"):
        read_reference(path)


def test_alike_images_are_not_told_apart_and_others_are() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(200, 16)), rng.normal(size=(150, 16))
    alike = told_apart(one, other, 0.95)
    assert alike.low < 0 < alike.high
    assert told_apart(one, other + 4, 0.95).value == 1.0
    assert 0.1 < told_apart(one, other + 0.3, 0.95).low < told_apart(one, other + 0.3, 0.95).high < 1


def test_gaps_are_refused() -> None:
    with pytest.raises(ValueError, match="reference hold 40 values that are not finite"):
        told_apart(np.full((20, 2), np.nan), np.zeros((20, 2)), 0.95)
