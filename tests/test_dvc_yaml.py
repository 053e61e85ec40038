"""dvc.yaml against the code: deps are what a stage imports and reads, params are what it uses, outs are what it writes."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tasks.params import Params

PROJECT = Path(__file__).parents[1]
STAGES: dict[str, dict[str, Any]] = YAML(typ="safe").load((PROJECT / "dvc.yaml").read_text())["stages"]
NO_STAGES = {"__init__", "params"}
EVERYTHING = frozenset(Params.model_fields) - {"review"}  # who may decide: no stage reads it, the lineage leaves it out
LABELS_SEEN_BY = {
    "data/test_labels.csv": {"evaluate_model"},
    "data/guard_labels.csv": {"guard_adaptation"},
    "data/given/labels.csv": {"build_manifest", "guard_adaptation"},
    "data/validation.json": {"audit_bias", "register_model"},  # its copies and cells tell hidden labels
    "data/profile.json": {"register_model"},
}


def code_of(stage: str) -> str:
    return (PROJECT / "tasks" / f"{stage}.py").read_text()


def names_in(entries: list[Any]) -> list[str]:
    """Paths of deps or outs, with or without options."""
    return [name for entry in entries for name in ([entry] if isinstance(entry, str) else entry)]


def deps_of(stage: str) -> list[str]:
    return names_in(STAGES[stage]["deps"])


def outs_of(stage: str) -> list[str]:
    return [name for kind in ("outs", "metrics", "plots") for name in names_in(STAGES[stage].get(kind, []))]


def is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


# Modules and stages


def test_every_stage_is_a_module_and_the_other_way_round() -> None:
    modules = {path.stem for path in (PROJECT / "tasks").glob("*.py")} - NO_STAGES
    assert set(STAGES) == modules
    assert {name: stage["cmd"] for name, stage in STAGES.items()} == {
        name: f"python -m tasks.{name}" for name in modules
    }


def late_dependencies(stages: dict[str, tuple[list[str], list[str]]]) -> list[tuple[str, str]]:
    """(stage, dep) where a dep is made by the same or a later stage; stages give (deps, outs)."""
    names = list(stages)
    return [
        (name, dep)
        for number, name in enumerate(names)
        for dep in stages[name][0]
        if any(is_below(dep, out) or is_below(out, dep) for later in names[number:] for out in stages[later][1])
    ]


def test_stages_stand_in_the_order_in_which_they_run() -> None:
    assert late_dependencies({name: (deps_of(name), outs_of(name)) for name in STAGES}) == []


def test_a_late_dependency_is_seen() -> None:
    stages = {"a": (["data/b/x", "data/bb"], ["data/a"]), "b": (["data/a"], ["data/b"])}
    assert late_dependencies(stages) == [("a", "data/b/x")]


# Imports


def imported_files(source: str, root: Path) -> set[str]:
    """Project files that the source imports, directly or by way of others, also inside functions."""
    found: set[str] = set()
    waiting = [source]
    while waiting:
        for name in _imported_names(ast.parse(waiting.pop())):
            module = Path(*name.split("."))
            for path in (module.with_suffix(".py"), module / "__init__.py"):
                is_marker = path.name == "__init__.py" and path.parent.name in ("tasks", "core", "flows")
                if (root / path).is_file() and str(path) not in found and not is_marker:
                    found.add(str(path))
                    waiting.append((root / path).read_text())
    return found


def _imported_names(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_exactly_the_python_files_that_a_stage_imports(stage: str) -> None:
    python = {dep for dep in deps_of(stage) if dep.endswith(".py")}
    assert python == imported_files(code_of(stage), PROJECT) | {f"tasks/{stage}.py"}


def test_imports_are_followed_into_functions_and_further_files(tmp_path: Path) -> None:
    (tmp_path / "tasks/core").mkdir(parents=True)
    (tmp_path / "tasks/core/a.py").write_text("def f():\n    from tasks.core import b\n")
    (tmp_path / "tasks/core/b.py").write_text("import tasks.core.a, json\nfrom tasks.core.c import X\n")
    (tmp_path / "tasks/core/c.py").write_text("import tasks.core.gone\n")
    (tmp_path / "tasks/core/d.py").write_text("")
    found = imported_files("from tasks.core.a import f", tmp_path)
    assert found == {"tasks/core/a.py", "tasks/core/b.py", "tasks/core/c.py"}


@pytest.mark.parametrize("stage", STAGES)
def test_files_that_an_imported_module_opens_beside_itself_are_deps(stage: str) -> None:
    """A template is code too."""
    beside = {path.name: str(path.relative_to(PROJECT)) for path in (PROJECT / "tasks").rglob("*.jinja")}
    code = [code_of(stage), *((PROJECT / path).read_text() for path in imported_files(code_of(stage), PROJECT))]
    used = {path for name, path in beside.items() if any(name in text for text in code)}
    assert {dep for dep in deps_of(stage) if dep.startswith("tasks/") and not dep.endswith(".py")} == used


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_depends_on_the_lock(stage: str) -> None:
    assert "requirements.lock" in deps_of(stage)


# What a stage says and does


def header_paths(docstring: str, word: str) -> set[str]:
    """data/… paths of the paragraph that begins with reads or writes; a <name> in a path stands for its whole folder."""
    paragraph = re.search(rf"(?m)^{word} .*(?:\n +.*)*", docstring)
    assert paragraph, f"the header has no line that begins with {word}"
    return {path.rstrip("/.") for path in re.findall(r"(?<![\w/])data/[\w./-]+", paragraph[0])}


def differences(said: set[str], declared: set[str]) -> tuple[set[str], set[str]]:
    """What is said but not declared, and what is declared but not said; a folder counts for files below it."""
    return (
        {path for path in said if not any(is_below(path, folder) for folder in declared)},
        {folder for folder in declared if not any(is_below(path, folder) for path in said)},
    )


@pytest.mark.parametrize("stage", STAGES)
def test_the_header_tells_what_is_read_and_written(stage: str) -> None:
    docstring = ast.get_docstring(ast.parse(code_of(stage))) or ""
    assert docstring.startswith(f"{stage}: ")
    read = {dep for dep in deps_of(stage) if is_below(dep, "data")}
    assert differences(header_paths(docstring, "reads"), read) == (set(), set())
    assert differences(header_paths(docstring, "writes"), set(outs_of(stage))) == (set(), set())
    paragraph = docstring[docstring.index("\nreads ") : docstring.index("\nwrites ")]
    assert ("the zoo" in paragraph) == ("${zoo.folder}" in deps_of(stage))


def test_a_header_that_differs_is_seen() -> None:
    docstring = (
        "a: b.\n\nreads   data/a.csv, data/f/<x>.npz,\n        data/m/m.json (data/n)\nwrites  data/o.\n\nMore data/p."
    )
    assert header_paths(docstring, "reads") == {"data/a.csv", "data/f", "data/m/m.json", "data/n"}
    assert header_paths(docstring, "writes") == {"data/o"}
    assert differences({"data/m/m.json", "data/a"}, {"data/m", "data/b"}) == ({"data/a"}, {"data/b"})


def data_literals(source: str) -> set[str]:
    """data/… texts in the code, docstrings aside."""
    texts = {n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return {text for text in texts if re.fullmatch(r"data/[\w./-]+", text)}


@pytest.mark.parametrize("stage", STAGES)
def test_paths_in_the_code_are_deps_or_outs(stage: str) -> None:
    known = {*deps_of(stage), *outs_of(stage)}
    assert {text for text in data_literals(code_of(stage)) if not any(is_below(text, path) for path in known)} == set()


def test_paths_in_the_code_are_seen() -> None:
    assert data_literals('"""data/doc is told"""\nX = Path("data/x.csv")\nY = f"data/{x}"') == {"data/x.csv"}


@pytest.mark.parametrize("path", LABELS_SEEN_BY)
def test_hidden_labels_are_seen_where_they_are_needed_alone(path: str) -> None:
    assert {name for name in STAGES if any(is_below(path, dep) for dep in deps_of(name))} == LABELS_SEEN_BY[path]
    assert {name for name in STAGES if path in data_literals(code_of(name))} <= LABELS_SEEN_BY[path] | {"validate_data"}
    assert all("data" not in deps_of(name) for name in STAGES)


# Parameters


def params_used(source: str) -> set[str]:
    """Dotted keys that follow `params` or `read_params()`; every section where params are taken as a whole.

    The resume key only names a folder: what it hashes changes no result.
    """
    tree = ast.parse(source)
    skipped = {
        n for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) and f.name == "resume_key" for n in ast.walk(f)
    }
    inner = {n.value for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    used: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node not in inner and node not in skipped:
            used |= _keys(node)
    own = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    handed_on = (n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) not in own)
    if any(
        ast.unparse(value) == "params"
        for call in handed_on
        for value in [*call.args, *(k.value for k in call.keywords)]
    ):
        used |= EVERYTHING
    return used


def _keys(node: ast.AST) -> set[str]:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        parts.insert(0, node.id)
    elif isinstance(node, ast.Call) and ast.unparse(node.func) == "read_params":
        parts.insert(0, "params")
    if "params" not in parts:
        return set()
    parts = parts[parts.index("params") + 1 :]
    if not parts or parts[0].startswith("model_dump"):
        return set(EVERYTHING) if parts else set()
    fields: Any = Params.model_fields
    known = []
    for part in parts:
        if part not in fields:
            break
        known.append(part)
        fields = getattr(fields[part].annotation, "model_fields", {})
    return {".".join(known)} if known else set()


@pytest.mark.parametrize("stage", STAGES)
def test_params_are_exactly_what_the_code_uses(stage: str) -> None:
    used, declared = params_used(code_of(stage)), set(STAGES[stage].get("params", []))
    assert {key for key in used if not any(_covers(section, key) for section in declared)} == set(), "not declared"
    assert {section for section in declared if not any(_covers(section, key) for key in used)} == set(), "not used"


def _covers(section: str, key: str) -> bool:
    return key == section or key.startswith(f"{section}.")


@pytest.mark.parametrize(
    ("source", "used"),
    [
        ("def f(params): return params.zoo.image_px or params.seed", {"zoo.image_px", "seed"}),
        ("name = read_params().register_model.name", {"register_model.name"}),
        (
            "x = shop.params.finetune_model.machine.compile\ny = self.params.seed",
            {"finetune_model.machine.compile", "seed"},
        ),
        (
            "settings = params.build_manifest\nlimits = params.zoo.candidates.count(1)",
            {"build_manifest", "zoo.candidates"},
        ),
        ("text = params.model_dump_json()", EVERYTHING),
        ("def resume_key(params): return params.model_dump_json() + str(params.seed)", set()),
        ("def f(params): return params.seed\nf(params)", {"seed"}),
        ("from a import f\nf(params)", EVERYTHING),
        ("def f(params): return other.seed", set()),
    ],
)
def test_used_params_are_seen(source: str, used: set[str]) -> None:
    assert params_used(source) == used
