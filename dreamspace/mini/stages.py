"""One resumable training loop for all parts of mini."""

import contextlib
import copy
import math
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dreamspace.files import read_json, write_json
from dreamspace.training.checkpoints import (
    load_modules,
    load_optimizer,
    replace_folder,
    save_modules,
    save_optimizer,
)

SAVE_EVERY_SECONDS = 60
PICTURE_EVERY_SECONDS = 600


@dataclass
class Stage:
    """What is trained, and how.

    `loss(modules, step)` draws its own batch from the step, so that a resumed run sees what an
    uninterrupted one would. `picture(modules, path)` saves a grid that shows the present state.
    """

    name: str
    modules: dict[str, nn.Module]
    num_steps: int
    learning_rate: float
    loss: Callable[[dict[str, nn.Module], int], Tensor]
    picture: Callable[[dict[str, nn.Module], Path], None]
    ema_decay: float = 0.999
    weight_decay: float = 0.01


def _learning_rate(step: int, stage: Stage) -> float:
    """Linear warm-up over 200 steps, then a cosine down to a fiftieth."""
    warmup = min(1.0, (step + 1) / 200)
    return (
        stage.learning_rate * warmup * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / stage.num_steps)))
    )


def _attention(device: torch.device) -> contextlib.AbstractContextManager:
    """On the CPU, plain attention: the backward of the fused one in bfloat16 makes a step 13 % slower."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else contextlib.nullcontext()


def _save(folder: Path, stage: Stage, averaged: dict, optimizer: torch.optim.Optimizer, step: int) -> None:
    temporary = folder.with_name(f".{folder.name}.new")
    save_modules(stage.modules, temporary)
    save_modules({f"{name}_ema": module for name, module in averaged.items()}, temporary)
    save_optimizer(optimizer, temporary)
    write_json(temporary / "state.json", {"step": step, "num_steps": stage.num_steps})
    replace_folder(temporary, folder)


def train_stage(stage: Stage, work: Path, device: torch.device) -> dict[str, nn.Module]:
    """Train a stage to its end, from where an earlier call left it; returns the averaged modules.

    SIGTERM and Ctrl-C save and leave with `SystemExit`; a kill costs at most a minute of work.
    """
    folder = work / stage.name
    for module in stage.modules.values():
        module.to(device).train()
    averaged = {
        name: copy.deepcopy(module).requires_grad_(False).eval() for name, module in stage.modules.items()
    }
    parameters = [
        parameter
        for module in stage.modules.values()
        for parameter in module.parameters()
        if parameter.requires_grad
    ]
    optimizer = torch.optim.AdamW(
        parameters, lr=stage.learning_rate, weight_decay=stage.weight_decay, betas=(0.9, 0.99)
    )
    start = 0
    if (folder / "state.json").exists():
        start = read_json(folder / "state.json")["step"]
        load_modules(stage.modules, folder)
        load_modules({f"{name}_ema": module for name, module in averaged.items()}, folder)
        load_optimizer(optimizer, folder)

    stopping = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.append(True))
    saved = shown = pictured = time.monotonic()
    shown_step, recent = start, []
    for step in range(start, stage.num_steps):
        optimizer.param_groups[0]["lr"] = _learning_rate(step, stage)
        with torch.autocast(device.type, torch.bfloat16), _attention(device):
            loss = stage.loss(stage.modules, step)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        decay = min(stage.ema_decay, (1 + step) / (10 + step))
        for name, module in stage.modules.items():
            for mean, value in zip(
                averaged[name].state_dict().values(), module.state_dict().values(), strict=True
            ):
                mean.lerp_(value, 1 - decay) if mean.is_floating_point() else mean.copy_(value)
        recent.append(loss.detach())

        now, last = time.monotonic(), step + 1 == stage.num_steps
        if now - shown > 10 or last:
            rate = (step + 1 - shown_step) / (now - shown)
            mean = torch.stack(recent).mean().item()
            left = (stage.num_steps - step - 1) / rate / 60
            print(
                f"{stage.name}: step {step + 1} of {stage.num_steps}, loss {mean:.4f}, "
                f"{rate:.2f} steps/s, {left:.0f} min left",
                file=sys.stderr,
                flush=True,
            )
            shown, shown_step, recent = now, step + 1, []
        if now - saved > SAVE_EVERY_SECONDS or last or stopping:
            _save(folder, stage, averaged, optimizer, step + 1)
            saved = time.monotonic()
        if now - pictured > PICTURE_EVERY_SECONDS or last:
            stage.picture(averaged, work / f"{stage.name}.png")
            pictured = time.monotonic()
        if stopping:
            raise SystemExit(f"{stage.name} is saved at step {step + 1}. Run the same command to go on.")
    return averaged
