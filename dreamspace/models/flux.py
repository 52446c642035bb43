"""FLUX.1 dev and schnell: a pooled CLIP embedding and a T5, and a transformer on packed latents."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline
from torch import Tensor, nn

from dreamspace.config.sections import ModelSettings
from dreamspace.data.geometry import PhotoGeometry
from dreamspace.models.device import sent
from dreamspace.models.family import FLOW_NOISE_TIMES, JOINT_TARGETS, Conditioning, encode_kl, vae_multiple_px
from dreamspace.models.source import part_config

PATCH_SIZE = 2
"""Edge of the squares of latents that become one token."""

SAMPLE_SIZE = 128
"""The edge in latents of what the pipeline draws unless it is told otherwise."""


def family(settings: ModelSettings, folder: Path) -> "Flux":
    """dev has an embedding of the guidance; schnell, which was distilled from it to four steps, has none."""
    return Flux(part_config(folder, "transformer").get("guidance_embeds", False))


class Flux:
    """FLUX.1 (https://github.com/black-forest-labs/flux).

    dev was distilled from guidance, so that images have no negative prompt: `validation_guidance` is what the
    model is told. Its training tells it 1, as one does for a model without guidance.

    Args:
        has_guidance: whether the model is told how strictly to follow the prompt.
    """

    name = "flux"
    pipeline_class = FluxPipeline
    scheduler_class = FlowMatchEulerDiscreteScheduler
    denoiser_part = "transformer"
    text_parts = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")
    vae_part = "vae"
    lora_targets = JOINT_TARGETS
    noise_times = FLOW_NOISE_TIMES

    def __init__(self, has_guidance: bool) -> None:
        self.has_guidance = has_guidance
        self.is_distilled = not has_guidance
        # What each was trained with. The two have their text encoders in common, but not what these make.
        self.max_prompt_tokens = 512 if has_guidance else 256
        self.prompt_variant = f"{self.max_prompt_tokens} tokens"

    def multiple_px(self, folder: Path) -> int:
        return vae_multiple_px(folder) * PATCH_SIZE

    def native_resolution_px(self, folder: Path) -> int:
        return vae_multiple_px(folder) * SAMPLE_SIZE

    def encode_prompts(self, pipeline: FluxPipeline, prompts: list[str]) -> list[Conditioning]:
        # One after the other: T5's attention alone takes 64 MiB for each.
        encoded = (
            pipeline.encode_prompt(prompt, device=pipeline.device, max_sequence_length=self.max_prompt_tokens)
            for prompt in prompts
        )
        return [
            {"prompt_embeds": embeds[0], "pooled_prompt_embeds": pooled[0]} for embeds, pooled, _ in encoded
        ]

    def blank_prompt(self, folder: Path) -> Conditioning:
        config = part_config(folder, "transformer")
        return {
            "prompt_embeds": torch.zeros(self.max_prompt_tokens, config["joint_attention_dim"]),
            "pooled_prompt_embeds": torch.zeros(config["pooled_projection_dim"]),
        }

    def encode_image(self, vae: AutoencoderKL, pixels: Tensor) -> Tensor:
        return encode_kl(vae, pixels)

    def row_conditioning(self, geometry: PhotoGeometry, latents: Tensor, seed: int) -> Conditioning:
        return {}

    def predict(
        self, denoiser: nn.Module, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning
    ) -> Tensor:
        embeds, device, dtype = conditioning["prompt_embeds"], noisy_latents.device, noisy_latents.dtype
        batch_size, channels, height, width = noisy_latents.shape
        packed = FluxPipeline._pack_latents(noisy_latents, batch_size, channels, height, width)
        positions = FluxPipeline._prepare_latent_image_ids(
            batch_size, height // PATCH_SIZE, width // PATCH_SIZE, torch.device("cpu"), dtype
        )
        output = denoiser(
            hidden_states=packed,
            timestep=timesteps,
            guidance=torch.ones(batch_size, device=device) if self.has_guidance else None,
            pooled_projections=conditioning["pooled_prompt_embeds"],
            encoder_hidden_states=embeds,
            txt_ids=torch.zeros(embeds.shape[1], 3, device=device, dtype=dtype),
            img_ids=sent(positions, device),
            return_dict=False,
        )[0]
        return self.unpacked(output, height // PATCH_SIZE, width // PATCH_SIZE)

    def unpacked(self, latents: Tensor, num_rows: int, num_columns: int) -> Tensor:
        # Told the size in latents, where the pipeline's function takes pixels and their factor.
        height, width = num_rows * PATCH_SIZE, num_columns * PATCH_SIZE
        return FluxPipeline._unpack_latents(latents, height, width, vae_scale_factor=1)

    def pipeline_inputs(self, conditioning: Conditioning, negative: Conditioning) -> dict[str, Any]:
        return {
            "prompt_embeds": conditioning["prompt_embeds"],
            "pooled_prompt_embeds": conditioning["pooled_prompt_embeds"],
        }
