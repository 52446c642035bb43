"""The loss, as pure functions of tensors: targets, distances, weights of timesteps, and sums.

Everywhere x_t = alpha x_0 + sigma noise. For epsilon and v_prediction alpha² + sigma² = 1; for flow_matching
alpha = 1 - sigma. SNR is alpha² / sigma².
"""

from typing import Literal

import torch
from torch import Tensor

PredictionType = Literal["epsilon", "v_prediction", "flow_matching"]
LossType = Literal["l2", "huber", "smooth_l1"]
HuberSchedule = Literal["snr", "exponential", "constant"]

DEBIASED_SNR_RANGE = (1e-3, 1e3)
"""Debiased weights are those of an SNR in this range, which bounds them to 1/32 and 32 for epsilon."""

PREDICTION_TYPES = ("epsilon", "v_prediction", "flow_matching")


def signal_to_noise(alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """Signal-to-noise ratio of each sample's timestep, (B,): alpha_bar / (1 - alpha_bar)."""
    alpha_bar = alphas_cumprod[timesteps]
    return alpha_bar / (1 - alpha_bar)


def training_target(
    latents: Tensor, noise: Tensor, alphas: Tensor, sigmas: Tensor, prediction_type: PredictionType
) -> Tensor:
    """What the denoiser should predict: noise, v = alpha noise - sigma latents, or noise - latents.

    v is that of arXiv:2202.00512, appendix D; the velocity of flow_matching that of arXiv:2209.03003.

    Args:
        latents, noise: (B, C, h, w), as is the result.
        alphas, sigmas: (B,), of each sample's timestep.

    Raises:
        ValueError: if `prediction_type` is none of `PREDICTION_TYPES`.
    """
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":
        return per_row(alphas) * noise - per_row(sigmas) * latents
    if prediction_type == "flow_matching":
        return noise - latents
    raise _unknown(prediction_type)


def predicted_latents(
    prediction: Tensor, noisy_latents: Tensor, alphas: Tensor, sigmas: Tensor, prediction_type: PredictionType
) -> Tensor:
    """The clean latents that a prediction stands for; the arguments are as for `training_target`."""
    if prediction_type == "epsilon":
        return (noisy_latents - per_row(sigmas) * prediction) / per_row(alphas)
    if prediction_type == "v_prediction":
        return per_row(alphas) * noisy_latents - per_row(sigmas) * prediction
    if prediction_type == "flow_matching":
        return noisy_latents - per_row(sigmas) * prediction
    raise _unknown(prediction_type)


def min_snr_weights(snr: Tensor, gamma: float, prediction_type: PredictionType) -> Tensor:
    """Per-sample loss weights of Min-SNR (arXiv:2303.09556, section 3.4).

    The paper clamps the weight of the x0 loss to min(SNR, gamma). `from_x0_weights` expresses the same weight
    on the loss we compute: min(SNR, gamma) / SNR for epsilon, / (SNR + 1) for v.

    Args:
        snr: (B,), signal-to-noise ratio of each sample's timestep, > 0.
        gamma: upper bound of the x0 weight; the paper uses 5.

    Raises:
        ValueError: if `prediction_type` is none of `PREDICTION_TYPES`.
    """
    return from_x0_weights(snr.clamp(max=gamma), snr, prediction_type)


def debiased_weights(snr: Tensor, prediction_type: PredictionType) -> Tensor:
    """Per-sample loss weights of debiased estimation: 1 / sqrt(SNR) on the loss of epsilon.

    From arXiv:2310.08442, equation 11. That is a weight of sqrt(SNR) on the x0 loss, which is expressed on
    the loss we compute. The SNR is clamped to `DEBIASED_SNR_RANGE`.

    Raises:
        ValueError: if `prediction_type` is none of `PREDICTION_TYPES`.
    """
    snr = snr.clamp(*DEBIASED_SNR_RANGE)
    return from_x0_weights(snr.sqrt(), snr, prediction_type)


def from_x0_weights(weights: Tensor, snr: Tensor, prediction_type: PredictionType) -> Tensor:
    """Weights of the squared error of x0, as weights of that of the prediction.

    An error of epsilon is one of x0 times alpha / sigma; of v (with alpha² + sigma² = 1) and of the flow's
    velocity it is one of x0 divided by sigma. In terms of the SNR the square of sigma is 1 / (SNR + 1) for v,
    and for the flow 1 / (1 + sqrt(SNR))², because sqrt(SNR) = (1 - sigma) / sigma.

    Args:
        weights, snr: (B,).
    """
    if prediction_type == "epsilon":
        return weights / snr
    if prediction_type == "v_prediction":
        return weights / (snr + 1)
    if prediction_type == "flow_matching":
        return weights / (1 + snr.sqrt()).square()
    raise _unknown(prediction_type)


def huber_bounds(
    schedule: HuberSchedule, huber_c: float, timesteps: Tensor, snr: Tensor, num_train_timesteps: int
) -> Tensor:
    """The c of each sample's huber or smooth_l1 loss, (B,), as in diffusers' and kohya's trainers.

    "exponential" falls from 1 at timestep 0 to `huber_c` at the last; "snr" from 1 where there is no noise to
    `huber_c` where there is no signal: (1 - huber_c) / (1 + sigma / alpha)² + huber_c.

    Args:
        timesteps, snr: (B,).
    """
    if schedule == "constant":
        return torch.full_like(snr, huber_c)
    if schedule == "exponential":
        return huber_c ** (timesteps / num_train_timesteps)
    return (1 - huber_c) / (1 + snr.rsqrt()).square() + huber_c


def elementwise_loss(
    prediction: Tensor, target: Tensor, loss_type: LossType = "l2", bounds: Tensor | None = None
) -> Tensor:
    """Squared error, or a smooth distance that is linear far out, in fp32; (B, C, h, w).

    The pseudo-Huber distances are SimpleTuner's and kohya's: with r = sqrt(error² + c²) - c, huber is 2 c r
    and smooth_l1 is 2 r.

    Args:
        bounds: (B,), c of each sample; only "l2" has none.
    """
    error = prediction.float() - target.float()
    if loss_type == "l2":
        return error.square()
    assert bounds is not None, loss_type
    c = per_row(bounds.float())
    distance = 2 * ((error.square() + c.square()).sqrt() - c)
    return distance * c if loss_type == "huber" else distance


def per_sample_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each sample in fp32; (B, C, h, w) to (B,)."""
    return elementwise_loss(prediction, target).mean(dim=(1, 2, 3))


def step_loss(losses: Tensor, loss_weights: Tensor, divisor: int, world_size: int) -> Tensor:
    """This micro-batch's share of the loss of the whole step, a scalar.

    The shares of all micro-batches and ranks add up to the weighted mean over the rows of the global step,
    however these were split; `world_size` undoes the averaging of gradients over ranks.

    Args:
        losses, loss_weights: (B,).
        divisor: see `class_row_weight`.
    """
    return world_size * (losses * loss_weights).sum() / divisor


def class_row_weight(num_rows: int, num_class_rows: int, prior_loss_weight: float) -> tuple[int, float]:
    """The divisor of a step's loss, and the weight of the class images whose target is the noise.

    The sum of weighted losses over the divisor is the loss of the DreamBooth paper (arXiv:2208.12242,
    section 3.2): the mean over all other rows plus `prior_loss_weight` times the mean over these.

    Args:
        num_rows: rows of the global step, over all ranks and micro-batches.
        num_class_rows: how many of them are such class images.
    """
    divisor = max(1, num_rows - num_class_rows)
    return divisor, prior_loss_weight * divisor / max(1, num_class_rows)


def per_row(values: Tensor) -> Tensor:
    """(B,) as (B, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)


def _unknown(prediction_type: str) -> ValueError:
    return ValueError(
        f"prediction_type must be one of {', '.join(PREDICTION_TYPES)}, got '{prediction_type}'."
    )
