import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from flows.cli import PANELS, app
from flows.dvc_process import dvc_output
from flows.results import audit_paragraph
from flows.terminal import COLOUR

PROJECT = Path(__file__).parents[2]
ACCLIMATE = [sys.executable, "-m", "flows.cli"]


@pytest.fixture
def project(workspace: Path) -> Path:
    """The toy workspace with valid params."""
    shutil.copy(PROJECT / "params.yaml", workspace)
    return workspace


def acclimate(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    return subprocess.run([*ACCLIMATE, *arguments], env=environment, capture_output=True, text=True, check=False)


def test_help_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'prefect', 'mlflow', 'dvc', 'pandas', 'numpy', 'pydantic'}"
    code = f"import sys, flows.cli; sys.exit(str({heavy} & set(sys.modules) or ''))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr.strip() == ""
    )


def test_every_command_has_its_place_in_the_help_and_the_pipeline_comes_first() -> None:
    group = typer.main.get_command(app)
    named = [name for names in PANELS.values() for name in names]
    assert sorted(named) == sorted(group.commands)  # type: ignore[attr-defined]
    text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "160"}).stdout
    assert "Adapts pretrained image models to a new domain" in text
    places = [text.index(panel) for panel in PANELS]
    assert places == sorted(places)
    assert text.index(" run ") < text.index(" validate ")


@pytest.mark.parametrize("arguments", [["run", "--engine", "magic"], ["--workspace", "/nowhere", "run"], ["nonsense"]])
def test_usage_errors_end_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2


def test_all_params_problems_are_told_before_anything_runs(project: Path) -> None:
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("n_threads: 1", "n_thread: 1").replace("seed: 0", "seed: no"))
    done = acclimate("run")
    assert done.returncode == 1
    for problem in ("runtime.n_thread ", "did you mean 'n_threads'", "seed"):
        assert problem in done.stderr
    assert not (project / "a").exists()


def test_a_run_does_not_overwrite_answers_that_were_not_entered(project: Path) -> None:
    (project / "data/given/labels.csv").write_text("path,label,by,on,asked_of\n")
    (project / "data/to_label.csv").write_text("path,label,source_only,adapted,asked_of\na.png,dog,cat,dog,p1\n")
    done = acclimate("run")
    assert done.returncode == 1
    told = "data/to_label.csv holds 1 answer that a run would lose; enter them first with `acclimate label --from"
    assert told in " ".join(done.stderr.split())
    assert "a.png,dog" in (project / "data/to_label.csv").read_text()
    assert not (project / "a").exists()


@pytest.mark.flows
def test_run_leaves_the_lock_file_of_dvc_repro(toy: Callable[[str], Path]) -> None:
    plain = toy("plain")
    dvc_output("repro", "register_model")
    ours = toy("ours")
    shutil.copy(PROJECT / "params.yaml", ours)
    done = acclimate("run")
    assert done.returncode == 0, done.stderr
    assert "hello from build" in done.stdout
    assert (ours / "dvc.lock").read_bytes() == (plain / "dvc.lock").read_bytes()


def test_the_reason_of_a_failed_run_comes_last(project: Path) -> None:
    (project / "measure.py").write_text("import sys\nsys.exit('error: nothing to measure')\n")
    done = acclimate("run")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: measure_images: nothing to measure"


def test_on_a_terminal_stages_see_a_terminal_and_the_reason_still_comes_last(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "measure.py").write_text("import sys\nsys.exit(f'error: terminal {sys.stderr.isatty()}')\n")
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    shown: list[bytes] = []

    def read(descriptor: int) -> bytes:
        shown.append(os.read(descriptor, 4096))
        return shown[-1]

    assert os.waitstatus_to_exitcode(pty.spawn([*ACCLIMATE, "run"], read)) == 1
    text = b"".join(shown).decode()
    assert COLOUR.sub("", text).splitlines()[-1] == "error: measure_images: terminal True"
    assert "\r\r" not in text


def test_the_stage_dies_with_the_command(project: Path) -> None:
    script = "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)\n"
    (project / "measure.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    with subprocess.Popen([*ACCLIMATE, "run"], env=environment, stderr=subprocess.DEVNULL) as command:
        end = time.monotonic() + 60
        while not (project / "pid").exists() or not (project / "pid").read_text():
            assert time.monotonic() < end
            time.sleep(0.05)
        command.send_signal(signal.SIGTERM)
        assert command.wait(30) == 143
    with pytest.raises(ProcessLookupError):
        os.kill(int((project / "pid").read_text()), 0)


def test_a_missing_report_names_its_stage(workspace: Path) -> None:
    done = CliRunner().invoke(app, ["--workspace", str(workspace), "report"])
    assert done.exit_code == 1
    assert done.stderr == (
        "error: data/audit/report.html is missing: it is made by the stage audit_bias; run `acclimate run`\n"
    )


def test_report_prints_its_path(workspace: Path) -> None:
    (workspace / "data/audit").mkdir(parents=True)
    (workspace / "data/audit/report.html").touch()
    done = CliRunner().invoke(app, ["report"])
    assert done.stdout == f"{workspace}/data/audit/report.html\n"


def test_results_are_shown_as_the_stages_wrote_them(project: Path) -> None:
    dvc_output("repro", "register_model")
    (project / "data/audit").mkdir(parents=True)
    rules = [rule("gap by site", "fail", "gap of 0.2"), rule("floor", "pass", "all above")]
    (project / "data/audit/verdict.json").write_text(json.dumps({"verdict": "fail", "reason": "r", "rules": rules}))
    (project / "data/metrics.json").write_text(json.dumps({"scratch": {"n": 9, "accuracy": 0.5, "accuracy_low": None}}))
    done = acclimate("run")
    assert done.returncode == 0, done.stderr
    told = "audit: fail: 1 of 2 required rules broken: gap by site (site): gap of 0.2\n"
    assert told in done.stdout
    assert told in acclimate("status").stdout
    assert "scratch" in done.stdout
    assert "not measured" in done.stdout


def rule(name: str, verdict: str, reason: str, *, required: bool = True, column: str = "site") -> dict[str, object]:
    return {"name": name, "verdict": verdict, "reason": reason, "required": required, "column": column}


def test_why_an_audit_ended_as_it_did_is_one_paragraph_by_the_first_rule_that_decides() -> None:
    rules = [
        rule("met", "pass", "all inside"), rule("asked for", "fail", "of no weight", required=False),
        rule("open", "inconclusive", "too few"), rule("broken", "fail", "group a: 9 points below"),
        rule("worse", "fail", "group b", column=""),
    ]  # fmt: skip
    told = audit_paragraph({"verdict": "fail", "reason": "all of it", "rules": rules})
    assert told == "2 of 4 required rules broken: broken (site): group a: 9 points below; also worse (all images)"
    told = audit_paragraph({"verdict": "inconclusive", "reason": "all of it", "rules": [rules[2]]})
    assert told == "1 of 1 required rules undecided: open (site): too few"
    assert audit_paragraph({"verdict": "pass", "reason": "every group is inside", "rules": [rules[0]]}) == (
        "every group is inside"
    )
    assert audit_paragraph({"verdict": "inconclusive", "reason": "no rule is required", "rules": [rules[1]]}) == (
        "no rule is required"
    )


@pytest.mark.parametrize("word", ["far", "left-handed", "well-known-and-long" * 3])
def test_the_paragraph_fills_four_lines_of_a_terminal_at_most(word: str) -> None:
    reason = " ".join([word] * 200)
    told = audit_paragraph({"verdict": "fail", "reason": "", "rules": [rule("r", "fail", reason)]})
    lines = textwrap.wrap(f"audit: fail: {told}", 100, break_on_hyphens=False)
    assert len(lines) == 4
    assert told.endswith(f"{word} …")
    assert told.removesuffix(" …") in f"1 of 1 required rules broken: r (site): {reason}"


def test_given_places_that_are_not_there_are_told_together_before_anything_runs(project: Path) -> None:
    text = (project / "params.yaml").read_text()
    text = text.replace("root: data/sample/images", "root: nowhere").replace(
        "folder: data/sample/zoo", "folder: no_zoo"
    )
    (project / "params.yaml").write_text(text)
    done = acclimate("run")
    assert done.returncode == 1
    assert "build_manifest.root 'nowhere' does not exist; mend it in params.yaml" in done.stderr
    assert "zoo.folder 'no_zoo' does not exist" in done.stderr
    assert not (project / "dvc.lock").exists()
