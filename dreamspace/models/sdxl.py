"""Stable Diffusion XL: two text encoders, and a UNet that is told where in the photo its picture lies."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
)
from torch import Tensor, nn

from dreamspace.config.sections import ModelSettings
from dreamspace.data.geometry import PhotoGeometry
from dreamspace.files import read_json
from dreamspace.models.family import (
    CLIP_TOKENS,
    DDPM_NOISE_TIMES,
    UNET_TARGETS,
    Conditioning,
    Family,
    encode_kl,
)
from dreamspace.models.sd1x import unet_multiple_px, unet_resolution_px
from dreamspace.models.source import INDEX_FILE, part_config


def family(settings: ModelSettings, folder: Path) -> Family:
    """The base model or the refiner, whose index says that it is told an aesthetic score."""
    from dreamspace.models.sdxl_refiner import (
        StableDiffusionXLRefiner,  # which takes what both share from here
    )

    index = read_json(folder / INDEX_FILE)
    empty_is_zero = index.get("force_zeros_for_empty_prompt", True)
    if index.get("requires_aesthetics_score", False):
        return StableDiffusionXLRefiner(empty_is_zero, settings.data_aesthetic_score)
    return StableDiffusionXL(empty_is_zero)


class StableDiffusionXL:
    """The base model of arXiv:2307.01952; the pooled embedding and six numbers go in beside the timestep.

    Args:
        empty_is_zero: what the model was trained with for no prompt: zeros, else the embedding of "".
    """

    name = "sdxl"
    pipeline_class = StableDiffusionXLPipeline
    scheduler_class = DDPMScheduler
    denoiser_part = "unet"
    text_parts = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")
    vae_part = "vae"
    lora_targets = UNET_TARGETS
    noise_times = DDPM_NOISE_TIMES

    def __init__(self, empty_is_zero: bool) -> None:
        self.empty_is_zero = empty_is_zero
        self.prompt_variant = empty_prompt_variant(empty_is_zero)

    def multiple_px(self, folder: Path) -> int:
        return unet_multiple_px(folder)

    def native_resolution_px(self, folder: Path) -> int:
        return unet_resolution_px(folder)

    def encode_prompts(self, pipeline: StableDiffusionXLPipeline, prompts: list[str]) -> list[Conditioning]:
        return encode_sdxl_prompts(pipeline, prompts, self.empty_is_zero)

    def blank_prompt(self, folder: Path) -> Conditioning:
        return blank_sdxl_prompt(folder)

    def encode_image(self, vae: AutoencoderKL, pixels: Tensor) -> Tensor:
        return encode_kl(vae, pixels)

    def row_conditioning(self, geometry: PhotoGeometry, latents: Tensor, seed: int) -> Conditioning:
        return {"time_ids": torch.tensor(size_and_crop(geometry), dtype=torch.float32)}

    def predict(
        self, denoiser: nn.Module, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning
    ) -> Tensor:
        return predict_sdxl(denoiser, noisy_latents, timesteps, conditioning)

    def pipeline_inputs(self, conditioning: Conditioning, negative: Conditioning) -> dict[str, Any]:
        return sdxl_prompt_inputs(conditioning, negative)


def encode_sdxl_prompts(
    pipeline: StableDiffusionXLPipeline | StableDiffusionXLImg2ImgPipeline,
    prompts: list[str],
    empty_is_zero: bool,
) -> list[Conditioning]:
    """What each prompt becomes; see `Family.encode_prompts`."""
    embeds, _, pooled, _ = pipeline.encode_prompt(
        prompts, device=pipeline.device, do_classifier_free_guidance=False
    )
    kept = [float(bool(prompt) or not empty_is_zero) for prompt in prompts]
    return [
        {"prompt_embeds": row * share, "pooled_prompt_embeds": pooled_row * share}
        for row, pooled_row, share in zip(embeds, pooled, kept, strict=True)
    ]


def blank_sdxl_prompt(folder: Path) -> Conditioning:
    """See `Family.blank_prompt`."""
    return {
        "prompt_embeds": torch.zeros(CLIP_TOKENS, part_config(folder, "unet")["cross_attention_dim"]),
        "pooled_prompt_embeds": torch.zeros(part_config(folder, "text_encoder_2")["projection_dim"]),
    }


def empty_prompt_variant(empty_is_zero: bool) -> str:
    """Tells models apart that make something else of no prompt with the same text encoders."""
    return "zeros for no prompt" if empty_is_zero else "no prompt encoded"


def predict_sdxl(
    denoiser: nn.Module, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning
) -> Tensor:
    """The UNet's output; see `Family.predict`."""
    added = {"text_embeds": conditioning["pooled_prompt_embeds"], "time_ids": conditioning["time_ids"]}
    return denoiser(
        noisy_latents,
        timesteps,
        conditioning["prompt_embeds"],
        added_cond_kwargs=added,
        return_dict=False,
    )[0]


def sdxl_prompt_inputs(conditioning: Conditioning, negative: Conditioning) -> dict[str, Any]:
    """The prompts under the pipelines' argument names."""
    return {
        "prompt_embeds": conditioning["prompt_embeds"],
        "pooled_prompt_embeds": conditioning["pooled_prompt_embeds"],
        "negative_prompt_embeds": negative["prompt_embeds"],
        "negative_pooled_prompt_embeds": negative["pooled_prompt_embeds"],
    }


def size_and_crop(geometry: PhotoGeometry) -> list[int]:
    """Height and width of the original photo, top and left of the crop, height and width of the picture."""
    original_width, original_height = geometry.original_size
    left, top, _, _ = geometry.crop
    width, height = geometry.size
    return [original_height, original_width, top, left, height, width]
