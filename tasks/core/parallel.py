"""Several processes that train one network: each takes its share of every batch, and they agree on the gradients.

Started by torchrun (or `launch`), whose environment variables say which process this is. In one process all of it does
nothing. The sum of the shares' gradients is that of the whole batch where the loss is a mean over images and BatchNorm's
statistics are frozen; a loss that looks at the whole batch (class confusion, information, covariances, partners in mixup)
sees only the share of its process, and BatchNorm in training takes the statistics of the share.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

T = TypeVar("T")
VARIABLES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
SECONDS_BETWEEN_LOOKS = 0.1


def join(device: str) -> str:
    """The device of this process, after it joined the others that torchrun started: cuda becomes cuda:<local rank>.

    ValueError where torchrun's variables are incomplete or there are more processes than GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    if missing := [name for name in VARIABLES if name not in os.environ]:
        raise ValueError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']} but {', '.join(missing)} is not set; start the processes with "
            "torchrun, or unset WORLD_SIZE for a single one"
        )
    if device != "cuda":
        distributed.init_process_group("gloo")
        return device
    local_rank = int(os.environ["LOCAL_RANK"])
    if local_rank >= torch.cuda.device_count():
        raise ValueError(
            f"process {local_rank + 1} on this machine has no GPU of its own: torch sees {torch.cuda.device_count()}; "
            "start at most as many processes as there are GPUs"
        )
    torch.cuda.set_device(local_rank)
    distributed.init_process_group("nccl", device_id=torch.device("cuda", local_rank))
    return f"cuda:{local_rank}"


def leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def n_processes() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_first() -> bool:
    """True for the process that writes files and shows progress."""
    return rank() == 0


def own_share(items: Sequence[T]) -> list[T]:
    """Every n-th item from this process's own on. No share is a single item of several: BatchNorm can't use one image.

    So where the items are too few for two in each process, some processes get none.
    """
    n_sharing = min(n_processes(), max(len(items) // 2, 1))
    return list(items[rank() :: n_sharing]) if rank() < n_sharing else []


def average_gradients(parameters: Iterable[Tensor], share: float) -> None:
    """Every gradient becomes the sum over the processes of share · gradient, the same bytes in each of them.

    `share`: of the batch's images that this process held; the shares add up to 1. Every process must call it, also the
    one that held no image and has no gradients. A parameter without gradient in all of them stays without.
    """
    if n_processes() == 1:
        return
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    grads = [torch.zeros_like(p) if p.grad is None else p.grad * share for p in learning]
    has_grad = torch.tensor([float(p.grad is not None) for p in learning], device=grads[0].device)
    flat = summed(torch.cat([*(grad.flatten() for grad in grads), has_grad]))
    *parts, has_grad = flat.split([*(p.numel() for p in learning), len(learning)])
    for parameter, part, has in zip(learning, parts, has_grad.tolist(), strict=True):
        if has:
            parameter.grad = torch.empty_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad.copy_(part.view_as(parameter))


def average_buffers(module: nn.Module) -> None:
    """The module's buffers, e.g. BatchNorm's statistics, become the same in every process, as `average` says."""
    average(module.buffers())


def average(tensors: Iterable[Tensor]) -> None:
    """In place: floats become their mean over the processes; whole numbers, which count, those of the first process."""
    if n_processes() == 1:
        return
    for tensor in tensors:
        if tensor.is_floating_point():
            tensor.copy_(summed(tensor) / n_processes())
        else:
            tensor.copy_(summed(tensor * is_first()))


def summed(tensor: Tensor) -> Tensor:
    """The sum over the processes, in a new tensor on the same device; in one process the tensor itself."""
    if n_processes() == 1:
        return tensor
    on_gpu = distributed.get_backend() == "nccl"
    total = tensor.to("cuda" if on_gpu else "cpu", copy=True)
    distributed.all_reduce(total)
    return total.to(tensor.device)


def wait() -> None:
    """Until every process is here."""
    if n_processes() > 1:
        distributed.barrier()


def launch(n: int, module: str) -> int:
    """0 where `python -m module` ended well in n processes of this machine, else the exit code of the first that failed.

    What they print streams through. The others are stopped when one fails. torchrun does the same; but it buries the
    module's own sentence under a report of its own, and its processes live on when their group is killed.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = os.environ | {"WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for number in map(str, range(n)):
            own = shared | {"RANK": number, "LOCAL_RANK": number}
            processes.append(subprocess.Popen([sys.executable, "-m", module], env=own))
        while True:
            codes = [process.poll() for process in processes]
            if failed := [code for code in codes if code]:
                return failed[0]
            if None not in codes:
                return 0
            time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        for process in processes:
            process.terminate()
            process.wait()
