"""A tiny random Stable Diffusion 3."""

from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from tiny_models import autoencoder_kl, clip_text_encoder, clip_tokenizer, t5_encoder, t5_tokenizer
from tiny_runs import RESOLUTION_PX


def build_sd3(folder: Path, has_t5: bool = True) -> Path:
    """CLIP encoders of 8 channels each, a T5 of 32, two layers.

    With a T5 they are those of 3.0; without, the first has the second attention that 3.5 medium has.
    """
    torch.manual_seed(0)
    tokenizers = [clip_tokenizer(), clip_tokenizer()]
    t5 = t5_tokenizer()
    StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=RESOLUTION_PX // 8,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=32,
            caption_projection_dim=32,
            pooled_projection_dim=16,
            pos_embed_max_size=32,
            dual_attention_layers=() if has_t5 else (0,),
            qk_norm=None if has_t5 else "rms_norm",
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder_kl(shift_factor=0.06, scaling_factor=1.5),
        text_encoder=clip_text_encoder(tokenizers[0], 8, 8),
        tokenizer=tokenizers[0],
        text_encoder_2=clip_text_encoder(tokenizers[1], 8, 8),
        tokenizer_2=tokenizers[1],
        text_encoder_3=t5_encoder(t5, 32) if has_t5 else None,
        tokenizer_3=t5 if has_t5 else None,
    ).save_pretrained(folder)
    return folder
