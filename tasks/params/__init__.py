"""params.yaml as typed, frozen values."""

from tasks.params.reading import read_params, read_rules, read_selection
from tasks.params.rules import RuleBook, Rules
from tasks.params.sections import (
    BuildManifest,
    Params,
    SelectionBook,
    SelectModel,
    Transform,
    ValidateData,
)
from tasks.params.training import HeadPhase, NetPhase

__all__ = [
    "BuildManifest",
    "HeadPhase",
    "NetPhase",
    "Params",
    "RuleBook",
    "Rules",
    "SelectModel",
    "SelectionBook",
    "Transform",
    "ValidateData",
    "read_params",
    "read_rules",
    "read_selection",
]
