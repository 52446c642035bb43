"""Pictures by the base model itself: what it understands a word to be."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from dreamspace.data.geometry import pictures_at_once
from dreamspace.files import replace_file
from dreamspace.jobs.control import stop_requested
from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.workspace import cache_of
from dreamspace.models.base import BaseModel, base_config, open_model
from dreamspace.models.class_images import class_image_settings
from dreamspace.models.family import PictureFamily
from dreamspace.models.sampling import NOT_FINITE_HINT, sample_images

SEEDS = (0, 1, 2, 3)
PICTURES_FOLDER = "images"


def base_model(name: str, job_dir: Path) -> BaseModel:
    """A base model by its name alone, as it is.

    Raises:
        ValueError: if there is no such model.
    """
    return open_model(base_config(name), cache_of(job_dir))


def draw_each(
    model: BaseModel,
    prompts: Sequence[str],
    job_dir: Path,
    events: EventWriter,
) -> dict[str, list[Path]] | None:
    """Files of the base model's pictures of each prompt, one for each of `SEEDS`.

    None if the job was asked to stop. Each is announced by a `sample` event; paths are relative to the job
    folder.

    Raises:
        ValueError: if the model draws from pictures alone, or what is not finite.
    """
    if isinstance(model.family, PictureFamily):
        raise ValueError(
            f"{model.name} upscales or refines pictures and draws none of a prompt. Leave out --probe, or "
            "name the model that draws for it."
        )
    settings = class_image_settings(model)
    batch_size = pictures_at_once(settings.width_px, settings.height_px)
    conditioning = model.encode_prompts([*prompts, ""])
    model = replace(model, has_zero_snr=False)  # its own noise schedule
    pipeline = model.pipeline(model.load_denoiser(), model.load_vae(model.denoiser_dtype))
    drawn: dict[str, list[Path]] = {}
    for number, prompt in enumerate(prompts):
        if stop_requested(job_dir):
            return None
        events.write("stage", name="probing", message=f"Drawing '{prompt}' ({number + 1} of {len(prompts)}).")
        events.write("progress", step=number, num_steps=len(prompts))
        images: list[Image.Image | None] = []
        for start in range(0, len(SEEDS), batch_size):
            seeds = list(SEEDS[start : start + batch_size])
            rows = [conditioning[prompt]] * len(seeds)
            images += sample_images(model.family, pipeline, rows, conditioning[""], seeds, settings)
        if None in images:
            raise ValueError(
                f"{model.name} draws numbers that are not finite for '{prompt}'. {NOT_FINITE_HINT}"
            )
        drawn[prompt] = []
        for seed, image in zip(SEEDS, images, strict=True):
            name = re.sub(r"[^\w-]+", "-", prompt)[:60]
            path = Path(PICTURES_FOLDER) / f"{number:02d}-{name}-{seed}.png"
            with replace_file(job_dir / path) as temporary:
                image.save(temporary)
            events.write("sample", prompt=prompt, seed=seed, path=path, weights="base")
            drawn[prompt].append(path)
    events.write("progress", step=len(prompts), num_steps=len(prompts))
    return drawn


def opened(job_dir: Path, paths: Sequence[Path]) -> list[Image.Image]:
    """Pictures of a job folder."""
    return [Image.open(job_dir / path).convert("RGB") for path in paths]
