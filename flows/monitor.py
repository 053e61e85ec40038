"""`acclimate monitor`: what new images say of a running model; exit 0 clear, 1 past a limit, 2 could not run, 3 too few."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.chosen_model import CHAMPION
from flows.could_not_run import or_could_not_run, say
from flows.monitor_images import Images, champion_of, listed_images, new_images, problems_of_images
from flows.result_folder import Results, all_results_or_none, folder_problems
from flows.validate import shortened

if TYPE_CHECKING:
    import pandas as pd

    from flows.registry import Version
    from tasks.core.monitoring import Limits, NewImages

LIMITS = Path(__file__).parent / "monitor_limits.yaml"
EXIT_CODES = {"clear": 0, "past": 1, "few": 3}
SCHEMA = "acclimate-monitor-1"
N_NAMED = 5
NO_LABELS: dict[str, Any] = {"accuracy": None, "reaudit": None}
MONITOR = Results(
    "acclimate monitor",
    ("facts.csv", "predictions.csv", "reaudit.json", "monitor.html", "monitor.json"),
    rb'\{\s*"schema": "acclimate-monitor-\d+"',
)


@dataclass(frozen=True)
class Request:
    """Which images of which model, by which limits, and when."""

    images: Images
    model: str
    limits: Path
    time: str  # ISO 8601, UTC


def monitor(
    place: Annotated[
        Path, typer.Argument(metavar="DIR", help="New images: folder, archive, pack, CSV or Parquet table.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results.", file_okay=False)],
    model: Annotated[str, typer.Option(help="A version's number, alias, or first 8 letters of its id.")] = CHAMPION,
    group_columns: Annotated[
        list[str] | None, typer.Option(help="The tables' columns of groups: repeat, or separate by commas.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Labels that came later: a table of path and label.")] = None,
    limits: Annotated[
        Path, typer.Option(help="A file of limits.", show_default="those shipped with the command")
    ] = LIMITS,
) -> None:
    """Watches a running model on new images; exit code 0 no limit passed, 1 past a limit, 2 could not run, 3 too few images."""
    columns = dict.fromkeys(name.strip() for text in group_columns or [] for name in text.split(",") if name.strip())
    time = datetime.now(UTC).isoformat(timespec="seconds")
    request = Request(Images(place, tuple(columns), labels), model, limits, time)
    with or_could_not_run():
        found = monitored(request, out)
    tell(found, out)
    alarm(found)
    raise typer.Exit(EXIT_CODES[found["status"]])


def monitored(request: Request, out: Path) -> dict[str, Any]:
    """What was found; its files stand in `out`, and a line in the history. ValueError or OSError: then there are none."""
    from flows.registry import find
    from tasks.core.monitoring import Limits, findings
    from tasks.core.runtime import quiet_tools
    from tasks.params import read_params
    from tasks.params.monitoring import read_monitor_limits

    quiet_tools()
    files = [request.images.place, request.limits, *([request.images.labels] if request.images.labels else [])]
    if problems := problems_of_images(request.images) + folder_problems(out, files, MONITOR):
        raise ValueError("; ".join(problems))
    limits, params = Limits(**read_monitor_limits(request.limits).model_dump()), read_params()
    version = find(params.register_model.name, request.model)
    bundle = version.checked_folder()
    champion, named = champion_of(bundle), listed_images(request.images)
    with all_results_or_none(out, MONITOR):
        new = new_images(request.images, named, bundle, out, (params.runtime.device, params.runtime.n_threads))
        found = described(request, version) | findings(new, champion, limits)
        if request.images.labels is not None:
            found |= with_labels(new, found, bundle, limits, out)
        found["reasons"] = reasons_of(found)
        write_results(found, new, out)
    return found


def described(request: Request, version: "Version") -> dict[str, Any]:
    """Which model, when, and of which images."""
    model = {"name": version.name, "version": version.number, "candidate": version.candidate}
    return {"schema": SCHEMA, "time": request.time, "model": model, "place": str(request.images.place)} | NO_LABELS


def with_labels(new: "NewImages", found: dict[str, Any], bundle: Path, limits: "Limits", out: Path) -> dict[str, Any]:
    """What the labels add and change: the accuracy as it is, the audit again, and the status they lead to."""
    from flows.reaudit import INCONCLUSIVE, PASS, reaudited
    from tasks.core.files import read_json, write_json
    from tasks.core.monitoring import FEW, PAST, accuracy_check, status_of

    rows = new.seen[new.seen["y_true"] != ""].reset_index(drop=True)
    strange = check_labels(rows["y_true"], read_json(bundle / "model.json", made_by="register_model")["classes"])
    accuracy, notes, checks, again = None, list(found["notes"]), list(found["checks"]), None
    if len(rows):
        accuracy, drop = accuracy_check(rows, bundle, limits)
        checks += [drop] if len(rows) >= limits.min_images else []
        try:
            again, verdict = reaudited(rows, new.columns, bundle)
            write_json(out / "reaudit.json", verdict)
        except ValueError as error:  # no rules in the bundle: the accuracy still counts
            notes.append(f"{str(error)[0].upper()}{str(error)[1:]}.")
    else:
        notes.append("No image that could be read has a label.")
    notes += strange
    is_open = again is not None and (again["was"], again["is"]) == (PASS, INCONCLUSIVE)
    status = status_of(checks, is_open or (found["status"] == FEW and len(rows) < limits.min_images))
    status = PAST if again and again["is_worse"] else status
    return {"status": status, "checks": checks, "notes": notes, "accuracy": accuracy, "reaudit": again}


def check_labels(labels: "pd.Series[str]", classes: list[str]) -> list[str]:
    """A note on labels that are no class of the model: it is wrong on them all. ValueError where no label is one."""
    strange = labels[~labels.isin(classes)]
    if strange.empty:
        return []
    names = ", ".join(repr(name) for name in sorted(strange.unique())[:N_NAMED])
    if len(strange) == len(labels):
        raise ValueError(
            f"no label is a class of the model, e.g. {names}; its classes are {', '.join(classes[:N_NAMED])}"
            f"{' and more' if len(classes) > N_NAMED else ''}: is it the right column?"
        )
    return [f"{len(strange)} of {len(labels)} labels are no class of the model, and count as errors: {names}."]


def reasons_of(found: dict[str, Any]) -> list[str]:
    """A sentence for every limit that was passed."""
    told = [
        f"{one['what']}: {one['value']:+.3f}, interval {one['low']:+.3f} to {one['high']:+.3f}, limit {one['limit']:g} "
        f"(n = {one['n']})"
        for one in found["checks"]
        if one["status"] == "past"
    ]
    again = found["reaudit"]
    if again and again["is_worse"]:
        told.append(f"the audit's verdict was {again['was']} and is {again['is']}: {again['reason']}")
    return told


def write_results(found: dict[str, Any], new: "NewImages", out: Path) -> None:
    """The files, monitor.json last; then the line in the history, which the page shows already."""
    from tasks.core.files import _plain as plain
    from tasks.core.files import write_json, write_table, write_text
    from tasks.core.monitor_history import append_history, read_history
    from tasks.core.monitor_page import monitor_page
    from tasks.core.runtime import acclimate_home

    history = acclimate_home() / "monitoring/history.jsonl"
    run = plain(summary(found))
    earlier, n_damaged = read_history(history, found["model"]["name"])
    if n_damaged:
        found["notes"].append(f"{n_damaged} line(s) of the history {history} can't be read and are left out.")
    kept = ["path", "y_pred", "confidence", *(["y_true"] if "y_true" in new.rows else []), *new.columns]
    write_table(out / "predictions.csv", new.rows[[*kept, "error"]])
    write_text(out / "monitor.html", monitor_page(plain(found), [*earlier, run]))
    write_json(out / "monitor.json", found)
    append_history(history, run)


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """One line of the history."""
    again = found["reaudit"]
    return {
        "time": found["time"], "name": found["model"]["name"], "version": found["model"]["version"],
        "candidate": found["model"]["candidate"], "place": found["place"], "status": found["status"],
        "n_images": found["n_images"], "n_seen": found["n_seen"],
        "checks": {one["what"]: [one["value"], one["low"], one["high"], one["status"]] for one in found["checks"]},
        "estimate": found["estimate"], "accuracy": found["accuracy"], "asked": found["asked"],
        "verdict": again and again["is"],
    }  # fmt: skip


def alarm(found: dict[str, Any]) -> None:
    """Sends the event where a limit was passed and a Prefect server is named; says so, and says what went wrong."""
    from flows.drift_event import EVENT, emit_drift

    if found["status"] != "past":
        return
    try:
        if emit_drift(found):
            say(f"event {EVENT} sent to Prefect")
    except Exception as error:  # whatever the client raises: the exit code tells of the drift all the same
        say(f"error: no event {EVENT}: {shortened(' '.join(str(error).split()))}", err=True)


def tell(found: dict[str, Any], out: Path) -> None:
    """Prints what passed a limit, what can't be told, the accuracy, and where the page is."""
    from tasks.core.monitoring import WORDS, untold

    for reason in found["reasons"]:
        say(f"past its limit: {shortened(reason)}")
    for sentence in untold(found["checks"]):
        say(f"{sentence[0].lower()}{shortened(sentence[1:-1])}")
    for what, one in (("estimated accuracy", found["estimate"]), ("accuracy", found["accuracy"])):
        if one:
            say(
                f"{what}: {one['value']:.3f}, interval {one['low']:.3f} to {one['high']:.3f}, n = {one['n']}{caveat(one)}"
            )
    if again := found["reaudit"]:
        told = f"was {again['was']}, is {again['is']}" if again["n_required"] else again["reason"]
        say(f"audit again: {shortened(told)}")
    say(
        f"{WORDS[found['status']]}: {found['n_seen']} of {found['n_images']} images looked at; see {out / 'monitor.html'}"
    )


def caveat(accuracy: dict[str, Any]) -> str:
    """What an estimate that stands on the source's images is worth; "" for any other accuracy."""
    held_out = accuracy.get("held_out")
    return "; it stands on source images, likely too high" if held_out and held_out["on"] == "source" else ""
