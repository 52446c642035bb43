"""What a run needs before its loop: settings that fit the model, what is trained on, and what is trained."""

from collections.abc import Collection
from pathlib import Path

import torch
from accelerate import Accelerator

from dreamspace.config import DatasetConfig, RunConfig, subject_dataset
from dreamspace.data.geometry import dataset_edge_px
from dreamspace.data.samples import check_files
from dreamspace.jobs.control import stop_requested
from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.webhook import read_targets
from dreamspace.models.adapters import Adapter, new_adapter
from dreamspace.models.base import BaseModel
from dreamspace.models.sampling import SamplingSettings
from dreamspace.models.text import TextEncoders, check_text
from dreamspace.models.weights import check_weights
from dreamspace.training.class_folder import class_dataset, fill_class_folder
from dreamspace.training.ema import MovingAverage
from dreamspace.training.optimizers import check_optimizer
from dreamspace.training.preparation import (
    TrainingSet,
    local_datasets,
    read_training_set,
    sampling_settings,
    validation_prompts,
)
from dreamspace.training.ranks import consume_requests
from dreamspace.training.rollout import uses_reflexflow
from dreamspace.training.schedule import NoiseSchedule, noise_schedule


def check_run(
    config: RunConfig, datasets: list[DatasetConfig], model: BaseModel
) -> tuple[NoiseSchedule, SamplingSettings]:
    """Find what is wrong before anything is loaded; returns what follows from the model's configuration.

    Raises:
        ValueError: if settings do not fit the model, the optimizer or each other, or files are missing.
    """
    check_optimizer(config, model.device.type)
    check_text(config, model)
    schedule = noise_schedule(model.noise_scheduler(), config.rescale_betas_zero_snr)
    uses_reflexflow(config, schedule)
    multiple_px = model.multiple_px
    edges = {dataset.id: dataset_edge_px(dataset, multiple_px) for dataset in datasets if dataset.is_trained}
    edge = edges[subject_dataset(datasets).id]
    settings = sampling_settings(config, (edge, edge), multiple_px)
    validation_prompts(config, datasets)
    if config.webhook_config is not None:
        read_targets(Path(config.webhook_config))
    drawn = class_dataset(config, datasets, priors_of(model))
    folder = None if drawn is None else drawn.instance_data_dir
    check_files(datasets, [d.id for d in datasets if folder and d.instance_data_dir == folder])
    return schedule, settings


def priors_of(model: BaseModel) -> Path:
    """The workspace's folder of class images."""
    return model.cache.with_name("priors")


def prepared(
    config: RunConfig,
    datasets: list[DatasetConfig],
    model: BaseModel,
    accelerator: Accelerator,
    job_dir: Path,
    events: EventWriter,
    text: TextEncoders | None = None,
    held_out: Collection[str] | None = None,
) -> tuple[list[DatasetConfig], TrainingSet] | None:
    """The datasets as they lie here and what is trained on, encoded; None if a stop was asked for.

    Args:
        held_out: the photos that the run has held out so far; see `split_photos`.
    """
    if accelerator.is_main_process:
        drawn = class_dataset(config, datasets, priors_of(model))
        if drawn is not None:
            fill_class_folder(config, drawn, model, events, lambda: stop_requested(job_dir))
    if "stop" in consume_requests(accelerator, job_dir):
        return None
    step_rows = config.train_batch_size * config.gradient_accumulation_steps * accelerator.num_processes
    with accelerator.main_process_first():
        datasets = local_datasets(datasets, model.cache, events)
        return datasets, read_training_set(config, datasets, model, events, step_rows, text, held_out)


def load_trainable(
    config: RunConfig, model: BaseModel, begins: bool = True, text: TextEncoders | None = None
) -> tuple[torch.nn.Module, Adapter]:
    """The denoiser on its device, in training mode, and what is trained of it.

    Args:
        begins: whether the run starts at its first step, with `init_lora`; else a checkpoint follows.
    """
    adapter = new_adapter(config, model, text)
    if begins and config.init_lora is not None:
        check_weights(Path(config.init_lora))
        adapter.load(Path(config.init_lora))
    if config.gradient_checkpointing:
        adapter.denoiser.enable_gradient_checkpointing()
    if config.dynamo_backend != "no":
        adapter.denoiser.compile(backend=config.dynamo_backend)  # In place, so that all names stay.
    return adapter.denoiser.train(), adapter


def new_ema(config: RunConfig, adapter: Adapter) -> MovingAverage | None:
    """The moving average of a run, if it has one."""
    if not config.use_ema:
        return None
    device = "cpu" if config.ema_device == "cpu" else adapter.parameters[0].device
    return MovingAverage(
        adapter.parameters, config.ema_decay, config.ema_update_interval, config.ema_warmup_steps, device
    )
