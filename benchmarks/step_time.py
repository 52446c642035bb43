"""Time and memory of our training step against a bare PyTorch loop over the same modules.

    python -m benchmarks.step_time             a table of ratios, both interleaved in one run
    python -m benchmarks.step_time --family F  the same for a random model of sd1x, sdxl, sd3 or flux
    python -m benchmarks.step_time --full-size on a GPU: SDXL in its real shape, at each precision
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
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from benchmarks.full_size import print_full_size
from benchmarks.random_models import FAMILIES, full_size_sdxl, mini, random_sd1x, seeded
from benchmarks.steps import allocated_by, bare_step, clock_of, interleaved, mebibytes, our_step
from dreamspace.jobs.events import EventWriter
from dreamspace.mini.subjects import write_photos

CPU = torch.device("cpu")


def print_ratios(rounds: int) -> None:
    print("| model | latents | batch | bare loop (s) | ours (s) | ratio |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, build in (("mini", mini), ("random SD, 35 M", lambda: seeded(random_sd1x, CPU))):
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


def print_family(name: str, rounds: int) -> None:
    """A family's step against the bare loop's: CPU-seconds on one core, or seconds and memory of a GPU.

    CPU-seconds are what other work on the machine disturbs least. Ratios are medians over the rounds of the
    ratio of neighbours in time.
    """
    torch.set_num_threads(1)
    accelerator = Accelerator()
    device = accelerator.device
    print(f"| {name}, latents | batch | bare loop (s) | ours (s) | ratio | allocated, bare / ours (MiB) |")
    print("| --- | --- | --- | --- | --- | --- |")
    for edge in (16, 32):
        for batch_size in (1, 4):
            with tempfile.TemporaryDirectory() as folder:
                events = EventWriter(Path(folder))
                bare = bare_step(seeded(FAMILIES[name], device), batch_size, edge, device)
                floor_bytes = allocated_by(bare, device)
                ours = our_step(
                    seeded(FAMILIES[name], device), batch_size, edge, events, accelerator=accelerator
                )
                our_bytes = allocated_by(ours, device)
                floor, mine = interleaved([bare, ours], rounds, clock_of(device))
            ratio = statistics.median(our / other for our, other in zip(mine, floor, strict=True))
            row = f"{edge} x {edge} | {batch_size} | {statistics.median(floor):.4f} | "
            row += f"{statistics.median(mine):.4f} | {ratio:.3f} | {mebibytes(floor_bytes)} / "
            print(f"| {row}{mebibytes(our_bytes)} |", flush=True)
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
                our_step(mini(), 4, 16, EventWriter(Path(folder)), **chosen) for chosen in ({}, settings)
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
import resource
from benchmarks.random_models import mini
from benchmarks.steps import bare_step
imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step = bare_step(mini(), 2, 16)
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
    parser.add_argument("--family", choices=FAMILIES)
    parser.add_argument("--full-size", action="store_true")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    if options.start_up:
        print_start_up()
    elif options.memory:
        print_memory()
    elif options.family:
        print_family(options.family, options.rounds)
    elif options.full_size:
        if not torch.cuda.is_available():
            parser.error("--full-size needs a CUDA GPU of 24 GB or more, and this machine has none.")
        print_full_size(full_size_sdxl)
    elif options.options:
        print_options(options.rounds)
    else:
        print_ratios(options.rounds)
