"""The most memory that was held since a moment, in GiB: for people's eyes, never for a result."""

import resource
from pathlib import Path

GIB = 2**30
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def forget_peak(device: str) -> None:
    """Nothing; peaks count from now on where the system allows it (Linux), else from the start of the process."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    try:
        RESET.write_text("5", encoding="ascii")
    except OSError:
        return


def peak_gib(device: str) -> float:
    """Of the GPU where one is used, else of this process."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / GIB
    try:
        lines = STATUS.read_text(encoding="ascii").splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib * 1024 / GIB
