"""A tiny random FLUX.2 klein."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)
from tiny_models import qwen3_encoder, qwen_tokenizer
from tiny_runs import RESOLUTION_PX
from torch import Tensor

HIDDEN_SIZE = 16
NUM_STACKED = 3
"""Layers of the text encoder whose outputs make the embedding: the 9th, 18th and 27th."""


def build_flux2(folder: Path, is_distilled: bool = False) -> Path:
    """Four channels of latents, in patches of two by two; a double and a single layer."""
    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=RESOLUTION_PX,
        mid_block_add_attention=False,
    )
    vae.decoder.conv_out.weight.data *= 5  # colours that tell images apart
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2.0)
    Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae,
        text_encoder=qwen3_encoder(tokenizer, HIDDEN_SIZE, num_layers=28),
        tokenizer=tokenizer,
        transformer=Flux2Transformer2DModel(
            in_channels=4 * 4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=NUM_STACKED * HIDDEN_SIZE,
            timestep_guidance_channels=32,
            guidance_embeds=False,
            axes_dims_rope=(4, 4, 4, 4),
        ),
        is_distilled=is_distilled,
    ).save_pretrained(folder)
    return folder


def unpack_flux2(latents: Tensor, height_px: int, width_px: int) -> Tensor:
    """(B, h w, C), as the pipeline holds them, to (B, C, h, w)."""
    return latents.transpose(1, 2).unflatten(2, (height_px // 16, width_px // 16))
