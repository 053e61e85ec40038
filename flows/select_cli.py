"""`acclimate select`: ranks the networks of a zoo for any image set, outside the pipeline; exit 0 done, 2 could not run."""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.could_not_run import or_could_not_run, say
from flows.result_folder import Results, all_results_or_none, folder_problems
from flows.select_images import Drawn, Options, Place, drawn_images, option_problems, place_of
from flows.validate import RULES, Column
from tasks.core.peak_memory import forget_peak, peak_gib

if TYPE_CHECKING:
    from tasks.core.selection import CandidateFeatures
    from tasks.core.zoo_file import Candidate
    from tasks.params import SelectionBook

SETTINGS = Path(__file__).parent / "select_settings.yaml"
SELECTION = Results(
    "acclimate select", ("ranking.csv", "selection.html", "selection.json"), rb'\{\s*"format": \d+,\s*"target": '
)
FEATURES = "features"


@dataclass(frozen=True)
class Cost:
    """What looking through one network took here."""

    seconds: float
    memory_gib: float


@dataclass(frozen=True)
class Sought:
    """All that is asked of the command beside where its images lie."""

    zoo: Path | None
    params: Path
    keeps_features: bool


def select(  # noqa: PLR0913  one argument per option of the command
    target: Annotated[Path, typer.Option(help="Images like those to work on: folder, archive, pack or table.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.", file_okay=False)],
    source: Annotated[Path | None, typer.Option(help="Labelled images to adapt from: the same kinds.")] = None,
    zoo: Annotated[
        Path | None, typer.Option(help="The folder of zoo.json; that of --params if not said.", file_okay=False)
    ] = None,
    params: Annotated[
        Path, typer.Option(help="Settings, or a params.yaml.", show_default="those shipped with the command")
    ] = SETTINGS,
    path_column: Column = None,
    label_column: Column = None,
    split_column: Column = None,
    group_column: Column = None,
    audit_columns: Annotated[
        list[str] | None, typer.Option(help="The target table's columns of groups: repeat, or separate by commas.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="What a table's paths are relative to; the table's folder if not said.")
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="Meaning of folder levels, e.g. split/label; guessed if not said.")
    ] = None,
    keep_features: Annotated[bool, typer.Option("--keep-features", help="Leave the features in OUT/features.")] = False,
) -> None:
    """Ranks the networks of a zoo for any image set; exit code 0 done, 2 could not run."""
    columns = {"path": path_column, "label": label_column, "split": split_column, "group": group_column}
    audit = dict.fromkeys(name.strip() for text in audit_columns or [] for name in text.split(",") if name.strip())
    options = Options(target, source, columns, tuple(audit), root, layout)
    with or_could_not_run():
        selection, costs = selected(options, Sought(zoo, params, keep_features), out)
    tell(selection, costs, out)


def selected(options: Options, sought: Sought, out: Path) -> tuple[dict[str, Any], dict[str, Cost]]:
    """The selection, and what each candidate cost; its files stand in `out`. ValueError or OSError: then there are none."""
    from tasks.core.runtime import quiet_tools, use_machine
    from tasks.params import read_rules, read_selection

    quiet_tools()
    check_request(options, sought, out)
    book = read_selection(sought.params)
    use_machine(book.runtime.device, book.runtime.n_threads)
    candidates, refused = candidates_of(sought, book)
    if not Path("dvc.yaml").exists():  # in a pipeline's folder what it knows already is used
        os.environ.setdefault("ACCLIMATE_HOME", str(out.absolute() / ".acclimate"))
    with all_results_or_none(out, SELECTION):
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".select-", dir=out) as folder:
            scratch = Path(folder)
            places = {role: place_of(role, options) for role in options.places}
            drawn = drawn_images(places, read_rules(RULES), book.select_model, book.seed, scratch)
            features, costs = all_features(candidates, places, drawn, book, scratch / FEATURES)
            selection = selection_of(candidates, refused, features, drawn, book)
            if sought.keeps_features:
                (scratch / FEATURES).replace(out / FEATURES)
        write_results(selection, out)
    return selection, costs


def check_request(options: Options, sought: Sought, out: Path) -> None:
    """Nothing. ValueError lists what is wrong with the options: said before anything is measured."""
    problems = option_problems(options)
    if not sought.params.is_file():
        problems.append(f"--params {sought.params} is not a file; name a copy of {SETTINGS.name}, or a params.yaml")
    if sought.zoo and not sought.zoo.is_dir():
        problems.append(f"--zoo {sought.zoo} is not a folder; name the one that holds zoo.json")
    if sought.keeps_features and os.path.lexists(out / FEATURES):
        problems.append(f"{out / FEATURES} is there already; remove it, or name another folder with --out")
    problems += folder_problems(out, [*options.places.values(), sought.params], SELECTION)
    if problems:
        raise ValueError("; ".join(problems))


def candidates_of(sought: Sought, book: "SelectionBook") -> tuple[list["Candidate"], list[str]]:
    """The candidates, their weights checked, and a sentence for each one that is left out. ValueError where none is left."""
    from tasks.core.zoo import check_weights
    from tasks.core.zoo_file import allowed, read_zoo

    named = book.zoo.folder and sought.params.parent / book.zoo.folder
    if not (folder := sought.zoo or named):
        raise ValueError(
            "no zoo is named: say --zoo FOLDER (it holds zoo.json; `acclimate zoo add` and `acclimate zoo pull` fill it), or "
            "name a params.yaml with --params"
        )
    kept, refused = allowed(read_zoo(folder, book.zoo.candidates), book.zoo.licences)
    told = [f"candidate {name} is left out: {why}" for name, why in refused.items()]
    if all(candidate.is_scratch for candidate in kept):
        raise ValueError(f"{folder}: no pretrained candidate is left to choose from; {'; '.join(told) or 'add one'}")
    for candidate in kept:
        check_weights(candidate)
    return kept, told


def all_features(
    candidates: list["Candidate"], places: dict[str, Place], drawn: Drawn, book: "SelectionBook", folder: Path
) -> tuple[list["CandidateFeatures"], dict[str, Cost]]:
    """The features of every candidate, and what they cost."""
    from flows.select_features import candidate_features

    found, costs = [], {}
    for candidate in candidates:
        forget_peak(book.runtime.device)
        start = time.perf_counter()
        features, news = candidate_features(candidate, places, drawn, book, folder / candidate.name)
        for line in news:
            say(line)
        found.append(features)
        costs[candidate.name] = Cost(time.perf_counter() - start, peak_gib(book.runtime.device))
    return found, costs


def selection_of(
    candidates: list["Candidate"],
    refused: list[str],
    features: list["CandidateFeatures"],
    drawn: Drawn,
    book: "SelectionBook",
) -> dict[str, Any]:
    """What selection.json holds."""
    from tasks.core.candidate_choice import choice_of
    from tasks.select_model import costs_of, evidence_of_tables, settings_of

    costs = costs_of(candidates, max(drawn.labelled["label"].nunique(), 2), book.zoo.image_px)
    evidence = evidence_of_tables(features, drawn.labelled, drawn.source, drawn.target, "target")
    choice = choice_of(candidates, evidence, costs, settings_of(book.select_model, book.seed))
    choice["left_out"] = drawn.told + choice["left_out"] + refused
    return {"format": 1, **drawn.counts, **choice}


def write_results(selection: dict[str, Any], out: Path) -> None:
    """The files; the verdict last."""
    from tasks.core.files import write_json, write_table, write_text
    from tasks.core.selection_page import selection_page
    from tasks.select_model import flat_ranking

    write_table(out / "ranking.csv", flat_ranking(selection["candidates"]))
    write_text(out / "selection.html", selection_page(selection))
    write_json(out / "selection.json", selection)


def tell(selection: dict[str, Any], costs: dict[str, Cost], out: Path) -> None:
    """Prints what is not known, the table, the reason and where the page is."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    for sentence in selection["left_out"]:
        say(f"note: {sentence}")
    table = Table(title="Candidates", box=SIMPLE)
    first = "P(best)" if selection["by_labels"] else "first in\ndraws"
    sizes_and_costs = "million\nparams", "million\nadds", "seconds", "peak\nGiB"  # short: the name needs the room
    for column in ("candidate", first, "mean\nrank", *sizes_and_costs, ""):
        table.add_column(column, justify="left" if column in ("candidate", "") else "right", overflow="fold")
    for entry in [*selection["candidates"], *filter(None, [selection["random"]])]:
        cost, is_ranked = costs[entry["name"]], "p_best" in entry
        numbers = [f"{entry['p_best']:.0%}", f"{entry['mean_rank']:.2f}"] if is_ranked else ["", ""]
        state = "random\nweights" if not is_ranked else "chosen" if entry["chosen"] else "tied" if entry["tied"] else ""
        sizes = [f"{entry[key] / 1e6:,.2f}" for key in ("n_parameters", "n_multiply_adds")]
        spent = [f"{cost.seconds:.1f}", f"{cost.memory_gib:.2f}"]
        table.add_row(*map(Text, [entry["name"], *numbers, *sizes, *spent, state]))
    Console().print(table)
    say(selection["reason"])
    say(f"see {out / 'selection.html'}")
