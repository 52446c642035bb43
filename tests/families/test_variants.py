"""What sets models of one family apart, and their negative prompts, against the stock pipelines."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import build_stable_diffusion

from dreamspace.config import RunConfig
from dreamspace.config.families import DISTILLED_SAMPLING, FamilyName
from dreamspace.models.base import BaseModel, open_model
from dreamspace.models.class_images import class_image_settings
from dreamspace.models.family import DistilledFamily
from dreamspace.models.sampling import SamplingSettings, sample_images
from dreamspace.training.proof import grey_levels_apart
from dreamspace.training.schedule import noise_schedule
from families.flux2 import build_flux2
from families.sana import build_sana, unbinned
from families.z_image import BASE_SHIFT, TURBO_SHIFT, build_z_image

PROMPT, NEGATIVE, EDGE_PX = "a photo of a sks dog", "snow", 64


def opened(family: FamilyName, folder: Path, cache: Path) -> BaseModel:
    config = RunConfig(model_family=family, pretrained_model_name_or_path=str(folder))
    return open_model(config, cache, torch.device("cpu"))


def our_image(model: BaseModel, guidance: float, negative: str = "") -> Image.Image:
    conditioning = model.encode_prompts([PROMPT, negative])
    pipeline = model.pipeline(model.load_denoiser(), model.load_vae())
    settings = SamplingSettings(EDGE_PX, EDGE_PX, 2, guidance)
    rows = [conditioning[PROMPT]]
    return sample_images(model.family, pipeline, rows, conditioning[negative], [5], settings)[0]


@pytest.mark.parametrize(
    ("family", "build_base", "build_distilled"),
    [
        ("flux2", build_flux2, lambda folder: build_flux2(folder, is_distilled=True)),
        (
            "z_image",
            lambda folder: build_z_image(folder, BASE_SHIFT),
            lambda folder: build_z_image(folder, TURBO_SHIFT),
        ),
    ],
)
def test_folder_says_whether_the_model_was_distilled(
    family: FamilyName,
    build_base: Callable[[Path], Path],
    build_distilled: Callable[[Path], Path],
    tmp_path: Path,
) -> None:
    base = opened(family, build_base(tmp_path / "base"), tmp_path / "cache").family
    distilled = opened(family, build_distilled(tmp_path / "distilled"), tmp_path / "cache").family
    assert isinstance(base, DistilledFamily)
    assert isinstance(distilled, DistilledFamily)
    assert not base.is_distilled
    assert distilled.is_distilled
    drawn = class_image_settings(opened(family, tmp_path / "distilled", tmp_path / "cache"))
    assert (drawn.num_inference_steps, drawn.guidance_scale) == DISTILLED_SAMPLING[family]
    assert class_image_settings(opened(family, tmp_path / "base", tmp_path / "cache")).guidance_scale == 5


def test_zero_terminal_snr_is_drawn_by_as_it_is_trained(tmp_path: Path) -> None:
    folder = build_stable_diffusion(tmp_path / "model", "v_prediction", 24)
    config = RunConfig(
        model_family="sd2x", pretrained_model_name_or_path=str(folder), rescale_betas_zero_snr=True
    )
    model = open_model(config, tmp_path / "cache", torch.device("cpu"))
    pipeline = model.pipeline(model.load_denoiser(), model.load_vae())
    schedule = noise_schedule(model.noise_scheduler(), rescale_zero_snr=True)
    torch.testing.assert_close(pipeline.scheduler.alphas_cumprod, schedule.alphas**2)
    pipeline.scheduler.set_timesteps(10)
    assert pipeline.scheduler.timesteps[0] == 999, "the first step begins at pure noise"
    assert pipeline.scheduler.alphas_cumprod[999] == 0
    assert np.ptp(np.asarray(our_image(model, 4.0))) > 8
    plain = opened("sd2x", folder, tmp_path / "cache")
    pipeline = plain.pipeline(plain.load_denoiser(), plain.load_vae())
    assert pipeline.scheduler.config.timestep_spacing == "trailing"
    assert pipeline.scheduler.alphas_cumprod[999] > 0
    # What a merged model is written with.
    assert model.whole_pipeline().scheduler.config.rescale_betas_zero_snr is True


def test_distilled_klein_draws_without_guidance_as_its_stock_pipeline_does(tmp_path: Path) -> None:
    model = opened("flux2", build_flux2(tmp_path / "model", is_distilled=True), tmp_path / "cache")
    images = [our_image(model, guidance) for guidance in (1.0, 4.0)]
    assert grey_levels_apart(*images) == 0
    stock = model.family.pipeline_class.from_pretrained(model.folder)
    expected = stock(
        prompt=PROMPT,
        width=EDGE_PX,
        height=EDGE_PX,
        num_inference_steps=2,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(5),
    ).images[0]
    assert np.abs(np.asarray(images[0], np.int16) - np.asarray(expected, np.int16)).max() <= 1


def test_sanas_negative_prompts_are_encoded_without_the_instruction(tmp_path: Path) -> None:
    model = opened("sana", build_sana(tmp_path / "model"), tmp_path / "cache")
    image = our_image(model, 4.0, NEGATIVE)
    expected = model.family.pipeline_class.from_pretrained(model.folder)(
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        **unbinned(EDGE_PX),
        num_inference_steps=2,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(5),
    ).images[0]
    assert np.abs(np.asarray(image, np.int16) - np.asarray(expected, np.int16)).max() <= 1
    assert grey_levels_apart(image, our_image(model, 4.0)) > 0.5, "it makes no difference"


def test_sanas_dropped_captions_are_what_guidance_leads_away_from(tmp_path: Path) -> None:
    model = opened("sana", build_sana(tmp_path / "model"), tmp_path / "cache")
    empty = model.encode_prompts([""])[""]
    assert torch.equal(empty["prompt_embeds"], empty["negative_prompt_embeds"])
    assert torch.equal(empty["prompt_mask"], empty["negative_prompt_mask"])
