"""Qwen-Image: a Qwen2.5-VL text encoder, an autoencoder for video, a transformer on patches of latents."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImagePipeline
from torch import Tensor, nn

from dreamspace.config.sections import ModelSettings
from dreamspace.data.geometry import PhotoGeometry
from dreamspace.models.family import FLOW_NOISE_TIMES, USUAL_PROMPT_TOKENS, Conditioning, blank_masked_prompt
from dreamspace.models.source import part_config

PATCH_SIZE = 2
"""Edge in latents of the transformer's patches."""

SAMPLE_SIZE = 128
"""The edge in latents of what the pipeline draws unless it is told otherwise."""

MAX_PROMPT_TOKENS = 512
"""As many as the pipeline takes of a prompt that it encodes itself."""


def family(settings: ModelSettings, folder: Path) -> "QwenImage":
    """There is one kind."""
    return QwenImage()


class QwenImage:
    """The model of arXiv:2508.02324. A picture is a video of one frame."""

    name = "qwen_image"
    pipeline_class = QwenImagePipeline
    scheduler_class = FlowMatchEulerDiscreteScheduler
    denoiser_part = "transformer"
    text_parts = ("tokenizer", "text_encoder")
    vae_part = "vae"
    # Not what the prompt's tokens go through after attention: nothing comes of it in the last layer, and
    # processes that train together wait for gradients of all that they train.
    lora_targets = (
        *("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj"),
        *("img_mlp.net.0.proj", "img_mlp.net.2"),
    )
    noise_times = FLOW_NOISE_TIMES
    guidance_argument = "true_cfg_scale"

    def multiple_px(self, folder: Path) -> int:
        return _vae_multiple_px(folder) * PATCH_SIZE

    def native_resolution_px(self, folder: Path) -> int:
        return _vae_multiple_px(folder) * SAMPLE_SIZE

    def encode_prompts(self, pipeline: QwenImagePipeline, prompts: list[str]) -> list[Conditioning]:
        # One after the other, which leaves no padding, and does not take gigabytes.
        encoded = (
            pipeline.encode_prompt(prompt, max_sequence_length=MAX_PROMPT_TOKENS) for prompt in prompts
        )
        return [
            {"prompt_embeds": embeds, "prompt_mask": torch.ones(len(embeds), dtype=torch.bool)}
            for (embeds,), _ in encoded
        ]

    def blank_prompt(self, folder: Path) -> Conditioning:
        return blank_masked_prompt(
            USUAL_PROMPT_TOKENS, part_config(folder, "transformer")["joint_attention_dim"]
        )

    @torch.no_grad()
    def encode_image(self, vae: AutoencoderKLQwenImage, pixels: Tensor) -> Tensor:
        latents = vae.encode(pixels.unsqueeze(2)).latent_dist.mode().squeeze(2)
        mean, std = (
            torch.tensor(values, device=latents.device, dtype=latents.dtype).view(1, -1, 1, 1)
            for values in (vae.config.latents_mean, vae.config.latents_std)
        )
        return (latents - mean) / std

    def row_conditioning(self, geometry: PhotoGeometry, latents: Tensor, seed: int) -> Conditioning:
        return {}

    def predict(
        self, denoiser: nn.Module, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning
    ) -> Tensor:
        batch_size, _, height, width = noisy_latents.shape
        output = denoiser(
            hidden_states=QwenImagePipeline._pack_latents(noisy_latents, *noisy_latents.shape),
            encoder_hidden_states=conditioning["prompt_embeds"],
            encoder_hidden_states_mask=conditioning["prompt_mask"],
            timestep=timesteps,
            img_shapes=[[(1, height // PATCH_SIZE, width // PATCH_SIZE)]] * batch_size,
            return_dict=False,
        )[0]
        return self.unpacked(output, height // PATCH_SIZE, width // PATCH_SIZE)

    def unpacked(self, latents: Tensor, num_rows: int, num_columns: int) -> Tensor:
        height, width = num_rows * PATCH_SIZE, num_columns * PATCH_SIZE
        return QwenImagePipeline._unpack_latents(latents, height, width, vae_scale_factor=1).squeeze(2)

    def pipeline_inputs(self, conditioning: Conditioning, negative: Conditioning) -> dict[str, Any]:
        return {
            "prompt_embeds": conditioning["prompt_embeds"],
            "prompt_embeds_mask": conditioning["prompt_mask"],
            "negative_prompt_embeds": negative["prompt_embeds"],
            "negative_prompt_embeds_mask": negative["prompt_mask"],
        }


def _vae_multiple_px(folder: Path) -> int:
    return 2 ** len(part_config(folder, "vae")["temperal_downsample"])
