"""Near-duplicates: the search finds what a comparison of all pairs finds, hashes are what they say, groups join in chains."""

import io
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter

from tasks.core import duplicates
from tasks.core.duplicates import clusters, joined_groups, near_pairs, perceptual_hash

N_LOW, N_BITS = 64, 256


def as_text(bits_NB: np.ndarray) -> list[str]:
    return [row.tobytes().hex() for row in np.packbits(bits_NB, axis=1)]


def compared(hashes: list[str], max_bits: int) -> set[tuple[int, int, int]]:
    """Every pair compared with Python's integers: at most max_bits of all bits, 7 of the first 64."""
    found = set()
    for j, other in enumerate(hashes):
        for i, one in enumerate(hashes[:j]):
            if one and other:
                n_low = (int(one[:16], 16) ^ int(other[:16], 16)).bit_count()
                n_bits = (int(one, 16) ^ int(other, 16)).bit_count()
                if n_low <= 7 and n_bits <= max_bits:
                    found.add((i, j, n_bits))
    return found


def planted(seed: int, n_originals: int) -> list[str]:
    """Random hashes, each followed by changed copies of it, which are pairwise different; some images without hash."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n_originals):
        original = rng.integers(0, 2, N_BITS)
        rows.append(original)
        for _ in range(4):
            n_low, n_high = int(rng.integers(0, 13)), int(rng.integers(0, 49))
            flipped = original.copy()
            flipped[rng.choice(N_LOW, n_low, replace=False)] ^= 1
            flipped[N_LOW + rng.choice(N_BITS - N_LOW, n_high, replace=False)] ^= 1
            rows.append(flipped)
    hashes = as_text(np.unique(np.array(rows, np.uint8), axis=0))
    return [str(text) for text in rng.permutation(hashes + [""] * 10)]


def as_set(pairs_P3: np.ndarray) -> set[tuple[int, int, int]]:
    assert len(np.unique(pairs_P3[:, :2], axis=0)) == len(pairs_P3), "no pair comes twice"
    return {(int(i), int(j), int(n)) for i, j, n in pairs_P3}


@pytest.mark.parametrize("max_bits", [0, 1, 8, 24, 40, 60, 128, 256])
def test_the_search_finds_what_comparing_all_pairs_finds(max_bits: int) -> None:
    for seed in range(4):
        hashes = planted(seed, 30)
        assert as_set(near_pairs(hashes, max_bits)) == compared(hashes, max_bits)


def test_dense_hashes_are_found_completely() -> None:
    """All hashes are near each other: 2 x 20 bits vary, every band has long runs."""
    rng = np.random.default_rng(0)
    bits = np.zeros((150, N_BITS), np.uint8)
    bits[:, rng.choice(N_LOW, 20, replace=False)] = rng.integers(0, 2, (150, 20))
    bits[:, N_LOW + rng.choice(N_BITS - N_LOW, 20, replace=False)] = rng.integers(0, 2, (150, 20))
    hashes = as_text(np.unique(bits, axis=0))
    expected = compared(hashes, 20)
    assert len(expected) > 500
    assert as_set(near_pairs(hashes, 20)) == expected


def fixed_camera(n: int, n_unstable: int) -> list[str]:
    """Pictures that share their first 64 bits up to a few unstable ones and differ in the others, as of one scene."""
    rng = np.random.default_rng(2)
    bits = np.zeros((n, N_BITS), np.uint8)
    bits[:, :N_LOW] = rng.integers(0, 2, N_LOW)
    unstable = rng.choice(N_LOW, n_unstable, replace=False)
    bits[:, unstable] = rng.integers(0, 2, (n, n_unstable))
    bits[:, N_LOW:] = rng.random((n, N_BITS - N_LOW)) < 0.1
    return as_text(np.unique(bits, axis=0))


@pytest.mark.parametrize("n_unstable", [0, 3, 12])
def test_pictures_of_one_scene_are_compared_completely(monkeypatch: pytest.MonkeyPatch, n_unstable: int) -> None:
    hashes = [*fixed_camera(120, n_unstable), *planted(3, 20)]
    expected = compared(hashes, 36)
    assert len(expected) > 100
    assert as_set(near_pairs(hashes, 36)) == expected
    monkeypatch.setattr(duplicates, "CHUNK_PAIRS", 7)  # pairs that come in many chunks
    assert as_set(near_pairs(hashes, 36)) == expected


@pytest.mark.parametrize("n_unstable", [0, 5, 20])
def test_thousands_of_pictures_of_one_scene_are_no_trap(n_unstable: int) -> None:
    """Compared once for every choice of bands, as at first, they took half a minute."""
    hashes = fixed_camera(2500, n_unstable)
    start = time.perf_counter()
    near_pairs(hashes, 10)
    assert time.perf_counter() - start < 10


def test_seven_low_bits_are_found_wherever_they_lie_and_eight_never() -> None:
    """Among them the worst case: one bit in each of seven bands. Many unlike hashes lie in between."""
    rng = np.random.default_rng(1)
    spread = [[0, 7, 15, 22, 30, 37, 45], [63, 57, 50, 44, 38, 31, 24], [0, 10, 20, 30, 40, 50, 63], list(range(7))]
    positions = [*spread, *(rng.choice(N_LOW, 7, replace=False) for _ in range(200))]
    for n_more, n_expected in ((0, 1), (1, 0)):
        bits = rng.integers(0, 2, (2 * len(positions), N_BITS), np.uint8)
        for k, flipped in enumerate(positions):
            bits[2 * k + 1] = bits[2 * k]
            bits[2 * k + 1, flipped] ^= 1
            if n_more:
                bits[2 * k + 1, next(place for place in range(N_LOW) if place not in set(flipped))] ^= 1
        pairs = near_pairs(as_text(bits), 256)
        assert len(pairs) == n_expected * len(positions)
        assert {(int(i), int(j)) for i, j in pairs[:, :2]} == {
            (2 * k, 2 * k + 1) for k in range(n_expected * len(positions))
        }
        assert (pairs[:, 2] == 7).all()


def test_one_bit_is_found_at_each_of_the_256_places() -> None:
    bits = np.vstack([np.zeros(N_BITS, np.uint8), np.eye(N_BITS, dtype=np.uint8)])
    pairs = as_set(near_pairs(as_text(bits), 1))
    assert pairs == {(0, k + 1, 1) for k in range(N_BITS)}


def test_the_limit_counts_itself() -> None:
    bits = np.zeros((2, N_BITS), np.uint8)
    bits[1, 200:224] = 1
    assert near_pairs(as_text(bits), 24).tolist() == [[0, 1, 24]]
    assert near_pairs(as_text(bits), 23).tolist() == []


@pytest.mark.parametrize("hashes", [[], [""], ["", "", ""], ["0" * 64], ["", "f" * 64, ""]])
def test_images_without_hash_or_alone_have_no_pairs(hashes: list[str]) -> None:
    pairs = near_pairs(hashes, 40)
    assert pairs.shape == (0, 3)
    assert pairs.dtype == np.int64


def test_thousands_of_equal_hashes_are_paired_with_the_first_only() -> None:
    hashes = ["", "0" * 64, *["ab" * 32] * 5000, "", "ab" * 32]
    start = time.perf_counter()
    pairs = near_pairs(hashes, 40)
    assert time.perf_counter() - start < 2
    assert pairs.tolist() == [[2, k, 0] for k in [*range(3, 5002), 5003]]


def test_copies_of_two_near_pictures_are_linked_by_their_first_ones() -> None:
    one, other = "0" * 64, "0" * 63 + "1"
    assert near_pairs([other, one, one, other, ""], 2).tolist() == [[0, 1, 1], [0, 3, 0], [1, 2, 0]]


def test_the_order_of_the_images_changes_no_pair_and_no_cluster() -> None:
    hashes = planted(7, 40)
    order = np.random.default_rng(0).permutation(len(hashes))
    first, other = near_pairs(hashes, 40), near_pairs([hashes[k] for k in order], 40)
    renamed = {(*sorted((int(order[i]), int(order[j]))), int(n)) for i, j, n in other}
    assert renamed == as_set(first)
    assert (first[:, 0] < first[:, 1]).all()
    assert (np.lexsort((first[:, 1], first[:, 0])) == np.arange(len(first))).all(), "pairs are sorted"
    number, mixed = clusters(len(hashes), first[:, :2]), clusters(len(hashes), other[:, :2])
    for k in range(len(hashes)):
        assert {int(i) for i in np.flatnonzero(number == number[order[k]])} == {
            int(order[i]) for i in np.flatnonzero(mixed == mixed[k])
        }


def test_many_images_are_searched_in_less_than_quadratic_time() -> None:
    bits = np.random.default_rng(0).integers(0, 2, (20_000, N_BITS), np.uint8)
    bits[-1] = bits[0]
    bits[-1, [3, 99]] ^= 1
    start = time.perf_counter()
    assert near_pairs(as_text(bits), 40).tolist() == [[0, 19_999, 2]]
    assert time.perf_counter() - start < 5, "200 million pairs take longer"


def smooth(seed: int, shape: tuple[int, int] = (96, 128)) -> np.ndarray:
    """Light and shade as in photographs: noise whose strength falls with its frequency, 0..255."""
    rng = np.random.default_rng(seed)
    picture = sum(scale * gaussian_filter(rng.normal(size=shape), scale) for scale in (2, 4, 8, 16, 32))
    low, high = np.percentile(picture, [1, 99])
    return np.clip(20 + 200 * (picture - low) / (high - low), 0, 255).astype(np.uint8)


def n_apart(one: np.ndarray, other: np.ndarray) -> int:
    return (int(perceptual_hash(one), 16) ^ int(perceptual_hash(other), 16)).bit_count()


def bits_of(text: str) -> np.ndarray:
    """(16, 16): which frequency is above the median; the hash holds the lowest 8 x 8 first, by rows, then the others."""
    grid = np.zeros((16, 16), bool)
    inner = [(r, c) for r in range(8) for c in range(8)]
    outer = [(r, c) for r in range(16) for c in range(16) if max(r, c) >= 8]
    for (r, c), digit in zip(inner + outer, f"{int(text, 16):0256b}", strict=True):
        grid[r, c] = digit == "1"
    return grid


@pytest.mark.parametrize("seed", range(5))
def test_bits_are_the_signs_of_the_cosine_transform_against_its_median(seed: int) -> None:
    """64 x 64 pixels are their own thumbnail, so scipy's transform can be asked."""
    picture = smooth(seed, (64, 64))
    frequencies = dctn(picture.astype(float), type=2, norm="ortho")[:16, :16]
    expected = frequencies > np.median(frequencies.ravel()[1:])
    expected[0, 0] = False
    # a frequency at the very median may fall to either side in single precision
    sure = np.abs(frequencies - np.median(frequencies.ravel()[1:])) > 0.01
    assert sure.sum() > 250
    assert (bits_of(perceptual_hash(picture)) == expected)[sure].all()


@pytest.mark.parametrize(("row", "column"), [(1, 0), (0, 1), (3, 5), (7, 7), (2, 11), (15, 15)])
def test_a_single_wave_sets_the_bit_of_its_frequency(row: int, column: int) -> None:
    y, x = np.indices((64, 64))
    wave = np.cos(np.pi * row * (2 * y + 1) / 128) * np.cos(np.pi * column * (2 * x + 1) / 128)
    up, down = (bits_of(perceptual_hash((128 + sign * 100 * wave).astype(np.uint8))) for sign in (1, -1))
    assert up[row, column]
    assert not down[row, column]


@pytest.mark.parametrize("grey", [0, 7, 128, 255])
@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (64, 64), (100, 30)])
def test_a_flat_picture_has_no_hash(grey: int, shape: tuple[int, int]) -> None:
    assert perceptual_hash(np.full(shape, grey, np.uint8)) == ""


def test_a_nearly_flat_picture_has_no_hash_and_a_little_contrast_gives_one() -> None:
    noise = np.random.default_rng(0).normal(size=(64, 64))
    assert perceptual_hash((128 + 1.5 * noise).round().astype(np.uint8)) == ""
    assert len(perceptual_hash((128 + 4 * noise).round().astype(np.uint8))) == 64


@pytest.mark.parametrize("shape", [(1, 2), (2, 1), (3, 5), (1, 5000), (5000, 1), (65, 63)])
def test_any_shape_has_a_hash(shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    picture.flat[0], picture.flat[-1] = 0, 255
    text = perceptual_hash(picture)
    assert len(text) == 64 or (text == "" and max(shape) == 5000), "of very long pictures little contrast is left"
    assert set(text) <= set("0123456789abcdef")


@pytest.mark.parametrize("seed", range(6))
def test_changed_copies_of_a_picture_are_near(seed: int) -> None:
    picture = smooth(seed)
    image, buffer = Image.fromarray(picture), io.BytesIO()
    image.save(buffer, "JPEG", quality=75)
    changed = {
        "brighter": np.clip(picture * 1.05, 0, 255).astype(np.uint8),
        "JPEG": np.asarray(Image.open(buffer)),
        "half the size": np.asarray(image.resize((64, 48), Image.Resampling.BICUBIC)),
        "twice the size": np.asarray(image.resize((256, 192), Image.Resampling.BICUBIC)),
        "stretched": np.asarray(image.resize((128, 128), Image.Resampling.BICUBIC)),
    }
    assert {name: n_apart(picture, copy) for name, copy in changed.items() if n_apart(picture, copy) > 24} == {}


def test_pictures_of_their_own_are_far_apart_and_so_are_turned_and_mirrored_ones() -> None:
    hashes = [perceptual_hash(smooth(seed)) for seed in range(60)]
    hashes += [perceptual_hash(change(smooth(0))) for change in (np.fliplr, np.flipud, lambda grey: 255 - grey)]
    assert near_pairs(hashes, 64).tolist() == []


def test_the_hash_does_not_depend_on_how_the_pixels_lie_in_memory() -> None:
    picture = smooth(3)
    assert perceptual_hash(np.asfortranarray(picture)) == perceptual_hash(picture)
    assert perceptual_hash(np.repeat(picture[..., None], 3, axis=2)[..., 1]) == perceptual_hash(picture)


def test_clusters_are_linked_through_others() -> None:
    number = clusters(7, np.array([[0, 3], [3, 5], [1, 6]]))
    assert number[0] == number[3] == number[5] >= 0
    assert number[1] == number[6] >= 0
    assert number[0] != number[1]
    assert number[[2, 4]].tolist() == [-1, -1]


@pytest.mark.parametrize("n_images", [0, 1, 3])
def test_without_pairs_everybody_is_alone(n_images: int) -> None:
    assert clusters(n_images, np.empty((0, 2), np.int64)).tolist() == [-1] * n_images


def test_a_pair_that_comes_twice_or_the_other_way_round_changes_nothing() -> None:
    assert len(set(clusters(3, np.array([[0, 1], [1, 0], [0, 1], [1, 2]])))) == 1


def test_a_chain_of_a_hundred_thousand_images_is_one_cluster() -> None:
    steps = np.arange(99_999)
    assert set(clusters(100_000, np.stack([steps, steps + 1], axis=1))) == {0}


def test_groups_join_through_groups_and_clusters_in_chains() -> None:
    """g1 - (cluster 7) - g2 - (pixels x) - g3; g4 and g5 share nothing; none of any kind is no tie."""
    group_id = pd.Series(["g3", "g2", "g2", "g1", "g4", "g5", "g5"])
    picture = pd.Series([np.nan, np.nan, 7.0, 7.0, np.nan, np.nan, np.nan])
    pixels = pd.Series(["x", "x", None, None, None, None, None], dtype=object)
    assert joined_groups(group_id, pixels, picture).tolist() == ["g1", "g1", "g1", "g1", "g4", "g5", "g5"]


def test_clusters_of_different_kinds_with_the_same_number_are_no_tie() -> None:
    group_id = pd.Series(["a", "b", "c", "d"])
    first, second = pd.Series([1.0, 1.0, np.nan, np.nan]), pd.Series([np.nan, np.nan, 1.0, 1.0])
    assert joined_groups(group_id, first, second).tolist() == ["a", "a", "c", "c"]


def test_joined_groups_keep_the_index_and_the_argument() -> None:
    group_id = pd.Series(["b", "a", "c"], index=[9, 3, 5])
    joined = joined_groups(group_id, pd.Series([1.0, 1.0, np.nan], index=[9, 3, 5]))
    assert joined.to_dict() == {9: "a", 3: "a", 5: "c"}
    assert group_id.tolist() == ["b", "a", "c"]


def test_the_order_of_the_rows_changes_no_group() -> None:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "group": [f"g{k:03d}" for k in rng.integers(0, 200, 300)],
            "one": np.where(rng.random(300) < 0.5, np.nan, rng.integers(0, 90, 300)),
            "other": np.where(rng.random(300) < 0.5, None, rng.choice(list("abcdefghijklmnopqrst"), 300)),
        }
    )
    first = joined_groups(rows["group"], rows["one"], rows["other"])
    mixed = rows.sample(frac=1, random_state=1)
    assert joined_groups(mixed["group"], mixed["one"], mixed["other"]).sort_index().equals(first)
    assert first.groupby(rows["group"]).nunique().max() == 1
    assert first.groupby(rows["one"]).nunique().max() == 1
    assert first.groupby(rows["other"]).nunique().max() == 1


@pytest.mark.parametrize("n_clusters", [0, 1, 2])
def test_no_rows_have_no_groups(n_clusters: int) -> None:
    nothing = pd.Series([], dtype=object)
    assert joined_groups(nothing, *[nothing] * n_clusters).tolist() == []


def test_without_clusters_groups_stay_as_they_are() -> None:
    assert joined_groups(pd.Series(["b", "a", "b"])).tolist() == ["b", "a", "b"]
