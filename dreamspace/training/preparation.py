"""Everything before the first step: samples, class images, latents and conditioning, one part at a time."""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from dreamspace.config import DatasetConfig, RunConfig, subject_prompt
from dreamspace.data.cache import TensorCache, cache_latents, latents_key
from dreamspace.data.photos import photo_files
from dreamspace.data.plan import PlannedDataset, RowPlan
from dreamspace.data.samples import Sample, read_samples
from dreamspace.jobs.events import EventWriter
from dreamspace.models.base import BaseModel
from dreamspace.models.class_images import draw_class_images
from dreamspace.models.family import Conditioning
from dreamspace.models.sampling import SamplingSettings, sampling_size_px
from dreamspace.models.source import fingerprint


@dataclass
class TrainingSet:
    """What the loop reads from: per dataset its samples and latents, the plan, and all conditioning."""

    samples: list[list[Sample]]
    latents: list[list[Tensor]]
    plan: RowPlan
    conditioning: dict[str, Conditioning]

    @property
    def digest(self) -> str:
        """16 hex digits that tell what is trained on: samples, captions, and how often each is seen."""
        shown = [[(latents_key(sample, ""), sample.captions) for sample in found] for found in self.samples]
        return hashlib.sha256(repr((self.plan.datasets, shown)).encode()).hexdigest()[:16]

    def num_samples(self, uses_base_target: bool) -> int:
        """How many class images there are, or how many photos of the subject."""
        return sum(sample.uses_base_target == uses_base_target for found in self.samples for sample in found)


def validation_prompts(config: RunConfig, datasets: list[DatasetConfig]) -> list[str]:
    """The prompts to validate with, each once: the subject's if none is given, then the others."""
    first = config.validation_prompt or subject_prompt(config, datasets)
    return list(dict.fromkeys([first, *config.validation_prompts]))


def fill_class_folder(
    config: RunConfig,
    datasets: list[DatasetConfig],
    model: BaseModel,
    priors: Path,
    events: EventWriter,
    should_stop: Callable[[], bool],
) -> None:
    """Let the base model draw the class images that the regularisation dataset lacks, if any are asked for.

    Their seeds do not follow from the run's, so that all runs share the images.

    Args:
        priors: the workspace's folder of class images. Only what lies in it is filled: any other folder is
            the user's.

    Raises:
        ValueError: if there is no such dataset, or its folder holds too few and is the user's.
    """
    if not config.num_class_images:
        return
    regularisation = next((dataset for dataset in datasets if dataset.is_regularisation_data), None)
    if regularisation is None:
        raise ValueError(
            f"num_class_images is {config.num_class_images}, but no dataset has is_regularisation_data. "
            "Add one for them, or set num_class_images to 0."
        )
    folder = regularisation.instance_data_dir
    if not folder.resolve().is_relative_to(priors.resolve()):
        num_photos = len(photo_files(folder))
        if num_photos < config.num_class_images:
            raise ValueError(
                f"num_class_images is {config.num_class_images}, but {folder} holds {num_photos} photos, and "
                f"images are drawn only into {priors}. Add photos, or set num_class_images to {num_photos}."
            )
        return

    def on_progress(done: int, total: int) -> None:
        events.write("stage", name="prior", message=f"Drawing class images: {done} of {total}.")

    draw_class_images(
        model,
        regularisation.instance_prompts,
        config.num_class_images,
        folder,
        on_progress,
        should_stop,
    )


def read_training_set(
    config: RunConfig, datasets: list[DatasetConfig], model: BaseModel, events: EventWriter
) -> TrainingSet:
    """Read all photos, encode what is not cached, and leave neither VAE nor text encoder in memory.

    Raises:
        ValueError: if a folder holds no photo that can be used, or a resolution does not fit.
    """
    events.write("stage", name="caching", message="Reading photos.")
    samples = _read_photos(datasets, model.family.multiple_px(model.folder), events)
    planned = [
        PlannedDataset(dataset.id, len(found), dataset.repeats + 1)
        for dataset, found in zip(datasets, samples, strict=True)
    ]
    latents = _cached_latents(datasets, samples, model, events)
    events.write("stage", name="caching", message="Encoding prompts.")
    captions = [caption for found in samples for sample in found for caption in sample.captions]
    prompts = validation_prompts(config, datasets)
    conditioning = model.encode_prompts([*captions, *prompts, config.validation_negative_prompt])
    return TrainingSet(samples, latents, RowPlan(planned, config.seed), conditioning)


def _read_photos(datasets: list[DatasetConfig], multiple_px: int, events: EventWriter) -> list[list[Sample]]:
    samples = []
    for dataset in datasets:
        if dataset.probability != 1:
            events.write(
                "warning",
                message=f"Dataset '{dataset.id}' has probability {dataset.probability:g}, "
                "which counts as 1 for now.",
                hint="Weigh datasets by their repeats.",
            )
        found, warnings = read_samples(dataset, multiple_px)
        samples.append(found)
        for warning in warnings:
            events.write("warning", message=warning, hint="")
    sizes = sorted({sample.geometry.size for found in samples for sample in found})
    if len(sizes) > 1:
        given = " and ".join(f"{width} x {height} px" for width, height in sizes)
        raise ValueError(
            f"All datasets of a run must have one resolution for now, got {given}. Set the same in each."
        )
    return samples


def _cached_latents(
    datasets: list[DatasetConfig], samples: list[list[Sample]], model: BaseModel, events: EventWriter
) -> list[list[Tensor]]:
    @functools.cache
    def vae() -> nn.Module:
        return model.family.load_vae(model.folder, model.device)

    def encode(pixels: Tensor) -> Tensor:
        return model.family.encode_image(vae(), pixels.to(model.device))

    def on_progress(done: int, total: int) -> None:
        events.write("stage", name="caching", message=f"Encoding photos: {done} of {total}.")

    vae_fingerprint = fingerprint(model.folder / "vae")
    return [
        cache_latents(
            TensorCache(dataset.cache_dir_vae or model.cache / "latents"),
            found,
            vae_fingerprint,
            encode,
            on_progress,
        )
        for dataset, found in zip(datasets, samples, strict=True)
    ]


def sampling_settings(
    config: RunConfig, training_size: tuple[int, int], multiple_px: int
) -> SamplingSettings:
    """How validation images are drawn.

    Args:
        training_size: (width, height) of the training images in px.
        multiple_px: the edges of the model's images are multiples of this.

    Raises:
        ValueError: if `validation_resolution` is not such a multiple.
    """
    width_px, height_px = sampling_size_px(config, training_size)
    for edge in (width_px, height_px):
        if edge % multiple_px:
            nearest = max(multiple_px, round(edge / multiple_px) * multiple_px)
            raise ValueError(
                f"validation_resolution must be a multiple of {multiple_px} px for this model, got {edge}. "
                f"Try {nearest}."
            )
    return SamplingSettings(
        width_px,
        height_px,
        config.validation_num_inference_steps,
        config.validation_guidance,
        config.validation_preview_steps,
    )
