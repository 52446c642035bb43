"""What is trained of a model."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are trained alike, such as those of one model among several.

    Attributes:
        learning_rate_factor: their learning rate as a multiple of the run's.
    """

    name: str
    parameters: list[nn.Parameter]
    learning_rate_factor: float = 1.0


class Adapter(Protocol):
    """What is trained of a denoiser, and possibly of what it is told.

    Attributes:
        denoiser: the module with the adapter in it.
        parameter_groups: what the optimizer trains, fp32; only those of group "denoiser" are the denoiser's.
        parameters: all of them.
        is_saved_exactly: whether `load` restores what `save` wrote to the last bit.
    """

    is_saved_exactly: bool
    denoiser: nn.Module
    parameter_groups: list[ParameterGroup]
    parameters: list[nn.Parameter]

    def off(self) -> AbstractContextManager[nn.Module]:
        """The base model's denoiser, for its own predictions; exactly what it was before the training."""
        ...

    def at_strength(self, strength: float) -> AbstractContextManager[None]:
        """The adapter's effect times `strength`."""
        ...

    def save(self, folder: Path) -> None:
        """Write what is trained into a folder."""
        ...

    def load(self, file: Path) -> None:
        """Restore the file that `save` wrote.

        Raises:
            ValueError: if it does not fit.
        """
        ...


def trained_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that require gradients, made fp32, on the device of the first parameter of all.

    PEFT puts them where the weights of their layer are, which is the CPU where these are offloaded.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    device = next(module.parameters()).device
    for parameter in trained:
        parameter.data = parameter.data.to(device, torch.float32)
    return trained
