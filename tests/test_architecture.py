"""Who may import what, how large things may grow, what may be written down. Each check is tried on a wrong input too."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
CODE = sorted(p.relative_to(PROJECT) for folder in ("tasks", "flows") for p in (PROJECT / folder).rglob("*.py"))
MAX_FILE_LINES, MAX_FUNCTION_LINES = 300, 60
NOT_ON_A_BARE_BOX = [
    "albumentations", "captum", "dvc", "fairlearn", "fastapi", "flows", "great_expectations", "matplotlib", "mlflow", "prefect",
    "pydantic", "ruamel", "tasks.params",
]  # fmt: skip
TOP_LEVEL = {
    "pyproject.toml", "params.yaml", "dvc.yaml", "dvc.lock", "Makefile", "README.md", "CHANGELOG.md", "LICENSE",
    "requirements.lock", ".gitattributes", ".gitignore",
    ".dvcignore", ".dvc", ".ci", "data", "flows", "tasks", "tests", "docs", "benchmarks",
    "deploy",
}  # fmt: skip
MACHINE = re.compile(
    r"(?<![\w.:/\-}])/(?:home|Users|root|work|mnt|media|srv)/\w"  # somebody's folders
    r"|\b[A-Z]:\\\w"
    r"|(?:extra-)?index-url|\bpypi\.|pythonhosted|/simple/|artifactory|conda\.anaconda"
)


def imports_of(tree: ast.AST) -> set[str]:
    """Every imported name with its dots, also inside functions: a.b for `import a.b`, a.b and a.b.c for `from a.b import c`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def in_flows(path: str) -> bool:
    return path.startswith("flows/")


MAY_IMPORT: dict[str, Callable[[str], bool]] = {
    "great_expectations": lambda path: path == "tasks/validate_data.py",
    "albumentations": lambda path: path == "tasks/augment_images.py",
    "fairlearn": lambda path: path == "tasks/audit_bias.py",
    "captum": lambda path: path == "tasks/explain_errors.py",
    "mlflow": lambda path: path in ("tasks/register_model.py", "flows/pyfunc_model.py"),
    "pydantic": lambda path: path.startswith("tasks/params/") or path == "flows/review_flow.py",  # a form's rules
    "pydantic_core": lambda path: path.startswith("tasks/params/"),
    "prefect": in_flows,
    "dvc": lambda path: False,
    "flows": in_flows,
    "tests": lambda path: False,
}


def forbidden_imports(path: str, source: str) -> list[str]:
    names = imports_of(ast.parse(source))
    found = [n for n in names for package, may in MAY_IMPORT.items() if is_in(n, package) and not may(path)]
    if path.startswith("tasks/core/"):
        found += [n for n in names if is_in(n, "tasks") and not is_in(n, "tasks.core") and n != "tasks"]
    return sorted({*found, *(name for name in names if name.startswith("."))})


@pytest.mark.parametrize("path", [str(path) for path in CODE])
def test_every_outside_tool_has_one_home(path: str) -> None:
    assert forbidden_imports(path, (PROJECT / path).read_text()) == []


@pytest.mark.parametrize(
    ("path", "source", "found"),
    [
        ("tasks/select_model.py", "def f():\n    import great_expectations.core", ["great_expectations.core"]),
        ("tasks/validate_data.py", "import great_expectations as gx", []),
        ("tasks/core/facts.py", "from tasks.params import Params", ["tasks.params", "tasks.params.Params"]),
        ("tasks/core/facts.py", "from tasks import params", ["tasks.params"]),
        ("tasks/core/facts.py", "from tasks.core import files\nfrom tasks.core.files import write_json", []),
        ("tasks/core/facts.py", "from .files import write_json", [".files", ".files.write_json"]),
        ("tasks/audit_bias.py", "from flows.graph import stages", ["flows.graph", "flows.graph.stages"]),
        ("flows/graph.py", "import dvc.repo", ["dvc.repo"]),
        ("flows/cli.py", "import mlflow", ["mlflow"]),
        ("flows/adapt.py", "from prefect import flow", []),
        ("tasks/adapt.py", "from prefect import flow", ["prefect", "prefect.flow"]),
        ("tasks/adapt.py", "import dvclive, prefecture", []),
    ],
)
def test_the_import_rule_can_fail(path: str, source: str, found: list[str]) -> None:
    assert forbidden_imports(path, source) == found


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


BARE_BOX = f"""
import importlib, sys
absent = {NOT_ON_A_BARE_BOX}
class Absent:
    def find_spec(self, name, path=None, target=None):
        if any(name == package or name.startswith(package + '.') for package in absent):
            raise ImportError(name + ' is not on a bare box')
sys.meta_path.insert(0, Absent())
"""


def test_core_runs_on_a_bare_box_and_stages_start_without_their_heavy_tools() -> None:
    """One process for both: torch takes seconds to import."""
    names = [".".join(path.with_suffix("").parts) for path in CODE if path.parts[0] == "tasks"]
    core = [name for name in names if name.startswith("tasks.core")]
    assert len(core) > 25
    run_python(
        f"{BARE_BOX}\nfor name in {core}: importlib.import_module(name)\n"
        "absent = [name for name in absent if name not in ('pydantic', 'ruamel', 'tasks.params')]\n"
        f"for name in {names}: importlib.import_module(name)"
    )


@pytest.mark.parametrize("module", ["tasks.params", "matplotlib", "great_expectations", "pydantic.fields", "flows.cli"])
def test_the_bare_box_is_bare(module: str) -> None:
    told = run_python(f"{BARE_BOX}\ntry: importlib.import_module('{module}')\nexcept ImportError as e: print(e)")
    assert told.endswith("is not on a bare box\n")


def loaded(module: str, names: list[str]) -> str:
    """Those of the names that are imported with the module."""
    return run_python(f"import {module}, sys\nprint(*(name for name in {names} if name in sys.modules))").strip()


def test_the_command_line_starts_without_heavy_tools() -> None:
    assert loaded("flows.cli", ["torch", "prefect", "mlflow", "dvc", "pandas", "great_expectations"]) == ""
    assert loaded("flows.cli", ["torch", "typer"]) == "typer"


def too_large(source: str) -> list[str]:
    """The file and those functions that are over the limit."""
    found = []
    if len(source.splitlines()) > MAX_FILE_LINES:
        found.append("the file")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            n_lines = (node.end_lineno or 0) - node.body[0].lineno + 1
            found += [node.name] if n_lines > MAX_FUNCTION_LINES else []
    return found


@pytest.mark.parametrize("path", [str(path) for path in CODE])
def test_files_and_functions_stay_small(path: str) -> None:
    assert too_large((PROJECT / path).read_text()) == []


def test_the_gauge_can_fail() -> None:
    body = "    pass\n" * MAX_FUNCTION_LINES
    assert too_large(f"def f():\n{body}") == []
    assert too_large(f"class A:\n def f(self):\n{body}    pass\n") == ["f"]
    assert too_large("\n" * (MAX_FILE_LINES + 1)) == ["the file"]


@pytest.mark.parametrize("path", ["tasks/__init__.py", "tasks/core/__init__.py", "flows/__init__.py"])
def test_packages_hold_nothing_but_a_docstring(path: str) -> None:
    """So that no stage depends on them, and importing them does nothing."""
    assert all(isinstance(node, ast.Expr) for node in ast.parse((PROJECT / path).read_text()).body)


def work_at_import(source: str) -> list[int]:
    """Lines of statements that do something when the module is imported; `if __name__` is the script's own part."""
    quiet = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    return [
        node.lineno
        for node in ast.parse(source).body
        if not isinstance(node, quiet)
        and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        and not (isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'")
    ]


@pytest.mark.parametrize("path", [str(path) for path in CODE if path.parts[0] == "tasks"])
def test_importing_a_module_does_nothing(path: str) -> None:
    assert work_at_import((PROJECT / path).read_text()) == []


def test_work_at_import_is_seen() -> None:
    source = '"""doc"""\nimport a\nX = 1\nprint(X)\nif __name__ == "__main__":\n    f()\nfor i in X: pass\n'
    assert work_at_import(source) == [4, 7]


def repository_files() -> list[str]:
    """Tracked files and those that git would add."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=PROJECT,
        capture_output=True,
        check=True,
    )
    return [name for name in done.stdout.decode().split("\0") if name and (PROJECT / name).is_file()]


def machine_words(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if MACHINE.search(line)]


def test_no_file_holds_a_machines_folders_or_a_package_index() -> None:
    found = {}
    for name in repository_files():
        content = (PROJECT / name).read_bytes()
        if b"\0" not in content and name != str(Path(__file__).relative_to(PROJECT)):
            found[name] = machine_words(content.decode(errors="replace"))
    assert {name: words for name, words in found.items() if words} == {}


@pytest.mark.parametrize(
    ("text", "n_found"),
    [
        ("see /" "home/ann/x", 1), ("'/" "root/y'", 1), ("=/" "work/z", 1), ("C:\\Users\\ann", 1), ("--index-url https://x", 1),
        ("https://pypi.org/simple", 1), ("a/home/x", 0), ("https://host/home/x", 0), ("data/work/x", 0), ("/dev/null", 0),
        ("{home}/work/x", 0),
    ],
)  # fmt: skip
def test_machine_words_are_seen(text: str, n_found: int) -> None:
    assert len(machine_words(text)) == n_found


def lock_problems(text: str) -> list[str]:
    """Requirements without version or hash, addresses, and pip's options."""
    entries = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n?", "", text)).splitlines()
    wanted = re.compile(r"[\w.\[\],-]+==\S+( ;[^\\]*?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*$")
    problems = [entry.split(" ")[0] for entry in entries if entry.strip() and not wanted.match(entry)]
    return problems + [word for word in ("http://", "https://", "--index", "--find-links", " @ ") if word in text]


def test_the_lock_has_hashes_and_no_address() -> None:
    text = (PROJECT / "requirements.lock").read_text()
    assert text.count("--hash=") > 200
    assert lock_problems(text) == []


def test_a_bad_lock_is_seen() -> None:
    digest = "--hash=sha256:" + "0" * 64
    good = f"# by uv\na==1 \\\n    {digest} \\\n    {digest}\n    # via b\nb[c]==2 ; sys_platform == 'linux' \\\n    {digest}\n"
    assert lock_problems(good) == []
    assert lock_problems(good + "d==3\n") == ["d==3"]
    assert lock_problems(good + f"e>=3 \\\n    {digest}\n") == ["e>=3"]
    assert lock_problems("--index-url https://x\n") == ["--index-url", "https://", "--index"]


def strangers(names: Iterable[str]) -> set[str]:
    return {name.split("/")[0] for name in names} - TOP_LEVEL


def test_the_top_level_holds_only_what_belongs_there() -> None:
    assert strangers(repository_files()) == set()


def test_a_stranger_is_seen() -> None:
    assert strangers(["utils.py", "tasks/a.py", "notes/a.md", "README.md"]) == {"utils.py", "notes"}
