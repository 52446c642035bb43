"""A LoRA on an SDXL of its real shape, on a GPU: seconds, memory and utilisation at each precision."""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.random_models import Modules, seeded
from benchmarks.steps import allocated_by, bare_step, clock_of, interleaved, mebibytes, our_step
from dreamspace.config import RunConfig
from dreamspace.config.precision import QUANTISED, Precision, unsupported
from dreamspace.jobs.events import EventWriter
from dreamspace.models.precision import quantise
from dreamspace.training.ranks import new_accelerator

LEVELS: tuple[Precision, ...] = ("no_change", *QUANTISED)

PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}
"""bf16 products a second without sparsity, by the makers' data sheets, of a GPU whose name holds this."""


def print_full_size(
    build: Callable[[], Modules],
    edge: int = 128,
    batch_sizes: tuple[int, ...] = (1, 4),
    levels: tuple[Precision, ...] = LEVELS,
    rounds: int = 10,
) -> None:
    """A table of our steps in bf16.

    Utilisation is what the forward and backward passes of a bare step without quantisation compute, as torch
    counts it, over our step's time and the GPU's peak.
    """
    accelerator = new_accelerator(RunConfig(mixed_precision="bf16"))
    device = accelerator.device
    peak = peak_flops(device)
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    print("| precision | batch | seconds a step | allocated (MiB) | of the peak |")
    print("| --- | --- | --- | --- | --- |")
    for batch_size in batch_sizes:
        flops = flops_of_step(build, batch_size, edge, device)
        for level in levels:
            if unsupported(level, device.type, capability) is not None:
                continue
            modules = seeded(build, device, torch.bfloat16)
            if level != "no_change":
                quantise(modules.denoiser, level, torch.bfloat16, start=device, device=device)
            with tempfile.TemporaryDirectory() as folder:
                step = our_step(
                    modules,
                    batch_size,
                    edge,
                    EventWriter(Path(folder)),
                    accelerator=accelerator,
                    mixed_precision="bf16",
                )
                used = allocated_by(step, device)
                (taken,) = interleaved([step], rounds, clock_of(device))
            seconds = statistics.median(taken)
            share = "" if peak is None else f"{flops / seconds / peak:.0%}"
            print(f"| {level} | {batch_size} | {seconds:.3f} | {mebibytes(used)} | {share} |", flush=True)
            del step, modules


def flops_of_step(build: Callable[[], Modules], batch_size: int, edge: int, device: torch.device) -> int:
    """What the passes of a bare step compute."""
    step = bare_step(seeded(build, device, torch.bfloat16), batch_size, edge, device, torch.bfloat16)
    with FlopCounterMode(display=False) as counter:
        step(0)
    return counter.get_total_flops()


def peak_flops(device: torch.device) -> float | None:
    """The GPU's peak in bf16; None where it is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((flops for known, flops in PEAK_FLOPS.items() if known in name), None)
