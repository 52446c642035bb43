"""Pictures of a sampling process while it runs, through a tiny decoder or a linear map."""

import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny
from PIL import Image
from torch import Tensor

from dreamspace.files import replace_file
from dreamspace.jobs.events import EventWriter
from dreamspace.models.family import Family, PackedFamily
from dreamspace.models.linear_preview import LinearDecoder
from dreamspace.models.sampling_settings import SamplingSettings
from dreamspace.run_folder import step_name

PreviewSink = Callable[[int, int, Image.Image], None]
"""Called with the index of the image in its batch, the denoising step (from 1), and the picture."""

MAX_SHARE = 0.04
"""Of the time of a drawing that previews may take before the map takes the tiny decoder's place."""

_NUM_TRIALS = 2
"""Uses by which a tiny decoder's time is known; the first of a process may take much longer."""


class Previewer:
    """Shows the latents of sampling processes by a tiny decoder, a linear map, or both.

    The tiny decoder shows the last previews of a drawing, as many as `MAX_SHARE` of its time allows, and the
    map those before it, where there is still noise above all. On a GPU it shows all of them.

    Args:
        tiny, linear: one of them may be missing; a model of pixels needs neither.
    """

    def __init__(
        self, family: Family, tiny: AutoencoderTiny | None = None, linear: LinearDecoder | None = None
    ) -> None:
        assert tiny is not None or linear is not None or family.vae_part is None
        self.family, self.tiny, self.linear = family, tiny, linear
        self._trials: list[float] = []

    @torch.no_grad()
    def pictures(
        self, latents: Tensor, settings: SamplingSettings, affordable_seconds: float
    ) -> list[Image.Image | None]:
        """A picture of each row as a pipeline's callback has them; None where it is not finite.

        Those of the map have a pixel for each latent.

        Args:
            affordable_seconds: that the tiny decoder may take.
        """
        latents = unpacked(self.family, latents, settings)
        if self.family.vae_part is None:
            return finite_pictures(latents)
        if self.linear is not None and not self._affords(latents, settings, affordable_seconds):
            return finite_pictures(self.linear.decode(latents))
        started = time.perf_counter()
        shown = finite_pictures(self.tiny.decode(latents.to(self.tiny.dtype)).sample)
        # A GPU has come to its end here: the pictures are on the CPU.
        self._trials.append((time.perf_counter() - started) / _num_pixels(latents, settings))
        return shown

    def _affords(self, latents: Tensor, settings: SamplingSettings, affordable_seconds: float) -> bool:
        if self.tiny is None or len(self._trials) < _NUM_TRIALS:
            return self.tiny is not None
        return min(self._trials) * _num_pixels(latents, settings) <= affordable_seconds


def _num_pixels(latents: Tensor, settings: SamplingSettings) -> int:
    return len(latents) * settings.width_px * settings.height_px


def unpacked(family: Family, latents: Tensor, settings: SamplingSettings) -> Tensor:
    """Latents as a pipeline's callback has them, (B, C, h, w) or packed, as (B, C, h, w)."""
    if not isinstance(family, PackedFamily):
        return latents
    token_px = math.isqrt(settings.width_px * settings.height_px // latents.shape[1])
    return family.unpacked(latents, settings.height_px // token_px, settings.width_px // token_px)


def finite_pictures(pixels: Tensor) -> list[Image.Image | None]:
    """(B, 3, H, W) in [-1, 1] to RGB pictures; None for a row that holds a number that is not finite."""
    are_finite = torch.isfinite(pixels).flatten(1).all(dim=1).tolist()
    return [shown if good else None for shown, good in zip(pictures_of(pixels), are_finite, strict=True)]


def pictures_of(pixels: Tensor) -> list[Image.Image]:
    """(B, 3, H, W) in [-1, 1] to RGB pictures."""
    scaled = pixels.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    return [Image.fromarray(np.ascontiguousarray(row)) for row in scaled.permute(0, 2, 3, 1).cpu().numpy()]


class PreviewCallback:
    """A `callback_on_step_end` for diffusers' pipelines that shows every few steps and the last.

    With 20 steps and `preview_every` 5 there are previews at 5, 10, 15 and 20. Pictures go to the sink in a
    thread of their own, in order, so that drawing does not wait for files; leaving the context waits.
    """

    def __init__(self, previewer: Previewer, settings: SamplingSettings, sink: PreviewSink) -> None:
        self.previewer, self.settings, self.sink = previewer, settings, sink
        self._pending: list[Future[None]] = []
        self._spent_seconds = 0.0

    def __enter__(self) -> "PreviewCallback":
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._started = time.perf_counter()
        return self

    def __exit__(self, *raised: object) -> None:
        self._thread.shutdown()
        if raised[0] is None:
            for future in self._pending:
                future.result()  # raises what the sink raised

    def __call__(
        self, pipeline: Any, step: int, timestep: Any, tensors: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        inference_step, num_steps = step + 1, self.settings.num_inference_steps
        every = self.settings.preview_every
        if inference_step % every == 0 or inference_step == num_steps:
            latents = tensors["latents"]
            if latents.is_cuda:  # Else the steps that are still at work would count as a preview's.
                torch.cuda.synchronize()
            started = time.perf_counter()
            drawing_seconds = (started - self._started - self._spent_seconds) * num_steps / inference_step
            num_left = math.ceil((num_steps - inference_step) / every) + 1
            affordable = (MAX_SHARE * drawing_seconds - self._spent_seconds) / num_left
            pictures = self.previewer.pictures(latents, self.settings, affordable)
            self._pending += [
                self._thread.submit(self._send, index, inference_step, picture)
                for index, picture in enumerate(pictures)
                if picture is not None
            ]
            self._spent_seconds += time.perf_counter() - started
        return tensors

    def _send(self, index: int, inference_step: int, picture: Image.Image) -> None:
        started = time.perf_counter()
        size = (self.settings.width_px, self.settings.height_px)
        if picture.size != size:
            picture = picture.resize(size, Image.Resampling.BICUBIC)
        self.sink(index, inference_step, picture)
        self._spent_seconds += time.perf_counter() - started


def announced_previews(
    events: EventWriter,
    job_dir: Path,
    prompts: list[str],
    num_inference_steps: int,
    *,
    seeds: list[int] | None = None,
    first_index: int = 0,
    step: int | None = None,
) -> PreviewSink:
    """A sink that writes each picture into `previews/` of a job folder, then announces it.

    Args:
        prompts, seeds: of the images of the batch.
        first_index: the number of the batch's first image among all.
        step: the training step that the images show, if they belong to one.
    """
    prefix = "" if step is None else f"{step_name(step)}-"

    def sink(row: int, inference_step: int, picture: Image.Image) -> None:
        index = first_index + row
        path = job_dir / "previews" / f"{prefix}{index}-{inference_step:03d}.jpg"
        with replace_file(path) as temporary:
            picture.save(temporary, quality=90)
        events.write(
            "preview",
            step=step,
            prompt=prompts[row],
            seed=None if seeds is None else seeds[row],
            width=picture.width,
            height=picture.height,
            index=index,
            inference_step=inference_step,
            num_inference_steps=num_inference_steps,
            path=path.relative_to(job_dir),
        )

    return sink
