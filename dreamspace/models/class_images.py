"""Class images: what the base model draws for the class prompt, kept to remember its prior by."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch

from dreamspace.files import replace_file
from dreamspace.models.base import BaseModel
from dreamspace.models.sampling import SamplingSettings, sample_images

BATCH_SIZE = 4


def class_image_names(model: str, prompts: list[str], count: int, seed: int, settings: SamplingSettings):
    """(file name, prompt, seed) of each class image; the name follows from all that decides the image."""
    planned = []
    for index in range(count):
        prompt, image_seed = prompts[index % len(prompts)], seed + index
        digest = hashlib.sha256(f"{model}|{prompt}|{image_seed}|{settings}".encode()).hexdigest()
        planned.append((f"{digest[:16]}.png", prompt, image_seed))
    return planned


def draw_class_images(
    model: BaseModel,
    prompts: list[str],
    count: int,
    seed: int,
    folder: Path,
    settings: SamplingSettings,
    on_progress: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> int:
    """Draw those of `count` class images that are not in `folder` yet; returns how many are there.

    Args:
        on_progress: called after each batch with the number that is there, and `count`.
        should_stop: asked between batches; what is drawn stays.
    """
    planned = class_image_names(model.name, prompts, count, seed, settings)
    missing = [entry for entry in planned if not (folder / entry[0]).exists()]
    done = count - len(missing)
    if not missing:
        return done
    conditioning = model.encode_prompts([*prompts, ""])
    denoiser = model.family.load_denoiser(model.folder, model.device, torch.float32)
    pipeline = model.family.pipeline(
        model.folder, denoiser, model.family.load_vae(model.folder, model.device)
    )
    for start in range(0, len(missing), BATCH_SIZE):
        if should_stop():
            break
        batch = missing[start : start + BATCH_SIZE]
        images = sample_images(
            model.family,
            pipeline,
            [conditioning[prompt] for _, prompt, _ in batch],
            conditioning[""],
            [image_seed for _, _, image_seed in batch],
            settings,
        )
        for (name, _, _), image in zip(batch, images, strict=True):
            with replace_file(folder / name) as temporary:
                image.save(temporary)
        done += len(batch)
        on_progress(done, count)
    return done
