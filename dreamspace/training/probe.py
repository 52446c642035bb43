"""The `probe` job: two real steps of a run, and the memory and time that they take."""

import importlib
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

from dreamspace.config import RunConfig
from dreamspace.data.plan import StepPlan
from dreamspace.estimate.out_of_memory import is_out_of_memory
from dreamspace.files import write_json
from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.workspace import cache_of
from dreamspace.models.base import best_device, open_model
from dreamspace.run_folder import PROBE_FILE
from dreamspace.training.optimizers import learning_rate_schedule
from dreamspace.training.preparation import MIXTURE_STEPS
from dreamspace.training.run import begin

NUM_STEPS = 2


def probe(job_dir: Path, arguments: dict[str, Any], events: EventWriter) -> None:
    """Encode, load and take two optimizer steps as the run in `job_dir` would, and write `probe.json`.

    It holds `device`, `size_px` and `num_rows` of the step, `encoding_bytes` (the peak until the first step),
    `peak_bytes` (of all), and `seconds_per_step` (of the second). On a GPU bytes are those of tensors, on the
    CPU the process' resident ones net of imports.

    Raises:
        ValueError: for everything that the user can mend.
        MemoryError: if memory runs out.
    """
    try:
        measured = _measured(job_dir, events)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryError("Memory ran out in the probe, so this run does not fit here as it is.") from error
    if measured is None:
        events.write("stopped", step=0)
        return
    write_json(job_dir / PROBE_FILE, measured)
    events.write("done", step=NUM_STEPS, path=PROBE_FILE)


def largest_step(plan: StepPlan, num_steps: int) -> int:
    """The step with the most pixels in all its rows; the first of several."""

    def num_pixels(step: int) -> int:
        width_px, height_px = plan.size(step)
        return width_px * height_px * len(plan.rows(step))

    return max(range(min(num_steps, MIXTURE_STEPS)), key=num_pixels)


def import_for(config: RunConfig, cache: Path) -> None:
    """Import what a run needs, so that it counts as imports in what is measured after."""
    open_model(config, cache, best_device())
    for package in sorted(config.packages):
        importlib.import_module(package.replace("-", "."))  # As optimum-quanto is.


def _measured(job_dir: Path, events: EventWriter) -> dict[str, Any] | None:
    """What `probe` writes; None if a stop was asked for."""
    config, device = RunConfig.load(job_dir / "config.json"), best_device()
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"A probe measures NVIDIA GPUs and the CPU, and this machine has {device.type}.")
    import_for(config, cache_of(job_dir))
    imported = 0 if device.type == "cuda" else _peak_bytes(device)
    found = begin(job_dir, events)
    if found is None:
        return None
    encoding = _peak_bytes(device) - imported
    _, training_step = found
    plan = training_step.batches.training_set.plan
    index = largest_step(plan, config.max_train_steps)
    learning_rate = learning_rate_schedule(config)[index]
    events.write("stage", name="training", message="Two steps.")
    seconds = 0.0
    for _ in range(NUM_STEPS):  # The first also sets up what the others use.
        started = time.perf_counter()
        training_step(index, learning_rate)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - started
    return {
        "device": device.type,
        "size_px": plan.size(index),
        "num_rows": len(plan.rows(index)),
        "encoding_bytes": encoding,
        "peak_bytes": _peak_bytes(device) - imported,
        "seconds_per_step": seconds,
    }


def _peak_bytes(device: torch.device) -> int:
    """Of this process so far: allocated on the GPU, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
