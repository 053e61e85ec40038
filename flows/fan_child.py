"""A child of a fan-out: it ends with the process that started it, and takes one GPU for itself."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.run_lock import first_free

VISIBLE = "CUDA_VISIBLE_DEVICES"


def end_with_parent() -> None:
    """Nothing. From now on SIGTERM ends this process like an exception, and comes when our stdin is closed."""

    def watch() -> None:
        os.read(sys.stdin.fileno(), 1)  # returns when nobody can write any more
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def own_gpu(home: Path, device: str, *, tell: Callable[[str], None]) -> Iterator[dict[str, str]]:
    """The variables with which this machine's first free GPU is seen alone; none on a CPU. Waits where all are taken."""
    if device != "cuda":
        yield {}
        return
    places = [Path("/gpu", socket.gethostname(), gpu) for gpu in gpus()]
    with first_free(home, places, tell=tell) as place:
        yield {VISIBLE: place.name}


def gpus() -> list[str]:
    """Those that we may see, as CUDA_VISIBLE_DEVICES names them; one where nothing tells."""
    if VISIBLE in os.environ:
        return [name.strip() for name in os.environ[VISIBLE].split(",") if name.strip()] or ["0"]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ["0"]
    return [str(number) for number in range(max(listed.count("GPU "), 1))]
