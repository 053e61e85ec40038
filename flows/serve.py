"""`acclimate serve`: answers over HTTP with a registered model, and follows its alias."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from flows.chosen_model import CHAMPION
from flows.data_cli import plain_errors

if TYPE_CHECKING:
    import socket

    import uvicorn
    from fastapi import FastAPI

    from flows.served_model import ServedModel
    from flows.uploads import Limits

# Everything heavier is imported by the command that needs it: `acclimate --help` answers at once.

MEBI = 2**20


def serve(  # noqa: PLR0913  each is an option of the command
    model: Annotated[
        str, typer.Option("--model", help="An alias, which is followed; a version; or a candidate id.")
    ] = CHAMPION,
    host: Annotated[str, typer.Option(help="Others reach it only if you say so: there is no password.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 = a free one.")] = 8000,
    unapproved: Annotated[
        bool, typer.Option("--unapproved", help="Serve a version that nobody approved, too.")
    ] = False,
    every_s: Annotated[
        float, typer.Option("--follow-every", min=0.1, help="Seconds between looks at the registry.")
    ] = 5,
    n_workers: Annotated[int, typer.Option("--workers", min=1, help="Requests that are worked on at a time.")] = 2,
    n_at_once: Annotated[
        int, typer.Option("--at-once", min=1, help="Requests in hand, waiting ones too; more get 503.")
    ] = 16,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.1, help="Seconds for sending, and for answering.")
    ] = 30,
    n_images: Annotated[int, typer.Option("--max-images", min=1, help="In one request.")] = 64,
    image_mib: Annotated[float, typer.Option("--max-image", min=0.001, help="Of one image, MiB.")] = 16,
    request_mib: Annotated[float, typer.Option("--max-request", min=0.001, help="Of one request, MiB.")] = 64,
    megapixels: Annotated[float, typer.Option("--max-pixels", min=0.001, help="Of one image, millions.")] = 50,
) -> None:
    """Answers POST /predict, GET /health and GET /model with a registered model, and follows its alias."""
    from tasks.core.runtime import quiet_tools

    quiet_tools()
    with plain_errors():
        from flows.served_model import ServedModel, Wanted
        from flows.uploads import Limits
        from tasks.core.runtime import use_machine
        from tasks.params import read_params

        params = read_params()
        say(f"loading {params.register_model.name} {model}")
        device = use_machine(params.runtime.device, params.runtime.n_threads)
        limits = Limits(
            int(image_mib * MEBI), int(megapixels * 1e6), n_images, int(request_mib * MEBI), n_at_once, timeout_s
        )
        served = ServedModel(Wanted(params.register_model.name, model, device, unapproved))
        run(served, limits, n_workers, host=host, port=port, every_s=every_s)


def run(served: "ServedModel", limits: "Limits", n_workers: int, *, host: str, port: int, every_s: float) -> None:
    """Serves until it is told to stop; what is in hand is answered first. ValueError where the port is taken."""
    import threading

    from flows.served_model import follow

    server = make_server(served, limits, n_workers)
    with listening_at(host, port) as (listening, address):
        say(f"{served.wanted.name} version {served.current.version.number} answers on {address}")
        stop = threading.Event()
        follower = threading.Thread(target=follow, args=(served, every_s, stop, say), daemon=True)
        follower.start()
        try:
            server.run(sockets=[listening])
        finally:
            stop.set()


@contextmanager
def listening_at(host: str, port: int) -> Iterator[tuple["socket.socket", str]]:
    """A socket that is bound there, and its web address. ValueError where the port is taken."""
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise ValueError(
                f"{host}:{port} can't be listened on ({error.strerror}); name another --port or --host"
            ) from None
        place = f"[{host}]" if ":" in host else host
        yield listening, f"http://{place}:{listening.getsockname()[1]}"


def make_server(served: "ServedModel", limits: "Limits", n_workers: int) -> "uvicorn.Server":
    from flows.serving import make_app

    return server_of(make_app(served, limits, n_workers))


def server_of(app: "FastAPI") -> "uvicorn.Server":
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        http="h11",
        ws="none",
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=10,
    )
    return uvicorn.Server(config)


def say(line: str) -> None:
    """On stderr, at once: logs are followed."""
    typer.echo(line, err=True)
