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
    weight_CD, bias_C = probe.coef_, probe.intercept_
    if len(classes) == 2:  # scikit-learn gives one row for two classes: the log odds
        weight_CD, bias_C = np.concatenate([-weight_CD, weight_CD]) / 2, np.concatenate([-bias_C, bias_C]) / 2
    weight_CD = weight_CD / scaler.scale_
    bias_C = bias_C - weight_CD @ scaler.mean_
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.fill_(float((x_ND @ weight_CD.T + bias_C).min()) - ABSENT_CLASS_GAP)
        device = model.head.weight.device
        model.head.weight[classes] = torch.from_numpy(weight_CD).float().to(device)
        model.head.bias[classes] = torch.from_numpy(bias_C).float().to(device)
