"""The `generate` job: images from a run, a checkpoint of it, or an adapter."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamspace.config import DatasetConfig, RunConfig, read_datasets, subject_dataset
from dreamspace.data.geometry import dataset_edge_px
from dreamspace.data.hub_dataset import local_copy
from dreamspace.data.photos import photo_files
from dreamspace.data.samples import Sample, read_samples
from dreamspace.files import replace_file
from dreamspace.jobs.control import consume_control
from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.workspace import cache_of
from dreamspace.models.adapters import changes_text, load_into_pipeline
from dreamspace.models.base import BaseModel, base_config, open_model
from dreamspace.models.family import PictureFamily
from dreamspace.models.preview_choice import new_previewer
from dreamspace.models.previews import announced_previews
from dreamspace.models.sampling import (
    NOT_FINITE_HINT,
    SamplingSettings,
    sample_images,
    sampling_size_px,
    with_pictures,
)
from dreamspace.models.text import TextEncoders
from dreamspace.run_folder import WEIGHTS_NAME, trained_folder, weights_file


def generate(job_dir: Path, arguments: dict[str, Any], events: EventWriter) -> None:
    """Draw an image of each prompt, with previews; all from the same seed.

    Where `out` lies outside the job folder, events hold full paths of the images.

    Args:
        arguments: `prompts` (list), `seed`; `run_dir` (and `checkpoint`, a step, or null for the final
            adapter, and `ema`, true for the moving average), or `model` and `adapter`;
            `num_inference_steps` and `guidance` (null takes the run's); `out`, a folder for the images (null
            takes `images/` in the job folder).

    Raises:
        ValueError: if there is no such adapter, it belongs to another model, or that draws from the photos of
            a run and none is given.
    """
    subject = _subject(arguments)
    config = subject.config
    model = open_model(config, cache_of(job_dir))
    settings = _settings(arguments, subject, model)
    prompts, seed = arguments["prompts"], arguments["seed"]
    events.write("stage", name="loading", message="Loading the model and the adapter.")
    told = [*prompts, config.validation_negative_prompt]
    has_text = subject.adapter is not None and changes_text(subject.adapter)
    conditioning = {} if has_text else model.encode_prompts(told)
    pipeline = model.pipeline(model.load_denoiser(), model.load_vae(model.denoiser_dtype), has_text)
    if subject.adapter is not None:
        load_into_pipeline(pipeline, model.family, subject.adapter)
    if has_text:
        conditioning = TextEncoders(model.family, pipeline).rows(told)
    rows = [conditioning[prompt] for prompt in prompts]
    if isinstance(model.family, PictureFamily):
        rows = with_pictures(rows, _subject_photos(arguments, config, model), settings)
    previewer = new_previewer(model, events, config.validation_preview_model)
    out = Path(arguments.get("out") or job_dir / "images")
    numbers = [int(path.stem) for path in photo_files(out) if path.stem.isdecimal()]
    first = max(numbers, default=-1) + 1  # Images that are there already stay.
    events.write("stage", name="generating", message="Drawing.")
    for index, prompt in enumerate(prompts):
        if consume_control(job_dir, "stop"):
            events.write("stopped", step=index, path=_shown(out, job_dir))
            return
        image = sample_images(
            model.family,
            pipeline,
            [rows[index]],
            conditioning[config.validation_negative_prompt],
            [seed],
            settings,
            previewer,
            announced_previews(
                events, job_dir, [prompt], settings.num_inference_steps, seeds=[seed], first_index=index
            ),
        )[0]
        if image is None:
            message = f"The image of '{prompt}' is not finite, and there is none."
            events.write("warning", message=message, hint=NOT_FINITE_HINT)
            continue
        path = out / f"{first + index}.png"
        with replace_file(path) as temporary:
            image.save(temporary)
        events.write(
            "sample",
            step=arguments.get("checkpoint"),
            prompt=prompt,
            seed=seed,
            width=image.width,
            height=image.height,
            path=_shown(path, job_dir),
            weights="base" if subject.adapter is None else "ema" if arguments.get("ema") else "trained",
        )
    events.write("done", path=_shown(out, job_dir))


@dataclass(frozen=True)
class _Subject:
    """What is drawn with: the configuration, the adapter (None: the base model alone), the run's dataset."""

    config: RunConfig
    adapter: Path | None
    dataset: DatasetConfig | None


def _subject(arguments: dict[str, Any]) -> _Subject:
    if not arguments.get("run_dir"):
        adapter = Path(arguments["adapter"]) if arguments.get("adapter") else None
        if adapter is not None and weights_file(adapter) is None:
            raise ValueError(f"There is no adapter in {adapter}: it holds no {WEIGHTS_NAME}. Check the path.")
        return _Subject(base_config(arguments["model"]), adapter, None)
    run_dir, step = Path(arguments["run_dir"]), arguments.get("checkpoint")
    config = RunConfig.load(run_dir / "config.json")
    dataset = subject_dataset(read_datasets(run_dir / "multidatabackend.json"))
    adapter = trained_folder(run_dir, config, step, bool(arguments.get("ema")))
    return _Subject(config, adapter, dataset)


def _subject_photos(arguments: dict[str, Any], config: RunConfig, model: BaseModel) -> list[Sample]:
    """The photos of the run's subject, as they are trained on."""
    if not arguments.get("run_dir"):
        raise ValueError(
            f"{model.name} upscales or refines pictures, and takes the photos of a run. Give the run instead."
        )
    found = read_datasets(Path(arguments["run_dir"]) / "multidatabackend.json")
    datasets = [local_copy(dataset, model.cache / "datasets")[0] for dataset in found]
    return [
        sample
        for dataset in datasets
        if dataset.is_trained and not dataset.is_regularisation_data
        for sample in read_samples(dataset, datasets, model.multiple_px, config.seed)[0]
    ]


def _settings(arguments: dict[str, Any], subject: _Subject, model: BaseModel) -> SamplingSettings:
    """As the run's validation images are drawn, but for what the arguments say otherwise."""
    config, dataset = subject.config, subject.dataset
    edge = model.native_resolution_px if dataset is None else dataset_edge_px(dataset, model.multiple_px)
    width_px, height_px = sampling_size_px(config, (edge, edge))
    return SamplingSettings(
        width_px,
        height_px,
        arguments.get("num_inference_steps") or config.validation_num_inference_steps,
        config.validation_guidance if arguments.get("guidance") is None else arguments["guidance"],
        config.validation_preview_steps,
    )


def _shown(path: Path, job_dir: Path) -> Path:
    """A path as events hold it: relative to the job folder where it lies in it."""
    return path.relative_to(job_dir) if path.is_relative_to(job_dir) else path
