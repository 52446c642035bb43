"""Images from a base model and an adapter, through the stock pipeline and cached conditioning."""

from dataclasses import dataclass

import torch
from diffusers import AutoencoderTiny
from PIL import Image

from dreamspace.models.family import Conditioning, Family, stack_conditioning
from dreamspace.models.previews import PreviewSink, preview_callback


@dataclass(frozen=True)
class SamplingSettings:
    """How images are drawn; width and height in px."""

    width_px: int
    height_px: int
    num_inference_steps: int
    guidance_scale: float
    preview_every: int = 5


@torch.no_grad()
def sample_images(
    family: Family,
    pipeline,
    conditioning: list[Conditioning],
    negative: Conditioning,
    seeds: list[int],
    settings: SamplingSettings,
    tiny_vae: AutoencoderTiny | None = None,
    on_preview: PreviewSink | None = None,
) -> list[Image.Image]:
    """One image for each row of conditioning and its seed, in one batch.

    An image depends on its own seed and conditioning, up to the rounding of batched arithmetic. Noise is drawn
    on the CPU, so that a seed means the same image on every device.
    """
    callback = None
    if tiny_vae is not None and on_preview is not None:
        callback = preview_callback(
            tiny_vae, settings.preview_every, settings.num_inference_steps, on_preview
        )
    output = pipeline(
        **family.pipeline_inputs(
            stack_conditioning(conditioning), stack_conditioning([negative] * len(conditioning))
        ),
        width=settings.width_px,
        height=settings.height_px,
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        callback_on_step_end=callback,
        callback_on_step_end_tensor_inputs=["latents"],
        output_type="pil",
    )
    return output.images
