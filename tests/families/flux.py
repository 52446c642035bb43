"""A tiny random FLUX.1."""

from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from tiny_models import autoencoder_kl, clip_text_encoder, clip_tokenizer, t5_encoder, t5_tokenizer
from torch import Tensor


def build_flux(folder: Path, has_guidance: bool = True) -> Path:
    """A double and a single layer, with an embedding of the guidance as dev, or without as schnell.

    Both have the same text encoders, as the published models do.
    """
    torch.manual_seed(0)
    tokenizer, t5 = clip_tokenizer(), t5_tokenizer()
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=3.0 if has_guidance else 1.0, use_dynamic_shifting=has_guidance
        ),
        vae=autoencoder_kl(shift_factor=0.1, scaling_factor=0.4),
        text_encoder=clip_text_encoder(tokenizer, 16),
        tokenizer=tokenizer,
        text_encoder_2=t5_encoder(t5, 24),
        tokenizer_2=t5,
        transformer=FluxTransformer2DModel(
            patch_size=1,
            in_channels=4 * 4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=24,
            pooled_projection_dim=16,
            guidance_embeds=has_guidance,
            axes_dims_rope=(4, 6, 6),
        ),
    ).save_pretrained(folder)
    return folder


def schnell_arguments(edge_px: int) -> dict[str, Any]:
    """What schnell's pipeline is told besides the prompt, of which it takes half as much as dev's."""
    return {"width": edge_px, "height": edge_px, "max_sequence_length": 256}


def unpack_flux(latents: Tensor, height_px: int, width_px: int) -> Tensor:
    """(B, tokens, 4 C), as the pipeline holds them, to (B, C, h, w)."""
    return FluxPipeline._unpack_latents(latents, height_px, width_px, vae_scale_factor=8)
