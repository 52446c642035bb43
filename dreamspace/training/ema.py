"""A moving average of the trained weights, which changes more smoothly than they do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dreamspace.training.checkpoints import save_tensors
from dreamspace.training.optimizers import put_in_place

EMA_FILE = "ema.safetensors"


class MovingAverage:
    """average = decay * average + (1 - decay) * weights, in fp32, from the weights as they are now on.

    Kept on the CPU while the weights are on a GPU, it runs a step behind: the weights are copied while the
    GPU goes on, and added when the next step has been handed to it, so that the host does not wait.

    Args:
        decay: the share of the average that stays in each update.
        update_interval: steps from one update to the next.
        warmup_steps: steps in which the average simply follows the weights.
        device: where the average is kept; the CPU, or the weights' own.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        decay: float,
        update_interval: int = 1,
        warmup_steps: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.parameters, self.decay = parameters, decay
        self.update_interval, self.warmup_steps = update_interval, warmup_steps
        self.weights = [parameter.detach().to(device, torch.float32, copy=True) for parameter in parameters]
        is_elsewhere = self.weights[0].device.type != parameters[0].device.type
        self._copies = [_landing_place(parameter) for parameter in parameters] if is_elsewhere else None
        self._flag = _landing_place(torch.tensor(True, device=parameters[0].device))
        self._pending: tuple[float, torch.cuda.Event] | None = None

    @torch.no_grad()
    def update(self, step: int, is_finite: Tensor) -> None:
        """Take the weights in, if it is the turn of this step.

        Args:
            step: that was just taken, counted from 1.
            is_finite: 0-d bool on the weights' device. Where it is false the step was skipped, and the
                average stays as it is.
        """
        if step % self.update_interval:
            return
        share = 1.0 if step <= self.warmup_steps else 1 - self.decay
        if self._copies is None:
            self._add([parameter.detach() for parameter in self.parameters], share, is_finite)
            return
        self.flush()
        for copy, source in zip([*self._copies, self._flag], [*self.parameters, is_finite], strict=True):
            copy.copy_(source, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        self._pending = share, arrived

    def flush(self) -> None:
        """Add what is still under way; before the average is used."""
        if self._pending is not None:
            share, arrived = self._pending
            self._pending = None
            arrived.synchronize()
            self._add(self._copies, share, self._flag)

    @torch.no_grad()
    def _add(self, weights: list[Tensor], share: float, is_finite: Tensor) -> None:
        weights = [weight.float() for weight in weights]
        if is_finite.device.type == "cpu":
            if is_finite:
                torch._foreach_lerp_(self.weights, weights, share)
            return
        # The flag stays on the device, where only arithmetic can obey it.
        changes = torch._foreach_sub(weights, self.weights)
        torch._foreach_mul_(changes, share * is_finite)
        torch._foreach_add_(self.weights, changes)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average in the place of the weights, and afterwards the weights again, bit-exactly."""
        self.flush()
        trained = [parameter.detach().clone() for parameter in self.parameters]
        put_in_place(self.parameters, self.weights)
        try:
            yield
        finally:
            put_in_place(self.parameters, trained)

    def save(self, folder: Path) -> None:
        """Write the average into a checkpoint."""
        self.flush()
        named = {f"{index:05d}": weight for index, weight in enumerate(self.weights)}
        save_tensors(named, folder / EMA_FILE)

    def load(self, folder: Path) -> None:
        """Restore what `save` wrote, bit-exactly.

        Raises:
            ValueError: if the checkpoint holds no average, or one of other weights.
        """
        path = folder / EMA_FILE
        stored = list(dict(sorted(load_file(path).items())).values()) if path.is_file() else []
        if [weight.shape for weight in stored] != [weight.shape for weight in self.weights]:
            raise ValueError(
                f"{folder.name} holds no moving average of these weights. Set use_ema to false, or start a "
                "new run."
            )
        put_in_place(self.weights, stored)


def _landing_place(source: Tensor) -> Tensor:
    """Memory of the host that a GPU can write while the host goes on."""
    return torch.empty(source.shape, dtype=source.dtype, pin_memory=source.is_cuda)
