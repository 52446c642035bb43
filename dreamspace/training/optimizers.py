"""The optimizers, what each needs to know of a run, and the learning rate of every step."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.optimization import get_scheduler
from torch import Tensor, nn

from dreamspace.config import RunConfig
from dreamspace.config.run import BITSANDBYTES_OPTIMIZERS
from dreamspace.models.parameters import ParameterGroup
from dreamspace.training.stochastic_adamw import StochasticAdamW

LION_BETAS = (0.9, 0.99)
"""Those of Lion's paper (arXiv:2302.06675): its second one is not the decay of a squared gradient."""


def check_optimizer(config: RunConfig, device: str) -> None:
    """Refuse settings that an optimizer cannot work with, before anything is loaded.

    Args:
        device: "cuda", "cpu" or "mps".

    Raises:
        ValueError: with what to set instead.
    """
    if device == "mps" and config.optimizer in BITSANDBYTES_OPTIMIZERS:
        raise ValueError(
            f"optimizer '{config.optimizer}' is of bitsandbytes, which does not run on Apple's MPS. Set it "
            "to 'adamw', or to 'adafactor' or 'adamw_bf16' to save memory."
        )
    if finds_learning_rate(config) and config.learning_rate < 0.1:
        raise ValueError(
            "Prodigy finds the learning rate itself and multiplies it by learning_rate, which must be about "
            f"1, got {config.learning_rate:g}. Set learning_rate to 1."
        )
    if config.optimizer == "adamw_schedulefree":
        if config.lr_scheduler not in ("constant", "constant_with_warmup"):
            raise ValueError(
                f"adamw_schedulefree needs no schedule, and lr_scheduler is '{config.lr_scheduler}'. "
                "Set it to 'constant' or 'constant_with_warmup'."
            )
        if config.use_ema:
            raise ValueError("adamw_schedulefree averages the weights itself. Set use_ema to false.")


def finds_learning_rate(config: RunConfig) -> bool:
    """Whether the optimizer finds the learning rate itself, so that learning_rate is not to be turned."""
    return config.optimizer == "prodigy"


def new_optimizer(config: RunConfig, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
    """The optimizer of a run; each of its groups has a `learning_rate_factor`.

    Raises:
        ValueError: if it is of a package that is not installed, or the groups need learning rates of their
            own and it has only one.
    """
    given: list[dict[str, Any]] = [
        {"params": group.parameters, "learning_rate_factor": group.learning_rate_factor} for group in groups
    ]
    rate, decay = config.learning_rate, config.adam_weight_decay
    adam = {
        "lr": rate,
        "betas": (config.adam_beta1, config.adam_beta2),
        "eps": config.adam_epsilon,
        "weight_decay": decay,
    }
    if config.optimizer == "adamw":
        # Not on MPS, whose fused step does not know the flag that skips it.
        return torch.optim.AdamW(given, **adam, fused=is_fused(groups[0].parameters[0].device.type))
    if config.optimizer == "adamw_bf16":
        return StochasticAdamW(given, **adam)
    if config.optimizer == "adafactor":
        from transformers.optimization import Adafactor

        return Adafactor(given, lr=rate, weight_decay=decay, scale_parameter=False, relative_step=False)
    if config.optimizer in BITSANDBYTES_OPTIMIZERS:
        try:
            from bitsandbytes.optim import AdamW8bit, Lion
        except ImportError:
            raise _missing(config.optimizer, "bitsandbytes") from None
        if config.optimizer == "lion":
            return Lion(given, lr=rate, betas=LION_BETAS, weight_decay=decay)
        return AdamW8bit(given, **adam)
    if config.optimizer == "prodigy":
        if len({group.learning_rate_factor for group in groups}) > 1:
            raise ValueError("Prodigy knows one learning rate for all that is trained. Use adamw.")
        try:
            from prodigyopt import Prodigy
        except ImportError:
            raise _missing(config.optimizer, "prodigyopt") from None
        # Against divergence of diffusion models, by its authors' advice.
        return Prodigy(given, **adam, use_bias_correction=True, safeguard_warmup=True)
    try:
        from schedulefree import AdamWScheduleFree
    except ImportError:
        raise _missing(config.optimizer, "schedulefree") from None
    optimizer = AdamWScheduleFree(given, **adam)
    optimizer.train()
    return optimizer


def is_fused(device: str) -> bool:
    """Whether AdamW takes its step in one kernel on a device."""
    return device != "mps"


def _missing(name: str, package: str) -> ValueError:
    return ValueError(f"optimizer '{name}' needs the package {package}. Install it: pip install {package}.")


def skip_if_not_finite(optimizer: torch.optim.Optimizer, is_finite: Tensor) -> None:
    """Arrange for the next step to be left out where the gradients are not finite; the host does not wait.

    Fused AdamW and our own read a flag on the device and skip the whole update. Libraries' optimizers know no
    such flag: they get gradients of zero instead, so that what their averages hold, and weight decay, still
    move weights, and their count of steps goes on. To leave the step out exactly would take a snapshot of
    weights and state before each one, which is too dear for what happens rarely.

    Args:
        is_finite: 0-d bool, whether the norm of all gradients is. If it is not, clipping has left zeros and
            NaN in them.
    """
    is_fused_adamw = isinstance(optimizer, torch.optim.AdamW) and optimizer.defaults["fused"]
    if is_fused_adamw or isinstance(optimizer, StochasticAdamW):
        optimizer.found_inf = (~is_finite).float()
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad.nan_to_num_(nan=0.0)


def averages_weights(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the weights to be used are others than those that are trained, as in schedule-free learning."""
    return "train_mode" in optimizer.param_groups[0]


@contextmanager
def usable_weights(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> Iterator[None]:
    """Put the weights in place that are to be used, and afterwards those that are trained, bit-exactly."""
    if not averages_weights(optimizer):
        yield
        return
    # Not by `train()`, which moves some of them by a last bit.
    trained = [parameter.detach().clone() for parameter in parameters]
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()
        put_in_place(parameters, trained)


@torch.no_grad()
def put_in_place(parameters: list[nn.Parameter], weights: list[Tensor]) -> None:
    """Overwrite parameters; weights may be of another type or device."""
    torch._foreach_copy_([parameter.data for parameter in parameters], weights)


def learning_rate_schedule(config: RunConfig) -> list[float]:
    """The learning rate of every step, by diffusers' schedule of that name: a function of the step alone.

    The schedule is that of the steps from `lr_restart_step` on; those before it have been taken.
    """
    num_steps = config.max_train_steps - config.lr_restart_step
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.learning_rate)
    scheduler = get_scheduler(
        config.lr_scheduler,
        optimizer,
        step_rules=config.lr_step_rules,
        num_warmup_steps=config.lr_warmup_steps,
        num_training_steps=num_steps,
        num_cycles=config.lr_num_cycles,
        power=config.lr_power,
    )
    rates = []
    for _ in range(num_steps):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return [0.0] * config.lr_restart_step + rates
