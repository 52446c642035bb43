"""Sana: a Gemma2 text encoder, an autoencoder that shrinks 32 times, a transformer with linear attention."""

import inspect
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderDC, FlowMatchEulerDiscreteScheduler, SanaPipeline
from torch import Tensor, nn

from dreamspace.config.sections import ModelSettings
from dreamspace.data.geometry import PhotoGeometry
from dreamspace.models.family import Conditioning, blank_masked_prompt
from dreamspace.models.source import part_config

MAX_PROMPT_TOKENS = 300
"""To which the pipeline fills up every prompt."""

INSTRUCTION: list[str] = (
    inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
)
"""What the pipeline tells the text encoder before a prompt (section 3.1 of the paper)."""


def family(settings: ModelSettings, folder: Path) -> "Sana":
    """They differ in size, and in what their transformers call a timestep."""
    return Sana(part_config(folder, "transformer").get("timestep_scale", 1.0))


class Sana:
    """The models of arXiv:2410.10629: flows, although a solver of DDPM's kind draws with them.

    Args:
        timestep_scale: of the transformer, times the timesteps from 0 to 1000.
    """

    name = "sana"
    pipeline_class = SanaPipeline
    scheduler_class = FlowMatchEulerDiscreteScheduler
    denoiser_part = "transformer"
    text_parts = ("tokenizer", "text_encoder")
    vae_part = "vae"
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "conv_inverted", "conv_point")

    def __init__(self, timestep_scale: float) -> None:
        self.timestep_scale = timestep_scale
        self.noise_times = (0.0, 1000 * timestep_scale)

    def multiple_px(self, folder: Path) -> int:
        return _vae_multiple_px(folder) * part_config(folder, "transformer")["patch_size"]

    def native_resolution_px(self, folder: Path) -> int:
        return part_config(folder, "transformer")["sample_size"] * _vae_multiple_px(folder)

    def encode_prompts(self, pipeline: SanaPipeline, prompts: list[str]) -> list[Conditioning]:
        return [_encoded(pipeline, prompt) for prompt in prompts]

    def blank_prompt(self, folder: Path) -> Conditioning:
        return blank_masked_prompt(MAX_PROMPT_TOKENS, part_config(folder, "transformer")["caption_channels"])

    @torch.no_grad()
    def encode_image(self, vae: AutoencoderDC, pixels: Tensor) -> Tensor:
        return vae.encode(pixels).latent * vae.config.scaling_factor

    def row_conditioning(self, geometry: PhotoGeometry, latents: Tensor, seed: int) -> Conditioning:
        return {}

    def predict(
        self, denoiser: nn.Module, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning
    ) -> Tensor:
        output = denoiser(
            noisy_latents,
            encoder_hidden_states=conditioning["prompt_embeds"],
            encoder_attention_mask=conditioning["prompt_mask"],
            timestep=timesteps * 1000 * self.timestep_scale,
            return_dict=False,
        )[0]
        return output[:, : noisy_latents.shape[1]]  # further channels are a variance

    def pipeline_inputs(self, conditioning: Conditioning, negative: Conditioning) -> dict[str, Any]:
        return {
            "prompt_embeds": conditioning["prompt_embeds"],
            "prompt_attention_mask": conditioning["prompt_mask"],
            "negative_prompt": None,
            "negative_prompt_embeds": negative["negative_prompt_embeds"],
            "negative_prompt_attention_mask": negative["negative_prompt_mask"],
            # Else it draws at a size of its own, and shrinks or enlarges the image to what is asked for.
            "use_resolution_binning": False,
        }


def _encoded(pipeline: SanaPipeline, prompt: str) -> Conditioning:
    """A prompt after the instruction, and without it, as the pipeline encodes a negative one.

    No prompt is the negative one in both, because that is what guidance leads away from.
    """
    embeds, mask, negative_embeds, negative_mask = pipeline.encode_prompt(
        prompt, negative_prompt=prompt, complex_human_instruction=INSTRUCTION
    )
    if not prompt:
        embeds, mask = negative_embeds, negative_mask
    return {
        "prompt_embeds": embeds[0],
        "prompt_mask": mask[0],
        "negative_prompt_embeds": negative_embeds[0],
        "negative_prompt_mask": negative_mask[0],
    }


def _vae_multiple_px(folder: Path) -> int:
    return 2 ** (len(part_config(folder, "vae")["encoder_block_out_channels"]) - 1)
