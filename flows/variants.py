"""Variants of the pipeline: every combination of other parameters, checked before the first one runs, and their table."""

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.variant import change_params
from flows.worktree import PARAMS, clear_tree, git, inside, uncommitted
from tasks.params import read_params

if TYPE_CHECKING:
    from flows.fan_out import Outcome

FIGURES = (
    "n", "accuracy", "accuracy_low", "accuracy_high", "source_only", "worst_group", "worst_accuracy", "verdict", "adopted",
    "told",
)  # fmt: skip
PRINTED_NOT = ["n", "accuracy_low", "accuracy_high", "source_only", "adopted", "told"]
N_SHOWN = 5
DONE, FAILED = "done", "failed"


@dataclass(frozen=True)
class Variant:
    number: int
    changes: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.number}: " + " ".join(f"{key}={shown(value)}" for key, value in self.changes.items())


def shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def read_variants(said: list[str]) -> list[Variant]:
    """Every combination of KEY=VALUE,VALUE,…; values as YAML writes them. ValueError lists all that can't be meant."""
    values: dict[str, list[Any]] = {}
    problems = []
    for text in said:
        key, separator, listed = text.partition("=")
        try:
            found = YAML(typ="safe").load(f"[{listed}]") if separator and key else None
        except YAMLError:
            found = None
        if not found:
            problems.append(f"-S {text!r} is not KEY=VALUE,VALUE,…, e.g. seed=0,1,2")
        elif key in values:
            problems.append(f"-S {key} is said twice; say all its values at once")
        elif twice := [value for number, value in enumerate(found) if is_among(value, found[:number])]:
            problems.append(f"-S {text!r} says the value {shown(twice[0])} twice; say each once")
        else:
            values[key] = found
    if problems:
        raise ValueError("; ".join(problems))
    combined = product(*values.values())
    return [Variant(number, dict(zip(values, each, strict=True))) for number, each in enumerate(combined, 1)]


def is_among(value: Any, others: list[Any]) -> bool:
    """Whether one of the others is the same; 1, 1.0 and true are three values."""
    return repr(value) in map(repr, others)


def tell_of_uncommitted(commit: str, tell: Callable[[str], None]) -> None:
    """Says what people changed, labels too, and no variant sees."""
    if names := uncommitted(Path.cwd()):
        more = f" and {len(names) - N_SHOWN} more" if len(names) > N_SHOWN else ""
        tell(
            f"{', '.join(names[:N_SHOWN])}{more}: changed here and not committed; every variant runs commit {commit[:12]}, "
            "without these changes"
        )


def plan_line(n_variants: int, n_jobs: int, cluster: str | None) -> str:
    """How many there are, and how many run side by side."""
    at_a_time = f"on the workers of {cluster}" if cluster else f"{min(n_jobs, n_variants)} at a time"
    return f"{n_variants} variant{'s' * (n_variants > 1)}, {at_a_time}; each runs whatever stages its parameters change"


def check_variants(variants: list[Variant], commit: str) -> None:
    """Nothing. ValueError lists the problems of every variant with the commit's params.yaml, each once."""
    text, problems = git("show", f"{commit}:./{PARAMS}"), dict[str, str]()
    with tempfile.TemporaryDirectory() as folder, inside(Path(folder), {}):
        for variant in variants:
            PARAMS.write_text(text, encoding="utf-8")
            try:
                change_params(variant.changes)
                read_params()
            except ValueError as error:
                for line in str(error).split("\n  - ")[1:] or [str(error)]:
                    problems.setdefault(line, variant.name)
    if problems:
        raise ValueError("; ".join(f"variant {name}: {line}" for line, name in problems.items()))


def child_of(variant: Variant, commit: str) -> list[str]:
    """Module and arguments of the process that runs it."""
    return ["flows.variant", commit, str(variant.number), json.dumps(variant.changes)]


def table_of(variants: list[Variant], outcomes: dict[str, "Outcome"]) -> pd.DataFrame:
    """One row per variant that ended: its changes, its figures, or why there are none."""
    rows = []
    for variant in [each for each in variants if each.name in outcomes]:
        found = outcomes[variant.name]
        figures = json.loads(found.told) if found.is_done else {"told": found.told}
        changes = {key: shown(value) for key, value in variant.changes.items()}
        rows.append({"variant": variant.number, **changes, "state": DONE if found.is_done else FAILED, **figures})
    keys = list(variants[0].changes)
    return pd.DataFrame(rows, columns=["variant", *keys, "state", *FIGURES]).convert_dtypes()  # n stays whole


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """What of the table fits a terminal, as text; `reasons` is for below it."""
    shown = table.drop(columns=PRINTED_NOT).astype(object)
    return shown.where(shown.notna(), "").astype(str)


def reasons(variants: list[Variant], outcomes: dict[str, "Outcome"]) -> list[str]:
    """Why a variant failed: a line for each that did."""
    failed = [each.name for each in variants if not outcomes[each.name].is_done]
    return [f"variant {name} failed: {outcomes[name].told}" for name in failed]


def drop_old_trees(home: Path) -> None:
    """Removes what variants of a killed run left. The caller holds the lock of this home's runs."""
    for tree in (home / "variants").glob("*/tree"):
        clear_tree(tree)
    shutil.rmtree(home / "variants", ignore_errors=True)
