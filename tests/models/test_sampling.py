"""The family against the stock pipeline: the same conditioning, the same calls, the same images."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageChops
from torch import Tensor

from dreamspace.jobs.events import EventWriter
from dreamspace.models.base import BaseModel
from dreamspace.models.preview_choice import new_previewer
from dreamspace.models.sampling import SamplingSettings, sample_images

PROMPTS = ["a photo of a sks dog", "a cat"]
SETTINGS = SamplingSettings(64, 64, num_inference_steps=3, guidance_scale=4.0, preview_every=2)


@pytest.fixture
def stock(model: BaseModel) -> StableDiffusionPipeline:
    """The stock pipeline with its own text encoder."""
    pipeline = StableDiffusionPipeline.from_pretrained(model.folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def ours(model: BaseModel) -> StableDiffusionPipeline:
    return model.pipeline(model.load_denoiser(), model.load_vae())


def sample(
    model: BaseModel, pipeline: Any, prompts: list[str], seeds: list[int], **options
) -> list[Image.Image]:
    conditioning = model.encode_prompts([*prompts, ""])
    rows = [conditioning[prompt] for prompt in prompts]
    return sample_images(model.family, pipeline, rows, conditioning[""], seeds, SETTINGS, **options)


def largest_difference(first: Image.Image, second: Image.Image) -> int:
    return max(high for _, high in ImageChops.difference(first, second).getextrema())


def test_conditioning_equals_the_stock_pipelines(model: BaseModel, stock: StableDiffusionPipeline) -> None:
    expected, _ = stock.encode_prompt(PROMPTS, "cpu", 1, do_classifier_free_guidance=False)
    conditioning = model.encode_prompts(PROMPTS)
    assert list(conditioning) == PROMPTS
    for prompt, row in zip(PROMPTS, expected, strict=True):
        torch.testing.assert_close(conditioning[prompt]["prompt_embeds"], row)


def test_cached_conditioning_draws_what_raw_prompts_draw(
    model: BaseModel, stock: StableDiffusionPipeline, ours: StableDiffusionPipeline
) -> None:
    for prompt, image in zip(PROMPTS, sample(model, ours, PROMPTS, [5, 6]), strict=True):
        seed = 5 + PROMPTS.index(prompt)
        expected = stock(
            prompt,
            width=64,
            height=64,
            num_inference_steps=3,
            guidance_scale=4.0,
            generator=torch.Generator().manual_seed(seed),
        ).images[0]
        assert largest_difference(image, expected) <= 1


def test_predict_equals_the_call_inside_the_stock_pipeline(
    model: BaseModel, stock: StableDiffusionPipeline
) -> None:
    calls: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    forward = stock.unet.forward

    def captured(latents, timestep, encoder_hidden_states, **options):
        output = forward(latents, timestep, encoder_hidden_states=encoder_hidden_states, **options)
        calls.append((latents.clone(), timestep, encoder_hidden_states, output[0].clone()))
        return output

    stock.unet.forward = captured
    stock("a cat", width=64, height=64, num_inference_steps=3, generator=torch.Generator().manual_seed(0))
    assert len(calls) == 3
    denoiser = model.load_denoiser()
    for latents, timestep, prompt_embeds, expected in calls:
        timesteps = timestep.expand(len(latents))
        with torch.no_grad():
            prediction = model.family.predict(denoiser, latents, timesteps, {"prompt_embeds": prompt_embeds})
        torch.testing.assert_close(prediction, expected)


def test_encoding_is_scaled_as_the_stock_pipeline_unscales(
    model: BaseModel, ours: StableDiffusionPipeline
) -> None:
    decoded = []
    decode = ours.vae.decode
    ours.vae.decode = lambda latents, **options: decoded.append(latents.clone()) or decode(latents, **options)
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    latents = model.family.encode_image(ours.vae, pixels)
    assert latents.shape == (1, 4, 8, 8)
    ours.vae.decode(latents / ours.vae.config.scaling_factor)
    mode = ours.vae.encode(pixels).latent_dist.mode()
    torch.testing.assert_close(decoded[0], mode)


def test_noise_schedule_is_the_models_own(model: BaseModel, stock: StableDiffusionPipeline) -> None:
    scheduler = model.noise_scheduler()
    assert torch.equal(scheduler.alphas_cumprod, stock.scheduler.alphas_cumprod)
    assert scheduler.config.prediction_type == "epsilon"


def test_sizes_follow_from_the_configs(model: BaseModel) -> None:
    assert model.multiple_px == 16, "8 of the VAE, 2 of the UNet's levels"
    assert model.native_resolution_px == 64


def test_image_depends_on_its_own_seed_and_prompt_alone(
    model: BaseModel, ours: StableDiffusionPipeline
) -> None:
    together = sample(model, ours, PROMPTS, [5, 6])
    alone = [sample(model, ours, [prompt], [seed])[0] for prompt, seed in zip(PROMPTS, [5, 6], strict=True)]
    for first, second in zip(together, alone, strict=True):
        assert largest_difference(first, second) <= 1
    other_seed, other_prompt = (
        sample(model, ours, PROMPTS[:1], [6])[0],
        sample(model, ours, PROMPTS[1:], [5])[0],
    )
    assert largest_difference(alone[0], other_seed) > 8
    assert alone[0].tobytes() != other_prompt.tobytes()


def test_previews_come_every_second_step_and_at_the_end(
    model: BaseModel, ours: StableDiffusionPipeline, tmp_path: Path
) -> None:
    seen = []
    sample(
        model,
        ours,
        PROMPTS,
        [5, 6],
        previewer=new_previewer(model, EventWriter(tmp_path)),
        on_preview=lambda index, step, picture: seen.append((index, step, picture.size)),
    )
    assert seen == [(0, 2, (64, 64)), (1, 2, (64, 64)), (0, 3, (64, 64)), (1, 3, (64, 64))]


def test_an_image_that_is_not_finite_is_none(model: BaseModel, ours: StableDiffusionPipeline) -> None:
    decode = ours.vae.decode

    def overflow(latents: Tensor, **options: Any) -> Any:
        (pixels,) = decode(latents, **options)
        pixels[1, 0, 5, 5] = float("nan")
        return (pixels,)

    ours.vae.decode = overflow
    first, second = sample(model, ours, PROMPTS, [5, 6])
    assert first.size == (64, 64)
    assert second is None
