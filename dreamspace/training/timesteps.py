"""What each row of a step draws: noise, timesteps and single numbers, functions of (seed, step, row) alone.

Neither the number of processes nor a resume changes them. A number that an option draws is of a stream of
its own, so that turning one option on changes nothing that others draw.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dreamspace.data.plan import mix_seed

TimestepSampling = Literal["uniform", "logit_normal", "shifted", "shifted_logit_normal"]

# Streams; a caption is drawn from stream 1, by the plan.
CAPTION_DROPOUT, MASK, OFFSET_NOISE, PERTURBATION = range(2, 6)
TIMESTEP, ROLLOUT, ROLLOUT_LENGTH, CONDITIONING = range(6, 10)
STRATA = 2**40
"""In the place of a row: what a whole step draws."""


def random_rows(
    seed: int, step: int, rows: range, shape: torch.Size | tuple[int, ...], num_timesteps: int
) -> tuple[Tensor, Tensor]:
    """Noise and uniform timesteps of some rows of a global step, each from a CPU generator of its own.

    Returns:
        noise (len(rows), *shape) fp32 and timesteps (len(rows),) int64 in [0, num_timesteps).
    """
    noise, timesteps = [], []
    for row in rows:
        generator = torch.Generator().manual_seed(mix_seed(seed, step, row))
        noise.append(torch.randn(shape, generator=generator))
        timesteps.append(torch.randint(num_timesteps, (), generator=generator))
    return torch.stack(noise), torch.stack(timesteps)


def random_normal(seed: int, step: int, rows: range, stream: int, shape: tuple[int, ...]) -> Tensor:
    """Further normal numbers of some rows, (len(rows), *shape) fp32."""
    seeds = [mix_seed(seed, step, row, stream) for row in rows]
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(own)) for own in seeds])


def uniform(seed: int, step: int, row: int, stream: int) -> float:
    """A number in [0, 1) of one row."""
    return (mix_seed(seed, step, row, stream) >> 10) / 2**53


def stratified(seed: int, step: int, row: int, num_rows: int) -> float:
    """A number in [0, 1) of one row, spread over the step: one lies in each of `num_rows` equal parts.

    The parts are handed out in a random order, and all numbers have the same place in their part, which is
    drawn (the low-discrepancy sampler of arXiv:2107.00630, appendix I.1). Each number alone is uniform.
    """
    order = np.random.default_rng((seed, step, STRATA)).permutation(num_rows)
    return (order[row] + uniform(seed, step, STRATA, TIMESTEP)) / num_rows


def timestep_at(share: Tensor, sampling: TimestepSampling, shift: float, num_timesteps: int) -> Tensor:
    """Timesteps (B,) int64 below which a share of the draws lies: the inverse of their distribution.

    "logit_normal" is the sigmoid of a standard normal number, "shifted" s u / (1 + (s - 1) u) of a uniform
    one, "shifted_logit_normal" the same of the former: arXiv:2403.03206, sections 3.1 and 5.3.2.

    Args:
        share: (B,) fp64 in [0, 1).
        shift: above 1, more of the noisy timesteps are drawn where they are shifted.
    """
    if sampling.endswith("logit_normal"):
        share = torch.special.ndtri(share).sigmoid()
    if sampling.startswith("shifted"):
        share = shift * share / (1 + (shift - 1) * share)
    return (share * num_timesteps).long().clamp(max=num_timesteps - 1)
