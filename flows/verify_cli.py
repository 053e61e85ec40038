"""`acclimate verify`: whether a registered model still is what it was registered as."""

from typing import Annotated

import typer

from flows.data_cli import plain_errors
from flows.registry_cli import Which, model_name, show_table, warn

# Everything heavier is imported by the command that needs it: `acclimate --help` answers at once.


def verify(
    which: Which,
    rerun: Annotated[bool, typer.Option("--rerun", help="Run its commit's pipeline anew in a fresh clone.")] = False,
) -> None:
    """Hashes bundle, code, parameters, environment and data anew; exit code 1 unless all are as registered."""
    from flows.dvc_process import check_project
    from flows.registry import find
    from flows.verify import OK
    from flows.verify import verify as findings_of

    with plain_errors():
        check_project()
        version = find(model_name(), which)
        findings = findings_of(version)
        if rerun and findings[0].verdict == OK:
            from flows.rerun import rerun as run_again

            findings += run_again(version, tell=warn)
        rows = [[finding.part, finding.verdict, finding.told] for finding in findings]
    show_table(f"{version.name} version {version.number}", ["part", "verdict", "found"], rows)
    if any(finding.verdict != OK for finding in findings):
        raise typer.Exit(1)
