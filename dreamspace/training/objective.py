"""The loss, as pure functions of tensors."""

from typing import Literal

import torch
from torch import Tensor

from dreamspace.data.plan import mix_seed

PredictionType = Literal["epsilon", "v_prediction"]


def signal_to_noise(alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """Signal-to-noise ratio of each sample's timestep, (B,): alpha_bar / (1 - alpha_bar)."""
    alpha_bar = alphas_cumprod[timesteps]
    return alpha_bar / (1 - alpha_bar)


def training_target(
    latents: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor, prediction_type: PredictionType
) -> Tensor:
    """What the denoiser should predict: noise, or v = sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) latents.

    v is that of arXiv:2202.00512, appendix D.

    Args:
        latents, noise: (B, C, h, w), as is the result.
        timesteps: (B,) int64.
        alphas_cumprod: alpha_bar of every training timestep.

    Raises:
        ValueError: if `prediction_type` is neither epsilon nor v_prediction.
    """
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":
        alpha_bar = alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * latents
    raise ValueError(f"prediction_type must be epsilon or v_prediction, got '{prediction_type}'.")


def min_snr_weights(snr: Tensor, gamma: float, prediction_type: PredictionType) -> Tensor:
    """Per-sample loss weights of Min-SNR (arXiv:2303.09556, section 3.4).

    The paper clamps the weight of the x0 loss to min(SNR, gamma). Dividing by SNR (epsilon) or SNR + 1 (v)
    expresses the same weight on the loss we compute.

    Args:
        snr: (B,), signal-to-noise ratio of each sample's timestep, > 0.
        gamma: upper bound of the x0 weight; the paper uses 5.

    Raises:
        ValueError: if `prediction_type` is neither epsilon nor v_prediction.
    """
    if prediction_type == "epsilon":
        return snr.clamp(max=gamma) / snr
    if prediction_type == "v_prediction":
        return snr.clamp(max=gamma) / (snr + 1)
    raise ValueError(f"Min-SNR needs epsilon or v_prediction, got '{prediction_type}'.")


def per_sample_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each sample in fp32; (B, C, h, w) to (B,)."""
    return (prediction.float() - target.float()).square().mean(dim=(1, 2, 3))


def step_loss(losses: Tensor, loss_weights: Tensor, num_step_rows: int, world_size: int) -> Tensor:
    """This micro-batch's share of the loss of the whole step, a scalar.

    The shares of all micro-batches and ranks add up to the weighted mean over the rows of the global step,
    however these were split; `world_size` undoes the averaging of gradients over ranks.

    Args:
        losses, loss_weights: (B,).
        num_step_rows: rows of the global step, over all ranks and micro-batches.
    """
    return world_size * (losses * loss_weights).sum() / num_step_rows


def random_rows(
    seed: int,
    step: int,
    first_row: int,
    num_rows: int,
    shape: torch.Size | tuple[int, ...],
    num_train_timesteps: int,
) -> tuple[Tensor, Tensor]:
    """Noise and timesteps of some rows of a global step, each from a CPU generator of its own.

    What a row draws depends on (seed, step, row) alone, so that neither the number of processes nor a
    resume changes it.

    Returns:
        noise (num_rows, *shape) fp32 and timesteps (num_rows,) int64 in [0, num_train_timesteps).
    """
    noise, timesteps = [], []
    for row in range(first_row, first_row + num_rows):
        generator = torch.Generator().manual_seed(mix_seed(seed, step, row))
        noise.append(torch.randn(shape, generator=generator))
        timesteps.append(torch.randint(num_train_timesteps, (), generator=generator))
    return torch.stack(noise), torch.stack(timesteps)
