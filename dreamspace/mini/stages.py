"""One resumable training loop for all parts of mini."""

import contextlib
import copy
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
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

SHOW_EVERY_SECONDS = 10
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


@contextlib.contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """A list that fills when SIGTERM or Ctrl-C arrives; afterwards both mean what they meant before."""
    received: list[int] = []
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda number, _: received.append(number)) for number in signals]
    try:
        yield received
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


class _Training:
    """The modules of a stage, their averages and their optimizer."""

    def __init__(self, stage: Stage, device: torch.device) -> None:
        self.stage, self.device = stage, device
        for module in stage.modules.values():
            module.to(device).train()
        self.averaged = {
            name: copy.deepcopy(module).requires_grad_(False).eval() for name, module in stage.modules.items()
        }
        every = [parameter for module in stage.modules.values() for parameter in module.parameters()]
        self.parameters = [parameter for parameter in every if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=stage.learning_rate, weight_decay=stage.weight_decay, betas=(0.9, 0.99)
        )

    def take(self, step: int) -> Tensor:
        """Take one step; returns its loss, still on the device."""
        stage = self.stage
        torch.manual_seed(step)  # For what draws from torch itself, so that a resumed run repeats it.
        self.optimizer.param_groups[0]["lr"] = _learning_rate(step, stage)
        with torch.autocast(self.device.type, torch.bfloat16), _attention(self.device):
            loss = stage.loss(stage.modules, step)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        decay = min(stage.ema_decay, (1 + step) / (10 + step))
        for name, module in stage.modules.items():
            pairs = zip(self.averaged[name].state_dict().values(), module.state_dict().values(), strict=True)
            for mean, value in pairs:
                mean.lerp_(value, 1 - decay) if mean.is_floating_point() else mean.copy_(value)
        return loss.detach()

    def save(self, folder: Path, step: int) -> None:
        temporary = folder.with_name(f".{folder.name}.new")
        save_modules(self.stage.modules, temporary)
        save_modules({f"{name}_ema": module for name, module in self.averaged.items()}, temporary)
        save_optimizer(self.optimizer, temporary)
        write_json(temporary / "state.json", {"step": step, "num_steps": self.stage.num_steps})
        replace_folder(temporary, folder)

    def load(self, folder: Path) -> int:
        """Restore what `save` wrote; returns the number of steps it had taken, 0 if there is nothing."""
        if not (folder / "state.json").exists():
            return 0
        load_modules(self.stage.modules, folder)
        load_modules({f"{name}_ema": module for name, module in self.averaged.items()}, folder)
        load_optimizer(self.optimizer, folder)
        return read_json(folder / "state.json")["step"]


def train_stage(stage: Stage, work: Path, device: torch.device) -> dict[str, nn.Module]:
    """Train a stage to its end, from where an earlier call left it; returns the averaged modules.

    SIGTERM and Ctrl-C save and leave with `SystemExit`; a kill costs at most a minute of work.
    """
    folder = work / stage.name
    training = _Training(stage, device)
    start = training.load(folder)
    saved = shown = pictured = time.monotonic()
    recent: list[Tensor] = []
    with _stop_requests() as stopping:
        for step in range(start + 1, stage.num_steps + 1):
            recent.append(training.take(step - 1))
            now, last = time.monotonic(), step == stage.num_steps
            if now - shown > SHOW_EVERY_SECONDS or last:
                _show(stage, step, recent, now - shown)
                shown, recent = now, []
            if now - saved > SAVE_EVERY_SECONDS or last or stopping:
                training.save(folder, step)
                saved = now
            if now - pictured > PICTURE_EVERY_SECONDS or last:
                stage.picture(training.averaged, work / f"{stage.name}.png")
                pictured = now
            if stopping:
                raise SystemExit(f"{stage.name} is saved at step {step}. Run the same command to go on.")
    return training.averaged


def _show(stage: Stage, step: int, losses: list[Tensor], seconds: float) -> None:
    rate = len(losses) / seconds
    print(
        f"{stage.name}: step {step} of {stage.num_steps}, loss {torch.stack(losses).mean().item():.4f}, "
        f"{rate:.2f} steps/s, {(stage.num_steps - step) / rate / 60:.0f} min left",
        file=sys.stderr,
        flush=True,
    )
