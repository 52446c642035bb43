"""The families under test: how a tiny random model of each is built, and what is particular to it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tiny_models import build_stable_diffusion
from torch import Tensor

from dreamspace.data.cache import pixels_of
from dreamspace.models.deepfloyd import shrunk
from dreamspace.models.family import Conditioning
from families.deepfloyd import build_stage_one, build_stage_two
from families.flux import build_flux, schnell_arguments, unpack_flux
from families.flux2 import build_flux2, unpack_flux2
from families.qwen_image import build_qwen_image, true_guidance, unpack_qwen_image
from families.sana import build_sana, unbinned
from families.sd3 import build_sd3
from families.sdxl import build_sdxl, build_sdxl_refiner
from families.z_image import build_z_image


def as_it_is(latents: Tensor, height_px: int, width_px: int) -> Tensor:
    """The pipeline holds latents as (B, C, h, w)."""
    return latents


def width_and_height(edge_px: int) -> dict[str, Any]:
    """What most pipelines are told besides the prompt."""
    return {"width": edge_px, "height": edge_px}


def picture_px(edge_px: int) -> Image.Image:
    """The picture that pipelines begin from: coloured blots."""
    colours = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(colours).resize((edge_px, edge_px), Image.Resampling.BICUBIC)


def refined_picture(edge_px: int) -> dict[str, Any]:
    """What the refiner's pipeline is told, as Dreamspace trains it."""
    return {"image": picture_px(edge_px), "strength": 0.2, "aesthetic_score": 7.0}


def enlarged_picture(edge_px: int) -> dict[str, Any]:
    """What the upscaler's pipeline is told."""
    return width_and_height(edge_px) | {"image": shrunk(pixels_of(picture_px(edge_px))[None])}


@dataclass(frozen=True)
class Case:
    """A model of a family.

    Attributes:
        build: writes it into a folder, in diffusers' layout.
        settings: of a run on it, besides the family.
        resolution_px: of its pictures.
        absent_parts: those that diffusers must be told of when it loads the model.
        arguments: of its pipeline besides the prompt, given the edge of the picture in px.
        two_steps: the number of inference steps of which its pipeline makes two.
        unpack: latents as its pipeline holds them to (B, C, h, w), given height and width in px.
        seen_conditioning: conditioning that is to be found in the denoiser's input.
        guidance: at which the pipeline draws without guidance, as training predicts.
        distilled_hints: what the training advises where the model draws in a few steps.
        guided: arguments of the pipeline that draw with a guidance, and away from an empty prompt.
        architecture: by which other programs know the model; empty where they do not.
    """

    family: str
    build: Callable[[Path], Path]
    settings: dict[str, Any] = field(default_factory=dict)
    resolution_px: int = 64
    absent_parts: tuple[str, ...] = ()
    arguments: Callable[[int], dict[str, Any]] = width_and_height
    two_steps: int = 2
    unpack: Callable[[Tensor, int, int], Tensor] = as_it_is
    seen_conditioning: Callable[[Tensor], Conditioning] = lambda seen: {}
    guidance: float = 1.0
    distilled_hints: list[str] = field(default_factory=list)
    guided: Callable[[float], dict[str, Any]] = lambda guidance: {"guidance_scale": guidance}
    architecture: str = ""


CASES: dict[str, Case] = {
    "sd1x": Case(
        "sd1x",
        build_stable_diffusion,
        absent_parts=("safety_checker",),
        architecture="stable-diffusion-v1",
    ),
    "sd2x-v": Case(
        "sd2x",
        lambda folder: build_stable_diffusion(folder, "v_prediction", 24),
        absent_parts=("safety_checker",),
        architecture="stable-diffusion-v2-768-v",
    ),
    "sdxl": Case("sdxl", build_sdxl, architecture="stable-diffusion-xl-v1-base"),
    "sdxl-refiner": Case(
        "sdxl",
        build_sdxl_refiner,
        arguments=refined_picture,
        two_steps=10,
        architecture="stable-diffusion-xl-v1-refiner",
    ),
    "deepfloyd-i": Case("deepfloyd", build_stage_one, resolution_px=32),
    "deepfloyd-ii": Case(
        "deepfloyd",
        build_stage_two,
        resolution_px=32,
        arguments=enlarged_picture,
        unpack=lambda latents, height_px, width_px: latents[:, :3],
        seen_conditioning=lambda seen: {"small_picture": seen[0, 3:]},
    ),
    "sd3": Case("sd3", build_sd3, architecture="stable-diffusion-3-m"),
    "sd3-without-t5": Case(
        "sd3",
        lambda folder: build_sd3(folder, has_t5=False),
        absent_parts=("text_encoder_3", "tokenizer_3"),
        architecture="stable-diffusion-3-5-medium",
    ),
    "flux-dev": Case("flux", build_flux, unpack=unpack_flux, architecture="flux-1-dev"),
    "flux-schnell": Case(
        "flux",
        lambda folder: build_flux(folder, has_guidance=False),
        arguments=schnell_arguments,
        unpack=unpack_flux,
        architecture="flux-1-schnell",
        distilled_hints=[
            "Train on FLUX.1-dev, and use the adapter on schnell, which has the same layers; or keep to few "
            "steps, a low rank and a low learning rate."
        ],
    ),
    "qwen-image": Case(
        "qwen_image",
        build_qwen_image,
        unpack=unpack_qwen_image,
        guided=true_guidance,
        architecture="Qwen-Image",
    ),
    "sana": Case("sana", build_sana, arguments=unbinned),
    "z-image": Case("z_image", build_z_image, guidance=0.0, architecture="Z-Image"),
    "flux2-klein": Case("flux2", build_flux2, unpack=unpack_flux2, architecture="Flux.2-klein-4b"),
}
