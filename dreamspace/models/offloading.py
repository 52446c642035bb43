"""Group offloading: the blocks of a denoiser lie on the CPU and visit the device one after the other.

diffusers' own is made for drawing: it takes what is trained away along with the rest, and a block's weights
before the backward pass has used them, and copies them back to the CPU each time, where they are already.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from dreamspace.models.device import sent


def offload_blocks(denoiser: nn.Module, device: torch.device) -> None:
    """Let the frozen weights of a denoiser's blocks rest on the CPU, and put all its others on the device.

    A block's weights are on the device while it runs, and then for as long as its backward pass needs them:
    with gradient checkpointing, which computes the block again, no longer. Weights that are trained are
    added afterwards, and stay on the device.
    """
    inside: set[nn.Module] = set()
    for block in blocks(denoiser):
        inside.update(block.modules())
        visit = _Visit(block, device)
        block.register_forward_pre_hook(visit.begin)
        # Also where a block is left early: checkpointing computes only as much again as it needs.
        block.register_forward_hook(visit.end, always_call=True)
    for module in denoiser.modules():
        for weights in (module._parameters, module._buffers):
            for name, weight in weights.items():
                if weight is not None:
                    weights[name] = _resting(weight, device) if module in inside else _on(weight, device)


def blocks(denoiser: nn.Module) -> list[nn.Module]:
    """The parts that run one after the other and hold nearly all weights, as diffusers names them.

    They are the innermost such parts: gradient checkpointing computes nothing within them apart.
    """
    found = [
        module
        for parent in denoiser.modules()
        if isinstance(parent, nn.ModuleList)
        for module in parent
        if type(module).__name__ in denoiser._no_split_modules
    ]
    return [module for module in found if not set(found) & set(module.modules()) - {module}]


@dataclass
class _Visit:
    """A block's weights on the device, from the beginning to the end of its run.

    Attributes:
        resting: what was taken out of its place meanwhile: where, under which name, and the weight.
    """

    block: nn.Module
    device: torch.device
    resting: list[tuple[dict[str, Any], str, Tensor]] = field(default_factory=list)

    def begin(self, block: nn.Module, arguments: Any) -> None:
        """Put copies on the device in the places of the weights."""
        assert not self.resting, "the block runs already"
        for module in self.block.modules():
            for weights in (module._parameters, module._buffers):
                for name, weight in weights.items():
                    if weight is not None and not self._stays(weight):
                        self.resting.append((weights, name, weight))
                        weights[name] = _on(weight, self.device)

    def _stays(self, weight: Tensor) -> bool:
        """Whether a weight is one that is trained; stock loaders put theirs where their layer's are."""
        return weight.requires_grad and weight.device.type == self.device.type

    def end(self, block: nn.Module, arguments: Any, output: Any) -> None:
        """Put the weights back; a copy lives on where the backward pass needs it."""
        for weights, name, weight in self.resting:
            weights[name] = weight
        self.resting.clear()


def _on(weight: Tensor, device: torch.device) -> Tensor:
    """A frozen copy of a weight on the device."""
    return _changed(weight, lambda part: sent(part, device, copy=True))


def _resting(weight: Tensor, device: torch.device) -> Tensor:
    """The weight on the CPU, in memory that a GPU can read by itself."""
    if _is_nf4(weight):
        weight.quant_state.to(device)  # Scales, a thirtieth of it, which all copies share.
    return _changed(weight, lambda part: part.cpu().pin_memory() if device.type == "cuda" else part.cpu())


def _changed(weight: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """A frozen weight made of the changed parts of another, which is quantised or not."""
    if _is_nf4(weight):
        found = copy.copy(weight)
        found.data = change(weight.data)
        return found
    if isinstance(weight, nn.Parameter):
        return nn.Parameter(_changed(weight.detach(), change), requires_grad=False)
    if not is_traceable_wrapper_subclass(weight):
        return change(weight)
    names, description = weight.__tensor_flatten__()
    parts = {name: _changed(getattr(weight, name), change) for name in names}
    return type(weight).__tensor_unflatten__(parts, description, weight.shape, weight.stride())


def _is_nf4(weight: Tensor) -> bool:
    """Whether bitsandbytes keeps what belongs to a weight beside its numbers."""
    return "quant_state" in vars(weight)
