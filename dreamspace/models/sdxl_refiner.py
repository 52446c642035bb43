"""The refiner of Stable Diffusion XL, which takes the last noise off a picture, told how good it looks."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionXLImg2ImgPipeline
from torch import Tensor, nn

from dreamspace.data.geometry import PhotoGeometry
from dreamspace.models.family import DDPM_NOISE_TIMES, UNET_TARGETS, Conditioning, encode_kl
from dreamspace.models.sd1x import unet_multiple_px, unet_resolution_px
from dreamspace.models.sdxl import (
    blank_sdxl_prompt,
    empty_prompt_variant,
    encode_sdxl_prompts,
    predict_sdxl,
    sdxl_prompt_inputs,
    size_and_crop,
)

NEGATIVE_AESTHETIC_SCORE = 2.5
"""What the negative prompt's picture is told to look like, as in the pipeline."""


class StableDiffusionXLRefiner:
    """The second model of arXiv:2307.01952, section 2.5, with the second text encoder alone.

    Args:
        empty_is_zero: what the model was trained with for no prompt: zeros, else the embedding of "".
        aesthetic_score: that training and drawing tell of.
    """

    name = "sdxl"
    pipeline_class = StableDiffusionXLImg2ImgPipeline
    scheduler_class = DDPMScheduler
    denoiser_part = "unet"
    text_parts = ("tokenizer_2", "text_encoder_2")
    vae_part = "vae"
    lora_targets = UNET_TARGETS
    noise_times = DDPM_NOISE_TIMES
    strength = 0.2

    def __init__(self, empty_is_zero: bool, aesthetic_score: float) -> None:
        self.empty_is_zero, self.aesthetic_score = empty_is_zero, aesthetic_score
        self.prompt_variant = empty_prompt_variant(empty_is_zero)

    def multiple_px(self, folder: Path) -> int:
        return unet_multiple_px(folder)

    def native_resolution_px(self, folder: Path) -> int:
        return unet_resolution_px(folder)

    def encode_prompts(
        self, pipeline: StableDiffusionXLImg2ImgPipeline, prompts: list[str]
    ) -> list[Conditioning]:
        return encode_sdxl_prompts(pipeline, prompts, self.empty_is_zero)

    def blank_prompt(self, folder: Path) -> Conditioning:
        return blank_sdxl_prompt(folder)

    def encode_image(self, vae: AutoencoderKL, pixels: Tensor) -> Tensor:
        return encode_kl(vae, pixels)

    def row_conditioning(self, geometry: PhotoGeometry, latents: Tensor, seed: int) -> Conditioning:
        numbers = [*size_and_crop(geometry)[:4], self.aesthetic_score]
        return {"time_ids": torch.tensor(numbers, dtype=torch.float32)}

    def predict(
        self, denoiser: nn.Module, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning
    ) -> Tensor:
        return predict_sdxl(denoiser, noisy_latents, timesteps, conditioning)

    def pipeline_inputs(self, conditioning: Conditioning, negative: Conditioning) -> dict[str, Any]:
        return sdxl_prompt_inputs(conditioning, negative) | {
            # The pipeline takes tensors without a negative value for pixels in [0, 1], whatever they are.
            "image": (conditioning["picture"] + 1) / 2,
            "strength": self.strength,
            "aesthetic_score": self.aesthetic_score,
            "negative_aesthetic_score": NEGATIVE_AESTHETIC_SCORE,
        }
