"""The head of an image model in closed form: no steps, no rates.

Axes: N images, C classes, D features.
"""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from tasks.core.model import ImageModel

ABSENT_CLASS_GAP = 20.0  # logits below the smallest one seen: a share of e^-20


def fit_head(model: ImageModel, x_ND: np.ndarray, y_N: np.ndarray, inverse_l2: float) -> None:
    """Sets the head to the logistic regression on standardised cached features; the scaling is folded into the weights.

    Classes that do not occur get no probability. ValueError where only one class occurs.
    """
    classes = np.unique(y_N)
    if len(classes) < 2:
        raise ValueError("the head phase needs labelled images of at least two classes")
    scaler = StandardScaler().fit(x_ND)
    probe = LogisticRegression(C=inverse_l2, max_iter=1000).fit(scaler.transform(x_ND), y_N)
    weight, bias = class_rows(probe)
    weight = weight / scaler.scale_
    bias = bias - weight @ scaler.mean_
    set_head(model, *of_all_classes(weight, bias, classes, x_ND, model.head.out_features))


def set_head(model: ImageModel, weight_CD: np.ndarray, bias_C: np.ndarray) -> None:
    """Changes the model's head in place, on its device."""
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(weight_CD).to(model.head.weight))
        model.head.bias.copy_(torch.from_numpy(bias_C).to(model.head.bias))


def class_rows(probe: LogisticRegression) -> tuple[np.ndarray, np.ndarray]:
    """Weights and biases with a row for each class that the probe knows."""
    weight, bias = probe.coef_, probe.intercept_
    if len(probe.classes_) == 2:  # scikit-learn gives one row for two classes: the log odds
        return np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias


def of_all_classes(
    weight: np.ndarray, bias: np.ndarray, classes: np.ndarray, x_ND: np.ndarray, n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """(C, D) and (C,) float64 for all classes: those without a row get no probability on the rows of x."""
    weight_CD = np.zeros((n_classes, x_ND.shape[1]))
    bias_C = np.full(n_classes, float((x_ND @ weight.T + bias).min()) - ABSENT_CLASS_GAP)
    weight_CD[classes], bias_C[classes] = weight, bias
    return weight_CD, bias_C
