"""params.yaml as typed, frozen values."""

from tasks.params.reading import read_params
from tasks.params.sections import HeadPhase, NetPhase, Params, Phase, Rules, SelectModel, Transform, ValidateData

__all__ = [
    "HeadPhase",
    "NetPhase",
    "Params",
    "Phase",
    "Rules",
    "SelectModel",
    "Transform",
    "ValidateData",
    "read_params",
]
