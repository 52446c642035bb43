"""What is trained of a model."""

from dataclasses import dataclass

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


def trained_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that require gradients, made fp32, on the device of the first parameter of all.

    PEFT puts them where the weights of their layer are, which is the CPU where these are offloaded.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    device = next(module.parameters()).device
    for parameter in trained:
        parameter.data = parameter.data.to(device, torch.float32)
    return trained
