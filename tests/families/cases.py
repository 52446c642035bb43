"""The families under test: how a tiny random model of each is built, and what is particular to it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiny_models import build_stable_diffusion
from torch import Tensor

from families.sdxl import build_sdxl


def as_it_is(latents: Tensor, height_px: int, width_px: int) -> Tensor:
    """The pipeline holds latents as (B, C, h, w)."""
    return latents


@dataclass(frozen=True)
class Case:
    """A model of a family.

    Attributes:
        build: writes it into a folder, in diffusers' layout.
        settings: of a run on it, besides the family.
        resolution_px: of its pictures.
        unpack: latents as its pipeline holds them to (B, C, h, w), given height and width in px.
        guidance: at which the pipeline draws without guidance, as training predicts.
    """

    family: str
    build: Callable[[Path], Path]
    settings: dict[str, Any] = field(default_factory=dict)
    resolution_px: int = 64
    unpack: Callable[[Tensor, int, int], Tensor] = as_it_is
    guidance: float = 1.0


CASES: dict[str, Case] = {
    "sd1x": Case("sd1x", build_stable_diffusion),
    "sd2x-v": Case("sd2x", lambda folder: build_stable_diffusion(folder, "v_prediction", 24)),
    "sdxl": Case("sdxl", build_sdxl),
}
