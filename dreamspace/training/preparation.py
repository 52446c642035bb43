"""Everything before the first step: samples, masks, latents and conditioning, one part at a time."""

import functools
import hashlib
import itertools
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from dreamspace.config import DatasetConfig, RunConfig, subject_prompt
from dreamspace.config.prompt_library import library_prompts
from dreamspace.data.cache import TensorCache, cache_latents, latents_key
from dreamspace.data.evaluation_photos import EvaluationPhotos, split_photos
from dreamspace.data.hub_dataset import local_copy
from dreamspace.data.photos import unread_pictures
from dreamspace.data.plan import PlannedDataset, StepPlan
from dreamspace.data.samples import Sample, read_samples
from dreamspace.data.sharpness import softness_warnings
from dreamspace.evaluation.plan import evaluation_plan
from dreamspace.jobs.events import EventWriter
from dreamspace.models.base import BaseModel
from dreamspace.models.family import Conditioning, Family, PictureFamily
from dreamspace.models.sampling import SamplingSettings, sampling_size_px
from dreamspace.models.text import TextEncoders
from dreamspace.prompts.pieces import tokenizers_of
from dreamspace.prompts.preview import unread_warning
from dreamspace.training.eval_loss import EvalPhoto
from dreamspace.training.masked_loss import is_black

MIXTURE_STEPS = 20_000
"""The mixture is counted over at most so many steps: a second's work."""

SOFTNESS_HINT = (
    "This model learns the finest detail of the photos, and there is none here. Use a sharper photo, or a "
    "lower resolution."
)


@dataclass
class TrainingSet:
    """What the loop reads from.

    Attributes:
        samples, latents, masks: of each dataset of the plan; latents (C, h, w), masks (h, w) in [0, 1] or
            None where all of a photo counts.
        conditioning: of every caption, and of the prompts to validate and evaluate with.
        judged_by: the photos that the run is judged by.
        eval_photos: by dataset, those of them that the eval loss is measured on.
    """

    samples: list[list[Sample]]
    latents: list[list[Tensor]]
    masks: list[list[Tensor | None]]
    plan: StepPlan
    conditioning: dict[str, Conditioning]
    judged_by: EvaluationPhotos
    eval_photos: dict[str, list[EvalPhoto]]

    @property
    def digest(self) -> str:
        """16 hex digits that tell what is trained on: photos, captions, masks, and how often each is seen."""
        shown = [
            (latents_key(sample, ""), sample.captions, sample.regularisation, _mask_key(sample, mask))
            for samples, masks in zip(self.samples, self.masks, strict=True)
            for sample, mask in zip(samples, masks, strict=True)
        ]
        return hashlib.sha256(repr((self.plan.datasets, shown)).encode()).hexdigest()[:16]

    @property
    def num_prior(self) -> int:
        """How many class images there are, of either target."""
        return sum(sample.regularisation is not None for samples in self.samples for sample in samples)

    @property
    def instances(self) -> list[Sample]:
        """The photos of the subject, in the order of the datasets and their files."""
        return [sample for samples in self.samples for sample in samples if sample.regularisation is None]

    @property
    def different_instances(self) -> list[Sample]:
        """Each photo of the subject that is trained on once, though datasets may show it at several sizes."""
        return EvaluationPhotos({"": self.instances}, "weak").different

    @property
    def num_instances(self) -> int:
        """How many photos of the subject there are."""
        return len(self.instances)

    def still_held_out(self, recorded: Collection[str] | None) -> set[str]:
        """The content ids of the photos that the run has held out so far and does not train on now."""
        judged_by = self.judged_by.different if self.judged_by.evidence == "held_out" else []
        chosen = {sample.content_id for sample in judged_by} if recorded is None else set(recorded)
        return chosen - {sample.content_id for sample in self.instances}

    def mixture(self, num_steps: int) -> dict[str, float]:
        """The share of each dataset among the rows of a run, by its plan."""
        return self.plan.mixture(min(num_steps, MIXTURE_STEPS))


def _mask_key(sample: Sample, mask: Tensor | None) -> str | None:
    if sample.mask is None or mask is None:
        return None
    return f"{sample.mask.kind}:{hashlib.sha256(mask.numpy().tobytes()).hexdigest()}"


def validation_prompts(config: RunConfig, datasets: list[DatasetConfig]) -> list[str]:
    """The prompts to validate with, each once: the subject's if none is given, the others, the library's.

    Raises:
        ValueError: as `library_prompts`, or if nothing says how to call the subject.
    """
    first = config.validation_prompt or subject_prompt(config, datasets)
    library = config.validation_prompt_library
    more = library_prompts(library, config.token, config.class_word) if library else {}
    return list(dict.fromkeys([first, *config.validation_prompts, *more.values()]))


def validation_photos(family: Family, prompts: list[str], training_set: TrainingSet) -> dict[str, Sample]:
    """The photo of the subject that each prompt draws from; none where the family draws from nothing."""
    if not isinstance(family, PictureFamily):
        return {}
    return dict(zip(prompts, itertools.cycle(training_set.instances), strict=False))


def local_datasets(datasets: list[DatasetConfig], cache: Path, events: EventWriter) -> list[DatasetConfig]:
    """The datasets, those of the Hub's kind as folders here.

    Raises:
        ValueError: if one cannot be fetched or read.
    """
    found = []
    for dataset in datasets:

        def on_progress(done: int, name: str = dataset.id) -> None:
            if done % 100 == 0:
                events.write("stage", name="caching", message=f"Fetching '{name}': {done} pictures.")

        local, warnings = local_copy(dataset, cache / "datasets", on_progress)
        found.append(local)
        for warning in warnings:
            events.write("warning", message=warning, hint="")
    return found


def read_training_set(
    config: RunConfig,
    datasets: list[DatasetConfig],
    model: BaseModel,
    events: EventWriter,
    step_rows: int,
    text: TextEncoders | None = None,
    held_out: Collection[str] | None = None,
) -> TrainingSet:
    """Read all photos, encode what is not cached, and leave neither VAE nor text encoder in memory.

    Args:
        text: the text encoders as they are before the training, where they are trained.
        datasets: all of the run, local ones; those of masks and caches among them.
        step_rows: rows of a full global step, over all ranks and micro-batches.
        held_out: the photos that the run has held out so far; see `split_photos`.

    Raises:
        ValueError: if a folder holds no photo that can be used, a resolution does not fit, or a caption or
            mask is missing, no mask shows anything of the subject, or no caption holds the token to learn.
    """
    events.write("stage", name="caching", message="Reading photos.")
    trained = [dataset for dataset in datasets if dataset.is_trained]
    folders = [dataset.instance_data_dir for dataset in datasets]
    for folder in dict.fromkeys(dataset.instance_data_dir for dataset in trained):
        for warning in unread_pictures(folder, folders):
            events.write("warning", message=warning, hint="")
    samples, judged_by = _read_photos(config, datasets, trained, model, events, held_out)
    plan = StepPlan(
        [_planned(dataset, found) for dataset, found in zip(trained, samples, strict=True)],
        config.seed,
        step_rows,
        config.data_backend_sampling,
        config.max_train_steps,
    )
    evaluated = _eval_samples(config, judged_by)
    by_id = {dataset.id: dataset for dataset in datasets}
    latents = _cached_latents(
        [*trained, *(by_id[name] for name in evaluated)],
        [*samples, *evaluated.values()],
        model,
        events,
        cache_folder(datasets, "image_embeds"),
    )
    latents, eval_latents = latents[: len(trained)], latents[len(trained) :]
    eval_photos = {
        name: [EvalPhoto(sample, rows) for sample, rows in zip(found, encoded, strict=True)]
        for (name, found), encoded in zip(evaluated.items(), eval_latents, strict=True)
    }
    masks = _read_masks(samples, latents, events)
    events.write("stage", name="caching", message="Encoding prompts.")
    shown = [*samples, *judged_by.samples.values()]
    prompts = [caption for found in shown for sample in found for caption in sample.captions]
    _warn_of_unread(prompts, model, events)
    prompts += [*validation_prompts(config, datasets), config.validation_negative_prompt]
    if config.evaluate_checkpoints:
        prompts += evaluation_plan(config, datasets).all_prompts
    if config.caption_dropout_probability:
        prompts.append("")
    if text is None:
        conditioning = model.encode_prompts(prompts, cache_folder(datasets, "text_embeds"))
    else:
        _check_token(config, samples)
        conditioning = text.rows(prompts)
    return TrainingSet(samples, latents, masks, plan, conditioning, judged_by, eval_photos)


def _warn_of_unread(captions: list[str], model: BaseModel, events: EventWriter) -> None:
    """Warn of captions that are too long for the text encoders."""
    try:
        message = unread_warning(captions, tokenizers_of(str(model.folder)))
    except ValueError:
        return  # The pipeline may read a tokenizer in a form that nothing but transformers reads.
    if message is not None:
        hint = "Shorten these captions, or say what matters first; `words` shows where each is cut."
        events.write("warning", message=message, hint=hint)


def _read_photos(
    config: RunConfig,
    datasets: list[DatasetConfig],
    trained: list[DatasetConfig],
    model: BaseModel,
    events: EventWriter,
    held_out: Collection[str] | None,
) -> tuple[list[list[Sample]], EvaluationPhotos]:
    """The samples of each dataset that is trained on, and the photos that the run is judged by."""
    found: dict[str, list[Sample]] = {}
    for dataset in trained:
        samples, warnings = read_samples(dataset, datasets, model.multiple_px, config.seed)
        found[dataset.id] = samples
        for warning in warnings:
            events.write("warning", message=warning, hint="")
        if isinstance(model.family, PictureFamily) and not dataset.is_regularisation_data:
            for warning in softness_warnings(samples):
                events.write("warning", message=warning, hint=SOFTNESS_HINT)
    left, judged_by, warnings = split_photos(config, datasets, found, model.multiple_px, held_out)
    for warning in warnings:
        events.write("warning", message=warning, hint="")
    return [left[dataset.id] for dataset in trained], judged_by


def _eval_samples(config: RunConfig, judged_by: EvaluationPhotos) -> dict[str, list[Sample]]:
    """By dataset, the photos that the eval loss is measured on: none that the run learns from."""
    if config.eval_loss_disable or judged_by.evidence == "weak":
        return {}
    return {
        name: sorted(samples, key=lambda sample: sample.content_id)[: config.num_eval_images]
        for name, samples in judged_by.samples.items()
        if samples
    }


def _check_token(config: RunConfig, samples: list[list[Sample]]) -> None:
    """Whether a caption holds the token that is to be learned, if one is."""
    captions = [caption for found in samples for sample in found for caption in sample.captions]
    if config.num_token_vectors and not any(config.token in caption for caption in captions):
        raise ValueError(
            f"No caption holds the token {config.token}, so that it would not be learned. Write it into the "
            f"instance prompt, such as 'a photo of a {config.token} {config.class_word or 'dog'}'."
        )


def cache_folder(datasets: list[DatasetConfig], kind: Literal["text_embeds", "image_embeds"]) -> Path | None:
    """The folder that the datasets name for a cache, the default one first; None where none does."""
    found = [dataset for dataset in datasets if dataset.dataset_type == kind and dataset.cache_dir]
    return min(found, key=lambda dataset: not dataset.default).cache_dir if found else None


def _planned(dataset: DatasetConfig, samples: list[Sample]) -> PlannedDataset:
    return PlannedDataset(
        dataset.id,
        tuple(sample.geometry.size for sample in samples),
        dataset.repeats + 1,
        dataset.probability,
        dataset.start_step,
        dataset.end_step,
    )


def _read_masks(
    samples: list[list[Sample]], latents: list[list[Tensor]], events: EventWriter
) -> list[list[Tensor | None]]:
    """The mask of each sample at its latents' cells, and a warning for each that is black there.

    Raises:
        ValueError: if those of all photos of the subject are.
    """
    masks: list[list[Tensor | None]] = []
    black: list[Sample] = []
    for found, encoded in zip(samples, latents, strict=True):
        masks.append([])
        for sample, rows in zip(found, encoded, strict=True):
            cells = sample.mask and sample.mask.cells(sample.geometry, rows.shape[-1], rows.shape[-2])
            masks[-1].append(None if cells is None else torch.from_numpy(cells.copy()))
            if cells is not None and is_black(masks[-1][-1]):
                black.append(sample)
    instances = [sample for found in samples for sample in found if sample.regularisation is None]
    if black and all(sample in black for sample in instances):
        raise ValueError(
            f"The masks of all photos of the subject, in {black[0].mask.path.parent}, are black at the size "
            "that the loss sees, so that nothing would be learned. Make them white where the subject is, "
            "grow them, or train without masks."
        )
    for sample in black:
        events.write(
            "warning",
            message=f"At the size that the loss sees, nothing is left of the mask of {sample.path.name}, so "
            "nothing is learned from this photo.",
            hint="Make it white where the subject is, grow it, or train at a higher resolution.",
        )
    return masks


def _cached_latents(
    datasets: list[DatasetConfig],
    samples: list[list[Sample]],
    model: BaseModel,
    events: EventWriter,
    cache_dir: Path | None,
) -> list[list[Tensor]]:
    @functools.cache
    def vae() -> nn.Module:
        return model.load_vae()

    def encode(pixels: Tensor) -> Tensor:
        return model.family.encode_image(vae(), pixels.to(model.device))

    def on_progress(done: int, total: int) -> None:
        events.write("stage", name="caching", message=f"Encoding photos: {done} of {total}.")

    return [
        cache_latents(
            TensorCache(dataset.cache_dir_vae or cache_dir or model.cache / "latents"),
            found,
            model.vae_fingerprint,
            encode,
            on_progress,
        )
        for dataset, found in zip(datasets, samples, strict=True)
    ]


def sampling_settings(
    config: RunConfig, training_size: tuple[int, int], multiple_px: int
) -> SamplingSettings:
    """How validation images are drawn, those of the first size.

    Args:
        training_size: (width, height) of the training images in px.
        multiple_px: the edges of the model's images are multiples of this.

    Raises:
        ValueError: if `validation_resolution` is not such a multiple.
    """
    for edge in itertools.chain.from_iterable(config.validation_sizes_px):
        if edge % multiple_px:
            nearest = max(multiple_px, round(edge / multiple_px) * multiple_px)
            raise ValueError(
                f"validation_resolution must be a multiple of {multiple_px} px for this model, got {edge}. "
                f"Try {nearest}."
            )
    return SamplingSettings(
        *sampling_size_px(config, training_size),
        config.validation_num_inference_steps,
        config.validation_guidance,
        config.validation_preview_steps,
    )
