"""What is particular to FLUX.1: guidance that the model is told, and text encoders that two models share."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dreamspace.config import RunConfig
from dreamspace.models.base import BaseModel, open_model
from dreamspace.models.sampling import SamplingSettings, sample_images
from families.flux import build_flux

PROMPT = "a photo of a sks dog"
NUM_INFERENCE_STEPS = 2


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BaseModel]:
    """dev and schnell, in one cache."""
    folder = tmp_path_factory.mktemp("models")
    return {
        name: opened(build_flux(folder / name, has_guidance=name == "dev"), folder / "cache")
        for name in ("dev", "schnell")
    }


def opened(folder: Path, cache: Path) -> BaseModel:
    config = RunConfig(model_family="flux", pretrained_model_name_or_path=str(folder))
    return open_model(config, cache, torch.device("cpu"))


def image_and_guidance(model: BaseModel, guidance_scale: float) -> tuple[bytes, list[Tensor | None]]:
    """An image as validation draws it, and what the transformer was told in each of its calls."""
    pipeline = model.pipeline(model.load_denoiser(), model.load_vae())
    forward, calls = pipeline.transformer.forward, []

    def captured(*arguments: Any, guidance: Tensor | None, **options: Any) -> Any:
        calls.append(guidance)
        return forward(*arguments, guidance=guidance, **options)

    pipeline.transformer.forward = captured
    conditioning = model.encode_prompts([PROMPT, "ugly"])
    settings = SamplingSettings(64, 64, NUM_INFERENCE_STEPS, guidance_scale)
    (image,) = sample_images(
        model.family, pipeline, [conditioning[PROMPT]], conditioning["ugly"], [5], settings
    )
    return image.tobytes(), calls


def test_dev_is_told_the_guidance_and_called_once_in_each_step(models: dict[str, BaseModel]) -> None:
    weak, _ = image_and_guidance(models["dev"], 1.0)
    strong, calls = image_and_guidance(models["dev"], 4.0)
    assert [guidance.tolist() for guidance in calls] == [[4.0]] * NUM_INFERENCE_STEPS
    assert strong != weak


def test_schnell_draws_without_guidance_whatever_is_asked_for(models: dict[str, BaseModel]) -> None:
    weak, _ = image_and_guidance(models["schnell"], 1.0)
    strong, calls = image_and_guidance(models["schnell"], 4.0)
    assert calls == [None] * NUM_INFERENCE_STEPS
    assert strong == weak


def test_dev_and_schnell_share_latents_but_not_the_length_of_a_prompt(models: dict[str, BaseModel]) -> None:
    """In one cache, although their text encoders are the same, to the last bit."""
    for _ in range(2):  # encoded, then cached
        for name, num_tokens in (("dev", 512), ("schnell", 256)):
            assert models[name].encode_prompts([PROMPT])[PROMPT]["prompt_embeds"].shape == (num_tokens, 24)
    assert models["dev"].vae_fingerprint == models["schnell"].vae_fingerprint
