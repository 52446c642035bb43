"""AdamW whose weights and averages are bf16, with stochastic rounding so that small updates are not lost."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_DROPPED_BITS = 16


def round_stochastically(values: Tensor) -> Tensor:
    """fp32 to bf16, up or down at random so that the mean of many roundings is the value itself.

    The 16 bits that bf16 lacks are added to by random ones before they are cut off, so the chance to be
    rounded away from zero is what they stand for. Draws from the global generator of the device.
    """
    bits = values.view(torch.int32)
    noise = torch.randint(0, 1 << _DROPPED_BITS, bits.shape, dtype=torch.int32, device=bits.device)
    return ((bits + noise) >> _DROPPED_BITS << _DROPPED_BITS).view(torch.float32).to(torch.bfloat16)


class StochasticAdamW(torch.optim.Optimizer):
    """AdamW (arXiv:1711.05101) that keeps bf16 and computes in fp32: half the memory of fp32 weights.

    Without stochastic rounding a bf16 weight ignores every update below 1/256 of itself
    (arXiv:2010.06192). Where the 0-d flag `found_inf` is not 0, a step changes nothing. The weights that it
    is given become bf16.
    """

    found_inf: Tensor | None = None

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data = parameter.data.to(torch.bfloat16)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Take one step."""
        assert closure is None
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                self._step_group(group, parameters)

    def _step_group(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        """All weights of the group as one long vector, since an adapter has hundreds of small ones."""
        states = [self._state_of(parameter) for parameter in parameters]
        means, squares = [state["exp_avg"] for state in states], [state["exp_avg_sq"] for state in states]
        counts = [state["step"] for state in states]
        weight, gradient = _joined(parameters), _joined([parameter.grad for parameter in parameters])
        mean, square = _joined(means), _joined(squares)
        keeps = torch.zeros((), device=weight.device) if self.found_inf is None else self.found_inf
        done = 1 - keeps.to(weight.device)
        torch._foreach_add_(counts, done)

        beta1, beta2 = group["betas"]
        gradient = torch.where(done > 0, gradient, 0)
        mean = mean.lerp(gradient, (1 - beta1) * done)
        square = square.lerp(gradient.square(), (1 - beta2) * done)
        count = counts[0].clamp(min=1)
        denominator = (square / (1 - beta2**count)).sqrt() + group["eps"]
        update = mean / (1 - beta1**count) / denominator + group["weight_decay"] * weight
        weight = weight - group["lr"] * done * update
        for tensors, values in ((parameters, weight), (means, mean), (squares, square)):
            parts = round_stochastically(values).split([tensor.numel() for tensor in tensors])
            shaped = [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]
            torch._foreach_copy_([tensor.data for tensor in tensors], shaped)

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] = state["step"].to(parameter.device)  # torch loads it onto the CPU
        return state


def _joined(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors]).float()
