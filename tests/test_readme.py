"""The README is true: its commands, stages, layout and links exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from ruamel.yaml import YAML

from flows.cli import app
from tasks.params import read_params

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands_of(text: str, program: str) -> set[str]:
    """First words after the program, in the indented command lines of a text."""
    return set(re.findall(rf"^    {program} ([a-z]+)", text, re.MULTILINE))


def test_commands_are_found_in_a_text() -> None:
    assert commands_of("    make run   # x\n    acclimate status\nacclimate no\n", "acclimate") == {"status"}


def test_every_acclimate_command_exists_and_is_told() -> None:
    group = typer.main.get_command(app)
    assert commands_of(README, "acclimate") == set(group.commands)  # type: ignore[attr-defined]


def test_every_make_target_exists() -> None:
    targets = commands_of(README, "make")
    assert targets == {"run", "test"}
    for target in sorted(targets):
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_the_table_of_stages_is_dvc_yaml() -> None:
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    assert re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE) == list(stages)


def test_every_link_and_picture_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) >= 3
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_line_of_the_layout_exists() -> None:
    layout = README[README.index("## Layout") :]
    places = [place for line in re.findall(r"^    (\S.*?)   ", layout, re.MULTILINE) for place in line.split(", ")]
    assert len(places) >= 7
    assert [place for place in places if not (ROOT / place).exists()] == []


@pytest.mark.parametrize("example", sorted(path.name for path in (ROOT / "docs/examples").glob("*.yaml")))
def test_every_example_is_a_whole_params_file(example: str) -> None:
    read_params(ROOT / "docs/examples" / example)


def test_the_experiment_of_the_readme_names_a_parameter() -> None:
    for key in re.findall(r"-S ([\w.]+)=", README):
        value = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
        for name in key.split("."):
            value = value[name]


def test_help_answers_without_the_heavy_tools() -> None:
    code = "import flows.cli, sys; print([m for m in ('torch', 'prefect', 'mlflow', 'dvc') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
