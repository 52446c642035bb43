"""Parts of tiny random models of the real classes, and the whole of the smallest one."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from tiny_runs import RESOLUTION_PX
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def clip_tokenizer() -> CLIPTokenizer:
    """A token for each letter."""
    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=48)


def clip_text_encoder(
    tokenizer: CLIPTokenizer, hidden_size: int = 16, projection_dim: int | None = None
) -> CLIPTextModel | CLIPTextModelWithProjection:
    """Two layers; with a projection where its size is given."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=32,
        projection_dim=projection_dim or 512,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config) if projection_dim is None else CLIPTextModelWithProjection(config)


def autoencoder_kl(**options: Any) -> AutoencoderKL:
    """An 8x VAE of 4 channels."""
    settings: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (8, 8, 16, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "latent_channels": 4,
        "sample_size": RESOLUTION_PX,
        "mid_block_add_attention": False,
    }
    return AutoencoderKL(**settings | options)


def unet(**options: Any) -> UNet2DConditionModel:
    """Two levels, with attention in one of them."""
    settings: dict[str, Any] = {
        "sample_size": RESOLUTION_PX // 8,
        "block_out_channels": (16, 32),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "attention_head_dim": 2,
        "cross_attention_dim": 16,
        "norm_num_groups": 8,
    }
    return UNet2DConditionModel(**settings | options)


def build_stable_diffusion(folder: Path, prediction_type: str = "epsilon", hidden_size: int = 16) -> Path:
    """A random model of 64 px in the layout of Stable Diffusion 1 and 2, with a tiny VAE."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    StableDiffusionPipeline(
        vae=autoencoder_kl(),
        text_encoder=clip_text_encoder(tokenizer, hidden_size),
        tokenizer=tokenizer,
        unet=unet(cross_attention_dim=hidden_size),
        scheduler=DPMSolverMultistepScheduler(
            **NOISE, timestep_spacing="trailing", steps_offset=1, prediction_type=prediction_type
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    tiny_vae = AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1,) * 4,
        num_decoder_blocks=(1,) * 4,
    )
    tiny_vae.save_pretrained(folder / "tiny_vae")
    return folder
