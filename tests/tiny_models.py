"""Parts of tiny random models of the real classes, and the whole of the smallest one."""

import string
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
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from dreamspace.models.base import BaseModel

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


def t5_tokenizer() -> T5Tokenizer:
    """A token for each letter and sign, and one for what stands before a word."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *sorted(string.ascii_letters + string.digits + ".,-'")]
    return T5Tokenizer(vocab=[(piece, -1.0) for piece in pieces], extra_ids=0, model_max_length=48)


def t5_encoder(tokenizer: T5Tokenizer, hidden_size: int = 16) -> T5EncoderModel:
    """Two layers."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=hidden_size,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config)


CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"""Qwen3's, for messages without tools."""


def qwen_tokenizer() -> Qwen2Tokenizer:
    """A token for each letter, and those of a conversation."""
    end, signs = "<|endoftext|>", ["<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    vocabulary = {piece: index for index, piece in enumerate([*sorted(ByteLevel.alphabet()), end])}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], chat_template=CHAT_TEMPLATE)
    tokenizer.add_tokens(signs, special_tokens=True)
    return tokenizer


def qwen3_encoder(
    tokenizer: Qwen2Tokenizer, hidden_size: int = 16, num_layers: int = 2, with_head: bool = True
) -> Qwen3ForCausalLM | Qwen3Model:
    """With large weights, so that its embeddings tell prompts apart."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=32,
        num_hidden_layers=num_layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        initializer_range=0.3,
    )
    return (Qwen3ForCausalLM if with_head else Qwen3Model)(config)


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


@torch.no_grad()
def predict(model: BaseModel, module: torch.nn.Module) -> Tensor:
    """What a denoiser of the smallest model says of fixed latents and conditioning."""
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    conditioning = {"prompt_embeds": torch.randn(2, 48, 16, generator=generator)}
    return model.family.predict(module, latents, torch.tensor([10, 700]), conditioning)
