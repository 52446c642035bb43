"""Stable Diffusion 3 and 3.5: two CLIP encoders and a T5, and a transformer of image and text together."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
from torch import Tensor, nn

from dreamspace.config.sections import ModelSettings
from dreamspace.data.geometry import PhotoGeometry
from dreamspace.models.family import (
    CLIP_TOKENS,
    DDPM_NOISE_TIMES,
    JOINT_TARGETS,
    Conditioning,
    encode_kl,
    vae_multiple_px,
)
from dreamspace.models.source import part_config

T5_TOKENS = 256
"""That the pipeline takes of a prompt besides CLIP's; zeros, where the model has no T5."""


def family(settings: ModelSettings, folder: Path) -> "StableDiffusion3":
    """All sizes alike."""
    return StableDiffusion3(part_config(folder, "transformer")["joint_attention_dim"])


class StableDiffusion3:
    """The models of arXiv:2403.03206, which may lack their T5: zeros stand in its place then.

    Args:
        width: channels of the text that the transformer reads.
    """

    name = "sd3"
    pipeline_class = StableDiffusion3Pipeline
    scheduler_class = FlowMatchEulerDiscreteScheduler
    denoiser_part = "transformer"
    text_parts = tuple(
        f"{kind}{number}" for number in ("", "_2", "_3") for kind in ("tokenizer", "text_encoder")
    )
    vae_part = "vae"
    lora_targets = JOINT_TARGETS
    noise_times = DDPM_NOISE_TIMES

    def __init__(self, width: int) -> None:
        self.width = width

    def multiple_px(self, folder: Path) -> int:
        return vae_multiple_px(folder) * part_config(folder, "transformer")["patch_size"]

    def native_resolution_px(self, folder: Path) -> int:
        return part_config(folder, "transformer")["sample_size"] * vae_multiple_px(folder)

    def encode_prompts(self, pipeline: StableDiffusion3Pipeline, prompts: list[str]) -> list[Conditioning]:
        if pipeline.text_encoder_3 is None and pipeline.transformer is None:
            # The pipeline asks its transformer how wide the zeros are, and here it is not loaded.
            pipeline.transformer = SimpleNamespace(config=SimpleNamespace(joint_attention_dim=self.width))
        # One after the other: T5's attention alone takes 16 MiB for each.
        encoded = (
            pipeline.encode_prompt(
                prompt, None, None, device=pipeline.device, do_classifier_free_guidance=False
            )
            for prompt in prompts
        )
        return [
            {"prompt_embeds": embeds[0], "pooled_prompt_embeds": pooled[0]}
            for embeds, _, pooled, _ in encoded
        ]

    def blank_prompt(self, folder: Path) -> Conditioning:
        pooled_width = part_config(folder, "transformer")["pooled_projection_dim"]
        return {
            "prompt_embeds": torch.zeros(CLIP_TOKENS + T5_TOKENS, self.width),
            "pooled_prompt_embeds": torch.zeros(pooled_width),
        }

    def encode_image(self, vae: AutoencoderKL, pixels: Tensor) -> Tensor:
        return encode_kl(vae, pixels)

    def row_conditioning(self, geometry: PhotoGeometry, latents: Tensor, seed: int) -> Conditioning:
        return {}

    def predict(
        self, denoiser: nn.Module, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning
    ) -> Tensor:
        return denoiser(
            noisy_latents,
            conditioning["prompt_embeds"],
            conditioning["pooled_prompt_embeds"],
            timesteps * 1000,
            return_dict=False,
        )[0]

    def pipeline_inputs(self, conditioning: Conditioning, negative: Conditioning) -> dict[str, Any]:
        return {
            "prompt_embeds": conditioning["prompt_embeds"],
            "pooled_prompt_embeds": conditioning["pooled_prompt_embeds"],
            "negative_prompt_embeds": negative["prompt_embeds"],
            "negative_pooled_prompt_embeds": negative["pooled_prompt_embeds"],
        }
