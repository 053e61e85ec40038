"""Which precision runs where, and the sentence for a full memory."""

import re

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, linear

from tasks.core.precision import autocast, check_precision, grad_scaler, is_out_of_memory, out_of_memory_message

# 1 + 2^-9 needs nine bits after the point: bfloat16 has seven
FINE = 1 + 2**-9


def test_float32_changes_nothing() -> None:
    with autocast("cpu", "float32"):
        assert not torch.is_autocast_enabled("cpu")
        assert linear(torch.tensor([[FINE]]), torch.tensor([[1.0]])).item() == FINE


def test_bfloat16_rounds_products_and_keeps_the_loss_in_32_bits() -> None:
    with autocast("cpu", "bfloat16"):
        product = linear(torch.tensor([[FINE]]), torch.tensor([[1.0]]))
        loss = cross_entropy(linear(torch.ones(1, 1), torch.zeros(3, 1)), torch.tensor([0]))
    assert (product.dtype, product.item()) == (torch.bfloat16, 1)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(np.log(3), abs=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_scaler_that_is_not_needed_passes_through(precision: str) -> None:
    scaler, weight = grad_scaler("cpu", precision), torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = torch.optim.SGD([weight], lr=1)
    scaler.scale((3 * weight).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert weight.item() == -1
    assert scaler.state_dict() == {}


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_step_on_a_gpu_follows_the_true_gradient(precision: str) -> None:
    """It is 1e-9; the smallest number of float16 is 6e-8, so that without the scaler it would be 0."""
    weight, scaler = torch.nn.Parameter(torch.ones(1, 1, device="cuda")), grad_scaler("cuda:0", precision)
    with autocast("cuda:0", precision):
        loss = linear(torch.full((1, 1), 1e-2, device="cuda"), weight).float().sum() * 1e-7
    scaler.scale(loss).backward()
    assert scaler.is_enabled() == (precision == "float16")
    found = weight.grad.item() / scaler.get_scale()
    assert found == pytest.approx(1e-9, rel=0.02)


@pytest.mark.parametrize(
    ("device", "precision", "told"),
    [
        ("cpu", "float16", "precision float16 needs a GPU and the device is cpu; set it to float32 or bfloat16"),
        ("cpu", "half", "precision is 'half'; allowed are float32, bfloat16, float16"),
        ("cuda", "fp16", "precision is 'fp16'; allowed are float32, bfloat16, float16"),
    ],
)
def test_a_precision_that_the_device_lacks_is_refused(device: str, precision: str, told: str) -> None:
    for make in (check_precision, autocast, grad_scaler):
        with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
            make(device, precision)


def test_an_old_gpu_has_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "Tesla T4")
    with pytest.raises(
        ValueError, match="precision is bfloat16, which the GPU Tesla T4 lacks; set it to float16 or float32"
    ):
        check_precision("cuda:0", "bfloat16")
    check_precision("cuda:0", "float16")


def test_a_full_memory_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as full:
        torch.empty(10**16)
    with pytest.raises(RuntimeError) as other:
        torch.ones(2) @ torch.ones(3)
    assert is_out_of_memory(full.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert not is_out_of_memory(other.value)
    assert not is_out_of_memory(ValueError("can't allocate memory"))


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "told"),
    [
        (64, 1, "with 64 images at once; set batch_size to 32 in params.yaml, or accumulate to 2 to keep steps of 64 images"),
        (64, 4, "with 16 images at once; set batch_size to 32 in params.yaml, or accumulate to 8 to keep steps of 64 images"),
        (9, 2, "with 5 images at once; set batch_size to 4 in params.yaml, or accumulate to 4 to keep steps of 9 images"),
        (6, 2, "with 3 images at once; take smaller images, a smaller model or a device with more memory"),
        (1, 1, "with 1 images at once; take smaller images, a smaller model or a device with more memory"),
    ],
)  # fmt: skip
def test_a_full_memory_names_the_batch_to_try(batch_size: int, accumulate: int, told: str) -> None:
    assert (
        out_of_memory_message(batch_size, "a model, epoch 2", accumulate) == f"a model, epoch 2: memory ran out {told}"
    )
