"""The processes of a run: the device and precision of this one, and what all of them agree on."""

import functools
import os
from datetime import timedelta
from pathlib import Path
from typing import get_args

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch.nn.parallel import DistributedDataParallel

from dreamspace.config import RunConfig
from dreamspace.jobs.control import ControlName, consume_control

PATIENCE = timedelta(hours=24)
"""Ranks wait for as long as rank 0 draws: class images before the training, validation images in it."""


def new_accelerator(config: RunConfig) -> Accelerator:
    """The device, the precision, and the ranks that this process is one of.

    Raises:
        ValueError: if this machine cannot compute in `mixed_precision`.
    """
    if config.mixed_precision == "fp16" and not torch.cuda.is_available():
        raise ValueError(
            "mixed_precision 'fp16' needs an NVIDIA GPU, and this machine has none. Set it to 'no' or 'bf16'."
        )
    patience = InitProcessGroupKwargs(timeout=PATIENCE)
    # Without a GPU, accelerate joins ranks only if it is told to use the CPU; else each would train alone.
    ranks_on_cpu = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.cuda.is_available()
    # Some layers of a whole model, and of LyCORIS' random algorithms, are left without a gradient.
    some_unused = config.model_type == "full" or config.lora_type != "standard"
    unused = DistributedDataParallelKwargs(find_unused_parameters=some_unused)
    accelerator = Accelerator(
        cpu=ranks_on_cpu, mixed_precision=config.mixed_precision, kwargs_handlers=[patience, unused]
    )
    if accelerator.num_processes > 1:
        host_group()  # Here, where all ranks are at the same place.
    return accelerator


@functools.cache
def host_group() -> torch.distributed.ProcessGroup:
    """All ranks, for tensors on the CPU: what they agree on there waits for no GPU."""
    return torch.distributed.new_group(backend="gloo", timeout=PATIENCE)


def distributed(denoiser: torch.nn.Module, accelerator: Accelerator) -> torch.nn.Module:
    """The denoiser as it is for one process, else wrapped so that gradients are averaged over the ranks."""
    if accelerator.num_processes == 1 or not any(weight.requires_grad for weight in denoiser.parameters()):
        return denoiser
    keep_frozen_weights(denoiser)
    wrapped = accelerator.prepare(denoiser)
    # Takes accelerate's autocast off the denoiser's own `forward` again: the loop has its own, and images
    # are drawn without it, so that they equal those of the stock pipeline.
    accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
    return wrapped


def keep_frozen_weights(denoiser: torch.nn.Module) -> None:
    """Have frozen weights left where they are: all ranks load the same, and torchao's cannot be sent."""
    frozen = [name for name, parameter in denoiser.named_parameters() if not parameter.requires_grad]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(denoiser, frozen)


def consume_requests(accelerator: Accelerator, job_dir: Path) -> set[ControlName]:
    """What the app asked for since the last call; rank 0 reads the requests, and all ranks act on them."""
    names = get_args(ControlName)
    found = [accelerator.is_main_process and consume_control(job_dir, name) for name in names]
    if accelerator.num_processes > 1:
        flags = torch.tensor(found, dtype=torch.int32)
        torch.distributed.all_reduce(flags, group=host_group())
        found = flags.tolist()
    return {name for name, was_found in zip(names, found, strict=True) if was_found}
