"""Time and memory of our training step against a bare PyTorch loop over the same modules.

    python -m benchmarks.step_time             a table of ratios, both interleaved in one run
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
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler, UNet2DConditionModel

from dreamspace.config import RunConfig
from dreamspace.data.geometry import plan_geometry
from dreamspace.data.plan import PlannedDataset, RowPlan
from dreamspace.data.samples import Sample
from dreamspace.mini import MODEL_FOLDER
from dreamspace.mini.parts import noise_schedule
from dreamspace.mini.subjects import write_photos
from dreamspace.models import FAMILIES
from dreamspace.models.adapters import add_lora
from dreamspace.training.loop import LossLog, TrainingStep
from dreamspace.training.preparation import TrainingSet

FAMILY = FAMILIES["sd1x"]
NUM_PHOTOS = 6
RANK = 16


def mini_unet() -> UNet2DConditionModel:
    return FAMILY.load_denoiser(MODEL_FOLDER, torch.device("cpu"))


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


def new_lora(unet: UNet2DConditionModel):
    adapter = add_lora(unet.train(), FAMILY.lora_targets, RANK, None, 0.0, seed=0)
    optimizer = torch.optim.AdamW(adapter.parameters, lr=1e-4, fused=True)
    return adapter, optimizer


def our_step(unet, batch_size: int, edge: int, events):
    """Our step as the `train` job runs it, on random latents; the loss log included."""
    config = RunConfig(train_batch_size=batch_size)
    width = unet.config.cross_attention_dim
    geometry = plan_geometry(edge * 8, edge * 8, resolution=edge * 8, multiple_px=8)
    samples = [Sample(Path(f"{i}.png"), str(i), ("prompt",), geometry, False) for i in range(NUM_PHOTOS)]
    training_set = TrainingSet(
        [samples],
        [list(torch.randn(NUM_PHOTOS, 4, edge, edge))],
        RowPlan([PlannedDataset("subject", NUM_PHOTOS, 1)], seed=0),
        {"prompt": {"prompt_embeds": torch.randn(77, width)}},
    )
    adapter, optimizer = new_lora(unet)
    accelerator = Accelerator(cpu=True)
    scheduler = DDPMScheduler(**noise_schedule())
    step = TrainingStep(config, FAMILY, scheduler, unet, adapter, optimizer, training_set, accelerator)
    log = LossLog(events, 0, 10**9)
    return lambda index: log.add(step(index, 1e-4))


def bare_step(unet, batch_size: int, edge: int):
    """Noise, forward, backward, AdamW over cached latents and embeddings: nothing else."""
    _, optimizer = new_lora(unet)
    latents = torch.randn(batch_size, 4, edge, edge)
    embeds = torch.randn(batch_size, 77, unet.config.cross_attention_dim)
    scheduler = DDPMScheduler(**noise_schedule())

    def step(_: int) -> None:
        noise = torch.randn_like(latents)
        timesteps = torch.randint(1000, (batch_size,))
        prediction = unet(scheduler.add_noise(latents, noise, timesteps), timesteps, embeds).sample
        torch.nn.functional.mse_loss(prediction, noise).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def interleaved(first, second, rounds: int) -> tuple[float, float]:
    """Median seconds of each, taken in turns, after three rounds of warm-up."""
    times: tuple[list[float], list[float]] = ([], [])
    for index in range(rounds + 3):
        order = (0, 1) if index % 2 else (1, 0)
        for which in order:
            started = time.perf_counter()
            (first, second)[which](index)
            times[which].append(time.perf_counter() - started)
    return statistics.median(times[0][3:]), statistics.median(times[1][3:])


def print_ratios(rounds: int) -> None:
    from dreamspace.jobs.events import EventWriter

    print("| model | latents | batch | bare loop (s) | ours (s) | ratio |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, build in (("mini", mini_unet), ("random SD, 35 M", random_unet)):
        for edge in (16, 32):
            for batch_size in (1, 4):
                with tempfile.TemporaryDirectory() as folder:
                    ours = our_step(build(), batch_size, edge, EventWriter(Path(folder)))
                    bare = bare_step(build(), batch_size, edge)
                    mine, floor = interleaved(ours, bare, rounds)
                row = f"{edge} x {edge} | {batch_size} | {floor:.3f} | {mine:.3f} | {mine / floor:.3f}"
                print(f"| {name} | {row} |", flush=True)
                del ours, bare
                gc.collect()


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
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    if options.start_up:
        print_start_up()
    elif options.memory:
        print_memory()
    else:
        print_ratios(options.rounds)
