"""Where and how a stage runs: threads, device, addressed randomness, quiet tools, and one clear sentence on failure."""

import ctypes
import fcntl
import hashlib
import os
import platform
import shutil
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

TELEMETRY_OFF = {
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}

# of glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
MOST_KEPT_BYTES = 2**31 - 1


def address_seed(*address: object) -> int:
    """A 63-bit seed that depends only on its address, e.g. (run seed, purpose, image_id, epoch)."""
    text = "\x1f".join(str(part) for part in address)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def address_rng(*address: object) -> np.random.Generator:
    return np.random.default_rng(address_seed(*address))


def acclimate_home() -> Path:
    """Resume state, locks, registered bundles and the registry: outside DVC, shared by runs if the variable is set."""
    return Path(os.environ.get("ACCLIMATE_HOME", ".acclimate")).absolute()


def quiet_tools() -> None:
    """Switches every tool's telemetry off; call before the tool is imported. An explicit setting is kept."""
    for name, value in TELEMETRY_OFF.items():
        os.environ.setdefault(name, value)


def run_stage(main: Callable[[], None]) -> None:
    """Runs a stage's main; what a user can mend ends as one sentence on stderr and exit code 1.

    Our own code says such sentences; an error that a library raised keeps its traceback.
    """
    quiet_tools()
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        place = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        if any(place.is_relative_to(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib")):
            raise
        print(f"error: {error}", file=sys.stderr)  # noqa: T201  the stage's one line to the person
        sys.exit(1)


def use_machine(device: str, n_threads: int) -> str:
    """The device, after fixing the thread count (1 and 2 threads give different bytes). ValueError if it is absent."""
    import torch  # heavy, and not every stage needs it
    from threadpoolctl import threadpool_limits

    keep_memory()
    torch.set_num_threads(n_threads)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False  # the fastest kernel of the moment is not the same one next time
    threadpool_limits(
        1, user_api="blas"
    )  # small matrices: more threads only wait for each other, 5 times slower on a busy machine
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "runtime.device is cuda but torch sees no GPU; set it to cpu in params.yaml or mend the driver"
        )
    return device


def keep_memory() -> None:
    """Memory that is freed stays this process's own, for its next tensors.

    glibc gives every large block back to the system and fetches it anew, page by page, for the next layer: half of the time
    of mobilenet_v2 at 128 px (benchmarks/kept_memory.py). Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and platform.libc_ver()[0] == "glibc":
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, MOST_KEPT_BYTES)


def is_quiet() -> bool:
    """True where progress bars would only fill a log."""
    return not sys.stderr.isatty()


class ResumeState:
    """Where a long stage keeps what it has finished: `<home>/state/<stage>/<key>`, outside DVC's outs.

    DVC removes a stage's outs before it runs, and killing DVC alone leaves the stage alive: so the folder has its own
    lock. Keys of other inputs, parameters or code are removed at the start, the own one on success.
    """

    def __init__(self, stage: str, key: str) -> None:
        self.root = acclimate_home() / "state" / stage
        self.folder = self.root / key

    def __enter__(self) -> "ResumeState":
        self.root.mkdir(parents=True, exist_ok=True)
        self._lock = (self.root / "lock").open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            with self._lock:
                self._lock.seek(0)
                pid = self._lock.read().strip()
            raise ValueError(f"another run of this stage is still alive (pid {pid}); wait for it or stop it") from None
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()
        for other in self.root.iterdir():
            if other.is_dir() and other != self.folder:
                shutil.rmtree(other)
        self.folder.mkdir(exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            shutil.rmtree(self.folder)
        self._lock.close()
