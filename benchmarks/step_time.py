"""Time and memory of our training step against a bare PyTorch loop over the same modules.

    python -m benchmarks.step_time             a table of ratios, both interleaved in one run
    python -m benchmarks.step_time --options   what each option of a training adds to a plain step
    python -m benchmarks.step_time --start-up  seconds from the `train` command to the first finished step
    python -m benchmarks.step_time --memory    peak memory of a training against the bare loop's

Only ratios mean anything: these are medians of the same machine in the same minutes.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler, UNet2DConditionModel

from dreamspace.config import RunConfig
from dreamspace.data.geometry import GeometryRules, plan_geometry
from dreamspace.data.masks import Mask
from dreamspace.data.plan import PlannedDataset, StepPlan
from dreamspace.data.samples import Sample
from dreamspace.jobs.events import EventWriter
from dreamspace.mini.parts import noise_schedule as mini_noise
from dreamspace.mini.subjects import write_photos
from dreamspace.models.base import open_model
from dreamspace.models.lora import Lora
from dreamspace.models.sd1x import StableDiffusion
from dreamspace.training.loop import TrainingStep
from dreamspace.training.loss_log import LossLog
from dreamspace.training.optimizers import new_optimizer
from dreamspace.training.preparation import TrainingSet
from dreamspace.training.schedule import noise_schedule
from dreamspace.training.setup import new_ema

FAMILY = StableDiffusion()
Step = Callable[[int], None]
NUM_PHOTOS = 6
RANK = 16


def mini_unet() -> UNet2DConditionModel:
    return open_model(RunConfig(), Path("unused"), torch.device("cpu")).load_denoiser()


def random_unet() -> UNet2DConditionModel:
    """35 M random parameters in Stable Diffusion 1.5's shape."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(64, 128, 256, 256),
        layers_per_block=2,
        cross_attention_dim=256,
        attention_head_dim=8,
    )
    return unet.requires_grad_(False)


def new_lora(unet: UNet2DConditionModel) -> Lora:
    return Lora(unet.train(), FAMILY, RunConfig(lora_rank=RANK))


def random_set(config: RunConfig, edge: int, width: int, regularised: float, has_masks: bool) -> TrainingSet:
    """Random latents and conditioning; `regularised` is the share of rows with the base model's target."""
    geometry = plan_geometry(edge * 8, edge * 8, GeometryRules(edge * 8, "pixel"), multiple_px=8)
    mask = Mask(Path("mask.png"), "mask") if has_masks else None
    targets = {0.0: [None], 0.5: [None, "base"], 1.0: ["base"]}[regularised]
    return TrainingSet(
        samples=[
            [Sample(Path(f"{i}.png"), str(i), ("prompt",), geometry, target, mask) for i in range(NUM_PHOTOS)]
            for target in targets
        ],
        latents=[list(torch.randn(NUM_PHOTOS, 4, edge, edge)) for _ in targets],
        masks=[[torch.rand(edge, edge) if has_masks else None for _ in range(NUM_PHOTOS)] for _ in targets],
        plan=StepPlan(
            [PlannedDataset(str(target), (geometry.size,) * NUM_PHOTOS, 100) for target in targets],
            seed=0,
            step_rows=config.train_batch_size,
        ),
        conditioning={"prompt": {"prompt_embeds": torch.randn(77, width)}},
    )


def our_step(
    unet: UNet2DConditionModel,
    batch_size: int,
    edge: int,
    events: EventWriter,
    regularised: float = 0.0,
    has_masks: bool = False,
    **settings: Any,
) -> Step:
    """Our step as the `train` job runs it, on random latents; the loss log included."""
    config = RunConfig(train_batch_size=batch_size, **settings)
    adapter = new_lora(unet)
    step = TrainingStep(
        config,
        FAMILY,
        noise_schedule(DDPMScheduler(**mini_noise())),
        unet,
        adapter,
        new_optimizer(config, adapter.parameter_groups),
        random_set(config, edge, unet.config.cross_attention_dim, regularised, has_masks),
        Accelerator(cpu=True),
        new_ema(config, adapter),
    )
    log = LossLog(events, 0, 10**9)
    return lambda index: log.add(step(index, 1e-4))


def bare_step(unet: UNet2DConditionModel, batch_size: int, edge: int) -> Step:
    """Noise, forward, backward, AdamW over cached latents and embeddings: nothing else."""
    optimizer = torch.optim.AdamW(new_lora(unet).parameters, lr=1e-4, fused=True)
    latents = torch.randn(batch_size, 4, edge, edge)
    embeds = torch.randn(batch_size, 77, unet.config.cross_attention_dim)
    scheduler = DDPMScheduler(**mini_noise())

    def step(_: int) -> None:
        noise = torch.randn_like(latents)
        timesteps = torch.randint(1000, (batch_size,))
        prediction = unet(scheduler.add_noise(latents, noise, timesteps), timesteps, embeds).sample
        torch.nn.functional.mse_loss(prediction, noise).backward()
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


def print_ratios(rounds: int) -> None:
    print("| model | latents | batch | bare loop (s) | ours (s) | ratio |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, build in (("mini", mini_unet), ("random SD, 35 M", random_unet)):
        for edge in (16, 32):
            for batch_size in (1, 4):
                with tempfile.TemporaryDirectory() as folder:
                    ours = our_step(build(), batch_size, edge, EventWriter(Path(folder)))
                    bare = bare_step(build(), batch_size, edge)
                    mine, floor = map(statistics.median, interleaved([ours, bare], rounds))
                row = f"{edge} x {edge} | {batch_size} | {floor:.3f} | {mine:.3f} | {mine / floor:.3f}"
                print(f"| {name} | {row} |", flush=True)
                del ours, bare
                gc.collect()


ROLLOUT = {"scheduled_sampling_max_step_offset": 10, "scheduled_sampling_probability": 1.0}
OPTIONS: dict[str, dict[str, Any]] = {
    "masks": {"has_masks": True},
    "masks, Min-SNR and EMA": {"has_masks": True, "snr_gamma": 5.0, "use_ema": True},
    "Min-SNR": {"snr_gamma": 5.0},
    "EMA": {"use_ema": True},
    "Huber": {"loss_type": "huber"},
    "low-discrepancy timesteps, noise offset": {"stratified_timesteps": True, "noise_offset": 0.1},
    "half the rows regularised": {"regularised": 0.5},
    "all rows regularised": {"regularised": 1.0},
    "masks, background held to the base": {"has_masks": True, "masked_prior_weight": 1.0},
    "rollout of 0 to 10 timesteps": ROLLOUT,
    "rollout of half the rows": ROLLOUT | {"scheduled_sampling_probability": 0.5},
    **{
        f"optimizer {name}": {"optimizer": name, "learning_rate": 1.0}
        for name in ("adamw_bf16", "bnb-adamw8bit", "lion", "adafactor", "prodigy", "adamw_schedulefree")
    },
}


def print_options(rounds: int) -> None:
    """Each option against the plain step on mini, 4 rows of 16 x 16 latents, on one core.

    In CPU-seconds, which other work on the machine disturbs least, as the median over the rounds of the ratio
    of neighbours in time.
    """
    torch.set_num_threads(1)
    print("| option | plain (CPU s) | with it (CPU s) | ratio |")
    print("| --- | --- | --- | --- |")
    for name, settings in OPTIONS.items():
        with tempfile.TemporaryDirectory() as folder:
            steps = [
                our_step(mini_unet(), 4, 16, EventWriter(Path(folder)), **chosen) for chosen in ({}, settings)
            ]
            plain, ours = interleaved(steps, rounds, time.process_time)
        ratio = statistics.median(mine / other for mine, other in zip(ours, plain, strict=True))
        medians = f"{statistics.median(plain):.4f} | {statistics.median(ours):.4f}"
        print(f"| {name} | {medians} | {ratio:.3f} |", flush=True)


def train_command(folder: Path, steps: int) -> list[str]:
    settings = (f"max_train_steps={steps}", "validation_disable=true", "train_batch_size=2")
    photos = folder / "photos"
    write_photos("biscuit", photos)
    return [
        *(sys.executable, "-m", "dreamspace", "train", "--photos", str(photos), "--class-word", "dog"),
        *("--token", "sks", "--run", str(folder / "runs" / "run")),
        *(part for setting in settings for part in ("--set", setting)),
    ]


def print_start_up() -> None:
    """Seconds to the first finished step, by the event log's own clock, with an empty cache."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        command = train_command(folder, steps=20)
        started = time.time()
        subprocess.run(
            command, env={**os.environ, "DREAMSPACE_HOME": temporary}, check=True, capture_output=True
        )
        lines = (folder / "runs" / "run" / "events.jsonl").read_text().splitlines()
        first = next(event for event in map(json.loads, lines) if event["kind"] == "loss")
    print(f"{first['time'] - started:.1f} s from the command to the first finished step")


MEASURED_LOOP = """
import resource, sys, torch
sys.path.insert(0, "benchmarks")
from step_time import bare_step, mini_unet
imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step = bare_step(mini_unet(), 2, 16)
for index in range(20):
    step(index)
print(imported, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""

MEASURED_TRAINING = """
import json, resource, sys
from pathlib import Path
import dreamspace.training.run
from dreamspace import worker
imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert worker.main([sys.argv[1]]) == 0
print(imported, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def print_memory() -> None:
    """Peak RSS of a whole training on mini against the bare loop's, each in a process of its own."""
    loop = subprocess.run(
        [sys.executable, "-c", MEASURED_LOOP], capture_output=True, text=True, check=True
    ).stdout
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        environment = {**os.environ, "DREAMSPACE_HOME": temporary}
        subprocess.run(train_command(folder, steps=20), env=environment, check=True, capture_output=True)
        run = folder / "again"
        run.mkdir()
        for name in ("config.json", "multidatabackend.json", "job.json"):
            (run / name).write_bytes((folder / "runs" / "run" / name).read_bytes())
        for latents in (folder / "cache" / "latents").iterdir():
            latents.unlink()
        command = [sys.executable, "-c", MEASURED_TRAINING, str(run)]
        printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    loop_imports, loop_peak = (int(word) / 1024 for word in loop.split()[-2:])
    imports, peak = (int(word) / 1024 for word in printed.split()[-2:])
    print(f"bare loop {loop_peak:.0f} MiB ({loop_imports:.0f} for imports)")
    print(f"ours {peak:.0f} MiB ({imports:.0f} for imports)")
    print(f"ratio {peak / loop_peak:.2f}, net of imports {(peak - imports) / (loop_peak - loop_imports):.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--start-up", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--options", action="store_true")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    if options.start_up:
        print_start_up()
    elif options.memory:
        print_memory()
    elif options.options:
        print_options(options.rounds)
    else:
        print_ratios(options.rounds)
