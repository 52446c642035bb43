"""Images from a base model and an adapter, through the stock pipeline and cached conditioning."""

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from dreamspace.config import RunConfig
from dreamspace.data.cache import pixels_of
from dreamspace.data.samples import Sample
from dreamspace.models.family import (
    Conditioning,
    Family,
    PictureFamily,
    RenamedGuidanceFamily,
    stack_conditioning,
)
from dreamspace.models.previews import PreviewCallback, Previewer, PreviewSink
from dreamspace.models.sampling_settings import SamplingSettings

NOT_FINITE_HINT = (
    "Numbers overflow in fp16 with many a VAE: set mixed_precision to 'bf16' or 'no', or take a model "
    "whose VAE was made for fp16."
)


def sampling_size_px(config: RunConfig, training_size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of a run's images: the first of its `validation_resolution`, else the training's."""
    return (config.validation_sizes_px or [training_size])[0]


def with_pictures(
    rows: list[Conditioning], samples: list[Sample], settings: SamplingSettings
) -> list[Conditioning]:
    """Conditioning for a `PictureFamily`: each row with the picture of the next sample, cut to fit."""
    size = (settings.width_px, settings.height_px)
    pictures = [
        ImageOps.fit(samples[index % len(samples)].picture(), size, Image.Resampling.BICUBIC)
        for index in range(len(rows))
    ]
    return [row | {"picture": pixels_of(picture)} for row, picture in zip(rows, pictures, strict=True)]


@torch.no_grad()
def sample_images(
    family: Family,
    pipeline,
    conditioning: list[Conditioning],
    negative: Conditioning,
    seeds: list[int],
    settings: SamplingSettings,
    previewer: Previewer | None = None,
    on_preview: PreviewSink | None = None,
) -> list[Image.Image | None]:
    """One image for each row of conditioning and its seed, in one batch; None for one that is not finite.

    An image depends on its own seed and conditioning, up to the rounding of batched arithmetic. Noise is
    drawn on the CPU, so that a seed means the same image on every device.

    Args:
        pipeline: as the family makes it.
        conditioning: of a `PictureFamily` with its pictures; see `with_pictures`.
        previewer: draws the previews; without it there are none.
        on_preview: called for each image after every `settings.preview_every`-th denoising step, in a thread
            of its own.
    """
    # Pipelines that begin from a picture are told the steps of a whole drawing, and leave out the first.
    strength = family.strength if isinstance(family, PictureFamily) else 1.0
    denoiser = getattr(pipeline, family.denoiser_part)

    def batched(rows: list[Conditioning]) -> Conditioning:
        return {
            name: values.to(denoiser.device, denoiser.dtype if values.is_floating_point() else None)
            for name, values in stack_conditioning(rows).items()
        }

    has_previews = previewer is not None and on_preview is not None
    previews = PreviewCallback(previewer, settings, on_preview) if has_previews else None
    with previews or contextlib.nullcontext():
        output = pipeline(
            **family.pipeline_inputs(batched(conditioning), batched([negative] * len(conditioning))),
            **_size_and_callback(pipeline, settings, previews),
            num_inference_steps=round(settings.num_inference_steps / strength),
            **{_guidance_argument(family): settings.guidance_scale},
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="np",
        )
    return [_picture(pixels) for pixels in output.images]


def _picture(pixels: np.ndarray) -> Image.Image | None:
    """(H, W, 3) in [0, 1] to an RGB picture, rounded as diffusers does it, which makes nothing of NaN."""
    if not np.isfinite(pixels).all():
        return None
    return Image.fromarray((pixels * 255).round().astype(np.uint8))


def _guidance_argument(family: Family) -> str:
    # Not by the signature: pipelines that have both names mean something else by the usual one.
    return family.guidance_argument if isinstance(family, RenamedGuidanceFamily) else "guidance_scale"


def _size_and_callback(
    pipeline: Any, settings: SamplingSettings, callback: Callable | None
) -> dict[str, Any]:
    """Arguments that pipelines of diffusers know by different names, or not at all."""
    known = inspect.signature(type(pipeline).__call__).parameters
    arguments: dict[str, Any] = {}
    if "width" in known:  # else it follows from the picture
        arguments |= {"width": settings.width_px, "height": settings.height_px}
    if "callback_on_step_end" in known:
        return arguments | {
            "callback_on_step_end": callback,
            "callback_on_step_end_tensor_inputs": ["latents"],
        }
    if callback is not None:
        arguments["callback"] = lambda step, timestep, latents: callback(
            pipeline, step, timestep, {"latents": latents}
        )
    return arguments
