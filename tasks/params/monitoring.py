"""The limits of `acclimate monitor`: a file of their own, since they change no result of the pipeline."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from tasks.params.reading import _read_yaml, _sentence
from tasks.params.rules import Confidence, Count, Section

Limit = Annotated[float, Field(ge=0, lt=1)]  # at 1 nothing could lie beyond


class MonitorLimits(Section):
    """Past a limit: the whole interval lies beyond it."""

    confidence: Confidence
    min_images: Annotated[int, Field(ge=2)]
    min_group_size: Count
    property_shift: Limit
    embedding_shift: Limit
    asked_rise: Limit
    accuracy_drop: Limit
    unreadable_share: Limit


def read_monitor_limits(path: Path) -> MonitorLimits:
    """The checked limits. ValueError lists every problem: key, value, what is allowed, nearest known key."""
    content = _read_yaml(path, "name a YAML file of limits")
    try:
        return MonitorLimits.model_validate(content)
    except ValidationError as error:
        problems = [_sentence(detail, MonitorLimits) for detail in error.errors()]
    raise ValueError(f"{path} has {len(problems)} problem(s):\n  - " + "\n  - ".join(problems))
