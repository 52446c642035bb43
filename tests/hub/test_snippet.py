"""The card's usage snippet, executed as it stands against a published repository."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from lycoris import LycorisNetwork, create_lycoris
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image, ImageChops
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from dreamspace.files import read_json, write_json
from dreamspace.run_folder import EMBEDS_NAME, WEIGHTS_NAME
from tests.hub.conftest import PHOTOS, ROOT
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


def save_strong_lycoris(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Save a LyCORIS adapter of plain effect, trained at another multiplier than 1."""
    LycorisNetwork.apply_preset({"target_module": [], "target_name": ["*to_q", "*to_v"], "use_fnmatch": True})
    network = create_lycoris(pipeline.unet, 1.0, linear_dim=4, linear_alpha=8, algo="lokr")
    network.apply_to()
    with torch.no_grad():
        for weight in network.parameters():
            weight.normal_()
    folder.mkdir(exist_ok=True)
    metadata = {"format": "pt", "multiplier": "0.5", "ss_dataset_dirs": PHOTOS}
    network.save_weights(str(folder / WEIGHTS_NAME), None, metadata)


def save_other_unet(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Save a whole denoiser that draws something else, with a path in its configuration."""
    with torch.no_grad():
        for weight in pipeline.unet.parameters():
            weight.mul_(1.5)
    (folder / WEIGHTS_NAME).unlink()
    pipeline.unet.register_to_config(_name_or_path=PHOTOS)
    pipeline.unet.save_pretrained(folder / "unet")


def save_token(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Save a word of two vectors of plain effect beside the run's adapter, which has hardly any."""
    save_strong_adapter(pipeline, folder)
    vectors = 5 * torch.randn(2, 16, generator=torch.Generator().manual_seed(1))
    save_file({"<sks>": vectors}, folder / EMBEDS_NAME, {"format": "pt", "token": "<sks>", "of": PHOTOS})


def save_token_alone(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Save a word that was learned and nothing else."""
    save_token(pipeline, folder)
    (folder / WEIGHTS_NAME).unlink()


TOKEN = {"num_token_vectors": 2, "token": "<sks>"}
LYCORIS = {"lora_type": "lycoris", "lycoris_config": {"algo": "lokr", "multiplier": 0.5}}


@pytest.mark.parametrize(
    ("save", "settings"),
    [
        (save_strong_adapter, {}),
        (save_strong_lycoris, LYCORIS),
        (save_other_unet, {"model_type": "full"}),
        (save_token, TOKEN),
        (save_token_alone, TOKEN | {"model_type": "textual_inversion"}),
    ],
    ids=["lora", "lycoris", "full", "token", "token alone"],
)
def test_the_snippet_draws_with_what_was_published(
    hub: FakeHub,
    run_dir: Path,
    publish_run,
    base: StableDiffusionPipeline,
    tmp_path: Path,
    save: Callable[[StableDiffusionPipeline, Path], None],
    settings: dict[str, Any],
) -> None:
    save(base, run_dir / "adapter")
    config = read_json(run_dir / "config.json")
    model = {"pretrained_model_name_or_path": str(tmp_path / "base")}
    write_json(run_dir / "config.json", {**config, **model, **settings})
    outcome = publish_run(**LFS)
    assert outcome.exit_status == 0, outcome.output

    files = hub.repositories["alice/rex"].files
    for name, file in files.items():
        for path in (PHOTOS, str(tmp_path), hub.token):
            assert path.encode() not in file.content, name
    snippet = re.search(r"```python\n(.*?)```", files["README.md"].content.decode(), re.DOTALL).group(1)
    assert ("BASE" in snippet) == (settings.get("model_type") != "full")
    drawing = 'torch.manual_seed(1)\npipeline("a <sks> dog", num_inference_steps=5).images[0].save'
    code = f"""{snippet.replace("BASE", str(tmp_path / "base"))}
{drawing}("published.png")
pipeline = DiffusionPipeline.from_pretrained({str(tmp_path / "base")!r})
{drawing}("base.png")
# What the run's own loader puts into it of what the run holds, in the same process, which rounds alike.
from pathlib import Path
from dreamspace.models.adapters import load_into_pipeline
from dreamspace.models.sd1x import StableDiffusion
load_into_pipeline(pipeline, StableDiffusion(), Path({str(run_dir / "adapter")!r}))
{drawing}("trained.png")
"""
    # Several threads are slower at this size, and many times slower where other processes want the cores.
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HOME": str(tmp_path / "hf")}
    environment["PYTHONPATH"] = str(ROOT)
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | environment | LFS | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "image.png").is_file()
    assert farthest(tmp_path / "published.png", tmp_path / "trained.png") <= 1
    assert farthest(tmp_path / "published.png", tmp_path / "base.png") > 8


def farthest(first: Path, second: Path) -> int:
    """The largest difference of two images in one channel of one pixel."""
    with Image.open(first) as one, Image.open(second) as other:
        return max(high for _, high in ImageChops.difference(one, other).getextrema())
