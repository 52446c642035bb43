"""Class images: what the base model draws for the class prompt, kept to remember its prior by."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dreamspace.config.families import DISTILLED_SAMPLING
from dreamspace.data.geometry import pictures_at_once
from dreamspace.data.photos import photo_files
from dreamspace.files import replace_file
from dreamspace.models.base import BaseModel
from dreamspace.models.family import PictureFamily, is_distilled
from dreamspace.models.previews import Previewer, PreviewSink
from dreamspace.models.sampling import NOT_FINITE_HINT, SamplingSettings, sample_images

# Not a run's validation settings: all runs with this model and class share the images.
NUM_INFERENCE_STEPS = 20
GUIDANCE_SCALE = 5.0

DRAWN_PREFIX = "zz-drawn-"
"""Begins the name of every drawn image, so that a user's own photos stand before them."""


def class_image_settings(model: BaseModel) -> SamplingSettings:
    """How a base model draws what it understands a word to be: at its own size, and as it was made to."""
    edge = model.native_resolution_px
    sampling = (NUM_INFERENCE_STEPS, GUIDANCE_SCALE)
    if is_distilled(model.family):
        sampling = DISTILLED_SAMPLING[model.family.name]
    return SamplingSettings(edge, edge, *sampling)


def class_image_names(
    model_fingerprint: str, prompts: list[str], count: int, seed: int, settings: SamplingSettings
) -> list[tuple[str, str, int]]:
    """(file name, prompt, seed) of each class image; the name follows from all that decides the image.

    Names are in the order of the seeds, so that fewer images are the first of more.
    """
    planned = []
    for index in range(count):
        prompt, image_seed = prompts[index % len(prompts)], seed + index
        decisive = f"{model_fingerprint}|{prompt}|{image_seed}|{settings}"
        digest = hashlib.sha256(decisive.encode()).hexdigest()[:16]
        planned.append((f"{DRAWN_PREFIX}{image_seed:010d}-{digest}.png", prompt, image_seed))
    return planned


def draw_class_images(
    model: BaseModel,
    prompts: list[str],
    count: int,
    folder: Path,
    on_progress: Callable[[int, int], None],
    should_stop: Callable[[], bool],
    seed: int = 0,
    previewer: Callable[[], Previewer] | None = None,
    previews: Callable[[list[str], int, list[int]], PreviewSink] | None = None,
) -> int:
    """Fill `folder` up to `count` class images; returns how many of these are there then.

    A user's own photos in the folder count. The images are drawn at the model's native resolution; the same
    call into any folder draws the same ones, and a call that was cut off goes on where it was.

    Args:
        count: photos that the folder should hold.
        on_progress: called before the first batch and after each with the number that is there, and `count`.
        should_stop: asked between batches; what is drawn stays.
        seed: of the first image; the others count up.
        previewer: makes what shows them, where images are missing.
        previews: makes the sink for a batch from its prompts, the number of its first image, and its seeds.

    Raises:
        ValueError: if images are missing and the model draws from pictures alone, or nothing that is finite.
    """
    settings = class_image_settings(model)
    present = {path.name for path in photo_files(folder)}
    num_own = sum(not name.startswith(DRAWN_PREFIX) for name in present)
    num_drawn = max(0, count - num_own)
    planned = class_image_names(model.fingerprint, prompts, num_drawn, seed, settings)
    missing = [entry for entry in planned if entry[0] not in present]
    done = count - len(missing)
    if not missing:
        return done
    if isinstance(model.family, PictureFamily):
        raise ValueError(
            f"{model.name} upscales or refines pictures and cannot draw class images from nothing. "
            f"Put {count} photos into {folder}, or set num_class_images to 0."
        )
    on_progress(done, count)
    conditioning = model.encode_prompts([*prompts, ""])
    # The base model as it is, whose noise schedule is its own.
    model = replace(model, has_zero_snr=False)
    pipeline = model.pipeline(model.load_denoiser(), model.load_vae(model.denoiser_dtype))
    shown = previewer() if previewer else None
    batch_size = pictures_at_once(settings.width_px, settings.height_px)
    for start in range(0, len(missing), batch_size):
        if should_stop():
            break
        batch = missing[start : start + batch_size]
        seeds = [image_seed for _, _, image_seed in batch]
        images = sample_images(
            model.family,
            pipeline,
            [conditioning[prompt] for _, prompt, _ in batch],
            conditioning[""],
            seeds,
            settings,
            shown,
            previews([prompt for _, prompt, _ in batch], done, seeds) if previews else None,
        )
        for (name, prompt, _), image in zip(batch, images, strict=True):
            if image is None:
                raise ValueError(
                    f"{model.name} draws numbers that are not finite for '{prompt}'. {NOT_FINITE_HINT}"
                )
            with replace_file(folder / name) as temporary:
                image.save(temporary)
        done += len(batch)
        on_progress(done, count)
    return done
