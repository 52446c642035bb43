"""Images from a base model and an adapter, through the stock pipeline and cached conditioning."""

from dataclasses import dataclass

import torch
from diffusers import AutoencoderTiny
from PIL import Image

from dreamspace.config import RunConfig
from dreamspace.models.family import Conditioning, Family, stack_conditioning
from dreamspace.models.previews import PreviewSink, preview_callback


@dataclass(frozen=True)
class SamplingSettings:
    """How images are drawn; `preview_every` counts denoising steps."""

    width_px: int
    height_px: int
    num_inference_steps: int
    guidance_scale: float
    preview_every: int = 5


def sampling_size_px(config: RunConfig, training_size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of a run's images: its `validation_resolution`, else the training's."""
    if config.validation_resolution is None:
        return training_size
    edges = [int(edge) for edge in config.validation_resolution.split("x")]
    return edges[0], edges[-1]


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

    An image depends on its own seed and conditioning, up to the rounding of batched arithmetic. Noise is
    drawn on the CPU, so that a seed means the same image on every device.

    Args:
        pipeline: as the family makes it.
        tiny_vae: draws the previews; without it there are none.
        on_preview: called for each image after every `settings.preview_every`-th denoising step.
    """
    callback = None
    if tiny_vae is not None and on_preview is not None:
        callback = preview_callback(
            tiny_vae, settings.preview_every, settings.num_inference_steps, on_preview
        )
    denoiser = getattr(pipeline, family.denoiser_part)

    def batched(rows: list[Conditioning]) -> Conditioning:
        return {
            name: values.to(denoiser.device, denoiser.dtype if values.is_floating_point() else None)
            for name, values in stack_conditioning(rows).items()
        }

    output = pipeline(
        **family.pipeline_inputs(batched(conditioning), batched([negative] * len(conditioning))),
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
