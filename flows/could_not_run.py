"""How a command outside the pipeline ends where it could not run: a sentence for each problem, and exit code 2."""

import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer

COULD_NOT_RUN = 2


@contextmanager
def or_could_not_run() -> Iterator[None]:
    """ValueError (with `problems`: one sentence each) and OSError are told; our own mistakes keep their traceback.

    SIGTERM ends the command like an exception, so that no half results stay.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    except (ValueError, OSError) as error:
        for problem in getattr(error, "problems", [error]):
            say(f"error: {problem}", err=True)
        raise typer.Exit(COULD_NOT_RUN) from None
    except Exception:  # our own mistake, and still no result
        traceback.print_exc()
        raise typer.Exit(COULD_NOT_RUN) from None


def say(text: str, *, err: bool = False) -> None:
    """Prints the text; what a terminal would act on, or can't show, is spelled out: names of files and labels are anyone's."""
    stream = sys.stderr if err else sys.stdout
    spelled = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
    code = stream.encoding or "utf-8"
    typer.echo(spelled.encode(code, "backslashreplace").decode(code), err=err)
