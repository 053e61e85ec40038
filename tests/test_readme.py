"""README and guides are true: their commands, options, stages, layout and links exist."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from ruamel.yaml import YAML

from flows.cli import app
from tasks.params import read_params

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "deploy").glob("*.md"))]
GUIDES = [path for path in TEXTS if path.name != "LOG.md"]  # which tells of former times, too
ENDS = re.compile(r"\s#|\s2?>|\s&|\s\||;|…|\.\.\.|$")  # of a command within a line


def commands_of(text: str, program: str) -> set[str]:
    """First words after the program, in the indented command lines of a text."""
    return set(re.findall(rf"^    {program} ([a-z]+)", text, re.MULTILINE))


def test_commands_are_found_in_a_text() -> None:
    assert commands_of("    make run   # x\n    acclimate status\nacclimate no\n", "acclimate") == {"status"}


def test_every_acclimate_command_exists_and_is_told() -> None:
    group = typer.main.get_command(app)
    assert commands_of(README, "acclimate") == set(group.commands)  # type: ignore[attr-defined]


def command_lines(text: str) -> tuple[list[str], list[str]]:
    """What follows the word `acclimate`: whole commands of code blocks, and mentions in the text, which may leave things out."""
    lines, mentions, is_code = [], [], False
    for line in text.splitlines():
        is_code ^= line.startswith("```")
        if is_code or line.startswith("    "):
            for part in line.split("&&"):
                if found := re.search(r"(?:^\s*|/|=\S+ )acclimate ([a-z-].*)", part):
                    lines.append(found[1][: re.search(ENDS, found[1]).start()])  # type: ignore[union-attr]
        else:
            mentions += re.findall(r"`acclimate ([a-z-][^`|…]*)`", line)
    return lines, mentions


def test_command_lines_are_found_in_a_text() -> None:
    text = """Say `acclimate run --engine x`, or `acclimate`.
    acclimate status        # acclimate no
```
0 3 * * 1  cd /opt && A=/opt/acclimate .venv/bin/acclimate retrain 2>&1
acclimate a && acclimate b
prefect worker start --pool acclimate --name x
```
acclimate no
"""
    assert command_lines(text) == (["status       ", "retrain", "a ", "b"], ["run --engine x"])


def wrong_with(said: str, *, is_whole: bool) -> list[str]:
    """Words that the command line would not understand; of a whole command also what it would miss."""
    command: Any = typer.main.get_command(app)
    words = [word for word in shlex.split(said) if word != "--help"]
    if words and words[0] == "--workspace":
        words = words[2:]
    while hasattr(command, "commands"):
        if not words:
            return ["a command is missing"] if is_whole else []
        if words[0] not in command.commands:
            return [f"no command {words[0]}"]
        command = command.commands[words.pop(0)]
    options = {
        name: each for each in command.params for name in (*each.opts, *each.secondary_opts) if name.startswith("-")
    }
    wrong, n_given, missing = [], 0, {each.opts[0] for each in options.values() if each.required}
    while words:
        word = words.pop(0).partition("=")[0]
        if word in options:
            missing.discard(options[word].opts[0])
            words = words if options[word].is_flag else words[1:]
        elif word.startswith("-"):
            wrong.append(f"no option {word}")
        else:
            n_given += 1
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    if not wrong and n_given > len(arguments) and all(each.nargs == 1 for each in arguments):
        wrong.append("too many words")
    if is_whole:
        wrong += [f"{name} is missing" for name in missing]
        wrong += ["an argument is missing"] * (n_given < sum(each.required for each in arguments))
    return wrong


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ("retrain --data x", []),
        ("predict a b --out=c.csv", []),
        ("--workspace f registry show 7", []),
        ("retain", ["no command retain"]),
        ("registry", ["a command is missing"]),
        ("registry drop", ["no command drop"]),
        ("retrain --date x", ["no option --date"]),
        ("registry show 6 7", ["too many words"]),
        ("registry diff 6", ["an argument is missing"]),
        ("validate a", ["--out is missing"]),
    ],
)
def test_a_wrong_command_line_is_seen(said: str, wrong: list[str]) -> None:
    assert wrong_with(said, is_whole=True) == wrong
    assert wrong_with(said, is_whole=False) == [each for each in wrong if "missing" not in each]


@pytest.mark.parametrize("guide", [str(path.relative_to(ROOT)) for path in GUIDES])
def test_every_command_line_of_a_guide_would_be_understood(guide: str) -> None:
    whole, mentions = command_lines((ROOT / guide).read_text(encoding="utf-8"))
    found = {said: wrong_with(said, is_whole=True) for said in whole}
    found |= {said: wrong_with(said, is_whole=False) for said in mentions}
    assert {said: wrong for said, wrong in found.items() if wrong} == {}


def test_the_guides_hold_command_lines() -> None:
    assert sum(len(command_lines(path.read_text(encoding="utf-8"))[0]) for path in GUIDES) > 60


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
