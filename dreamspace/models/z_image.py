"""Z-Image: a Qwen3 text encoder, and one transformer for the tokens of prompt and picture alike."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImagePipeline
from torch import Tensor, nn

from dreamspace.config.sections import ModelSettings
from dreamspace.data.geometry import PhotoGeometry
from dreamspace.files import read_json
from dreamspace.models.family import (
    USUAL_PROMPT_TOKENS,
    Conditioning,
    blank_masked_prompt,
    encode_kl,
    vae_multiple_px,
)
from dreamspace.models.source import part_config

PATCH_SIZE = 2
"""Edge in latents of the transformer's patches."""

TURBO_SHIFT = 3.0
"""Of the scheduler of Z-Image-Turbo; that of Z-Image shifts by 6."""


def family(settings: ModelSettings, folder: Path) -> "ZImage":
    """The base model, or the turbo that was distilled from it, by its scheduler."""
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    return ZImage(is_distilled=scheduler["shift"] == TURBO_SHIFT)


class ZImage:
    """The model of arXiv:2511.22699.

    Its time runs from 0 (noise) to 1, and it predicts the way from noise to picture: both are the other way
    round in training, as in its pipeline. A prompt's tokens are those that it has, without padding.

    Args:
        is_distilled: to draw in eight steps without guidance, which is 0 for its pipeline.
    """

    name = "z_image"
    pipeline_class = ZImagePipeline
    scheduler_class = FlowMatchEulerDiscreteScheduler
    denoiser_part = "transformer"
    text_parts = ("tokenizer", "text_encoder")
    vae_part = "vae"
    lora_targets = (
        *("to_q", "to_k", "to_v", "to_out.0"),
        *("feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),
    )
    noise_times = (1.0, 0.0)

    def __init__(self, is_distilled: bool) -> None:
        self.is_distilled = is_distilled

    def multiple_px(self, folder: Path) -> int:
        return vae_multiple_px(folder) * PATCH_SIZE

    def native_resolution_px(self, folder: Path) -> int:
        return 1024

    def encode_prompts(self, pipeline: ZImagePipeline, prompts: list[str]) -> list[Conditioning]:
        # One after the other: together they take gigabytes, and the pipeline writes into a list of prompts.
        encoded = (pipeline.encode_prompt(prompt, do_classifier_free_guidance=False) for prompt in prompts)
        return [
            {"prompt_embeds": embeds, "prompt_mask": torch.ones(len(embeds), dtype=torch.bool)}
            for (embeds,), _ in encoded
        ]

    def blank_prompt(self, folder: Path) -> Conditioning:
        width = part_config(folder, "transformer")["cap_feat_dim"]
        return blank_masked_prompt(USUAL_PROMPT_TOKENS, width)

    def encode_image(self, vae: AutoencoderKL, pixels: Tensor) -> Tensor:
        return encode_kl(vae, pixels)

    def row_conditioning(self, geometry: PhotoGeometry, latents: Tensor, seed: int) -> Conditioning:
        return {}

    def predict(
        self, denoiser: nn.Module, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning
    ) -> Tensor:
        pictures = list(noisy_latents.unsqueeze(2).unbind())
        output = denoiser(pictures, 1 - timesteps, _unpadded(conditioning), return_dict=False)[0]
        return -torch.stack(output).squeeze(2)

    def pipeline_inputs(self, conditioning: Conditioning, negative: Conditioning) -> dict[str, Any]:
        return {
            "prompt_embeds": _unpadded(conditioning),
            "negative_prompt_embeds": _unpadded(negative),
        }


def _unpadded(conditioning: Conditioning) -> list[Tensor]:
    """The embeddings of each prompt, (L, D), in its own length."""
    # The one wait for the device in a step: the transformer fills up to multiples of 32 with a learned token,
    # which depends on the lengths.
    lengths = conditioning["prompt_mask"].sum(dim=1).tolist()
    return [row[:length] for row, length in zip(conditioning["prompt_embeds"], lengths, strict=True)]
