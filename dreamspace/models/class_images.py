"""Class images: what the base model draws for the class prompt, kept to remember its prior by."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch

from dreamspace.data.photos import photo_files
from dreamspace.files import replace_file
from dreamspace.models.base import BaseModel
from dreamspace.models.sampling import SamplingSettings, sample_images
from dreamspace.models.source import fingerprint

BATCH_SIZE = 4


def class_image_names(
    model_fingerprint: str, prompts: list[str], count: int, seed: int, settings: SamplingSettings
) -> list[tuple[str, str, int]]:
    """(file name, prompt, seed) of each class image; the name follows from all that decides the image."""
    planned = []
    for index in range(count):
        prompt, image_seed = prompts[index % len(prompts)], seed + index
        decisive = f"{model_fingerprint}|{prompt}|{image_seed}|{settings}"
        planned.append((f"{hashlib.sha256(decisive.encode()).hexdigest()[:16]}.png", prompt, image_seed))
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
    """Fill `folder` up to `count` class images; returns how many photos are in it then.

    Any photo in the folder counts, also a user's own or one that another run had drawn. The same call into
    an empty folder draws the same images, and a call that was cut off goes on where it was.

    Args:
        count: photos that the folder should hold.
        on_progress: called before the first batch and after each with the number that is there, and `count`.
        should_stop: asked between batches; what is drawn stays.
    """
    planned = class_image_names(_fingerprint(model), prompts, count, seed, settings)
    present = {path.name for path in photo_files(folder)}
    num_others = len(present - {name for name, _, _ in planned})
    missing = [entry for entry in planned[: max(0, count - num_others)] if entry[0] not in present]
    done = len(present)
    if not missing:
        return done
    on_progress(done, count)
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


def _fingerprint(model: BaseModel) -> str:
    parts = (*model.family.text_parts, model.family.denoiser_part, "vae")
    return ":".join(fingerprint(model.folder / part) for part in parts)
