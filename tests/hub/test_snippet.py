"""The card's usage snippet, executed as it stands against a published repository."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image, ImageChops
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from dreamspace.files import read_json, write_json
from tests.hub.conftest import PHOTOS
from tests.hub.fake_hub import FakeHub

LFS = {"HF_HUB_DISABLE_XET": "1"}


@pytest.fixture
def base(tmp_path: Path) -> StableDiffusionPipeline:
    """A Stable Diffusion pipeline of real parts at tiny size, saved as `tmp_path / "base"`."""
    torch.manual_seed(0)
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    text = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=len(tokens) - 2,
        eos_token_id=len(tokens) - 1,
    )
    pipeline = StableDiffusionPipeline(
        tokenizer=CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=16),
        text_encoder=CLIPTextModel(text),
        vae=AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4, sample_size=16),
        unet=UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            attention_head_dim=2,
            layers_per_block=1,
            cross_attention_dim=16,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        ),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
    )
    pipeline.save_pretrained(tmp_path / "base")
    return pipeline


def save_strong_adapter(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Save an adapter of plain effect, with an alpha that is not its rank and a path in its metadata."""
    unet = pipeline.unet
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=False)
    unet.add_adapter(config)
    weights = {name: 20 * weight for name, weight in get_peft_model_state_dict(unet).items()}
    metadata = {**unet.peft_config["default"].to_dict(), "base_model_name_or_path": PHOTOS}
    pipeline.save_lora_weights(folder, unet_lora_layers=weights, unet_lora_adapter_metadata=metadata)


def test_the_snippet_draws_with_the_published_adapter(
    hub: FakeHub, run_dir: Path, publish_run, base: StableDiffusionPipeline, tmp_path: Path
) -> None:
    save_strong_adapter(base, run_dir / "adapter")
    assert PHOTOS.encode() in (run_dir / "adapter" / "pytorch_lora_weights.safetensors").read_bytes()
    config = read_json(run_dir / "config.json")
    write_json(run_dir / "config.json", {**config, "pretrained_model_name_or_path": str(tmp_path / "base")})
    assert publish_run(**LFS).exit_status == 0

    card = hub.repositories["alice/rex"].files["README.md"].content.decode()
    snippet = (
        re.search(r"```python\n(.*?)```", card, re.DOTALL).group(1).replace("BASE", str(tmp_path / "base"))
    )
    code = f"""import torch
torch.manual_seed(1)
{snippet}
torch.manual_seed(1)
pipeline.unload_lora_weights()
pipeline("a photo of a sks dog").images[0].save("base.png")
"""
    # Several threads are slower at this size, and many times slower where other processes want the cores.
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HOME": str(tmp_path / "hf")}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | environment | LFS | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    with Image.open(tmp_path / "image.png") as adapted, Image.open(tmp_path / "base.png") as plain:
        assert max(high for _, high in ImageChops.difference(adapted, plain).getextrema()) > 8
