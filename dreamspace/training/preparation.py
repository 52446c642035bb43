"""Everything before the first step: samples, class images, latents and conditioning, one model part at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dreamspace.config import DatasetConfig, RunConfig, instance_prompt
from dreamspace.data.cache import TensorCache, cache_latents
from dreamspace.data.plan import PlannedDataset, RowPlan
from dreamspace.data.samples import Sample, read_samples
from dreamspace.jobs.events import EventWriter
from dreamspace.models.base import BaseModel
from dreamspace.models.class_images import draw_class_images
from dreamspace.models.family import Conditioning
from dreamspace.models.sampling import SamplingSettings
from dreamspace.models.source import fingerprint
from dreamspace.training.validation import validation_size_px


@dataclass
class TrainingSet:
    """What the loop reads from: per dataset its samples and latents, the plan, and all conditioning."""

    samples: list[list[Sample]]
    latents: list[list[Tensor]]
    plan: RowPlan
    conditioning: dict[str, Conditioning]

    @property
    def size_px(self) -> tuple[int, int]:
        return self.samples[0][0].geometry.size


def validation_prompts(config: RunConfig, datasets: list[DatasetConfig]) -> list[str]:
    """The prompts to validate with: the instance prompt where none is given, then the further ones; each once."""
    first = config.validation_prompt
    if first is None:
        subject = next(dataset for dataset in datasets if not dataset.is_regularisation_data)
        known = config.class_word is not None
        first = instance_prompt(config.token, config.class_word) if known else subject.instance_prompts[0]
    return list(dict.fromkeys([first, *config.validation_prompts]))


def fill_class_folder(
    config: RunConfig,
    datasets: list[DatasetConfig],
    model: BaseModel,
    resolution_px: int,
    events: EventWriter,
    should_stop: Callable[[], bool],
) -> None:
    """Let the base model draw the class images that the regularisation dataset lacks, if any are asked for."""
    regularisation = next((dataset for dataset in datasets if dataset.is_regularisation_data), None)
    if regularisation is None or not config.num_class_images:
        return
    folder = regularisation.instance_data_dir
    count = max(0, config.num_class_images - _num_own_images(folder))
    settings = SamplingSettings(
        resolution_px, resolution_px, config.validation_num_inference_steps, config.validation_guidance
    )

    def on_progress(done: int, total: int) -> None:
        events.write("stage", name="prior", message=f"Drawing class images: {done} of {total}.")

    draw_class_images(
        model, regularisation.instance_prompts, count, config.seed, folder, settings, on_progress, should_stop
    )


def _num_own_images(folder: Path) -> int:
    """Images in a class folder that were not drawn by the base model: its names are 16 hex digits."""
    names = [path.stem for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    return sum(len(name) != 16 or not set(name) <= set("0123456789abcdef") for name in names)


def read_training_set(
    config: RunConfig, datasets: list[DatasetConfig], model: BaseModel, events: EventWriter
) -> TrainingSet:
    """Read all photos, encode what is not cached, and leave neither VAE nor text encoder in memory."""
    multiple_px = model.family.multiple_px(model.folder)
    samples = []
    for dataset in datasets:
        found, warnings = read_samples(dataset, multiple_px)
        samples.append(found)
        for warning in warnings:
            events.write("warning", message=warning, hint="")
    planned = [
        PlannedDataset(dataset.id, len(found), (dataset.repeats + 1) if dataset.probability > 0 else 0)
        for dataset, found in zip(datasets, samples, strict=True)
    ]
    events.write("stage", name="caching", message="Encoding photos.")
    vae = model.family.load_vae(model.folder, model.device)

    vae_fingerprint = fingerprint(model.folder / "vae")

    def on_progress(done: int, total: int) -> None:
        events.write("stage", name="caching", message=f"Encoding photos: {done} of {total}.")

    latents = [
        cache_latents(
            TensorCache(dataset.cache_dir_vae or model.cache / "latents"),
            found,
            vae_fingerprint,
            lambda pixels: model.family.encode_image(vae, pixels.to(model.device)),
            on_progress,
        )
        for dataset, found in zip(datasets, samples, strict=True)
    ]
    captions = [caption for found in samples for sample in found for caption in sample.captions]
    prompts = validation_prompts(config, datasets)
    conditioning = model.encode_prompts([*captions, *prompts, config.validation_negative_prompt, ""])
    return TrainingSet(samples, latents, RowPlan(planned, config.seed), conditioning)


def sampling_settings(config: RunConfig, training_size: tuple[int, int]) -> SamplingSettings:
    """How validation images are drawn."""
    width_px, height_px = validation_size_px(config, training_size)
    return SamplingSettings(
        width_px,
        height_px,
        config.validation_num_inference_steps,
        config.validation_guidance,
        config.validation_preview_steps,
    )
