"""params.yaml as typed, frozen values."""

from tasks.params.reading import read_params, read_rules, read_selection
from tasks.params.rules import RuleBook, Rules
from tasks.params.sections import (
    BuildManifest,
    HeadPhase,
    NetPhase,
    Params,
    Phase,
    SelectionBook,
    SelectModel,
    Transform,
    ValidateData,
)

__all__ = [
    "BuildManifest",
    "HeadPhase",
    "NetPhase",
    "Params",
    "Phase",
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
