import pytest

from flows.dvc_process import failure_reason

RAN = "ERROR: failed to reproduce 'validate_data': failed to run: python -m tasks.validate_data, exited with"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["noise", "error: 3 images can't be read", f"{RAN} 1"], "validate_data: 3 images can't be read"),
        (
            ["Traceback", "KeyError: 'x'", f"{RAN} 1"],
            f"validate_data: KeyError: 'x' ({RAN[RAN.index('failed to run') :]} 1)",
        ),
        (["epoch 3", f"{RAN} -9"], "validate_data: was killed by signal 9; the machine may lack memory"),
        (["ERROR: failed to reproduce 'x': missing data 'source': a.csv"], "x: missing data 'source': a.csv"),
        (
            ["ERROR: failed to reproduce 'x': 'a' is busy, it is being blocked by:", "  (PID 7): dvc repro", "", "If"],
            "x: 'a' is busy, it is being blocked by: (PID 7): dvc repro; wait until that process has ended, or end it (a "
            "killed run can leave its stage alive), and run again",
        ),
        ([], "dvc ended with exit code 255"),
    ],
)
def test_the_reason_is_the_stages_own_or_else_dvcs(lines: list[str], expected: str) -> None:
    assert failure_reason(lines, 255) == expected
