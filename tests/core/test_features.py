"""Features: joined by id, never by row order; written the same way each time."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.core.features import Features, capped, read_features, row_file, write_index, write_theta

FEATURES = Features(
    np.array(["b", "a", "b", "c", "a"]), np.array([0, 0, 1, 0, 1]), np.arange(10, dtype=np.float32).reshape(5, 2)
)


def test_plain_rows_follow_the_ids_asked_for() -> None:
    assert FEATURES.plain_rows(["c", "b", "c"]).tolist() == [[6, 7], [0, 1], [6, 7]]
    assert FEATURES.plain_rows([]).shape == (0, 2)


def test_absent_images_are_named() -> None:
    message = "2 images have no features, the first: x; run `dvc repro extract_features`"
    with pytest.raises(ValueError, match=message):
        FEATURES.plain_rows(["a", "x", "y"])


def test_all_views_come_with_the_position_of_their_image() -> None:
    x_ND, position = FEATURES.rows_of(["a", "b"])
    assert x_ND.tolist() == [[0, 1], [2, 3], [4, 5], [8, 9]]
    assert position.tolist() == [1, 0, 1, 0]


def written(folder: Path, x_ND: np.ndarray, dtype: str = "float32") -> Path:
    folder.mkdir()
    with row_file(folder / "x.npy", *x_ND.shape, dtype) as out:
        for row in reversed(range(len(x_ND))):
            out.put([row], x_ND[[row]])
    write_index(folder, FEATURES.image_id[: len(x_ND)], FEATURES.view[: len(x_ND)])
    return folder


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_features_come_back_from_a_map_and_rows_are_float32(tmp_path: Path, dtype: str) -> None:
    found = read_features(written(tmp_path / "one", FEATURES.x_ND, dtype))
    assert isinstance(found.x_ND, np.memmap)
    assert found.x_ND.dtype == dtype
    assert found.plain_rows(["c", "b"]).tolist() == [[6, 7], [0, 1]]
    assert found.plain_rows(["c"]).dtype == found.rows_of(["b"])[0].dtype == np.float32
    assert type(found.plain_rows(["c"])) is np.ndarray
    assert found.plain_rows(["c"]).flags.writeable
    assert found.theta_rows(["c"]) is None


def test_the_files_are_what_numpy_writes_and_the_same_twice(tmp_path: Path) -> None:
    one, two = (written(tmp_path / name, FEATURES.x_ND) for name in ("one", "two"))
    np.save(tmp_path / "by_numpy.npy", FEATURES.x_ND)
    assert (one / "x.npy").read_bytes() == (tmp_path / "by_numpy.npy").read_bytes()
    assert (one / "index.csv").read_text() == "image_id,view\nb,0\na,0\nb,1\nc,0\na,1\n"
    assert [p.read_bytes() for p in sorted(one.iterdir())] == [p.read_bytes() for p in sorted(two.iterdir())]


def test_no_rows_are_features_too(tmp_path: Path) -> None:
    found = read_features(written(tmp_path / "none", np.zeros((0, 3), np.float32)))
    assert found.plain_rows([]).shape == (0, 3)


def test_a_row_that_was_never_put_is_seen(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="never put"), row_file(tmp_path / "x.npy", 2, 1, "float32") as out:
        out.put([1], np.ones((1, 1)))


def test_theta_is_what_the_head_makes_of_the_stored_plain_rows(tmp_path: Path) -> None:
    folder = written(tmp_path / "one", FEATURES.x_ND)
    write_theta(folder, ["c", "a"], lambda x_ND: x_ND[:, :1] + [0, 100, 200])
    found = read_features(folder)
    assert found.theta_rows(["a", "c"]).tolist() == [[2, 102, 202], [6, 106, 206]]
    with pytest.raises(ValueError, match="1 images have no source probabilities, the first: b; run `dvc repro"):
        found.theta_rows(["a", "b"])


@pytest.mark.parametrize("ids", [[], ["c"]])
def test_without_a_source_head_there_is_no_theta(tmp_path: Path, ids: list[str]) -> None:
    folder = written(tmp_path / "one", FEATURES.x_ND)
    write_theta(folder, ids, lambda _x: None)
    assert sorted(path.name for path in folder.iterdir()) == ["index.csv", "x.npy"]


def test_a_head_without_labelled_images_gives_an_empty_theta(tmp_path: Path) -> None:
    folder = written(tmp_path / "one", FEATURES.x_ND)
    write_theta(folder, [], lambda x_ND: x_ND)
    assert read_features(folder).theta_rows([]).shape == (0, 2)


def test_a_missing_folder_names_its_stage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="made by the stage extract_features; run `dvc repro extract_features`"):
        read_features(tmp_path / "none")


def test_files_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "one", FEATURES.x_ND)
    (folder / "index.csv").write_text("image_id,view\na,0\n")
    with pytest.raises(ValueError, match=r"shape \(5, 2\), its index has 1 rows; run `dvc repro"):
        read_features(folder)
    (folder / "x.npy").write_bytes((folder / "x.npy").read_bytes()[:-4])
    with pytest.raises(ValueError, match="is not a whole array"):
        read_features(folder)


def test_rows_of_a_manifest_that_have_features_keep_their_order() -> None:
    only_seen_augmented = Features(np.array(["a", "d"]), np.array([0, 1]), np.zeros((2, 1)))
    table = pd.DataFrame({"image_id": ["d", "c", "x", "a"], "label": ["1", "2", "3", "4"]})
    found = FEATURES.among(table)
    assert found.to_dict("list") == {"image_id": ["c", "a"], "label": ["2", "4"]}
    assert list(found.index) == [0, 1]
    assert list(only_seen_augmented.among(table)["image_id"]) == ["a"]
    assert len(FEATURES.among(table.iloc[:0])) == 0


def rows(labels: str) -> pd.DataFrame:
    return pd.DataFrame({"image_id": [f"i{k}" for k in range(len(labels))], "label": list(labels)})


def test_a_cap_draws_evenly_over_labels() -> None:
    found = capped(rows("aaaaaaaaaabbbbc"), 7, seed=0)
    assert found["label"].value_counts().to_dict() == {"a": 3, "b": 3, "c": 1}
    assert found.index.is_monotonic_increasing


def test_a_cap_does_not_depend_on_the_order_of_rows() -> None:
    table = rows("aabbaabbab")
    first, turned = capped(table, 4, 0), capped(table.iloc[::-1].reset_index(drop=True), 4, 0)
    assert set(first["image_id"]) == set(turned["image_id"])
    assert any(set(capped(table, 4, seed)["image_id"]) != set(first["image_id"]) for seed in range(1, 5))


@pytest.mark.parametrize("n_images", [None, 3, 10])
def test_no_cap_takes_all(n_images: int | None) -> None:
    assert len(capped(rows("abc"), n_images, 0)) == 3
