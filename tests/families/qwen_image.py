"""A tiny random Qwen-Image."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from tiny_models import qwen_tokenizer
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer


def qwen_vl_encoder(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLForConditionalGeneration:
    """Two layers for text, with large weights, so that its embeddings tell prompts apart."""
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "initializer_range": 0.3,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]},
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 16,
            "fullatt_block_indexes": [0],
        },
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def build_qwen_image(folder: Path) -> Path:
    """Four channels of latents, each with a mean and a deviation of its own; two layers."""
    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
    vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[-0.7, 0.1, 0.9, 1.5],
        latents_std=[2.8, 1.4, 2.0, 0.7],
    )
    vae.decoder.conv_out.weight.data *= 20  # colours that tell images apart
    QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02),
        vae=vae,
        text_encoder=qwen_vl_encoder(tokenizer),
        tokenizer=tokenizer,
        transformer=QwenImageTransformer2DModel(
            in_channels=4 * 4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(4, 6, 6),
        ),
    ).save_pretrained(folder)
    return folder


def unpack_qwen_image(latents: Tensor, height_px: int, width_px: int) -> Tensor:
    """(B, h w / 4, 4 C), as the pipeline holds them, to (B, C, h, w)."""
    rows, columns = height_px // 16, width_px // 16
    patches = latents.view(-1, rows, columns, latents.shape[-1] // 4, 2, 2)
    return patches.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def true_guidance(guidance: float) -> dict[str, Any]:
    """What its pipeline is told of guidance; without a negative prompt it would draw without."""
    return {"true_cfg_scale": guidance, "negative_prompt": ""}
