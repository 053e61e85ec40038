"""The head in closed form: scikit-learn's logistic regression, folded into one linear layer."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from tasks.core.head import fit_head
from tasks.core.model import ImageModel


@pytest.mark.parametrize(
    ("labels", "n_classes"),
    [([0, 1, 2, 3], 4), ([0, 1], 2), ([0, 2], 3), ([1, 4, 5], 7), ([2, 0], 4)],
    ids=["all", "two", "two of three", "gaps", "two of four"],
)
def test_the_head_equals_scikit_learn_on_scaled_features(labels: list[int], n_classes: int) -> None:
    rng = np.random.default_rng(1)
    y_N = np.array(labels)[rng.integers(0, len(labels), 60)]
    x_ND = (rng.normal(2, [1, 0.1, 5, 2], (60, 4)) + np.eye(8)[y_N, :4] * 2).astype(np.float32)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=1000)).fit(x_ND, y_N)
    model = ImageModel(nn.Identity(), nn.Linear(4, n_classes))
    fit_head(model, x_ND, y_N, 0.5)
    with torch.no_grad():
        probs = model(torch.from_numpy(x_ND)).double().softmax(1).numpy()
    assert probs.argmax(1).tolist() == probe.predict(x_ND).tolist()  # a class that never occurs is never guessed
    present = probs[:, sorted(labels)]
    assert present / present.sum(1, keepdims=True) == pytest.approx(probe.predict_proba(x_ND), abs=1e-5)


def test_classes_that_never_occur_get_no_probability() -> None:
    rng = np.random.default_rng(2)
    x_ND, y_N = rng.normal(size=(60, 4)).astype(np.float32), rng.integers(0, 2, 60)
    model = ImageModel(nn.Identity(), nn.Linear(4, 10))
    fit_head(model, x_ND, y_N, 0.01)
    with torch.no_grad():
        probs = model(torch.from_numpy(x_ND)).softmax(1)
    assert float(probs[:, 2:].sum(1).max()) < 0.01


def test_a_constant_feature_does_no_harm() -> None:
    x_ND = np.array([[5.0, 0], [5, 1], [5, 2], [5, 3]], np.float32)
    model = ImageModel(nn.Identity(), nn.Linear(2, 2))
    fit_head(model, x_ND, np.array([0, 0, 1, 1]), 10.0)
    assert torch.isfinite(model.head.weight).all()
    assert model(torch.from_numpy(x_ND)).argmax(1).tolist() == [0, 0, 1, 1]


def test_a_head_needs_two_classes() -> None:
    with pytest.raises(ValueError, match="labelled images of at least two classes"):
        fit_head(ImageModel(nn.Identity(), nn.Linear(2, 3)), np.eye(2), np.array([1, 1]), 1.0)
