"""The adapted head: against scikit-learn's own regression, and against shares counted by hand where features say nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from tasks.core.adaptation.frozen import ALIGNMENTS, FrozenSettings, Labelled, LinearHead, as_target, fit_adapted_head
from tasks.core.model import ImageModel
from tasks.core.runtime import address_rng

SETTINGS = FrozenSettings(
    n_classes=3, l2_per_feature=0.01, source_per_class=1000.0, confidence=0.6, pseudo_weight=1.0, n_rounds=0
)
NO_ROWS = np.zeros((0, 4))


def blobs(n_per_class: int, n_classes: int = 3, purpose: str = "source") -> Labelled:
    """Class c stands at 2 on feature c of 4; spreads differ from feature to feature."""
    rng = address_rng("frozen", purpose)
    y_N = np.repeat(np.arange(n_classes), n_per_class)
    x_ND = rng.normal(size=(len(y_N), 4))
    x_ND[np.arange(len(y_N)), y_N] += 2
    return Labelled(x_ND * [1, 2, 3, 4] + [5, 0, -3, 1], y_N)


def constant(labels: list[int]) -> Labelled:
    """Features that say nothing: the head can only learn the shares of the classes."""
    return Labelled(np.full((len(labels), 4), 7.0), np.array(labels, int))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_source_alone_is_scikit_learns_regression(n_classes: int) -> None:
    source = blobs(40, n_classes)
    settings = replace(SETTINGS, n_classes=n_classes)
    head = fit_adapted_head(source, None, NO_ROWS, "none", settings)
    peer = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (0.01 * 4 * 40 * n_classes), tol=1e-8))
    wanted = peer.fit(source.x_ND, source.y_N).predict_proba(source.x_ND)
    assert head.probabilities(source.x_ND) == pytest.approx(wanted, abs=2e-3)


def test_target_labels_alone_are_scaled_by_all_target_images() -> None:
    target, unlabelled_UD = blobs(40), blobs(100, purpose="unlabelled").x_ND
    head = fit_adapted_head(None, target, unlabelled_UD, "standardise", SETTINGS)
    scaler = StandardScaler().fit(np.concatenate([target.x_ND, unlabelled_UD]))
    peer = LogisticRegression(C=1 / (0.01 * 4 * 120), tol=1e-8).fit(scaler.transform(target.x_ND), target.y_N)
    wanted = peer.predict_proba(scaler.transform(unlabelled_UD))
    assert head.probabilities(unlabelled_UD) == pytest.approx(wanted, abs=2e-3)


def test_a_target_that_is_the_source_shifted_and_stretched_is_recognised_only_when_standardised() -> None:
    source = blobs(60)
    target_ND = source.x_ND * [3, 0.5, 2, 1] + [40, -7, 0, 9]
    right = {
        how: (fit_adapted_head(source, None, target_ND, how, SETTINGS).probabilities(target_ND).argmax(1) == source.y_N)
        for how in ("none", "standardise")
    }
    own = fit_adapted_head(source, None, NO_ROWS, "none", SETTINGS).probabilities(source.x_ND).argmax(1) == source.y_N
    assert right["standardise"].tolist() == own.tolist()
    assert right["none"].mean() < 0.4 < 0.8 < own.mean()


def test_coral_gives_the_source_the_targets_mean_and_covariance() -> None:
    source = Labelled(address_rng("s").normal(size=(4000, 2)) @ [[2.0, 0.0], [3.0, 1.0]] + 5, np.arange(4000) % 2)
    target_ND = address_rng("t").normal(size=(4000, 2)) @ [[1.0, -2.0], [0.0, 1.0]] - 8
    rows = ALIGNMENTS["coral"](source, Labelled(target_ND[:0], source.y_N[:0]), target_ND)
    assert rows.source_SD.mean(0) == pytest.approx([0, 0], abs=1e-5)
    assert np.cov(rows.source_SD.T) == pytest.approx(np.cov(rows.unlabelled_UD.T), abs=0.01)
    assert np.cov(rows.unlabelled_UD.T)[0, 1] == pytest.approx(-2 / 5**0.5, abs=0.03)  # by hand: -2 / sqrt(1 * 5)
    standardised = ALIGNMENTS["standardise"](source, Labelled(target_ND[:0], source.y_N[:0]), target_ND)
    assert np.cov(standardised.source_SD.T)[0, 1] > 0.8


@pytest.mark.parametrize("how", ["standardise", "coral"])
def test_each_source_domain_goes_by_its_own_statistics(how: str) -> None:
    one, other = blobs(30), blobs(30, purpose="other")
    y_N, domain_N = np.concatenate([one.y_N, other.y_N]), np.repeat(["one", "other"], 90)
    both = Labelled(np.concatenate([one.x_ND, other.x_ND + 100]), y_N, domain_N)
    none = Labelled(both.x_ND[:0], y_N[:0])
    apart = ALIGNMENTS[how](both, none, one.x_ND).source_SD
    assert apart[:90].mean(0) == pytest.approx(np.zeros(4), abs=1e-5)
    assert apart[90:].mean(0) == pytest.approx(np.zeros(4), abs=1e-5)
    together = ALIGNMENTS[how](replace(both, domain_N=None), none, one.x_ND).source_SD
    assert np.linalg.norm(together[:90].mean(0)) > 0.7


@pytest.mark.parametrize(
    ("n_source", "share"),
    [(100, 20 / 30), (5, 5 / 15)],  # 2 classes * 10 = 20 images at the most, against ten target labels
)
def test_the_source_counts_as_so_many_target_images(n_source: int, share: float) -> None:
    settings = replace(SETTINGS, n_classes=2, source_per_class=10.0)
    head = fit_adapted_head(constant([0] * n_source), constant([1] * 10), NO_ROWS, "standardise", settings)
    assert head.probabilities(np.full((1, 4), 7.0)) == pytest.approx(np.array([[share, 1 - share]]), abs=1e-3)


@pytest.mark.parametrize(
    ("confidence", "n_rounds", "pseudo_weight", "share"),
    [
        (0.6, 0, 1.0, 2 / 3),
        (0.6, 1, 1.0, 5 / 6),  # all fifty images are sure of class 0 and weigh 30 together: (20 + 30) / 60
        (0.6, 3, 1.0, 5 / 6),  # they don't add up over the rounds
        (0.6, 1, 0.1, 23 / 33),
        (0.7, 3, 1.0, 2 / 3),  # nobody is sure enough
    ],
)
def test_confident_unlabelled_images_join(confidence: float, n_rounds: int, pseudo_weight: float, share: float) -> None:
    settings = FrozenSettings(2, 0.01, 10.0, confidence, pseudo_weight, n_rounds)
    unlabelled_UD = np.full((50, 4), 7.0)
    head = fit_adapted_head(constant([0] * 100), constant([1] * 10), unlabelled_UD, "none", settings)
    assert head.probabilities(unlabelled_UD[:1]) == pytest.approx(np.array([[share, 1 - share]]), abs=1e-3)


def test_images_that_are_not_sure_weigh_nothing() -> None:
    """Of sixty unlabelled images the thirty near the border are not used, so each sure one keeps its sixtieth."""
    source = Labelled(np.repeat([[-1.0], [1.0]], 50, axis=0), np.repeat([0, 1], 50))
    settings = FrozenSettings(2, 0.01, 1000.0, 0.9, 2.0, 1)
    unlabelled_UD = np.repeat([[1.0], [0.0]], 30, axis=0)
    head = fit_adapted_head(source, None, unlabelled_UD, "none", settings)
    y_N, worth_N = np.repeat([0, 1, 1], [50, 50, 30]), np.repeat([1.0, 2 * 100 / 60], [100, 30])
    peer = LogisticRegression(C=1 / (0.01 * worth_N.sum()), tol=1e-8)
    peer.fit(np.concatenate([source.x_ND, unlabelled_UD[:30]]), y_N, worth_N)
    points_ND = np.array([[-1.0], [0.0], [1.0]])
    assert head.probabilities(points_ND) == pytest.approx(peer.predict_proba(points_ND), abs=2e-3)


def test_classes_without_labels_get_no_probability() -> None:
    source = blobs(30, 2)
    head = fit_adapted_head(
        Labelled(source.x_ND, source.y_N * 2), None, NO_ROWS, "none", replace(SETTINGS, n_classes=4)
    )
    found_NC = head.probabilities(source.x_ND)
    assert found_NC.sum(1) == pytest.approx(np.ones(60))
    assert found_NC[:, [1, 3]].max() < 1e-8
    assert (found_NC.argmax(1) == source.y_N * 2).mean() > 0.8


@pytest.mark.parametrize("scale", [1.0, 1e-9])
def test_a_feature_that_hardly_varies_is_not_blown_up(scale: float) -> None:
    """Also where all features are tiny, as those of random weights are."""
    target = blobs(20)
    x_ND = target.x_ND.copy()
    x_ND[:, 3] = 1e-12 * target.y_N
    head = fit_adapted_head(None, Labelled(x_ND * scale, target.y_N), NO_ROWS, "standardise", SETTINGS)
    before, after = head.probabilities(x_ND * scale), head.probabilities((x_ND + np.array([0, 0, 0, 1e-4])) * scale)
    assert np.abs(after - before).max() < 0.05
    assert (before.argmax(1) == target.y_N).mean() > 0.7


def test_the_head_fits_into_the_model() -> None:
    source, target_ND = blobs(30), blobs(30, purpose="target").x_ND * 3 + 1
    head = fit_adapted_head(source, None, target_ND, "standardise", replace(SETTINGS, n_rounds=2))
    model = ImageModel(nn.Identity(), nn.Linear(4, 3))
    head.set_on(model)
    with torch.no_grad():
        found = model(torch.from_numpy(target_ND).float()).softmax(1).numpy()
    assert found == pytest.approx(head.probabilities(target_ND), abs=1e-4)


def test_the_same_rows_give_the_same_bytes_and_stay_as_they_are() -> None:
    source, target, unlabelled_UD = blobs(30), blobs(5, purpose="few"), blobs(40, purpose="unlabelled").x_ND
    kept = [source.x_ND.copy(), target.x_ND.copy(), unlabelled_UD.copy()]
    settings = replace(SETTINGS, n_rounds=3)
    for how in ALIGNMENTS:
        first, second = (fit_adapted_head(source, target, unlabelled_UD, how, settings) for _ in range(2))
        assert first.weight_CD.tobytes() == second.weight_CD.tobytes()
        assert first.bias_C.tobytes() == second.bias_C.tobytes()
    for before, after in zip(kept, [source.x_ND, target.x_ND, unlabelled_UD], strict=True):
        assert (before == after).all()


def test_probabilities_by_hand() -> None:
    head = LinearHead(np.array([[1.0], [0.0]]), np.array([0.0, np.log(2)]))
    assert head.probabilities(np.array([[0.0], [np.log(6)]])) == pytest.approx(np.array([[1 / 3, 2 / 3], [0.75, 0.25]]))


NAN = np.full((2, 4), np.nan)


@pytest.mark.parametrize(
    ("source", "target", "unlabelled_UD", "how", "told"),
    [
        (blobs(5), None, NO_ROWS, "dann", "adaptation 'dann' is unknown; allowed are none, standardise, coral"),
        (blobs(5), None, np.zeros((3, 5)), "none", r"\(source 4, labelled target 5, unlabelled target 5\)"),
        (blobs(5), None, NAN, "none", "unlabelled target features hold NaN or infinity; extract them anew"),
        (Labelled(NO_ROWS, np.array([0, 1])), None, NO_ROWS, "none", "source has 0 rows of features and 2 labels"),
        (None, constant([1, 1]), NO_ROWS, "none", r"the labels hold 1 class\(es\), at least 2 are needed"),
        (None, None, blobs(5).x_ND, "none", r"the labels hold 0 class\(es\)"),
        (blobs(5), constant([3]), NO_ROWS, "none", "labels run from 0 to 3, allowed are 0 to 2; mend them"),
        (constant([-1, 0]), None, NO_ROWS, "none", "labels run from -1 to 0, allowed are 0 to 2"),
        (blobs(5), None, NO_ROWS[:0], "coral", "coral needs at least 2 images of each domain, the target has 0; use none"),
        (
            replace(blobs(1), domain_N=np.array(["a", "a", "b"])), None, blobs(5).x_ND, "standardise",
            "2 images of each domain, a source domain has 1; use none or add images",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_from_is_refused(
    source: Labelled | None, target: Labelled | None, unlabelled_UD: np.ndarray, how: str, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        fit_adapted_head(source, target, unlabelled_UD, how, SETTINGS)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"'dann' is unknown.*hold NaN.*hold 1 class"):
        fit_adapted_head(constant([1]), None, NAN, "dann", SETTINGS)


def test_source_rows_are_shown_to_a_target_head_in_the_targets_scaling() -> None:
    """The target is the source stretched and shifted: what training saw of a source row is what its target twin looks like."""
    source = blobs(60)
    target_ND = source.x_ND * [3, 0.5, 2, 1] + [40, -7, 0, 9]
    head = fit_adapted_head(source, None, target_ND, "standardise", SETTINGS)
    shown_SD = as_target(source, None, target_ND, "standardise")
    assert shown_SD == pytest.approx(target_ND, abs=0.05)  # spreads are widened by a thousandth
    as_they_are, moved = ((head.probabilities(x).argmax(1) == source.y_N).mean() for x in (source.x_ND, shown_SD))
    assert moved > 0.8
    assert as_they_are < 0.6
    assert as_target(source, None, target_ND, "none") == pytest.approx(source.x_ND, abs=1e-5)
