"""`acclimate validate`: facts and validation of any image set, outside the pipeline; exit 0 clean, 1 blocked, 2 could not run."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.could_not_run import or_could_not_run, say
from flows.result_folder import all_results_or_none, folder_problems

if TYPE_CHECKING:
    import pandas as pd

    from tasks.core.store import Store
    from tasks.params import RuleBook

BLOCKED = 1
MAX_LINE = 400  # letters of a line on the terminal: a label can have thousands
RULES = Path(__file__).parent / "validate_rules.yaml"
TABLES = (".csv", ".tsv", ".txt", ".parquet", ".pq")
USUAL_NAMES = {
    "path": ("path", "file", "filename", "file_name", "filepath", "image", "image_path"),
    "label": ("label", "class"),
    "domain": ("domain",),
    "split": ("split",),
    "group": ("group", "group_id"),
}
Column = Annotated[str | None, typer.Option(help="Its name in the table; found by its usual names if not said.")]


@dataclass(frozen=True)
class Request:
    """What is to be validated: where it lies, how it is named, by which rules."""

    place: Path
    root: Path | None
    layout: str | None
    columns: dict[str, str | None]
    audit: tuple[str, ...]
    source: tuple[str, ...]
    target: str | None
    rules: Path
    accepted: Path | None


def validate(  # noqa: PLR0913  one argument per option of the command
    place: Annotated[
        Path, typer.Argument(metavar="PATH_OR_TABLE", help="Folder, archive, pack, CSV or Parquet table.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results.", file_okay=False)],
    path_column: Column = None,
    label_column: Column = None,
    domain_column: Column = None,
    split_column: Column = None,
    group_column: Column = None,
    audit_columns: Annotated[
        list[str] | None, typer.Option(help="Columns for coverage: repeat, or separate by commas.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="What a table's paths are relative to; the table's folder if not said.")
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="Meaning of folder levels, e.g. domain/split/label; guessed if not said.")
    ] = None,
    source: Annotated[list[str] | None, typer.Option(help="A domain that is a source; repeat for several.")] = None,
    target: Annotated[str | None, typer.Option(help="The domain that is the target.")] = None,
    rules: Annotated[Path, typer.Option(help="Rules, or a params.yaml.", show_default="those for photographs")] = RULES,
    accepted: Annotated[Path | None, typer.Option(help="profile.json of accepted data, to compare with.")] = None,
) -> None:
    """Checks any image set by the rules; exit code 0 clean, 1 blocked, 2 could not run."""
    columns = {
        "path": path_column, "label": label_column, "domain": domain_column, "split": split_column, "group": group_column,
    }  # fmt: skip
    audit = dict.fromkeys(name.strip() for text in audit_columns or [] for name in text.split(",") if name.strip())
    request = Request(place, root, layout, columns, tuple(audit), tuple(source or ()), target, rules, accepted)
    with or_could_not_run():
        validation = validated(request, out)
    tell(validation, out)
    raise typer.Exit(BLOCKED if validation["status"] == "blocked" else 0)


def validated(request: Request, out: Path) -> dict[str, Any]:
    """The validation; its files stand in `out`. ValueError or OSError where it could not run: then there are none."""
    from tasks.core.drift import read_profile
    from tasks.core.runtime import quiet_tools
    from tasks.params import read_rules

    quiet_tools()
    check_request(request, out)
    book = read_rules(request.rules)
    past = read_profile(request.accepted) if request.accepted else {"origins": {}}
    if not Path("dvc.yaml").exists():  # in a pipeline's folder the facts that it knows already are used
        os.environ.setdefault("ACCLIMATE_HOME", str(out.absolute() / ".acclimate"))
    with all_results_or_none(out):
        store, rows = listed(request)
        manifest = manifest_of(rows, request, store)
        return written(manifest, store, (book, past), out)


def written(
    manifest: "pd.DataFrame", store: "Store", against: tuple["RuleBook", dict[str, Any]], out: Path
) -> dict[str, Any]:
    """The validation by these rules and this earlier profile, after all results were written."""
    from tasks.core.facts import read_facts
    from tasks.core.files import write_json, write_table, write_text
    from tasks.core.validation_page import validation_page
    from tasks.validate_data import checked_set

    write_table(out / "manifest.csv", manifest)
    measure(out, manifest, store)
    checked = checked_set(manifest, read_facts(out / "facts.csv"), *against)
    write_table(out / "rejected.csv", checked.rejected)
    write_json(out / "profile.json", checked.whole.profile)
    write_text(out / "validation.html", validation_page(checked.validation, store.read))
    write_json(out / "validation.json", checked.validation)
    return checked.validation


def check_request(request: Request, out: Path) -> None:
    """Nothing. ValueError lists what is wrong with the options: said before hours of measuring."""
    problems = [
        f"{option} {file} is not a file; name {what}"
        for option, file, what in (
            ("--rules", request.rules, f"a copy of {RULES.name}, or a params.yaml"),
            ("--accepted", request.accepted, "the profile.json of an earlier validation"),
        )
        if file and not file.is_file()
    ]
    if bool(request.source) != bool(request.target):
        problems.append("--source and --target go together: name both, or none")
    if request.target in request.source:
        problems.append(f"{request.target!r} is named by both --source and --target; a domain can't be both")
    files = [request.place, request.rules, request.accepted]
    problems += folder_problems(out, [file for file in files if file])
    if problems:
        raise ValueError("; ".join(problems))


def listed(request: Request) -> tuple["Store", "pd.DataFrame"]:
    """Where the images are and one row for each; says aloud what was guessed."""
    from tasks.core.listing import ColumnNames, guessed_layout, read_image_table, rows_from_entries, rows_from_table
    from tasks.core.store import open_store

    place = request.place
    check_place(request)
    if is_table(place):
        root = request.root or place.parent
        store, given = open_store(root), read_image_table(place)
        names = named_columns(request.columns, list(given.columns), place)
        say("columns: " + ", ".join(f"{what} = {name or 'none'}" for what, name in names.items()))
        return store, rows_from_table(given, ColumnNames(audit=request.audit, **names), root, store)
    store = open_store(place)
    entries = store.entries()
    layout = request.layout or guessed_layout(entries)
    if entries and not request.layout:
        say(f"layout: {layout} (guessed; say another with --layout)")
    if ignored := store.ignored():
        told = ", ".join(f"{n} {suffix or 'without ending'}" for suffix, n in sorted(ignored.items()))
        say(f"files that are no images were left out: {told}")
    return store, rows_from_entries(entries, layout)


def is_table(place: Path) -> bool:
    return place.is_file() and place.suffix.lower() in TABLES


def check_place(request: Request) -> None:
    """Nothing. ValueError where there is nothing to read, or where an option means nothing for it."""
    from tasks.core.entries import is_archive

    place = request.place
    if not place.is_dir() and not is_table(place) and not (place.is_file() and is_archive(place.name)):
        state = "is neither of these" if os.path.lexists(place) else "does not exist"
        raise ValueError(
            f"{place} {state}: name a folder, an archive (.zip, .tar), a pack, or a table ({', '.join(TABLES)})"
        )
    of_tables: dict[str, Any] = {f"--{what}-column": name for what, name in request.columns.items()}
    of_tables |= {"--audit-columns": request.audit, "--root": request.root}
    if is_table(place):
        idle, wanted = ["--layout"] * bool(request.layout), "a folder or an archive"
    else:
        idle, wanted = [option for option, value in of_tables.items() if value], "a CSV or Parquet table"
    if idle:
        raise ValueError(f"{', '.join(idle)} can't be used with {place}: it is not {wanted}; leave it out")


def named_columns(asked: dict[str, str | None], given: list[str], table: Path) -> dict[str, Any]:
    """The table's names for what we look at: as asked, else the first usual name that is there."""
    names: dict[str, Any] = {}
    for what, usual in USUAL_NAMES.items():
        found = {name.lower(): name for name in given}
        names[what] = asked[what] or next((found[name] for name in usual if name in found), None)
    if names["path"] is None:
        raise ValueError(
            f"{table} has no column of paths; it has {', '.join(given)}; rename one to path (or name it to `acclimate validate` "
            "with --path-column)"
        )
    return names


def manifest_of(rows: "pd.DataFrame", request: Request, store: "Store") -> "pd.DataFrame":
    """The manifest; without --source and --target no row has a role."""
    from tasks.core.listing import with_split_words
    from tasks.core.manifest import checked_paths, with_domains, with_ids

    if rows.empty and is_table(request.place):
        raise ValueError(f"{request.place} has a header and no rows; write one row per image")
    if rows.empty:
        raise ValueError(f"no image was found in {request.place}; images have endings like .jpg or .png")
    rows = with_split_words(rows)
    if request.target:
        check_domains(rows, request)
        rows = with_domains(rows, list(request.source), request.target)
    else:
        rows = rows.assign(domain="")
    return with_ids(checked_paths(rows), store)


def check_domains(rows: "pd.DataFrame", request: Request) -> None:
    """Nothing. ValueError in the words of the command where a named domain holds no image."""
    found = set(rows["origin"])
    asked = [("--source", name) for name in request.source] + [("--target", str(request.target))]
    absent = [f"{option} {name!r}" for option, name in asked if name not in found]
    if absent:
        named = ", ".join(map(repr, sorted(found - {""})[:20]))
        there = f"the domains are {named}" if named else "no image has a domain: see --domain-column and --layout"
        raise ValueError(f"{', '.join(absent)} holds no image; {there}")


def measure(out: Path, manifest: "pd.DataFrame", store: "Store") -> None:
    from tasks.core.facts import measure_images, write_facts
    from tasks.core.facts_cache import FactsCache

    with FactsCache() as cache:
        write_facts(out / "facts.csv", measure_images(store, manifest, cache))


def tell(validation: dict[str, Any], out: Path) -> None:
    """Prints the verdict, what fails and where the page is."""
    from tasks.core.validation import blocking, limit_words

    for sentence in validation["blocked_by"]:
        if sentence not in blocking(validation["rules"]):
            say(f"block: {sentence}")
    for found in validation["rules"]:
        if found["n_failed"]:
            first = (found.get("images") or found["cells"])[0]
            what = f"{first['path'] or '(no path)'} ({first['why']})" if "path" in first else first["why"]
            more = f" and {found['n_failed'] - 1} more" if found["n_failed"] > 1 else ""
            limit = "" if "path" in first else limit_words(found)
            say(f"{found['severity']}: {found['rule']}: {shortened(what)}{more}{limit}")
    n_all, n_rejected = validation["n_images"], validation["n_rejected"]
    say(f"{validation['status']}: {n_rejected} of {n_all} images rejected; see {out / 'validation.html'}")


def shortened(text: str, most: int = MAX_LINE) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
