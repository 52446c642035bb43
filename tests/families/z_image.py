"""A tiny random Z-Image."""

from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from tiny_models import autoencoder_kl, qwen3_encoder, qwen_tokenizer

BASE_SHIFT, TURBO_SHIFT = 6.0, 3.0
"""Of the schedulers of the two published models."""


def build_z_image(folder: Path, shift: float = BASE_SHIFT) -> Path:
    """A layer of each kind, and a VAE whose latents are moved and scaled."""
    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[4, 6, 6],
        axes_lens=[640, 16, 16],
    )
    torch.nn.init.normal_(transformer.x_pad_token)
    torch.nn.init.normal_(transformer.cap_pad_token)
    ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
        vae=autoencoder_kl(scaling_factor=0.4, shift_factor=0.1),
        text_encoder=qwen3_encoder(tokenizer, with_head=False),
        tokenizer=tokenizer,
        transformer=transformer,
    ).save_pretrained(folder)
    return folder
