"""The parts of mini, each a stock class at a small size."""

from pathlib import Path

from dreamspace.mini.words import MAX_TOKENS, NUM_MERGES

VOCABULARY_SIZE = 512 + NUM_MERGES + 2
EMBED_WIDTH = 128

CLIP_CONFIG = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 128, "patch_size": 16, "layers": 4, "width": 192, "head_width": 48},
    "text_cfg": {
        "context_length": MAX_TOKENS,
        "vocab_size": VOCABULARY_SIZE,
        "width": 128,
        "heads": 4,
        "layers": 2,
        "hf_tokenizer_name": "mini",
    },
}
CLIP_PREPROCESS = {
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "resize_mode": "squash",
}


def new_vae():
    """`AutoencoderKL`, 128 px to 16 x 16 x 4 latents; without attention: its cost grows with the area."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 96, 96),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=128,
        mid_block_add_attention=False,
    )


def new_tiny_vae():
    """`AutoencoderTiny` for previews: decodes the same latents at a fraction of the cost."""
    from diffusers import AutoencoderTiny

    return AutoencoderTiny(
        encoder_block_out_channels=(24, 24, 24, 24),
        decoder_block_out_channels=(24, 24, 24, 24),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(4, 3, 2, 1),
        latent_channels=4,
    )


def new_text_encoder():
    """`CLIPTextModel`, trained along with the denoiser."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=VOCABULARY_SIZE,
            hidden_size=EMBED_WIDTH,
            intermediate_size=4 * EMBED_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=EMBED_WIDTH,
            bos_token_id=VOCABULARY_SIZE - 2,
            eos_token_id=VOCABULARY_SIZE - 1,
            pad_token_id=VOCABULARY_SIZE - 1,
        )
    )


def new_unet():
    """`UNet2DConditionModel` of Stable Diffusion's shape with three levels, for 16 x 16 x 4 latents."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(48, 96, 160),
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        layers_per_block=1,
        # diffusers reads this as the number of heads of each level.
        attention_head_dim=(2, 3, 5),
        cross_attention_dim=EMBED_WIDTH,
        norm_num_groups=16,
    )


def new_clip():
    """A small open_clip `CLIP` with a vision transformer over 8 x 8 patches."""
    from open_clip.model import CLIP

    config = {name: value for name, value in CLIP_CONFIG["text_cfg"].items() if name != "hf_tokenizer_name"}
    return CLIP(CLIP_CONFIG["embed_dim"], CLIP_CONFIG["vision_cfg"], config)


def noise_schedule() -> dict:
    """The noise schedule of Stable Diffusion 1: epsilon, scaled linear betas."""
    return {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "epsilon",
    }


def load_tokenizer(folder: Path):
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder)
