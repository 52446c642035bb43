"""DeepFloyd IF, stages I and II: pixels instead of latents, drawn at 64 px and upscaled to 256."""

from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, IFPipeline, IFSuperResolutionPipeline
from torch import Tensor, nn
from torch.nn import functional

from dreamspace.config.sections import ModelSettings
from dreamspace.data.geometry import PhotoGeometry
from dreamspace.models.family import DDPM_NOISE_TIMES, Conditioning
from dreamspace.models.source import part_config

UPSCALE_FACTOR = 4
"""Of stage II, which makes 256 px out of 64."""

NOISE_LEVEL = 250
"""The timestep whose noise stage II's pipeline puts on the small picture, and tells the UNet of."""

T5_TOKENS = 77
"""That the pipelines take of a prompt."""

_LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj")


def family(settings: ModelSettings, folder: Path) -> "DeepFloyd | DeepFloydUpscaler":
    """The stage that a folder holds: a UNet that sees a small picture besides the noisy one is stage II's."""
    if part_config(folder, "unet")["in_channels"] == 3:
        return DeepFloyd()
    return DeepFloydUpscaler(DDPMScheduler.from_pretrained(folder, subfolder="image_noising_scheduler"))


class DeepFloyd:
    """Stage I: a T5 encoder and a UNet on pixels, which predicts its variance besides the noise."""

    name = "deepfloyd"
    pipeline_class = IFPipeline
    scheduler_class = DDPMScheduler
    denoiser_part = "unet"
    text_parts = ("tokenizer", "text_encoder")
    vae_part = None
    lora_targets = _LORA_TARGETS
    noise_times = DDPM_NOISE_TIMES

    def multiple_px(self, folder: Path) -> int:
        return _multiple_px(folder)

    def native_resolution_px(self, folder: Path) -> int:
        return part_config(folder, "unet")["sample_size"]

    def encode_prompts(self, pipeline: IFPipeline, prompts: list[str]) -> list[Conditioning]:
        return _encode_prompts(pipeline, prompts)

    def blank_prompt(self, folder: Path) -> Conditioning:
        return _blank_prompt(folder)

    def encode_image(self, vae: None, pixels: Tensor) -> Tensor:
        return pixels

    def row_conditioning(self, geometry: PhotoGeometry, latents: Tensor, seed: int) -> Conditioning:
        return {}

    def predict(
        self, denoiser: nn.Module, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning
    ) -> Tensor:
        output = denoiser(noisy_latents, timesteps, conditioning["prompt_embeds"], return_dict=False)[0]
        return output[:, :3]  # the other channels are the variance

    def pipeline_inputs(self, conditioning: Conditioning, negative: Conditioning) -> dict[str, Any]:
        return _prompt_inputs(conditioning, negative)


class DeepFloydUpscaler:
    """Stage II: the same, beside a small picture that was enlarged and made noisy.

    Args:
        noising: the noise schedule of the small picture.
    """

    name = "deepfloyd"
    pipeline_class = IFSuperResolutionPipeline
    scheduler_class = DDPMScheduler
    denoiser_part = "unet"
    text_parts = ("tokenizer", "text_encoder")
    vae_part = None
    lora_targets = _LORA_TARGETS
    noise_times = DDPM_NOISE_TIMES
    strength = 1.0

    def __init__(self, noising: DDPMScheduler) -> None:
        self.noising = noising

    def multiple_px(self, folder: Path) -> int:
        return max(_multiple_px(folder), UPSCALE_FACTOR)

    def native_resolution_px(self, folder: Path) -> int:
        return part_config(folder, "unet")["sample_size"]

    def encode_prompts(self, pipeline: IFSuperResolutionPipeline, prompts: list[str]) -> list[Conditioning]:
        return _encode_prompts(pipeline, prompts)

    def blank_prompt(self, folder: Path) -> Conditioning:
        return _blank_prompt(folder)

    def encode_image(self, vae: None, pixels: Tensor) -> Tensor:
        return pixels

    def row_conditioning(self, geometry: PhotoGeometry, latents: Tensor, seed: int) -> Conditioning:
        # Enlarged as the pipeline does it.
        enlarged = functional.interpolate(
            shrunk(latents[None]), latents.shape[-2:], mode="bilinear", align_corners=True
        )
        noise = torch.randn(enlarged.shape, generator=torch.Generator().manual_seed(seed))
        return {"small_picture": self.noising.add_noise(enlarged, noise, torch.tensor([NOISE_LEVEL]))[0]}

    def predict(
        self, denoiser: nn.Module, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning
    ) -> Tensor:
        output = denoiser(
            torch.cat([noisy_latents, conditioning["small_picture"].to(noisy_latents.dtype)], dim=1),
            timesteps,
            conditioning["prompt_embeds"],
            class_labels=torch.full_like(timesteps, NOISE_LEVEL),
            return_dict=False,
        )[0]
        return output[:, :3]

    def pipeline_inputs(self, conditioning: Conditioning, negative: Conditioning) -> dict[str, Any]:
        return _prompt_inputs(conditioning, negative) | {
            "image": shrunk(conditioning["picture"]),
            "noise_level": NOISE_LEVEL,
        }


def shrunk(pixels: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in [-1, 1] at the size that stage I draws them."""
    height, width = (edge // UPSCALE_FACTOR for edge in pixels.shape[-2:])
    small = functional.interpolate(pixels.float(), (height, width), mode="bicubic", antialias=True)
    return small.clamp(-1, 1)


def _multiple_px(folder: Path) -> int:
    return 2 ** (len(part_config(folder, "unet")["block_out_channels"]) - 1)


def _encode_prompts(
    pipeline: IFPipeline | IFSuperResolutionPipeline, prompts: list[str]
) -> list[Conditioning]:
    # The pipelines clean a prompt where bs4 and ftfy are installed, unless they are told not to.
    embeds, _ = pipeline.encode_prompt(
        prompts, do_classifier_free_guidance=False, device=pipeline.device, clean_caption=True
    )
    return [{"prompt_embeds": row} for row in embeds]


def _blank_prompt(folder: Path) -> Conditioning:
    return {"prompt_embeds": torch.zeros(T5_TOKENS, part_config(folder, "unet")["encoder_hid_dim"])}


def _prompt_inputs(conditioning: Conditioning, negative: Conditioning) -> dict[str, Any]:
    return {
        "prompt_embeds": conditioning["prompt_embeds"],
        "negative_prompt_embeds": negative["prompt_embeds"],
    }
