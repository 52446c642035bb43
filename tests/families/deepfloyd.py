"""Tiny random models of DeepFloyd's first two stages."""

from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, IFPipeline, IFSuperResolutionPipeline, UNet2DConditionModel
from tiny_models import t5_encoder, t5_tokenizer

NOISE = {"beta_schedule": "squaredcos_cap_v2", "beta_start": 0.0001, "beta_end": 0.02}
NO_CHECKER = {
    "safety_checker": None,
    "feature_extractor": None,
    "watermarker": None,
    "requires_safety_checker": False,
}


def pixel_unet(**options: Any) -> UNet2DConditionModel:
    """Two levels of DeepFloyd's own blocks, with attention in one of them; half of the output is variance."""
    settings: dict[str, Any] = {
        "sample_size": 32,
        "block_out_channels": (16, 32),
        "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "layers_per_block": 1,
        "in_channels": 3,
        "out_channels": 6,
        "cross_attention_dim": 32,
        "encoder_hid_dim": 16,
        "attention_head_dim": 8,
        "addition_embed_type": "text",
        "addition_embed_type_num_heads": 2,
        "cross_attention_norm": "group_norm",
        "resnet_time_scale_shift": "scale_shift",
        "act_fn": "gelu",
        "norm_num_groups": 8,
    }
    return UNet2DConditionModel(**settings | options)


def sampler() -> DDPMScheduler:
    """As both stages have it."""
    return DDPMScheduler(
        **NOISE,
        thresholding=True,
        dynamic_thresholding_ratio=0.95,
        sample_max_value=1.5,
        variance_type="learned_range",
    )


def build_stage_one(folder: Path) -> Path:
    """A model of 32 px."""
    torch.manual_seed(0)
    tokenizer = t5_tokenizer()
    IFPipeline(
        tokenizer=tokenizer,
        text_encoder=t5_encoder(tokenizer),
        unet=pixel_unet(),
        scheduler=sampler(),
        **NO_CHECKER,
    ).save_pretrained(folder)
    return folder


def build_stage_two(folder: Path) -> Path:
    """A model that makes 32 px out of 8."""
    torch.manual_seed(1)  # with another text encoder, since stages that share one share its embeddings
    tokenizer = t5_tokenizer()
    IFSuperResolutionPipeline(
        tokenizer=tokenizer,
        text_encoder=t5_encoder(tokenizer),
        unet=pixel_unet(in_channels=6, class_embed_type="timestep", mid_block_scale_factor=1.414),
        scheduler=sampler(),
        image_noising_scheduler=DDPMScheduler(**NOISE),
        **NO_CHECKER,
    ).save_pretrained(folder)
    return folder
