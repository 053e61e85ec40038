"""`acclimate zoo …`: which networks there are to start from, and how their weights get here."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.data_cli import plain_errors

# Everything heavier is imported by the command that needs it: `acclimate --help` answers at once.

zoo = typer.Typer(help="The networks to start from: list them, add one, fetch their weights.", no_args_is_help=True)

Folder = Annotated[Path | None, typer.Option("--zoo", help="The folder of zoo.json; that of params.yaml if not said.")]

WIDE = 160


def add_commands(app: typer.Typer) -> None:
    """Nothing; the app knows our commands afterwards."""
    app.add_typer(zoo, name="zoo")


def folder_of(given: Path | None) -> Path:
    """The zoo's folder. ValueError where it is given and is not there."""
    if given is None:
        from tasks.params import read_params

        return Path(read_params().zoo.folder)
    if not given.is_dir():
        raise ValueError(f"--zoo {given}: there is no such folder; make it first, or mend the name")
    return given


@zoo.command("list")
def list_zoo(folder: Folder = None) -> None:
    """Shows each network, whether its weights are there and are the reviewed ones, and what is known of it."""
    from tasks.core.zoo_pull import overview

    with plain_errors():
        rows = overview(folder_of(folder))
    show(rows)


def show(rows: list[dict[str, Any]]) -> None:
    """Prints one line per network; what is not known stays empty."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Networks to start from (counts in millions)")
    numbers = {"n_parameters": "parameters", "n_multiply_adds": "multiply-adds", "size_px": "px"}
    for key in rows[0] if rows else ["name"]:
        is_number = key in numbers or key == "published_accuracy"
        title = numbers.get(key, key.replace("_", " "))
        table.add_column(title, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(shown(key, value)) for key, value in row.items()))
    console = Console()
    if not console.is_terminal:
        console.width = WIDE  # a file or a pipe has no width of its own
    console.print(table)


def shown(key: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, int | float) and key in ("n_parameters", "n_multiply_adds"):
        return f"{value / 1e6:,.1f}"
    return f"{value:.1%}" if isinstance(value, float) else str(value)


@zoo.command()
def add(
    architecture: Annotated[str, typer.Argument(help="torchvision.<name> or timm.<name>.")],
    weights: Annotated[str | None, typer.Argument(help="torchvision's name of the weights.")] = None,
    name: Annotated[str | None, typer.Option(help="The name in zoo.json; made from both if not said.")] = None,
    folder: Folder = None,
) -> None:
    """Enters a network with what its library says of its weights; `acclimate zoo pull` fetches them."""
    from tasks.core.zoo_pull import add_entry

    with plain_errors():
        place = folder_of(folder)
        added = add_entry(place, architecture, weights, name)
        typer.echo(f"{added} entered in {place / 'zoo.json'}; fetch its weights with `acclimate zoo pull {added}`")


@zoo.command()
def pull(
    names: Annotated[list[str], typer.Argument(help="Names of zoo.json, or all.")],
    folder: Folder = None,
) -> None:
    """Fetches weights, converts them to safetensors, and writes sha256 and metadata into zoo.json."""
    from tasks.core.zoo_pull import pull as pull_entries

    with plain_errors():
        for told in pull_entries(folder_of(folder), names):
            typer.echo(told)
