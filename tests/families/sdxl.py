"""A tiny random SDXL, and its refiner."""

from pathlib import Path

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from tiny_models import NOISE, autoencoder_kl, clip_text_encoder, clip_tokenizer, unet

PROJECTION_DIM = 24


def build_sdxl(folder: Path) -> Path:
    """Two text encoders of 16 and 24 channels."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    StableDiffusionXLPipeline(
        vae=autoencoder_kl(),
        text_encoder=clip_text_encoder(tokenizer, 16),
        text_encoder_2=clip_text_encoder(tokenizer, 24, PROJECTION_DIM),
        tokenizer=tokenizer,
        tokenizer_2=clip_tokenizer(),
        unet=unet(
            cross_attention_dim=16 + 24,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=PROJECTION_DIM + 6 * 8,
        ),
        scheduler=EulerDiscreteScheduler(**NOISE, steps_offset=1),
    ).save_pretrained(folder)
    return folder


def build_sdxl_refiner(folder: Path) -> Path:
    """The second text encoder alone, and five numbers: the last is the aesthetic score."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    StableDiffusionXLImg2ImgPipeline(
        vae=autoencoder_kl(),
        text_encoder=None,
        text_encoder_2=clip_text_encoder(tokenizer, 24, PROJECTION_DIM),
        tokenizer=None,
        tokenizer_2=tokenizer,
        unet=unet(
            cross_attention_dim=24,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=PROJECTION_DIM + 5 * 8,
        ),
        scheduler=EulerDiscreteScheduler(**NOISE, steps_offset=1),
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
    ).save_pretrained(folder)
    return folder
