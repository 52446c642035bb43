"""How much of the picture and how much noise each training timestep holds."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_ddpm import rescale_zero_terminal_snr
from torch import Tensor

from dreamspace.training.objective import PredictionType, per_row, signal_to_noise

LOWEST_NOISE_SHARE = 0.25
"""Of the picture, which is an SNR of 16: above it a rollout's drift no longer counts as noise in full."""


@dataclass(frozen=True)
class NoiseSchedule:
    """x_t = alpha_t x_0 + sigma_t noise, for the timesteps 0 (nearly clean) to T - 1 (nearly or all noise).

    Attributes:
        alphas, sigmas: (T,), the shares of picture and noise.
        snr: (T,), alpha² / sigma²; 0 at the last timestep where that is pure noise.
    """

    prediction_type: PredictionType
    alphas: Tensor
    sigmas: Tensor
    snr: Tensor

    @property
    def num_timesteps(self) -> int:
        return len(self.sigmas)

    @property
    def is_flow(self) -> bool:
        return self.prediction_type == "flow_matching"

    def to(self, device: torch.device) -> "NoiseSchedule":
        """The same schedule on a device."""
        tables = (table.to(device) for table in (self.alphas, self.sigmas, self.snr))
        return NoiseSchedule(self.prediction_type, *tables)

    def model_timesteps(self, timesteps: Tensor) -> Tensor:
        """(B,) timesteps as a denoiser takes them: whole numbers, or a flow's times, which are its sigmas."""
        return self.sigmas[timesteps] if self.is_flow else timesteps

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy latents (B, C, h, w) at (B,) timesteps."""
        return per_row(self.alphas[timesteps]) * latents + per_row(self.sigmas[timesteps]) * noise

    def noise_after(self, drifted: Tensor, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The noise that leads from latents to where a rollout has drifted from their noisy ones.

        That is (drifted - alpha latents) / sigma, or the drawn noise and the drift divided by sigma. Where
        there is hardly any noise that division would make a target far beyond all that a model predicts, so
        sigma counts at least `LOWEST_NOISE_SHARE` of alpha.

        Args:
            noise: that was drawn, (B, C, h, w).
            timesteps: (B,), where the rollouts end.
        """
        drift = drifted - self.add_noise(latents, noise, timesteps)
        divisors = torch.maximum(self.sigmas[timesteps], LOWEST_NOISE_SHARE * self.alphas[timesteps])
        return noise + drift / per_row(divisors)


def noise_schedule(scheduler: Any, rescale_zero_snr: bool = False) -> NoiseSchedule:
    """The noise schedule of a base model.

    A flow's timestep t has sigma (t + 1) / T, without the shift that its sampler may apply.

    Args:
        scheduler: diffusers' training scheduler of the family.
        rescale_zero_snr: train the last timestep on pure noise (arXiv:2305.08891, algorithm 1); a flow's
            always is.

    Raises:
        ValueError: if the model predicts something else, or epsilon, which says nothing about pure noise.
    """
    num_timesteps = scheduler.config.num_train_timesteps
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        sigmas = torch.arange(1, num_timesteps + 1, dtype=torch.float32) / num_timesteps
        return NoiseSchedule("flow_matching", 1 - sigmas, sigmas, ((1 - sigmas) / sigmas).square())
    prediction_type = scheduler.config.prediction_type
    if prediction_type not in ("epsilon", "v_prediction"):
        raise ValueError(
            f"This base model predicts '{prediction_type}'; epsilon, v_prediction and flow_matching can be "
            "trained. Choose another base model."
        )
    if rescale_zero_snr and prediction_type == "epsilon":
        raise ValueError(
            "rescale_betas_zero_snr needs a model of v-prediction, and this one predicts epsilon, which "
            "cannot be learned from pure noise. Set it to false."
        )
    alphas_cumprod = scheduler.alphas_cumprod
    if rescale_zero_snr:
        alphas_cumprod = (1 - rescale_zero_terminal_snr(scheduler.betas)).cumprod(0)
    # Not sqrt, which may differ in the last bit from what diffusers' schedulers compute.
    return NoiseSchedule(
        prediction_type,
        alphas_cumprod**0.5,
        (1 - alphas_cumprod) ** 0.5,
        signal_to_noise(alphas_cumprod, torch.arange(num_timesteps)),
    )
