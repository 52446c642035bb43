"""The shipped weights: stock parts in a stock layout, small enough for git."""

import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, DiffusionPipeline, StableDiffusionPipeline
from PIL import Image

from dreamspace.evaluation.clip import Clip
from dreamspace.mini import MODEL_FOLDER
from dreamspace.mini.attributes import accuracy
from dreamspace.mini.renders import HELD_OUT_SEED, draw, held_out_sceneries
from dreamspace.mini.report import TARGETS, is_met
from dreamspace.mini.words import RARE_TOKENS, caption_words


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    pipeline = DiffusionPipeline.from_pretrained(MODEL_FOLDER, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip()


def test_stock_loader_gives_stock_classes(pipeline):
    assert type(pipeline) is StableDiffusionPipeline
    names = {name: type(part).__name__ for name, part in pipeline.components.items() if part is not None}
    assert names == {
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "tokenizer": "CLIPTokenizer",
        "unet": "UNet2DConditionModel",
        "scheduler": "DPMSolverMultistepScheduler",
    }
    assert pipeline.scheduler.config.prediction_type == "epsilon"


def test_files_are_small_safetensors():
    files = [path for path in MODEL_FOLDER.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt", ".png"}
    assert max(path.stat().st_size for path in files) < 15e6
    assert sum(path.stat().st_size for path in files) < 40e6


def test_tokenizer_reads_anything_and_has_rare_tokens(pipeline):
    tokenizer = pipeline.tokenizer
    for prompt in ("Grüße aus Zürich, 東京 🎉!", "an extraordinarily photogenic capybara", ""):
        ids = tokenizer(prompt).input_ids
        assert ids[0] == tokenizer.bos_token_id
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.unk_token_id not in ids[1:-1]
    known = {
        index for word in caption_words() for index in tokenizer(word, add_special_tokens=False).input_ids
    }
    whole_words = {
        index for piece, index in tokenizer.get_vocab().items() if piece.endswith("</w>") and len(piece) > 6
    }
    assert len(whole_words - known) >= 200
    for word in RARE_TOKENS:
        assert len(tokenizer(word, add_special_tokens=False).input_ids) == 1
        assert not set(tokenizer(word, add_special_tokens=False).input_ids) & known


def test_shipped_report_meets_its_targets():
    report = json.loads((MODEL_FOLDER / "report.json").read_text())
    assert set(report) == set(TARGETS)
    assert [name for name, value in report.items() if not is_met(name, value)] == []


def test_shipped_report_matches_what_is_measured_again(clip):
    """The CLIP's figures on a small sample agree with the report that is kept beside the weights."""
    report = json.loads((MODEL_FOLDER / "report.json").read_text())
    sceneries = held_out_sceneries(100)
    embedded = clip.embed_pictures([Image.fromarray(picture) for picture in draw(sceneries, HELD_OUT_SEED)])
    for attribute, share in accuracy(clip, embedded, sceneries).items():
        assert share == pytest.approx(report[f"CLIP on renders: {attribute}"], abs=0.05)


def test_image_follows_its_caption(pipeline, clip):
    sceneries = held_out_sceneries(6)
    images = pipeline(
        [scenery.caption() for scenery in sceneries],
        num_inference_steps=20,
        guidance_scale=5.0,
        width=128,
        height=128,
        generator=[torch.Generator().manual_seed(seed) for seed in range(6)],
    ).images
    shares = accuracy(clip, clip.embed_pictures(images), sceneries)
    assert shares["scene"] >= 5 / 6
    assert np.mean(list(shares.values())) >= 0.8


def test_tiny_vae_decodes_the_same_latents(pipeline):
    tiny = AutoencoderTiny.from_pretrained(MODEL_FOLDER, subfolder="tiny_vae", dtype=torch.float32)
    pixels = (
        torch.from_numpy(draw(held_out_sceneries(4), HELD_OUT_SEED)).permute(0, 3, 1, 2).float() / 127.5 - 1
    )
    with torch.no_grad():
        latents = pipeline.vae.encode(pixels).latent_dist.mode()
        exact = pipeline.vae.decode(latents).sample
        quick = tiny.decode(latents * pipeline.vae.config.scaling_factor).sample
    assert (exact - quick).square().mean() < 0.005
