"""The device that computes, and how tensors come to it."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn


def best_device() -> torch.device:
    """NVIDIA's GPU where there is one, else Apple's, else the CPU; as accelerate chooses."""
    return torch.device(device_type(torch.cuda.is_available(), torch.backends.mps.is_available()))


def device_type(has_cuda: bool, has_mps: bool) -> str:
    """Which of the devices that are there computes."""
    return "cuda" if has_cuda else "mps" if has_mps else "cpu"


def usual_precision(device: torch.device) -> Literal["no", "fp16", "bf16"]:
    """The `mixed_precision` in which a model that is made for 16 bits draws on a device."""
    if device.type != "cuda":
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def sent(tensor: Tensor, device: torch.device, copy: bool = False) -> Tensor:
    """A tensor of the host on a device; where the device keeps order by itself, the host does not wait."""
    return tensor.to(device, non_blocking=runs_ahead(device.type), copy=copy)


def runs_ahead(device: str) -> bool:
    """Whether the host may go on while a tensor is on its way: MPS may read it after it is gone."""
    return device == "cuda"


@contextmanager
def on_device(module: nn.Module | None, device: torch.device) -> Iterator[None]:
    """Have a module, if there is one, on the device, and afterwards on the CPU again."""
    if module is not None:
        module.to(device)
    try:
        yield
    finally:
        if module is not None:
            module.to("cpu")


def return_freed_memory() -> None:
    """Have the C library return freed memory to the system.

    glibc alone has a call for it; it keeps the gaps between small results and large intermediates, which for
    a model that is quantised on the CPU come to as much as the model.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
