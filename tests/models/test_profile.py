"""The profile of a model against real tensors."""

from pathlib import Path

import pytest
import torch
from diffusers import QwenImageTransformer2DModel
from families.flux import build_flux
from families.qwen_image import build_qwen_image
from tiny_models import build_stable_diffusion

from dreamspace.config import RunConfig
from dreamspace.files import read_json
from dreamspace.models import load_family
from dreamspace.models.family import stack_conditioning
from dreamspace.models.live_bytes import LiveBytes, highest_moments
from dreamspace.models.lora import Lora
from dreamspace.models.profile import _Model, _Step, shallow
from dreamspace.models.source import INDEX_FILE


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_without_values_takes_the_memory_of_a_real_one(tmp_path: Path, checkpointing: bool) -> None:
    folder = build_stable_diffusion(tmp_path / "model")
    family = load_family(RunConfig(), folder)
    step = _Step(_Model(family, folder, read_json(folder / INDEX_FILE)), 64)
    step.latents = torch.empty(1, 4, 8, 8)
    config = read_json(folder / "unet" / "config.json")
    imagined = step.training(config, "lora", "fp32", checkpointing)
    unet = Lora(step.model.part("unet").to_empty(device="cpu"), family, RunConfig()).denoiser.train()
    if checkpointing:
        unet.enable_gradient_checkpointing()
    latents, prompt = torch.randn(1, 4, 8, 8), torch.randn(1, 77, 16)
    with LiveBytes(unet) as live:
        family.predict(
            unet, latents, torch.tensor([10]), {"prompt_embeds": prompt}
        ).square().mean().backward()
    assert max(map(sum, imagined)) == pytest.approx(live.peak, rel=0.05)


def test_a_step_without_values_knows_the_masks_that_a_model_asks_for(tmp_path: Path) -> None:
    folder = build_qwen_image(tmp_path / "model")
    family = load_family(RunConfig(model_family="qwen_image"), folder)
    step = _Step(_Model(family, folder, read_json(folder / INDEX_FILE)), 64)
    step.encoding_and_decoding()
    imagined = step.training(read_json(folder / "transformer" / "config.json"), "lora", "fp32", False)
    real = QwenImageTransformer2DModel.from_pretrained(folder, subfolder="transformer")
    transformer = Lora(real.requires_grad_(False), family, RunConfig()).denoiser.train()
    prompt = stack_conditioning([family.blank_prompt(folder)])
    with LiveBytes(transformer) as live:
        family.predict(
            transformer, torch.randn(step.latents.shape), torch.tensor([0.5]), prompt
        ).square().mean().backward()
    assert max(map(sum, imagined)) == pytest.approx(live.peak, rel=0.05)


def test_many_blocks_take_what_few_and_one_more_say(tmp_path: Path) -> None:
    folder = build_flux(tmp_path / "model")
    config = read_json(folder / "transformer" / "config.json") | {"num_layers": 6, "num_single_layers": 7}
    few, deeper = shallow(config)
    assert (few["num_layers"], few["num_single_layers"]) == (2, 2)
    assert [(c["num_layers"], c["num_single_layers"], more) for c, more in deeper] == [(3, 2, 4), (2, 3, 5)]
    family = load_family(RunConfig(model_family="flux"), folder)
    step = _Step(_Model(family, folder, read_json(folder / INDEX_FILE)), 64)
    step.latents = torch.empty(1, 4, 8, 8)

    def highest(given: dict) -> int:
        return highest_moments(step.training(given, "lora", "bf16", False))[0]

    expected = highest(few) + sum(more * (highest(given) - highest(few)) for given, more in deeper)
    assert highest(config) == pytest.approx(expected, rel=0.02)
