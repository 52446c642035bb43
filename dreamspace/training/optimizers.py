"""The optimizer, and the learning rate of every step."""

import torch
from diffusers.optimization import get_scheduler
from torch import nn

from dreamspace.config import RunConfig


def adamw(config: RunConfig, parameters: list[nn.Parameter]) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101), fused, so that it can skip an update on the device without a host wait."""
    return torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        weight_decay=config.adam_weight_decay,
        fused=True,
    )


def learning_rate_schedule(config: RunConfig) -> list[float]:
    """The learning rate of every step, by diffusers' schedule of that name: a function of the step alone."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.learning_rate)
    scheduler = get_scheduler(
        config.lr_scheduler,
        optimizer,
        num_warmup_steps=config.lr_warmup_steps,
        num_training_steps=config.max_train_steps,
    )
    rates = []
    for _ in range(config.max_train_steps):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates
