"""params.yaml as typed, frozen values."""

from tasks.params.reading import read_params, read_rules
from tasks.params.rules import RuleBook, Rules
from tasks.params.sections import (
    BuildManifest,
    HeadPhase,
    NetPhase,
    Params,
    Phase,
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
    "Transform",
    "ValidateData",
    "read_params",
    "read_rules",
]
