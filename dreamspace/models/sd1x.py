"""Stable Diffusion 1.x, and every model of its layout, mini among them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_diffusers
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from dreamspace.models.family import Conditioning
from dreamspace.models.source import part_config


@dataclass
class TextEncoders:
    tokenizer: CLIPTokenizer
    encoder: CLIPTextModel


class StableDiffusion1:
    """One CLIP text encoder, an 8x VAE with 4 channels, a UNet with cross-attention (arXiv:2112.10752)."""

    name = "sd1x"
    parts = ("tokenizer", "text_encoder", "unet", "vae", "scheduler", "tiny_vae")
    denoiser_part = "unet"
    text_parts = ("tokenizer", "text_encoder")
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")

    def multiple_px(self, folder: Path) -> int:
        halvings = len(part_config(folder, "unet")["block_out_channels"]) - 1
        return self._vae_factor(folder) * 2**halvings

    def native_resolution_px(self, folder: Path) -> int:
        return part_config(folder, "unet")["sample_size"] * self._vae_factor(folder)

    def _vae_factor(self, folder: Path) -> int:
        return 2 ** (len(part_config(folder, "vae")["block_out_channels"]) - 1)

    def load_text_encoders(self, folder: Path, device: torch.device) -> TextEncoders:
        encoder = CLIPTextModel.from_pretrained(
            folder, subfolder="text_encoder", use_safetensors=True, dtype=torch.float32
        )
        tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
        return TextEncoders(tokenizer, encoder.requires_grad_(False).eval().to(device))

    @torch.no_grad()
    def encode_prompts(self, text_encoders: TextEncoders, prompts: list[str]) -> list[Conditioning]:
        tokenizer = text_encoders.tokenizer
        tokens = tokenizer(
            prompts,
            padding="max_length",
            truncation=True,
            max_length=tokenizer.model_max_length,
            return_tensors="pt",
        )
        hidden = text_encoders.encoder(tokens.input_ids.to(text_encoders.encoder.device)).last_hidden_state
        return [{"prompt_embeds": row.clone()} for row in hidden.cpu()]

    def load_vae(self, folder: Path, device: torch.device) -> AutoencoderKL:
        vae = AutoencoderKL.from_pretrained(
            folder, subfolder="vae", use_safetensors=True, dtype=torch.float32
        )
        return vae.requires_grad_(False).eval().to(device)

    @torch.no_grad()
    def encode_image(self, vae: AutoencoderKL, pixels: Tensor) -> Tensor:
        return vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor

    def load_denoiser(self, folder: Path, device: torch.device) -> UNet2DConditionModel:
        unet = UNet2DConditionModel.from_pretrained(
            folder, subfolder="unet", use_safetensors=True, dtype=torch.float32
        )
        return unet.requires_grad_(False).to(device)

    def noise_scheduler(self, folder: Path) -> DDPMScheduler:
        return DDPMScheduler.from_pretrained(folder, subfolder="scheduler")

    def predict(
        self, denoiser: nn.Module, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning
    ) -> Tensor:
        return denoiser(noisy_latents, timesteps, conditioning["prompt_embeds"], return_dict=False)[0]

    def pipeline(self, folder: Path, denoiser: nn.Module, vae: nn.Module) -> StableDiffusionPipeline:
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder,
            unet=denoiser,
            vae=vae,
            text_encoder=None,
            tokenizer=None,
            safety_checker=None,
            feature_extractor=None,
            image_encoder=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def pipeline_inputs(self, conditioning: Conditioning, negative: Conditioning) -> dict[str, Tensor]:
        return {
            "prompt_embeds": conditioning["prompt_embeds"],
            "negative_prompt_embeds": negative["prompt_embeds"],
        }

    def save_adapter(self, denoiser: nn.Module, folder: Path) -> None:
        # Without the metadata, alpha is lost and the adapter loads with alpha = rank. Its dropout would stay
        # active in stock pipelines: diffusers leaves the layers that it loads in training mode.
        metadata: dict[str, Any] = denoiser.peft_config["default"].to_dict() | {"lora_dropout": 0.0}
        StableDiffusionPipeline.save_lora_weights(
            folder,
            unet_lora_layers=convert_state_dict_to_diffusers(get_peft_model_state_dict(denoiser)),
            unet_lora_adapter_metadata=metadata,
        )
