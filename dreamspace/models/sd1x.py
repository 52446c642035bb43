"""Stable Diffusion 1.x and 2.x, and every model of their layout, mini among them."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline
from torch import Tensor, nn

from dreamspace.config.sections import ModelSettings
from dreamspace.data.geometry import PhotoGeometry
from dreamspace.models.family import (
    CLIP_TOKENS,
    DDPM_NOISE_TIMES,
    UNET_TARGETS,
    Conditioning,
    encode_kl,
    vae_multiple_px,
)
from dreamspace.models.source import part_config


def family(settings: ModelSettings, folder: Path) -> "StableDiffusion":
    """2.x differs in its weights, and in the prediction type that its scheduler's file names."""
    return StableDiffusion(settings.model_family)


class StableDiffusion:
    """One CLIP text encoder, an 8x VAE with 4 channels, a UNet with cross-attention (arXiv:2112.10752)."""

    pipeline_class = StableDiffusionPipeline
    scheduler_class = DDPMScheduler
    denoiser_part = "unet"
    text_parts = ("tokenizer", "text_encoder")
    vae_part = "vae"
    lora_targets = UNET_TARGETS
    noise_times = DDPM_NOISE_TIMES

    def __init__(self, name: str = "sd1x") -> None:
        self.name = name

    def multiple_px(self, folder: Path) -> int:
        return unet_multiple_px(folder)

    def native_resolution_px(self, folder: Path) -> int:
        return unet_resolution_px(folder)

    def encode_prompts(self, pipeline: StableDiffusionPipeline, prompts: list[str]) -> list[Conditioning]:
        embeds, _ = pipeline.encode_prompt(prompts, pipeline.device, 1, do_classifier_free_guidance=False)
        return [{"prompt_embeds": row} for row in embeds]

    def blank_prompt(self, folder: Path) -> Conditioning:
        return {"prompt_embeds": torch.zeros(CLIP_TOKENS, part_config(folder, "unet")["cross_attention_dim"])}

    def encode_image(self, vae: AutoencoderKL, pixels: Tensor) -> Tensor:
        return encode_kl(vae, pixels)

    def row_conditioning(self, geometry: PhotoGeometry, latents: Tensor, seed: int) -> Conditioning:
        return {}

    def predict(
        self, denoiser: nn.Module, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning
    ) -> Tensor:
        return denoiser(noisy_latents, timesteps, conditioning["prompt_embeds"], return_dict=False)[0]

    def pipeline_inputs(self, conditioning: Conditioning, negative: Conditioning) -> dict[str, Tensor]:
        return {
            "prompt_embeds": conditioning["prompt_embeds"],
            "negative_prompt_embeds": negative["prompt_embeds"],
        }


def unet_multiple_px(folder: Path) -> int:
    """The edges of a UNet's latents are halved at each level but the last."""
    halvings = len(part_config(folder, "unet")["block_out_channels"]) - 1
    return vae_multiple_px(folder) * 2**halvings


def unet_resolution_px(folder: Path) -> int:
    """The edge of the pictures that a UNet was made for."""
    return part_config(folder, "unet")["sample_size"] * vae_multiple_px(folder)
