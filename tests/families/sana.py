"""A tiny random Sana."""

import string
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel
from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer


def gemma_tokenizer() -> GemmaTokenizer:
    """A token for each letter and sign."""
    signs = sorted(string.ascii_letters + string.digits + string.punctuation)
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *signs, "\n", "▁"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    return GemmaTokenizer(vocab=vocabulary, merges=[], add_bos_token=True)


def gemma_encoder(tokenizer: GemmaTokenizer) -> Gemma2Model:
    """Two layers, with large weights, so that its embeddings tell prompts apart."""
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        query_pre_attn_scalar=8,
        initializer_range=0.3,
    )
    return Gemma2Model(config)


def autoencoder_dc() -> AutoencoderDC:
    """A 32x autoencoder of 4 channels, with linear attention in its innermost level."""
    levels: dict[str, Any] = {}
    for part in ("encoder", "decoder"):
        levels |= {
            f"{part}_block_types": (*("ResBlock",) * 5, "EfficientViTBlock"),
            f"{part}_block_out_channels": (8,) * 6,
            f"{part}_layers_per_block": (1,) * 6,
            f"{part}_qkv_multiscales": (*((),) * 5, (5,)),
        }
    return AutoencoderDC(latent_channels=4, attention_head_dim=4, scaling_factor=0.4, **levels)


def build_sana(folder: Path) -> Path:
    """A model of 64 px, that is of two by two latents."""
    torch.manual_seed(0)
    tokenizer = gemma_tokenizer()
    SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=gemma_encoder(tokenizer),
        vae=autoencoder_dc(),
        transformer=SanaTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            num_cross_attention_heads=2,
            cross_attention_head_dim=8,
            cross_attention_dim=16,
            caption_channels=16,
            sample_size=2,
        ),
        scheduler=DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    ).save_pretrained(folder)
    return folder


def unbinned(edge_px: int) -> dict[str, Any]:
    """What its pipeline is told to draw at the size that is asked for."""
    return {"width": edge_px, "height": edge_px, "use_resolution_binning": False}
