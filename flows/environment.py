"""The environment that DVC's stages and Prefect run in: this Python, no telemetry, everything inside the project."""

import os
import sys
from pathlib import Path


def dvc_environment() -> dict[str, str]:
    """Variables for DVC: a stage's `python` is this Python, its output is not held back, telemetry is off."""
    from tasks.core.runtime import TELEMETRY_OFF  # loads numpy, and `acclimate --help` needs neither

    # Not resolved: the real file behind a virtual environment's python knows none of its packages.
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    return {**TELEMETRY_OFF, **os.environ, "PATH": os.pathsep.join(folders), "PYTHONUNBUFFERED": "1"}


def settle_prefect() -> None:
    """Sets where Prefect keeps its files and how long it waits; call before prefect is imported. What is set stays."""
    from tasks.core.runtime import quiet_tools

    quiet_tools()
    os.environ.setdefault("PREFECT_HOME", str(Path.cwd() / ".prefect"))
    # The default of 20 s is too short for the first start on a slow machine.
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
