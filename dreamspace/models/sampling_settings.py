"""How images are drawn."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SamplingSettings:
    """How images are drawn.

    Attributes:
        num_inference_steps: denoising steps, also where they begin from a picture with little noise.
        preview_every: denoising steps from one preview to the next.
    """

    width_px: int
    height_px: int
    num_inference_steps: int
    guidance_scale: float
    preview_every: int = 5
