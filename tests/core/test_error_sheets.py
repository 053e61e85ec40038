"""Which errors are shown, what is most like them, and where each square stands on the sheet."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics.pairwise import cosine_similarity

from tasks.core.bias.table import NOT_KNOWN
from tasks.core.error_sheets import (
    FOR_GUESS,
    FOR_TRUTH,
    INDEX_COLUMNS,
    Sheet,
    error_sheet,
    index_rows,
    nearest,
    neighbour_columns,
    overlay,
    shown_errors,
    with_confidence,
    worst_groups,
)


def predictions(rows: list[tuple[str, str, float]], slant: list[str]) -> pd.DataFrame:
    """(y_true, y_pred, probability of b) of the images i0, i1 and so on."""
    table = pd.DataFrame(rows, columns=["y_true", "y_pred", "p_b"])
    return with_confidence(
        table.assign(image_id=[f"i{k}" for k in range(len(rows))], p_a=1 - table["p_b"], audit_slant=slant)
    )


RIGHT = ("a", "a", 0.1)
# left: 1 of 2 right, (not known): 1 of 4, right: 2 of 3, upright: 1 of 1
ROWS = predictions(
    [RIGHT, ("a", "b", 0.7), RIGHT, ("a", "b", 0.9), ("b", "a", 0.05), ("a", "b", 0.6), RIGHT, RIGHT, ("a", "b", 0.8), RIGHT],
    ["left", "left", "", "", "", "", "right", "right", "right", "upright"],
)  # fmt: skip


def worst(rows: pd.DataFrame = ROWS, **changed: int) -> list[Sheet]:
    limits = {"min_group_size": 1, "max_groups": 9, "n_per_group": 9} | changed
    return worst_groups(rows, ["slant"], **limits)


def test_groups_come_by_accuracy_and_errors_by_confidence() -> None:
    assert worst() == [
        Sheet("slant", NOT_KNOWN, 4, 0.25, ("i4", "i3", "i5")),  # sure to 0.95, 0.9 and 0.6
        Sheet("slant", "left", 2, 0.5, ("i1",)),
        Sheet("slant", "right", 3, pytest.approx(2 / 3), ("i8",)),
    ]


def test_no_more_groups_and_errors_are_shown_than_asked_for() -> None:
    found = worst(max_groups=2, n_per_group=2)
    assert [(sheet.group, sheet.image_ids) for sheet in found] == [(NOT_KNOWN, ("i4", "i3")), ("left", ("i1",))]


def test_groups_that_the_audit_masks_are_not_shown() -> None:
    assert [sheet.group for sheet in worst(min_group_size=3)] == [NOT_KNOWN, "right"]
    assert worst(min_group_size=5) == []


def test_nothing_is_shown_where_nothing_is_wrong() -> None:
    assert worst(predictions([RIGHT] * 3, ["left", "left", ""])) == []


def test_equally_sure_errors_come_by_id() -> None:
    rows = predictions([("a", "b", 0.75)] * 3, ["left"] * 3)
    assert worst(rows.iloc[::-1])[0].image_ids == ("i0", "i1", "i2")


def test_without_audit_columns_all_images_are_one_group() -> None:
    found = worst_groups(ROWS, [], min_group_size=1, max_groups=3, n_per_group=2)
    assert found == [Sheet("", "", 10, 0.5, ("i4", "i3"))]


def test_an_image_of_two_groups_is_explained_once() -> None:
    sheets = [Sheet("slant", "left", 2, 0.5, ("i1",)), Sheet("block", "x", 9, 0.5, ("i3", "i1"))]
    assert list(shown_errors(ROWS, sheets)["image_id"]) == ["i1", "i3"]
    assert shown_errors(ROWS, []).empty


# Neighbours


@pytest.mark.parametrize("n_per_part", [1, 4, 7, 50])
def test_neighbours_are_those_of_the_whole_similarity_matrix(n_per_part: int) -> None:
    rng = np.random.default_rng(0)
    wanted_QD, training_TD = rng.normal(size=(5, 6)), rng.normal(size=(50, 6)).astype(np.float32)
    parts = (training_TD[start : start + n_per_part] for start in range(0, 50, n_per_part))
    places, cosines = nearest(wanted_QD, parts, 3)
    theirs = cosine_similarity(wanted_QD, training_TD.astype(float))
    assert (places == np.argsort(-theirs, axis=1)[:, :3]).all()
    assert cosines == pytest.approx(-np.sort(-theirs, axis=1)[:, :3], abs=1e-12)


def test_of_equals_the_earlier_is_nearest_and_no_direction_is_like_nothing() -> None:
    parts = [np.array([[0.0, 0.0], [2.0, 0.0]]), np.array([[1.0, 0.0], [3.0, 4.0]])]
    places, cosines = nearest(np.array([[5.0, 0.0]]), parts, 4)
    assert places.tolist() == [[1, 2, 3, 0]]
    assert cosines[0] == pytest.approx([1, 1, 0.6, 0])


def test_missing_neighbours_are_empty() -> None:
    training = pd.DataFrame({"image_id": ["t0"], "path": ["t0.png"], "domain": ["source"], "label": ["a"]})
    found = neighbour_columns(training, *nearest(np.array([[1.0, 0.0]]), [np.array([[1.0, 1.0]])], 3))
    assert found.iloc[0, :5].tolist() == ["t0", "t0.png", "source", "a", 0.7071]
    assert found.iloc[0, 5:9].tolist() == [""] * 4
    assert np.isnan(found["nearest_2_similarity"][0])


def test_the_index_follows_the_sheet() -> None:
    training = pd.DataFrame({
        "image_id": ["t0", "t1"], "path": ["t0.png", "t1.png"], "domain": ["source", "target"], "label": ["a", "b"],
    })  # fmt: skip
    sheet = Sheet("slant", "<b>left</b>", 2, 1 / 3, ("i3", "i1"))
    errors = shown_errors(ROWS, [sheet]).assign(path=["1.png", "3.png"])
    similar = neighbour_columns(training, np.array([[0], [1]]), np.array([[0.5], [0.25]]))
    found = index_rows(sheet, "sheet_01.png", errors.join(similar))
    assert list(found.columns) == INDEX_COLUMNS
    assert found.iloc[:, :16].to_numpy().tolist() == [
        ["sheet_01.png", 1, "slant", "<b>left</b>", 2, 0.333333, "i3", "3.png", "a", "b", 0.9,
         "t1", "t1.png", "target", "b", 0.25],
        ["sheet_01.png", 2, "slant", "<b>left</b>", 2, 0.333333, "i1", "1.png", "a", "b", 0.7,
         "t0", "t0.png", "source", "a", 0.5],
    ]  # fmt: skip


# Pictures


def test_the_overlay_is_orange_for_the_guess_blue_for_the_truth_and_grey_elsewhere() -> None:
    map_HW = np.zeros((60, 60))
    map_HW[10:30, 10:30], map_HW[35:55, 35:55] = 2, -2
    found = overlay(np.full((60, 60, 3), (30, 60, 90), np.uint8), map_HW)
    assert tuple(found[20, 20]) == FOR_GUESS
    assert tuple(found[45, 45]) == FOR_TRUTH
    assert tuple(found[5, 55]) == (158, 158, 158)  # halfway from its mean of 60 to white


def test_a_map_of_nothing_leaves_the_image_grey() -> None:
    found = overlay(np.full((8, 8, 3), 255, np.uint8), np.zeros((8, 8)))
    assert (found == 255).all()


def opened(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def square(colour: int, side_px: int = 32) -> np.ndarray:
    return np.full((side_px, side_px, 3), (colour, 50, 200), np.uint8)


def test_each_square_stands_in_its_line_and_column() -> None:
    lines = [[square(100 + 10 * line + place) for place in range(5)] for line in range(2)]
    sheet = opened(error_sheet([*lines, [square(9), square(8, 400)]]))
    # 20 px for the number, 14 px for the heads; 112 px squares, 4 px between them
    assert sheet.shape == (14 + 4 + 3 * 116, 20 + 5 * 116, 3)
    for line in range(2):
        for place in range(5):
            found = sheet[18 + 116 * line : 130 + 116 * line, 20 + 116 * place : 132 + 116 * place]
            assert (found == (100 + 10 * line + place, 50, 200)).all()
    assert (sheet[250:362, 20:132] == (9, 50, 200)).all()
    assert (sheet[250:362, 136:248] == (8, 50, 200)).all()
    assert (sheet[250:, 252:] == 255).all()  # no nearest image


def test_lines_are_numbered_below_heads_and_bytes_repeat() -> None:
    white = [np.full((8, 8, 3), 255, np.uint8)] * 5
    content = error_sheet([white] * 3)
    sheet = opened(content)
    numbers = [sheet[18 + 116 * line : 40 + 116 * line, :20] for line in range(3)]
    assert len({number.tobytes() for number in numbers}) == 3
    assert all(sheet[:14, 20 + 116 * place : 132 + 116 * place].min() < 100 for place in range(5))
    assert content == error_sheet([white] * 3)
