"""Numbers of fewer bits where the device has them, and what to say when memory runs out."""

from contextlib import AbstractContextManager, nullcontext

import torch

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SIGNS_OF_NO_MEMORY = ("can't allocate memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")


def autocast(device: str, precision: str) -> AbstractContextManager[object]:
    """What the forward pass and the loss run in: matrix products and convolutions in the precision, sums in 32 bits.

    For float32 it does nothing. ValueError where the device lacks the precision. On a CPU without instructions for
    bfloat16 it works, and is slower than float32.
    """
    check_precision(device, precision)
    if precision == "float32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, TYPES[precision])


def grad_scaler(device: str, precision: str) -> torch.amp.GradScaler:
    """Scales the loss of float16, whose small gradients would become 0; switched off (a pass-through) otherwise.

    Its state_dict belongs into the checkpoint.
    """
    check_precision(device, precision)
    return torch.amp.GradScaler(torch.device(device).type, enabled=precision == "float16")


def check_precision(device: str, precision: str) -> None:
    """ValueError where the precision is unknown or the device lacks it."""
    if precision not in TYPES:
        raise ValueError(f"precision is {precision!r}; allowed are {', '.join(TYPES)}")
    kind = torch.device(device).type
    if precision == "float16" and kind == "cpu":
        raise ValueError("precision float16 needs a GPU and the device is cpu; set it to float32 or bfloat16")
    if precision == "bfloat16" and kind == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name(device)
        raise ValueError(f"precision is bfloat16, which the GPU {name} lacks; set it to float16 or float32")


def is_out_of_memory(error: BaseException) -> bool:
    """True for what torch raises on a full GPU, and for its CPU allocator's plain RuntimeError."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS_OF_NO_MEMORY)


def out_of_memory_message(batch_size: int, where: str, accumulate: int = 1) -> str:
    """The sentence for a person: what to set so that half as many images are held at once.

    batch_size: images of a step; accumulate: the parts it is run in.
    """
    n_held = -(-batch_size // accumulate)
    said = f"{where}: memory ran out with {n_held} images at once"
    if n_held < 4:  # BatchNorm needs two
        return f"{said}; take smaller images, a smaller model or a device with more memory"
    return (
        f"{said}; set batch_size to {batch_size // 2} in params.yaml, or accumulate to {2 * accumulate} to keep steps "
        f"of {batch_size} images"
    )
