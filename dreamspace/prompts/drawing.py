"""Pictures by the base model itself: what it understands a word to be."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from dreamspace.config import RunConfig
from dreamspace.files import replace_file
from dreamspace.jobs.control import stop_requested
from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.workspace import cache_of
from dreamspace.models.base import BaseModel, family_of, open_model
from dreamspace.models.class_images import GUIDANCE_SCALE, NUM_INFERENCE_STEPS
from dreamspace.models.family import PictureFamily
from dreamspace.models.sampling import SamplingSettings, sample_images

SEEDS = (0, 1, 2, 3)
PICTURES_FOLDER = "images"


def base_model(name: str, job_dir: Path) -> BaseModel:
    """A base model by its name alone, as it is.

    Raises:
        ValueError: if there is no such model.
    """
    config = RunConfig(pretrained_model_name_or_path=name, model_family=family_of(name))
    return open_model(config, cache_of(job_dir))


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
        ValueError: if the model draws from pictures alone.
    """
    if isinstance(model.family, PictureFamily):
        raise ValueError(
            f"{model.name} upscales or refines pictures and draws none of a prompt. Leave out --probe, or "
            "name the model that draws for it."
        )
    edge = model.native_resolution_px
    settings = SamplingSettings(edge, edge, NUM_INFERENCE_STEPS, GUIDANCE_SCALE)
    conditioning = model.encode_prompts([*prompts, ""])
    model = replace(model, has_zero_snr=False)  # its own noise schedule
    pipeline = model.pipeline(model.load_denoiser(), model.load_vae(model.denoiser_dtype))
    drawn: dict[str, list[Path]] = {}
    for number, prompt in enumerate(prompts):
        if stop_requested(job_dir):
            return None
        events.write("stage", name="probing", message=f"Drawing '{prompt}' ({number + 1} of {len(prompts)}).")
        events.write("progress", step=number, num_steps=len(prompts))
        rows = [conditioning[prompt]] * len(SEEDS)
        images = sample_images(model.family, pipeline, rows, conditioning[""], list(SEEDS), settings)
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
