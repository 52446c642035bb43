"""Our training step and a bare PyTorch loop over the same modules, and both timed in turns."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from benchmarks.random_models import Modules, batched
from dreamspace.config import RunConfig
from dreamspace.data.evaluation_photos import EvaluationPhotos
from dreamspace.data.geometry import GeometryRules, plan_geometry
from dreamspace.data.masks import Mask
from dreamspace.data.plan import PlannedDataset, StepPlan
from dreamspace.data.samples import Sample
from dreamspace.jobs.events import EventWriter
from dreamspace.models.lora import Lora
from dreamspace.training.loop import TrainingStep
from dreamspace.training.loss_log import LossLog
from dreamspace.training.optimizers import new_optimizer
from dreamspace.training.preparation import TrainingSet
from dreamspace.training.schedule import noise_schedule
from dreamspace.training.setup import new_ema

Step = Callable[[int], None]
NUM_PHOTOS = 6
RANK = 16


def new_lora(modules: Modules) -> Lora:
    """On the modules' denoiser, which is then in training mode."""
    return Lora(modules.denoiser.train(), modules.family, RunConfig(lora_rank=RANK))


def random_set(
    modules: Modules, config: RunConfig, edge: int, regularised: float, has_masks: bool
) -> TrainingSet:
    """Random latents; `regularised` is the share of rows with the base model's target."""
    geometry = plan_geometry(edge * 8, edge * 8, GeometryRules(edge * 8, "pixel"), multiple_px=8)
    mask = Mask(Path("mask.png"), "mask") if has_masks else None
    targets = {0.0: [None], 0.5: [None, "base"], 1.0: ["base"]}[regularised]
    return TrainingSet(
        samples=[
            [Sample(Path(f"{i}.png"), str(i), ("prompt",), geometry, target, mask) for i in range(NUM_PHOTOS)]
            for target in targets
        ],
        latents=[list(torch.randn(NUM_PHOTOS, modules.channels, edge, edge)) for _ in targets],
        masks=[[torch.rand(edge, edge) if has_masks else None for _ in range(NUM_PHOTOS)] for _ in targets],
        plan=StepPlan(
            [PlannedDataset(str(target), (geometry.size,) * NUM_PHOTOS, 100) for target in targets],
            seed=0,
            step_rows=config.train_batch_size,
        ),
        conditioning={"prompt": modules.conditioning},
        judged_by=EvaluationPhotos({}, "weak"),
        eval_photos={},
    )


def our_step(
    modules: Modules,
    batch_size: int,
    edge: int,
    events: EventWriter,
    regularised: float = 0.0,
    has_masks: bool = False,
    accelerator: Accelerator | None = None,
    **settings: Any,
) -> Step:
    """Our step as the `train` job runs it, on random latents; the loss log included."""
    config = RunConfig(train_batch_size=batch_size, **settings)
    adapter = new_lora(modules)
    accelerator = accelerator or Accelerator(cpu=True)
    step = TrainingStep(
        config,
        modules.family,
        noise_schedule(modules.scheduler).to(accelerator.device),
        modules.denoiser,
        adapter,
        new_optimizer(config, adapter.parameter_groups),
        random_set(modules, config, edge, regularised, has_masks),
        accelerator,
        new_ema(config, adapter),
    )
    log = LossLog(events, 0, 10**9)
    return lambda index: log.add(step(index, 1e-4))


def bare_step(
    modules: Modules,
    batch_size: int,
    edge: int,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Step:
    """Noise, forward, backward, AdamW over latents and conditioning that are there: nothing else.

    It calls the denoiser as a loop would that is written for this model alone.
    """
    device = device or torch.device("cpu")
    optimizer = torch.optim.AdamW(new_lora(modules).parameters, lr=1e-4, fused=True)
    shape = (
        (edge // 2 * edge // 2, 4 * modules.channels) if modules.is_packed else (modules.channels, edge, edge)
    )
    latents = torch.randn(batch_size, *shape, device=device)
    inputs = modules.bare_inputs(batched(modules, batch_size, device), edge)
    schedule = noise_schedule(modules.scheduler).to(device)
    per_row = (batch_size, *[1] * len(shape))

    def step(_: int) -> None:
        noise = torch.randn_like(latents)
        timesteps = torch.randint(1000, (batch_size,), device=device)
        alphas, sigmas = schedule.alphas[timesteps], schedule.sigmas[timesteps]
        noisy = alphas.view(per_row) * latents + sigmas.view(per_row) * noise
        times = sigmas * modules.time_scale if schedule.is_flow else timesteps
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            prediction = modules.denoiser(noisy, timestep=times, **inputs, return_dict=False)[0]
        target = noise - latents if schedule.is_flow else noise
        nn.functional.mse_loss(prediction.float(), target).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def interleaved(
    steps: list[Step], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> list[list[float]]:
    """Seconds of each in every round, taken in turns, after three rounds of warm-up."""
    times: list[list[float]] = [[] for _ in steps]
    for index in range(rounds + 3):
        order = range(len(steps)) if index % 2 else reversed(range(len(steps)))
        for which in order:
            started = clock()
            steps[which](index)
            times[which].append(clock() - started)
    return [taken[3:] for taken in times]


def clock_of(device: torch.device) -> Callable[[], float]:
    """Seconds of this process' processors; on a GPU seconds by which its work is done."""
    if device.type != "cuda":
        return time.process_time

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def allocated_by(step: Step, device: torch.device) -> int | None:
    """The most bytes that a GPU's allocator held for tensors in three steps; None on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    for index in range(3):
        step(index)
    return torch.cuda.max_memory_allocated(device)


def mebibytes(num_bytes: int | None) -> str:
    """For a cell of a table."""
    return "" if num_bytes is None else f"{num_bytes / 2**20:.0f}"
