"""A moving average of the trained weights, which changes more smoothly than they do."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dreamspace.training.optimizers import put_in_place


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
        # Other devices than NVIDIA's are waited for.
        is_elsewhere = parameters[0].is_cuda and not self.weights[0].is_cuda
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
            there = self.weights[0].device
            weights = [parameter.detach().to(there) for parameter in self.parameters]
            self._add(weights, share, is_finite.to(there))
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
        """Put the average, in fp32, in the place of the weights, and afterwards the weights again."""
        self.flush()
        trained = [parameter.data for parameter in self.parameters]
        for parameter, weight in zip(self.parameters, self.weights, strict=True):
            parameter.data = weight.to(parameter.device, copy=True)
        try:
            yield
        finally:
            for parameter, weight in zip(self.parameters, trained, strict=True):
                parameter.data = weight

    def take_over(self) -> None:
        """Make the weights that are in place the average; to restore it."""
        put_in_place(self.weights, [parameter.detach() for parameter in self.parameters])


def _landing_place(source: Tensor) -> Tensor:
    """Memory of the host that a GPU can write while the host goes on."""
    return torch.empty(source.shape, dtype=source.dtype, pin_memory=source.is_cuda)
