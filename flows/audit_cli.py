"""`acclimate audit`: for whom any model's predictions are worse; exit 0 pass, 1 fail, 3 inconclusive, 2 could not run."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.audit_table import Unusable, notes_of, read_tables
from flows.could_not_run import or_could_not_run, say
from flows.result_folder import Results, all_results_or_none, folder_problems
from flows.validate import shortened

if TYPE_CHECKING:
    from flows.audit_table import Tables
    from tasks.core.bias.verdict import AuditResult
    from tasks.core.bias_columns import Origin
    from tasks.params.auditing import AuditRules

EXIT_CODES = {"pass": 0, "fail": 1, "inconclusive": 3}
RULES = Path(__file__).parent / "rules/default.yaml"
MAX_REASON = 2000  # letters of a required rule's line: in full, unless a label has thousands
BASELINE = "baseline"  # what rules call the table of --baseline
SEED = 0  # of the bootstrap draws; each is addressed by column and metric
AUDIT = Results(
    "acclimate audit",
    ("audit.html", "audit.md", "by_class.csv", "by_group.csv", "verdict.json"),
    rb'\{\s*"schema": "acclimate-audit-\d+"',
)


@dataclass(frozen=True)
class Request:
    """What is to be audited, and by which rules."""

    predictions: Path
    columns: list[str]
    rules: Path
    baseline: Path | None

    @property
    def files(self) -> dict[str, Path]:
        named = {"predictions": self.predictions, "rules": self.rules, BASELINE: self.baseline}
        return {what: path for what, path in named.items() if path}


def audit(
    predictions: Annotated[
        Path,
        typer.Argument(
            metavar="PREDICTIONS",
            help="CSV or Parquet: y_true, y_pred, group columns; p_<class>, group_id, image_id if known.",
        ),
    ],
    group_columns: Annotated[list[str], typer.Option(help="The columns of groups: repeat, or separate by commas.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.", file_okay=False)],
    rules: Annotated[
        Path, typer.Option(help="Rules, or a params.yaml.", show_default="those shipped with the command")
    ] = RULES,
    baseline: Annotated[
        Path | None, typer.Option(help="Another model's predictions on the same images, to see who gets worse.")
    ] = None,
) -> None:
    """Judges any model's predictions by group; exit code 0 pass, 1 fail, 3 inconclusive, 2 could not run."""
    columns = list(dict.fromkeys(name.strip() for text in group_columns for name in text.split(",") if name.strip()))
    with or_could_not_run():
        verdict = audited(Request(predictions, columns, rules, baseline), out)
    raise typer.Exit(EXIT_CODES[verdict])


def audited(request: Request, out: Path) -> str:
    """The verdict, after it is told; its files stand in `out`. Unusable where it could not run: then there are none."""
    from tasks.core.runtime import quiet_tools

    quiet_tools()
    wrong = place_problems(request, out)
    with nullcontext() if wrong else all_results_or_none(out, AUDIT):
        book, tables = checked(request, wrong)
        notes = notes_of(tables, request.columns, request.predictions, request.baseline)
        result = judged(tables, book, request)
        result.verdict["not_tested"] += notes
        write_results(result, origin_of(tables, book, request), request, out)
    tell(result.verdict, notes, out)
    return str(result.verdict["verdict"])


def place_problems(request: Request, out: Path) -> list[str]:
    """Sentences on why the results can't be written there."""
    problems = folder_problems(out, list(request.files.values()), AUDIT)
    if out.absolute().parts[-2:] == ("data", "audit") and (out.absolute().parents[1] / "dvc.yaml").exists():
        problems.append(f"--out {out} belongs to the stage audit_bias of the pipeline; name another folder")
    return problems


def checked(request: Request, wrong: list[str]) -> "tuple[AuditRules, Tables]":
    """The rules and the tables. Unusable lists what is wrong with them beside what was wrong before."""
    from tasks.params.audit_file import read_audit_rules

    problems = list(wrong)
    if not request.columns:
        problems.append("--group-columns names no column; name at least one column of groups")
    book, tables = None, None
    try:
        book = read_audit_rules(request.rules)
    except (ValueError, OSError) as error:
        problems.append(f"--rules: {error}")
    try:
        tables = read_tables(request.predictions, request.columns, request.baseline)
    except Unusable as error:
        problems += error.problems
    if problems or book is None or tables is None:
        raise Unusable(problems)
    return book, tables


def judged(tables: "Tables", book: "AuditRules", request: Request) -> "AuditResult":
    """The audit of these tables; what a bare table can't tell is added to what was not tested.

    Unusable lists the rules that name what the table lacks.
    """
    from tasks.core.bias.counts import Settings
    from tasks.core.bias.rules import Rule
    from tasks.core.bias.table import table_of, with_intersections
    from tasks.core.bias.verdict import audit as audit_of
    from tasks.params.audit_file import problems_with_table

    baselines = {} if tables.baseline is None else {BASELINE: tables.baseline}
    asked = [
        Rule(**rule.model_dump())
        for rule in book.rules
        if rule.comparison != "change" or baselines or request.rules != RULES
    ]
    settings = Settings(
        confidence=book.confidence, min_group_size=book.min_group_size, n_bootstrap=book.n_bootstrap, seed=SEED, ask_below=None
    )  # fmt: skip
    table = table_of(tables.rows, columns=request.columns, baselines=baselines)
    table = with_intersections(table, book.max_intersection_order)
    groups = {column: grouping.names for column, grouping in table.columns.items()}
    if odd := problems_with_table(book, groups, table.classes):
        told = f"--rules: {request.rules} does not fit {request.predictions}, {len(odd)} problem(s):"
        raise Unusable(["\n  - ".join([told, *odd])])
    result = audit_of(table, asked, settings)
    result.verdict["not_tested"] += untested(tables, book)
    return result


def untested(tables: "Tables", book: "AuditRules") -> list[str]:
    """Sentences on what a table of predictions leaves open."""
    told = [
        "The images themselves: only a table of predictions was given, so no error was looked at.",
        "The data that the model learnt from: who is missing there can't be told from predictions.",
    ]
    if book.slices:
        told.append(f"Slices by {', '.join(book.slices)}: they need facts of the images, which only the pipeline has.")
    if "group_id" not in tables.rows:
        told.append("Images that belong together (one patient, one video): without group_id each counts by itself.")
    return told


def rules_from(path: Path) -> str:
    """A clause on who chose the rules, for the page."""
    if path == RULES:
        return "The rules that acclimate ships, since no others were named: nobody chose them for this use"
    return f"As {path.name} has them; whether they were written before anybody saw the results, this page can't know"


def origin_of(tables: "Tables", book: "AuditRules", request: Request) -> "Origin":
    from tasks.core.bias_columns import Origin

    name = request.predictions.name
    if "group_id" not in tables.rows:
        return Origin(name, explained=book.columns_explained)
    given = tables.rows["group_id"]
    n_clusters = given[given != ""].nunique() + int((given == "").sum())  # without one an image stands alone
    return Origin(name, f"Column of {name}.", n_clusters, book.columns_explained)


def write_results(result: "AuditResult", origin: "Origin", request: Request, out: Path) -> None:
    """The files; the verdict last. Unusable where they can't be written."""
    from tasks.core import files
    from tasks.core.bias_markdown import markdown
    from tasks.core.bias_page import BiasFacts, render

    facts = BiasFacts(
        name=request.predictions.name,
        verdict=result.verdict,
        by_group=result.by_group,
        by_class=result.by_class,
        changes=result.changes,
        rules_text=request.rules.read_text(encoding="utf-8"),
        rules_from=rules_from(request.rules),
        origin=origin,
        lineage={what: files.file_sha256(path) for what, path in request.files.items()},
    )
    page, summary = render(facts), markdown(facts)
    try:
        files.write_text(out / "audit.html", page)
        files.write_text(out / "audit.md", summary)
        files.write_table(out / "by_class.csv", result.by_class)
        files.write_table(out / "by_group.csv", result.by_group)
        files.write_json(out / "verdict.json", result.verdict)
    except OSError as error:
        why = error.strerror or error
        raise Unusable(
            [f"--out {out}: the results cannot be written there ({why}); make room, or name another one"]
        ) from None


def tell(verdict: dict[str, Any], notes: list[str], out: Path) -> None:
    """Prints what may not be meant, each required rule with its reason, the advisory ones, and where the page is."""
    rules = sorted(verdict["rules"], key=lambda rule: not rule["required"])
    for note in notes:
        say(shortened(f"note: {note}"))
    for rule in rules:
        say(rule_line(rule))
    say(f"{verdict['verdict']}: {summed(verdict)}; see {out / 'audit.html'}")


def rule_line(rule: dict[str, Any]) -> str:
    """A required rule's outcome with its whole reason; of an advisory one the group it rests on, unless it passes."""
    from tasks.core.bias.sentences import shown
    from tasks.core.bias_words import deciding_group

    kind, where = (
        "required" if rule["required"] else "advisory",
        shown(rule["column"]) if rule["column"] else "all images",
    )
    start = f"{rule['verdict']}: {rule['name']} ({where}, {kind})"
    if rule["required"]:
        return shortened(f"{start}: {rule['reason']}", MAX_REASON)
    if rule["verdict"] == "pass":
        return shortened(start)
    worst = deciding_group(rule)
    return shortened(f"{start}: {'group ' + shown(worst['group']) if worst else rule['reason']}")


def summed(verdict: dict[str, Any]) -> str:
    """How many of the required rules make the verdict; where there is none, that."""
    from tasks.core.bias.sentences import counted

    required = [rule["verdict"] for rule in verdict["rules"] if rule["required"]]
    if not required:
        return str(verdict["reason"])
    n = required.count(verdict["verdict"])
    verbs = {"pass": ("passes", "pass"), "fail": ("fails", "fail"), "inconclusive": ("is open", "are open")}
    return f"{n} of {counted(len(required), 'required rule')} {verbs[verdict['verdict']][n != 1]}"
