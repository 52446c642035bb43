"""Pictures of a sampling process while it runs, through a tiny decoder."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from PIL import Image
from torch import Tensor

from dreamspace.files import replace_file
from dreamspace.jobs.events import EventWriter
from dreamspace.models.family import Family
from dreamspace.run_folder import step_name

PreviewSink = Callable[[int, int, Image.Image], None]
"""Called with the index of the image in its batch, the denoising step (from 1), and the picture."""

Decoder = Callable[[Tensor], Tensor]
"""Latents of a sampling process to pixels (B, 3, H, W) in [-1, 1]."""


def load_tiny_vae(folder: Path, device: torch.device) -> AutoencoderTiny | None:
    """The model's own tiny decoder, in its subfolder `tiny_vae`; `None` if it has none."""
    if not (folder / "tiny_vae").is_dir():
        return None
    tiny = AutoencoderTiny.from_pretrained(
        folder, subfolder="tiny_vae", use_safetensors=True, dtype=torch.float32
    )
    return tiny.requires_grad_(False).eval().to(device)


def pictures_of(pixels: Tensor) -> list[Image.Image]:
    """(B, 3, H, W) in [-1, 1] to RGB pictures."""
    scaled = pixels.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    return [Image.fromarray(np.ascontiguousarray(row)) for row in scaled.permute(0, 2, 3, 1).cpu().numpy()]


def preview_decoder(family: Family, tiny_vae: AutoencoderTiny | None) -> Decoder | None:
    """What shows a model's latents, which may be pixels already; None where it has no tiny decoder."""
    if family.vae_part is None:
        return lambda pixels: pixels
    if tiny_vae is None:
        return None
    return lambda latents: tiny_vae.decode(latents.to(tiny_vae.dtype)).sample


def preview_callback(decode: Decoder, every: int, num_inference_steps: int, sink: PreviewSink) -> Callable:
    """A `callback_on_step_end` for diffusers' pipelines that decodes every `every`-th step and the last.

    With 20 steps and `every` 5 there are previews at 5, 10, 15 and 20.
    """

    def on_step_end(pipeline, step: int, timestep, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        inference_step = step + 1
        if inference_step % every == 0 or inference_step == num_inference_steps:
            with torch.no_grad():
                pixels = decode(tensors["latents"])
            for index, picture in enumerate(pictures_of(pixels)):
                sink(index, inference_step, picture)
        return tensors

    return on_step_end


def announced_previews(
    events: EventWriter,
    job_dir: Path,
    prompts: list[str],
    num_inference_steps: int,
    *,
    first_index: int = 0,
    step: int | None = None,
) -> PreviewSink:
    """A sink that writes each picture into `previews/` of a job folder, then announces it.

    Args:
        prompts: of the images of the batch.
        first_index: the number of the batch's first image among all.
        step: the training step that the images show, if they belong to one.
    """
    prefix = "" if step is None else f"{step_name(step)}-"

    def sink(row: int, inference_step: int, picture: Image.Image) -> None:
        index = first_index + row
        path = job_dir / "previews" / f"{prefix}{index}-{inference_step:03d}.png"
        with replace_file(path) as temporary:
            picture.save(temporary)
        events.write(
            "preview",
            step=step,
            prompt=prompts[row],
            index=index,
            inference_step=inference_step,
            num_inference_steps=num_inference_steps,
            path=path.relative_to(job_dir),
        )

    return sink
