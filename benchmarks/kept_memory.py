"""What does `tasks.core.runtime.keep_memory` bring? Images per second with and without it, each in a process of its own.

    python benchmarks/kept_memory.py

Forward passes and training steps of random networks on random images, one thread, channels_last, batches of 64; CPU seconds,
the median of N_ROUNDS rounds. A process keeps glibc's settings, so the order within it is fixed: forward before training,
which by itself raises the size below which glibc keeps blocks. Writes benchmarks/results/kept_memory.json.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

N_BATCH, N_ROUNDS = 64, 5
CASES = [("mobilenet_v2", 128), ("resnet18", 128), ("efficientnet_b0", 128), ("mobilenet_v2", 32)]


def main() -> None:
    from pipeline import machine

    found: dict[str, Any] = {"machine": machine(), "n_batch": N_BATCH, "cases": {}}
    for name, side_px in CASES:
        plain, kept = (measured_apart(name, side_px, keeps) for keeps in (False, True))
        ratios = {what: round(kept[what] / plain[what], 2) for what in plain}
        found["cases"][f"{name} {side_px} px"] = {"plain": plain, "kept": kept, "kept_per_plain": ratios}
        print(name, side_px, plain, kept, ratios, flush=True)
    (ROOT / "benchmarks/results/kept_memory.json").write_text(json.dumps(found, indent=1) + "\n")


def measured_apart(name: str, side_px: int, keeps: bool) -> dict[str, float]:
    command = [sys.executable, __file__, name, str(side_px), "kept" if keeps else "plain"]
    answer: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return answer


def measured(name: str, side_px: int, keeps: bool) -> dict[str, float]:
    """Images per CPU second, and the process's peak memory."""
    import resource

    import torch
    from torchvision.models import get_model

    from tasks.core.runtime import keep_memory

    torch.set_num_threads(1)
    if keeps:
        keep_memory()
    net = get_model(name, weights=None).to(memory_format=torch.channels_last)
    x_NCHW = torch.rand(N_BATCH, 3, side_px, side_px).contiguous(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01)

    def forward() -> None:
        with torch.inference_mode():
            net(x_NCHW)

    def train() -> None:
        optimiser.zero_grad()
        net(x_NCHW).logsumexp(1).sum().backward()
        optimiser.step()

    speeds = {"forward": images_per_second(forward, net.eval()), "training": images_per_second(train, net.train())}
    return speeds | {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def images_per_second(step: Callable[[], None], _: object) -> float:
    step()
    seconds = []
    for _round in range(N_ROUNDS):
        start = time.process_time()
        step()
        seconds.append(time.process_time() - start)
    return round(N_BATCH / statistics.median(seconds), 1)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measured(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "kept")))
    else:
        main()
